"""What fuzzing found, as small as it became, with what is said of it now."""

from __future__ import annotations

import bz2
import gzip
import io
import struct

import numpy as np
import pytest
import torch

from fourds_dist.runs.events import EpochEnded, StageEnded, Validation, decode, decode_lines, encode
from fourds_dist.training.checkpoint.learning_state import FORMAT
from tests.fuzz.datasets import dataset, idx_files, tars
from tests.fuzz.files import student_file, weights
from tests.fuzz.running import TARGETS, write_files
from tests.fuzz.settings import BOMB

NESTED = b"[" * 100_000


def index_with(**columns: np.ndarray) -> bytes:
    with np.load(io.BytesIO(dataset()["set/train-00000.tar.index"])) as archive:
        held = {name: archive[name] for name in archive.files}
    out = io.BytesIO()
    np.savez_compressed(out, **(held | columns))
    return out.getvalue()


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def of_disks(archive: bytes, num_disks: int) -> bytes:
    """A zip archive whose ZIP64 locator declares several disks."""
    at = archive.rindex(b"PK\6\7") + 16
    return archive[:at] + struct.pack("<I", num_disks) + archive[at + 4 :]


def usps_with(line: str) -> dict[str, bytes]:
    return {name: bz2.compress(line.encode()) for name in ("usps.bz2", "usps.t.bz2")}


SOUND = {
    "manifest": lambda: {"manifest.json": dataset()["set/manifest.json"]},
    "index": lambda: {"an.index": dataset()["set/train-00000.tar.index"]},
    "tar": lambda: {
        "train.tar": tars()[0],
        "options.json": b'{"label": "cls", "skip": 0, "unlabelled": 0, "classes": 0}',
    },
    "weights": lambda: {"weights.pt": saved(dict(weights()))},
    "student": lambda: {"student.safetensors": student_file(("a", "b"), {})},
    "checkpoint": lambda: {"state.pt": saved({"format": FORMAT})},
    "idx": idx_files,
    "dataset": dataset,
}

FAR = np.full(7, 2**62)
HALF_OF_GZIP = gzip.compress(b"0 " * 3000)[:15] + b"\xff" * 20

FOUND = {
    "a manifest nested deeper than Python goes": ("manifest", {"manifest.json": NESTED}, "nested too deeply"),
    "a manifest with a number of 5,000 digits": (
        "manifest", {"manifest.json": b'{"format": ' + b"9" * 5000 + b"}"}, "thousands of digits",
    ),
    "a manifest in no encoding": ("manifest", {"manifest.json": b"\xff\xfe\x00"}, "no text"),
    "an index whose classes are one word": (
        "index", {"an.index": index_with(classes=np.array("x"))}, "classes is an array of <U1 in 0 dimensions",
    ),
    "an index with offsets that are no integers": (
        "index", {"an.index": index_with(offsets=np.zeros(7))}, "offsets is an array of float64",
    ),
    "an index whose offsets and sizes overflow": (
        "index", {"an.index": index_with(offsets=FAR, sizes=FAR)}, "points past the tar",
    ),
    "an index with images of less than nothing": (
        "index", {"an.index": index_with(sizes=np.full(7, -5))}, "an image has -5 bytes",
    ),
    "an index that is a pickle": (
        "index", {"an.index": index_with(keys=np.array([{}], object))}, r"holds pickled objects, which are not read\)",
    ),
    "a label nested deeper than Python goes": (
        "label", {"field.txt": b"json:a", "label": NESTED}, "the field is not JSON",
    ),
    "a configuration that is a date": (
        "configuration", {"this.yaml": b"run: {name: 2001-01-01}"}, "run.name is read as a date; put it in quotes",
    ),
    "a configuration with a set": ("configuration", {"this.yaml": b"run: !!set {a, b}"}, "is read as a set"),
    "a configuration with bytes": ("configuration", {"this.yaml": b"run: !!binary AAAA"}, "is read as a bytes"),
    "a configuration with a list for a key": ("configuration", {"this.yaml": b"? [a, b]\n: c"}, "is no word"),
    "a configuration of aliases of aliases": ("configuration", {"this.yaml": BOMB.encode()}, "write fewer aliases"),
    "a configuration whose alias holds itself": (
        "configuration", {"this.yaml": b"run: &a {b: *a}"}, "an alias .* holds itself",
    ),
    "a configuration nested deeper than Python goes": ("configuration", {"this.yaml": NESTED[:5000]}, "nested too"),
    "a configuration in UTF-16": ("configuration", {"this.yaml": "run: {}".encode("utf-16")}, "UTF-8"),
    "a word of half a character": (
        "words", {"words.json": b'["run.name=\\"\\ud800\\""]'}, "half a character|is not YAML",
    ),
    "a preset that is a list": ("words", {"words.json": b'["method.preset=[]"]'}, "method.preset"),
    "weights without data": (
        "weights", {"weights.pt": saved({**weights(), "x": torch.zeros(2, device="meta")})}, r"x has no values",
    ),
    "weights of a sparse tensor": (
        "weights", {"weights.pt": saved({**weights(), "x": torch.eye(2).to_sparse()})}, r"x is sparse",
    ),
    "weights in an archive whose names are in no encoding": (
        "weights",
        {"weights.pt": saved(dict(weights())).replace(b"data.pkl", b"d\x80ta.pkl")},
        r"truncated|no file of PyTorch|cannot be read|damaged",
    ),
    "an index with offsets of one byte": (
        "index", {"an.index": index_with(offsets=np.zeros(7, np.int8))}, "offsets is an array of int8",
    ),
    "a manifest whose notes are a list": (
        "manifest",
        {"manifest.json": dataset()["set/manifest.json"].replace(b'"notes": {', b'"notes": [], "more": {')},
        "notes is a list",
    ),
    "a word of a key nested deeper than Python goes": (
        "words", {"words.json": b'["' + b"a." * 2000 + b'b=1"]'}, "more than 50 deep",
    ),
    "a checkpoint in an archive of several disks": (
        "checkpoint", {"state.pt": of_disks(saved({"format": FORMAT}), 9)}, "truncated or no",
    ),
    "a checkpoint that is half a pickle": ("checkpoint", {"state.pt": b"\x80\x02Q."}, "torch.save did not write"),
    "a checkpoint whose format is a list": (
        "checkpoint", {"state.pt": saved({"format": [FORMAT]})}, "not written by fourds_dist",
    ),
    "digits whose archive is damaged": (
        "usps", dict.fromkeys(("zip.train.gz", "zip.test.gz"), HALF_OF_GZIP), "zip.train.gz cannot be read",
    ),
    "digits of 128 pixels": ("usps", usps_with("1 " + "1:0 " * 128 + "\n"), r"shape \(1, 128\), not 256"),
    "digits of endless brightness": ("usps", usps_with("1 " + "1:1e999 " * 256 + "\n"), "256 finite numbers"),
    "an idx file of three bytes": ("idx", dict.fromkeys(idx_files(), b"\0\0\x08"), "not an idx file"),
    "an idx file of more images than bytes": (
        "idx", dict.fromkeys(idx_files(), b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 2**31)), "truncated",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("target", "files", "told"), FOUND.values(), ids=FOUND)
def test_cases_found_by_fuzzing(target, files, told, tmp_path):
    write_files(files, tmp_path / "case")
    with pytest.raises(ValueError, match=told):
        TARGETS[target].read(tmp_path / "case")


def test_lines_of_a_run_that_are_no_events_are_left_out(tmp_path):
    end = StageEnded(step=3, stage="source")
    lines = b'[1]\n{"event": 3}\nnull\n{"event": "note"\n' + NESTED + b"\n" + encode(end).encode()
    assert list(decode_lines(lines.decode().splitlines())) == [end]


@pytest.mark.parametrize(
    "target", ["manifest", "index", "tar", "weights", "student", "checkpoint", "idx", "dataset"]
)
def test_what_is_not_changed_is_read(target, tmp_path):
    """The fuzzed files begin sound: what is refused is refused for its change."""
    write_files(SOUND[target](), tmp_path / "case")
    TARGETS[target].read(tmp_path / "case")


def test_events_with_other_values_than_theirs_are_left_out():
    good = encode(
        EpochEnded(
            step=3,
            stage="distill",
            time=2.5,
            epoch=1,
            loss=1.5,
            images_per_s=9.0,
            validation={"student": Validation(float("nan"))},
            num_evaluated=4,
            is_best=True,
            left_s=0.0,
        )
    )
    assert decode(good) is not None
    for old, new in (('"distill"', "3"), ("3,", "[3],"), ("2.5", "1e300"), ('"epoch": 1', '"epoch": NaN')):
        assert good.replace(old, new) != good
        assert decode(good.replace(old, new)) is None, new
