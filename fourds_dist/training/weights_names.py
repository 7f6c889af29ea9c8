"""A network's own tensors among those of a file, whose names may stand under prefixes and beside others.

    module.conv1.weight                     wrapped for several GPUs
    _orig_mod.conv1.weight                  compiled
    state_dict.model.conv1.weight           a module of Lightning, beside its metrics
    state_dict_ema.conv1.weight             an average of the weights, beside the weights

The tensors are those under the prefix that most of the network's names stand under. What the network does not know of
is left out where it stands under another prefix or is known to be no part of a classifier (metrics, criteria, auxiliary
heads); anything else is refused: a deeper network's file has all names of a shallower one.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""Parts of names that torch.compile, FSDP, activation checkpointing and DDP add, at any place."""

AVERAGES = ("ema", "swa", "averag", "shadow")
"""Parts of names of averaged weights, which are taken where plain ones stand beside them."""

CONTAINERS = {"state_dict", "model_state_dict", "model", ""}
"""Prefixes that need no word."""

NO_PART = re.compile(
    r"(^|[._])(optim\w*|\w*scheduler\w*|scaler|criterion|loss|losses|loss_fn|loss_func|metrics?|acc|accuracy|auroc|f1|precision|recall|confmat|"
    r"aux\d*|AuxLogits|aux_head|aux_classifier|n_averaged|total_ops|total_params|num_batches_tracked|"
    r"(pixel_)?mean|(pixel_)?std|normali[sz]e\w*|relative_position_index|relative_coords_table|attn_mask)([._]|$)",
    re.IGNORECASE,
)
"""Names of tensors that do no classifying."""

OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
"""Names in torchvision's own files for DenseNet, which it renames as it loads them."""

TRACKED = "num_batches_tracked"


@dataclass
class Found:
    """What a file holds of a network's tensors."""

    weights: dict[str, Tensor]
    """By the network's names."""
    missing: list[str]
    """Names of the network that the file lacks."""
    unknown: list[str] = field(default_factory=list)
    """Names of the file that the network does not know, and that cannot be left out."""
    remarks: list[str] = field(default_factory=list)
    """What was taken and left out, where there was a choice."""

    def without(self, names: Iterable[str]) -> Found:
        """The same without some of the weights."""
        weights = {name: tensor for name, tensor in self.weights.items() if name not in set(names)}
        return replace(self, weights=weights)


def find_tensors(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], *, role: str = "") -> Found:
    """Find a network's tensors in a file.

    Args:
        tensors: the file's, by name.
        own: the network's state dict.
        role: "teacher" or "student": which is taken of two networks in one file.
    """
    own = {
        name: tensor for name, tensor in own.items() if isinstance(tensor, Tensor)
    }  # others are no weights
    names = _plain_names(tensors, own)
    prefix, cut, others = _choose(names, tensors, own, role)
    sources = {name: names.get(prefix + name.removeprefix(cut)) for name in own}
    taken = {name: source for name, source in sources.items() if source is not None}
    found = Found({name: tensors[source] for name, source in taken.items()}, [])
    used = set(taken.values())
    _fill_from_elsewhere(found, names, used, tensors, own, cut)
    found.missing = [n for n in own if n not in found.weights and not n.endswith(f".{TRACKED}")]
    left = {plain: name for plain, name in names.items() if name not in used}
    found.unknown = [
        name
        for plain, name in left.items()
        if plain.startswith(prefix) and not NO_PART.search(plain[len(prefix) :])
    ]
    if not found.missing and not found.unknown:
        _remark(found, prefix, cut, others, used, list(left.values()))
    return found


def _choose(
    names: Mapping[str, str], tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], role: str
) -> tuple[str, str, list[str]]:
    """The prefix of the network's names in the file, that of the network which they lack, and other such prefixes."""
    ranks: dict[tuple[str, str], tuple[int, ...]] = {}
    for cut in _shared_prefixes(own):
        wanted = {name.removeprefix(cut): name for name in own if not name.endswith(TRACKED)}
        counts, fits = _prefixes(names, wanted, tensors, own)
        for prefix, count in counts.items():
            ranks[prefix, cut] = (count, fits[prefix], *_preference(prefix, role), -len(cut), -len(ranks))
    if not ranks:
        return "", "", []
    prefix, cut = max(ranks, key=lambda place: ranks[place])
    count, fit, *_ = ranks[prefix, cut]
    others = {p for (p, c), rank in ranks.items() if rank[:2] == (count, fit) and (c == cut and p != prefix)}
    return prefix, cut, sorted(others)


def _plain_names(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, str]:
    """The file's names without what wrappers add, and as the network's release has them -> the names in the file."""
    parts = {part for name in own for part in name.split(".")}
    wrappers = [w for w in WRAPPERS if w not in parts]
    plain = {
        ".".join(part for part in OLD_DENSENET.sub(r"\1", name).split(".") if part not in wrappers): name
        for name in tensors
    }
    return plain if len(plain) == len(tensors) else {name: name for name in tensors}


def _shared_prefixes(own: Iterable[str]) -> list[str]:
    """Prefixes that all of the network's names have, the empty one first: a file may lack them."""
    split = [name.split(".") for name in own]
    prefixes = [""]
    for depth in range(1, min((len(parts) for parts in split), default=1)):
        if len({tuple(parts[:depth]) for parts in split}) > 1:
            break
        prefixes.append(".".join(split[0][:depth]) + ".")
    return prefixes


def _prefixes(
    names: Mapping[str, str],
    wanted: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> tuple[Counter[str], Counter[str]]:
    """Prefix -> how many of the wanted names stand under it, and how many of them in the right shape."""
    counts: Counter[str] = Counter()
    fits: Counter[str] = Counter()
    for plain, name in names.items():
        parts = plain.split(".")
        for depth in range(len(parts)):
            short = wanted.get(".".join(parts[depth:]))
            if short is not None:
                prefix = "".join(f"{part}." for part in parts[:depth])
                counts[prefix] += 1
                fits[prefix] += tensors[name].shape == own[short].shape
    return counts, fits


def _preference(prefix: str, role: str) -> tuple[int, int, int]:
    parts = prefix.lower()
    return (
        int(bool(role) and role in parts),
        int("best" in parts),
        int(any(word in parts for word in AVERAGES)),
    )


def _fill_from_elsewhere(
    found: Found,
    names: Mapping[str, str],
    used: set[str],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    cut: str,
) -> None:
    """A head beside the body (`encoder.conv1.weight`, `fc.weight`): names that one tensor of that shape ends with."""
    missing = {n.removeprefix(cut): n for n in own if n not in found.weights and not n.endswith(TRACKED)}
    if not missing or not found.weights:
        return
    places: defaultdict[str, list[str]] = defaultdict(list)
    for plain, name in names.items():
        parts = plain.split(".")
        for depth in range(len(parts)):
            short = ".".join(parts[depth:])
            if name not in used and short in missing and tensors[name].shape == own[missing[short]].shape:
                places[short].append(name)
    if all(len(places[short]) == 1 for short in missing):
        for short, name in missing.items():
            (source,) = places[short]
            found.weights[name] = tensors[source]
            if source != name:
                found.remarks.append(f"{name} is its {source}")
            used.add(source)


def _remark(found: Found, prefix: str, cut: str, others: list[str], used: set[str], left: list[str]) -> None:
    named = prefix.rstrip(".")
    dropped = sorted(
        {part for name in used for part in name.split(".")} & set(WRAPPERS) - set(prefix.split("."))
    )
    without = [part for part in (*dropped, named) if part not in CONTAINERS]
    if others:
        beside = ", ".join(other.rstrip(".") or "those at the top" for other in others)
        found.remarks.append(f"of the networks in it {named or 'that at the top'} is taken, not {beside}")
    elif without:
        found.remarks.append(f"its names are read without {', '.join(without)}")
    if cut:
        found.remarks.append(f"its names lack the network's {cut.rstrip('.')}")
    untold = tuple(other for other in others if other)
    groups = Counter(
        _group(name) for name in left if not name.endswith(TRACKED) and not name.startswith(untold)
    )
    if groups:
        counted = [f"{group} ({count} tensors)" if count > 1 else group for group, count in groups.items()]
        more = f" and {len(counted) - 5} more" if len(counted) > 5 else ""
        found.remarks.append(f"left out, as no part of the network: {', '.join(counted[:5])}{more}")


def _group(name: str) -> str:
    parts = name.split(".")
    depth = 2 if parts[0] in CONTAINERS and len(parts) > 2 else 1
    return ".".join(parts[:depth])
