"""YAML 1.2, with bounds on what merge keys copy and on open brackets."""

from __future__ import annotations

import pytest
from ruamel.yaml.error import YAMLError

from fourds_dist.io.yaml_text import MOST_BRACKETS, MergeError, parsed_yaml


def test_values_of_yaml_1_2() -> None:
    text = "rate: 1e-3\nname: no\nsteps: 012\nlist: [true, null, 0x10]\n"
    assert parsed_yaml(text, most_merged=0) == {
        "rate": 1e-3, "name": "no", "steps": 12, "list": [True, None, 16]
    }  # fmt: skip
    assert parsed_yaml("", most_merged=0) is None


def test_merge_keys_fill_in_what_is_missing() -> None:
    text = "a: &a { x: 1, y: 2 }\nb: &b { y: 3, z: 4 }\nc: { <<: [*a, *b], x: 0 }\n"
    found = parsed_yaml(text, most_merged=100)
    assert found["c"] == {"x": 0, "y": 2, "z": 4}


def test_the_bound_counts_keys_and_mappings() -> None:
    text = "a: &a { x: 1, y: 2 }\nb: { <<: *a }\nc: { <<: *a }\n"  # twice one mapping of two keys
    assert parsed_yaml(text, most_merged=6)["c"] == {"x": 1, "y": 2}
    with pytest.raises(MergeError, match=r"holds merge keys \(<<\) that stand for more than 5 keys"):
        parsed_yaml(text, most_merged=5)
    assert parsed_yaml(text, most_merged=6)["b"] == {"x": 1, "y": 2}  # counted anew for every text
    empty = "a: &a [{}, {}, {}]\nb: { <<: *a }\n"
    with pytest.raises(MergeError):
        parsed_yaml(empty, most_merged=2)


def test_growth_by_merges_of_merges_ends() -> None:
    lines = ["x0: &x0 { a: 1 }"]
    lines += [f"x{n}: &x{n} {{ <<: [{', '.join([f'*x{n - 1}'] * 9)}], k{n}: 1 }}" for n in range(1, 12)]
    with pytest.raises(MergeError):
        parsed_yaml("\n".join(lines), most_merged=1000)


def test_other_errors_are_the_parser_s() -> None:
    with pytest.raises(YAMLError):
        parsed_yaml("a: [1", most_merged=0)
    with pytest.raises(YAMLError):
        parsed_yaml("a: !!python/object/apply:os.getcwd []", most_merged=0)


@pytest.mark.parametrize("opening", ["[", "{a: ", "[{b: "])
def test_open_brackets_are_bounded(opening: str) -> None:
    num = MOST_BRACKETS // (2 if opening == "[{b: " else 1)
    closing = "".join({"[": "]", "{": "}"}[c] for c in reversed(opening) if c in "[{")
    nested = parsed_yaml("[" * (MOST_BRACKETS // 4) + "]" * (MOST_BRACKETS // 4), most_merged=0)
    assert isinstance(nested, list)
    with pytest.raises(RecursionError, match=f"more than {MOST_BRACKETS} brackets are open at once"):
        parsed_yaml(opening * (num + 1) + "1" + closing * (num + 1), most_merged=0)
    with pytest.raises(RecursionError):  # which the parser would read for minutes
        parsed_yaml(opening * 20_000, most_merged=0)
