"""Remedies applied: a command fails and names what to do; done so, it succeeds.

Many more errors have remedies; these are the ones that can be tried quickly, one row each.
"""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from fourds_dist.cli.dispatch import main
from fourds_dist.config.loading import builtin_config, dump, load
from fourds_dist.config.section import ConfigError
from fourds_dist.stages.settings import Settings
from tests.fuzz.files import student_file

Words = list[str]


class Row(NamedTuple):
    fails: Callable[[Path], Words]
    """Prepares a folder; the words of `fourds` that are refused."""
    names: str
    """What the refusal names, a regular expression."""
    helps: Callable[[Path, Words, str], Words]
    """The words as the refusal advises, from the folder, the first words and the refusal."""


def image(number: int = 0, extension: str = "png") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(out, {"jpg": "JPEG"}.get(extension, extension))
    return out.getvalue()


def pictures(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> Path:
    for k, name in enumerate(classes):
        for n in range(count):
            path = folder / "pictures" / name / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image(100 * k + n))
    return folder / "pictures"


def write_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def class_list(folder: Path, *names: str) -> str:
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return str(folder / "classes.txt")


def with_(*more: str) -> Callable[[Path, Words, str], Words]:
    """The same words, and more."""
    return lambda folder, words, told: [*words, *more]


def with_classes(*names: str) -> Callable[[Path, Words, str], Words]:
    return lambda folder, words, told: [*words, "--classes", class_list(folder, *names)]


def command_told(folder: Path, words: Words, told: str) -> Words:
    """The command in the refusal, word for word."""
    (command,) = re.findall(r"`python -m fourds_dist\.([^`]+)`", told)
    return shlex.split(command)


def broken_image(folder: Path) -> Words:
    (pictures(folder) / "cat" / "0.png").write_bytes(b"no image")
    return ["pack", "folder", str(folder / "pictures"), str(folder / "out")]


def no_classes(folder: Path) -> Words:
    for n in range(6):
        (folder / "flat").mkdir(exist_ok=True)
        (folder / "flat" / f"{n}.png").write_bytes(image(n))
    return [
        "pack",
        "folder",
        str(folder / "flat"),
        str(folder / "out"),
        "--val-fraction",
        "0",
        "--test-fraction",
        "0",
    ]


def another_set_there(folder: Path) -> Words:
    words = ["pack", "folder", str(pictures(folder)), str(folder / "out")]
    assert main([*words, "--seed", "1"]) == 0
    return [*words, "--seed", "2"]


def missing_in_list(folder: Path) -> Words:
    pictures(folder)
    rows = [f"pictures/{name}/{n}.png\t{name}\n" for name in ("cat", "dog") for n in range(11)]
    (folder / "list.txt").write_text("".join(rows))
    return ["pack", "list", str(folder / "list.txt"), str(folder / "out")]


def unlabelled_list(folder: Path) -> Words:
    pictures(folder)
    (folder / "list.txt").write_text("".join(f"pictures/cat/{n}.png\t\n" for n in range(9)))
    return [
        "pack",
        "list",
        str(folder / "list.txt"),
        str(folder / "out"),
        "--val-fraction",
        "0",
        "--test-fraction",
        "0",
    ]


def names_in_txt(folder: Path) -> Words:
    members = [
        (f"{n}.{kind}", data)
        for n in range(6)
        for kind, data in (("jpg", image(n, "jpg")), ("txt", b"cat" if n % 2 else b"dog"))
    ]
    write_tar(folder / "tars" / "train-0.tar", *members)
    return ["pack", "index", str(folder / "tars")]


def no_labels(folder: Path) -> Words:
    write_tar(folder / "tars" / "train-0.tar", *((f"{n}.jpg", image(n, "jpg")) for n in range(6)))
    return ["pack", "index", str(folder / "tars"), "--classes", class_list(folder, "cat", "dog")]


def no_class_list(folder: Path) -> Words:
    write_tar(folder / "tars" / "train-0.tar", *((f"{n}.jpg", image(n, "jpg")) for n in range(6)))
    return ["pack", "index", str(folder / "tars"), "--unlabelled"]


def names_and_numbers(folder: Path) -> Words:
    members = [
        (f"{n}.{kind}", data)
        for n in range(4)
        for kind, data in (
            ("jpg", image(n, "jpg")),
            ("txt", b"cat"),
            ("json", b'{"a": 0}' if n else b'{"a": "cat"}'),
        )
    ]
    write_tar(folder / "tars" / "train-0.tar", *members)
    return ["pack", "index", str(folder / "tars"), "--label", "json:a"]


def several_images(folder: Path) -> Words:
    members = [
        (f"{n}.{kind}", data)
        for n in range(4)
        for kind, data in (
            ("left.jpg", image(n, "jpg")),
            ("right.jpg", image(n, "jpg")),
            ("cls", b"0" if n % 2 else b"1"),
        )
    ]
    write_tar(folder / "tars" / "train-0.tar", *members)
    return ["pack", "index", str(folder / "tars")]


def tars_without_manifest(folder: Path) -> Words:
    members = [
        (f"{n}.{kind}", data)
        for n in range(4)
        for kind, data in (("jpg", image(n, "jpg")), ("cls", b"%d" % (n % 2)))
    ]
    write_tar(folder / "tars" / "train-0.tar", *members)
    return ["pack", "verify", str(folder / "tars")]


def several_runs(folder: Path) -> Words:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(dump(load(Settings, builtin_config("quickstart.yaml"))))
    return ["report", str(folder / "a"), str(folder / "b")]


def student_without_data(folder: Path) -> Words:
    (folder / "student.safetensors").write_bytes(student_file(classes=("cat", "dog"), more={}))
    pictures(folder)
    return ["evaluate", str(folder / "student.safetensors")]


def misspelt_command(folder: Path) -> Words:
    return ["doctro", "--help"]


ROWS = {
    "an image that cannot be read": Row(broken_image, "--skip-bad", with_("--skip-bad")),
    "images without class folders": Row(
        no_classes, "--unlabelled", lambda f, w, t: [*w, "--unlabelled", "--classes", class_list(f, "cat", "dog")]
    ),
    "another data set in the place": Row(another_set_there, "--overwrite", with_("--overwrite")),
    "a list with images that are not there": Row(missing_in_list, "--skip-bad", with_("--skip-bad")),
    "a list without labels": Row(unlabelled_list, "--classes", with_classes("cat", "dog")),
    "tars with labels in txt": Row(names_in_txt, "--label", with_("--label", "txt")),
    "tars without labels": Row(no_labels, "--unlabelled", with_("--unlabelled")),
    "tars without labels and classes": Row(no_class_list, "--classes", with_classes("cat", "dog")),
    "tars with names and numbers": Row(names_and_numbers, "--classes", with_classes("cat", "dog")),
    "tars with two images a sample": Row(
        several_images, "--image", lambda f, w, t: [*w, *re.search(r"--image [\w.]+", t)[0].split()]  # pyright: ignore
    ),
    "tars without a manifest": Row(tars_without_manifest, "pack index", command_told),
    "two runs and no place for their report": Row(several_runs, "--out", lambda f, w, t: [*w, "--out", str(f / "out")]),
    "a student of unknown target": Row(student_without_data, "give DATA", lambda f, w, t: [*w, str(f / "pictures")]),
    "a misspelt command": Row(
        misspelt_command, "did you mean", lambda f, w, t: [re.findall(r"did you mean '(\w+)'", t)[0], *w[1:]]
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_is_advised_helps(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = row.fails(tmp_path)
    capsys.readouterr()
    assert main(words) in (1, 2)
    told = capsys.readouterr().err
    assert re.search(row.names, told), told
    advised = row.helps(tmp_path, words, told)
    try:
        status = main(advised)
    except SystemExit as end:  # --help
        status = end.code
    assert not status, capsys.readouterr().err
    if "index" in words or "verify" in words:
        assert main(["pack", "verify", words[2]]) == 0


NEAREST = r"unknown key '([\w.]+)'.*did you mean '([\w.]+)'"
OVERRIDES: dict[str, tuple[str, str, Callable[..., str]]] = {
    "a misspelt section": ("lanch.workers=2", NEAREST, lambda word, wrong, right: word.replace(wrong, right)),
    "a misspelt key": ("launch.wokers=2", NEAREST, lambda word, wrong, right: word.replace(wrong, right)),
    "a key in the wrong section": (
        "run.workers=2",
        NEAREST,
        lambda word, wrong, right: word.replace(wrong, right),
    ),
    "a word that is no key=value": ("launch.workers", r"e\.g\. (\S+)", lambda word, example: example),
    "a date where a word is meant": ("run.name=2001-01-01", "quotes", lambda word: 'run.name="2001-01-01"'),
}


@pytest.mark.parametrize(("word", "names", "helps"), OVERRIDES.values(), ids=OVERRIDES)
def test_what_is_advised_of_keys_helps(word: str, names: str, helps: Callable[..., str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load(Settings, None, ["target.url=x", word])
    found = re.search(names, str(refused.value))
    assert found, str(refused.value)
    load(Settings, None, ["target.url=x", helps(word, *found.groups())])
