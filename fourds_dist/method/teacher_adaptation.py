"""The middle stage of two-stage methods: the whole teacher adapts to the target before distillation.

4Ds does not use this stage; two-stage methods are baselines. Fine-tuning learns from target labels, minimum class
confusion (Eq. 24) from unlabelled images. `method.preset=distillation` then distils the adapted teacher.
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
from fourds_dist.method.label_mix import LabelMix, unlabelled
from fourds_dist.method.losses import class_confusion, cross_entropy
from fourds_dist.method.output import Output, Predictor
from fourds_dist.method.task import Task


class AdaptConfig(ConfigSection):
    """Adaptation of the teacher before distillation."""

    method: Annotated[Literal["none", "fine_tune", "mcc"], WEIGHTS] = "none"
    """`none`: no adaptation stage. `fine_tune`: cross-entropy on the labelled images. `mcc`: `fine_tune` and minimum
    class confusion on the unlabelled images; without target labels `mcc` needs labelled source images
    (data.source_fraction > 0)."""

    mcc_weight: Annotated[float, WEIGHTS.of("adapt")] = Field(default=1.0, gt=0)
    """Weight of the class confusion loss; cross-entropy has weight 1."""

    mcc_temperature: Annotated[float, WEIGHTS.of("adapt")] = Field(default=2.5, gt=0)
    """Temperature of the softmax in the class confusion loss."""


class AdaptTeacher(Task):
    """Train all weights of the teacher on the target, BatchNorm statistics included.

    Args:
        teacher: trained on the source.
        config: settings with a `method` other than `none`.
        inputs: see `Task.inputs`.
    """

    def __init__(
        self, teacher: nn.Module, config: AdaptConfig, inputs: Mapping[str, InputConversion] | None = None
    ) -> None:
        super().__init__(inputs)
        assert config.method != "none"
        self.teacher = teacher.requires_grad_(True)
        self.config = config

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        mix: LabelMix | None = None,
    ) -> Output:
        """Return the losses of one batch, which may mix labelled source images with target images (label -1 where
        unlabelled). Class confusion uses the images with an unlabelled part."""
        z = self._predict(images).float()
        losses = {"teacher_ce": cross_entropy(z, labels, mix, self.class_weights)}
        if self.config.method == "mcc":
            temperature = self.config.mcc_temperature
            losses["teacher_mcc"] = class_confusion(z, unlabelled(labels, mix), temperature=temperature)
        return Output.of(losses, weights={"teacher_mcc": self.config.mcc_weight}, logits={"teacher": z})

    def predictors(self) -> dict[str, Predictor]:
        """Return the teacher."""
        return {"teacher": self._predict if "teacher" in self.inputs else self.teacher}

    def _predict(self, images: Tensor) -> Tensor:
        return self.teacher(self.images_for("teacher", images))
