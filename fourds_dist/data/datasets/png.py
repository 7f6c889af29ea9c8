"""Encode images as PNG, which is lossless and small for drawings and digits."""

from __future__ import annotations

import io

from PIL import Image


def png(image: Image.Image) -> bytes:
    """Return the image as the bytes of a PNG file."""
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    return encoded.getvalue()
