"""The same twenty steps by every strategy, and by one process: `python -m tests.training.parity --ranks 2` prints how
far they end apart, over student, adapters and gate.

BatchNorm normalises by fixed statistics here: by a rank's own batch it would be another function on another number of
ranks. The losses are the released ones, means over images: a mean of the ranks' means is the global batch's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fourds_dist.data import Batch
from fourds_dist.training.distributed.world import World
from fourds_dist.training.evaluate import evaluate
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.build import make_strategy
from fourds_dist.training.strategies.optim import OptimConfig
from fourds_dist.training.train_state import TrainState, capture, resume
from fourds_dist.training.weight_average import WeightAverage
from tests.ranks import run_ranks
from tests.training.tiny import NUM_CLASSES, SIDE, tiny_four_ds, tiny_students

GLOBAL_BATCH_SIZE, NUM_STEPS = 12, 20
ACCUMULATION = 2
KINDS = ("ddp", "zero0", "zero1", "zero2", "zero3")
ROUNDED = "ddp_bfloat16"
SEVERAL = "-students"
"""Ending of a strategy's name with which two students learn from the teacher."""
DIVIDED = Path(__file__).with_name("zero3_divided.yaml")
"""ZeRO 3 that partitions small weights too; the default leaves those of a tiny network whole."""
IDENTITY = {"data": "parity"}

Job = tuple[str, str, str | None, int]
"""Label, strategy, checkpoint's file, last step."""


class OneFile:
    """A store of one checkpoint, which every rank can read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def newest(self) -> str | None:
        return self.path.name if self.path.exists() else None

    def read(self, name: str) -> dict[str, Any]:
        del name
        return torch.load(self.path, weights_only=True)


def batches(world: World, start: int, shares: list[int]) -> Iterator[Batch]:
    """This rank's share of global batches that depend on the step alone."""
    first = sum(shares[: world.rank])
    mine = slice(first, first + shares[world.rank])
    for step in range(start, NUM_STEPS):
        generator = torch.Generator().manual_seed(step)
        images = torch.randint(
            0, 256, (GLOBAL_BATCH_SIZE, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator
        )
        labels = torch.randint(0, NUM_CLASSES, (GLOBAL_BATCH_SIZE,), generator=generator)
        no = torch.zeros(shares[world.rank], dtype=torch.bool)
        yield Batch(images[mine], labels[mine], no, [""] * len(no))


def train(
    kind: str, world: World, shares: list[int], checkpoint: Path | None = None, *, until: int = NUM_STEPS
) -> dict[str, Tensor]:
    """Final weights on every rank; on from `checkpoint` where it exists, and up to `until`, where it is left."""
    torch.manual_seed(0)
    if kind.endswith(SEVERAL):
        kind = kind.removesuffix(SEVERAL)
        task = tiny_students({"a": 4, "b": 6}, batch_norm=False, preset="4ds_released")
    else:
        task = tiny_four_ds(dropout=0.0, batch_norm=False, preset="4ds_released")
    task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (as a step on GPUs hands it over)
    optim = OptimConfig(schedule="cosine", warmup=0.1)
    strategy = make_strategy(
        "ddp" if kind.startswith("ddp") else "deepspeed",
        world,
        optim,
        NUM_STEPS,
        deepspeed=str(DIVIDED) if kind == "zero3" else kind,
        all_reduce="bfloat16" if kind == ROUNDED else "float32",
    )
    step = TrainStep(
        task,
        world,
        StepConfig(gradient_accumulation_steps=ACCUMULATION, activation_checkpointing=kind != "ddp"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        global_batch_size=GLOBAL_BATCH_SIZE,
        strategy=strategy,
    )
    place, average = TrainState(), WeightAverage(task, 0.9 if kind != "zero3" else None)
    if checkpoint is not None:
        place = resume(task, strategy, average, OneFile(checkpoint), IDENTITY, world)  # pyright: ignore
    task.train()
    for module in task.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for batch in batches(world, place.step, shares):
        if place.step == until:
            break
        step(batch)
        strategy.step()
        average.update()
        place.step += 1
    if checkpoint is not None and until < NUM_STEPS:
        state = capture(task, strategy, average, place, IDENTITY, world)
        if world.is_main:
            torch.save(state, checkpoint)
        world.barrier()
    weights = strategy.weights()
    if "3" not in kind:
        filters = [p for p in task.teacher.parameters() if p.dim() == 4 and not p.is_contiguous()]
        assert filters, "the frozen teacher's filters stay as convolutions take them"
    task.eval()
    found = evaluate(
        task.predictors(),
        list(batches(world, NUM_STEPS - world.rank - 1, shares)),  # unequal numbers of them
        step,
        world,
        num_classes=NUM_CLASSES,
        in_step_px=SIDE if strategy.in_step else None,
    )
    assert next(iter(found.values())).num_samples == sum((r + 1) * share for r, share in enumerate(shares))
    strategy.unwrap()
    plain = task.state_dict()
    for key, value in weights.items():
        torch.testing.assert_close(plain[key].float(), value.float(), rtol=0, atol=0)
    return weights


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference of any weight."""
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def _rank(rank: int, ranks: int, folder: Path, jobs: list[Job]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group{ranks}", rank=rank, world_size=ranks)
    world = World(rank, ranks, torch.device("cpu"))
    uneven = [GLOBAL_BATCH_SIZE // ranks] * ranks
    uneven[0] += GLOBAL_BATCH_SIZE - sum(uneven)
    if ranks > 1:
        uneven[0], uneven[1] = uneven[0] + 2, uneven[1] - 2
    for label, kind, checkpoint, until in jobs:
        path = folder / checkpoint if checkpoint else None
        weights = train(kind, world, uneven, path, until=until)
        if rank == 0:
            torch.save(weights, folder / f"{label}.weights")
    leave()


def leave() -> None:
    """End a rank that is done.

    At once: DeepSpeed holds its process groups past their end, and where Python takes itself down under gloo's threads,
    these may abort the process ("terminate called without an active exception").
    """
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def in_processes(ranks: int, folder: Path, jobs: list[Job]) -> None:
    """Run jobs on a number of ranks; weights go to `label`.weights."""
    (folder / f"group{ranks}").unlink(missing_ok=True)
    run_ranks(_rank, (ranks, folder, jobs), num_ranks=ranks)


def single(kind: str = "ddp") -> dict[str, Tensor]:
    """What one process ends with."""
    return train(kind, World(0, 1, torch.device("cpu")), [GLOBAL_BATCH_SIZE])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    kinds = (*KINDS, ROUNDED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_processes(options.ranks, folder, [(kind, kind, None, NUM_STEPS) for kind in kinds])
        alone = single()
        print(f"largest difference to one process after {NUM_STEPS} steps, float32, {options.ranks} ranks")
        for kind in kinds:
            weights = torch.load(folder / f"{kind}.weights", weights_only=True)
            for part in ("student.", "adapters.", "fusion."):
                own = {k: v for k, v in weights.items() if k.startswith(part)}
                print(f"{kind:12} {part[:-1]:9} {distance(own, {k: alone[k] for k in own}):.1e}")


if __name__ == "__main__":
    main()
