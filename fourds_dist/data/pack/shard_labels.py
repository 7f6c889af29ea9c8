"""The labels of a shard, counted, and their positions in a class list."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fourds_dist.data.decode.grey import Grey, from_json
from fourds_dist.data.format.class_list import ClassList, Label, deduced, number_of
from fourds_dist.data.format.index import UNLABELLED, ShardIndex
from fourds_dist.data.pack.webdataset_samples import IMAGES


@dataclass(frozen=True)
class ShardLabels:
    """Summary of a shard's index, small enough to hold the summaries of all shards in memory."""

    num_samples: int
    num_bytes: int
    sha256: str
    classes: tuple[str, ...]
    """Class names of the labels; empty if the labels are numbers in the tar."""
    by_label: Mapping[int, int]
    """Label -> number of samples, without unlabelled ones."""
    last: str
    """Key of a sample with the largest label; "" if all samples are unlabelled."""
    grey: Grey | None
    """Grey values of the images of more than 8 bits."""
    other_images: Mapping[str, int]
    """Field of a further image beside the used one -> number of samples."""
    num_with_frames: int
    """Samples whose image has several frames."""
    first_with_frames: str
    """Key of the first such sample."""

    @classmethod
    def of(cls, index: ShardIndex) -> ShardLabels:
        """Return the summary of an index."""
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
        """Number of samples with a label."""
        return sum(self.by_label.values())

    def told(self) -> Counter[Label]:
        """Label in the tar -> number of samples."""
        return Counter({self.label(n): count for n, count in self.by_label.items()})

    def positions(self, classes: ClassList) -> dict[int, int] | None:
        """Label -> position in a class list; None: some labels can only be resolved by reading the tar again."""
        if self.classes and max(self.by_label, default=0) >= len(self.classes):
            return None
        look_up = classes.named if self.classes else classes.position
        found = {n: look_up(self.label(n)) for n in self.by_label}
        return {n: at for n, at in found.items() if at is not None} if None not in found.values() else None

    def counts(self, classes: ClassList) -> Counter[str]:
        """Class -> number of samples."""
        positions = self.positions(classes) or {}
        counted: Counter[str] = Counter()
        for label, count in self.by_label.items():
            counted[classes.names[positions[label]]] += count
        return counted

    def needs_renumbering(self, classes: ClassList) -> bool:
        """Whether the labels of the index are not yet positions in the class list."""
        if self.classes:
            return self.classes != classes.names
        return any(label != position for label, position in (self.positions(classes) or {}).items())

    def label(self, number: int) -> Label:
        """Return the label as in the tar: a name, or the number itself."""
        return self.classes[number] if self.classes else number


def refuse_other_classes(counts: Mapping[str, Mapping[str, int]], splits: Mapping[str, str]) -> None:
    """Refuse splits that follow from names of tars and share no class with training: test-tubes-000.tar of a class.

    Args:
        counts: split -> class -> number of samples.
        splits: tar -> split, of tars with a split in their name.

    Raises:
        ValueError: naming a tar of such a split.
    """
    training = set(counts.get("train", ()))
    for tar, split in splits.items():
        classes = set(counts[split])
        if len(training) > 1 and classes and not classes & training:
            raise ValueError(
                f"{tar} counts as {split} by its name, but {split} has only classes that train lacks "
                f"({', '.join(sorted(classes)[:4])}): if the name tells no split, give --split train; otherwise "
                f"correct the labels, or index {split} by a command of its own with --split {split}"
            )


def renumbered(index: ShardIndex, classes: ClassList) -> ShardIndex:
    """Return the index with labels that are positions in the class list of all shards."""
    positions = ShardLabels.of(index).positions(classes)
    assert positions is not None
    # The table has one row per label that occurs, since the largest label may be any number.
    present, inverse = np.unique(index.labels, return_inverse=True)
    table = np.array([positions.get(int(label), UNLABELLED) for label in present], dtype=np.int32)
    labels = table[inverse] if len(present) else index.labels
    return dataclasses.replace(index, labels=labels, classes=classes.names)


def classes_of(where: str, tars: Sequence[str], found: Sequence[ShardLabels]) -> tuple[str, ...]:
    """Return the class list deduced from the labels of all shards.

    Raises:
        ValueError: no class list can be deduced; see `deduced`.
    """
    counts: Counter[Label] = Counter()
    for labels in found:
        counts.update(labels.told())
    if not counts:
        raise ValueError("no sample has a label; give the class list of the model by --classes")
    numbered = [
        tar for tar, labels in zip(tars, found, strict=True) if labels.by_label and not labels.classes
    ]
    words = [label for label in counts if isinstance(label, str) and number_of(label) is None]
    if numbered and words:
        raise ValueError(
            f"{numbered[0]} has class numbers, but other tars have class names ({min(words)!r}); give --classes"
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
