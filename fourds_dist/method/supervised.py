"""The source stage: one or more classifiers learn the source domain from the same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from fourds_dist.data.stream.network_input import InputConversion
from fourds_dist.method.label_mix import LabelMix
from fourds_dist.method.losses import cross_entropy
from fourds_dist.method.output import Output, Predictor
from fourds_dist.method.task import Task


class SourceClassifiers(Task):
    """Supervised training of the teacher and, with `student.start: source`, of the students.

    Args:
        networks: classifiers by their keys in metrics ("teacher", "student"); each has its own loss on the
            shared batch.
        inputs: see `Task.inputs`.
        frozen: modules of the networks that stay in evaluation mode.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        inputs: Mapping[str, InputConversion] | None = None,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__(inputs)
        self.networks = nn.ModuleDict(networks)
        self._frozen = tuple(frozen)

    def train(self, mode: bool = True) -> SourceClassifiers:
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        mix: LabelMix | None = None,
    ) -> Output:
        logits = {name: network(self.images_for(name, images)) for name, network in self.networks.items()}
        losses = {
            f"{name}_ce": cross_entropy(z, labels, mix, self.class_weights) for name, z in logits.items()
        }
        return Output.of(losses, weights={}, logits=logits)

    def classifiers(self) -> list[nn.Module]:
        """Return the classifiers."""
        return list(self.networks.values())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by SGD: one group, or with several students one for each network by its key.

        Gradients are clipped by group, so that a student learns as in a run of its own.
        """
        students = [name for name in self.networks if name != "teacher"]
        if len(students) < 2:
            return super().parameter_groups()
        groups = {
            name: [p for p in network.parameters() if p.requires_grad]
            for name, network in self.networks.items()
        }
        return {name: parameters for name, parameters in groups.items() if parameters}

    def selected_apart(self) -> dict[str, str]:
        """Return the prefix of each network's weights, for several students without a teacher.

        A teacher determines the best epoch of all networks, as beside one student.
        """
        is_one = "teacher" in self.networks or len(self.networks) == 1
        return {} if is_one else {name: f"networks.{name}." for name in self.networks}

    def predictors(self) -> dict[str, Predictor]:
        """Return the classifiers by name."""
        return {
            name: partial(self._predict, name) if name in self.inputs else network
            for name, network in self.networks.items()
        }

    def _predict(self, name: str, images: Tensor) -> Tensor:
        return self.networks[name](self.images_for(name, images))
