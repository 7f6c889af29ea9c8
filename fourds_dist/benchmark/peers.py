"""The data loaders of `benchmark data`; each turns the same JPEGs into shuffled batches of 224 px crops.

    python -m fourds_dist.benchmark.peers '{"peer": "webdataset", "data": "/tmp/photos", ...}'

Each loader follows its own documentation. Images are resized to a square, cropped at random, flipped, and returned as
uint8; all loaders but fourds_dist resize the whole image before the crop. None normalises, which favours the other
loaders: they normalise on the CPU. One process measures one loader and prints a line of JSON, so that imports and
memory are those of this loader alone.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

RESIZE_PX, CROP_PX = 256, 224


@dataclass(frozen=True)
class Setup:
    """Settings of one measurement."""

    peer: str
    data: str
    """Folder of the data in every format, on this machine."""
    remote: str = ""
    """URL of the data in an object store; empty: read local files."""
    cores: tuple[int, ...] = (0,)
    """Cores of the process, and number of decoding threads or worker processes."""
    batch_size: int = 64
    shuffle: int = 1024
    """Samples in the shuffle buffer."""
    start: float = 0.0
    """Share of an epoch after which to start."""
    later_starts: tuple[float, ...] = ()
    """Further starts, for which only the time to the first batch is measured."""
    seconds: float = 0.0
    """Time of the measurement of speed; 0: only the time to the first batch."""

    @property
    def url(self) -> str:
        """URL of the object store if there is one, else the local folder."""
        return self.remote or self.data


@dataclass(frozen=True)
class Peer:
    """A data loader.

    Args:
        name: name in the table.
        packages: packages that the loader needs.
        batches: yields the sizes of endless batches from `Setup.start` on.
        prepare: writes the loader's format; called once, with the folder of the data.
        remote: whether the loader can read from an object store.
    """

    name: str
    packages: tuple[str, ...]
    batches: Callable[[Setup], Iterator[int]]
    prepare: Callable[[Path], None] = lambda _: None
    remote: bool = True

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


# --- fourds_dist --------------------------------------------------------------------------------------------------


def _stream(setup: Setup) -> Any:
    from fourds_dist.data import DataConfig, StreamConfig, TrainStream, open_split

    split = open_split(StreamConfig(url=f"{setup.url}/shards"), "train")
    mean_bytes = split.num_bytes / split.num_samples
    config = DataConfig(
        resize_px=RESIZE_PX,
        crop_px=CROP_PX,
        threads=len(setup.cores),
        shuffle_mib=setup.shuffle * mean_bytes / 2**20,
    )
    return TrainStream(
        {"target": split}, config, global_batch_size=setup.batch_size, rank=0, world_size=1, seed=0
    )


def ours(setup: Setup) -> Iterator[int]:
    """TrainStream."""
    stream = _stream(setup)
    for batch in stream.batches(int(setup.start * stream.num_steps_per_epoch)):
        yield len(batch)


class _OurDecoder:
    """Map-style dataset of JPEG files, decoded by fourds_dist, for worker processes."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Any:
        from fourds_dist.data.decode.decode import decode

        data = self._paths[number].read_bytes()
        return decode(data, resize_px=RESIZE_PX, crop_px=CROP_PX, place=(0.3, 0.6))


def ours_in_processes(setup: Setup) -> Iterator[int]:
    """fourds_dist's decoder in the worker processes of PyTorch's DataLoader, on the files of ImageFolder."""
    yield from _sampled(_OurDecoder(Path(setup.data) / "folder"), setup)


# --- other loaders --------------------------------------------------------------------------------------------------


def _pil_transform() -> Callable[[Any], Any]:
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize((RESIZE_PX, RESIZE_PX)),
            transforms.RandomCrop(CROP_PX),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )


def webdataset(setup: Setup) -> Iterator[int]:
    """webdataset's pipeline: decode("pil"), torchvision's transforms, batches made in WebLoader's workers.

    webdataset cannot start within an epoch; earlier samples are read and discarded without decoding.
    """
    import fsspec
    import webdataset as wds

    names = sorted(path.name for path in (Path(setup.data) / "shards").glob("*.tar"))
    urls: list[str] = [f"{setup.data}/shards/{name}" for name in names]
    if setup.remote:

        def opened(url: str, *_: Any) -> Any:
            fs, path = fsspec.core.url_to_fs(url)
            return fs.open(path, "rb", block_size=8 << 20, cache_type="readahead")

        wds.gopen_schemes["s3"] = opened  # pyright: ignore
        urls = [f"{setup.remote}/shards/{name}" for name in names]
    num_workers = len(setup.cores)
    skip = int(setup.start * _num_images(setup)) // num_workers
    transform = _pil_transform()

    def later(samples: Iterator[Any]) -> Iterator[Any]:
        return itertools.islice(samples, skip, None)

    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls), seed=0, workersplitter=wds.split_by_worker)  # pyright: ignore
        .repeat()
        .compose(later)
        .shuffle(setup.shuffle // num_workers)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(transform)
        .batched(setup.batch_size)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=num_workers)  # pyright: ignore
    for images, _ in loader:
        yield len(images)


def write_mosaic(data: Path) -> None:
    """MosaicML's MDS shards, with encoded images."""
    from streaming import MDSWriter  # pyright: ignore[reportMissingImports]

    with MDSWriter(out=str(data / "mosaic"), columns={"image": "jpeg", "label": "int"}) as writer:
        from PIL import Image

        for path in sorted((data / "folder").glob("*/*.jpg")):
            writer.write({"image": Image.open(path), "label": int(path.parent.name)})


def mosaic(setup: Setup) -> Iterator[int]:
    """MosaicML's StreamingDataset and StreamingDataLoader, begun by its own state dictionary."""
    import tempfile

    import streaming  # pyright: ignore[reportMissingImports]
    from streaming import StreamingDataLoader, StreamingDataset  # pyright: ignore[reportMissingImports]

    streaming.base.util.clean_stale_shared_memory()
    transform = _pil_transform()

    class Photos(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            sample = super().__getitem__(at)
            return transform(sample["image"]), sample["label"]

    where = (
        {"remote": f"{setup.remote}/mosaic", "local": tempfile.mkdtemp()}
        if setup.remote
        else {"local": f"{setup.data}/mosaic"}
    )
    dataset = Photos(**where, shuffle=True, batch_size=setup.batch_size, shuffle_block_size=setup.shuffle)
    loader = StreamingDataLoader(
        dataset, batch_size=setup.batch_size, num_workers=len(setup.cores), persistent_workers=True
    )
    if setup.start:
        loader.load_state_dict(
            dataset.state_dict(int(setup.start * len(dataset)) // setup.batch_size * setup.batch_size, False)
        )
    while True:
        for images, _ in loader:
            yield len(images)


def write_litdata(data: Path) -> None:
    """litdata's chunks, with encoded images."""
    import litdata  # pyright: ignore[reportMissingImports]

    litdata.optimize(
        _litdata_sample,
        [str(path) for path in sorted((data / "folder").glob("*/*.jpg"))],
        str(data / "litdata"),
        chunk_bytes="64MB",
        num_workers=1,
        verbose=False,
    )


def _litdata_sample(path: str) -> tuple[Any, int]:
    from PIL import Image

    return Image.open(path), int(Path(path).parent.name)


def litdata(setup: Setup) -> Iterator[int]:
    """litdata's StreamingDataset, whose serializer decodes with torchvision.io, and torchvision's tensor transforms."""
    import litdata as lit  # pyright: ignore[reportMissingImports]
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.Resize((RESIZE_PX, RESIZE_PX), antialias=True),
            v2.RandomCrop(CROP_PX),
            v2.RandomHorizontalFlip(),
        ]
    )

    class Photos(lit.StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            image, label = super().__getitem__(at)
            return transform(image), label

    options = {}
    if setup.remote:
        options = {"storage_options": {"endpoint_url": os.environ["FSSPEC_S3_ENDPOINT_URL"]}}
    dataset = Photos(f"{setup.url}/litdata", shuffle=True, drop_last=True, **options)
    loader = lit.StreamingDataLoader(dataset, batch_size=setup.batch_size, num_workers=len(setup.cores))
    if setup.start:
        done = int(setup.start * len(dataset)) // setup.batch_size * setup.batch_size
        state = loader.state_dict() | {"num_samples_yielded": done, "current_epoch": 1}
        state["dataset"] = dataset.state_dict(done, loader.num_workers, setup.batch_size)
        loader.load_state_dict(state)
    while True:
        for images, _ in loader:
            yield len(images)


def image_folder(setup: Setup) -> Iterator[int]:
    """torchvision's ImageFolder in PyTorch's DataLoader, over a permutation that can be entered anywhere."""
    from torchvision.datasets import ImageFolder

    yield from _sampled(ImageFolder(f"{setup.data}/folder", _pil_transform()), setup)


def _sampled(dataset: Any, setup: Setup) -> Iterator[int]:
    import torch
    from torch.utils.data import DataLoader

    generator = torch.Generator().manual_seed(0)
    start = int(setup.start * len(dataset))
    while True:
        order = torch.randperm(len(dataset), generator=generator).tolist()[start:]
        loader = DataLoader(
            dataset,
            batch_size=setup.batch_size,
            sampler=order,
            num_workers=len(setup.cores),
            drop_last=True,
        )
        for batch in loader:
            yield len(batch[0] if isinstance(batch, list) else batch)
        start = 0


OURS, WEBDATASET = "fourds_dist", "webdataset"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, (), ours),
        Peer("fourds_dist's decoder in processes", (), ours_in_processes, remote=False),
        Peer(WEBDATASET, ("webdataset",), webdataset),
        Peer("mosaicml-streaming", ("streaming",), mosaic, write_mosaic),
        Peer("litdata", ("litdata",), litdata, write_litdata),
        Peer("ImageFolder", ("torchvision",), image_folder, remote=False),
    )
}


def _num_images(setup: Setup) -> int:
    return int((Path(setup.data) / "count").read_text())


def measure(setup: Setup) -> dict[str, float]:
    """Return the figures of a loader: `first_batch_s`, speeds, and `from_50%_s`, ... of the later starts.

    Packages are imported once; every measurement is made in a fork, with separate caches and workers.
    """
    import torch

    os.sched_setaffinity(0, setup.cores)
    torch.set_num_threads(1)
    for package in (*PEERS[setup.peer].packages, *(("s3fs",) if setup.remote else ())):
        importlib.import_module(package)
    importlib.import_module("torchvision.transforms")
    importlib.import_module("fourds_dist.data.stream.stream")
    figures = in_a_fork(lambda: _figures(setup))
    for start in setup.later_starts:
        begun = in_a_fork(lambda start=start: _figures(replace(setup, start=start, seconds=0.0)))
        figures[f"from_{start:.0%}_s"] = begun["first_batch_s"]
    return figures


def in_a_fork(function: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Call the function in a fork of this process and return its result; the fork kills its children at the end.

    Raises:
        RuntimeError: the function failed; its traceback is on stderr.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(function()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            for member in family(os.getpid())[1:]:
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            os._exit(0)  # shutting down the workers of other loaders may take seconds
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123  (a file descriptor)
        result = pipe.read()
    os.waitpid(pid, 0)
    if not result:
        raise RuntimeError("the measurement failed")
    return json.loads(result)


def _figures(setup: Setup) -> dict[str, float]:
    """Measure seconds to the first batch, images per second, and images per second of CPU time with workers."""
    began = time.perf_counter()
    batches = PEERS[setup.peer].batches(setup)
    next(batches)
    figures = {"first_batch_s": time.perf_counter() - began}
    if setup.seconds:
        for _ in range(4 * len(setup.cores)):  # skip prefetched batches (two per worker)
            next(batches)
        began, cpu_before_s, num_images = time.perf_counter(), cpu_s(), 0
        while time.perf_counter() - began < setup.seconds:
            num_images += next(batches)
        wall_s, used_s = time.perf_counter() - began, cpu_s() - cpu_before_s
        figures |= {"images_per_s": num_images / wall_s, "images_per_core_s": num_images / used_s}
    return figures


def cpu_s() -> float:
    """Return the CPU time of this process and of its children, including those that have ended."""
    ticks = 0
    for pid in family(os.getpid()):
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, words[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for at in found:
        for task in Path(f"/proc/{at}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def memory_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants; shared memory counts once."""
    total = 0
    for member in family(pid):
        try:
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))
    return total


def main() -> None:
    """Measure the setup given as JSON, or write a loader's format: `prepare PEER FOLDER`."""
    if sys.argv[1] == "prepare":
        PEERS[sys.argv[2]].prepare(Path(sys.argv[3]))
        return
    given = json.loads(sys.argv[1])
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    print(json.dumps(measure(Setup(**given | lists))), flush=True)


if __name__ == "__main__":
    main()
