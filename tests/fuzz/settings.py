"""Fuzzed: configuration files of runs, sweeps and comparisons, and key=value words."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from ruamel.yaml import YAML

from fourds_dist.config.keys import describe
from fourds_dist.config.loading import builtin_config, dump, load
from fourds_dist.experiments.compare.plan import read_plan as read_comparison
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.experiments.sweep.plan import read_plan as read_sweep
from fourds_dist.stages.settings import Settings
from tests.fuzz.mutations import TEXTS, Draw, changed_bytes, changed_json, changed_lines, values
from tests.fuzz.target import Files, Target, cases

YAML_TEXTS = (
    *TEXTS, "&a [*a]", "&a {b: *a}", "*nothing", "!!python/object:os.system x", "!!binary AAAA", "!!set {a, b}",
    "!!omap [a: 1]", "!!timestamp 2001-01-01", "2001-01-01T00:00:00Z", "? [a, b]\n: c", "{1: 2}", "{null: 1}",
    "{a: 1, a: 2}", "<<: *x", "|\n  a", ">-\n  b", "- a\n- b", "%YAML 1.1", "--- a\n--- b", "...", ".inf", ".nan",
    "0o17", "1_0", "1:30", "[" * 3000, "{a: " * 300, "- " * 2000, "!x y", "@", "`", "\x00", "1e400", "-0", "~", "yes",
    "[1, 2", "{", "}", "#",
)  # fmt: skip
ODD_KEYS = ("run", "teacher", "run.dir.x", "run..name", ".run", "run.", "rum.name", "launch.workers.0", "a=b")
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine short lines that stand for 400 million words."""


@functools.cache
def _shipped(name: str) -> str:
    return builtin_config(name).read_text()


@functools.cache
def _keys() -> tuple[str, ...]:
    return tuple(key for key, *_ in describe(Settings))


def yaml_case(draw: Draw, names: tuple[str, ...], base: str) -> Files:
    """A shipped file, changed as text or as a tree; its base file is in the same folder."""
    text = _shipped(draw(st.sampled_from(names)))
    match draw(st.integers(0, 9)):
        case 0:
            data = changed_bytes(draw, text.encode())
        case 1:
            data = (
                text + draw(st.sampled_from((BOMB, "x: &x {y: *x}\n", "base: this.yaml\n", "base: [1]\n")))
            ).encode()
        case 2 | 3 | 4:
            data = changed_lines(draw, text, YAML_TEXTS)
        case _:
            data = changed_json(draw, _plain(YAML(typ="safe", pure=True).load(text)))
    return {
        "this.yaml": data,
        base: _shipped("quickstart.yaml").encode(),
        "quickstart.yaml": _shipped("quickstart.yaml").encode(),
    }


def _plain(tree: Any) -> Any:
    return json.loads(json.dumps(tree))


def run_case(draw: Draw) -> Files:
    names = ("quickstart.yaml", "icons.yaml", "deepspeed/zero3_offload.yaml", "paper/digits.yaml")
    return yaml_case(draw, names, "base.yaml")


def read_run_case(folder: Path) -> None:
    settings = load(Settings, folder / "this.yaml")
    (folder / "again.yaml").write_text(dump(settings), encoding="utf-8")
    assert load(Settings, folder / "again.yaml") == settings


def sweep_case(draw: Draw) -> Files:
    names = ("sweeps/quickstart.yaml", "sweeps/adapters.yaml", "sweeps/schedule.yaml", "sweeps/losses.yaml")
    return yaml_case(draw, names, "../quickstart.yaml"[3:])


def read_sweep_case(folder: Path) -> None:
    config = load(SweepConfig, folder / "this.yaml")
    if config.config == "../quickstart.yaml":
        read_sweep(folder / "this.yaml", ["config=quickstart.yaml"])
    else:
        read_sweep(folder / "this.yaml")


def comparison_case(draw: Draw) -> Files:
    names = ("compare/quickstart.yaml", "compare/digits-over-photographs.yaml", "compare/office-31.yaml")
    files = yaml_case(draw, names, "base.yaml")
    shared = {
        f"shared/{name}.yaml": _shipped(f"compare/shared/{name}.yaml").encode()
        for name in ("digits", "paper", "icons")
    }
    return files | shared


def read_comparison_case(folder: Path) -> None:
    read_comparison(folder / "this.yaml", [], folder=folder)


def words_case(draw: Draw) -> Files:
    """key=value words: right keys with odd values, odd keys, no keys."""
    words = []
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.one_of(*map(st.sampled_from, (_keys(), TEXTS, ODD_KEYS))))
        value = draw(st.one_of(st.sampled_from(YAML_TEXTS), values.map(_as_word), st.text(max_size=8)))
        forms = (f"{key}={value}", f"{key}={value}", f"{key}", f"{key}=", f"={value}", f" {key} = {value}")
        words.append(draw(st.sampled_from(forms)))
    return {"words.json": json.dumps(words).encode()}


def _as_word(value: Any) -> str:
    try:
        return json.dumps(value)
    except ValueError:
        return "1" * 5000


def read_words_case(folder: Path) -> None:
    words = json.loads((folder / "words.json").read_text())
    settings = load(Settings, None, words)
    (folder / "again.yaml").write_text(dump(settings), encoding="utf-8")
    assert load(Settings, folder / "again.yaml") == settings


TARGETS = (
    Target("configuration", cases(run_case), read_run_case),
    Target("sweep", cases(sweep_case), read_sweep_case, share=0.3),
    Target("comparison", cases(comparison_case), read_comparison_case, share=0.3),
    Target("words", cases(words_case), read_words_case),
)
