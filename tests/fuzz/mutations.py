"""Changes of valid inputs that keep most of their structure: bytes, lines, JSON trees, members of archives."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 255, 256, 65536, -(2**31), 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1,
    10**30, 10**400, -(10**400), 0.5, -0.5, 1e-320, 1e308, -0.0, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", " ", "\0", "\n", "\r\n", "\t", "a\0b", "\x1b[31mred\x1b[0m", "\x7f", "\u202eevil", "\ufeff", "Ko\u0308ter",
    "K\u00f6ter", "\U0001f408", "\ud800", "..", "../x", "/etc/hostname", "~", "C:\\x", "x://y", "s3://", "file://",
    "[/b]", "[bold]", "{0..99999999999}", "{a,b}", "*", "?", "%s%n", "${HOME}", "null", "true", "NaN", "-1", "1e999",
    "0x10", "1_000", "\u0663", "\u00b2", "0" * 5000, "9" * 5000, "a" * 100_000, "a." * 3000, "/" * 3000,
    "__proto__", "__class__", "base", "2001-01-01", "12:30:45", "<html>", "'", '"', "\\",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [None], {"": None}, [0] * 1000, {"a": {"b": {"c": []}}},
)  # fmt: skip

values = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.sampled_from(OTHERS), st.integers(), st.floats(),
    st.text(max_size=20),
).map(copy.deepcopy)  # fmt: skip
"""Values of JSON that few readers expect."""


def changed_bytes(draw: Draw, data: bytes, most: int = 4) -> bytes:
    """Some of: bits flipped, bytes overwritten, inserted, removed, repeated, swapped, cut off at an end."""
    for _ in range(draw(st.integers(1, most))):
        data = _changed_once(draw, data)
    return data


def _changed_once(draw: Draw, data: bytes) -> bytes:
    begin = draw(st.integers(0, len(data)))
    length = draw(st.sampled_from((1, 1, 2, 4, 8, 60, 512)))
    end = min(len(data), begin + length)
    match draw(st.integers(0, 8)):
        case 0 if begin < len(data):
            flipped = data[begin] ^ (1 << draw(st.integers(0, 7)))
            return data[:begin] + bytes([flipped]) + data[begin + 1 :]
        case 1:
            return data[:begin] + draw(st.binary(min_size=1, max_size=9)) + data[end:]
        case 2:
            return (
                data[:begin]
                + draw(st.sampled_from((b"\0", b"\xff", b"9", b" ", b"\n"))) * length
                + data[end:]
            )
        case 3:
            return data[:begin] + data[end:]
        case 4:
            return data[:end] + data[begin:]
        case 5:
            return data[:begin]
        case 6:
            return data[begin:]
        case 7:
            other = draw(st.integers(0, len(data)))
            piece = data[other : other + length]
            return data[:begin] + piece + data[begin + len(piece) :]
        case _:
            return data[:begin] + draw(st.binary(max_size=40)) + data[begin:]


def changed_lines(draw: Draw, text: str, pieces: Sequence[str] = TEXTS) -> bytes:
    """Lines and their fields dropped, repeated, swapped or replaced; sometimes in another encoding."""
    lines = text.split("\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 6)):
            case 0:
                lines[at] = draw(st.sampled_from(pieces))
            case 1:
                lines.insert(at, lines[draw(st.integers(0, len(lines) - 1))])
            case 2 if len(lines) > 1:
                del lines[at]
            case 3:
                mark = draw(st.sampled_from(("\t", ",", " ", '"', ":", "=")))
                parts = lines[at].split(mark)
                parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(pieces))
                lines[at] = mark.join(parts)
            case 4:
                old, new = (draw(st.sampled_from(("\t", ",", " ", ";", "\n", '"', "'"))) for _ in range(2))
                lines[at] = lines[at].replace(old, new)
            case 5:
                lines[at] += draw(st.text(max_size=8))
            case _:
                place = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:place] + draw(st.sampled_from(pieces)) + lines[at][place:]
    end = draw(st.sampled_from(("\n", "\n", "\n", "\r\n", "\r", "\u2028")))
    coding = draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")))
    return end.join(lines).encode(coding, "surrogatepass" if coding.startswith("utf") else "replace")


def changed_tree(draw: Draw, tree: Any, most: int = 3) -> Any:
    """A tree of dicts and lists with some entries replaced, removed, repeated, renamed, swapped or wrapped."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(tree))
        if not places:
            return draw(values)
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.integers(0, 7)):
            case 0 if isinstance(parent, dict):
                parent[draw(st.sampled_from(TEXTS))] = parent.pop(key)
            case 1:
                del parent[key]
            case 2 if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
            case 2 if isinstance(parent, dict):
                parent[draw(st.sampled_from(TEXTS))] = copy.deepcopy(parent[key])
            case 3:
                other, other_key = places[draw(st.integers(0, len(places) - 1))]
                parent[key] = copy.deepcopy(other[other_key])
            case 4:
                parent[key] = draw(st.sampled_from(([parent[key]], {"": parent[key]}, str(parent[key]))))
            case _:
                parent[key] = draw(values)
    return tree


def _places(tree: Any) -> Any:
    """(parent, key) of every entry of a tree."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(entries):
        yield tree, key
        yield from _places(value)


def changed_json(draw: Draw, tree: Any) -> bytes:
    """JSON of a changed tree; or of a sound one, changed as text: cut, nested deeply, keys twice."""
    match draw(st.integers(0, 9)):
        case 0:
            return changed_bytes(draw, json.dumps(tree).encode())
        case 1:
            depth = draw(st.sampled_from((100, 2000, 200_000)))
            opening, closing = draw(st.sampled_from((("[", "]"), ('{"a":', "}"))))
            nested = opening * depth + "1" + closing * depth
            parts = json.dumps(changed_tree(draw, tree)).split(draw(st.sampled_from(("1", "null", '""'))), 1)
            return nested.join(parts).encode() if len(parts) > 1 else nested.encode()
        case 2 if isinstance(tree, dict) and tree:
            key = draw(st.sampled_from(sorted(tree)))
            other = json.dumps({key: draw(values)})
            return (json.dumps(tree)[:-1] + ", " + other[1:]).encode()
    try:
        return _text_of(changed_tree(draw, tree)).encode("utf-8", "surrogatepass")
    except ValueError:  # an integer too long to be written
        return b"1" * 5000


def _text_of(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=not _has_odd_text(tree))


def _has_odd_text(tree: Any) -> bool:
    """Whether to write text raw: half of the trees, by a hash that does not change between processes."""
    return len(repr(tree)) % 2 == 0
