"""Decoding in separate processes, for machines with more cores than Python's threads can use.

Decoders release Python's lock, but Python's own work for every image holds it: threads stop scaling at about eight, and
processes do not.

A thread of the loader takes a free process, sends encoded images to it through a pipe, and copies the pixels from
shared memory. A process ends when its pipe closes, so no process outlives its parent. Each process starts at its first
use and serves all streams of the parent.

    request    number of images and their sizes; then length, position and grey range (NaN: none) of each; then the
    files answer     length of an error message for each image, 0 if there is none; then the messages
"""

from __future__ import annotations

import math
import mmap
import os
import queue
import signal
import struct
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import IO

import torch
from torch import Tensor

from fourds_dist.data.decode.crop_box import RESIZE_MODES
from fourds_dist.data.decode.decode import IMAGES_PER_TASK, Encoded, Sizes, decode_into

_HEADER, _IMAGE, _NUMBER, _LENGTH = (struct.Struct(form) for form in ("<IHHQB", "<IHdd", "<d", "<H"))
_NO_RANGE = (math.nan, math.nan)
_LONGEST_MESSAGE_BYTES = 1000


class DecodeProcesses:
    """Decodes with the signature of `decode_into`, in one of several processes; safe to call from many threads."""

    def __init__(self, num_processes: int) -> None:
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        """Free processes, running ones first; None: a process that is not started."""
        for _ in range(num_processes):
            self._free.put(None)

    def __call__(self, images: Sequence[Encoded], out: Sequence[Tensor], sizes: Sizes) -> list[str | None]:
        """See `decode_into`; at most IMAGES_PER_TASK images at a time."""
        try:
            return self._decode(images, out, sizes)
        except (OSError, EOFError):
            # The process was killed, probably for its memory: retry each image alone, in case that one is the cause.
            return [self._decode_alone(*image, sizes) for image in zip(images, out, strict=True)]

    def _decode_alone(self, image: Encoded, out: Tensor, sizes: Sizes) -> str | None:
        try:
            return self._decode([image], [out], sizes)[0]
        except (OSError, EOFError):
            return "decoding the image ends the decoding process"

    def _decode(self, images: Sequence[Encoded], out: Sequence[Tensor], sizes: Sizes) -> list[str | None]:
        worker = self._free.get()
        try:
            worker = worker or _Worker()
            return worker.decode(images, out, sizes)
        except BaseException:  # the process may be dead, or have an unread answer in its pipe
            if worker:
                worker.close()
            worker = None
            raise
        finally:
            self._free.put(worker)


@lru_cache(maxsize=1)
def decode_processes(num_processes: int) -> DecodeProcesses:
    """Return the decoding processes of this process."""
    return DecodeProcesses(num_processes)


class _Worker:
    """One decoding process and its shared memory."""

    def __init__(self) -> None:
        self._memory_fd = os.memfd_create("decoded")
        self._pixels: mmap.mmap | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fourds_dist.data.decode.processes", str(self._memory_fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._memory_fd],
            # Packages of a job may be on this process's path only; a decoder needs no GPU.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        )
        self._finish = weakref.finalize(self, _finish, self._process, self._memory_fd)

    def decode(self, images: Sequence[Encoded], out: Sequence[Tensor], sizes: Sizes) -> list[str | None]:
        """Decode at most IMAGES_PER_TASK images in the process, with the signature of `decode_into`."""
        assert len(images) <= IMAGES_PER_TASK
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        crop_px = sizes.crop_px
        image_bytes = 3 * crop_px * crop_px
        if self._pixels is None or len(self._pixels) < IMAGES_PER_TASK * image_bytes:
            os.ftruncate(self._memory_fd, IMAGES_PER_TASK * image_bytes)
            self._pixels = mmap.mmap(self._memory_fd, IMAGES_PER_TASK * image_bytes)
        mode = RESIZE_MODES.index(sizes.resize_mode)
        head = [_HEADER.pack(len(images), sizes.resize_px, crop_px, sizes.most_pixels or 0, mode)]
        for data, place, grey_range in images:
            head.append(_IMAGE.pack(len(data), len(place), *(grey_range or _NO_RANGE)))
            head += map(_NUMBER.pack, place)
        requests.write(b"".join([*head, *(image.data for image in images)]))
        requests.flush()
        lengths = [_LENGTH.unpack(_exactly(answers, _LENGTH.size))[0] for _ in images]
        messages = [
            _exactly(answers, length).decode(errors="ignore") if length else None for length in lengths
        ]
        for i, message in enumerate(messages):
            if message is None:
                pixels = torch.frombuffer(
                    self._pixels, dtype=torch.uint8, offset=i * image_bytes, count=image_bytes
                )
                out[i].copy_(pixels.view(crop_px, crop_px, 3).permute(2, 0, 1))
        return messages

    def close(self) -> None:
        self._finish()


def _finish(process: subprocess.Popen[bytes], memory_fd: int) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # unsent bytes of a dead process
            assert pipe is not None
            pipe.close()
    os.close(memory_fd)


def _exactly(pipe: IO[bytes], num_bytes: int) -> bytes:
    data = pipe.read(num_bytes)
    if len(data) < num_bytes:
        raise EOFError
    return data


def _read_head(requests: IO[bytes]) -> tuple[int, tuple[float, ...], float, float]:
    """Return (bytes of the file, place, black, white) of an image of a request."""
    size, num_numbers, black, white = _IMAGE.unpack(_exactly(requests, _IMAGE.size))
    place = tuple(_NUMBER.unpack(_exactly(requests, _NUMBER.size))[0] for _ in range(num_numbers))
    return size, place, black, white


def serve(memory_fd: int, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Decode requested images until the pipe closes."""
    torch.set_num_threads(1)
    pixels: mmap.mmap | None = None
    while len(head := requests.read(_HEADER.size)) == _HEADER.size:
        num_images, resize_px, crop_px, most_pixels, mode = _HEADER.unpack(head)
        heads = [_read_head(requests) for _ in range(num_images)]
        images = [
            Encoded(
                memoryview(_exactly(requests, size)),
                place,
                None if math.isnan(black) else (black, white),
            )
            for size, place, black, white in heads
        ]
        image_bytes = 3 * crop_px * crop_px
        if pixels is None or len(pixels) < IMAGES_PER_TASK * image_bytes:
            pixels = mmap.mmap(memory_fd, IMAGES_PER_TASK * image_bytes)
        sizes = Sizes(resize_px, crop_px, most_pixels or None, RESIZE_MODES[mode])
        whole = torch.frombuffer(pixels, dtype=torch.uint8, count=num_images * image_bytes)
        out = whole.view(num_images, crop_px, crop_px, 3).permute(0, 3, 1, 2)
        messages = decode_into(images, list(out), sizes)
        texts = [(message or "").encode()[:_LONGEST_MESSAGE_BYTES] for message in messages]
        answers.write(b"".join([*(_LENGTH.pack(len(text)) for text in texts), *texts]))
        answers.flush()


if __name__ == "__main__":
    # Output that a library prints must not mix with the answers, so standard output goes to standard error.
    answer_pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # The training process handles signals, and may have a checkpoint to write; this process ends with its pipe.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):
        serve(int(sys.argv[1]), sys.stdin.buffer, answer_pipe)
    os._exit(0)
