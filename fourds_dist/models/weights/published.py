"""Weights that torchvision, timm and the Hugging Face hub publish, and files in the forms of a network's authors.

    pretrained               torchvision's default weights, or those of timm for `timm/NAME` or `timm/NAME.TAG`
    torchvision://NAME       other weights of torchvision
    hf-hub:owner/name        weights of a repository of the hub, for a network of timm; or a student that `fourds export
                             --push` wrote (hf://owner/name is the same)

timm converts the names and shapes of the authors' files, and interpolates positions to the size of the images. Its
checks need the number of classes of the file, so the weights are read into a second network, which is dropped.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fourds_dist.io.error_text import error_line
from fourds_dist.io.light_torchvision import torchvision
from fourds_dist.models.hub import fetch, is_repository, repository_of
from fourds_dist.models.timm_networks import (
    CONFIG_FILE,
    FOLDER,
    TimmName,
    create,
    is_timm,
    resolve,
    size_options,
)
from fourds_dist.models.weights.files import OTHER_FILES, WeightsFile
from fourds_dist.models.weights.names import MatchedTensors, match_tensors
from fourds_dist.runs.layout import RunFile

PRETRAINED = "pretrained"
TORCHVISION = "torchvision"

_CONTAINERS = re.compile(
    r"((state_dict|model_state_dict|model|module|net|network|student|teacher|backbone)\.)+"
)


def is_published(start: str) -> bool:
    """Return whether initial weights are downloaded by name."""
    is_torchvision = start.startswith(f"{TORCHVISION}://")
    return start in (PRETRAINED, TORCHVISION) or is_torchvision or is_repository(start)


def pushed_student(start: str, key: str) -> str | None:
    """Return the path of the student in a repository that `fourds export --push` wrote; None: it has a model of timm.

    Args:
        key: key of the configuration that names the repository.

    Raises:
        ValueError: the repository has neither, or cannot be read.
    """
    path = fetch(
        repository_of(start),
        (RunFile.STUDENT, CONFIG_FILE),
        where=f"{key}={start}",
        instead=f"{key}={{folder}}/{RunFile.STUDENT}",
        with_config=False,
    )
    return str(path) if path.name == RunFile.STUDENT else None


def published_weights(arch: str, start: str, image_size: int | None, where: str) -> WeightsFile:
    """Return published weights by the names of the network `arch`, with class names and normalisation as metadata.

    Args:
        image_size: side of the square images in pixels, for networks of a fixed size.
        where: start of error messages: the key of the configuration and its value.

    Raises:
        ValueError: no such weights, or weights that cannot be downloaded.
    """
    if is_repository(start):
        if not is_timm(arch):
            raise ValueError(
                f"{where}: the hub's weights are for networks of timm, and arch is {arch!r}; set arch to {start}, the "
                "network of that repository"
            )
        name, of_start = resolve(arch), resolve(start)
        if of_start.model.partition(".")[0] != name.model.partition(".")[0]:
            raise ValueError(
                f"{where} has weights of timm/{of_start.model}, and arch is {arch!r}; set arch to {start}"
            )
        return _timm_weights(start, of_start, image_size, where)
    if start == PRETRAINED and is_timm(arch):
        return _timm_weights(arch, resolve(arch), image_size, where)
    weights = torchvision_weights(arch, start, where)
    try:
        tensors = torchvision.models.get_model(arch, weights=weights, progress=False).state_dict()
    except OSError as error:
        raise ValueError(
            f"{where}: the weights of {arch!r} cannot be downloaded ({error}); use a path to a file of weights, or "
            "`random`"
        ) from None
    return WeightsFile(where, tensors, {})


def torchvision_weights(arch: str, start: str, where: str) -> Any:
    """Return torchvision's entry of published weights of `arch`, which describes them; nothing is downloaded.

    Args:
        where: start of error messages: the key of the configuration and its value.

    Raises:
        ValueError: torchvision has no such weights.
    """
    if start == PRETRAINED and ":" in arch:
        raise ValueError(
            f"{where}: nobody publishes weights of {arch!r}; use `random` or a path to a file of weights"
        )
    name = start.removeprefix(PRETRAINED).removeprefix(TORCHVISION).removeprefix("://")
    try:
        names = {w.name: w for w in torchvision.models.get_model_weights(arch)}
    except ValueError:
        names = {}
    if not names or (name and name not in names):
        known = f"known: {', '.join(names)}" if names else "use `random` or a path to a file of weights"
        raise ValueError(f"{where}: torchvision has no such weights for {arch!r}; {known}")
    return names[name] if name else torchvision.models.get_model_weights(arch)["DEFAULT"]


def _timm_weights(arch: str, name: TimmName, image_size: int | None, where: str) -> WeightsFile:
    path = _weights_path(arch, name, where)
    custom = bool(name.config.custom_load)
    source = {"file": str(path), "source": "", "custom_load": custom}
    try:
        network = create(
            name,
            None,
            size_options(name, image_size),
            pretrained=True,
            pretrained_cfg_overlay=source,
        )
    except Exception as error:  # of timm's conversions, which raise many classes
        raise ValueError(
            f"{where}: timm cannot read {path} as weights of {arch} ({error_line(error)})"
        ) from None
    return WeightsFile(where, network.state_dict(), description_of(arch, name))


def _weights_path(arch: str, name: TimmName, where: str) -> Path:
    """Return the path of the weights of a network of timm, downloaded if the cache lacks them."""
    config = name.config
    if arch.startswith(FOLDER):
        folder = Path(arch.removeprefix(FOLDER)).expanduser()
        existing = [folder / file for file in OTHER_FILES if (folder / file).is_file()]
        if not existing:
            raise ValueError(f"{where}: {folder} has no file of weights ({', '.join(OTHER_FILES[:2])})")
        return existing[0]
    if config is None or not (config.hf_hub_id or config.url):
        timm = importlib.import_module("timm")
        model = name.model.partition(".")[0]
        published = sorted({other.partition(".")[0] for other in timm.list_pretrained()})
        near = difflib.get_close_matches(model, published, n=3)
        like = f"{', '.join(f'timm/{other}' for other in near)} have weights; " if near else ""
        raise ValueError(
            f"{where}: timm has no weights of {model}; {like}use `random` or a path to a file of weights"
        )
    if config.hf_hub_id:
        file = config.hf_hub_filename or "pytorch_model.bin"
        safe = re.sub(r"^pytorch_model\b", "model", file.removesuffix(".bin")).replace(
            "_pytorch_model", "_model"
        )
        files = dict.fromkeys((f"{safe}.safetensors" if file.endswith(".bin") else file, file))
        key = where.partition("=")[0]
        return fetch(
            config.hf_hub_id, tuple(files), where=where, instead=f"{key}={{folder}}/{next(iter(files))}"
        )
    hub = importlib.import_module("timm.models._hub")
    try:
        return Path(hub.download_cached_file(config.url, check_hash=True))
    except (OSError, RuntimeError) as error:
        url = config.url if isinstance(config.url, str) else config.url[0]
        raise ValueError(
            f"{where}: {url} cannot be downloaded ({error_line(error)}); put the file into {hub.get_cache_dir()} from "
            "another machine, or use a path to a file of weights"
        ) from None


def description_of(arch: str, name: TimmName) -> dict[str, Any]:
    """Return class names and normalisation of published weights, as a repository's config.json has them."""
    config = name.config
    found: dict[str, Any] = {"mean": tuple(config.mean), "std": tuple(config.std)}
    found |= {"image_px": config.input_size[-1], "crop_pct": config.crop_pct}
    labels = config.label_names
    if labels is None and not (is_repository(arch) or arch.startswith(FOLDER)):
        labels = imagenet_synsets(config.num_classes)
    if labels is not None:
        found["label_names"] = labels if isinstance(labels, Mapping) else list(labels)
    return found


def imagenet_synsets(num_classes: int) -> list[str] | None:
    """Return the synsets of the part of ImageNet with this number of classes, in the order of the outputs."""
    data = importlib.import_module("timm.data")
    subset = data.infer_imagenet_subset({"num_classes": num_classes})
    return None if subset is None else data.ImageNetInfo(subset).label_names()


def class_titles(names: Sequence[str]) -> tuple[str, ...]:
    """Return the readable names of synsets of ImageNet; other class names stay."""
    info = importlib.import_module("timm.data").ImageNetInfo("imagenet-22k")
    known = info.label_descriptions(as_dict=True)
    if not all(name in known for name in names):
        return tuple(names)
    titles = [known[name] for name in names]
    return tuple(t if titles.count(t) == 1 else f"{t} ({n})" for t, n in zip(titles, names, strict=True))


def converted(
    found: MatchedTensors,
    file: WeightsFile,
    network: nn.Module,
    arch: str,
    image_size: int | None,
    *,
    role: str,
) -> MatchedTensors:
    """Return the tensors of a file whose names or shapes are those of a network's authors, by timm's names.

    Args:
        found: the tensors matched by name, which are returned if they fit or if no conversion helps.
        network: the run's network, of the architecture `arch`.
    """
    own = network.state_dict()
    name = resolve(arch)
    classifier = _classifiers(name)

    def fits(matched: MatchedTensors) -> bool:
        absent = [n for n in matched.missing if not n.startswith(classifier)]
        other = [
            n for n, t in matched.weights.items() if t.shape != own[n].shape and not n.startswith(classifier)
        ]
        return not (absent or other or matched.unknown)

    if fits(found):
        return found
    tensors = {_CONTAINERS.sub("", key, count=1): tensor for key, tensor in file.tensors.items()}
    tensors = _from_efficientnet_pytorch(tensors, own)
    matched = match_tensors(tensors, own, role=role)
    if fits(matched):
        return matched
    heads = [t.shape[0] for n, t in tensors.items() if n.startswith(classifier) and n.endswith(".weight")]
    counts = [*heads[:1], name.config.num_classes if name.config is not None else 0]
    for num_classes in dict.fromkeys(counts):
        overlay = {"state_dict": dict(tensors), "num_classes": num_classes, "source": ""}
        try:
            theirs = create(
                name,
                num_classes,
                size_options(name, image_size),
                pretrained=True,
                pretrained_cfg_overlay=overlay,
            )
        except Exception:  # not in the authors' form either; the names decide
            continue
        matched = match_tensors(theirs.state_dict(), own, role=role)
        if fits(matched):
            return matched
    return found


def _classifiers(name: TimmName) -> tuple[str, ...]:
    names = name.config.classifier if name.config is not None else None
    return tuple(
        f"{n}." for n in ((names,) if isinstance(names, str) else names or ("head", "fc", "classifier"))
    )


_EFFICIENTNET = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EFFICIENTNET_BLOCK = ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")
_EFFICIENTNET_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}


def _from_efficientnet_pytorch(tensors: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a file of the package efficientnet_pytorch by timm's names; other files as they are.

    That package counts blocks through all stages. timm counts them by stage, and the layers of a block by position: a
    block without expansion starts with the depthwise convolution.
    """
    if "_conv_stem.weight" not in tensors:
        return dict(tensors)
    blocks = list(dict.fromkeys(m[1] for key in own if (m := re.match(r"(blocks\.\d+\.\d+)\.", key))))
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match is None:
            layer, _, part = key.rpartition(".")
            found[f"{_EFFICIENTNET.get(layer, layer)}.{part}"] = tensor
        elif int(match[1]) < len(blocks):
            expands = f"_blocks.{match[1]}._expand_conv.weight" in tensors
            layer = _block_layer(match[2], expands=expands)
            found[f"{blocks[int(match[1])]}.{layer}.{match[3]}"] = tensor
        else:
            found[key] = tensor
    return found


def _block_layer(layer: str, *, expands: bool) -> str:
    names = ("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")
    if not expands:
        names = ("", ""), ("conv_dw", "bn1"), ("conv_pw", "bn2")
    layers = dict(zip(chain(*_EFFICIENTNET_BLOCK), chain(*names), strict=True))
    return layers.get(layer) or _EFFICIENTNET_SQUEEZE.get(layer, layer)
