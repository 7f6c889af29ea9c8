"""Files of several frames are recognised in every format, and told in one sentence."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from fourds_dist.data.files.frames import file_has_more_frames, frames_remark, has_more_frames
from tests.data.deep_images import encoded

FRAMES = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green")]


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_formats_of_several_frames(format: str) -> None:
    for more, expected in (({}, False), ({"save_all": True, "append_images": FRAMES[1:]}, True)):
        data = encoded(FRAMES[0], format, **more)
        assert file_has_more_frames(data) == expected
        with Image.open(io.BytesIO(data)) as image:
            assert has_more_frames(image) == expected


def test_a_photograph_of_two_pictures_and_broken_files_have_one_frame() -> None:
    data = encoded(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:])
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("MPO", 2)
        assert not has_more_frames(image)
    assert not file_has_more_frames(data)
    for broken in (b"", b"no image", encoded(FRAMES[0], "GIF")[:5]):
        assert not file_has_more_frames(broken)


def test_the_remark_takes_one_line() -> None:
    assert frames_remark(0, "") == []
    (line,) = frames_remark(3, "a\nb.gif")
    assert line.startswith("files of several frames (animations, stacks of pages): 3 (first: a")
    assert "\n" not in line
    assert line.endswith("the first frame of each is taken; save the other frames as files to use them, too")
