"""Decoding by a GPU's JPEG engine: the same images, the same broken ones."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from fourds_dist.benchmark.photos import photos
from fourds_dist.data import DataConfig, StreamConfig, TrainStream, open_split
from fourds_dist.data.decode import gpu
from fourds_dist.data.decode.crop_box import crop_box
from fourds_dist.data.decode.decode import Encoded, Sizes, crop_resized, decode_into, encoded_tensor
from fourds_dist.data.decode.gpu import (
    EngineBuffers,
    GpuDecoder,
    check_gpu_decodes,
    crop_resize,
    crop_table,
    engine_header,
)
from fourds_dist.data.decode.threads import Pool
from fourds_dist.data.pack.existing_tars import index_existing_tars
from fourds_dist.ops.nvrtc import compile_source
from fourds_dist.training.distributed.world import World

SIZES = Sizes(resize_px=64, crop_px=56)
MEAN_LEVELS, MOST_LEVELS = 0.5, 8
OTHER_MEAN_LEVELS, OTHER_MOST_LEVELS = 3.0, 48
"""Bounds of the difference of one image, in grey levels. OTHER: enlarged images, which show how the engine enlarges
chroma, and large images, which the CPU decodes at a fraction of their size."""


def photo(size: tuple[int, int] = (150, 100), mode: str = "RGB", kind: str = "JPEG", **options) -> bytes:
    """A crop of a photograph, which upsampling of chroma shows on."""
    out = io.BytesIO()
    Image.open(io.BytesIO(next(iter(photos(1))))).resize(size).convert(mode).save(out, kind, **options)
    return out.getvalue()


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def broken() -> dict[str, bytes]:
    whole = photo()
    no_table = whole[: whole.index(b"\xff\xdb")] + whole[whole.index(b"\xff\xc0") :]
    return {
        "cut": whole[: len(whole) // 2],
        "no end": whole[:-2],
        "no table": no_table,
        "empty": b"",
        "text": b"no image",
        "cut, with an end": whole[: len(whole) // 2] + b"\xff\xd9",
    }


ENGINE = {
    "4:2:0": photo(subsampling="4:2:0"),
    "4:2:2": photo(subsampling="4:2:2"),
    "4:4:4": photo(subsampling="4:4:4"),
    "grey": photo(mode="L"),
    "odd size": photo((151, 99)),
    "small": photo((30, 20)),
    "large": photo((1600, 1200)),
    "tall": photo((40, 400)),
}
CPU = {
    "progressive": photo(progressive=True),
    "cmyk": photo(mode="CMYK"),
    "rotated": photo(exif=rotated()),
    "png": photo(kind="PNG"),
    "webp": photo(kind="WEBP"),
    "one pixel": photo((1, 1), kind="PNG"),
}


def test_only_complete_plain_jpegs_go_to_the_engine() -> None:
    assert all(engine_header(file) for file in ENGINE.values())
    assert not any(engine_header(file) for file in CPU.values())
    assert not any(engine_header(broken()[name]) for name in ("cut", "no end", "empty", "text"))
    assert engine_header(ENGINE["large"], most_pixels=10**6) is None


def test_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "CALL_BYTES", 100_000)
    headers = [engine_header(ENGINE[name]) for name in ("grey", "small", "4:4:4", "large", "small")]
    assert gpu._calls([*headers[:2], None, *headers[2:]]) == [[0, 1, 3], [4], [5]]


def test_buffers_grow_in_large_steps_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (encoded_tensor(ENGINE[name]) for name in ("small", "4:4:4"))
    buffers = EngineBuffers()
    copies = buffers.copies([large, small])
    assert len(copies) == 2
    assert all(len(copy) == 2 * len(large) for copy in copies)
    assert torch.equal(decode_jpeg(copies[0]), decode_jpeg(large))
    assert buffers.copies([large, large]) == []
    assert buffers.copies([small]) == []
    more = buffers.copies([small, small, large])
    assert [len(copy) for copy in more] == 3 * [2 * len(large)]
    monkeypatch.setattr(gpu, "RESERVED_BYTES", 3 * len(large))
    limited = EngineBuffers()
    assert [len(copy) for copy in limited.copies([small, large, small])] == 3 * [len(large)]
    assert limited.copies([large]) == []
    assert limited.copies([torch.cat([large, large])]) == []


def test_images_that_are_copied_fit_into_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may have many pixels."""
    grey, small = (encoded_tensor(ENGINE[name]) for name in ("grey", "small"))
    monkeypatch.setattr(gpu, "CALL_BYTES", 2 * 3 * 30 * 20)
    copies = EngineBuffers().copies([grey, small])
    assert [copy[: len(small)].tolist() for copy in copies] == 2 * [small.tolist()]
    assert EngineBuffers().copies([grey, grey]) == []


def test_the_table_has_the_crops_of_the_cpu() -> None:
    row = torch.zeros(56, 56, 3, dtype=torch.uint8)
    table = crop_table([(100, 150)], [(0.0, 1.0)], [row.permute(2, 0, 1)], SIZES)
    assert table.tolist() == [[0, row.data_ptr(), 100, 150, 0, 19, 88, 131]]


def test_an_image_of_another_size_than_its_header_says_is_not_cropped() -> None:
    """The kernel would read beyond the image."""
    row, image = torch.zeros(3, 56, 56, dtype=torch.uint8), torch.zeros(3, 100, 149, dtype=torch.uint8)
    table = crop_table([(100, 150)], [(0.0, 1.0)], [row], SIZES)
    with pytest.raises(RuntimeError, match="another size than its header says"):
        crop_resize([image], table, 56)


@pytest.mark.parametrize("place", [(0.3, 0.8), (0.3, 0.8, 0.75, 1.33, *(0.5, 1.2) * 10)])
def test_the_kernel_gets_the_boxes_of_every_kind_of_crop(place: tuple[float, ...]) -> None:
    sizes = Sizes(resize_px=64, crop_px=56, resize_mode="shortest_side")
    table = crop_table([(90, 120)], [place], [torch.zeros(3, 56, 56, dtype=torch.uint8)], sizes)
    box = crop_box(90, 120, resize_px=64, crop_px=56, place=place, resize_mode="shortest_side")
    assert table[0, 2:].tolist() == [90, 120, *box]


def test_the_kernel_compiles() -> None:
    if torch.version.cuda is None:
        pytest.skip("needs PyTorch's CUDA build")
    source = Path(gpu.__file__).with_name("crop_resize.cu").read_text(encoding="utf-8")
    assert compile_source(f"constexpr int THREADS = 256;\n{source}", "sm_90")


def test_a_cpu_cannot_decode_as_a_gpu() -> None:
    with pytest.raises(ValueError, match="needs a GPU, but this worker has cpu"):
        check_gpu_decodes(torch.device("cpu"))
    assert not gpu.has_jpeg_engine(torch.device("cpu"))


DEVICE = torch.device("cuda", 0)


def decoder() -> GpuDecoder:
    return GpuDecoder(DEVICE, decode_into, Pool(2, "decode"))


def decoded(files: list[bytes], by: GpuDecoder | None) -> tuple[torch.Tensor, list[str | None]]:
    """Rows (N, H, W, 3) on the CPU, and messages."""
    shape = (len(files), SIZES.crop_px, SIZES.crop_px, 3)
    with torch.cuda.stream(by.stream if by else None):
        rows = torch.zeros(shape, dtype=torch.uint8, device=DEVICE if by else "cpu")
    images = [Encoded(file, (0.3, 0.7)) for file in files]
    messages = (by or decode_into)(images, list(rows.permute(0, 3, 1, 2)), SIZES)
    return rows.cpu(), messages


@pytest.mark.gpu
def test_the_kernel_resizes_as_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(100, 150), (64, 64), (56, 56), (20, 33), (700, 81), (1, 5)]
    images = [torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator) for shape in shapes]
    places = [(0.1 * i, 1 - 0.2 * i) for i in range(len(images))]
    rows = torch.empty(len(images), 56, 56, 3, dtype=torch.uint8, device=DEVICE)
    table = crop_table(shapes, places, list(rows.permute(0, 3, 1, 2)), SIZES)
    crop_resize([image.to(DEVICE) for image in images], table, SIZES.crop_px)
    for image, place, row in zip(images, places, rows.permute(0, 3, 1, 2).cpu(), strict=True):
        expected = crop_resized(image, resize_px=64, crop_px=56, place=place)
        assert (row.int() - expected.int()).abs().max() <= 1, image.shape


@pytest.mark.gpu
def test_grey_levels_differ_slightly_from_the_cpu() -> None:
    by_gpu, messages = decoded(list(ENGINE.values()), decoder())
    assert messages == [None] * len(ENGINE)
    by_cpu, _ = decoded(list(ENGINE.values()), None)
    for name, one, other in zip(ENGINE, by_gpu.float(), by_cpu.float(), strict=True):
        difference = (one - other).abs()
        print(f"{name}: mean {difference.mean():.3f}, largest {difference.max():.0f} levels")
        is_other = name in ("small", "tall", "large")
        assert difference.mean() <= (OTHER_MEAN_LEVELS if is_other else MEAN_LEVELS), name
        assert difference.max() <= (OTHER_MOST_LEVELS if is_other else MOST_LEVELS), name


@pytest.mark.gpu
def test_other_files_come_from_the_cpu_in_the_same_batch() -> None:
    files = [file for pair in zip(CPU.values(), ENGINE.values(), strict=False) for file in pair]
    by_gpu, messages = decoded(files, decoder())
    by_cpu, _ = decoded(files, None)
    assert messages == [None] * len(files)
    assert torch.equal(by_gpu[::2], by_cpu[::2])
    assert (by_gpu[1::2].float() - by_cpu[1::2].float()).abs().mean() <= OTHER_MEAN_LEVELS


@pytest.mark.gpu
@pytest.mark.parametrize("name", broken())
def test_a_broken_image_costs_itself(name: str) -> None:
    good = [ENGINE["4:2:0"], ENGINE["grey"], ENGINE["odd size"]]
    files = [good[0], broken()[name], *good[1:]]
    by_gpu, messages = decoded(files, decoder())
    _, expected = decoded(files, None)
    assert messages == expected
    alone, _ = decoded(good, decoder())
    assert torch.equal(by_gpu[[0, 2, 3]], alone)


@pytest.mark.gpu
def test_out_of_memory_halves_the_calls(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = decoded(list(ENGINE.values()), decoder())
    real = gpu.torchvision.io.decode_jpeg

    def small(files, **options):
        if len(files) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(files, **options)

    monkeypatch.setattr(gpu.torchvision.io, "decode_jpeg", small)
    by_halves, messages = decoded(list(ENGINE.values()), decoder())
    assert torch.equal(by_halves, expected)
    assert messages == [None] * len(ENGINE)
    assert caplog.text.count("decoded in smaller batches") == 1


@pytest.mark.gpu
def test_batches_are_those_of_the_cpu(tmp_path: Path) -> None:
    """Order, labels, flips, replacements and quarantine; two streams are equal bit for bit."""
    files = [photo((150 + i, 100)) for i in range(22)] + [broken()["cut"], CPU["png"]]
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for i, file in enumerate(files):
            for name, data in (
                (f"{i:03}.{'png' if i == 23 else 'jpg'}", file),
                (f"{i:03}.cls", str(i % 3).encode()),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    index_existing_tars([str(tmp_path / "train-0.tar")], classes=["a", "b", "c"])
    split = open_split(StreamConfig(url=str(tmp_path)), "train")

    def batches(decoders, device):
        config = DataConfig(resize_px=64, crop_px=56, threads=2, decoders=decoders, max_bad_fraction=0.1)
        stream = TrainStream(
            {"target": split}, config, global_batch_size=8, rank=0, world_size=1, seed=3, device=device
        )
        found = [batch for batch, _ in zip(stream.batches(0), range(6), strict=False)]
        return found, stream

    on_gpu, stream = batches("auto", DEVICE)
    assert stream.gpu == DEVICE
    again, _ = batches("gpu", DEVICE)
    on_cpu, cpu_stream = batches("threads", DEVICE)
    assert stream.bad_samples == cpu_stream.bad_samples
    assert len(stream.bad_samples) == 1
    for one, same, other in zip(on_gpu, again, on_cpu, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.flip, other.flip)
        assert one.images.is_cuda
        assert torch.equal(one.images, same.images)
        assert (one.images.cpu().float() - other.images.float()).abs().mean() <= MEAN_LEVELS
        assert one.images.stride() == other.images.stride()


@pytest.mark.gpu
def test_cuda_starts_with_enough_queues() -> None:
    assert World(0, 1, DEVICE)
    assert int(os.environ["CUDA_DEVICE_MAX_CONNECTIONS"]) >= 32
