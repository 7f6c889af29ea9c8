"""How an encoded image becomes a network's input: the same central crop as in training's evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fourds_dist.data.batch import normalise
from fourds_dist.data.decode import decode
from fourds_dist.data.grey import GreyRange
from fourds_dist.data.loader import LoaderConfig
from fourds_dist.json_text import parsed_json

KEYS = ("resize_px", "crop_px", "mean", "std", "grey_range", "max_megapixels")
NEW_KEYS = {"grey_range", "max_megapixels"}
"""Files of earlier versions lack them."""


@dataclass(frozen=True)
class Preprocessing:
    """Squeeze to resize_px x resize_px, cut the central crop_px x crop_px, normalise by channel.

    Args:
        grey_range: (black, white) of images of more than 8 bits; None: the network was trained on images of 8 bits.
        max_megapixels: larger images are refused.

    >>> told = '{"resize_px": 36, "crop_px": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}'
    >>> Preprocessing.from_json(told, "example").crop_px
    32
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    grey_range: GreyRange | None = None
    max_megapixels: float = LoaderConfig().max_megapixels

    @classmethod
    def of(cls, config: LoaderConfig, grey_range: GreyRange | None = None) -> Preprocessing:
        """What the configuration's `data` section says of it.

        Args:
            grey_range: of the data set, where the section says none.
        """
        told: dict[str, Any] = {key: getattr(config, key) for key in KEYS}
        told["grey_range"] = config.grey_range or grey_range
        return cls(**told)

    @classmethod
    def from_json(cls, text: str, where: str) -> Preprocessing:
        """What `to_json` gave.

        Raises:
            ValueError: other keys or values.
        """
        try:
            values = parsed_json(text)
            told = {key: values[key] for key in KEYS if key in values or key not in NEW_KEYS}
            config = LoaderConfig.model_validate_json(json.dumps(told))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{where}: its preprocessing cannot be read ({' '.join(str(error).split())}); export the student again"
            ) from None
        return cls.of(config)

    def to_json(self) -> str:
        """One line, for a file's metadata."""
        return json.dumps(asdict(self))

    def loader(self) -> LoaderConfig:
        """The configuration that reads images so."""
        return LoaderConfig(**asdict(self))

    def pixels(self, data: bytes) -> UInt8[Tensor, "3 H W"]:
        """An encoded image, decoded and cropped.

        Raises:
            ValueError: not an image that can be read whole.
        """
        return decode(
            data,
            resize_px=self.resize_px,
            crop_px=self.crop_px,
            place=(0.5, 0.5),
            grey_range=self.grey_range,
            most_pixels=round(self.max_megapixels * 1e6),
        )

    def normalised(self, pixels: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels as the network takes them, on their device."""
        flip = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        return normalise(pixels, flip, mean=self.mean, std=self.std)
