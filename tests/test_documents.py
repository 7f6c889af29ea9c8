"""Commands, options, keys, values, files, links, functions and equations that the Markdown files name exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pytest

from fourds_dist.cli.dispatch import available
from fourds_dist.config.loading import load
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.compare.config import CompareConfig
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.stages.settings import Settings
from tests.markdown import ROOT, blocks, documents, text_of, without_blocks
from tests.test_remedies import keys, option_words, options_of, parsers, sections

OWN = ("fourds ", "python -m fourds_dist.", "python -m tests.", "python -m cluster.", "-m fourds_dist.")
FOLDERS = ("fourds_dist", "configs", "cluster", "tests")
FILE_ENDINGS = r"\.(json|jsonl|ya?ml|safetensors|py|pt|png|html|csv|md|tar|index|onnx|cu|cuh|svg|sh)$"


class Command(NamedTuple):
    words: tuple[str, ...]
    where: str


def refuse(wrong: list[str]) -> None:
    if wrong:
        pytest.fail("documents name what is not there:\n  " + "\n  ".join(wrong), pytrace=False)


@cache
def commands() -> tuple[Command, ...]:
    """Every line of a shell block and every `command` in the prose that calls a program of the repository."""
    return tuple(
        Command(tuple(words), file)
        for file in documents()
        for whole in (*_lines(file), *re.findall(r"`([^`\n]+)`", without_blocks(text_of(file))))
        for line in whole.split(" && ")
        if any(own in line for own in OWN) and (words := _call(line))
    )


def _lines(file: str) -> Iterator[str]:
    for lines in blocks(text_of(file), "sh"):
        yield from re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()


def _call(line: str) -> list[str]:
    """The words of the call, from the name of the command on: pack, folder, SRC, DEST."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a part of a command
        words = line.split()
    for place, word in enumerate(words):
        if word == "fourds" and (place == 0 or words[place - 1] in ("&&", "--")):
            return words[place + 1 :]
        if word == "-m" and words[place + 1 : place + 2] and "." in words[place + 1]:
            package, _, module = words[place + 1].partition(".")
            if package in ("fourds_dist", "tests", "cluster"):
                return [module if package == "fourds_dist" else words[place + 1], *words[place + 2 :]]
    return []


def test_documents_are_found() -> None:
    assert {"README.md", "configs/README.md", "fourds_dist/method/README.md", "cluster/README.md"} <= set(
        documents()
    )
    assert len(commands()) > 60
    assert {"pack", "train", "tune", "compare", "evaluate", "doctor"} <= {c.words[0] for c in commands()}


def test_each_folder_of_the_package_has_one() -> None:
    folders = sorted(
        path for path in (ROOT / "fourds_dist").iterdir() if path.is_dir() and any(path.glob("*.py"))
    )
    folders += [ROOT / "fourds_dist" / "experiments" / name for name in ("sweep", "compare")]
    assert len(folders) > 10
    refuse([f"{path.name}: no README.md" for path in folders if not (path / "README.md").exists()])


def test_commands_and_their_options() -> None:
    wrong = []
    for words, where in commands():
        name, *rest = words
        if name.startswith(("tests.", "cluster.")):
            path = ROOT / name.replace(".", "/")
            if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
                wrong.append(f"{where}: python -m {name}")
            continue
        if name not in available() and name not in ("COMMAND", "--help"):
            wrong.append(f"{where}: fourds {name}")
            continue
        parser = name
        if name == "pack" and rest and re.fullmatch(r"[a-z][a-z0-9-]*", rest[0]):
            parser = f"pack {rest[0]}"
            if parser not in parsers() and rest[0] not in ("squares",):  # of the recipe
                wrong.append(f"{where}: fourds {parser}")
                continue
        if name == "benchmark" and rest and not _is_benchmark(rest[0]):
            wrong.append(f"{where}: fourds benchmark {rest[0]}")
        known = options_of(parser) if parser in parsers() and name != "benchmark" else option_words()
        wrong += [
            f"{where}: fourds {parser} {word}"
            for word in rest
            if word.startswith("--") and word != "--help" and word.partition("=")[0] not in known | {"--side"}
        ]
    refuse(wrong)


def _is_benchmark(word: str) -> bool:
    from fourds_dist.benchmark.__main__ import BENCHMARKS

    return word in BENCHMARKS


def test_configurations_of_commands_load() -> None:
    """Each `fourds train|tune|compare FILE key=value` of the shell blocks: keys exist, and values are of their type."""
    roots = {"train": Settings, "tune": SweepConfig, "compare": CompareConfig}
    wrong = []
    for (name, *rest), where in commands():
        if name not in roots:
            continue
        own = {key for key in keys() if not key.startswith("space")}
        for word in rest:
            key, sign, value = word.partition("=")
            if not sign or key.startswith("-") or "..." in word:
                continue
            if key not in own and key.split(".")[0] not in ("domains", "name", "through", "seeds", "space"):
                wrong.append(f"{where}: {name} {word}: no such key")
            elif key in {k for k in keys() if k.split(".")[0] in Settings.model_fields} and name != "compare":
                wrong += _refused(f"{key}={value}", where)
        wrong += [
            f"{where}: {name} {word}: no such file"
            for word in rest
            if word.startswith("configs/") and not (ROOT / word).exists()
        ]
    refuse(wrong)


def _refused(override: str, where: str) -> list[str]:
    try:
        load(Settings, None, [override])
    except ConfigError as error:
        return [f"{where}: {override}: {str(error).splitlines()[0]}"]
    return []


def test_yaml_blocks_are_configurations_of_runs(tmp_path: Path) -> None:
    found = 0
    for file in documents():
        for lines in blocks(text_of(file), "yaml") if not file.startswith("cluster/") else ():
            path = tmp_path / f"{found}.yaml"
            path.write_text("\n".join(lines))
            load(Settings, str(path))
            found += 1
    assert found >= 3


def test_python_blocks_import_what_is_there() -> None:
    wrong, found = [], 0
    for file in documents():
        for lines in blocks(text_of(file), "python"):
            for node in ast.walk(ast.parse("\n".join(lines))):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fourds_dist"):
                    found += 1
                    names = (alias.name for alias in node.names)
                    wrong += [
                        f"{file}: {node.module}.{n}"
                        for n in names
                        if not _resolves([*str(node.module).split("."), n])
                    ]
    refuse(wrong)
    assert found >= 5


def test_the_operators_lines_run() -> None:
    names: dict[str, Any] = {}
    (lines,) = blocks(text_of("fourds_dist/ops/README.md"), "python")
    exec(compile("\n".join(lines), "ops/README.md", "exec"), names)
    assert names["out"].shape == names["h"].shape
    assert (names["phases"].shape, names["distance"].shape) == ((2, 64, 7, 7), (2, 64))


def test_keys() -> None:
    names = "|".join(sorted(sections(Settings) | sections(SweepConfig)))
    pattern = rf"(?<![\w./{{\-`~])(?:`)?(?P<key>(?:{names})(?:\.[a-z_]+)+)\b(?!\w*[(/])"
    wrong = []
    for file in documents():
        for match in re.finditer(pattern, text_of(file)):
            key = match["key"]
            if key not in keys() and not re.search(FILE_ENDINGS, key):
                wrong.append(f"{file}: key {key}")
    refuse(wrong)


def test_values_of_keys() -> None:
    """`section.key: value` in the prose is a value that the key takes."""
    names = "|".join(sorted(sections(Settings)))
    wrong = []
    for file in documents():
        for key, value in re.findall(
            rf"`((?:{names})(?:\.[a-z_]+)+): ([^`]+)`", without_blocks(text_of(file))
        ):
            if key in keys() and value != "[min, max]":  # what stands for numbers
                wrong += _refused(f"{key}={value}", file)
    refuse(wrong)


def test_files() -> None:
    wrong = []
    for file in documents():
        text = re.sub(r"\S*(?://|\{\{|\$)\S*", "", text_of(file))  # URLs and variables
        for match in re.finditer(rf"(?<![\w/.~-])(?:{'|'.join(FOLDERS)})/[\w./*-]*[\w*]", text):
            name = match[0]
            if not ((ROOT / name).exists() or list(ROOT.glob(name))) and "my/" not in name:
                wrong.append(f"{file}: {name}")
    refuse(wrong)


def test_links() -> None:
    wrong = []
    for file in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", text_of(file)):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            path = (ROOT / file).parent / name if name else ROOT / file
            if not path.exists():
                wrong.append(f"{file}: {target}")
            elif anchor and anchor not in _anchors(path.read_text(encoding="utf-8")):
                wrong.append(f"{file}: {target}: no such heading")
    refuse(wrong)


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_dotted_names() -> None:
    """`fourds_dist.method.losses.balance` is a module, or a function, a class or a method of one."""
    wrong = []
    for file in documents():
        for name in set(re.findall(r"(?<![\w./])fourds_dist(?:\.\w+)+", text_of(file))):
            if not name.endswith(".COMMAND") and not _resolves(name.split(".")):
                wrong.append(f"{file}: {name}")
    refuse(wrong)


def _resolves(parts: list[str]) -> bool:
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        path = ROOT / PurePosixPath(*parts[:length])
        if not (path.with_suffix(".py").exists() or (path / "__init__.py").exists()):
            continue
        found = import_module(module)
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def test_equations_that_the_code_cites_are_numbered() -> None:
    text = text_of("fourds_dist/method/README.md")
    numbered = [
        int(number) for number in re.findall(r"^\| (\d+) \| .* \| (?:RO|R|O|-) \|", text, re.MULTILINE)
    ]
    assert numbered == list(range(1, len(numbered) + 1))
    wrong, cited = [], set()
    files = [*(ROOT / "fourds_dist").rglob("*.py"), *(ROOT / name for name in documents())]
    for path in files:
        for group in re.findall(r"\bEq\. (\d+(?:(?:, | to | and )\d+)*)", path.read_text(encoding="utf-8")):
            numbers = [int(number) for number in re.findall(r"\d+", group)]
            cited |= set(numbers)
            wrong += [f"{path.relative_to(ROOT)}: Eq. {n}" for n in numbers if n not in numbered]
    refuse(wrong)
    assert len(cited) > 20
    assert not re.search(
        r"METHOD\b", "\n".join(p.read_text(encoding="utf-8") for p in files if p.suffix == ".py")
    )
