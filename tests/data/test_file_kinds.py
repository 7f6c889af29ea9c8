"""What counts as an image, and what a system left."""

from __future__ import annotations

import unicodedata

import pytest

from fourds_dist.data.file_kinds import UNREAD_FORMATS, is_image, is_left_by_system, kind_of
from fourds_dist.data.text import composed


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
