"""4Ds as one module: frozen teacher with Fourier adapters, students and gates. The output for a batch is named losses.

    teacher side  L_T = CE(z_T, y) + KL(sg z_S || z_T)                    reaches the adapters only            (Eq. 21)
    student side  L_S = CE(z_S, y) + KL(sg z_T || z_S) + 0.1 L_phase      reaches the student (and the gate)   (Eq. 22)

Each side detaches the other and both come from one forward pass, so one backward of L_T + L_S has the gradients of the
two backward passes of the released code (Eq. 23). One module, one DDP wrapper and one DeepSpeed engine are enough.

Several students share the forward pass of the teacher: the loss is L_T plus the sum of their L_S, and the KL term of
L_T is the mean over the students. README.md in this folder has all equations, `student_side` the losses L_S.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fourds_dist.data.stream.network_input import InputConversion
from fourds_dist.method.adapter import FourierAdapter
from fourds_dist.method.config import MethodConfig
from fourds_dist.method.feature_distillation import FeatureDistillation
from fourds_dist.method.fusion_gate import FusionGate
from fourds_dist.method.label_mix import LabelMix, unlabelled
from fourds_dist.method.losses import cross_entropy, kd_loss
from fourds_dist.method.output import Output, Predictor
from fourds_dist.method.student_side import (
    Result,
    StudentNetwork,
    StudentSide,
    unsupervised,
    unsupervised_weights,
)
from fourds_dist.method.task import Task
from fourds_dist.models.feature_hooks import FeatureHooks, inspect_stages
from fourds_dist.models.running_statistics import has_batch_norm, preserved_running_statistics
from fourds_dist.runs.layout import Network, with_student


class FourDs(Task):
    """Teacher, adapters, and one or several students with their gates.

    Args:
        teacher: classifier trained on the source, frozen by this class.
        student: classifier with the same classes; or several by their keys in metrics ("student/resnet10"), without
            student_stages and student_untrained.
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

    student: nn.Module
    projections: nn.ModuleList
    feature_loss: FeatureDistillation
    fusion: FusionGate | None
    students: nn.ModuleList
    """Of several students, instead of the attributes above: a ModuleDict of these parts for each."""

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module | Mapping[str, StudentNetwork],
        *,
        teacher_stages: Sequence[str],
        student_stages: Sequence[str] = (),
        config: MethodConfig,
        image_size: int,
        student_untrained: bool = False,
        inputs: Mapping[str, InputConversion] | None = None,
    ) -> None:
        super().__init__(inputs)
        if isinstance(student, nn.Module):
            student = {Network.STUDENT.value: StudentNetwork(student, student_stages, student_untrained)}
        sides_px = {
            key: self.inputs[key].network.image_px if key in self.inputs else image_size
            for key in (Network.TEACHER.value, *student)
        }
        info_T = inspect_stages(teacher, teacher_stages, sides_px[Network.TEACHER.value], what="teacher")
        self.config = config
        adapters = nn.ModuleList(
            FourierAdapter(
                stage.channels, reduction=config.adapter_reduction, temperature=config.adapter_temperature
            )
            for stage in (info_T.stages if config.adapters else ())
        )
        self.sides = tuple(
            StudentSide(network, info_T, key=key, config=config, image_size=sides_px[key])
            for key, network in student.items()
        )
        self.teacher = teacher.requires_grad_(False)
        if len(self.sides) == 1:
            self.fusion = None
            for name, module in self.sides[0].modules().items():
                setattr(self, name, module)
        else:
            self.students = nn.ModuleList(nn.ModuleDict(side.modules()) for side in self.sides)
        self.adapters = adapters
        self._teacher_hooks = FeatureHooks(teacher, info_T.stages, rewrite=adapters)
        self._ratios: dict[str, str] = {}  # key of an untrained student -> name of the buffer with its ratio
        for number, side in enumerate(self.sides):
            if side.has_untrained_warmup:
                name = "student_ratio" if len(self.sides) == 1 else f"student_ratio_{number}"
                self.register_buffer(name, torch.zeros(()))
                self._ratios[side.key] = name

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
        student_results, teacher_result = self._run_networks(images, num_source)
        without_label = unlabelled(labels, mix)
        losses: dict[str, Tensor] = {}
        weights: dict[str, float | Tensor] = {}
        logits: dict[str, Tensor] = {}
        for side, (z_S, _) in zip(self.sides, student_results, strict=True):
            found = side.logit_losses(
                z_S,
                None if teacher_result is None else teacher_result[0],
                labels,
                mix,
                without_label=without_label,
                class_weights=self.class_weights,
                ratio=self._ratio(side),
            )
            losses |= _named(found, side)
            weights |= _named(side.weights(), side)
            logits[side.key] = z_S
        if teacher_result is not None:
            z_T = logits["teacher"] = teacher_result[0]
            if self.config.adapters:
                students = [z_S for z_S, _ in student_results]
                losses |= self._teacher_losses(z_T, students, labels, mix, without_label)
                weights |= self._teacher_weights()
            for side, result in zip(self.sides, student_results, strict=True):
                found = side.map_losses(result, teacher_result, labels, without_label=without_label)
                losses |= _named(found, side)
        return Output.of(losses, weights, logits)

    def _teacher_losses(
        self,
        z_T: Tensor,
        students: Sequence[Tensor],
        labels: Tensor,
        mix: LabelMix | None,
        without_label: Tensor,
    ) -> dict[str, Tensor]:
        """Return the losses of the adapters (L_T, Eq. 21): labels, and distillation from each student."""
        losses = {"teacher_ce": cross_entropy(z_T, labels, mix, self.class_weights)}
        weight_B = (~without_label).to(z_T.dtype) if self.config.adapter_kd == "labelled" else None
        for side, z_S in zip(self.sides, students, strict=True):
            kd = kd_loss(z_S, z_T, temperature=self.config.temperature, weight_B=weight_B)
            losses |= _named({"teacher_kd": kd}, side)
        return losses | unsupervised(self.config, "teacher", z_T, without_label)

    def _teacher_weights(self) -> dict[str, float | Tensor]:
        """Return the weights of the adapters' losses: distillation is the mean over the students."""
        weights: dict[str, float | Tensor] = {**unsupervised_weights(self.config, "teacher")}
        for side in self.sides:
            ratio, share = self._ratio(side), 1 / len(self.sides)
            weights |= _named({"teacher_kd": share if ratio is None else share * ratio}, side)
        return weights

    def _ratio(self, side: StudentSide) -> Tensor | None:
        """Return the ratio r of an untrained student; None without a warm-up."""
        name = self._ratios.get(side.key)
        return None if name is None else getattr(self, name)

    def _run_networks(self, images: Tensor, num_source: int) -> tuple[list[Result], Result | None]:
        """Return the logits and stage maps of the students and, if training uses the teacher, of the teacher."""
        if not self.needs_teacher:
            return self._run_students(images, num_source), None
        if self.student_stream is None:
            student_results = self._run_students(images, num_source)
            return student_results, self._run_teacher(images, num_source)
        current = torch.cuda.current_stream(images.device)
        self.student_stream.wait_stream(current)
        with torch.cuda.stream(self.student_stream):
            student_results = self._run_students(images, num_source)
        teacher_result = self._run_teacher(images, num_source)
        current.wait_stream(self.student_stream)
        return student_results, teacher_result

    def _run_students(self, images: Tensor, num_source: int) -> list[Result]:
        return [self._run_student(side, images, num_source) for side in self.sides]

    def _run_student(self, side: StudentSide, images: Tensor, num_source: int = 0) -> Result:
        images = self.images_for(side.key, images)
        return self._run_domains(side.network, side.hooks, images, num_source)

    def _run_teacher(self, images: Tensor, num_source: int = 0) -> Result:
        images = self.images_for("teacher", images)
        return self._run_domains(self.teacher, self._teacher_hooks, images, num_source)

    def _run_domains(
        self, network: nn.Module, hooks: FeatureHooks, images: Tensor, num_source: int
    ) -> Result:
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

    def _run(self, network: nn.Module, hooks: FeatureHooks, images: Tensor) -> Result:
        logits = network(images)
        return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits), hooks.take()

    def classifiers(self) -> list[nn.Module]:
        """Return the students and, if training uses it, the teacher with its adapters."""
        students = [side.network for side in self.sides]
        return [*students, self.teacher] if self.needs_teacher else students

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by optimiser: one for each student (its network, projections and gate), by
        the student's key, and "adapters"."""
        groups = {
            side.key: [p for module in side.modules().values() for p in module.parameters()]
            for side in self.sides
        }
        groups["adapters"] = list(self.adapters.parameters())
        trainable = {name: [p for p in parameters if p.requires_grad] for name, parameters in groups.items()}
        return {name: parameters for name, parameters in trainable.items() if parameters}

    def predictors(self) -> dict[str, Predictor]:
        """Return the students and the teacher with its adapters, as functions of images to logits."""

        def of(side: StudentSide) -> Predictor:
            return lambda images: self._run_student(side, images)[0]

        students = {side.key: of(side) for side in self.sides}
        return {**students, Network.TEACHER_ADAPTED.value: lambda images: self._run_teacher(images)[0]}

    def selected_apart(self) -> dict[str, str]:
        """Return the prefix of each student's weights by its key, if there are several."""
        if len(self.sides) == 1:
            return {}
        return {side.key: f"students.{number}." for number, side in enumerate(self.sides)}

    def on_validation(self, accuracies: Mapping[str, float]) -> None:
        """Update the ratio of each untrained student from the validation accuracies (Eq. 20); a ratio never falls.

        Without labels the teacher's predictions stand for the labels: its accuracy is 1, and a student's is the share
        of images on which both agree.
        """
        for side in self.sides:
            ratio = self._ratio(side)
            if ratio is not None:
                relative = accuracies[side.key] / max(accuracies[Network.TEACHER_ADAPTED.value], 1e-9)
                reached = min(1.0, relative) ** self.config.untrained_warmup_power
                ratio.fill_(max(reached, ratio.item()))

    def log_values(self) -> dict[str, Tensor]:
        """Return the weight of the learnt amplitude of each adapter, in [0, 1], and the ratios of untrained students.

        The weight starts at 1/2.
        """
        values = {f"mix/adapter{i}": a.mix_weights()[0].detach() for i, a in enumerate(self.adapters, 1)}  # pyright: ignore
        for side in self.sides:
            if (ratio := self._ratio(side)) is not None:
                values |= _named({"student_ratio": ratio}, side)
        return values


def _named(values: Mapping[str, Any], side: StudentSide) -> dict[str, Any]:
    """Return the values of a student by their names in metrics."""
    return {with_student(name, side.name): value for name, value in values.items()}
