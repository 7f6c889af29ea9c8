"""The runner of a stage: its batches, its notes, and equal results over any number of workers."""

# ruff: noqa: F401, F811  (an imported fixture)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from fourds_dist.config.stage_names import STAGES
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.runner import fingerprint_of
from fourds_dist.stages.settings import Settings, stage_config
from fourds_dist.stages.stages import run_stage
from fourds_dist.stages.train_streams import train_splits, train_stream
from fourds_dist.training.checkpoint.checkpoint_store import FolderStore
from tests.ranks import run_ranks
from tests.stages.test_stages import data, notes, settings, store


def test_problems_are_logged_in_order(data: Path, tmp_path: Path) -> None:
    given = settings(data, tmp_path, "run.name=troubled", "run.until=source")
    make_store = store(RunFolder(given.run_url), "source")

    def troubled(note: Callable[[str], None]) -> FolderStore:
        for text in ("first", "second", "third"):
            note(text)
        return make_store(note)

    run_stage("source", given, troubled)
    assert notes(tmp_path / "troubled") == ["first", "second", "third"]


def _rank(rank: int, given: Settings, group: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{group}", rank=rank, world_size=2)
    run_stage("source", given, store(RunFolder(given.run_url), "source"))
    dist.destroy_process_group()


def test_ranks_draw_other_numbers_and_the_first_the_same_as_alone(data: Path, tmp_path: Path) -> None:
    states = []
    for name in ("alone", "two"):
        given = settings(data, tmp_path, f"run.name={name}", "run.until=source")
        if name == "two":
            run_ranks(_rank, (given, str(tmp_path / "group")))
        else:
            run_stage("source", given, store(RunFolder(given.run_url), "source"))
        checkpoints = FolderStore(f"{given.run_url}/source")
        states.append(checkpoints.read(checkpoints.newest() or "")["ranks"])
    (alone,), (first, second) = states
    assert torch.equal(alone["random"]["cpu"], first["random"]["cpu"])  # nothing is drawn in training here
    assert not torch.equal(first["random"]["cpu"], second["random"]["cpu"])


def _idle_rank(rank: int, given: Settings, group: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{group}", rank=rank, world_size=2)
    run_stage("source", given, store(RunFolder(given.run_url), "source"))
    dist.destroy_process_group()


def test_a_layer_that_no_loss_reaches_is_named_and_stays_over_any_number_of_workers(
    data: Path, tmp_path: Path
) -> None:
    net = "{arch: 'tests.method.networks:with_idle_layer', stages: [a, b]}"
    idle = [f"teacher={net}", f"student={net}", "run.until=source"]
    weights = []
    for name in ("alone", "two"):
        given = settings(data, tmp_path, *idle, f"run.name={name}")
        if name == "two":
            run_ranks(_idle_rank, (given, str(tmp_path / "idle")))
        else:
            run_stage("source", given, store(RunFolder(given.run_url), "source"))
        (note,) = notes(tmp_path / name)
        names = "networks.{0}.projection.weight, networks.{0}.projection.bias"
        assert note == (
            f"{names.format('teacher')}, {names.format('student')}: no loss reaches these parameters, which stay "
            "unchanged"
        )
        weights.append(load_file(tmp_path / name / "teacher.safetensors"))
    assert torch.equal(weights[0]["projection.weight"], weights[1]["projection.weight"])
    assert not torch.equal(weights[0]["head.weight"], torch.zeros_like(weights[0]["head.weight"]))


def test_each_stage_has_its_section() -> None:
    given = Settings()
    assert [stage_config(name, given) for name in STAGES] == [
        given.source_stage,
        given.adapt_stage,
        given.distill_stage,
    ]


def test_the_domains_of_a_stage_s_batches(data: Path, tmp_path: Path) -> None:
    given = settings(data, tmp_path)
    mixed = settings(data, tmp_path, "data.source_fraction=0.25")
    assert {name: [*train_splits(name, given)] for name in STAGES} == {
        "source": ["source"],
        "adapt": ["target"],
        "distill": ["target"],
    }
    assert [*train_splits("source", mixed)] == ["source"]
    splits = train_splits("distill", mixed)
    assert {name: split.num_samples for name, split in splits.items()} == {"target": 48, "source": 32}


def test_ranks_share_a_batch(data: Path, tmp_path: Path) -> None:
    given = settings(data, tmp_path, "source_stage.global_batch_size=8")
    splits = train_splits("source", given)
    alone = train_stream("source", given, splits, 0, 1)
    assert alone.num_steps_per_epoch == 32 // 8
    keys = next(iter(alone.batches(0))).keys
    parts = [next(iter(train_stream("source", given, splits, rank, 2).batches(0))).keys for rank in range(2)]
    assert [len(part) for part in parts] == [4, 4]
    assert sorted(parts[0] + parts[1]) == sorted(keys)


def test_the_fingerprint_of_frozen_weights_changes_with_each_bit() -> None:
    tensors = [
        nn.Parameter(torch.arange(6.0).reshape(2, 3)),
        nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
    ]
    known = fingerprint_of(tensors)
    assert len(known) == 8
    assert fingerprint_of([nn.Parameter(t.detach().clone()) for t in tensors]) == known
    assert (
        fingerprint_of([nn.Parameter(tensors[0].detach().t().contiguous().t()), tensors[1]]) == known
    )  # strides
    with torch.no_grad():
        tensors[0][1, 2] = torch.nextafter(tensors[0][1, 2], torch.tensor(9.0))
    assert fingerprint_of(tensors) != known
    assert fingerprint_of([]) == "00000000"
