"""The grey range of a data set: measured over all of its images, from any source, and stored with them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fourds_dist.cli.pack import main
from fourds_dist.data import (
    DataConfig,
    DataError,
    StreamConfig,
    TrainStream,
    evaluation_batches,
    open_split,
)
from fourds_dist.data.decode.grey import from_json, joined, measured, to_json
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import read_manifest, write_manifest
from fourds_dist.data.stream.preprocessing import Preprocessing
from tests.data.deep_images import encoded, pgm, png16, tiff
from tests.data.pack.tars import tar_bytes

RANDOM = np.random.default_rng(0)
NUM = 12
SCENES = RANDOM.random((2 * NUM, 10, 10, 1)) * np.linspace(0.1, 1, 2 * NUM)[:, None, None, None]
"""Some dark and some bright: no two have one largest value."""
SCENES[-1, 0, 0] = 1
LEVELS = np.round(SCENES * 255)


def range_of(*images: bytes) -> tuple[float, float] | None:
    total = joined(map(measured, images))
    assert from_json(to_json(total)) == total
    return total and total.range


def u16(*values: float) -> np.ndarray:
    return np.array([[[v] for v in values]], np.uint16)


def test_images_of_8_bits_have_no_part_in_it() -> None:
    grey = Image.fromarray(np.zeros((4, 4), np.uint8))
    assert (
        range_of(*(encoded(grey, format) for format in ("PNG", "TIFF", "JPEG", "PPM")), b"no image") is None
    )
    assert range_of(encoded(grey, "PNG"), png16(u16(0, 900))) == (0, 900)


def test_the_largest_value_of_all_decides_not_one_images() -> None:
    assert range_of(png16(u16(3, 255)), png16(u16(0, 4090)), png16(u16(7, 256))) == (0, 4090)
    assert range_of(png16(u16(3, 200)), png16(u16(0, 100))) == (0, 255)  # 8 bits in a larger file
    assert range_of(png16(u16(0, 0))) == (0, 255)


def test_declared_ranges_take_precedence_over_measured_ranges() -> None:
    said = {b"sBIT": b"\x0c"}
    assert range_of(png16(u16(3, 900), said), png16(u16(1, 17), said)) == (0, 4095)
    assert range_of(png16(u16(3, 901), said), png16(u16(1, 50001), said)) == (
        0,
        65535,
    )  # scaled, by the standard
    assert range_of(
        tiff(u16(3, 900), fields={281: (3, [4000])}), tiff(u16(3), fields={281: (3, [4095])})
    ) == (0, 4095)
    assert range_of(tiff(u16(3, 5000), fields={281: (3, [4095])})) == (0, 5000)  # it is not true
    assert range_of(pgm(u16(3, 900)[..., 0], 1023), pgm(u16(3, 800)[..., 0], 1023)) == (0, 1023)


def test_signed_and_float_values() -> None:
    hounsfield = [np.array([[[-1024], [800]]], np.int32), np.array([[[-5], [3071]]], np.int32)]
    assert range_of(*map(tiff, hounsfield)) == (-1024, 3071)
    assert range_of(tiff(np.array([[[0.0], [0.3]]], np.float32))) == (0, 1)
    assert range_of(tiff(np.array([[[0.0], [0.5]]], np.float32)), tiff(np.array([[[7.5]]], np.float32))) == (
        0,
        7.5,
    )
    assert range_of(tiff(np.array([[[-1.0], [0.5]]], np.float32))) == (-1, 0.5)


def test_integers_and_floats_have_no_common_scale() -> None:
    with pytest.raises(
        ValueError, match="1 16-bit images and 1 float images, whose values have no common scale"
    ):
        range_of(png16(u16(0, 4095)), tiff(np.array([[[0.5]]], np.float32)))


def write(root: Path, images: list[bytes], extension: str) -> str:
    for number, data in enumerate(images):
        path = root / "ab"[number % 2] / f"{number}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(root)


def pixels_of(url: str, **data) -> torch.Tensor:
    """All images of a data set as read in evaluation, in the order of their keys."""
    config = DataConfig(resize_px=10, crop_px=10, threads=1, **data)
    found = {}
    for name in ("train", "val", "test"):
        split = open_split(StreamConfig(url=url), name)
        for batch in evaluation_batches(split, config, batch_size_per_rank=8, rank=0, world_size=1):
            found |= dict(zip((key.rpartition("/")[2] for key in batch.keys), batch.images, strict=True))
    return torch.stack([found[key] for key in sorted(found)])


KINDS = {
    "8 bits": ([encoded(Image.fromarray(a[..., 0].astype(np.uint8)), "PNG") for a in LEVELS], "png"),
    "16 bits": ([png16(a * 257) for a in LEVELS], "png"),
    "12 bits in 16": ([png16(a * 16) for a in LEVELS], "png"),
    "12 bits in 16, in colour": ([png16(np.repeat(a * 16, 3, 2)) for a in LEVELS], "png"),
    "int32": ([tiff((a * 16).astype(np.int32) - 1024) for a in LEVELS], "tif"),
    "float": ([tiff((a / 255).astype(np.float32)) for a in LEVELS], "tif"),
    "pgm": ([pgm(a[..., 0] * 16, 4080) for a in LEVELS], "pgm"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_scans_of_every_depth_train_as_those_of_8_bits(kind: str, tmp_path: Path, capsys) -> None:
    images, extension = KINDS[kind]
    assert main(["folder", write(tmp_path / "scans", images, extension), str(tmp_path / "set")]) == 0
    assert ("images (24) use values" in capsys.readouterr().out) == (kind != "8 bits")
    ours = pixels_of(str(tmp_path / "set")).int()
    keys = sorted(f"{'ab'[n % 2]}-{n}" for n in range(2 * NUM))
    expected = torch.stack([torch.from_numpy(LEVELS[int(key[2:])]).permute(2, 0, 1) for key in keys])
    assert (ours - expected).abs().max() <= 1


def test_the_range_is_in_the_manifest_and_in_the_student_s_preprocessing(tmp_path: Path, capsys) -> None:
    folder = write(tmp_path / "scans", KINDS["12 bits in 16"][0], "png")
    assert main(["folder", folder, str(tmp_path / "set")]) == 0
    assert (
        "the 16-bit images (24) use values up to 4080 of 65535; black is 0 and white is 4080"
        in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "set" / "manifest.json").read_bytes())["grey_range"] == [0, 4080]
    split = open_split(StreamConfig(url=str(tmp_path / "set")), "train")
    kept = Preprocessing.of(DataConfig(), split.grey_range)
    assert Preprocessing.from_json(kept.to_json(), "here").grey_range == (0, 4080)
    assert Preprocessing.of(DataConfig(grey_range=(0, 65535)), split.grey_range).grey_range == (0, 65535)


def test_a_range_can_be_given_and_changed(tmp_path: Path, capsys) -> None:
    folder, url = write(tmp_path / "scans", KINDS["12 bits in 16"][0], "png"), str(tmp_path / "set")
    assert main(["folder", folder, url]) == 0
    before = read_manifest(url)
    assert main(["folder", folder, url, "--grey-range", "0", "65535"]) == 0
    assert "the dataset was packed already" not in capsys.readouterr().out
    after = read_manifest(url)
    assert (after.splits, after.grey_range) == (before.splits, (0, 65535))
    assert after.fingerprint != before.fingerprint
    assert pixels_of(url).max() == 16
    assert pixels_of(url, grey_range=(0, 4080)).max() == 255
    assert main(["folder", folder, url, "--grey-range", "9", "0"]) == 1
    assert "--grey-range 9 0: give the lower number first" in capsys.readouterr().err


def test_a_manifest_of_8_bits_is_as_it_always_was(tmp_path: Path) -> None:
    assert main(["folder", write(tmp_path / "scans", KINDS["8 bits"][0], "png"), str(tmp_path / "set")]) == 0
    assert "grey" not in (tmp_path / "set" / "manifest.json").read_text()


def test_values_that_are_no_numbers_are_refused_before_anything_is_written(tmp_path: Path, capsys) -> None:
    images = KINDS["float"][0].copy()
    images[5] = tiff(np.array([[[0.5], [np.nan]]], np.float32))
    folder, url = write(tmp_path / "scans", images, "tif"), str(tmp_path / "set")
    assert main(["folder", folder, url]) == 1
    assert "b/5.tif: 1 of its 2 values are NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    assert main(["folder", folder, url, "--decode", "--skip-bad"]) == 0
    assert "left out: 1 images unreadable" in capsys.readouterr().out


def foreign(path: Path, numbers: range, images: list[bytes], extension: str) -> None:
    members = [
        member
        for n in numbers
        for member in ((f"{n:02}.{extension}", images[n]), (f"{n:02}.cls", b"%d" % (n % 2)))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))


def test_existing_tars_have_one_range_over_all_splits(tmp_path: Path, capsys) -> None:
    images, url = KINDS["12 bits in 16"][0], str(tmp_path / "set")
    for name, numbers in {"train-0": range(8), "train-1": range(8, 16), "val-0": range(16, 20)}.items():
        foreign(tmp_path / "set" / f"{name}.tar", numbers, images, "png")
    assert main(["index", url]) == 0
    first = read_manifest(url).grey_range
    assert first is not None
    assert first[1] < 4080
    foreign(tmp_path / "set" / "test-0.tar", range(20, 24), images, "png")
    assert main(["index", f"{url}/test-0.tar", "--split", "test"]) == 0
    assert read_manifest(url).grey_range == (0, 4080)
    assert main(["index", url]) == 0  # by the indices that are there
    assert "read 0 of " in capsys.readouterr().out
    assert read_manifest(url).grey_range == (0, 4080)
    assert main(["index", url, "--grey-range", "0", "4095"]) == 0
    assert main(["index", f"{url}/test-0.tar", "--split", "test"]) == 0  # a range that was given stays
    assert read_manifest(url).grey_range == (0, 4095)


def test_large_files_in_tars_are_measured_and_decoded_too(tmp_path: Path, capsys) -> None:
    values = (np.arange(800 * 800, dtype=np.uint16) % 4096).reshape(800, 800)
    large = encoded(Image.fromarray(values), "PNG", compress_level=0)
    assert len(large) > 1 << 20
    (tmp_path / "train-0.tar").write_bytes(tar_bytes([("0.png", large), ("0.cls", b"0")]))
    assert main(["index", str(tmp_path)]) == 0
    assert read_manifest(str(tmp_path)).grey_range == (0, 4095)
    broken = large[: len(large) // 2] + bytes(len(large) - len(large) // 2)
    (tmp_path / "train-0.tar").write_bytes(tar_bytes([("0.png", broken), ("0.cls", b"0")]))
    assert main(["index", str(tmp_path), "--decode"]) == 1
    assert "sample '0' has an image that cannot be read" in capsys.readouterr().err


def test_masks_beside_the_image_have_no_part_in_it(tmp_path: Path) -> None:
    photo = encoded(Image.new("RGB", (8, 8)), "JPEG")
    members = [("0.jpg", photo), ("0.depth.png", png16(u16(1, 900))), ("0.cls", b"0")]
    (tmp_path / "train-0.tar").write_bytes(tar_bytes(members))
    assert main(["index", str(tmp_path)]) == 0
    assert read_manifest(str(tmp_path)).grey_range is None


def test_each_domain_is_read_by_its_own_range(tmp_path: Path) -> None:
    splits = {}
    for name, kind in (("target", "12 bits in 16"), ("source", "16 bits")):
        folder = write(tmp_path / kind, KINDS[kind][0], "png")
        assert main(["folder", folder, str(tmp_path / name), "--seed", "1"]) == 0
        splits[name] = open_split(StreamConfig(url=str(tmp_path / name)), "train")
    for decoders in ("threads", "processes"):
        config = DataConfig(
            resize_px=10,
            crop_px=10,
            threads=1,
            decoders=decoders,
            source_fraction=0.5,
            decoded_cache_mib=0,
            flip=False,
        )
        stream = TrainStream(splits, config, global_batch_size=8, rank=0, world_size=1, seed=0)
        batches = stream.batches(0)
        seen: dict[bool, dict[str, torch.Tensor]] = {True: {}, False: {}}
        for batch in islice(batches, 8):
            for position, (key, image) in enumerate(zip(batch.keys, batch.images.clone(), strict=True)):
                seen[position >= 4][key.rpartition("/")[2]] = image  # images of the target come first
        batches.close()
        common = set(seen[True]) & set(seen[False])
        assert len(common) > 5
        assert all((seen[True][k].int() - seen[False][k].int()).abs().max() <= 1 for k in common)


def test_an_edited_range_is_reported(tmp_path: Path) -> None:
    url = str(tmp_path / "set")
    assert main(["folder", write(tmp_path / "scans", KINDS["16 bits"][0], "png"), url]) == 0
    text = (tmp_path / "set" / "manifest.json").read_text()
    (tmp_path / "set" / "manifest.json").write_text(text.replace("[0.0, 65535.0]", "[9, 1]"))
    with pytest.raises(ValueError, match=r"grey_range .* is not two numbers, the lower one first"):
        read_manifest(url)
    with pytest.raises(ValueError, match="takes two numbers, the lower one first"):
        DataConfig(grey_range=(3, 3))


def test_indices_of_earlier_versions_are_read(tmp_path: Path) -> None:
    foreign(tmp_path / "train-0.tar", range(2), KINDS["12 bits in 16"][0], "png")
    assert main(["index", str(tmp_path)]) == 0
    path = tmp_path / "train-0.tar.index"
    with np.load(path) as archive:
        columns = {name: archive[name] for name in archive.files if name not in ("grey", "sources")}
    np.savez(path.with_suffix(".npz"), **columns)
    index = ShardIndex.from_bytes(path.with_suffix(".npz").read_bytes(), "here")
    assert (len(index), index.grey, len(index.sources)) == (2, "", 0)
    assert ShardIndex.from_bytes(path.read_bytes(), "here").grey


def test_data_sets_of_earlier_versions_are_read_by_the_depth_of_their_files(tmp_path: Path) -> None:
    """Manifests without a range: 16-bit images are read as 0 to 65535; images of other ranges are refused."""
    for kind, top in {"16 bits": 255, "12 bits in 16": 16, "float": 255}.items():
        images, extension = KINDS[kind]
        url = str(tmp_path / kind)
        assert main(["folder", write(tmp_path / f"{kind} scans", images, extension), url]) == 0
        write_manifest(url, replace(read_manifest(url), grey_range=None, notes={}))
        assert pixels_of(url).max() == top
    url = str(tmp_path / "int32")
    assert main(["folder", write(tmp_path / "int32 scans", *KINDS["int32"]), url]) == 0
    write_manifest(url, replace(read_manifest(url), grey_range=None, notes={}))
    with pytest.raises(DataError, match=r"set data\.grey_range, or pack the data set again"):
        pixels_of(url)
    assert pixels_of(url, grey_range=(-1024, 3056)).max() == 255
