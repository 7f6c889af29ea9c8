"""The middle stage of two-stage methods: the whole teacher adapts to the target before distillation.

4Ds does not use this stage; two-stage methods are baselines. Fine-tuning learns from target labels, minimum class
confusion (Eq. 24) from unlabelled images, and the conditional domain adversary (Eq. 29) from labelled source images and
unlabelled target images. `method.preset=distillation` then distils the adapted teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from fourds_dist.config.effects import WEIGHTS
from fourds_dist.config.section import ConfigSection
from fourds_dist.data.stream.network_input import InputConversion
from fourds_dist.method.domain_adversary import DomainAdversary
from fourds_dist.method.label_mix import LabelMix, unlabelled
from fourds_dist.method.losses import class_confusion, cross_entropy
from fourds_dist.method.output import Output, Predictor
from fourds_dist.method.task import Task
from fourds_dist.models.feature_hooks import FeatureHooks, inspect_stages


class AdaptConfig(ConfigSection):
    """Adaptation of the teacher before distillation."""

    method: Annotated[Literal["none", "fine_tune", "mcc", "cdan"], WEIGHTS] = "none"
    """`none`: no adaptation stage. `fine_tune`: cross-entropy on the labelled images. `mcc`: `fine_tune` and minimum
    class confusion on the unlabelled images; without target labels `mcc` needs labelled source images
    (data.source_fraction > 0). `cdan`: `fine_tune` and the conditional domain adversary CDAN+E, which takes labelled
    images for the source and unlabelled ones for the target, and needs both."""

    mcc_weight: Annotated[float, WEIGHTS.of("adapt")] = Field(default=1.0, gt=0)
    """Weight of the class confusion loss; cross-entropy has weight 1."""

    mcc_temperature: Annotated[float, WEIGHTS.of("adapt")] = Field(default=2.5, gt=0)
    """Temperature of the softmax in the class confusion loss."""

    cdan_weight: Annotated[float, WEIGHTS.of("adapt")] = Field(default=1.0, gt=0)
    """Weight of the domain adversary's loss; cross-entropy has weight 1."""

    cdan_hidden: Annotated[int, WEIGHTS.of("adapt")] = Field(default=1024, ge=1, le=65536)
    """Width of the hidden layers of the domain discriminator."""

    cdan_ramp_steps: Annotated[int, WEIGHTS.of("adapt")] = Field(default=1000, ge=1)
    """Steps over which the reversed gradient grows from 0 to its full weight."""


class AdaptTeacher(Task):
    """Train all weights of the teacher on the target, BatchNorm statistics included.

    Args:
        teacher: trained on the source.
        config: settings with a `method` other than `none`.
        inputs: see `Task.inputs`.
        last_stage: name of the submodule whose map, averaged over positions, is the features of `cdan`.
        image_size: side of the square images of the teacher in pixels, to find the shape of this map.
    """

    def __init__(
        self,
        teacher: nn.Module,
        config: AdaptConfig,
        inputs: Mapping[str, InputConversion] | None = None,
        *,
        last_stage: str = "",
        image_size: int = 0,
    ) -> None:
        super().__init__(inputs)
        assert config.method != "none"
        self.teacher = teacher.requires_grad_(True)
        self.config = config
        if config.method == "cdan":
            stages, num_classes = inspect_stages(teacher, [last_stage], image_size, what="teacher")
            self._hooks = FeatureHooks(teacher, stages)
            self.adversary = DomainAdversary(
                stages[0].channels, num_classes, hidden=config.cdan_hidden, ramp_steps=config.cdan_ramp_steps
            )

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        mix: LabelMix | None = None,
        num_source: int = 0,
    ) -> Output:
        """Return the losses of one batch, which may mix labelled source images with target images (label -1 where
        unlabelled). Class confusion uses the images with an unlabelled part. BatchNorm normalises both domains
        together."""
        del num_source
        z = self._predict(images).float()
        losses = {"teacher_ce": cross_entropy(z, labels, mix, self.class_weights)}
        if self.config.method == "mcc":
            temperature = self.config.mcc_temperature
            losses["teacher_mcc"] = class_confusion(z, unlabelled(labels, mix), temperature=temperature)
        if self.config.method == "cdan":
            (last_map,) = self._hooks.take()
            features = last_map.float().mean((2, 3))
            losses["teacher_cdan"] = self.adversary(features, z, unlabelled(labels, mix))
        weights = {"teacher_mcc": self.config.mcc_weight, "teacher_cdan": self.config.cdan_weight}
        return Output.of(losses, weights=weights, logits={"teacher": z})

    def classifiers(self) -> list[nn.Module]:
        """Return the teacher."""
        return [self.teacher]

    def predictors(self) -> dict[str, Predictor]:
        """Return the teacher."""
        is_plain = self.config.method != "cdan" and "teacher" not in self.inputs
        return {"teacher": self.teacher if is_plain else self._logits}

    def _predict(self, images: Tensor) -> Tensor:
        return self.teacher(self.images_for("teacher", images))

    def _logits(self, images: Tensor) -> Tensor:
        z = self._predict(images)
        if self.config.method == "cdan":
            self._hooks.take()  # the maps are for training only
        return z
