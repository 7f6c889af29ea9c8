"""The last layer of a classifier from the names of its classes, by the text tower of an image-text model (CLIP).

The model's logits of an image with features f are s cos(P f, t_k), with the projection P of its image tower, the text
embedding t_k of class k and the scale s (CLIP, arXiv 2103.00020). A linear layer has no cosine: W = (s / m) T P gives
s cos(P f, t_k) |P f| / m, with m the mean of |P f| over images. It ranks the classes of each image as the model does.

open_clip reads the model. The teacher is timm's network with the weights of the model's image tower.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fourds_dist.io.error_text import error_line
from fourds_dist.io.extras import fix
from fourds_dist.models.hub import HUB, fetch, is_repository, repository_of
from fourds_dist.models.network_mode import in_mode
from fourds_dist.models.timm_networks import FOLDER

CONFIG_FILE = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
SMALLEST_COSINE = 0.99
"""Smallest cosine between the image embeddings of the teacher and of the model for the same image of noise."""


def check_class_names(classes: Sequence[str]) -> None:
    """Check that the class names are words.

    Raises:
        ValueError: names without a letter, such as "0" or "17".
    """
    if without := [name for name in classes if not any(letter.isalpha() for letter in name)]:
        raise ValueError(
            f"source_stage.train=class_names: the class {without[0]!r} of the source is not a word "
            f"({len(without)} of {len(classes)} classes have no letter); pack the source again with class names in "
            "words, or set source_stage.train=head"
        )


@dataclass(frozen=True)
class ImageTextModel:
    """An image-text model of open_clip.

    Args:
        network: has encode_image, encode_text, logit_scale and the image tower `visual`.
        tokenize: from texts to tokens, (N, length).
    """

    network: Any
    tokenize: Callable[[list[str]], Tensor]

    @property
    def scale(self) -> float:
        """Return s, the factor of the cosines."""
        return float(self.network.logit_scale.detach().exp())

    @property
    def image_px(self) -> int:
        """Return the side of the images of the image tower."""
        size = self.network.visual.image_size
        return size[0] if isinstance(size, tuple | list) else size

    @torch.no_grad()
    def class_embeddings(self, classes: Sequence[str], templates: Sequence[str]) -> Float[Tensor, "K E"]:
        """Return T: for each class the normalised mean of its normalised embeddings in all templates.

        Underscores in names become spaces.
        """
        embeddings = []
        with in_mode(self.network, training=False):
            for name in classes:
                texts = [template.replace("{}", name.replace("_", " ")) for template in templates]
                of_texts = F.normalize(self.network.encode_text(self.tokenize(texts)), dim=1)
                embeddings.append(F.normalize(of_texts.mean(0), dim=0))
        return torch.stack(embeddings)

    def projection(self, num_features: int) -> Float[Tensor, "E D"]:
        """Return P, from the features of the image tower to the embedding.

        Raises:
            ValueError: a tower without a linear projection of so many features.
        """
        visual = self.network.visual
        found = getattr(visual, "proj", None)  # open_clip's own ViT
        if isinstance(found, Tensor):
            found = found.detach().T
        elif hasattr(visual, "trunk"):  # a network of timm
            layer = getattr(visual.head, "proj", None)
            found = torch.eye(num_features) if layer is None else getattr(layer, "weight", None)
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] != num_features:
            raise ValueError(
                f"the image tower ({type(visual).__name__}) has no linear projection of {num_features} features, the "
                "teacher's; choose the model of the teacher's weights, or set source_stage.train=head"
            )
        return found.detach()


def load_image_text_model(name: str) -> ImageTextModel:
    """Return a model of a repository of the hub (hf-hub:owner/name) or of a folder (local-dir:PATH).

    Raises:
        ValueError: open_clip is missing, or the repository or the folder has no image-text model of open_clip.
    """
    where = f"source_stage.text_model={name}"
    try:
        open_clip: Any = importlib.import_module("open_clip")
    except ImportError as error:
        raise ValueError(f"{where} needs open_clip ({error}): {fix('clip')}") from None
    if is_repository(name):
        repository, instead = repository_of(name), f"source_stage.text_model={FOLDER}{{folder}}"
        folder = fetch(repository, (CONFIG_FILE,), where=where, instead=instead).parent
        fetch(repository, WEIGHTS, where=where, instead=instead)
        of_tokenizer = f"{HUB}{repository}"  # whose files open_clip downloads
    else:
        folder = Path(name.removeprefix(FOLDER)).expanduser()
        of_tokenizer = f"{FOLDER}{folder}"
    if not (folder / CONFIG_FILE).is_file() or not any((folder / file).is_file() for file in WEIGHTS):
        raise ValueError(
            f"{where}: {folder} needs {CONFIG_FILE} and {WEIGHTS[0]}, which open_clip's models of images and texts "
            "have; a network of images alone has no text tower: set source_stage.train=head for it"
        )
    try:
        network = open_clip.create_model(f"{FOLDER}{folder}")
        tokenize = open_clip.get_tokenizer(of_tokenizer)
    except Exception as error:  # open_clip raises exceptions of many classes
        raise ValueError(f"{where}: open_clip cannot build the model ({error_line(error)})") from None
    if not all(hasattr(network, part) for part in ("encode_text", "visual", "logit_scale")):
        raise ValueError(f"{where}: {type(network).__name__} has no text tower; set source_stage.train=head")
    return ImageTextModel(network.eval(), tokenize)


@torch.no_grad()
def check_same_tower(model: ImageTextModel, teacher: nn.Module, layer: nn.Linear, image_px: int) -> None:
    """Check that the teacher computes the features of the model's image tower, on images of noise.

    Args:
        layer: last layer of the teacher, whose inputs are the features.
        image_px: side of the teacher's images.

    Raises:
        ValueError: another size of images, another projection or other features.
    """
    if image_px != model.image_px:
        raise ValueError(
            f"source_stage.text_model takes images of {model.image_px} px, and the teacher {image_px} px; set "
            f"teacher.image_px={model.image_px}"
        )
    images = torch.randn(2, 3, image_px, image_px, generator=torch.Generator().manual_seed(0))
    inputs: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    device = layer.weight.device
    try:
        with in_mode(teacher, training=False):
            teacher(images.to(device))
    finally:
        handle.remove()
    features = inputs[0].flatten(1).float().cpu()
    ours = features @ model.projection(features.shape[1]).T
    cosine = F.cosine_similarity(ours, model.network.encode_image(images)).min().item()
    if not cosine >= SMALLEST_COSINE:
        raise ValueError(
            "source_stage.text_model has another image tower than the teacher: embeddings of an image have a cosine of "
            f"{cosine:.2f}; start the teacher from the weights of this model (teacher.start)"
        )
