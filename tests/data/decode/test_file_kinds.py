"""What counts as an image, and what a system left."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fourds_dist.data.datasets.folder import image_folder
from fourds_dist.data.decode.decode import decode
from fourds_dist.data.decode.file_kinds import (
    UNREAD_FORMATS,
    is_image,
    is_left_by_system,
    kind_of,
    other_kind,
)
from fourds_dist.io.names import composed
from tests.data.deep_images import tiff


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "#recycle", "#snapshot", ".DS_Store", "._1.jpg", "__MACOSX", "Thumbs.db", "desktop.ini"),
        *("lost+found", "$RECYCLE.BIN", "System Volume Information", ".ipynb_checkpoints", ".AppleDouble"),
        *(".Trash-1000", "@Recycle", "~$a.jpg", "FOUND.000", "SYNOPHOTO_THUMB_M.jpg", "Icon\r", ".nfs0001"),
    ],
)
def test_left_by_a_system(name: str) -> None:
    assert is_left_by_system(name)
    assert not is_image(name)


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.b.JPEG", "#1.png", "@home.webp", "thumbs.jpg", "a.TIFF", "a.mpo"]
)
def test_images(name: str) -> None:
    assert is_image(name)
    assert not is_left_by_system(name)


def test_other_files_are_counted_by_kind() -> None:
    names = ["a.HEIC", ".x.jpg", "Thumbs.db", "readme", "a.nii.gz", "a.txt"]
    assert [kind_of(n) for n in names] == [".heic", "hidden", "thumbs.db", "no extension", ".nii.gz", ".txt"]
    assert UNREAD_FORMATS[".heic"] == "HEIC"
    assert not any(is_image(f"a{extension}") for extension in UNREAD_FORMATS)


def test_one_unicode_form() -> None:
    assert composed(unicodedata.normalize("NFD", "Köter")) == "Köter"


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"\xff\xd8\xff\xe0", None), (b"\x89PNG\r\n\x1a\n", None), (b"RIFF\1\2\3\4WEBPVP8 ", None), (b"II*\0", None),
        (b"P5\n3 3", None), (b"GIF89a", None), (b"BM\1", None),
        (b"\n<!DOCTYPE html>", "a page of HTML"), (b'{"error": 404}', "a page of HTML, XML or JSON"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 image; convert"), (b"\0\0\0 ftypavif", "an AVIF image; convert"),
        (b"\0\0\0 ftypheic", "a HEIC image; convert"), (b"an unknown format", None), (b"", None),
        (b"version https://git-lfs.github.com", "a pointer of Git LFS"), (b"PK\3\4", "a zip archive"),
    ],
)  # fmt: skip
def test_files_that_are_no_images_are_known_by_their_beginning(head: bytes, why: str | None) -> None:
    found = other_kind(head)
    assert found is None if why is None else why in str(found)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"<html>404</html>", r"it begins with b'<html>40': it is a page of HTML.* download the file again"),
        (b"hello, this is text", r"it begins with b'hello, t', which is not a readable JPEG, .* or PPM"),
        (
            tiff(np.zeros((4, 4, 3), "f4")),
            "it is a TIFF of 3 32-bit float values per pixel, .* convert it to 8-bit",
        ),
        (tiff(np.zeros((4, 4, 5), "u2"), ">"), "it is a TIFF of 5 16-bit unsigned values per pixel"),
        (tiff(np.zeros((4, 4, 1), "f8")), "it is a TIFF of 1 64-bit float value per pixel"),
        (b"II*\0\x08\0\0\0" + bytes(6), "which is not a readable JPEG"),
    ],
)
def test_packing_and_decoding_say_alike_why_a_file_is_not_read(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "dog" / "a.tif"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(ValueError, match=why):
        decode(data, resize_px=8, crop_px=8, place=(0.5, 0.5))
    for decodes in (False, True):
        with pytest.raises(ValueError, match=f"dog/a.tif: .*{why}"):
            image_folder(tmp_path, decode=decodes)
