"""Walk over all families of timm: which networks can be teacher and student without named stages.

    python -m fourds_dist.benchmark families             writes fourds_dist/models/FAMILIES.md
    python -m fourds_dist.benchmark families vgg         writes the line of this family, and keeps the others

A family is a module of timm. A small member, that of the table or else the smallest one, is built with random weights
for images of its own size and runs two steps of 4Ds, as teacher of a ResNet10 and as student of a ResNet10. The steps
run on PyTorch's meta device, or on the CPU if a network reads values. The table lists refused families with
the reason and the keys to set.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fourds_dist.io.error_text import error_line
from fourds_dist.method import FourDs, MethodConfig
from fourds_dist.models import backbones
from fourds_dist.models.backbones import BackboneConfig, build_backbone, num_parameters, stage_names
from fourds_dist.models.feature_hooks import NetworkInfo, StageInfo, inspect_stages
from fourds_dist.models.timm_networks import native_size
from fourds_dist.stages.trial_step import parameters_without_gradient

TABLE = Path(backbones.__file__).with_name("FAMILIES.md")
NUM_CLASSES = 10
OTHER = BackboneConfig(arch="resnet10")
"""The other network of a pair."""
_MOST_BUILT = 40
"""Members of a family that are built to find the smallest one, by the length of their names."""


@dataclass(frozen=True)
class Row:
    """What the walk found for a family."""

    family: str
    model: str
    parameters: int
    image_px: int | None
    stages: NetworkInfo | None
    teacher: str | None
    """Reason why the network cannot be a teacher; None: it can."""
    student: str | None


def families() -> dict[str, list[str]]:
    """Return the models of timm by family, the module that defines them."""
    timm = importlib.import_module("timm")
    found: dict[str, list[str]] = {}
    for name in timm.list_models():
        module = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
        found.setdefault(module, []).append(name)
    return dict(sorted(found.items()))


def members(table: str) -> dict[str, str]:
    """Return the member of each family in a table that this module wrote."""
    return dict(re.findall(r"^\| (\w+) \| `timm/([^`]+)` \|", table, flags=re.MULTILINE))


def smallest(models: Sequence[str]) -> str:
    """Return the model of a family with the fewest parameters among those that have a classifier."""
    sizes: dict[str, int] = {}
    for name in sorted(models, key=len)[:_MOST_BUILT]:
        try:
            with torch.device("meta"):
                sizes[name] = num_parameters(build_backbone(BackboneConfig(arch=f"timm/{name}"), NUM_CLASSES))
        except Exception:  # needs values, or has no classifier
            continue
    return min(sizes, key=lambda name: sizes[name]) if sizes else models[0]


def walk(family: str, model: str) -> Row:
    """Return what a model can be, by steps of 4Ds without data."""
    config = BackboneConfig(arch=f"timm/{model}")
    network: nn.Module | None = None
    try:
        network = _build(config)
        side = native_size(network) or 224
        stages = inspect_stages(network, stage_names(config, network), side)
    except Exception as error:  # of the model; the table lists the reason
        reason = error_line(error, 300)
        size = 0 if network is None else num_parameters(network)
        return Row(family, model, size, None, None, reason, reason)
    reasons = [_try(config, network, side, is_teacher=is_teacher) for is_teacher in (True, False)]
    return Row(family, model, num_parameters(network), side, stages, *reasons)


def _build(config: BackboneConfig) -> nn.Module:
    try:
        with torch.device("meta"):
            return build_backbone(config, NUM_CLASSES)
    except Exception:  # the model computes with values while it is built; the CPU decides
        return build_backbone(config, NUM_CLASSES)


def _try(config: BackboneConfig, network: nn.Module, side: int, *, is_teacher: bool) -> str | None:
    reason = None
    for device in ("meta", "cpu"):
        try:
            _step(config, network, side, is_teacher=is_teacher, device=device)
        except Exception as error:  # of the model, or of the meta device; the CPU decides
            reason = error_line(error, 300)
            network = build_backbone(config, NUM_CLASSES)
        else:
            return None
    return reason


def _step(config: BackboneConfig, network: nn.Module, side: int, *, is_teacher: bool, device: str) -> None:
    other = build_backbone(OTHER, NUM_CLASSES)
    pair: list[Any] = [(config, network.to(device)), (OTHER, other.to(device))]
    (teacher, T), (student, S) = pair if is_teacher else pair[::-1]
    task = FourDs(
        T,
        S,
        teacher_stages=stage_names(teacher, T),
        student_stages=stage_names(student, S),
        config=MethodConfig(),
        image_size=side,
    )
    idle = [
        n for n in parameters_without_gradient(task, batch_size=2, side_px=side) if n.startswith("adapters")
    ]
    if idle:
        raise ValueError(f"the adapter {idle[0]} gets no gradient")


def line(row: Row) -> str:
    """Return the line of a family in the table."""
    stages = "" if row.stages is None else "<br>".join(_stage(stage) for stage in row.stages.stages)
    size = f"{row.parameters / 1e6:.1f}" if row.parameters else ""
    roles = ["yes" if reason is None else f"no: {reason}" for reason in (row.teacher, row.student)]
    return f"| {row.family} | `timm/{row.model}` | {size} | {row.image_px or ''} | {stages} | {' | '.join(roles)} |"


def _stage(stage: StageInfo) -> str:
    kind = " tokens" if stage.layout == "tokens" else ""
    return f"`{stage.name}`: {stage.size[0]}{kind}"


def lines_of(table: str) -> dict[str, str]:
    """Return the lines of a table by family."""
    return {found[1]: found[0] for found in re.finditer(r"^\| (\w+) \| `timm/.*$", table, flags=re.MULTILINE)}


def shares(table: str) -> tuple[int, int, int]:
    """Return the numbers of families, of those that can be teachers, and of those that can be students."""
    roles = [text.rstrip(" |").split(" | ")[-2:] for text in lines_of(table).values()]
    return len(roles), sum(role[0] == "yes" for role in roles), sum(role[1] == "yes" for role in roles)


def table(lines: Iterable[str]) -> str:
    """Return the table of families in Markdown."""
    rows = "\n".join(sorted(lines))
    walked, teachers, students = shares(rows)
    share = f"{100 * (teachers + students) / (2 * walked):.1f}"
    timm = importlib.import_module("timm")
    return f"""# Families of timm

`python -m fourds_dist.benchmark families` wrote this table with timm {timm.__version__}. The command builds a small
member of each family (a module of timm) with random weights for images of its own size. The member runs a step of 4Ds
as teacher and another one as student, with the stages that `fourds_dist/models/stage_finder.py` finds.
`teacher.stages` and `student.stages` name other stages, and those of refused families.

{walked} of {len(families())} families: {teachers} as teacher, {students} as student, {share} % of both roles.

| family | member | M params | px | stages: side of the map | teacher | student |
|---|---|---:|---:|---|---|---|
{rows}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `benchmark families`."""
    parser.add_argument("families", nargs="*", help="names of families; none: all")


def run(options: argparse.Namespace) -> None:
    """Walk over the named families, or over all, and write their lines into the table."""
    names, known = options.families, families()
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"timm has no family {', '.join(unknown)}; known: {', '.join(known)}")
    former = TABLE.read_text() if TABLE.exists() else ""
    lines = {family: text for family, text in lines_of(former).items() if names and family in known}
    for family in names or known:
        model = members(former).get(family)
        row = walk(family, model if model in known[family] else smallest(known[family]))
        lines[family] = line(row)
        print(lines[family], flush=True)
        TABLE.write_text(table(lines.values()))
