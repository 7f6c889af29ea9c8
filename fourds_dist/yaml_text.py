"""YAML whose merge keys (`<<: *name`) stand for a bounded number of keys, whatever the file holds.

The parser copies what a merge key names, for each key that merges it: a few lines that merge each other would fill any
memory before the values could be counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.nodes import MappingNode, SequenceNode

MERGE = "tag:yaml.org,2002:merge"


class MergeError(ValueError):
    """Merge keys that stand for too many keys."""


def parsed_yaml(text: str, *, most_merged: int) -> Any:
    """The value of a text in YAML 1.2, in which 1e-3 is a number and `no` a word.

    Args:
        most_merged: keys that all merge keys together may stand for; each mapping that is merged counts as one more.

    Raises:
        MergeError: they stand for more.
        Exception: what else the parser meets.
    """

    class Bounded(SafeConstructor):
        left = most_merged

        def flatten_mapping(self, node: Any) -> Any:
            for merged in _merged(node):
                self.flatten_mapping(merged)
                Bounded.left -= 1 + len(merged.value)  # also an empty one costs a look
                if Bounded.left < 0:
                    raise MergeError(f"holds merge keys (<<) that stand for more than {most_merged} keys")
            return super().flatten_mapping(node)

    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Bounded
    return yaml.load(text)


def _merged(node: MappingNode) -> Iterator[MappingNode]:
    """The mappings that a mapping merges."""
    for key, value in node.value:
        if key.tag == MERGE:
            nodes = value.value if isinstance(value, SequenceNode) else [value]
            yield from (one for one in nodes if isinstance(one, MappingNode) and one is not node)
