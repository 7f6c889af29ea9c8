"""A loaded student and its predictions; `loading` opens students."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.images import BATCH_SIZE, ImageBatch, ImageSource, open_files
from fourds_dist.inference.metrics import softmax
from fourds_dist.models.backbones import BackboneConfig

ABOUT = "fourds_dist.json"
"""Name of the metadata file inside a torch.export archive."""


@dataclass(frozen=True)
class Student:
    """A classifier with its classes and its preprocessing.

    Args:
        origin: path or URL that the student was loaded from, for messages.
        classes: class names in the order of the logits.
        preprocessing: from file to pixels, and from pixels to the network's input.
        run: pixels (B, 3, H, W) uint8 to logits (B, K), on the CPU.
        network: the module of a run, a checkpoint or safetensors; None for an exported program.
        about: metadata of the file (arch, domain, ...).
    """

    origin: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    run: Callable[[UInt8[Tensor, "B 3 H W"]], Float[Tensor, "B K"]]
    network: nn.Module | None
    about: Mapping[str, str]

    def probabilities_of(
        self, images: ImageSource, batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[ImageBatch, np.ndarray]]:
        """Yield batches of images and their class probabilities (B, K)."""
        for batch in images.batches(self.preprocessing, batch_size):
            yield batch, softmax(self.run(batch.pixels).numpy())

    def predict(self, files: str | Path | Iterable[str | Path], *, top: int = 1) -> list[Prediction]:
        """Predict the classes of image files, and of all images below folders.

        Args:
            top: classes to return per image.

        Raises:
            ValueError: a path that does not exist, or a file that is no image.
        """
        files = [files] if isinstance(files, str | Path) else list(files)
        images = open_files(files)
        predictions = list(self.ranked(images, top))
        if images.unreadable:
            path, why = next(iter(images.unreadable.items()))
            raise ValueError(
                f"{len(images.unreadable)} files cannot be read as images (first: {path}: {why})"
            )
        return predictions

    def ranked(self, images: ImageSource, top: int = 1) -> Iterator[Prediction]:
        """Yield the prediction of each image in order, with its `top` most probable classes."""
        for batch, probabilities in self.probabilities_of(images):
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
            for name, best, row in zip(batch.names, order, probabilities, strict=True):
                yield Prediction(name, tuple((self.classes[k], float(row[k])) for k in best))


@dataclass(frozen=True)
class Prediction:
    """A student's prediction for one image."""

    file: str
    ranking: tuple[tuple[str, float], ...]
    """(class, probability), in descending order of probability."""

    @property
    def label(self) -> str:
        """The predicted class."""
        return self.ranking[0][0]

    @property
    def confidence(self) -> float:
        """Probability of the predicted class."""
        return self.ranking[0][1]


def description(
    network: BackboneConfig, classes: tuple[str, ...], preprocessing: Preprocessing, more: Mapping[str, str]
) -> dict[str, str]:
    """Return the metadata of a student's file, the same in every format: strings by name."""
    required = {
        "format": "fourds_dist",
        "arch": network.arch,
        "stem": network.stem,
        "classes": "\n".join(classes),
    }
    return {**more, **required, "preprocessing": preprocessing.to_json()}


def network_of(student: Student) -> nn.Module:
    """Return the student's network.

    Raises:
        ValueError: the student is an exported program, which has no module.
    """
    if student.network is None:
        raise ValueError(f"{student.origin} is an exported program; give the run or the .safetensors instead")
    return student.network


def classes_of(about: Mapping[str, str], url: str) -> tuple[str, ...]:
    """Return the classes that a file's metadata lists.

    Raises:
        ValueError: the metadata lists no classes.
    """
    if not about.get("classes") or about.get("format") != "fourds_dist":
        raise ValueError(
            f"{url} lists no classes in its metadata, so it is no student of fourds_dist; give a file from a run's "
            "folder or from `fourds export`"
        )
    return tuple(about["classes"].split("\n"))
