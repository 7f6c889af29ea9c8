"""A student, ready to look at images; `loading` opens them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fourds_dist.method.backbones import BackboneConfig
from fourds_dist.results.images import BATCH_SIZE, Images, Pictures, open_files
from fourds_dist.results.preprocessing import Preprocessing
from fourds_dist.results.scores import softmax

ABOUT = "fourds_dist.json"
"""Name of the description inside a torch.export archive."""


@dataclass(frozen=True)
class Student:
    """A classifier with what it needs to know about its images.

    Args:
        origin: where it came from, for people.
        classes: in the order of the logits.
        preprocessing: from file to pixels, and from pixels to the network's input.
        run: pixels (B, 3, H, W) uint8 to logits (B, K), on the CPU.
        network: the module itself, for safetensors and checkpoints.
        about: its description (arch, domain, ...).
    """

    origin: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    run: Callable[[UInt8[Tensor, "B 3 H W"]], Float[Tensor, "B K"]]
    network: nn.Module | None
    about: Mapping[str, str]

    def looked_at(
        self, images: Images, batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Pictures, np.ndarray]]:
        """Batches of images and their probabilities (B, K)."""
        for pictures in images.batches(self.preprocessing, batch_size):
            yield pictures, softmax(self.run(pictures.pixels).numpy())

    def predict(self, files: str | Path | Iterable[str | Path], *, top: int = 1) -> list[Prediction]:
        """The likeliest classes of image files, and of all images below folders.

        Args:
            top: classes to tell of each image.

        Raises:
            ValueError: nothing at a path, or a file that is no image.
        """
        files = [files] if isinstance(files, str | Path) else list(files)
        images = open_files(files)
        found = list(self.ranked(images, top))
        if images.unreadable:
            path, why = next(iter(images.unreadable.items()))
            raise ValueError(
                f"{len(images.unreadable)} files cannot be read as images (first: {path}: {why})"
            )
        return found

    def ranked(self, images: Images, top: int = 1) -> Iterator[Prediction]:
        """The likeliest classes of images, as they are read."""
        for pictures, probabilities in self.looked_at(images):
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
            for name, best, row in zip(pictures.names, order, probabilities, strict=True):
                yield Prediction(name, tuple((self.classes[k], float(row[k])) for k in best))


@dataclass(frozen=True)
class Prediction:
    """What a student says of one image."""

    file: str
    ranking: tuple[tuple[str, float], ...]
    """(class, probability), the likeliest first."""

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.ranking[0][0]

    @property
    def confidence(self) -> float:
        """Its probability."""
        return self.ranking[0][1]


def description(
    network: BackboneConfig, classes: tuple[str, ...], preprocessing: Preprocessing, more: Mapping[str, str]
) -> dict[str, str]:
    """What a student's file says of itself, in every format alike: strings by name."""
    own = {"format": "fourds_dist", "arch": network.arch, "stem": network.stem, "classes": "\n".join(classes)}
    return {**more, **own, "preprocessing": preprocessing.to_json()}


def network_of(student: Student) -> nn.Module:
    """The student as a module.

    Raises:
        ValueError: an exported program, which has none.
    """
    if student.network is None:
        raise ValueError(f"{student.origin} is an exported program; give the run or the .safetensors instead")
    return student.network


def classes_of(about: Mapping[str, str], url: str) -> tuple[str, ...]:
    """The classes that a file's description names.

    Raises:
        ValueError: it names none.
    """
    if not about.get("classes") or about.get("format") != "fourds_dist":
        raise ValueError(
            f"{url} says no classes in its metadata: it was not written by a run or an export of ours"
        )
    return tuple(about["classes"].split("\n"))
