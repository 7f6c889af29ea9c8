"""The keys of the method: `method.*` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fourds_dist.config.effects import WEIGHTS
from fourds_dist.config.section import ConfigSection
from fourds_dist.method.presets import PRESETS, WITH_TARGET_LABELS, WITHOUT_TARGET_LABELS


class MethodConfig(ConfigSection):
    """The losses and parts of 4Ds and their weights."""

    preset: Annotated[
        Literal["4ds", "4ds_released", "cross_entropy", "distillation", "fitnets", "adabn"], WEIGHTS
    ] = "4ds"
    """Fills the keys below that are left out. `4ds`: this package's version of 4Ds. `4ds_released`: the released code
    with its mistakes. Baselines: `cross_entropy` (the student alone), `distillation` (plain knowledge distillation),
    `fitnets` (feature distillation), `adabn` (the student's BatchNorm statistics follow the target; without labels no
    weight learns, if data.source_fraction and distill_stage.optim.weight_decay are 0)."""

    teacher_batch_norm: Annotated[Literal["adapt", "frozen"], WEIGHTS] = "adapt"
    """`adapt`: the teacher normalises by the target batch and updates its running statistics (as released). `frozen`:
    the source's statistics stay."""

    domain_batch_norm: Annotated[bool | None, WEIGHTS] = None
    """Normalise the source and the target images of a batch separately in both networks, with running statistics of the
    target alone; for batches with source images (data.source_fraction). Without effect on networks that have no
    BatchNorm (ViT, ConvNeXt). null: true with preset `4ds` if no training label of the target is used, else false."""

    phase_loss: Annotated[Literal["circular", "squared", "none"], WEIGHTS] = "circular"
    """`circular`: amplitude-weighted 1 - cos, all stages weighted equally. `squared`: the released squared error of
    pooled angles, weighted by the gate."""

    phase_weight: Annotated[float, WEIGHTS] = Field(default=0.1, ge=0)
    """Weight of the phase loss in the student's loss."""

    kd_sample_weight: Annotated[
        Literal["where_teacher_better", "where_teacher_better_unlabelled", "teacher_confidence", "uniform"],
        WEIGHTS,
    ] = "where_teacher_better_unlabelled"
    """Weight of each image in the student's distillation loss. `teacher_confidence`: the teacher's probability of the
    true class, or its largest probability if the image is unlabelled. `where_teacher_better`: `teacher_confidence`, or
    0 if the student's probability is higher. `where_teacher_better_unlabelled`: `teacher_confidence` on labelled
    images, `where_teacher_better` on unlabelled ones. `uniform`: 1, as released."""

    untrained_warmup_power: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0)
    """Warm-up of untrained students, which do not know the classes yet (random or ImageNet weights, a last layer made
    for other classes). r = (validation accuracy of the student / of the teacher) ^ power is updated after every epoch,
    starts at 0 and never falls. The weight of an image is 1 - r + r * kd_sample_weight, and the adapters' distillation
    loss is multiplied by r. 0: no warm-up."""

    kd_weight: Annotated[float, WEIGHTS] = Field(default=1.0, ge=0)
    """Weight of distillation in the student's loss. 0: no distillation from logits."""

    normalise_kd: Annotated[Literal["never", "untrained", "always"], WEIGHTS] = "never"
    """Students for which the distillation loss is scaled so that its gradient is half that of cross-entropy for any
    number of classes: the weight is kd_weight times `losses.kd_normalisation`. `untrained`: students that do not know
    the classes yet."""

    temperature: Annotated[float, WEIGHTS] = Field(default=4.0, gt=0)
    """Temperature of both distillation losses."""

    feature_loss: Annotated[Literal["none", "last", "all"], WEIGHTS] = "none"
    """Stages with feature distillation (FitNets): none, the last or all. The student's maps approach the teacher's."""

    feature_weight: Annotated[float, WEIGHTS] = Field(default=1.0, gt=0)
    """Weight of the feature loss, an error relative to the teacher's maps."""

    pseudo_label_weight: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0)
    """Weight of pseudo-labels in the student's loss: the cross-entropy of unlabelled images with the class of the
    teacher (with its adapters), where the teacher is confident. 0: none."""

    pseudo_label_threshold: Annotated[float, WEIGHTS] = Field(default=0.95, gt=0, le=1)
    """Smallest probability of a class by the teacher for a pseudo-label."""

    infomax_weight: Annotated[float | None, WEIGHTS] = Field(default=None, ge=0)
    """Weight of information maximisation on unlabelled images, in the student's loss and in the adapters': confident
    predictions that differ between images. 0: none. null: 1 with preset `4ds` if no training label of the target is
    used, else 0."""

    confusion_weight: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0)
    """Weight of minimum class confusion on unlabelled images, in the student's loss and in the adapters'. 0: none."""

    confusion_temperature: Annotated[float, WEIGHTS] = Field(default=2.5, gt=0)
    """Temperature of the softmax in the class confusion loss."""

    extra_loss: Annotated[str | None, WEIGHTS] = None
    """A user-defined term of the student's loss: `package.module:function`. The function takes student_logits,
    teacher_logits, student_maps, teacher_maps (one map per stage) and labels by name, and returns one number. The
    teacher's logits and maps are detached. null: none."""

    extra_loss_weight: Annotated[float, WEIGHTS] = Field(default=1.0, gt=0)
    """Weight of extra_loss."""

    adapters: Annotated[bool, WEIGHTS] = True
    """Use Fourier adapters in the teacher."""

    adapter_kd: Annotated[Literal["all", "labelled"] | None, WEIGHTS] = None
    """Images on which the adapters learn from the student. On `labelled` ones only, both networks cannot agree on one
    class for all unlabelled images. null: `labelled` with preset `4ds` if no training label of the target is used, else
    `all`."""

    adapter_reduction: Annotated[int, WEIGHTS] = Field(default=4, ge=1)
    """Channels / bottleneck width inside an adapter."""

    adapter_temperature: Annotated[float, WEIGHTS] = Field(default=0.1, gt=0)
    """Temperature of the softmax that mixes the learnt amplitude and the teacher's."""

    gate_reduction: Annotated[int, WEIGHTS] = Field(default=16, ge=1)
    """Channels / hidden width of the fusion gate (phase_loss: squared)."""

    @property
    def has_phase_loss(self) -> bool:
        """Whether the student's loss has a phase loss."""
        return self.phase_loss != "none" and self.phase_weight > 0

    @property
    def needs_teacher(self) -> bool:
        """Whether training uses the teacher at all."""
        distils = (
            self.adapters or self.kd_weight > 0 or self.pseudo_label_weight > 0 or self.feature_loss != "none"
        )
        return distils or self.has_phase_loss or self.extra_loss is not None

    def for_target(self, *, has_labels: bool) -> MethodConfig:
        """Return the method with the values that null stands for.

        Args:
            has_labels: whether training uses labels of the target.
        """
        values = WITH_TARGET_LABELS | ({} if has_labels else WITHOUT_TARGET_LABELS.get(self.preset, {}))
        return self.model_copy(update={k: v for k, v in values.items() if getattr(self, k) is None})

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        preset = given.get("preset", "4ds")
        return {**(PRESETS.get(preset, {}) if isinstance(preset, str) else {}), **given}
