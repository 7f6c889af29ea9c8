"""How an encoded image becomes the student's input: the same central crop as in training's evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fourds_dist.data import LoaderConfig
from fourds_dist.data.batch import normalise
from fourds_dist.data.decode import decode
from fourds_dist.json_text import parsed_json

KEYS = ("resize_px", "crop_px", "mean", "std")


@dataclass(frozen=True)
class Preprocessing:
    """Squeeze to resize_px x resize_px, cut the central crop_px x crop_px, normalise by channel.

    >>> told = '{"resize_px": 36, "crop_px": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}'
    >>> Preprocessing.from_json(told, "example").crop_px
    32
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, config: LoaderConfig) -> Self:
        """What the configuration's `data` section says of it."""
        return cls(**{key: getattr(config, key) for key in KEYS})

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """What `to_json` gave.

        Raises:
            ValueError: other keys or values.
        """
        try:
            values = parsed_json(text)
            config = LoaderConfig.model_validate_json(json.dumps({key: values[key] for key in KEYS}))
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
        return decode(data, resize_px=self.resize_px, crop_px=self.crop_px, place=(0.5, 0.5))

    def normalised(self, pixels: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels as the network takes them, on their device."""
        flip = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        return normalise(pixels, flip, mean=self.mean, std=self.std)
