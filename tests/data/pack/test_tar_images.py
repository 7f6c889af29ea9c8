"""Images of a tar are checked while it is indexed: format, grey values, frames and decoding."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.pack.tar import TarFault
from fourds_dist.data.pack.tar_images import MOST_IMAGE_BYTES, TarImages
from fourds_dist.data.pack.webdataset_samples import MOST_LABEL_BYTES
from tests.data.deep_images import encoded, png16, tiff
from tests.data.pack.tars import index_of, tar_bytes

DEEP = png16(np.array([[[7], [4000]]], np.uint16))
PLAIN = encoded(Image.new("RGB", (4, 4), "red"), "PNG")


def labelled(*images: tuple[str, bytes]) -> bytes:
    return tar_bytes(
        [member for name, data in images for member in ((name, data), (f"{name.split('.')[0]}.cls", b"0"))]
    )


def test_bytes_are_kept_for_what_is_analysed_and_for_labels() -> None:
    def kept(**how: object) -> list[int]:
        images = TarImages("s.tar", "cls", how.pop("image", None), None, **how)  # pyright: ignore
        return [images.most_kept(f"k.{field}") for field in ("cls", "png", "jpg", "bin", "txt")]

    most, label = MOST_IMAGE_BYTES, MOST_LABEL_BYTES
    assert kept(measure=False, decode=None) == [label, 0, 0, 0, 0]
    assert kept(measure=True, decode=None) == [label, most, 0, 0, 0]
    assert kept(measure=True, decode=100) == [label, most, most, 0, 0]
    assert kept(measure=True, decode=100, image="bin") == [label, most, most, most, 0]


def test_grey_values_are_those_of_the_used_images() -> None:
    brighter = png16(np.array([[[60_000]]], np.uint16))
    beside = [("c.jpg", b"\xff\xd8\xff"), ("c.depth.png", brighter), ("c.cls", b"0")]
    data = tar_bytes([("a.png", DEEP), ("a.cls", b"0"), ("b.png", PLAIN), ("b.cls", b"0"), *beside])
    grey = json.loads(index_of(data).grey)
    assert (grey["num_images"], grey["lowest"], grey["highest"]) == (1, 7, 4000)
    assert index_of(data, measure=False).grey == ""


def test_values_without_a_common_scale_are_refused_with_the_tar_s_name() -> None:
    floats = tiff(np.array([[[0.5], [0.25]]], np.float32))
    with pytest.raises(ValueError, match=r"^s\.tar: there are 1 16-bit images and 1 float images"):
        index_of(labelled(("a.png", DEEP), ("b.tif", floats)))


def test_images_of_several_frames_are_listed() -> None:
    frames = [Image.new("L", (4, 4), n) for n in (0, 200)]
    several = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    data = labelled(("a.gif", encoded(frames[0], "GIF")), ("b.gif", several))
    assert index_of(data).with_frames.tolist() == ["b"]


def test_images_are_decoded_on_request() -> None:
    data = labelled(("a.png", PLAIN), ("b.png", PLAIN[:-30]))
    assert len(index_of(data)) == 2
    with pytest.raises(TarFault, match=r"b\.png.*sample 'b' has an image that cannot be read.*--skip-bad"):
        index_of(data, decode=100)
    faults: list[TarFault] = []
    assert index_of(data, decode=100, on_fault=faults.append).keys.tolist() == ["a"]
    assert [fault.kind for fault in faults] == ["unreadable image"]
    with pytest.raises(TarFault, match="sample 'a'"):  # of 16 pixels
        index_of(data, decode=15)


def test_images_of_any_field_are_measured_if_they_are_decoded() -> None:
    grey = json.loads(index_of(labelled(("a.bin", DEEP)), image="bin", decode=100).grey)
    assert (grey["lowest"], grey["highest"]) == (7, 4000)
