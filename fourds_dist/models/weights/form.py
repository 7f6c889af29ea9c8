"""Detection of weights in another form than a plain state dict (split, pruned, sharded, quantised), with the remedy."""

from __future__ import annotations

import re

from fourds_dist.models.weights.names import MatchedTensors

_SPLIT = (
    (
        r"(?:^|\.)parametrizations\.(\w+)\.",
        "parametrised",
        "torch.nn.utils.parametrize.remove_parametrizations",
    ),
    (r"(?:^|\.)((?:weight|bias)\w*)_mask$", "pruned", "torch.nn.utils.prune.remove"),
    (r"(?:^|\.)(weight\w*)_g$", "split by weight_norm", "torch.nn.utils.remove_weight_norm"),
    (r"(?:^|\.)(weight\w*)_(?:u|orig)$", "split by spectral_norm", "torch.nn.utils.remove_spectral_norm"),
)
"""Patterns of the names of tensors into which PyTorch splits a parameter (the group is the parameter's name), what the
weights are, and the function that joins them. The first pattern decides: pruned weights also have weight_orig."""

_FORMS = (
    (
        r"(^|[._])lora_",
        "it holds LoRA layers: merge them into the network (merge_and_unload) before saving",
    ),
    (
        r"(\._packed_params|\.zero_point|\.scale)",
        "it is quantised: give the weights from before quantisation",
    ),
)
"""Patterns of the tensors' names in each other form, and the remedy."""


def form_of(found: MatchedTensors) -> str | None:
    """Return the form of the file's weights with the remedy; None for a plain state dict."""
    if any(not t.numel() and t.dim() == 1 for t in found.weights.values()):
        return (
            "its tensors are empty, as in a file of one process under DeepSpeed ZeRO 3 or FSDP: gather the weights "
            "(zero_to_fp32.py in the checkpoint's folder, or a full state dict) and give the gathered file"
        )
    names = found.unknown if found.missing else ()
    for pattern, kind, function in _SPLIT:
        parameters = dict.fromkeys(match[1] for name in names if (match := re.search(pattern, name)))
        if parameters:
            calls = " and ".join(f"{function}(layer, {parameter!r})" for parameter in parameters)
            return f"its weights are {kind}: call {calls} on each such layer before saving"
    return next((what for form, what in _FORMS if any(re.search(form, name) for name in names)), None)
