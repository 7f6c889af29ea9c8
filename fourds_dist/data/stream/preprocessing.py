"""Preprocessing of an encoded image for a network: the same central crop as in evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fourds_dist.data.decode.crop_box import CENTRE, ResizeMode
from fourds_dist.data.decode.decode import decode
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.stream.batch import normalise
from fourds_dist.data.stream.config import MOST_PX, DataConfig
from fourds_dist.data.stream.network_input import NetworkInput, resized
from fourds_dist.io.json_text import parse_json

KEYS = ("resize_px", "crop_px", "mean", "std", "grey_range", "max_megapixels", "resize_mode")
NEW_KEYS = {"grey_range", "max_megapixels", "resize_mode"}
"""Keys that files of earlier versions lack."""
IMAGE_PX = "image_px"
"""Key of the network's own size; files of earlier versions, and of networks that take the crop as decoded, lack it."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize to resize_px by resize_mode, crop the central crop_px x crop_px, resize the crop to the network's size,
    normalise by channel.

    Args:
        grey_range: (black, white) of images of more than 8 bits; None: the network was trained on images of 8 bits.
        max_megapixels: larger images are refused.
        resize_mode: see `crop_box`; files of earlier versions squeeze.
        image_px: side of the images that the network takes, resized from the crop; None: crop_px.

    >>> text = '{"resize_px": 36, "crop_px": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}'
    >>> Preprocessing.from_json(text, "example").crop_px
    32
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    grey_range: GreyRange | None = None
    max_megapixels: float = DataConfig().max_megapixels
    resize_mode: ResizeMode = "squeeze"
    image_px: int | None = None

    @classmethod
    def of(
        cls, config: DataConfig, grey_range: GreyRange | None = None, network: NetworkInput | None = None
    ) -> Preprocessing:
        """Return the preprocessing of a configuration's `data` section for a network.

        Args:
            grey_range: range of the data set, used if the section has none.
            network: size and normalisation of the network; None: those of the section.
        """
        values: dict[str, Any] = {key: getattr(config, key) for key in KEYS}
        values["grey_range"] = config.grey_range or grey_range
        if network is not None:
            values |= {"mean": network.mean, "std": network.std}
            values[IMAGE_PX] = None if network.image_px == config.crop_px else network.image_px
        return cls(**values)

    @property
    def network_px(self) -> int:
        """Return the side of the images that the network takes, in pixels."""
        return self.image_px or self.crop_px

    @classmethod
    def from_json(cls, text: str, where: str) -> Preprocessing:
        """Return the preprocessing in the output of `to_json`.

        Args:
            where: file that holds the text, for messages.

        Raises:
            ValueError: missing keys, or invalid values.
        """
        try:
            content = parse_json(text)
            values = {key: content[key] for key in KEYS if key in content or key not in NEW_KEYS}
            config = DataConfig.model_validate_json(json.dumps(values))
            image_px = _size(content.get(IMAGE_PX))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{where}: the preprocessing cannot be read ({' '.join(str(error).split())}); export the student again"
            ) from None
        own = NetworkInput(image_px or config.crop_px, config.mean, config.std)
        return cls.of(config, network=own)

    def to_json(self) -> str:
        """Return one line of JSON, for a file's metadata."""
        values = asdict(self)
        if self.image_px is None:
            del values[IMAGE_PX]
        return json.dumps(values)

    def loader(self) -> DataConfig:
        """Return a configuration that decodes the crops of this preprocessing."""
        return DataConfig(**{key: getattr(self, key) for key in KEYS})

    def pixels(self, data: bytes) -> UInt8[Tensor, "3 H W"]:
        """Decode and crop an encoded image.

        Raises:
            ValueError: the image cannot be decoded completely.
        """
        return decode(
            data,
            resize_px=self.resize_px,
            crop_px=self.crop_px,
            place=CENTRE,
            grey_range=self.grey_range,
            most_pixels=round(self.max_megapixels * 1e6),
            resize_mode=self.resize_mode,
        )

    def normalised(self, pixels: UInt8[Tensor, "B 3 _H _W"]) -> Float[Tensor, "B 3 H W"]:
        """Return the network's input from decoded crops, on the device of `pixels`."""
        flip = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        images = normalise(pixels, flip, mean=self.mean, std=self.std)
        return images if self.image_px is None else resized(images, self.image_px)


def _size(value: object) -> int | None:
    """Return a network's own size; None if there is none.

    Raises:
        ValueError: the value is no size in pixels.
    """
    if value is None or (type(value) is int and 1 <= value <= MOST_PX):
        return value
    raise ValueError(f"{IMAGE_PX} is {value!r}, not a number of pixels from 1 to {MOST_PX}")
