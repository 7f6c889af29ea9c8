"""YAML with bounds on the keys that merge keys (`<<: *name`) copy, and on the nesting of brackets.

The parser copies a merged mapping for each merge key. Without a bound, a few lines that merge each other would exhaust
memory before their values could be counted. For every token, the parser looks at all open brackets: some thousands of
them would take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.nodes import MappingNode, SequenceNode
from ruamel.yaml.scanner import Scanner

MERGE = "tag:yaml.org,2002:merge"
MOST_BRACKETS = 200
"""Bound on the brackets that are open at once."""


class MergeError(ValueError):
    """The merge keys of a text copy too many keys."""


def parsed_yaml(text: str, *, most_merged: int) -> Any:
    """Return the value of a text in YAML 1.2, in which 1e-3 is a number and `no` is a string.

    Args:
        most_merged: number of keys that all merge keys together may copy; each merged mapping counts as one more.

    Raises:
        MergeError: the merge keys copy more keys.
        RecursionError: more than MOST_BRACKETS brackets are open at once, or sections are nested too deeply.
        Exception: any other error of the parser.
    """

    class Bounded(SafeConstructor):
        left = most_merged

        def flatten_mapping(self, node: Any) -> Any:
            for merged in _merged(node):
                self.flatten_mapping(merged)
                Bounded.left -= 1 + len(merged.value)  # an empty mapping costs time too
                if Bounded.left < 0:
                    raise MergeError(f"holds merge keys (<<) that stand for more than {most_merged} keys")
            return super().flatten_mapping(node)

    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor, yaml.Scanner = Bounded, _BoundedScanner
    return yaml.load(text)


class _BoundedScanner(Scanner):
    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        if len(self.flow_context) >= MOST_BRACKETS:
            raise RecursionError(f"more than {MOST_BRACKETS} brackets are open at once")
        super().fetch_flow_collection_start(TokenClass, to_push)


def _merged(node: MappingNode) -> Iterator[MappingNode]:
    """Yield the mappings that a mapping merges."""
    for key, value in node.value:
        if key.tag == MERGE:
            nodes = value.value if isinstance(value, SequenceNode) else [value]
            yield from (merged for merged in nodes if isinstance(merged, MappingNode) and merged is not node)
