"""Decoding in processes: the same pixels, the same words on broken images, and no end of a run when one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import islice

import pytest
import torch

from fourds_dist.data import DataConfig, StreamConfig, TrainStream, open_split
from fourds_dist.data.decode.decode import Encoded, Sizes, decode_into
from fourds_dist.data.decode.processes import DecodeProcesses, _Worker
from tests.data.decode.test_decode import BROKEN, FORMATS
from tests.data.shards import SIDE, image_of, write_dataset


@pytest.fixture(scope="module")
def processes() -> DecodeProcesses:
    return DecodeProcesses(1)


def pids(of: DecodeProcesses) -> list[int]:
    worker = of._free.get()
    of._free.put(worker)
    assert worker is not None
    return [worker._process.pid]


@pytest.mark.parametrize(
    ("crop_px", "place", "resize_mode"),
    [
        (24, (0.3, 0.8), "squeeze"),
        (32, (0.3, 0.8), "shortest_side"),
        (16, (0.3, 0.8, 0.75, 1.33, *(0.5, 1.2) * 10), "squeeze"),
    ],
)
def test_the_same_pixels_and_words_as_here(processes, crop_px, place, resize_mode) -> None:
    for data in ([*FORMATS.values()][:8], [*BROKEN.values(), *FORMATS.values()][:8]):
        images = [Encoded(image, place) for image in data]
        there, here = (torch.zeros(len(data), 3, crop_px, crop_px, dtype=torch.uint8) for _ in range(2))
        sizes = Sizes(32, crop_px, None, resize_mode)
        said = processes(images, list(there), sizes)
        assert said == decode_into(images, list(here), sizes)
        assert torch.equal(there, here)


def test_a_killed_one_is_replaced(processes) -> None:
    (pid,) = pids(processes)
    os.kill(pid, signal.SIGKILL)
    out = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    assert processes([Encoded(image_of(300), (0.5, 0.5))], list(out), Sizes(SIDE, SIDE)) == [None]
    assert out[0, :, 0, 0].tolist() == [300 % 256, 1, 7]
    assert pids(processes) != [pid]


def test_an_image_that_kills_its_decoder_is_reported_and_others_are_decoded(processes, monkeypatch) -> None:
    """A defect of a decoder's own: one image of three ends every process that it is sent to."""
    whole = _Worker.decode

    def decode(self, images, *others):
        if any(image.data == b"deadly" for image in images):
            os.kill(self._process.pid, signal.SIGKILL)
        return whole(self, images, *others)

    monkeypatch.setattr(_Worker, "decode", decode)
    out = torch.zeros(3, 3, SIDE, SIDE, dtype=torch.uint8)
    images = [Encoded(data, (0.5, 0.5)) for data in (image_of(1), b"deadly", image_of(2))]
    said = processes(images, list(out), Sizes(SIDE, SIDE))
    assert said == [None, "decoding the image ends the decoding process", None]
    assert out[::2, 0, 0, 0].tolist() == [1, 2]


def test_none_outlives_the_process_it_works_for() -> None:
    code = (
        "import os, signal\n"
        "from fourds_dist.data.decode.decode import Sizes\n"
        "from fourds_dist.data.decode.processes import DecodeProcesses\n"
        "processes = DecodeProcesses(1)\n"
        "processes([], [], Sizes(8, 8))\n"
        "print(processes._free.get()._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    deadline = time.monotonic() + 60
    while alive(int(out)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(int(out))


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("cache_decoded_gib", [0, 1])
def test_a_stream_gives_the_same_batches_either_way(tmp_path, cache_decoded_gib: int) -> None:
    split = open_split(StreamConfig(url=write_dataset(tmp_path / "set", [17, 40])), "train")
    taken = []
    for decoders in ("threads", "processes"):
        config = DataConfig(
            resize_px=SIDE + 2,
            crop_px=SIDE,
            threads=1,
            decoders=decoders,
            decoded_cache_mib=0,
            cache_dir=f"{tmp_path}/{decoders}",
            cache_decoded_gib=cache_decoded_gib,
        )
        stream = TrainStream({"target": split}, config, global_batch_size=12, rank=0, world_size=1, seed=0)
        batches = stream.batches(2)
        taken.append(list(islice(batches, 3)))
        batches.close()
    for here, there in zip(*taken, strict=True):
        assert here.keys == there.keys
        assert torch.equal(here.images, there.images)


def test_processes_are_for_machines_of_many_cores() -> None:
    assert not DataConfig(threads=4).decoding(1).in_processes
    assert DataConfig(threads=5).decoding(1).in_processes
    assert not DataConfig(threads=16, decoders="threads").decoding(1).in_processes
