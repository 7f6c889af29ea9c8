"""4Ds as one module: frozen teacher with Fourier adapters, student and gate; a batch in, named losses out.

    teacher side  L_T = CE(z_T, y) + KL(sg z_S || z_T)                    reaches the adapters only
    student side  L_S = CE(z_S, y) + KL(sg z_T || z_S) + 0.1 L_phase      reaches the student (and the gate)

Each side detaches the other and both come from one forward pass, so one backward of L_T + L_S gives the gradients of
the released code's two (METHOD part 4): one module, one wrap, one engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from fourds_dist.config import Section
from fourds_dist.method.adapter import FourierAdapter
from fourds_dist.method.backbones import StageTaps, stage_shapes
from fourds_dist.method.gate import ChannelGate
from fourds_dist.method.losses import cross_entropy, distillation, trust_where_right
from fourds_dist.method.phase import circular_phase_loss, squared_phase_loss
from fourds_dist.method.presets import PRESETS

Predictor = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) to logits (B, K)."""


class MethodConfig(Section):
    """How 4Ds distils."""

    preset: Literal["mended", "authors"] = "mended"
    """Fills the keys below that are left out: `mended`, ours, or `authors`, the released code with its mistakes."""

    teacher_batch_norm: Literal["adapt", "frozen"] = "adapt"
    """`adapt`: the teacher normalises by the target batch and its running statistics drift there (as released).
    `frozen`: the source's statistics stay."""

    phase_loss: Literal["circular", "squared", "none"] = "circular"
    """`circular`: amplitude-weighted 1 - cos, stages balanced. `squared`: the released squared error of pooled angles
    under the gate."""

    phase_weight: float = Field(default=0.1, ge=0)
    """Weight of the phase loss in the student's loss."""

    trust: Literal["right", "all"] = "right"
    """`right`: distil each image in the measure of the teacher's probability for its true class. `all`: every image
    fully, as released."""

    temperature: float = Field(default=4.0, gt=0)
    """Temperature of both distillation losses."""

    adapters: bool = True
    """Fourier adapters in the teacher; without them this is plain distillation."""

    adapter_reduction: int = Field(default=4, ge=1)
    """Channels / bottleneck width inside an adapter."""

    adapter_temperature: float = Field(default=0.1, gt=0)
    """Temperature of the softmax that mixes learnt and own amplitude."""

    gate_reduction: int = Field(default=16, ge=1)
    """Channels / hidden width of the fusion gate (phase_loss: squared)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {**PRESETS.get(given.get("preset", "mended"), {}), **given}


class Output(NamedTuple):
    """What a forward pass gives: `loss` to call backward on, and detached named losses and logits to look at."""

    loss: Float[Tensor, ""]
    losses: dict[str, Tensor]
    logits: dict[str, Tensor]

    @classmethod
    def of(cls, losses: dict[str, Tensor], weights: Mapping[str, float], logits: dict[str, Tensor]) -> Self:
        """Join named losses by weight (1 where none is given)."""
        total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        return cls(
            total,
            {name: value.detach() for name, value in losses.items()},
            {name: value.detach() for name, value in logits.items()},
        )


class FourDs(nn.Module):
    """Teacher, adapters, student and gate.

    Args:
        teacher: trained on the source; frozen here.
        student: any classifier with the same classes.
        teacher_stages, student_stages: as many names of submodules in each, compared in pairs.
        config: the method's settings.
        image_size: side of the square training images in pixels, to find the stages' shapes.

    Raises:
        ValueError: unequal numbers of stages or classes.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        *,
        teacher_stages: Sequence[str],
        student_stages: Sequence[str],
        config: MethodConfig,
        image_size: int,
    ) -> None:
        super().__init__()
        if len(teacher_stages) != len(student_stages):
            raise ValueError(
                f"teacher has {len(teacher_stages)} stages {tuple(teacher_stages)}, student {len(student_stages)} "
                f"{tuple(student_stages)}; name as many of each under teacher.stages and student.stages"
            )
        self.config = config
        self.teacher = teacher.requires_grad_(False)
        self.student = student
        shapes_T = stage_shapes(teacher, teacher_stages, image_size)
        shapes_S = stage_shapes(student, student_stages, image_size)
        self.adapters = nn.ModuleList(
            FourierAdapter(c, reduction=config.adapter_reduction, temperature=config.adapter_temperature)
            for c, _, _ in (shapes_T if config.adapters else ())
        )
        compares_phases = config.phase_loss != "none" and config.phase_weight > 0
        # A student of other widths meets the teacher's channels through 1x1 convolutions, which leave with training.
        self.projections = nn.ModuleList(
            nn.Identity() if s[0] == t[0] else nn.Conv2d(s[0], t[0], 1, bias=False)
            for s, t in zip(shapes_S, shapes_T, strict=True)
            if compares_phases
        )
        self.fusion = (
            ChannelGate(sum(c for c, _, _ in shapes_T), reduction=config.gate_reduction)
            if compares_phases and config.phase_loss == "squared"
            else None
        )
        self._teacher_taps = StageTaps(teacher, teacher_stages, rewrite=self.adapters)
        self._student_taps = StageTaps(student, student_stages)
        self._compares_phases = compares_phases

    def train(self, mode: bool = True) -> Self:
        """Switch to training; the teacher follows only where its BatchNorm is to adapt."""
        super().train(mode)
        if self.config.teacher_batch_norm == "frozen":
            self.teacher.eval()
        return self

    def forward(self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"]) -> Output:
        """Losses of one batch; a label of -1 marks an unlabelled image, which cross-entropy skips."""
        z_T, stages_T = self._run(self.teacher, self._teacher_taps, images)
        z_S, stages_S = self._run(self.student, self._student_taps, images)
        temperature = self.config.temperature
        trust_B = trust_where_right(z_T, labels) if self.config.trust == "right" else None
        losses = {
            "student_ce": cross_entropy(z_S, labels),
            "student_kd": distillation(z_T, z_S, temperature=temperature, trust_B=trust_B),
        }
        if self.config.adapters:
            losses["teacher_ce"] = cross_entropy(z_T, labels)
            losses["teacher_kd"] = distillation(z_S, z_T, temperature=temperature)
        if self._compares_phases:
            losses["phase"] = self._phase_loss(stages_S, stages_T)
        weights = {"phase": self.config.phase_weight}
        return Output.of(losses, weights, logits={"teacher": z_T, "student": z_S})

    def _run(self, network: nn.Module, taps: StageTaps, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits = network(images)
        features, taps.features = taps.features, []
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits, features

    def _phase_loss(self, stages_S: list[Tensor], stages_T: list[Tensor]) -> Tensor:
        stages_S = [project(h) for project, h in zip(self.projections, stages_S, strict=True)]
        if self.fusion is not None:
            return squared_phase_loss(stages_S, stages_T, self.fusion)
        # Phases compare frequency by frequency: bring a pair of unequal resolution to the coarser one.
        pairs = [_same_size(s, t) for s, t in zip(stages_S, stages_T, strict=True)]
        return circular_phase_loss([s for s, _ in pairs], [t for _, t in pairs])

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What learns, by optimiser: student, projections and gate ("student"), adapters ("adapters")."""
        student = [*self.student.parameters(), *self.projections.parameters()]
        student += self.fusion.parameters() if self.fusion is not None else []
        groups = {"student": student, "adapters": list(self.adapters.parameters())}
        return {name: parameters for name, parameters in groups.items() if parameters}

    def predictors(self) -> dict[str, Predictor]:
        """name -> images to logits, for evaluation: the student and the teacher as adapted so far."""
        return {
            "student": lambda images: self._run(self.student, self._student_taps, images)[0],
            "teacher_adapted": lambda images: self._run(self.teacher, self._teacher_taps, images)[0],
        }

    def log_values(self) -> dict[str, Tensor]:
        """Share of learnt amplitude in each adapter, in [0, 1]; 1/2 at the start."""
        return {f"mix/adapter{i}": a.mix_weights()[0].detach() for i, a in enumerate(self.adapters, 1)}  # pyright: ignore


def _same_size(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    size = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))
    pool = F.adaptive_avg_pool2d
    return (s if s.shape[2:] == size else pool(s, size)), (t if t.shape[2:] == size else pool(t, size))
