"""Checks of the metadata of a file of weights against the run: what is refused, reported, or adapted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn

from fourds_dist.models.weights.channel_order import reverse_channels
from fourds_dist.models.weights.class_order import reorder_classes
from fourds_dist.models.weights.metadata import (
    CROP_KEYS,
    NETWORK_KEYS,
    PREPROCESSING_KEYS,
    NetworkMetadata,
    class_order,
    other_architecture,
    other_classes,
    other_grey_range,
    other_preprocessing,
)

Metadata = Literal["check", "ignore"]
Notify = Callable[[str], None]


@dataclass(frozen=True)
class MetadataCheck:
    """The metadata of one file of weights and of the run that loads the file."""

    where: str
    """The file, for messages."""
    of_file: NetworkMetadata
    run: NetworkMetadata
    what: str
    """Key of the file in the configuration, e.g. "teacher.checkpoint"."""
    metadata: Metadata
    """`ignore`: differences are reported instead of refused."""
    notify: Notify
    """Receives one line per difference that is not refused."""

    @cached_property
    def other_classes(self) -> str | None:
        """How the class names differ; None if they do not."""
        return other_classes(self.of_file, self.run)

    @cached_property
    def other_architecture(self) -> str | None:
        """How the architectures differ; None if they do not."""
        return other_architecture(self.of_file, self.run)

    def start(self) -> None:
        """Check initial weights. Other classes or another image size are reported, as training follows.

        Raises:
            ValueError: another normalisation of the images.
        """
        if self.other_classes is not None:
            self.notify(f"{self.where} was trained for other classes than the data's: {self.other_classes}")
        self._sizes(CROP_KEYS)
        self.preprocessing(keys=NETWORK_KEYS)

    def classes(self) -> None:
        """Check the names of the classes.

        Raises:
            ValueError: other names.
        """
        problem = self.other_classes
        if problem is None and self._other_order is None:
            return
        if self.metadata == "ignore":
            names = f"have other names than the data's ({problem})"
            text = names if problem else f"are in another order ({self._first_classes})"
            self.notify(f"{self.where}: the classes {text}, ignored by {self._key}")
        elif problem:
            raise ValueError(
                f"{self.where} was trained for other classes than the data's: {problem}. Pack the data with the class "
                f"names of the file, give weights for the classes of the data, or set {self._key} if the classes are "
                "the same, in the same order"
            )

    def architecture(self) -> None:
        """Check the architecture of weights whose tensors fit, as networks of equal shapes may compute other outputs.

        A difference is only reported for entry points, which users move and rename.

        Raises:
            ValueError: another architecture.
        """
        if self.other_architecture is None:
            return
        text = (
            f"{self.where} has metadata of another network, {self.other_architecture}, but all its tensors fit "
            f"arch={self.run.arch}"
        )
        if self.metadata == "ignore" or ":" in f"{self.of_file.arch}{self.run.arch}":
            self.notify(text)
            return
        raise ValueError(
            f"{text}; set {self._role}.arch to that network, or {self._key} to use the weights as they are"
        )

    def preprocessing(self, keys: Collection[str] = PREPROCESSING_KEYS) -> None:
        """Check the preprocessing of images. Another size of the network's images alone is reported.

        Raises:
            ValueError: other values of `keys`, or a grey range far from the run's.
        """
        if "crop_px" in keys:
            self._sizes(())
        differs = other_preprocessing(self.of_file, self.run, keys, role=self._role)
        if (grey := other_grey_range(self.of_file, self.run)) is not None:
            text, is_far = grey
            if is_far:
                differs.append(text)
            else:
                self.notify(f"{self.where} was trained on images with another grey range: {text}")
        if not differs:
            return
        text = f"{self.where} was trained with other preprocessing: {', '.join(differs)}"
        if self.metadata == "ignore":
            self.notify(f"{text}; ignored by {self._key}")
            return
        raise ValueError(
            f"{text}. Set these keys to the file's values, or {self._key} to use the weights without this check"
        )

    def _sizes(self, keys: Sequence[str]) -> None:
        """Report other sizes: those of `keys`, and that of the network's images if the crop is equal."""
        crop = other_preprocessing(self.of_file, self.run, ("crop_px",), role=self._role)
        keys = keys if crop else (*keys, "image_px")
        sizes = other_preprocessing(self.of_file, self.run, keys, role=self._role)
        if sizes:
            self.notify(f"{self.where} was trained on images of another size: {', '.join(sizes)}")

    def reorder(self, network: nn.Module, image_size: int | None) -> None:
        """Reorder the classes of the loaded network if the file has the run's classes in another order.

        Raises:
            ValueError: the last layer of the network is unknown.
        """
        order = self._other_order
        if order is None:
            return
        assert image_size is not None
        try:
            names = reorder_classes(network, order, image_size)
        except ValueError as error:
            raise ValueError(
                f"{self.where} has the classes of the data in another order ({self._first_classes}), and they cannot "
                f"be reordered ({error}); pack the data with that order (fourds pack ... --classes FILE, one name per "
                "line)"
            ) from None
        self.notify(
            f"{self.where}: the classes are in another order than the data's; reordered {', '.join(names)} by class "
            "name"
        )

    def reverse_channels(self, network: nn.Module, image_size: int | None) -> None:
        """Reverse the input channels of the loaded network if the file's network reads BGR.

        Raises:
            ValueError: no layer reads the channels.
        """
        if not self.of_file.reads_bgr:
            return
        text = f"{self.where} was trained on images in BGR, and the run reads RGB"
        if self.metadata == "ignore":
            self.notify(f"{text}; ignored by {self._key}")
            return
        assert image_size is not None
        try:
            name = reverse_channels(network, image_size)
        except ValueError as error:
            raise ValueError(
                f"{text}, and its channels cannot be reversed ({error}); give weights for RGB, or set {self._key} to "
                "use the weights as they are"
            ) from None
        self.notify(f"{text}; reversed the input channels of {name}")

    @property
    def _other_order(self) -> list[int] | None:
        order = class_order(self.of_file, self.run)
        return None if order is None or order == sorted(order) else order

    @property
    def _first_classes(self) -> str:
        names = self.of_file.classes or ()
        return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")

    @property
    def _role(self) -> str:
        return self.what.partition(".")[0]

    @property
    def _key(self) -> str:
        return f"{self._role}.metadata=ignore"
