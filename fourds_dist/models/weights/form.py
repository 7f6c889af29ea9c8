"""Detection of weights in another form than a plain state dict (split, pruned, sharded, quantised), with the remedy."""

from __future__ import annotations

import re

from fourds_dist.models.weights.names import MatchedTensors

_BEFORE_SAVING = "on each such layer before saving"
_FORMS = (
    (
        r"\.parametrizations\.",
        f"its weights are parametrised: call torch.nn.utils.parametrize.remove_parametrizations {_BEFORE_SAVING}",
    ),
    (
        r"\.weight_[gv]$",
        f"its weights are split by weight_norm: call torch.nn.utils.remove_weight_norm {_BEFORE_SAVING}",
    ),
    (
        r"\.weight_mask$",
        f"its weights are pruned: call torch.nn.utils.prune.remove(layer, 'weight') {_BEFORE_SAVING}",
    ),
    (
        r"\.weight_(u|orig)$",
        f"its weights are split by spectral_norm: call torch.nn.utils.remove_spectral_norm {_BEFORE_SAVING}",
    ),
    (
        r"(^|[._])lora_",
        "it holds LoRA layers: merge them into the network (merge_and_unload) before saving",
    ),
    (
        r"(\._packed_params|\.zero_point|\.scale)",
        "it is quantised: give the weights from before quantisation",
    ),
)
"""Patterns of the tensors' names in each form, and the remedy."""


def form_of(found: MatchedTensors) -> str | None:
    """Return the form of the file's weights with the remedy; None for a plain state dict."""
    if any(not t.numel() and t.dim() == 1 for t in found.weights.values()):
        return (
            "its tensors are empty, as in a file of one process under DeepSpeed ZeRO 3 or FSDP: gather the weights "
            "(zero_to_fp32.py in the checkpoint's folder, or a full state dict) and give the gathered file"
        )
    names = found.unknown if found.missing else ()
    return next((what for form, what in _FORMS if any(re.search(form, name) for name in names)), None)
