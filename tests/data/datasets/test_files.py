"""Image files are checked by their content, and those that cannot be read are named with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fourds_dist.data.datasets.files import check_images
from tests.data.deep_images import encoded
from tests.rights import reachable_folder, unprivileged


def test_images_that_this_user_may_not_read_are_not_called_broken() -> None:
    with reachable_folder() as folder:
        for name in ("a.png", "b.png"):
            Image.new("RGB", (4, 4)).save(folder / name)
        paths = [folder / "a.png", folder / "b.png"]
        (folder / "a.png").chmod(0)
        keys: dict[str, Any] = {
            "skip_bad": False,
            "decode": False,
            "num_threads": 1,
            "on_progress": lambda *_: None,
        }
        with (
            unprivileged(),
            pytest.raises(ValueError, match=r"a\.png.*\ngive this user permission to read them, or"),
        ):
            check_images(paths, **keys)
        (folder / "b.png").write_bytes(b"no image")
        with unprivileged(), pytest.raises(ValueError, match="repair or remove them, or"):
            check_images(paths, **keys)


def checked(paths: list[Path], **how: Any) -> list[str | None]:
    given = {"skip_bad": False, "decode": False, "num_threads": 2, "on_progress": lambda *_: None}
    return check_images(paths, **given | how)


def written(folder: Path, name: str, format: str, **options: Any) -> Path:
    (folder / name).write_bytes(encoded(Image.new("RGB", (4, 4), "red"), format, **options))
    return folder / name


def test_the_extension_is_that_of_the_content_in_the_order_of_the_paths(tmp_path: Path) -> None:
    formats = {
        "JPEG": "jpg",
        "PNG": "png",
        "WEBP": "webp",
        "BMP": "bmp",
        "TIFF": "tif",
        "PPM": "ppm",
        "GIF": "gif",
    }
    paths = [written(tmp_path, f"{n}.jpg", format) for n, format in enumerate(formats)]
    done: list[tuple[str, int, int | None]] = []
    for decode in (False, True):
        assert checked(paths, decode=decode, on_progress=lambda *word: done.append(word)) == [
            *formats.values()
        ]
    assert done == 2 * [("checking", n, 7) for n in range(1, 8)]
    assert checked([]) == []


def test_files_of_several_frames_are_listed(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    (tmp_path / "b.gif").write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    several: list[Path] = []
    assert checked([written(tmp_path, "a.gif", "GIF"), tmp_path / "b.gif"], several=several) == ["gif", "gif"]
    assert several == [tmp_path / "b.gif"]


def test_unreadable_files_are_left_out_only_on_request_and_never_all(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    bad, good = tmp_path / "bad.png", written(tmp_path, "a.png", "PNG")
    icon = written(tmp_path, "c.png", "ICO")
    assert checked([bad, good, icon], skip_bad=True) == [None, "png", None]
    with pytest.raises(
        ValueError, match=r"2 of 3 .*(?s:.*)bad\.png: .+\n.*c\.png: the format ICO is not supported; use"
    ):
        checked([bad, good, icon])
    with pytest.raises(ValueError, match=r"^1 of 1 images cannot be read:\n  .*bad\.png: [^\n]*$"):
        checked([bad], skip_bad=True)


def test_a_very_large_image_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    path = written(tmp_path, "a.png", "PNG")
    with pytest.raises(
        ValueError, match=r"a\.png: .*16 pixels.*raise --max-megapixels here and data\.max_megapixels"
    ):
        checked([path])


def test_a_wrong_checksum_is_found_without_decoding(tmp_path: Path) -> None:
    path = written(tmp_path, "a.png", "PNG")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    for decode in (False, True):
        with pytest.raises(ValueError, match=r"1 of 1 .*\n.*a\.png: "):
            checked([path], decode=decode)
