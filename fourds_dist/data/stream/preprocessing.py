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
from fourds_dist.data.stream.config import DataConfig
from fourds_dist.io.json_text import parse_json

KEYS = ("resize_px", "crop_px", "mean", "std", "grey_range", "max_megapixels", "resize_mode")
NEW_KEYS = {"grey_range", "max_megapixels", "resize_mode"}
"""Keys that files of earlier versions lack."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize to resize_px by resize_mode, crop the central crop_px x crop_px, normalise by channel.

    Args:
        grey_range: (black, white) of images of more than 8 bits; None: the network was trained on images of 8 bits.
        max_megapixels: larger images are refused.
        resize_mode: see `crop_box`; files of earlier versions squeeze.

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

    @classmethod
    def of(cls, config: DataConfig, grey_range: GreyRange | None = None) -> Preprocessing:
        """Return the preprocessing of a configuration's `data` section.

        Args:
            grey_range: range of the data set, used if the section has none.
        """
        values: dict[str, Any] = {key: getattr(config, key) for key in KEYS}
        values["grey_range"] = config.grey_range or grey_range
        return cls(**values)

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
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{where}: the preprocessing cannot be read ({' '.join(str(error).split())}); export the student again"
            ) from None
        return cls.of(config)

    def to_json(self) -> str:
        """Return one line of JSON, for a file's metadata."""
        return json.dumps(asdict(self))

    def loader(self) -> DataConfig:
        """Return a configuration with this preprocessing."""
        return DataConfig(**asdict(self))

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

    def normalised(self, pixels: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Return normalised pixels, the network's input, on the device of `pixels`."""
        flip = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        return normalise(pixels, flip, mean=self.mean, std=self.std)
