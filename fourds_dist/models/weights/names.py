"""Matching of a network's tensors with those of a file, whose names may have prefixes.

    module.conv1.weight                     wrapped by DataParallel or DDP
    _orig_mod.conv1.weight                  compiled
    state_dict.model.conv1.weight           a Lightning module with metrics
    state_dict_ema.conv1.weight             averaged weights next to the plain ones

The prefix with most of the network's names selects the tensors. Unknown tensors are ignored if they have another prefix
or a name that no part of a classifier has (metrics, criteria, auxiliary heads). Other unknown tensors are refused, as
the file of a deeper network has all names of a shallower one.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""Parts of names that torch.compile, FSDP, activation checkpointing and DDP add, at any position."""

AVERAGES = ("ema", "swa", "averag", "shadow")
"""Parts of names of averaged weights, which take precedence over plain weights in the same file."""

CONTAINERS = {"state_dict", "model_state_dict", "model", ""}
"""Common prefixes, which are not reported."""

NO_PART = re.compile(
    r"(^|[._])(optim\w*|\w*scheduler\w*|scaler|criterion|loss|losses|loss_fn|loss_func|metrics?|acc|accuracy|auroc|f1|precision|recall|confmat|"
    r"aux\d*|AuxLogits|aux_head|aux_classifier|n_averaged|total_ops|total_params|num_batches_tracked|"
    r"(pixel_)?mean|(pixel_)?std|normali[sz]e\w*|relative_position_index|relative_coords_table|attn_mask)([._]|$)",
    re.IGNORECASE,
)
"""Names of tensors that are not part of a classifier."""

OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
"""Names in torchvision's files for DenseNet, which torchvision renames while loading."""

TRACKED = "num_batches_tracked"


@dataclass
class MatchedTensors:
    """The tensors of a network that a file contains."""

    weights: dict[str, Tensor]
    """Tensors by the network's names."""
    missing: list[str]
    """Names of the network that the file lacks."""
    unknown: list[str] = field(default_factory=list)
    """Names of the file that the network lacks and that cannot be ignored."""
    remarks: list[str] = field(default_factory=list)
    """Choices to report: tensors that were selected or ignored."""

    def without(self, names: Iterable[str]) -> MatchedTensors:
        """Return a copy without the named weights."""
        weights = {name: tensor for name, tensor in self.weights.items() if name not in set(names)}
        return replace(self, weights=weights)


def match_tensors(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], *, role: str = ""
) -> MatchedTensors:
    """Find a network's tensors in a file.

    Args:
        tensors: tensors of the file by name.
        own: state dict of the network.
        role: "teacher" or "student": selects one of two networks in one file.
    """
    own = {name: tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}
    names = _plain_names(tensors, own)
    prefix, cut, others = _choose(names, tensors, own, role)
    sources = {name: names.get(prefix + name.removeprefix(cut)) for name in own}
    taken = {name: source for name, source in sources.items() if source is not None}
    found = MatchedTensors({name: tensors[source] for name, source in taken.items()}, [])
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
    """Return the prefix to add to the network's names, the prefix to remove from them, and other candidates to add."""
    ranks: dict[tuple[str, str], tuple[int, ...]] = {}
    for cut in _shared_prefixes(own):
        wanted = {name.removeprefix(cut): name for name in own if not name.endswith(TRACKED)}
        counts, fits = _prefixes(names, wanted, tensors, own)
        for prefix, count in counts.items():
            ranks[prefix, cut] = (count, fits[prefix], *_preference(prefix, role), -len(cut), -len(ranks))
    if not ranks:
        return "", "", []
    prefix, cut = max(ranks, key=lambda candidate: ranks[candidate])
    count, fit, *_ = ranks[prefix, cut]
    others = {p for (p, c), rank in ranks.items() if rank[:2] == (count, fit) and (c == cut and p != prefix)}
    return prefix, cut, sorted(others)


def _plain_names(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, str]:
    """Map the file's names without wrappers' parts, in the form of the current release, to the names in the file."""
    parts = {part for name in own for part in name.split(".")}
    wrappers = [w for w in WRAPPERS if w not in parts]
    plain = {
        ".".join(part for part in OLD_DENSENET.sub(r"\1", name).split(".") if part not in wrappers): name
        for name in tensors
    }
    return plain if len(plain) == len(tensors) else {name: name for name in tensors}


def _shared_prefixes(own: Iterable[str]) -> list[str]:
    """Return the prefixes common to all names of the network, which a file may lack; the empty one first."""
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
    """Return, by prefix, the number of wanted names under it, and the number of those with the right shape."""
    counts: Counter[str] = Counter()
    fits: Counter[str] = Counter()
    for plain, name in names.items():
        parts = plain.split(".")
        for depth in range(len(parts)):
            own_name = wanted.get(".".join(parts[depth:]))
            if own_name is not None:
                prefix = "".join(f"{part}." for part in parts[:depth])
                counts[prefix] += 1
                fits[prefix] += tensors[name].shape == own[own_name].shape
    return counts, fits


def _preference(prefix: str, role: str) -> tuple[int, int, int]:
    parts = prefix.lower()
    return (
        int(bool(role) and role in parts),
        int("best" in parts),
        int(any(word in parts for word in AVERAGES)),
    )


def _fill_from_elsewhere(
    found: MatchedTensors,
    names: Mapping[str, str],
    used: set[str],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    cut: str,
) -> None:
    """Match a head with another prefix than the body (`encoder.conv1.weight`, `fc.weight`) by the end of its names.

    Each missing name has to be the end of exactly one unused name of the same shape.
    """
    missing = {n.removeprefix(cut): n for n in own if n not in found.weights and not n.endswith(TRACKED)}
    if not missing or not found.weights:
        return
    candidates: defaultdict[str, list[str]] = defaultdict(list)
    for plain, name in names.items():
        parts = plain.split(".")
        for depth in range(len(parts)):
            end = ".".join(parts[depth:])
            if name not in used and end in missing and tensors[name].shape == own[missing[end]].shape:
                candidates[end].append(name)
    if all(len(candidates[end]) == 1 for end in missing):
        for end, name in missing.items():
            (source,) = candidates[end]
            found.weights[name] = tensors[source]
            if source != name:
                found.remarks.append(f"{name} is read from {source}")
            used.add(source)


def _remark(
    found: MatchedTensors, prefix: str, cut: str, others: list[str], used: set[str], left: list[str]
) -> None:
    selected = prefix.rstrip(".")
    used_parts, own_parts = (
        {part for n in names for part in n.split(".")} for names in (used, found.weights)
    )
    dropped = sorted(used_parts & set(WRAPPERS) - own_parts - set(prefix.split(".")))
    removed = [part for part in (*dropped, selected) if part not in CONTAINERS]
    if others:
        ignored = ", ".join(other.rstrip(".") or "the one at the top level" for other in others)
        network = selected or "the one at the top level"
        found.remarks.append(f"the file has several networks: {network} is used, not {ignored}")
    elif removed:
        found.remarks.append(f"removed from the names: {', '.join(removed)}")
    if cut:
        found.remarks.append(f"the names lack the network's prefix {cut.rstrip('.')}")
    reported = tuple(other for other in others if other)
    groups = Counter(
        _group(name) for name in left if not name.endswith(TRACKED) and not name.startswith(reported)
    )
    if groups:
        counted = [f"{group} ({count} tensors)" if count > 1 else group for group, count in groups.items()]
        more = f" and {len(counted) - 5} more" if len(counted) > 5 else ""
        found.remarks.append(f"ignored, not part of the network: {', '.join(counted[:5])}{more}")


def _group(name: str) -> str:
    parts = name.split(".")
    depth = 2 if parts[0] in CONTAINERS and len(parts) > 2 else 1
    return ".".join(parts[:depth])
