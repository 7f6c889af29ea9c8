"""Remedies in messages: each command, option, key, variable and file that they name exists.

Messages are collected from the source: all texts in it that are no docstrings, f-strings with their gaps left open.
`tests/test_remedies_help.py` applies remedies to the cases that fail.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import fsspec.config
import pytest
import wandb

from fourds_dist.cli.dispatch import available
from fourds_dist.cli.pack_options import parser_of
from fourds_dist.config.keys import fields_of, section_of
from fourds_dist.config.section import ConfigSection
from fourds_dist.experiments.compare.config import CompareConfig
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.stages.settings import Settings

ROOT = Path(__file__).parents[1]
GAP = "\N{WHITE SQUARE}"
"""Stands where an f-string has a value."""

FOREIGN_OPTIONS = {
    "tar": {"--sort", "--dereference", "--hard-dereference", "--sparse"},
    "uv": {"--inexact", "--extra", "--project"},
    "pip": {"--upgrade"},
    "container": {"--shm-size"},
    "ray job": {"--working-dir"},
    "hf download": {"--revision", "--local-dir"},
    "torchrun": {"--nproc-per-node", "--standalone", "--nnodes"},
}
"""Options of other programs that messages name, by program."""

ENTRIES = {"benchmark": "benchmark.__main__"}


class Message(NamedTuple):
    text: str
    where: str


@functools.cache
def messages() -> tuple[Message, ...]:
    """Every text of the package that is no docstring and no key, with its place."""
    return tuple(
        Message(text, f"{path.relative_to(ROOT)}:{line}")
        for path in sorted((ROOT / "fourds_dist").rglob("*.py"))
        for text, line in _texts(ast.parse(path.read_text(encoding="utf-8")))
    )


def _texts(tree: ast.Module) -> Iterator[tuple[str, int]]:
    apart = {
        id(node.value)  # docstrings of modules, classes, functions and attributes
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            apart.update(id(part) for part in node.values)
    for node in ast.walk(tree):
        text = _text(node) if id(node) not in apart else None
        if text is not None and " " in text:
            yield text, getattr(node, "lineno", 0)


def _text(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or GAP for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            joined = (_text(left), _text(right))
            return "".join(part or GAP for part in joined) if any(joined) else None
        case _:
            return None


def told(pattern: str) -> list[tuple[re.Match[str], Message]]:
    """Every place in a message that fits."""
    return [(match, message) for message in messages() for match in re.finditer(pattern, message.text)]


def refuse(wrong: list[tuple[str, Message]]) -> None:
    if wrong:
        lines = [f"  {what}\n    {m.where}: {' '.join(m.text.split())[:200]}" for what, m in wrong]
        pytest.fail("messages name what is not there:\n" + "\n".join(lines), pytrace=False)


@functools.cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """`train`, `pack`, `pack folder`, ...: the parser of each command."""
    found = {}
    for command in available():
        if command == "pack":
            found[command] = parser_of(None)
            for action in found[command]._actions:
                if isinstance(action, argparse._SubParsersAction):
                    found |= {f"pack {name}": parser for name, parser in action.choices.items()}
            continue
        module = importlib.import_module(f"fourds_dist.{ENTRIES.get(command, f'cli.{command}')}")
        if hasattr(module, "parser"):
            found[command] = module.parser()
    return found


def options_of(command: str) -> set[str]:
    parser = parsers().get(command)
    return {word for action in parser._actions for word in action.option_strings} if parser else set()


@functools.cache
def option_words() -> frozenset[str]:
    """All options of all our commands and of other programs; benchmarks' from their text."""
    ours = {word for command in parsers() for word in options_of(command)}
    for path in (*(ROOT / "fourds_dist" / "benchmark").glob("*.py"), *(ROOT / "tests").glob("*.py")):
        ours |= set(re.findall(r"\"(--[a-z][a-z0-9-]*)\"", path.read_text(encoding="utf-8")))
    return frozenset(ours | {word for words in FOREIGN_OPTIONS.values() for word in words})


@functools.cache
def keys() -> frozenset[str]:
    """Every dotted key of runs, sweeps and comparisons, sections included."""
    return frozenset(key for root in (Settings, SweepConfig, CompareConfig) for key, *_ in fields_of(root))


def sections(root: type[ConfigSection]) -> set[str]:
    return {name for name, field in root.model_fields.items() if section_of(field.annotation) is not None}


def test_messages_are_found() -> None:
    texts = [message.text for message in messages()]
    assert len(texts) > 400
    assert any("python -m fourds_dist.pack" in text for text in texts)
    assert any("--skip-bad" in text for text in texts)


def test_commands() -> None:
    wrong = []
    for match, message in told(
        r"python -m fourds_dist\.([a-z_]+(?:\.[a-z_]+)*)(?: ([a-z][a-z-]*))?|`fourds ([a-z]+)"
    ):
        module, word, command = match.groups()
        known = available()
        if (command or module) not in known and (module or "").split(".")[0] not in known:
            wrong.append((f"command {match[0]!r}", message))
        if module == "pack" and word and f"pack {word}" not in parsers():
            wrong.append((f"`pack {word}`", message))
    for match, message in told(r"`pack ([a-z][a-z-]*)|\bpack ([a-z][a-z-]*)(?= --)"):
        if f"pack {match[1] or match[2]}" not in parsers():
            wrong.append((f"{match[0]!r}", message))
    for match, message in told(r"python -m tests\.([a-z_.]+)"):
        path = ROOT / "tests" / match[1].rstrip(".").replace(".", "/")
        if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
            wrong.append((f"{match[0]!r}", message))
    refuse(wrong)


def test_options() -> None:
    """Each is one of ours or of a program that the list above names; after a command, one of that command's."""
    wrong = [
        (f"option {match[0]}", message)
        for match, message in told(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
        if match[0] not in option_words()
    ]
    for match, message in told(
        r"(?:fourds |fourds_dist\.|`|\b)((?:pack [a-z-]+)|[a-z]+)((?: [^`;,()]*?)?)(--[a-z][a-z-]+)"
    ):
        if match[1] in parsers() and match[3] not in options_of(match[1]) and match[1] != "pack":
            wrong.append((f"{match[1]} has no option {match[3]}", message))
    refuse(wrong)


def test_keys() -> None:
    """Dotted keys that begin with a section of a run's or a sweep's configuration."""
    names = "|".join(sorted(sections(Settings) | sections(SweepConfig)))
    files = r"\.(json|jsonl|ya?ml|safetensors|py|pt|png|html|csv|md|tar|index)$"
    wrong = [
        (f"key {match[0]}", message)
        for match, message in told(rf"(?<![\w./{{-])(?:{names})(?:\.[a-z_]+)+\b(?!\w*[(/])")
        if match[0] not in keys() and not re.search(files, match[0])
    ]
    refuse(wrong)


def test_variables() -> None:
    from fourds_dist.launch.ray import cluster as ray_cluster

    assert ray_cluster  # sets Ray's variables, which no message names
    wrong = []
    for match, message in told(r"\b(WANDB|RAY|FSSPEC)_[A-Z_]*[A-Z]\b"):
        if not variable_exists(match[0]):
            wrong.append((f"variable {match[0]}", message))
    refuse(wrong)


def variable_exists(name: str) -> bool:
    """Whether the program of a variable defines it."""
    if name.startswith("WANDB_"):
        known = {f"WANDB_{field.upper()}" for field in wandb.Settings.model_fields}
        return name in known | {"WANDB_DISABLED", "WANDB_IDS"}  # the last is a name of our own
    if name.startswith("FSSPEC_"):
        conf: dict[str, dict[str, str]] = {}
        fsspec.config.set_conf_env(conf, {name: "x"})
        return bool(conf)
    return name in _ray_texts()


@functools.cache
def _ray_texts() -> str:
    import ray

    folder = Path(ray.__file__).parent
    places = [
        *folder.glob("_private/**/*.py"),
        *folder.glob("train/**/*.py"),
        *folder.glob("_common/**/*.py"),
    ]
    places += [*folder.glob("air/**/*.py"), *folder.glob("*.py"), *folder.glob("includes/*.pxi")]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in places)


@pytest.mark.parametrize(
    ("protocol", "package", "class_name"), [("s3", "s3fs", "S3FileSystem"), ("gs", "gcsfs", "GCSFileSystem")]
)
def test_a_store_reads_the_endpoint_that_messages_name(protocol: str, package: str, class_name: str) -> None:
    import inspect

    from fourds_dist.io.storage import _where_endpoint

    (name,) = re.findall(r"FSSPEC_\w+", _where_endpoint(f"{protocol}://bucket/x"))
    conf: dict[str, dict[str, str]] = {}
    fsspec.config.set_conf_env(conf, {name: "http://localhost"})
    store = getattr(pytest.importorskip(package), class_name)
    assert set(conf[protocol]) <= set(inspect.signature(store.__init__).parameters)


def test_extras() -> None:
    from fourds_dist.cli import checks

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = set(project["optional-dependencies"])
    pattern = r"(?:fourds_dist|\.)\[([a-z0-9,]+)\]|--extra ([a-z0-9]+)|\bremedy\(['\"]([a-z0-9]+)['\"]\)"
    wrong = [
        (f"extra {match[0]}", message)
        for match, message in told(pattern)
        if not set(next(filter(None, match.groups())).split(",")) <= known
    ]
    for path in (ROOT / "fourds_dist").rglob("*.py"):
        for name in re.findall(r"remedy\(['\"]([a-z0-9]+)['\"]\)", path.read_text(encoding="utf-8")):
            if name not in known:
                wrong.append((f"extra {name}", Message(name, str(path))))
    refuse(wrong)
    assert {f.fix for f in checks.extras()}  # the doctor's own list
    from fourds_dist.io.storage import _OBJECT_STORES

    assert {extra for extra, _ in _OBJECT_STORES.values()} <= known


def test_files() -> None:
    wrong = [
        (f"file {match[0]}", message)
        for match, message in told(r"(?<![\w/.])(?:configs|cluster|tests)/[\w./-]*\w")
        if not (ROOT / match[0]).exists()
    ]
    refuse(wrong)


def test_installation_commands_are_in_one_module() -> None:
    """`extras` knows the command that works where the user stands; benchmarks are run from a clone."""
    wrong = [
        (match[0], message)
        for match, message in told(r"pip install|uv sync")
        if not message.where.startswith(("fourds_dist/io/extras.py", "fourds_dist/benchmark/"))
    ]
    refuse([(what, m) for what, m in wrong if "or uv sync" not in m.text])
