"""Checks of `fourds doctor`. Each check yields findings: a fact, its level, and the remedy."""

from __future__ import annotations

import enum
import importlib
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

from fourds_dist.io.error_text import one_line
from fourds_dist.io.extras import fix, importing, install, install_this_clone


class Level(enum.Enum):
    """Severity of a finding."""

    GOOD = "good"
    NOTE = "note"
    """Training works, but slower or without some feature."""
    BAD = "bad"
    """Training does not work."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    what: str
    level: Level = Level.GOOD
    fix: str = ""


def python() -> Iterator[Finding]:
    """Report the version of Python."""
    yield Finding(f"Python {'.'.join(map(str, sys.version_info[:3]))}")


def packages() -> Iterator[Finding]:
    """Check that the requirements in the package's metadata are installed, in the required versions."""
    try:
        needed = [r for r in importlib.metadata.requires("fourds_dist") or [] if "extra ==" not in r]
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "fourds_dist is not installed, but runs from its folder",
            Level.NOTE,
            f"{install_this_clone()} (or uv sync)",
        )
        return
    shown = []
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
            shown.append(f"{name} {have}")
    yield Finding(f"{', '.join(shown)}, and {len(needed) - len(shown)} more packages")


def devices() -> Iterator[Finding]:
    """Report GPUs, and check that PyTorch can use them."""
    import torch

    has_driver = shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            yield Finding(f"GPU {i}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        if torch.cuda.device_count() > 1 and not torch.distributed.is_nccl_available():
            yield Finding("this PyTorch has no NCCL", Level.BAD, "install PyTorch's CUDA build for Linux")
    elif has_driver:
        yield Finding(
            f"an NVIDIA driver is installed, but PyTorch {torch.__version__} sees no GPU", Level.BAD,
            "install PyTorch's CUDA build that fits the driver (see nvidia-smi); check CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    else:
        yield Finding(
            "no GPU: training runs on CPUs", Level.NOTE, "fine for small trials; slow for large images"
        )


def memory() -> Iterator[Finding]:
    """Check cores, memory, and the shared memory of Ray's object store."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    what = f"{cores} cores, {total:.0f} GiB of memory"
    yield (
        Finding(what)
        if total >= 4
        else Finding(what, Level.NOTE, "4 GiB or more are recommended: use fewer workers")
    )
    if os.path.isdir("/dev/shm"):  # noqa: PTH112
        shared = shutil.disk_usage("/dev/shm").total / 2**30
        if shared < 1:
            yield Finding(
                f"/dev/shm has {shared:.2f} GiB: Ray uses the disk instead", Level.NOTE,
                "start the container with --shm-size=4g or more",
            )  # fmt: skip


def ray_starts() -> Iterator[Finding]:
    """Check that Ray joins the cluster of the environment, or starts a local one."""
    try:
        with importing("ray", "train in this process with launch.runner=inline"):
            from fourds_dist.launch.ray.cluster import (  # this module sets Ray's environment before its import
                connected,
                ray,
            )
    except RuntimeError as error:
        yield Finding(str(error), Level.BAD)
        return

    began, ending = time.perf_counter(), ExitStack()
    try:
        ending.enter_context(connected())
    except Exception as error:
        yield Finding(
            f"Ray does not start: {one_line(error, 300)}", Level.BAD,
            "to join a cluster, check that it runs and that its token is set here (RAY_AUTH_MODE, RAY_AUTH_TOKEN); "
            "RAY_ADDRESS=local starts a local cluster, which needs space in /tmp and a machine that is not overloaded",
        )  # fmt: skip
        return
    with ending:
        total = ray.cluster_resources()
        amounts = ", ".join(f"{total[k]:g} {k}" for k in ("CPU", "GPU") if k in total)
        nodes = len([node for node in ray.nodes() if node["Alive"]])
        yield Finding(
            f"Ray: {nodes} node{'s' if nodes > 1 else ''} with {amounts}, in {time.perf_counter() - began:.0f} s"
        )


def libraries() -> Iterator[Finding]:
    """Check that the libraries that some options of training need can be imported."""
    for name, otherwise in _OPTIONS_WITHOUT.items():
        try:
            with importing(name, otherwise):
                importlib.import_module(name)
        except RuntimeError as error:
            yield Finding(f"without {name}", Level.NOTE, str(error))


_OPTIONS_WITHOUT = {
    "deepspeed": "train with launch.strategy=ddp, the default",
    "wandb": "set tracking.wandb=disabled",
}
"""Library -> what to choose without it."""


def tracking() -> Iterator[Finding]:
    """Report whether runs are logged to Weights & Biases online or offline."""
    from fourds_dist.stages.sinks.wandb import automatic_mode

    mode = automatic_mode()
    by = next((name for name in ("WANDB_DISABLED", "WANDB_MODE") if os.environ.get(name)), None)
    if mode == "online":
        yield Finding(f"W&B: runs are logged online ({f'set by {by}' if by else 'an API key is set'})")
    elif by is not None:
        yield Finding(f"W&B: {mode} (set by {by})")
    else:
        yield Finding(
            "W&B: no API key; runs are logged offline in their folders", Level.NOTE,
            "`wandb login` to log online; `wandb sync RUN/wandb/offline-*` to upload offline runs later",
        )  # fmt: skip


def extras() -> Iterator[Finding]:
    """Report installed and missing extras, by their purpose."""
    parts = {
        "s3": (("s3fs",), "s3://"),
        "gcs": (("gcsfs",), "gs://"),
        "azure": (("adlfs",), "abfs://"),
        "export": (("onnx", "onnxscript", "onnxruntime"), "export to ONNX and int8"),
        "timm": (("timm",), "timm's networks"),
        "clip": (("open_clip",), "teachers from class names"),
        "tensorboard": (("tensorboardX",), "TensorBoard"),
        "mlflow": (("mlflow",), "MLflow"),
        "hub": (("huggingface_hub",), "the Hugging Face hub"),
        "icons": (("resvg_py",), "packing icons"),
    }
    installed = {
        e: all(importlib.util.find_spec(m) is not None for m in modules) for e, (modules, _) in parts.items()
    }
    if any(installed.values()):
        yield Finding(
            "optional parts: " + ", ".join(parts[extra][1] for extra, has in installed.items() if has)
        )
    for extra, has in installed.items():
        if not has:
            yield Finding(f"without {parts[extra][1]}", Level.NOTE, f"`{fix(extra)}` to have it")


def storage(url: str) -> Iterator[Finding]:
    """Check that a folder can be listed, written and read."""
    from fourds_dist.data.format.manifest import MANIFEST, read_manifest
    from fourds_dist.io.storage import locate, translate_storage_errors, write_bytes

    probe = f"{url.rstrip('/')}/.fourds-doctor-{uuid.uuid4().hex[:8]}"
    try:
        fs, path = locate(url)
        with translate_storage_errors(url):
            if fs.exists(f"{path.rstrip('/')}/{MANIFEST}"):
                manifest = read_manifest(url)
                splits = ", ".join(f"{manifest.num_samples(s)} {s}" for s in manifest.splits)
                yield Finding(f"{url}: a dataset folder of {len(manifest.classes)} classes, {splits} images")
            began = time.perf_counter()
            write_bytes(probe, b"fourds")
            fs, path = locate(probe)
            same = fs.cat_file(path) == b"fourds"
            took = time.perf_counter() - began
            fs.rm(path)
    except OSError as error:
        yield Finding(
            f"{url} cannot be written ({error.strerror})",
            Level.BAD,
            "this is enough for data; give runs a folder that can be written",
        )
        return
    except ValueError as error:
        fix = (
            "this is enough for data; give runs a folder that can be written"
            if "denied" in str(error)
            else ""
        )
        yield Finding(str(error), Level.BAD, fix)
        return
    if same:
        yield Finding(f"{url}: written, read back and removed in {1000 * took:.0f} ms")
    else:
        yield Finding(
            f"{url}: the bytes read differ from those written", Level.BAD, "do not store runs there"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
