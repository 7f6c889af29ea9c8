"""The last layer from class names: equal to open_clip's own zero-shot classifier, and refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from fourds_dist.models.backbones import BackboneConfig
from fourds_dist.models.class_names import (
    check_class_names,
    check_same_tower,
    load_image_text_model,
)
from fourds_dist.models.weights.networks import build
from fourds_dist.training.linear_probe import last_linear

CLASSES = ("ant", "honey_bee", "cat")
TEMPLATES = ("a photo of a {}.", "a drawing of the {}.")
IMAGE_PX = 16
CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": IMAGE_PX, "layers": 3, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
OF_TIMM = {
    "architecture": "vit_base_patch16_clip_224",
    "num_classes": 12,
    "pretrained_cfg": {"input_size": [3, IMAGE_PX, IMAGE_PX], "fixed_input_size": True, "num_classes": 12},
    "model_args": {"img_size": IMAGE_PX, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 2},
}


def write_model(folder: Path) -> Path:
    """Write a small image-text model of open_clip with random weights, and timm's config.json of its image tower."""
    pytest.importorskip("timm")
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    network = open_clip.CLIP(**CONFIG)
    folder.mkdir(exist_ok=True)
    nn.init.normal_(network.visual.positional_embedding)
    nn.init.normal_(network.text_projection)
    save_file(
        {k: v.contiguous() for k, v in network.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    preprocess: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess})
    )
    (folder / "config.json").write_text(json.dumps(OF_TIMM))
    return folder


def teacher_of(folder: Path, *, start: str | None = None) -> tuple[nn.Module, nn.Linear]:
    """Return timm's network of the image tower with a last layer for CLASSES."""
    file = str(folder / "open_clip_model.safetensors") if start is None else start
    config = BackboneConfig(arch=f"local-dir:{folder}")
    network = build(config, len(CLASSES), start=file, key="teacher.start", image_size=IMAGE_PX)
    return network, last_linear(network, len(CLASSES), IMAGE_PX, what="teacher")


def test_names_without_a_letter_are_refused() -> None:
    check_class_names(["ant", "7up", "été"])
    with pytest.raises(
        ValueError, match=r"the class '17' of the source is not a word \(2 of 3 .*pack the source"
    ):
        check_class_names(["ant", "17", "0_1"])


def test_embeddings_are_those_of_open_clip_s_zero_shot_classifier(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "clip")
    model = load_image_text_model(f"local-dir:{folder}")
    open_clip = pytest.importorskip("open_clip")
    expected = open_clip.build_zero_shot_classifier(
        model.network, model.tokenize, ["ant", "honey bee", "cat"], [t.format for t in TEMPLATES]
    )
    found = model.class_embeddings(CLASSES, TEMPLATES)
    torch.testing.assert_close(found, expected.T, atol=1e-6, rtol=1e-5)
    again = load_image_text_model(f"local-dir:{folder}").class_embeddings(CLASSES, TEMPLATES)
    assert torch.equal(found, again)
    assert not torch.allclose(found, model.class_embeddings(CLASSES, TEMPLATES[:1]), atol=1e-3)


def test_the_layer_gives_the_cosines_of_the_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "clip")
    model = load_image_text_model(f"local-dir:{folder}")
    teacher, layer = teacher_of(folder)
    check_same_tower(model, teacher, layer, IMAGE_PX)
    embeddings = model.class_embeddings(CLASSES, TEMPLATES)
    with torch.no_grad():
        layer.weight.copy_(embeddings @ model.projection(layer.in_features))
        layer.bias.zero_()
        images = torch.randn(8, 3, IMAGE_PX, IMAGE_PX)
        embedded = model.network.encode_image(images)
        expected = F.normalize(embedded, dim=1) @ embeddings.T
        found = teacher.eval()(images) / embedded.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert model.scale == pytest.approx(1 / 0.07, rel=1e-4)


def test_a_teacher_with_other_weights_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "clip")
    model = load_image_text_model(f"local-dir:{folder}")
    teacher, layer = teacher_of(folder, start="random")
    with pytest.raises(ValueError, match=r"another image tower than the teacher.*teacher\.start"):
        check_same_tower(model, teacher, layer, IMAGE_PX)
    with pytest.raises(ValueError, match=r"images of 16 px, and the teacher 32 px; set teacher\.image_px=16"):
        check_same_tower(model, teacher, layer, 32)
    with pytest.raises(ValueError, match=r"no linear projection of 7 features"):
        model.projection(7)


def test_a_folder_without_a_text_tower_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    (tmp_path / "config.json").write_text(json.dumps(OF_TIMM))
    with pytest.raises(ValueError, match=r"text_model=local-dir:.*needs open_clip_config\.json.*train=head"):
        load_image_text_model(f"local-dir:{tmp_path}")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"text_model=hf-hub:a/b needs open_clip .*clip"):
        load_image_text_model("hf-hub:a/b")
