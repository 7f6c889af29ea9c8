"""Malformed input of streams, one case after another, with what each gives; malformed.md is made of these tables.

    python -m tests.data.pack.test_malformed > tests/data/pack/malformed.md

Malformed tars are refused when an index is made of them: tests/data/pack/test_indexing.py and its neighbours.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data import (
    DataConfig,
    DataError,
    StreamConfig,
    TrainStream,
    check_same_classes,
    open_split,
)
from fourds_dist.data.decode.decode import decode
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.stream.split import SplitName
from tests.data import shards
from tests.data.shards import SIDE, numbers_in, write_dataset

SHOWN = "shown"
TABLE = Path(__file__).with_name("malformed.md")


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def orientation(value: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = value
    return tags


NOISE = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
PHOTO = Image.fromarray(NOISE).resize((96, 64), Image.Resampling.BICUBIC)
JPEG, PNG = encoded(PHOTO, "JPEG", quality=90), encoded(PHOTO, "PNG")
FRAME, SCAN = JPEG.index(b"\xff\xc0"), JPEG.index(b"\xff\xda") + 14
PIXELS = chunk(b"IDAT", zlib.compress(b"\0" * 52))

IMAGES: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "it is empty"),
    "text": (b"hello, this is text" * 20, "it begins with b'hello, t'"),
    "an error page of a web server": (b"<html><body>403 Forbidden</body></html>", "it begins with b'<html>"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it begins with b'<svg"),
    "EPS, for which Pillow would start Ghostscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "it begins with b'%!PS"),
    "a NumPy array": (b"\x93NUMPY\x01\x00" + b"\0" * 100, "it begins with"),
    "JPEG cut after two bytes": (JPEG[:2], "it begins with"),
    "JPEG cut in its header": (JPEG[:30], "Truncated File Read"),
    "JPEG cut in the middle": (JPEG[: len(JPEG) // 2], "incomplete or truncated"),
    "JPEG that lacks its last 20 bytes": (JPEG[:-20], "incomplete or truncated"),
    "JPEG that lacks its end marker": (JPEG[:-2], "incomplete or truncated"),
    "JPEG whose first bytes are zero": (b"\0\0" + JPEG[2:], "it begins with"),
    "JPEG whose segment ends past the file": (put(JPEG, 4, b"\xff\xff"), "Truncated File Read"),
    "JPEG of nothing but fill bytes": (b"\xff\xd8" + b"\xff" * 4000, "it begins with"),
    "JPEG 0 pixels high": (put(JPEG, FRAME + 5, b"\0\0"), "Empty JPEG image"),
    "JPEG 0 pixels wide": (put(JPEG, FRAME + 7, b"\0\0"), "Empty JPEG image"),
    "JPEG that claims 65535 x 65535 pixels": (put(JPEG, FRAME + 5, b"\xff" * 4), "decompression bomb"),
    "JPEG of 12 bits": (put(JPEG, FRAME + 4, b"\x0c"), "it begins with"),
    "JPEG of 2 components": (put(JPEG, FRAME + 9, b"\x02"), "it begins with"),
    "JPEG without its quantization tables": (
        JPEG.replace(b"\xff\xdb", b"\xff\xfe"),
        "table 0x00 was not defined",
    ),
    "JPEG marked as lossless": (put(JPEG, FRAME, b"\xff\xc3"), "broken data stream"),
    "JPEG garbled in its scan (the checksum was taken of it so)": (
        put(JPEG, SCAN + 40, bytes(range(1, 61))),
        SHOWN,
    ),
    "JPEG with garbage behind its end": (JPEG + b"garbage" * 100, SHOWN),
    "JPEG with broken EXIF": (encoded(PHOTO, "JPEG", exif=b"Exif\0\0garbage"), SHOWN),
    "JPEG with an orientation that does not exist": (encoded(PHOTO, "JPEG", exif=orientation(9)), SHOWN),
    "PNG cut in the middle": (PNG[: len(PNG) // 2], "truncated"),
    "PNG with a wrong checksum": (put(PNG, 60, b"\0\0\0\0"), "broken data stream"),
    "PNG 0 pixels wide": (png(0, 10, PIXELS), "it begins with"),
    "PNG without pixels": (png(10, 10), "cannot load"),
    "PNG with too few pixels": (png(10, 10, PIXELS), "truncated"),
    "PNG bomb of 20,000 x 20,000 pixels in 50 kB": (
        encoded(Image.new("1", (20000, 20000)), "PNG"),
        "decompression bomb",
    ),
    "PNG bomb in a text chunk": (
        png(4, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 50_000_000, 1)), PIXELS),
        "Decompressed data too large",
    ),
    "PNG without its palette (grey is assumed)": (png(4, 4, PIXELS, colour=3), SHOWN),
    "PNG with garbage behind its end": (PNG + b"garbage", SHOWN),
    "GIF cut in the middle": (encoded(PHOTO, "GIF")[:400], "it begins with b'GIF87a"),
    "GIF of several frames: the first": (
        encoded(PHOTO, "GIF", save_all=True, append_images=[Image.new("RGB", (96, 64))]),
        SHOWN,
    ),
    "WebP cut in the middle": (encoded(PHOTO, "WEBP")[:200], r"\w"),
    "TIFF cut in the middle": (encoded(PHOTO, "TIFF")[:9000], "truncated"),
    "TIFF of several pages: the first": (
        encoded(PHOTO, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        SHOWN,
    ),
    "BMP cut in the middle": (encoded(PHOTO, "BMP")[:3000], "truncated"),
    "an image of one pixel": (encoded(Image.new("RGB", (1, 1)), "PNG"), SHOWN),
    "an image of 1 x 5,000 pixels": (encoded(Image.new("RGB", (1, 5000)), "PNG"), SHOWN),
}


@pytest.mark.parametrize(("data", "gives"), IMAGES.values(), ids=IMAGES.keys())
def test_images(data, gives):
    if gives == SHOWN:
        assert decode(data, resize_px=48, crop_px=40, place=(0.2, 0.7)).shape == (3, 40, 40)
    else:
        with pytest.raises(ValueError, match=gives) as caught:
            decode(data, resize_px=48, crop_px=40, place=(0.2, 0.7))
        assert "0x7" not in str(caught.value)
        assert ".cpp" not in str(caught.value)


CONFIG = DataConfig(
    resize_px=SIDE, crop_px=SIDE, threads=2, read_threads=2, shuffle_mib=0.02, max_bad_fraction=0.05
)
SIZES = [17, 12, 23]


@dataclass(frozen=True)
class Harm:
    """A change of a folder that holds two data sets, `set` and `other`, and the result of using `set`.

    Args:
        start: error of the check before a run; None: no error.
        stream: what an epoch of training gives: a number of samples left out, or the error that ends it.
    """

    do: Callable[[Path], object]
    start: str | None
    stream: int | str


def shard(folder: Path, number: int = 1) -> Path:
    return folder / "set" / f"train-{number:05}.tar"


def index(folder: Path, number: int = 1) -> Path:
    return Path(f"{shard(folder, number)}.index")


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def reindex(folder: Path, **columns: object) -> None:
    held = ShardIndex.from_bytes(index(folder).read_bytes(), "")
    index(folder).write_bytes(ShardIndex(**{**vars(held), **columns}).to_bytes())


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "set" / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def flip(data: bytes, *samples: int) -> bytes:
    """Zeroes in the headers of some of a shard's images."""
    headers = [match.start() for match in re.finditer(b"IHDR", data)]
    for sample in samples:
        data = put(data, headers[sample], b"\0\0\0\0")
    return data


def pickled() -> bytes:
    out = io.BytesIO()
    np.savez(out, format=np.array(1), keys=np.array([{}], dtype=object))
    return out.getvalue()


def swap(folder: Path) -> None:
    """The shard of another data set, as large, under the name of ours."""
    rewrite(shard(folder), lambda _: (folder / "other" / shard(folder).name).read_bytes())


HARMS: dict[str, Harm] = {
    "a sample's bytes changed on the disk": Harm(lambda f: rewrite(shard(f), lambda d: flip(d, 3)), None, 1),
    "two samples changed": Harm(lambda f: rewrite(shard(f), lambda d: flip(d, 3, 7)), None, 2),
    "more samples changed than max_bad_fraction allows": Harm(
        lambda f: rewrite(shard(f), lambda d: flip(d, *range(12))),
        None,
        r"(?s)its budget is 3.*checksum.*pack verify",
    ),
    "another shard of the same size in its place": Harm(
        swap, None, r"its budget is 3|all images of its block are broken"
    ),
    "a shard cut short": Harm(
        lambda f: rewrite(shard(f), lambda d: d[: len(d) // 2]),
        "has .* bytes, but the manifest lists",
        "bytes, but its index names byte .*truncated or replaced",
    ),
    "an empty shard": Harm(
        lambda f: shard(f).write_bytes(b""), "has 0 bytes, but the manifest", "has 0 bytes, but its index"
    ),
    "a shard with bytes at its end": Harm(
        lambda f: rewrite(shard(f), lambda d: d + b"more"), "bytes, but the manifest lists", 0
    ),
    "a missing shard": Harm(
        lambda f: shard(f).unlink(),
        "train-00001.tar is missing",
        "train-00001.tar cannot be read: FileNotFound",
    ),
    "a folder in place of a shard": Harm(
        lambda f: (shard(f).unlink(), shard(f).mkdir()),
        "bytes, but the manifest lists",
        "cannot be read: IsADirectory",
    ),
    "a missing index": Harm(
        lambda f: index(f).unlink(), "tar.index is missing", "tar.index cannot be read: FileNotFound"
    ),
    "an empty index": Harm(lambda f: index(f).write_bytes(b""), None, "index is truncated or not an index"),
    "an index cut short": Harm(lambda f: rewrite(index(f), lambda d: d[:-40]), None, "index is truncated"),
    "an index with a changed byte": Harm(
        lambda f: rewrite(index(f), lambda d: put(d, 200, bytes([d[200] ^ 1]))), None, "index is truncated"
    ),
    "an index that is a pickle": Harm(
        lambda f: index(f).write_bytes(pickled()), None, "index is truncated or not an index"
    ),
    "the index of another shard": Harm(
        lambda f: rewrite(index(f), lambda _: index(f, 0).read_bytes()), None, "has 17 samples in"
    ),
    "an index that points past its shard": Harm(
        lambda f: reindex(f, offsets=np.full(12, 10**9)), None, "is inconsistent: it points past the tar"
    ),
    "an index with offsets of another packing": Harm(
        lambda f: reindex(f, offsets=np.arange(12) * 100), None, "its budget is 3"
    ),
    "an index with negative sizes": Harm(
        lambda f: reindex(f, sizes=np.full(12, -5)), None, "index.*(inconsistent|names byte)|its budget is 3"
    ),
    "a label that no class has": Harm(
        lambda f: reindex(f, labels=np.full(12, 3, np.int32)),
        None,
        "'00017' has label 3, but .* has 3 classes",
    ),
    "a label of -1: unlabelled": Harm(lambda f: reindex(f, labels=np.full(12, -1, np.int32)), None, 0),
    "no manifest": Harm(
        lambda f: (f / "set" / "manifest.json").unlink(),
        "holds .* tars but no manifest.json",
        "no manifest.json",
    ),
    "a manifest cut short": Harm(
        lambda f: rewrite(f / "set" / "manifest.json", lambda d: d[:-100]),
        "truncated or not JSON",
        "truncated",
    ),
    "a manifest of a later format": Harm(
        lambda f: edit(f, lambda m: m.update(format=2)), "update fourds_dist", "update fourds_dist"
    ),
    "a manifest that was edited": Harm(
        lambda f: edit(f, lambda m: m["classes"].reverse()), "was it edited", "was it edited"
    ),
    "a manifest without training data": Harm(
        lambda f: edit(f, lambda m: m["splits"].pop("train")), "was it edited", "was it edited"
    ),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    write_dataset(tmp_path / "set", SIZES, splits=("train",))
    original = shards.image_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "image_of", lambda n: original(n + 256))
        write_dataset(tmp_path / "other", SIZES, splits=("train",))
    return tmp_path


def epoch_of(folder: Path) -> tuple[int, int]:
    """(samples left out, images shown) by an epoch."""
    split = open_split(StreamConfig(url=str(folder / "set")), "train")
    stream = TrainStream({"target": split}, CONFIG, global_batch_size=4, rank=0, world_size=1, seed=0)
    batches = stream.batches(0)
    shown = [number for batch in islice(batches, 13) for number in numbers_in(batch.images)]
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    return len(stream.bad_samples), len(shown)


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_data_sets(folder, harm):
    harm.do(folder)

    def check() -> None:
        open_split(StreamConfig(url=str(folder / "set")), "train").check_shards()

    if harm.start is None:
        check()
    else:
        with pytest.raises(ValueError, match=harm.start):
            check()
    if isinstance(harm.stream, int):
        assert epoch_of(folder) == (harm.stream, 52)
    else:
        with pytest.raises((DataError, ValueError), match=harm.stream):
            epoch_of(folder)


CONFIGURATIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder that is not there": (lambda f: opened(f / "none"), "no such folder"),
    "an empty folder": (lambda f: ((f / "empty").mkdir(), opened(f / "empty")), "it is empty"),
    "a file": (lambda f: opened(f / "set" / "manifest.json"), "is a file; give the folder"),
    "a pattern that fits no shard": (lambda f: opened(f / "set" / "x-{0..9}.tar"), "no shards match"),
    "a protocol nobody knows": (lambda _: opened("gopher://a/b"), "gopher"),
    "a split that is not there": (
        lambda f: opened(f / "set", "test"),
        "has no 'test' split .*pack folder --test-fraction",
    ),
    "a split that is not there, without labels to draw it": (
        lambda f: opened(write_dataset(f / "bare", [3], splits=("train",), labels=[-1] * 3), "val"),
        "has no 'val' split .*draws this split from labelled images only",
    ),
    "fewer images than a batch": (lambda f: stream_with(f, 53), "52 train images, fewer than the 53"),
    "more workers than partitions": (lambda f: stream_with(f, 4, world_size=5), "5 workers cannot share"),
    "other classes in the other domain": (
        lambda f: classes_differ(f, ("ant", "bee", "dog")),
        "only .* has 'cat'; only .* has 'dog'",
    ),
    "the same classes in another order": (
        lambda f: classes_differ(f, ("bee", "ant", "cat")),
        "in another order",
    ),
    "no labels, and unlabelled images dropped": (
        lambda _: StreamConfig(labels_per_class=0, unlabelled="drop"),
        "leaves no training images",
    ),
    "a crop larger than the image": (lambda _: DataConfig(resize_px=10, crop_px=11), "crop_px"),
    "a cache folder that is a file": (
        lambda f: DataConfig(cache_dir=str(f / "set" / "manifest.json")).fetcher(0),
        "cannot be written",
    ),
}


def opened(path: Path | str, name: SplitName = "train") -> object:
    return open_split(StreamConfig(url=str(path)), name)


def stream_with(folder: Path, global_batch_size: int, world_size: int = 1) -> object:
    split = open_split(StreamConfig(url=str(folder / "set")), "train")
    return TrainStream(
        {"target": split},
        CONFIG,
        global_batch_size=global_batch_size,
        rank=world_size - 1,
        world_size=world_size,
        seed=0,
    )


def classes_differ(folder: Path, classes: tuple[str, ...]) -> None:
    other = write_dataset(folder / "differs", [3], splits=("train",), classes=classes)
    check_same_classes(*(open_split(StreamConfig(url=url), "train") for url in (str(folder / "set"), other)))


@pytest.mark.parametrize(("use", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_configurations(folder, use, message):
    with pytest.raises(ValueError, match=message):
        use(folder)


def table() -> str:
    """malformed.md: every case with what it gives."""
    lines = [
        "# Malformed input, and what each kind gives",
        "",
        f"Made by `python -m tests.data.pack.test_malformed`; {len(IMAGES) + len(HARMS) + len(CONFIGURATIONS)} "
        f"kinds. Words "
        'after "error" are part of the message. Malformed tars are refused when',
        "their index is made: see `tests/data/pack/test_indexing.py` and its neighbours.",
        "",
        "## Images",
        "",
        "A broken image is left out and counted; in training a neighbour stands in for it (`data.max_bad_fraction`).",
        "",
        "| image | gives |",
        "|---|---|",
        *(
            f"| {name} | {SHOWN if gives == SHOWN else 'left out' + said(gives)} |"
            for name, (_, gives) in IMAGES.items()
        ),
        "",
        "## Data sets",
        "",
        "| harm | before a run | in a run |",
        "|---|---|---|",
        *(
            f"| {name} | {'passes' if harm.start is None else 'error' + said(harm.start)} | {outcome(harm.stream)} |"
            for name, harm in HARMS.items()
        ),
        "",
        "## Addresses and configurations",
        "",
        "| given | error, before a run |",
        "|---|---|",
        *(f"| {name} | {said(message)[2:]} |" for name, (_, message) in CONFIGURATIONS.items()),
        "",
    ]
    return "\n".join(lines)


def said(pattern: str) -> str:
    """A pattern as words."""
    words = pattern.replace("(?s)", "").replace("\\w", "").replace(".*", " … ").split("|")[0].replace("(", "")
    return f': "{" ".join(words.split())}"' if words.strip() else ""


def outcome(gives: int | str) -> str:
    if isinstance(gives, str):
        return f"error{said(gives)}"
    return f"goes on, {gives} left out" if gives else "goes on"


def test_the_table_is_up_to_date():
    assert TABLE.read_text() == table()


if __name__ == "__main__":
    print(table(), end="")
