"""What the doctor looks at. Each look gives findings: what is so, how bad it is, and what to do about it."""

from __future__ import annotations

import enum
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from fourds_dist.extras import install, install_ourselves, remedy


class Level(enum.Enum):
    """How bad a finding is."""

    GOOD = "good"
    NOTE = "note"
    """Training works; something is slower or left out."""
    BAD = "bad"
    """Training does not work so."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    level: Level = Level.GOOD
    remedy: str = ""


def python() -> Iterator[Finding]:
    """The interpreter."""
    yield Finding(f"Python {'.'.join(map(str, sys.version_info[:3]))}")


def packages() -> Iterator[Finding]:
    """What fourds_dist needs, by its own metadata: there, and new enough."""
    try:
        needed = [r for r in importlib.metadata.requires("fourds_dist") or [] if "extra ==" not in r]
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "fourds_dist runs from its folder, not installed",
            Level.NOTE,
            f"{install_ourselves()} (or uv sync)",
        )
        return
    told = []
    for requirement in needed:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(?:>=([0-9.]+))?", requirement)
        assert match is not None
        name, least = match[1], match[2]
        try:
            have = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(f"{name} is missing", Level.BAD, install(requirement))
            continue
        if least and _numbers(have) < _numbers(least):
            yield Finding(
                f"{name} {have} is older than {least}", Level.BAD, install(requirement, upgrade=True)
            )
        elif name in ("torch", "torchvision", "ray", "wandb"):
            told.append(f"{name} {have}")
    yield Finding(f"{', '.join(told)}, and {len(needed) - len(told)} more packages")


def devices() -> Iterator[Finding]:
    """GPUs, and whether PyTorch can use those that are there."""
    import torch

    has_driver = shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            yield Finding(f"GPU {i}: {about.name}, {about.total_memory / 2**30:.0f} GiB")
        if torch.cuda.device_count() > 1 and not torch.distributed.is_nccl_available():
            yield Finding("this PyTorch has no NCCL", Level.BAD, "install PyTorch's CUDA build for Linux")
    elif has_driver:
        yield Finding(
            f"there is an NVIDIA driver, but PyTorch {torch.__version__} sees no GPU", Level.BAD,
            "install PyTorch's CUDA build that fits the driver (see nvidia-smi); check CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    else:
        yield Finding(
            "no GPU: training runs on CPUs", Level.NOTE, "right for trying things out; slow for large images"
        )


def memory() -> Iterator[Finding]:
    """Cores, memory, and shared memory, which Ray's object store wants."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    what = f"{cores} cores, {total:.0f} GiB of memory"
    yield (
        Finding(what)
        if total >= 4
        else Finding(what, Level.NOTE, "at least 4 GiB are wise: use fewer workers")
    )
    if os.path.isdir("/dev/shm"):  # noqa: PTH112
        shared = shutil.disk_usage("/dev/shm").total / 2**30
        if shared < 1:
            yield Finding(
                f"/dev/shm has {shared:.2f} GiB: Ray falls back to the disk", Level.NOTE,
                "start the container with --shm-size=4g or more",
            )  # fmt: skip


def ray_starts() -> Iterator[Finding]:
    """Whether a cluster is there to join, or a local one starts."""
    from fourds_dist.launch.ray_cluster import (
        connected,
        ray,
    )  # not from Ray itself: its environment is set there

    began, ending = time.perf_counter(), ExitStack()
    try:
        ending.enter_context(connected())
    except Exception as error:
        yield Finding(
            f"Ray does not start: {' '.join(str(error).split())[:300]}", Level.BAD,
            "a cluster that should be joined: is it up, is its token known here (RAY_AUTH_MODE, RAY_AUTH_TOKEN)? "
            "RAY_ADDRESS=local starts one of this machine's own; is /tmp full, the machine overloaded?",
        )  # fmt: skip
        return
    with ending:
        total = ray.cluster_resources()
        amounts = ", ".join(f"{total[k]:g} {k}" for k in ("CPU", "GPU") if k in total)
        nodes = len([node for node in ray.nodes() if node["Alive"]])
        yield Finding(
            f"Ray: {nodes} node{'s' if nodes > 1 else ''} with {amounts}, in {time.perf_counter() - began:.0f} s"
        )


def tracking() -> Iterator[Finding]:
    """Where Weights & Biases would log to."""
    from fourds_dist.training.tracking import automatic_mode

    mode = automatic_mode()
    by = next((name for name in ("WANDB_DISABLED", "WANDB_MODE") if os.environ.get(name)), None)
    if mode == "online":
        yield Finding(f"W&B: runs are logged online, {f'as {by} says' if by else 'a key is there'}")
    elif by is not None:
        yield Finding(f"W&B: {mode}, as {by} says")
    else:
        yield Finding(
            "W&B: no key, runs are logged offline in their folders", Level.NOTE,
            "`wandb login` to log online; `wandb sync RUN/wandb/offline-*` to send them later",
        )  # fmt: skip


def extras() -> Iterator[Finding]:
    """Optional parts, by what they are for."""
    parts = {
        "s3": (("s3fs",), "s3://"),
        "gcs": (("gcsfs",), "gs://"),
        "azure": (("adlfs",), "abfs://"),
        "export": (("onnx", "onnxscript", "onnxruntime"), "export to ONNX and int8"),
        "timm": (("timm",), "timm's networks"),
        "icons": (("resvg_py",), "packing icons"),
    }
    there = {
        e: all(importlib.util.find_spec(m) is not None for m in modules) for e, (modules, _) in parts.items()
    }
    if any(there.values()):
        yield Finding("optional parts: " + ", ".join(parts[extra][1] for extra, has in there.items() if has))
    for extra, has in there.items():
        if not has:
            yield Finding(f"without {parts[extra][1]}", Level.NOTE, f"`{remedy(extra)}` to have it")


def storage(url: str) -> Iterator[Finding]:
    """Whether a folder can be listed, written and read back."""
    from fourds_dist.data.manifest import MANIFEST, read_manifest
    from fourds_dist.storage import explained, locate, write_bytes

    probe = f"{url.rstrip('/')}/.fourds-doctor-{uuid.uuid4().hex[:8]}"
    try:
        fs, path = locate(url)
        with explained(url):
            if fs.exists(f"{path.rstrip('/')}/{MANIFEST}"):
                manifest = read_manifest(url)
                splits = ", ".join(f"{manifest.num_samples(s)} {s}" for s in manifest.splits)
                yield Finding(f"{url}: a dataset folder of {len(manifest.classes)} classes, {splits} images")
            began = time.perf_counter()
            write_bytes(probe, b"fourds")
            fs, place = locate(probe)
            same = fs.cat_file(place) == b"fourds"
            took = time.perf_counter() - began
            fs.rm(place)
    except OSError as error:
        yield Finding(
            f"{url} cannot be written ({error.strerror})",
            Level.BAD,
            "enough for data; runs need another place",
        )
        return
    except ValueError as error:
        remedy = "enough for data; runs need a place to write to" if "denied" in str(error) else ""
        yield Finding(str(error), Level.BAD, remedy)
        return
    if same:
        yield Finding(f"{url}: written, read back and removed in {1000 * took:.0f} ms")
    else:
        yield Finding(
            f"{url}: gives back something else than was written", Level.BAD, "do not keep runs there"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
