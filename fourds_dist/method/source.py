"""The stage before distillation: one or more classifiers learn the source domain from the same batches."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor, nn

from fourds_dist.method.losses import cross_entropy
from fourds_dist.method.output import Output, Predictor


class SourceClassifiers(nn.Module):
    """Plain supervised training of the teacher and, where it is to start from the source, of the student.

    Args:
        networks: name ("teacher", "student") -> classifier; each learns alone, from the shared batch.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"]) -> Output:
        logits = {name: network(images) for name, network in self.networks.items()}
        losses = {f"{name}_ce": cross_entropy(z, labels) for name, z in logits.items()}
        return Output.of(losses, weights={}, logits=logits)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters that learn, in the group that plain SGD serves."""
        return {"student": [p for p in self.parameters() if p.requires_grad]}

    def predictors(self) -> dict[str, Predictor]:
        """name -> images to logits."""
        return dict(self.networks.items())

    def heed(self, accuracies: Mapping[str, float]) -> None:
        """Nothing depends on them."""

    def log_values(self) -> dict[str, Tensor]:
        """Nothing beyond the losses."""
        return {}
