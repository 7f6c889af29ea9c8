"""`preset: 4ds_released` reproduces the released code's numbers (four training steps, float64, 1e-9 relative).

pytest -k fixture --fixture FILE      another file of the same format
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.ops import pooled_phase, use_backend

STAGES = ("layer1", "layer2", "layer3", "layer4")
RELATIVE = 1e-9
NUMBERS = Path(__file__).parent / "released_step.json"


def fixture_name(name: str) -> str:
    """Our parameter name -> the fixture's: adapters.0.mix -> adapter1.mix."""
    if name.startswith("adapters."):
        _, index, rest = name.split(".", 2)
        return f"adapter{int(index) + 1}.{rest}"
    return name


def fill(module: nn.Module, seed: int) -> None:
    """Every parameter from its own generator, as in the fixture's README."""
    with torch.no_grad():
        for ours, parameter in module.named_parameters():
            name = fixture_name(ours)
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) ^ seed)
            z = torch.randn(parameter.shape, generator=generator).double()
            if parameter.dim() > 1:
                z = z * math.sqrt(2 / parameter[0].numel())
            elif name.endswith("weight"):
                z = 1 + 0.1 * z
            else:
                z = 0.1 * z
            parameter.copy_(z)


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(ours, dtype=torch.float64),
        torch.as_tensor(theirs, dtype=torch.float64),
        rtol=RELATIVE,
        atol=1e-12,
    )


def norm(gradient: Tensor | None) -> float:
    assert gradient is not None
    return gradient.norm().item()


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_authors_fixture(request: pytest.FixtureRequest, backend: str) -> None:
    path: Path = request.config.getoption("--fixture") or NUMBERS
    expected = json.loads(path.read_text())
    seed, batch, size, classes = (expected[k] for k in ("seed", "batch", "size", "classes"))
    steps = expected["steps"]

    generator = torch.Generator().manual_seed(1234 + seed)
    images = torch.randn(len(steps), batch, 3, size, size, generator=generator).double()
    labels = torch.randint(0, classes, (len(steps), batch), generator=generator)
    task = FourDs(
        build_backbone(BackboneConfig(arch="resnet34"), classes),
        build_backbone(BackboneConfig(arch="resnet18"), classes),
        teacher_stages=STAGES,
        student_stages=STAGES,
        config=MethodConfig(preset="4ds_released"),
        image_size=size,
    ).double()
    fill(task, seed)
    task.train()
    groups = task.parameter_groups()
    sgd = torch.optim.SGD(groups["student"], lr=0.01, momentum=0.9, weight_decay=5e-4)
    adamw = torch.optim.AdamW(groups["adapters"], lr=1e-3, eps=1e-4, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, T_max=30)
    seen: dict[str, list[Tensor]] = {}
    spy_on_phases(task, seen)

    with use_backend(backend):
        for x, y, want in zip(images, labels, steps, strict=True):
            output = task(x, y)
            sgd.zero_grad()
            adamw.zero_grad()
            output.loss.backward()

            for name in ("teacher_ce", "teacher_kd", "student_ce", "student_kd", "phase"):
                close(output.losses[name], want[name])
            close(output.logits["teacher"], want["teacher_logits"])
            close(output.logits["student"], want["student_logits"])
            for side in ("teacher", "student"):
                size_7 = seen[side][-1].shape[2:]
                pooled = [pooled_phase(h, (size_7[0], size_7[1])) for h in seen[side]]
                close([p.square().sum().item() for p in pooled], want[f"{side}_pooled_phase"])
            assert task.fusion is not None
            close(task.adapters[0].mix.grad, want["adapter1_mix_grad"])
            close(norm(task.student.conv1.weight.grad), want["student_conv1_grad_norm"])
            close(norm(task.fusion.fc[0].weight.grad), want["fusion_fc0_grad_norm"])
            close(norm(task.adapters[3].fc[0].weight.grad), want["adapter4_fc0_grad_norm"])

            sgd.step()
            adamw.step()
            cosine.step()

    final = {fixture_name(k): v for k, v in task.state_dict().items()}
    learnt = {fixture_name(name) for name, p in task.named_parameters() if p.requires_grad}
    assert learnt <= set(expected["final_sum_and_norm"])
    for name, sum_and_norm in expected["final_sum_and_norm"].items():
        # A sum may cancel to next to nothing: it is held to the scale of its norm.
        total, length = final[name].sum().item(), final[name].norm().item()
        assert total == pytest.approx(sum_and_norm[0], rel=RELATIVE, abs=RELATIVE * max(1.0, length)), name
        assert length == pytest.approx(sum_and_norm[1], rel=RELATIVE, abs=1e-12), name


def spy_on_phases(task: FourDs, seen: dict[str, list[Tensor]]) -> None:
    """Keep the stages that the phase loss compares."""
    compare = task.sides[0]._phase_loss

    def spying(stages_S: list[Tensor], stages_T: list[Tensor]) -> Tensor:
        seen["student"] = [h.detach() for h in stages_S]
        seen["teacher"] = [h.detach() for h in stages_T]
        return compare(stages_S, stages_T)

    task.sides[0]._phase_loss = spying  # pyright: ignore[reportAttributeAccessIssue]
