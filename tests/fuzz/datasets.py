"""Fuzzed: manifests, indices, tars, labels, lists, class lists, published digit sets, and whole data sets."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import struct
import tarfile
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from fourds_dist.data import DataConfig, StreamConfig, TrainStream, open_split
from fourds_dist.data.datasets.digit_sets import usps
from fourds_dist.data.datasets.folder import image_folder
from fourds_dist.data.datasets.list_file import image_list, read_classes
from fourds_dist.data.datasets.mnist import mnist
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import format_manifest, parse_manifest
from fourds_dist.data.pack.existing_tars import TarReadOptions, index_existing_tars
from fourds_dist.data.pack.indexing import index_tar
from fourds_dist.data.pack.label_field import LabelField
from tests.data.pack.tars import samples, tar_bytes
from tests.data.shards import SIDE, image_of, write_dataset
from tests.fuzz.mutations import TEXTS, Draw, changed_bytes, changed_json, changed_lines, values
from tests.fuzz.target import Files, Target, cases


@functools.cache
def dataset() -> Files:
    """A small data set's files."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder, "set"), [7, 5], splits=("train", "test"))
        return {f"set/{path.name}": path.read_bytes() for path in sorted(Path(folder, "set").iterdir())}


def manifest_case(draw: Draw) -> Files:
    return {"manifest.json": changed_json(draw, json.loads(dataset()["set/manifest.json"]))}


def read_manifest_case(folder: Path) -> None:
    manifest = parse_manifest((folder / "manifest.json").read_bytes(), "manifest.json")
    assert parse_manifest(format_manifest(manifest), "again") == manifest


def index_case(draw: Draw) -> Files:
    data = dataset()["set/train-00000.tar.index"]
    if draw(st.booleans()):
        return {"an.index": changed_bytes(draw, data)}
    with np.load(io.BytesIO(data)) as archive:
        columns = {name: archive[name] for name in archive.files}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(columns)))
        column = columns[name]
        match draw(st.integers(0, 7)):
            case 0:
                del columns[name]
                break
            case 1:
                columns[name] = column.astype(draw(st.sampled_from(("f8", "f4", "i1", "u8", "c16", "S7", "U3", "?"))),
                                              casting="unsafe") if column.dtype.kind in "iu" else column  # fmt: skip
            case 2:
                columns[name] = np.asarray(draw(st.sampled_from((0, -1, 1.5, "x", "", True, np.nan, 10**18))))
            case 3:
                columns[name] = column[:-1] if column.ndim else column.reshape(1)
            case 4:
                shape = draw(st.sampled_from(((0,), (0, 7), (7, 0), (7, 1), (1, 7), (7, 7, 7))))
                columns[name] = np.zeros(shape, column.dtype)
            case 5:
                columns[name] = np.broadcast_to(column, (3, *column.shape))
            case 6 if column.dtype.kind in "iu":
                columns[name] = np.full_like(column, draw(st.sampled_from((0, 127, 100, 1))))
            case 6:
                columns[name] = np.full(column.shape, draw(st.sampled_from(TEXTS))[:2000])
            case _:
                columns[name] = np.full(column.shape, draw(st.sampled_from((-1, -(2**62), 2**62, 2**31, 7))))
    out = io.BytesIO()
    np.savez_compressed(out, **columns)
    data = out.getvalue()
    return {"an.index": changed_bytes(draw, data) if draw(st.integers(0, 9)) == 0 else data}


def read_index_case(folder: Path) -> None:
    index = ShardIndex.from_bytes((folder / "an.index").read_bytes(), "an.index")
    again = ShardIndex.from_bytes(index.to_bytes(), "again")
    assert all(np.array_equal(getattr(index, name), getattr(again, name)) for name in vars(index))


@functools.cache
def tars() -> tuple[bytes, ...]:
    """Sound tars of each format."""
    long = [(f"{'a' * 120}/{n}.{kind}", b"1") for n in range(2) for kind in ("jpg", "cls")]
    named = [(f"{n}.{kind}", data) for n in range(3) for kind, data in
             (("jpg", image_of(n)), ("txt", b"cat"), ("json", b'{"a": {"b": 1}, "c": "dog"}'))]  # fmt: skip
    odd = [(f"\u00fc{n}.{kind}", b"0") for n in range(2) for kind in ("png", "cls")]
    files = [samples(4, image_bytes=40), long, named, odd]
    formats = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    return tuple(
        tar_bytes(f, how) for f in files for how in formats if how != tarfile.USTAR_FORMAT or f != long
    )


def tar_case(draw: Draw) -> Files:
    data = draw(st.sampled_from(tars()))
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(blocks) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                blocks.insert(at, blocks[draw(st.integers(0, len(blocks) - 1))])
            case 1 if len(blocks) > 1:
                del blocks[at]
            case 2:
                other = draw(st.integers(0, len(blocks) - 1))
                blocks[at], blocks[other] = blocks[other], blocks[at]
            case _:
                blocks[at] = _changed_header(draw, blocks[at])
    data = b"".join(blocks)
    if draw(st.booleans()):
        data = changed_bytes(draw, data)
    label = draw(st.sampled_from(("cls", "txt", "json:a/b", "json:c", "jpg", "nosuch")))
    flags = st.fixed_dictionaries({key: st.booleans() for key in ("skip", "unlabelled", "classes")})
    options = {"label": label, **draw(flags)}
    return {"train.tar": data, "options.json": json.dumps(options).encode()}


_FIELDS = ((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 6), (329, 8), (345, 155))
"""(offset, length) of a header's fields: name, mode, size, time, type, link, magic, device, prefix."""


_CONTENTS = (
    b"0", b"7" * 12, b"-1", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\x09", b"x", b"L", b"K",
    b"g", b"S", b"1", b"5", b"\0" * 12, b"00000000010", b"../../x.cls", b".", b"a.b.c", b" ",
)  # fmt: skip


def _changed_header(draw: Draw, block: bytes) -> bytes:
    """A field overwritten, and the checksum mended so that the header is believed."""
    if len(block) < 512:
        return block
    begin, length = draw(st.sampled_from(_FIELDS))
    content = draw(st.sampled_from(_CONTENTS))
    block = block[:begin] + content[:length].ljust(length, b"\0") + block[begin + length :]
    total = sum(block[:148]) + sum(block[156:512]) + 8 * 32
    return block[:148] + f"{total:06o}\0 ".encode() + block[156:]


def read_tar_case(folder: Path) -> None:
    how = json.loads((folder / "options.json").read_text())
    faults: list[object] = []
    with (folder / "train.tar").open("rb") as file:
        index = index_tar(file, "train.tar", label=LabelField.parse(how["label"]), allow_unlabelled=how["unlabelled"],
                          classes=("0", "1", "cat") if how["classes"] else None,
                          on_fault=faults.append if how["skip"] else None)  # fmt: skip
    ShardIndex.from_bytes(index.to_bytes(), "again")
    reading = TarReadOptions(label=how["label"], unlabelled=how["unlabelled"], skip_bad=how["skip"])
    done = index_existing_tars([str(folder / "train.tar")], reading=reading)
    open_split(StreamConfig(url=done.url), "train")


def label_case(draw: Draw) -> Files:
    field = draw(st.one_of(
        st.sampled_from(("cls", "txt", "json:a", "json:a/b/c", "json:", ":", "", "idx", "JSON:A", "json://", "a/b:c")),
        st.text(max_size=12), st.sampled_from(TEXTS)))  # fmt: skip
    tree = {"a": {"b": {"c": draw(values)}}, "A": draw(values)}
    text = draw(st.sampled_from(TEXTS)).encode("utf-8", "surrogatepass")
    data = (
        draw(st.one_of(st.just(text), st.binary(max_size=20)))
        if draw(st.booleans())
        else changed_json(draw, tree)
    )
    return {"field.txt": field.encode("utf-8", "surrogatepass"), "label": data}


def read_label_case(folder: Path) -> None:
    text = (folder / "field.txt").read_bytes().decode("utf-8", "surrogatepass")
    value = LabelField.parse(text).read((folder / "label").read_bytes())
    assert value is None or isinstance(value, int | str)


_LISTS = (
    "a.png\tcat\nb.png\tdog\nsub dir/c.png\tcat\n", "a.png 0\nb.png 1\nsub dir/c.png\t2\n",
    "a.png\tcat\ttrain\nb.png\tdog\ttest\nsub dir/c.png\tcat\tval\n",
    "path,label,split\na.png,cat,train\nb.png,dog,test\n\"sub dir/c.png\",cat,val\n",
    "a.png,0\nb.png,1\nsub dir/c.png,-1\n", "file_name,label\na.png,cat\nb.png,dog\n",
)  # fmt: skip


def list_case(draw: Draw) -> Files:
    text = draw(st.sampled_from(_LISTS))
    pieces = (
        *TEXTS,
        "a.png",
        "b.png",
        "cat",
        "0",
        "1",
        "-1",
        "train",
        "Valid",
        "2147483648",
        "1000000000000",
    )
    name = draw(st.sampled_from(("list.txt", "list.csv", "list.tsv")))
    options = draw(st.fixed_dictionaries({"skip_bad": st.booleans(), "classes": st.booleans()}))
    files = {"a.png": image_of(1), "b.png": image_of(2), "sub dir/c.png": image_of(3)}
    return {**files, name: changed_lines(draw, text, pieces), "options.json": json.dumps(options).encode()}


def read_list_case(folder: Path) -> None:
    how = json.loads((folder / "options.json").read_text())
    (file,) = folder.glob("list.*")
    domain = image_list(file, classes=("cat", "dog") if how["classes"] else None, skip_bad=how["skip_bad"])
    for example in domain:
        assert example.label is None or example.label in domain.classes
        example.read()


def classes_case(draw: Draw) -> Files:
    return {"classes.txt": changed_lines(draw, "cat\ndog\nK\u00f6ter\n")}


def read_classes_case(folder: Path) -> None:
    names = read_classes(folder / "classes.txt")
    assert names
    assert len(set(names)) == len(names)


def idx_files() -> Files:
    """A small set of MNIST's files."""
    images = np.arange(30 * 16, dtype=np.uint8).reshape(30, 4, 4)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 3)
    files = {}
    for part in ("train", "t10k"):
        files[f"{part}-images-idx3-ubyte"] = b"\0\0\x08\x03" + struct.pack(">3I", 30, 4, 4) + images.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + struct.pack(">I", 30) + labels.tobytes()
    return files


def idx_case(draw: Draw) -> Files:
    return _one_changed(draw, idx_files())


def read_idx_case(folder: Path) -> None:
    for domain in mnist(folder):
        for example in islice(domain, 2):
            example.read()


def usps_case(draw: Draw) -> Files:
    values_of_row = " ".join(f"{n}:{n / 128 - 1:.3f}" for n in range(256))
    rows = "".join(f"{k} {values_of_row}\n" for k in range(1, 11)) * 2
    files = {"usps.bz2": rows, "usps.t.bz2": rows}
    if draw(st.booleans()):
        plain = "".join(f"{k}.0 {' '.join(['0.5'] * 256)}\n" for k in range(10)) * 2
        files = {"zip.train.gz": plain, "zip.test.gz": plain}
    name = draw(st.sampled_from(sorted(files)))
    pieces = (*TEXTS, "1e999", "nan", "-5", "11:0.5", "99999999999999999999", "0.5")
    pack = bz2.compress if name.endswith("bz2") else gzip.compress
    packed = {key: pack(text.encode()) for key, text in files.items()}
    if draw(st.booleans()):
        packed[name] = pack(changed_lines(draw, files[name], pieces))
        return packed
    return packed | {name: changed_bytes(draw, packed[name])}


def read_usps_case(folder: Path) -> None:
    for domain in usps(folder):
        for example in islice(domain, 2):
            example.read()


def folder_case(draw: Draw) -> Files:
    parts = st.sampled_from(
        ("cat", "dog", "train", "Testing", "val", "a b", "x", "\u00fc", "u\u0308", "[x]", ".h", "-1", "1")
    )
    names = st.sampled_from(
        ("1.jpg", "2.PNG", "3.png", "4.txt", "5.tar", ".jpg", "6", "7.HEIC", "\x1b[1m.jpg", "9.jpeg.png")
    )
    count = draw(st.integers(1, 8))
    files = {}
    for number in range(count):
        depth = draw(st.integers(0, 3))
        place = "/".join(["pictures", *(draw(parts) for _ in range(depth)), draw(names)])
        clash = any(other.startswith(f"{place}/") or place.startswith(f"{other}/") for other in files)
        if not clash:
            data = image_of(number)
            files[place] = changed_bytes(draw, data) if draw(st.integers(0, 4)) == 0 else data
    options = draw(st.fixed_dictionaries({"skip_bad": st.booleans(), "decode": st.booleans()}))
    return {**files, "options.json": json.dumps(options).encode()}


def read_folder_case(folder: Path) -> None:
    how = json.loads((folder / "options.json").read_text())
    for example in image_folder(folder / "pictures", **how):
        example.read()


def dataset_case(draw: Draw) -> Files:
    files = _one_changed(draw, dataset())
    name = draw(st.sampled_from(sorted(files)))
    match draw(st.integers(0, 5)):
        case 0:
            del files[name]
        case 1:
            other = draw(st.sampled_from(sorted(files)))
            files[name], files[other] = files.get(other, b""), files.get(name, b"")
        case _:
            pass
    return files


_LOADER = DataConfig(
    resize_px=SIDE, crop_px=SIDE, threads=1, read_threads=1, shuffle_mib=0.02, retry_timeout_s=0
)


def read_dataset_case(folder: Path) -> None:
    split = open_split(StreamConfig(url=str(folder / "set")), "train")
    split.check_shards()
    stream = TrainStream({"target": split}, _LOADER, global_batch_size=2, rank=0, world_size=1, seed=0)
    batches = stream.batches(0)
    try:
        for batch in islice(batches, 4):
            assert len(batch.images) == 2
    finally:
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]


def _one_changed(draw: Draw, files: Files) -> Files:
    name = draw(st.sampled_from(sorted(files)))
    return {**files, name: changed_bytes(draw, files[name])}


TARGETS = (
    Target("manifest", cases(manifest_case), read_manifest_case),
    Target("index", cases(index_case), read_index_case),
    Target("tar", cases(tar_case), read_tar_case),
    Target("label", cases(label_case), read_label_case),
    Target("list", cases(list_case), read_list_case),
    Target("classes", cases(classes_case), read_classes_case, share=0.5),
    Target("folder", cases(folder_case), read_folder_case, share=0.5),
    Target("idx", cases(idx_case), read_idx_case, share=0.3),
    Target("usps", cases(usps_case), read_usps_case, share=0.3),
    Target("dataset", cases(dataset_case), read_dataset_case, share=0.2),
)
