"""One student of 4Ds: its network, the modules that its losses train, and its losses on a batch (L_S, Eq. 22).

A run may have several students. Each has its own losses, which reach its parameters alone, so a student learns beside
others as it learns alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fourds_dist.method.config import MethodConfig
from fourds_dist.method.extra_loss import ExtraLoss
from fourds_dist.method.feature_distillation import FeatureDistillation
from fourds_dist.method.fusion_gate import FusionGate
from fourds_dist.method.label_mix import LabelMix
from fourds_dist.method.losses import (
    class_confusion,
    confidence_where_teacher_better,
    confidence_where_teacher_better_unlabelled,
    cross_entropy,
    information_maximisation,
    kd_loss,
    kd_normalisation,
    pseudo_label_loss,
    teacher_confidence,
)
from fourds_dist.method.phase_loss import circular_phase_loss, squared_phase_loss
from fourds_dist.models.feature_hooks import FeatureHooks, NetworkInfo, inspect_stages

Result = tuple[Tensor, list[Tensor]]
"""Logits (B, K) and stage maps (B, C, H, W) of a network."""


@dataclass(frozen=True)
class StudentNetwork:
    """A student as `FourDs` takes it, where there are several.

    Args:
        network: classifier with the teacher's classes.
        stages: names of submodules, as many as those of the teacher.
        is_untrained: see `student_untrained` of `FourDs`.
    """

    network: nn.Module
    stages: Sequence[str]
    is_untrained: bool = False


class StudentSide:
    """A student and the losses that reach it. `FourDs` registers `modules()`, so this class is no module.

    Args:
        key: key of the student in metrics, "student" or "student/NAME".
        teacher: stages and classes of the teacher.
        image_size: side of the student's square images in pixels.

    Raises:
        ValueError: another number of stages or classes than the teacher's.
    """

    def __init__(
        self,
        student: StudentNetwork,
        teacher: NetworkInfo,
        *,
        key: str,
        config: MethodConfig,
        image_size: int,
    ) -> None:
        self.key, self.network, self._config = key, student.network, config
        _, _, self.name = key.partition("/")
        label = f"student {self.name}" if self.name else "student"
        stages_T, num_classes_T = teacher
        if len(stages_T) != len(student.stages):
            names = tuple(stage.name for stage in stages_T)
            where = f"the stages of students ({self.name})" if self.name else "student.stages"
            raise ValueError(
                f"teacher has {len(names)} stages {names}, {label} {len(student.stages)} {tuple(student.stages)}; name "
                f"equally many under teacher.stages and {where}"
            )
        stages_S, num_classes_S = inspect_stages(student.network, student.stages, image_size, what=label)
        if num_classes_T != num_classes_S:
            raise ValueError(
                f"teacher has {num_classes_T} outputs, {label} {num_classes_S}: both need the same classes"
            )
        # 1x1 convolutions, used in training only, map a student of other widths to the teacher's channels.
        self.projections = nn.ModuleList(
            nn.Identity() if s.channels == t.channels else nn.Conv2d(s.channels, t.channels, 1, bias=False)
            for s, t in zip(stages_S, stages_T, strict=True)
            if config.has_phase_loss
        )
        self.fusion = (
            FusionGate(sum(stage.channels for stage in stages_T), reduction=config.gate_reduction)
            if config.has_phase_loss and config.phase_loss == "squared"
            else None
        )
        self._first_distilled_stage = {"none": len(stages_T), "last": len(stages_T) - 1, "all": 0}[
            config.feature_loss
        ]
        self.feature_loss = FeatureDistillation(
            stages_S[self._first_distilled_stage :], stages_T[self._first_distilled_stage :]
        )
        self._extra_loss = None if config.extra_loss is None else ExtraLoss(config.extra_loss)
        self.hooks = FeatureHooks(student.network, stages_S)
        is_balanced = config.normalise_kd == "always" or (
            config.normalise_kd == "untrained" and student.is_untrained
        )
        self.kd_weight = config.kd_weight * (
            kd_normalisation(num_classes_S, config.temperature) if is_balanced else 1.0
        )
        self.has_untrained_warmup = student.is_untrained and config.untrained_warmup_power > 0

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules to register, by name; the trainable ones learn by SGD."""
        found = {"student": self.network, "projections": self.projections, "feature_loss": self.feature_loss}
        return found if self.fusion is None else {**found, "fusion": self.fusion}

    def logit_losses(
        self,
        z_S: Tensor,
        z_T: Tensor | None,
        labels: Tensor,
        mix: LabelMix | None,
        *,
        without_label: Tensor,
        class_weights: Tensor | None,
        ratio: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return the losses of labels, of unlabelled images and of distillation from logits.

        Args:
            z_T: logits of the teacher; None: training uses no teacher.
            without_label: (B,) images with an unlabelled part.
            ratio: ratio r of an untrained student; None: there is no warm-up.
        """
        losses = {"student_ce": cross_entropy(z_S, labels, mix, class_weights)}
        losses |= unsupervised(self._config, "student", z_S, without_label)
        if z_T is not None and self._config.kd_weight > 0:
            weight_B = self._kd_weights(z_T, z_S, labels, mix, ratio)
            losses["student_kd"] = kd_loss(z_T, z_S, temperature=self._config.temperature, weight_B=weight_B)
        return losses

    def map_losses(
        self, student: Result, teacher: Result, labels: Tensor, *, without_label: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of pseudo-labels, of phases, of features, and the user-defined loss."""
        config, losses = self._config, dict[str, Tensor]()
        (z_S, maps_S), (z_T, maps_T) = student, teacher
        if config.pseudo_label_weight > 0:
            losses["student_pseudo"] = pseudo_label_loss(
                z_T, z_S, without_label, threshold=config.pseudo_label_threshold
            )
        if config.has_phase_loss:
            losses["phase"] = self._phase_loss(maps_S, maps_T)
        if config.feature_loss != "none":
            losses["feature"] = self.feature_loss(
                maps_S[self._first_distilled_stage :], maps_T[self._first_distilled_stage :]
            )
        if self._extra_loss is not None:
            losses["extra"] = self._extra_loss(z_S, z_T, maps_S, maps_T, labels)
        return losses

    def weights(self) -> dict[str, float]:
        """Return the weights of this student's losses; the default is 1."""
        config = self._config
        return {
            "student_kd": self.kd_weight,
            "phase": config.phase_weight,
            "feature": config.feature_weight,
            "extra": config.extra_loss_weight,
            "student_pseudo": config.pseudo_label_weight,
            **unsupervised_weights(config, "student"),
        }

    def _kd_weights(
        self, z_T: Tensor, z_S: Tensor, labels: Tensor, mix: LabelMix | None, ratio: Tensor | None
    ) -> Tensor | None:
        match self._config.kd_sample_weight:
            case "uniform":
                return None
            case "teacher_confidence":
                weight_B = teacher_confidence(z_T, labels, mix)
            case "where_teacher_better_unlabelled":
                weight_B = confidence_where_teacher_better_unlabelled(z_T, z_S, labels, mix)
            case "where_teacher_better":
                weight_B = confidence_where_teacher_better(z_T, z_S, labels, mix)
        return weight_B if ratio is None else 1 - ratio * (1 - weight_B)

    def _phase_loss(self, maps_S: list[Tensor], maps_T: list[Tensor]) -> Tensor:
        maps_S = [project(h) for project, h in zip(self.projections, maps_S, strict=True)]
        if self.fusion is not None:
            return squared_phase_loss(maps_S, maps_T, self.fusion)
        return circular_phase_loss(maps_S, maps_T)


def unsupervised(config: MethodConfig, network: str, z: Tensor, without_label: Tensor) -> dict[str, Tensor]:
    """Return the losses of one network on unlabelled images."""
    losses: dict[str, Tensor] = {}
    if config.confusion_weight > 0:
        losses[f"{network}_mcc"] = class_confusion(z, without_label, temperature=config.confusion_temperature)
    if config.infomax_weight:
        losses[f"{network}_infomax"] = information_maximisation(z, without_label)
    return losses


def unsupervised_weights(config: MethodConfig, network: str) -> dict[str, float]:
    """Return the weights of the losses of `unsupervised`."""
    return {f"{network}_mcc": config.confusion_weight, f"{network}_infomax": config.infomax_weight or 0.0}
