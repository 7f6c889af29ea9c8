"""4Ds as one module: frozen teacher with Fourier adapters, student and gate. The output for a batch is named losses.

    teacher side  L_T = CE(z_T, y) + KL(sg z_S || z_T)                    reaches the adapters only            (Eq. 21)
    student side  L_S = CE(z_S, y) + KL(sg z_T || z_S) + 0.1 L_phase      reaches the student (and the gate)   (Eq. 22)

Each side detaches the other and both come from one forward pass, so one backward of L_T + L_S has the gradients of the
two backward passes of the released code (Eq. 23). One module, one DDP wrapper and one DeepSpeed engine are enough.
README.md in this folder has all equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fourds_dist.data.stream.network_input import InputConversion
from fourds_dist.method.adapter import FourierAdapter
from fourds_dist.method.config import MethodConfig
from fourds_dist.method.extra_loss import ExtraLoss
from fourds_dist.method.feature_distillation import FeatureDistillation
from fourds_dist.method.fusion_gate import FusionGate
from fourds_dist.method.label_mix import LabelMix, unlabelled
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
from fourds_dist.method.output import Output, Predictor
from fourds_dist.method.phase_loss import circular_phase_loss, squared_phase_loss
from fourds_dist.method.task import Task
from fourds_dist.models.feature_hooks import FeatureHooks, inspect_stages
from fourds_dist.models.running_statistics import has_batch_norm, preserved_running_statistics


class FourDs(Task):
    """Teacher, adapters, student and gate.

    Args:
        teacher: classifier trained on the source, frozen by this class.
        student: classifier with the same classes.
        teacher_stages, student_stages: names of submodules, equally many, compared in pairs.
        config: settings of the method.
        image_size: side of the square images of a batch in pixels, to find the stages' shapes.
        inputs: see `Task.inputs`.
        student_untrained: whether the student does not know the classes yet; see untrained_warmup_power and
            normalise_kd of MethodConfig.

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
        student_untrained: bool = False,
        inputs: Mapping[str, InputConversion] | None = None,
    ) -> None:
        super().__init__(inputs)
        if len(teacher_stages) != len(student_stages):
            raise ValueError(
                f"teacher has {len(teacher_stages)} stages {tuple(teacher_stages)}, student {len(student_stages)} "
                f"{tuple(student_stages)}; name equally many under teacher.stages and student.stages"
            )
        side_T, side_S = (
            self.inputs[name].network.image_px if name in self.inputs else image_size
            for name in ("teacher", "student")
        )
        stages_T, num_classes_T = inspect_stages(teacher, teacher_stages, side_T, what="teacher")
        stages_S, num_classes_S = inspect_stages(student, student_stages, side_S, what="student")
        if num_classes_T != num_classes_S:
            raise ValueError(
                f"teacher has {num_classes_T} outputs, student {num_classes_S}: both need the same classes"
            )
        self.config = config
        self.teacher = teacher.requires_grad_(False)
        self.student = student
        self.adapters = nn.ModuleList(
            FourierAdapter(
                stage.channels, reduction=config.adapter_reduction, temperature=config.adapter_temperature
            )
            for stage in (stages_T if config.adapters else ())
        )
        has_phase_loss = config.has_phase_loss
        # 1x1 convolutions, used in training only, map a student of other widths to the teacher's channels.
        self.projections = nn.ModuleList(
            nn.Identity() if s.channels == t.channels else nn.Conv2d(s.channels, t.channels, 1, bias=False)
            for s, t in zip(stages_S, stages_T, strict=True)
            if has_phase_loss
        )
        self.fusion = (
            FusionGate(sum(stage.channels for stage in stages_T), reduction=config.gate_reduction)
            if has_phase_loss and config.phase_loss == "squared"
            else None
        )
        self._first_distilled_stage = {"none": len(stages_T), "last": len(stages_T) - 1, "all": 0}[
            config.feature_loss
        ]
        self.feature_loss = FeatureDistillation(
            stages_S[self._first_distilled_stage :], stages_T[self._first_distilled_stage :]
        )
        self._extra_loss = None if config.extra_loss is None else ExtraLoss(config.extra_loss)
        self._teacher_hooks = FeatureHooks(teacher, stages_T, rewrite=self.adapters)
        self._student_hooks = FeatureHooks(student, stages_S)
        self._has_phase_loss = has_phase_loss
        is_balanced = config.normalise_kd == "always" or (
            config.normalise_kd == "untrained" and student_untrained
        )
        self._kd_weight = config.kd_weight * (
            kd_normalisation(num_classes_S, config.temperature) if is_balanced else 1.0
        )
        self._has_untrained_warmup = student_untrained and config.untrained_warmup_power > 0
        if self._has_untrained_warmup:
            self.student_ratio: Tensor
            self.register_buffer("student_ratio", torch.zeros(()))

    @property
    def needs_teacher(self) -> bool:
        """Whether training uses the teacher at all."""
        return self.config.needs_teacher

    def train(self, mode: bool = True) -> FourDs:
        """Set the training mode. The teacher stays in evaluation mode, except its BatchNorm if that adapts."""
        super().train(mode)
        self.teacher.eval()
        if self.config.teacher_batch_norm == "adapt":
            for module in self.teacher.modules():
                if isinstance(module, _BatchNorm):
                    module.train(mode)
        return self

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        mix: LabelMix | None = None,
        num_source: int = 0,
    ) -> Output:
        """Return the losses of one batch, whose last num_source images are those of the source.

        A label of -1 marks an unlabelled image, which cross-entropy skips. The batch may include labelled source
        images, whose labels enter both cross-entropies; without target labels they preserve the classes. `mix` has the
        second labels of mixed images, which both networks see equally.
        """
        config = self.config
        (z_S, maps_S), teacher_result = self._run_networks(images, num_source)
        losses, logits = {"student_ce": cross_entropy(z_S, labels, mix, self.class_weights)}, {"student": z_S}
        without_label = unlabelled(labels, mix)
        losses |= self._unsupervised("student", z_S, without_label)
        if teacher_result is not None:
            z_T, maps_T = teacher_result
            logits["teacher"] = z_T
            if config.kd_weight > 0:
                weight_B = self._kd_weights(z_T, z_S, labels, mix)
                losses["student_kd"] = kd_loss(z_T, z_S, temperature=config.temperature, weight_B=weight_B)
            if config.adapters:
                losses["teacher_ce"] = cross_entropy(z_T, labels, mix, self.class_weights)
                weight_B = (~without_label).to(z_T.dtype) if config.adapter_kd == "labelled" else None
                losses["teacher_kd"] = kd_loss(z_S, z_T, temperature=config.temperature, weight_B=weight_B)
                losses |= self._unsupervised("teacher", z_T, without_label)
            if config.pseudo_label_weight > 0:
                losses["student_pseudo"] = pseudo_label_loss(
                    z_T, z_S, without_label, threshold=config.pseudo_label_threshold
                )
            if self._has_phase_loss:
                losses["phase"] = self._phase_loss(maps_S, maps_T)
            if config.feature_loss != "none":
                losses["feature"] = self.feature_loss(
                    maps_S[self._first_distilled_stage :], maps_T[self._first_distilled_stage :]
                )
            if self._extra_loss is not None:
                losses["extra"] = self._extra_loss(z_S, z_T, maps_S, maps_T, labels)
        weights: dict[str, float | Tensor] = {
            "student_kd": self._kd_weight,
            "phase": config.phase_weight,
            "feature": config.feature_weight,
            "extra": config.extra_loss_weight,
            "student_pseudo": config.pseudo_label_weight,
        }
        for network in ("student", "teacher"):
            weights[f"{network}_mcc"] = config.confusion_weight
            weights[f"{network}_infomax"] = config.infomax_weight or 0.0
        if self._has_untrained_warmup:
            weights["teacher_kd"] = self.student_ratio
        return Output.of(losses, weights, logits)

    def _unsupervised(self, network: str, z: Tensor, without_label: Tensor) -> dict[str, Tensor]:
        """Return the losses of one network on unlabelled images."""
        config, losses = self.config, dict[str, Tensor]()
        if config.confusion_weight > 0:
            losses[f"{network}_mcc"] = class_confusion(
                z, without_label, temperature=config.confusion_temperature
            )
        if config.infomax_weight:
            losses[f"{network}_infomax"] = information_maximisation(z, without_label)
        return losses

    def _run_networks(
        self, images: Tensor, num_source: int
    ) -> tuple[tuple[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]] | None]:
        """Return the logits and stage maps of the student and, if training uses the teacher, of the teacher."""
        if not self.needs_teacher:
            return self._run_student(images, num_source), None
        if self.student_stream is None:
            student_result = self._run_student(images, num_source)
            return student_result, self._run_teacher(images, num_source)
        current = torch.cuda.current_stream(images.device)
        self.student_stream.wait_stream(current)
        with torch.cuda.stream(self.student_stream):
            student_result = self._run_student(images, num_source)
        teacher_result = self._run_teacher(images, num_source)
        current.wait_stream(self.student_stream)
        return student_result, teacher_result

    def _run_student(self, images: Tensor, num_source: int = 0) -> tuple[Tensor, list[Tensor]]:
        images = self.images_for("student", images)
        return self._run_domains(self.student, self._student_hooks, images, num_source)

    def _run_teacher(self, images: Tensor, num_source: int = 0) -> tuple[Tensor, list[Tensor]]:
        images = self.images_for("teacher", images)
        return self._run_domains(self.teacher, self._teacher_hooks, images, num_source)

    def _run_domains(
        self, network: nn.Module, hooks: FeatureHooks, images: Tensor, num_source: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a network once, or with method.domain_batch_norm once per domain (Eq. 33).

        One pass gives the same for a network without BatchNorm; the adapters have BatchNorm.
        """
        if not (num_source and self.config.domain_batch_norm and has_batch_norm(network, hooks.rewrite)):
            return self._run(network, hooks, images)
        num_target = len(images) - num_source
        z_target, maps_target = self._run(network, hooks, images[:num_target])
        with preserved_running_statistics(network, *hooks.rewrite):
            z_source, maps_source = self._run(network, hooks, images[num_target:])
        maps = [torch.cat(pair) for pair in zip(maps_target, maps_source, strict=True)]
        return torch.cat([z_target, z_source]), maps

    def _run(self, network: nn.Module, hooks: FeatureHooks, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits = network(images)
        return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits), hooks.take()

    def _kd_weights(self, z_T: Tensor, z_S: Tensor, labels: Tensor, mix: LabelMix | None) -> Tensor | None:
        match self.config.kd_sample_weight:
            case "uniform":
                return None
            case "teacher_confidence":
                weight_B = teacher_confidence(z_T, labels, mix)
            case "where_teacher_better_unlabelled":
                weight_B = confidence_where_teacher_better_unlabelled(z_T, z_S, labels, mix)
            case "where_teacher_better":
                weight_B = confidence_where_teacher_better(z_T, z_S, labels, mix)
        return 1 - self.student_ratio * (1 - weight_B) if self._has_untrained_warmup else weight_B

    def _phase_loss(self, maps_S: list[Tensor], maps_T: list[Tensor]) -> Tensor:
        maps_S = [project(h) for project, h in zip(self.projections, maps_S, strict=True)]
        if self.fusion is not None:
            return squared_phase_loss(maps_S, maps_T, self.fusion)
        return circular_phase_loss(maps_S, maps_T)

    def classifiers(self) -> list[nn.Module]:
        """Return the student and, if training uses it, the teacher with its adapters."""
        return [self.student, self.teacher] if self.needs_teacher else [self.student]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by optimiser: "student" (student, projections, gate), "adapters"."""
        student = [
            *self.student.parameters(),
            *self.projections.parameters(),
            *self.feature_loss.parameters(),
        ]
        student += self.fusion.parameters() if self.fusion is not None else []
        groups = {"student": student, "adapters": list(self.adapters.parameters())}
        trainable = {name: [p for p in parameters if p.requires_grad] for name, parameters in groups.items()}
        return {name: parameters for name, parameters in trainable.items() if parameters}

    def predictors(self) -> dict[str, Predictor]:
        """Return the student and the teacher with its adapters, as functions of images to logits."""
        return {
            "student": lambda images: self._run_student(images)[0],
            "teacher_adapted": lambda images: self._run_teacher(images)[0],
        }

    def on_validation(self, accuracies: Mapping[str, float]) -> None:
        """Update the student ratio of an untrained student from the validation accuracies (Eq. 20); it never falls.

        Without labels the teacher's predictions stand for the labels: its accuracy is 1, and the student's is the share
        of images on which both agree.
        """
        if self._has_untrained_warmup:
            ratio = accuracies["student"] / max(accuracies["teacher_adapted"], 1e-9)
            student_ratio = min(1.0, ratio) ** self.config.untrained_warmup_power
            self.student_ratio.fill_(max(student_ratio, self.student_ratio.item()))

    def log_values(self) -> dict[str, Tensor]:
        """Return the weight of the learnt amplitude of each adapter, in [0, 1], and the ratio of an untrained student.

        The weight starts at 1/2.
        """
        values = {f"mix/adapter{i}": a.mix_weights()[0].detach() for i, a in enumerate(self.adapters, 1)}  # pyright: ignore
        return values | ({"student_ratio": self.student_ratio} if self._has_untrained_warmup else {})
