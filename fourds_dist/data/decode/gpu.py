"""Decoding on the GPU that trains: its JPEG engine decodes, and one kernel crops and resizes a whole batch.

The engine works beside the training step and takes hardly any of the step's time, if it has hardware queues of its own:
with CUDA's default of 8, its streams share queues with the step's and wait for the kernels of all queued steps
(`training.distributed.world` sets CUDA_DEVICE_MAX_CONNECTIONS). Files other than plain JPEGs (`jpeg_header`) are
decoded on the CPU, in the same batch.

Grey levels differ slightly from the CPU's: by the engine's upsampling of chroma, and by the kernel's single rounding.

The engine has a buffer for each image of a call. It allocates a larger one for a file that does not fit, and such an
allocation waits for the training step: the first 150 batches take two to four times as long. So padded copies of one
file are decoded first, which makes all buffers larger at once (`EngineBuffers`).

GPU memory: the images of NUM_CALLERS calls, each at most CALL_BYTES or one image, the crops of the batches, and
RESERVED_BYTES.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from fourds_dist.data.decode.crop_box import Place, crop_box
from fourds_dist.data.decode.decode import IMAGES_PER_TASK, Encoded, Sizes, encoded_tensor
from fourds_dist.data.decode.jpeg_header import JpegHeader, jpeg_header, plain_header
from fourds_dist.data.decode.pixels import MOST_PIXELS
from fourds_dist.data.decode.threads import Pool
from fourds_dist.io.light_torchvision import torchvision
from fourds_dist.ops.nvrtc import Block, Kernel, load

log = logging.getLogger(__name__)

NUM_CALLERS = 3
"""Threads that call a decoder: one has the engine, another crops its images, a third reads headers."""
CALL_BYTES = 256 << 20
"""Decoded images of one call of the engine, in bytes."""
RESERVED_BYTES = 256 << 20
"""Largest sum of the engine's buffers that are reserved for encoded files."""
NUM_THREADS = 256

DecodeInto = Callable[[Sequence[Encoded], Sequence[Tensor], Sizes], list[str | None]]

_HARDWARE, _SUCCESS = 3, 0  # nvjpegBackend_t, nvjpegStatus_t


@cache
def has_jpeg_engine(device: torch.device) -> bool:
    """Whether the GPU has a JPEG engine that this installation of torchvision can use."""
    if device.type != "cuda" or not hasattr(torch.ops.image, "decode_jpegs_cuda"):
        return False
    names = sorted((Path(torchvision.__file__).parents[1] / "torchvision.libs").glob("libnvjpeg*"))
    handle = ctypes.c_void_p()
    with torch.cuda.device(device):
        torch.cuda.init()
        try:
            library = ctypes.CDLL(str(names[0]) if names else "libnvjpeg.so")
            if library.nvjpegCreateEx(_HARDWARE, None, None, 0, ctypes.byref(handle)) != _SUCCESS:
                return False
            library.nvjpegDestroy(handle)
        except (OSError, AttributeError):
            return False
    return True


def check_gpu_decodes(device: torch.device) -> None:
    """Check that torchvision can decode on a device.

    Raises:
        ValueError: with the reason.
    """
    if device.type != "cuda":
        raise ValueError(
            f"data.decoders=gpu needs a GPU, but this worker has {device}; set data.decoders=auto"
        )
    if not hasattr(torch.ops.image, "decode_jpegs_cuda"):
        raise ValueError(
            f"data.decoders=gpu needs a torchvision that decodes on GPUs, which {torchvision.__version__} does not; "
            "install PyTorch's CUDA build of torchvision, or set data.decoders=auto"
        )
    if not has_jpeg_engine(device):
        log.warning(
            "%s has no JPEG engine: data.decoders=gpu decodes by kernels there, which slow training down",
            torch.cuda.get_device_name(device),
        )


def engine_header(data: bytes | memoryview, most_pixels: int | None = None) -> JpegHeader | None:
    """Return the header of a complete file that the engine decodes as the CPU does; None for all other files.

    Args:
        most_pixels: see `decode`.
    """
    header = plain_header(data)
    if header is None or not header.suits_jpeg_engine or bytes(data[-2:]) != b"\xff\xd9":
        return None
    return header if 0 < header.num_pixels <= (most_pixels or MOST_PIXELS) else None


class EngineBuffers:
    """Number and size in bytes of the buffers that the engine has for encoded files."""

    def __init__(self) -> None:
        self.num, self.size = 0, 0

    def copies(self, files: list[Tensor]) -> list[Tensor]:
        """Return the files to decode before `files`, so that there are as many buffers, of twice the size of the
        largest file; none if the buffers are there.

        They are copies of one file, padded with zeros: decoders ignore what follows the end of an image.
        """
        largest = max(file.numel() for file in files)
        num = max(self.num, len(files))
        wanted = self.size if largest <= self.size else min(2 * largest, RESERVED_BYTES // num)
        size = max(self.size, wanted)
        if (num, size) == (self.num, self.size):
            return []
        self.num, self.size = num, size
        for file in files:
            header = jpeg_header(file.numpy().tobytes())
            if header and len(file) <= size and 3 * num * header.num_pixels <= CALL_BYTES:
                return [torch.nn.functional.pad(file, (0, size - len(file)))] * num
        return []


class GpuDecoder:
    """Decodes with the signature of `decode_into`, into rows on the device.

    NUM_CALLERS threads may call it: the engine decodes the images of one while the others read headers and crop.

    Args:
        rest: decodes on the CPU what the engine cannot.
        pool: threads that call `rest`.
    """

    def __init__(self, device: torch.device, rest: DecodeInto, pool: Pool) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device, priority=-1)
        self._rest, self._pool = rest, pool
        self._is_reported = False
        self._engine_lock = threading.Lock()
        self._buffers = EngineBuffers()

    def __call__(self, images: Sequence[Encoded], out: Sequence[Tensor], sizes: Sizes) -> list[str | None]:
        """See `decode_into`. The rows are complete when the call returns.

        The engine does not wait for kernels of `stream`, which owns the memory: memory is freed only once the kernels
        that use it have ended.
        """
        messages: list[str | None] = [None] * len(images)
        headers = [engine_header(image.data, sizes.most_pixels) for image in images]
        with torch.cuda.stream(self.stream):
            decoded: set[int] = set()
            for call in _calls(headers):
                shapes = [(header.height, header.width) for i in call if (header := headers[i])]
                table_N8 = crop_table(shapes, [images[i].place for i in call], [out[i] for i in call], sizes)
                decoded.update(self._decode(call, images, table_N8, sizes.crop_px))
            rest = [i for i in range(len(images)) if i not in decoded]
            rows, of_rest = self._decode_on_cpu([images[i] for i in rest], sizes)
            for i, row_CHW, message in zip(rest, rows, of_rest, strict=True):
                messages[i] = message
                if message is None:
                    out[i].copy_(row_CHW, non_blocking=True)
            self.stream.synchronize()
        return messages

    def _decode(
        self, call: list[int], images: Sequence[Encoded], table_N8: Int[Tensor, "N 8"], crop_px: int
    ) -> list[int]:
        """Decode images on the GPU; return those that were decoded. One bad image fails a call, so halves follow."""
        try:
            decoded = self._decode_files([encoded_tensor(images[i].data) for i in call])
            on_device = crop_resize(decoded, table_N8, crop_px)
            self.stream.synchronize()  # the engine may overwrite both tensors' memory once they are freed
            del decoded, on_device
        except RuntimeError as error:  # also out of memory
            self._report(error)
            if len(call) == 1:
                return []
            half = len(call) // 2
            parts = (call[:half], table_N8[:half]), (call[half:], table_N8[half:])
            return [i for part, table in parts for i in self._decode(part, images, table, crop_px)]
        return call

    def _decode_files(self, files: list[Tensor]) -> list[Tensor]:
        with self._engine_lock:
            self.stream.synchronize()
            if copies := self._buffers.copies(files):
                # The file may be broken, or memory short: the buffers grow one by one then.
                with suppress(RuntimeError):
                    self._decode_at_once(copies)
            return self._decode_at_once(files)

    def _decode_at_once(self, files: list[Tensor]) -> list[Tensor]:
        decoded = torchvision.io.decode_jpeg(files, mode=torchvision.io.ImageReadMode.RGB, device=self.device)
        assert isinstance(decoded, list)
        return decoded

    def _decode_on_cpu(self, images: list[Encoded], sizes: Sizes) -> tuple[list[Tensor], list[str | None]]:
        shape = (len(images), sizes.crop_px, sizes.crop_px, 3)
        rows = list(torch.empty(shape, dtype=torch.uint8, pin_memory=bool(images)).permute(0, 3, 1, 2))
        starts = range(0, len(images), IMAGES_PER_TASK)
        tasks = [
            self._pool.submit(
                self._rest, images[i : i + IMAGES_PER_TASK], rows[i : i + IMAGES_PER_TASK], sizes
            )
            for i in starts
        ]
        return rows, [message for task in tasks for message in task.result()]

    def _report(self, error: RuntimeError) -> None:
        if self._is_reported:
            return
        self._is_reported = True
        cause = " ".join(str(error).split())[:200]
        log.warning(
            "the GPU could not decode some images at once (%s); they are decoded in smaller batches", cause
        )


def _calls(headers: Sequence[JpegHeader | None]) -> list[list[int]]:
    """Return the images of each call of the engine: at most CALL_BYTES of pixels, or one image."""
    calls: list[list[int]] = []
    num_bytes = 0
    for i, header in enumerate(headers):
        if header is None:
            continue
        if not calls or num_bytes + 3 * header.num_pixels > CALL_BYTES:
            calls.append([])
            num_bytes = 0
        calls[-1].append(i)
        num_bytes += 3 * header.num_pixels
    return calls


def crop_resize(
    images: Sequence[UInt8[Tensor, "3 _ _"]], table_N8: Int[Tensor, "N 8"], crop_px: int
) -> Int[Tensor, "N 8"]:
    """Write `decode.crop_resized` of images of any sizes on a GPU into rows in channels-last memory; asynchronous.

    Args:
        table_N8: see `crop_table`.

    Returns:
        The table on the device, whose memory the kernel reads until it has ended.

    Raises:
        RuntimeError: an image has another size than in the table.
    """
    if [list(image.shape[1:]) for image in images] != table_N8[:, 2:4].tolist():
        raise RuntimeError("the engine decoded an image to another size than its header says")
    table_N8[:, 0] = torch.tensor([image.data_ptr() for image in images])
    on_device = table_N8.pin_memory().to(images[0].device, non_blocking=True)
    blocks_per_image = -(-(crop_px**2) // NUM_THREADS)
    _kernel(images[0].device)(len(images) * blocks_per_image, on_device, crop_px, blocks_per_image)
    return on_device


def crop_table(
    shapes: Sequence[tuple[int, int]],
    places: Sequence[Place],
    out: Sequence[UInt8[Tensor, "3 _ _"]],
    sizes: Sizes,
) -> Int[Tensor, "N 8"]:
    """Return the fields of the kernel's `Crop` for every image, without the addresses of the images.

    Args:
        shapes: (height, width) of every image.
        places: place of each crop, see `crop_box`.
        out: rows of the crops, h = w = crop_px, in channels-last memory.
    """
    resize_px, crop_px, resize_mode = sizes.resize_px, sizes.crop_px, sizes.resize_mode
    rows = [
        (
            *(0, target.data_ptr(), *shape),
            *crop_box(*shape, resize_px=resize_px, crop_px=crop_px, place=place, resize_mode=resize_mode),
        )
        for shape, place, target in zip(shapes, places, out, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.int64)


@cache
def _kernel(device: torch.device) -> Kernel:
    source = Path(__file__).with_name("crop_resize.cu").read_text(encoding="utf-8")
    with torch.cuda.device(device):
        return load(f"constexpr int THREADS = {NUM_THREADS};\n{source}", {"crop_resize": Block(NUM_THREADS)})[
            "crop_resize"
        ]
