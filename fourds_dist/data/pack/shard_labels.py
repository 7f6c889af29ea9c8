"""What is kept of a shard's index until all shards are indexed: its labels, counted, and how they fit a class list."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fourds_dist.data.class_list import ClassList, Label, deduced, number_of
from fourds_dist.data.grey import Grey, from_json
from fourds_dist.data.grouping import IMAGES
from fourds_dist.data.index import UNLABELLED, ShardIndex


@dataclass(frozen=True)
class ShardLabels:
    """A shard's worth of columns is too much for many shards; this is little."""

    num_samples: int
    num_bytes: int
    sha256: str
    classes: tuple[str, ...]
    """Names that the labels stand for; empty where they are numbers."""
    by_label: Mapping[int, int]
    """Label -> samples, without the unlabelled."""
    last: str
    """Key of a sample with the largest label; empty where none has one."""
    grey: Grey | None
    """What the images of more than 8 bits hold."""
    other_images: Mapping[str, int]
    """Field of an image that is not taken, since another is -> samples."""
    num_with_frames: int
    """Samples whose image has several frames."""
    first_with_frames: str
    """Key of the first of them."""

    @classmethod
    def of(cls, index: ShardIndex) -> ShardLabels:
        """The labels of an index."""
        labels, counts = np.unique(index.labels[index.labels != UNLABELLED], return_counts=True)
        by_label = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        last = str(index.keys[int(index.labels.argmax())]) if by_label else ""
        grey = from_json(index.grey)
        others = {
            field: num
            for column, field in enumerate(index.fields)
            if field in IMAGES
            and (num := int(((index.fields_sizes[:, column] > 0) & (index.extensions != field)).sum()))
        }
        return cls(
            len(index),
            index.num_bytes,
            index.sha256,
            index.classes,
            by_label,
            last,
            grey,
            others,
            len(index.with_frames),
            str(index.with_frames[0]) if len(index.with_frames) else "",
        )

    @property
    def num_labelled(self) -> int:
        """Samples with a label."""
        return sum(self.by_label.values())

    def told(self) -> Counter[Label]:
        """Label as the tar holds it -> samples."""
        return Counter({self.label(n): count for n, count in self.by_label.items()})

    def positions(self, classes: ClassList) -> dict[int, int] | None:
        """Label -> position in a class list; None where the shard has to be read with that list to tell."""
        if self.classes and max(self.by_label, default=0) >= len(self.classes):
            return None
        look_up = classes.named if self.classes else classes.position
        found = {n: look_up(self.label(n)) for n in self.by_label}
        return {n: at for n, at in found.items() if at is not None} if None not in found.values() else None

    def counts(self, classes: ClassList) -> Counter[str]:
        """Class -> samples."""
        positions = self.positions(classes) or {}
        counted: Counter[str] = Counter()
        for label, count in self.by_label.items():
            counted[classes.names[positions[label]]] += count
        return counted

    def needs_renumbering(self, classes: ClassList) -> bool:
        """Whether the index holds other numbers than positions in the class list."""
        if self.classes:
            return self.classes != classes.names
        return any(label != position for label, position in (self.positions(classes) or {}).items())

    def label(self, number: int) -> Label:
        """A label as the tar holds it: a name, or the number itself."""
        return self.classes[number] if self.classes else number


def renumbered(index: ShardIndex, classes: ClassList) -> ShardIndex:
    """The same index with labels by the list that all shards share."""
    positions = ShardLabels.of(index).positions(classes)
    assert positions is not None
    # A table over the labels that there are: the largest may be a code of any size.
    present, inverse = np.unique(index.labels, return_inverse=True)
    table = np.array([positions.get(int(label), UNLABELLED) for label in present], dtype=np.int32)
    labels = table[inverse] if len(present) else index.labels
    return dataclasses.replace(index, labels=labels, classes=classes.names)


def classes_of(where: str, tars: Sequence[str], found: Sequence[ShardLabels]) -> tuple[str, ...]:
    """The class list that the labels of all shards make.

    Raises:
        ValueError: they make none; see `deduced`.
    """
    counts: Counter[Label] = Counter()
    for labels in found:
        counts.update(labels.told())
    if not counts:
        raise ValueError("no sample has a label; give the class list that the model is to tell by --classes")
    numbered = [
        tar for tar, labels in zip(tars, found, strict=True) if labels.by_label and not labels.classes
    ]
    words = [label for label in counts if isinstance(label, str) and number_of(label) is None]
    if numbered and words:
        raise ValueError(
            f"{numbered[0]} has class numbers where other tars have names ({min(words)!r}); give --classes"
        )

    def example(label: Label) -> str:
        for tar, labels in zip(tars, found, strict=True):
            if labels.by_label and labels.label(max(labels.by_label)) == label:
                return f"sample {labels.last!r} of {tar}"
        return f"the label {label}"

    return deduced(
        counts,
        num_unlabelled=sum(labels.num_samples - labels.num_labelled for labels in found),
        where=where,
        remedy="name another field by --label",
        example=example,
    )
