"""The stage between source and distillation in two-stage methods: the whole teacher adapts to the target first.

4Ds does without it; it is there to compare with. Fine-tuning learns from target labels, minimum class confusion
(Eq. 24) from images without any. Distillation then takes the adapted teacher: `method.preset=distillation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from fourds_dist.config import Section
from fourds_dist.effects import WEIGHTS
from fourds_dist.method.losses import UNLABELLED, class_confusion, cross_entropy
from fourds_dist.method.output import Output, Predictor


class AdaptConfig(Section):
    """How the teacher is adapted before it is distilled."""

    method: Annotated[Literal["none", "fine_tune", "mcc"], WEIGHTS] = "none"
    """`none`: no such stage. `fine_tune`: cross-entropy on the labelled images. `mcc`: that and minimum class confusion
    on the unlabelled ones; without target labels it needs labelled source images (data.source_fraction > 0)."""

    mcc_weight: Annotated[float, WEIGHTS.of("adapt")] = Field(default=1.0, gt=0)
    """Weight of the class confusion against cross-entropy."""

    mcc_temperature: Annotated[float, WEIGHTS.of("adapt")] = Field(default=2.5, gt=0)
    """Temperature of the predictions whose confusion is measured."""


class AdaptTeacher(nn.Module):
    """A teacher that learns the target with all its weights, BatchNorm statistics included.

    Args:
        teacher: trained on the source.
        config: `method` other than `none`.
    """

    def __init__(self, teacher: nn.Module, config: AdaptConfig) -> None:
        super().__init__()
        assert config.method != "none"
        self.teacher = teacher.requires_grad_(True)
        self.config = config

    def forward(self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"]) -> Output:
        """Losses of one batch, which may mix labelled source images with target images (-1 where unlabelled)."""
        z = self.teacher(images).float()
        losses = {"teacher_ce": cross_entropy(z, labels)}
        if self.config.method == "mcc":
            temperature = self.config.mcc_temperature
            losses["teacher_mcc"] = class_confusion(z, labels == UNLABELLED, temperature=temperature)
        return Output.of(losses, weights={"teacher_mcc": self.config.mcc_weight}, logits={"teacher": z})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters that learn, in the group that plain SGD serves."""
        return {"student": [p for p in self.parameters() if p.requires_grad]}

    def predictors(self) -> dict[str, Predictor]:
        """name -> images to logits."""
        return {"teacher": self.teacher}

    def heed(self, accuracies: Mapping[str, float]) -> None:
        """Nothing depends on them."""

    def log_values(self) -> dict[str, Tensor]:
        """Nothing beyond the losses."""
        return {}
