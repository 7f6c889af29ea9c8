"""The base class of what a stage trains."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fourds_dist.data.stream.network_input import InputConversion
from fourds_dist.method.output import Predictor


class Task(nn.Module):
    """The networks that a stage trains, and the losses of a batch.

    `forward(images, labels)` returns an `Output`: images (B, 3, H, W) are those of a batch, normalised, labels (B,) are
    -1 for unlabelled images. `images_for` converts the images for a network with a size or normalisation of its own.
    With mixup or cutmix the step calls `forward(images, labels, mix)` with a `LabelMix`. For batches of two domains the
    step adds the keyword num_source: the last num_source images are those of the source. A subclass defines `forward`
    and `predictors`; the other methods have defaults.
    """

    student_stream: torch.cuda.Stream | None = None
    """The CUDA stream on which the students run in parallel to the teacher while a step is captured as a CUDA graph (a
    graph frees no memory for another stream); None: the current stream."""

    class_weights: torch.Tensor | None
    """(K,) weights of the classes in cross-entropies; None: 1 for every class. Checkpoints do not hold the weights."""

    inputs: Mapping[str, InputConversion] = MappingProxyType({})
    """Conversions from images of a batch to those of a network, by the network's key in metrics ("teacher",
    "student"), for the networks that need one. If there are any, `forward` needs images in float32."""

    def __init__(self, inputs: Mapping[str, InputConversion] | None = None) -> None:
        super().__init__()
        self.inputs = dict(inputs or {})
        self.register_buffer("class_weights", None, persistent=False)

    def images_for(self, name: str, images: Tensor) -> Tensor:
        """Return the images of a batch as the network `name` takes them.

        If the task has conversions, the result has the type of autocast.
        """
        if not self.inputs:
            return images
        conversion, kind = self.inputs.get(name), images.device.type
        images = images if conversion is None else conversion(images)
        is_cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return images.to(torch.get_autocast_dtype(kind)) if is_cast else images

    def classifiers(self) -> list[nn.Module]:
        """Return the networks from images to logits, which step.compile compiles. Default: all submodules."""
        return list(self.children())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by optimiser: "adapters" (AdamW), others (SGD). Default: all by SGD."""
        return {"student": [p for p in self.parameters() if p.requires_grad]}

    def predictors(self) -> dict[str, Predictor]:
        """Return the functions from images to logits by name, for evaluation."""
        raise NotImplementedError

    def selected_apart(self) -> dict[str, str]:
        """Return predictor -> prefix of the names of its weights, for networks with a best epoch of their own.

        The other weights are those of the epoch with the best mean over these networks. Default: one best epoch for all
        weights.
        """
        return {}

    def log_values(self) -> dict[str, Tensor]:
        """Return further scalars to log, by name. Default: none."""
        return {}

    def on_validation(self, accuracies: Mapping[str, float]) -> None:
        """Receive the predictors' accuracies, in [0, 1], after each epoch. Default: do nothing.

        Without labels these are shares of images on which a predictor agrees with the teacher.
        """
