"""Looking through folders: what is an image, what is left out and counted, and what may not be read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fourds_dist.data.files.image_files import find_images, images_in, reason_of


@pytest.fixture
def without_rights() -> Iterator[Path]:
    """A folder cat/mon, cat/tue of an image each, of which tue may not be listed by whom the test runs as."""
    root = Path(tempfile.mkdtemp(prefix="fourds-rights-"))
    root.chmod(0o755)
    for day in ("mon", "tue"):
        (root / "cat" / day).mkdir(parents=True)
        (root / "cat" / day / "1.jpg").touch()
    (root / "cat" / "tue").chmod(0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield root
    os.seteuid(was)
    (root / "cat" / "tue").chmod(0o755)
    shutil.rmtree(root)


def test_what_a_system_left_is_counted_not_taken(tmp_path: Path) -> None:
    for name in (
        *(
            "a.jpg",
            "deep/b.PNG",
            "c.mpo",
            "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
            "deep/@eaDir/b.jpg",
            ".git/x.jpg",
        ),
        *(
            "._a.jpg",
            "Thumbs.db",
            "notes.txt",
            "__MACOSX/a.jpg",
            "x.HEIC",
            "y.heic",
            "z.dcm",
            "SYNOPHOTO_THUMB_S.jpg",
        ),
        *("packed/manifest.json", "packed/x.jpg", "out/1.jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images(tmp_path, leave_out=tmp_path / "out")
    assert [str(path.relative_to(tmp_path)) for path in found.paths] == ["a.jpg", "c.mpo", "deep/b.PNG"]
    assert found.others == {"hidden": 1, "thumbs.db": 1, ".txt": 1, "synophoto_thumb_s.jpg": 1}
    assert found.unread == {".heic": 2, ".dcm": 1}
    assert found.left_folders == {"@eaDir": 2, ".git": 1, "__MACOSX": 1, "dataset folders": 2}
    assert found.left_out()[0].startswith("left out: 1 .dcm (DICOM), 2 .heic (HEIC): images")
    assert "convert them" in found.instead()
    direct, folders = images_in(tmp_path)
    assert [path.name for path in direct.paths] == ["a.jpg", "c.mpo"]
    assert [path.name for path in folders] == ["deep", "out"]


def test_a_folder_without_the_right_to_read_is_an_error_or_counted(without_rights: Path) -> None:
    found = find_images(without_rights)
    assert len(found.paths) == 1
    with pytest.raises(
        ValueError, match=r"1 folder cannot be read:\n.*cat/tue: Permission denied\n.*--skip-bad"
    ):
        found.check_open()
    found.check_open(skip_bad=True)
    assert "1 folder that cannot be read (first" in found.left_out()[0]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(find_images(tmp_path).paths) == 1


def test_links_that_lead_nowhere_are_named_and_pipes_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, target in (
        ("gone.jpg", "/nowhere/gone.jpg"),
        ("loop.jpg", "loop.jpg"),
        ("notes.txt", "/nowhere"),
    ):
        (tmp_path / name).symlink_to(target)
    found = find_images(tmp_path)
    found.check_open()
    assert [path.name for path in found.paths] == ["1.jpg", "gone.jpg", "loop.jpg"]
    assert found.others == {"pipes, sockets and devices": 1, ".txt": 1}
    reasons = [reason_of(path) for path in found.paths]
    assert reasons[:2] == [None, "a link to /nowhere/gone.jpg, which does not exist"]
    assert "symbolic links" in str(reasons[2])


def test_a_link_to_a_folder_that_is_gone_is_an_error_or_counted(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    (tmp_path / "bird").symlink_to("/nowhere/bird")
    found = find_images(tmp_path)
    words = (
        r"bird: a link to /nowhere/bird, which does not exist\ncorrect or remove the links, or leave them out"
    )
    with pytest.raises(ValueError, match=words):
        found.check_open()
    found.check_open(skip_bad=True)
    assert "1 folder that cannot be read (first" in found.left_out()[0]
