"""4Ds as one module: frozen teacher with Fourier adapters, student and gate; a batch in, named losses out.

    teacher side  L_T = CE(z_T, y) + KL(sg z_S || z_T)                    reaches the adapters only            (Eq. 21)
    student side  L_S = CE(z_S, y) + KL(sg z_T || z_S) + 0.1 L_phase      reaches the student (and the gate)   (Eq. 22)

Each side detaches the other and both come from one forward pass, so one backward of L_T + L_S gives the gradients of
the released code's two (Eq. 23): one module, one wrap, one engine. README.md beside this file has all equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fourds_dist.config import Section
from fourds_dist.effects import WEIGHTS
from fourds_dist.method.adapter import FourierAdapter
from fourds_dist.method.extra_loss import ExtraLoss
from fourds_dist.method.gate import ChannelGate
from fourds_dist.method.hint import FeatureHint
from fourds_dist.method.losses import (
    balance,
    cross_entropy,
    distillation,
    trust_where_better,
    trust_where_right,
    trust_where_surer,
)
from fourds_dist.method.output import Output, Predictor
from fourds_dist.method.phase import circular_phase_loss, squared_phase_loss
from fourds_dist.method.presets import PRESETS
from fourds_dist.method.taps import StageTaps, anatomy


class MethodConfig(Section):
    """How 4Ds distils."""

    preset: Annotated[Literal["mended", "authors", "cross_entropy", "distillation", "hint"], WEIGHTS] = (
        "mended"
    )
    """Fills the keys below that are left out: `mended`, ours; `authors`, the released code with its mistakes; and
    methods to compare with: `cross_entropy` (the student alone), plain `distillation`, `hint` (FitNets)."""

    teacher_batch_norm: Annotated[Literal["adapt", "frozen"], WEIGHTS] = "adapt"
    """`adapt`: the teacher normalises by the target batch and its running statistics drift there (as released).
    `frozen`: the source's statistics stay."""

    phase_loss: Annotated[Literal["circular", "squared", "none"], WEIGHTS] = "circular"
    """`circular`: amplitude-weighted 1 - cos, stages balanced. `squared`: the released squared error of pooled angles
    under the gate."""

    phase_weight: Annotated[float, WEIGHTS] = Field(default=0.1, ge=0)
    """Weight of the phase loss in the student's loss."""

    trust: Annotated[Literal["better", "surer", "right", "all"], WEIGHTS] = "surer"
    """`right`: distil each image in the measure of the teacher's probability for its true class (of its best guess,
    where unlabelled). `better`: so, but only images where that is above the student's own; `surer`: so, but only such
    of the unlabelled images. `all`: every image fully, as released."""

    apprenticeship: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0)
    """For students that do not know the classes yet (random or ImageNet weights, a last layer made for other classes):
    how long they are apprentices, which believe all that their teacher says and teach it nothing. An apprentice's
    standing is (its accuracy / its teacher's) ^ apprenticeship, by the validation split after every epoch; from 0 it
    rises to 1. Every image is trusted by 1 - standing, the rest by `trust`, and the adapters learn from the student in
    the measure of its standing. 0: students are never apprentices."""

    distillation_weight: Annotated[float, WEIGHTS] = Field(default=1.0, ge=0)
    """Weight of distillation in the student's loss; 0: the student learns from labels (and phases or hints) alone."""

    balance: Annotated[Literal["never", "novices", "always"], WEIGHTS] = "never"
    """For which students distillation is made half as loud as labels are, whatever the number of classes: its weight is
    distillation_weight times `losses.balance`. `novices`: those that do not know the classes yet."""

    temperature: Annotated[float, WEIGHTS] = Field(default=4.0, gt=0)
    """Temperature of both distillation losses."""

    hint: Annotated[Literal["none", "last", "all"], WEIGHTS] = "none"
    """Feature hints at no stage, the last or all: the student's maps resemble the teacher's."""

    hint_weight: Annotated[float, WEIGHTS] = Field(default=1.0, gt=0)
    """Weight of the hints, which are errors relative to the teacher's maps."""

    extra_loss: Annotated[str | None, WEIGHTS] = None
    """A loss of your own in the student's loss: `package.module:function`, which takes student_logits, teacher_logits,
    student_maps, teacher_maps (one map a stage) and labels by name, and returns one number. What comes from the teacher
    is detached. null: none."""

    extra_loss_weight: Annotated[float, WEIGHTS] = Field(default=1.0, gt=0)
    """Weight of extra_loss."""

    adapters: Annotated[bool, WEIGHTS] = True
    """Fourier adapters in the teacher; without them this is plain distillation."""

    adapter_reduction: Annotated[int, WEIGHTS] = Field(default=4, ge=1)
    """Channels / bottleneck width inside an adapter."""

    adapter_temperature: Annotated[float, WEIGHTS] = Field(default=0.1, gt=0)
    """Temperature of the softmax that mixes learnt and own amplitude."""

    gate_reduction: Annotated[int, WEIGHTS] = Field(default=16, ge=1)
    """Channels / hidden width of the fusion gate (phase_loss: squared)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        preset = given.get("preset", "mended")
        return {**(PRESETS.get(preset, {}) if isinstance(preset, str) else {}), **given}


class FourDs(nn.Module):
    """Teacher, adapters, student and gate.

    Args:
        teacher: trained on the source; frozen here.
        student: any classifier with the same classes.
        teacher_stages, student_stages: as many names of submodules in each, compared in pairs.
        config: the method's settings.
        image_size: side of the square training images in pixels, to find the stages' shapes.
        novice: the student does not know the classes yet; see MethodConfig.apprenticeship and balance.

    >>> from torchvision.models import resnet18
    >>> stages = ["layer1", "layer2", "layer3", "layer4"]
    >>> task = FourDs(
    ...     resnet18(num_classes=5),
    ...     resnet18(num_classes=5),
    ...     teacher_stages=stages,
    ...     student_stages=stages,
    ...     config=MethodConfig(),
    ...     image_size=64,
    ... )
    >>> output = task(torch.randn(2, 3, 64, 64), torch.tensor([3, -1]))  # -1: an image without a label
    >>> output.loss.backward()
    >>> sorted(output.losses)
    ['phase', 'student_ce', 'student_kd', 'teacher_ce', 'teacher_kd']
    >>> {name: len(parameters) for name, parameters in task.parameter_groups().items()}
    {'student': 62, 'adapters': 28}
    >>> task.predictors()["student"](torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 5])

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
        novice: bool = False,
    ) -> None:
        super().__init__()
        if len(teacher_stages) != len(student_stages):
            raise ValueError(
                f"teacher has {len(teacher_stages)} stages {tuple(teacher_stages)}, student {len(student_stages)} "
                f"{tuple(student_stages)}; name as many of each under teacher.stages and student.stages"
            )
        stages_T, num_classes_T = anatomy(teacher, teacher_stages, image_size, what="teacher")
        stages_S, num_classes_S = anatomy(student, student_stages, image_size, what="student")
        if num_classes_T != num_classes_S:
            raise ValueError(f"the teacher tells {num_classes_T} classes apart, the student {num_classes_S}")
        self.config = config
        self.teacher = teacher.requires_grad_(False)
        self.student = student
        self.adapters = nn.ModuleList(
            FourierAdapter(
                stage.channels, reduction=config.adapter_reduction, temperature=config.adapter_temperature
            )
            for stage in (stages_T if config.adapters else ())
        )
        compares_phases = config.phase_loss != "none" and config.phase_weight > 0
        # A student of other widths meets the teacher's channels through 1x1 convolutions, which leave with training.
        self.projections = nn.ModuleList(
            nn.Identity() if s.channels == t.channels else nn.Conv2d(s.channels, t.channels, 1, bias=False)
            for s, t in zip(stages_S, stages_T, strict=True)
            if compares_phases
        )
        self.fusion = (
            ChannelGate(sum(stage.channels for stage in stages_T), reduction=config.gate_reduction)
            if compares_phases and config.phase_loss == "squared"
            else None
        )
        self._first_hint = {"none": len(stages_T), "last": len(stages_T) - 1, "all": 0}[config.hint]
        self.hint = FeatureHint(stages_S[self._first_hint :], stages_T[self._first_hint :])
        self._extra_loss = None if config.extra_loss is None else ExtraLoss(config.extra_loss)
        self._teacher_taps = StageTaps(teacher, stages_T, rewrite=self.adapters)
        self._student_taps = StageTaps(student, stages_S)
        self._compares_phases = compares_phases
        is_balanced = config.balance == "always" or (config.balance == "novices" and novice)
        self._distillation_weight = config.distillation_weight * (
            balance(num_classes_S, config.temperature) if is_balanced else 1.0
        )
        self.student_stream: torch.cuda.Stream | None = None
        """A CUDA stream on which the student runs beside the teacher; only for steps recorded as a CUDA graph, where
        no memory is freed for another stream."""
        self._is_apprentice = novice and config.apprenticeship > 0
        if self._is_apprentice:
            self.standing: Tensor
            self.register_buffer("standing", torch.zeros(()))

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher takes part in training at all."""
        config = self.config
        distils = config.adapters or config.distillation_weight > 0 or config.hint != "none"
        return distils or self._compares_phases or self._extra_loss is not None

    def train(self, mode: bool = True) -> FourDs:
        """Switch to training. The frozen teacher keeps its dropout off; its BatchNorm trains where it is to adapt."""
        super().train(mode)
        self.teacher.eval()
        if self.config.teacher_batch_norm == "adapt":
            for module in self.teacher.modules():
                if isinstance(module, _BatchNorm):
                    module.train(mode)
        return self

    def forward(self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"]) -> Output:
        """Losses of one batch.

        A label of -1 marks an unlabelled image, which cross-entropy skips. Source images may be among the target's:
        their labels serve the cross-entropy of both sides, which without target labels keeps the classes in place.
        """
        config = self.config
        (z_S, maps_S), of_teacher = self._run_networks(images)
        losses, logits = {"student_ce": cross_entropy(z_S, labels)}, {"student": z_S}
        if of_teacher is not None:
            z_T, maps_T = of_teacher
            logits["teacher"] = z_T
            if config.distillation_weight > 0:
                trust_B = self._trust(z_T, z_S, labels)
                losses["student_kd"] = distillation(z_T, z_S, temperature=config.temperature, trust_B=trust_B)
            if config.adapters:
                losses["teacher_ce"] = cross_entropy(z_T, labels)
                losses["teacher_kd"] = distillation(z_S, z_T, temperature=config.temperature)
            if self._compares_phases:
                losses["phase"] = self._phase_loss(maps_S, maps_T)
            if config.hint != "none":
                losses["hint"] = self.hint(maps_S[self._first_hint :], maps_T[self._first_hint :])
            if self._extra_loss is not None:
                losses["extra"] = self._extra_loss(z_S, z_T, maps_S, maps_T, labels)
        weights: dict[str, float | Tensor] = {
            "student_kd": self._distillation_weight,
            "phase": config.phase_weight,
            "hint": config.hint_weight,
            "extra": config.extra_loss_weight,
        }
        if self._is_apprentice:
            weights["teacher_kd"] = self.standing
        return Output.of(losses, weights, logits)

    def _run_networks(
        self, images: Tensor
    ) -> tuple[tuple[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]] | None]:
        """Logits and stage maps of the student and, where the teacher takes part, of the teacher."""
        if not self.needs_teacher:
            return self._run(self.student, self._student_taps, images), None
        if self.student_stream is None:
            of_student = self._run(self.student, self._student_taps, images)
            return of_student, self._run(self.teacher, self._teacher_taps, images)
        current = torch.cuda.current_stream(images.device)
        self.student_stream.wait_stream(current)
        with torch.cuda.stream(self.student_stream):
            of_student = self._run(self.student, self._student_taps, images)
        of_teacher = self._run(self.teacher, self._teacher_taps, images)
        current.wait_stream(self.student_stream)
        return of_student, of_teacher

    def _run(self, network: nn.Module, taps: StageTaps, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits = network(images)
        return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits), taps.take()

    def _trust(self, z_T: Tensor, z_S: Tensor, labels: Tensor) -> Tensor | None:
        match self.config.trust:
            case "all":
                return None
            case "right":
                trust_B = trust_where_right(z_T, labels)
            case "surer":
                trust_B = trust_where_surer(z_T, z_S, labels)
            case "better":
                trust_B = trust_where_better(z_T, z_S, labels)
        return 1 - self.standing * (1 - trust_B) if self._is_apprentice else trust_B

    def _phase_loss(self, maps_S: list[Tensor], maps_T: list[Tensor]) -> Tensor:
        maps_S = [project(h) for project, h in zip(self.projections, maps_S, strict=True)]
        if self.fusion is not None:
            return squared_phase_loss(maps_S, maps_T, self.fusion)
        return circular_phase_loss(maps_S, maps_T)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What learns, by optimiser: student, projections, hints and gate ("student"), adapters ("adapters")."""
        student = [*self.student.parameters(), *self.projections.parameters(), *self.hint.parameters()]
        student += self.fusion.parameters() if self.fusion is not None else []
        groups = {"student": student, "adapters": list(self.adapters.parameters())}
        learning = {name: [p for p in parameters if p.requires_grad] for name, parameters in groups.items()}
        return {name: parameters for name, parameters in learning.items() if parameters}

    def predictors(self) -> dict[str, Predictor]:
        """name -> images to logits, for evaluation: the student and the teacher as adapted so far."""
        return {
            "student": lambda images: self._run(self.student, self._student_taps, images)[0],
            "teacher_adapted": lambda images: self._run(self.teacher, self._teacher_taps, images)[0],
        }

    def heed(self, accuracies: Mapping[str, float]) -> None:
        """Measure an apprentice's standing by validation accuracies of the predictors; it never falls."""
        if self._is_apprentice:
            ratio = accuracies["student"] / max(accuracies["teacher_adapted"], 1e-9)
            reached = min(1.0, ratio) ** self.config.apprenticeship
            self.standing.fill_(max(reached, self.standing.item()))

    def log_values(self) -> dict[str, Tensor]:
        """Share of learnt amplitude in each adapter, in [0, 1], 1/2 at the start; an apprentice's standing."""
        values = {f"mix/adapter{i}": a.mix_weights()[0].detach() for i, a in enumerate(self.adapters, 1)}  # pyright: ignore
        return values | ({"apprentice/standing": self.standing} if self._is_apprentice else {})
