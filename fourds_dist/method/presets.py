"""Named settings of the method. A preset fills the keys of `method` that the user leaves out.

| preset          | method                                                                                             |
|-----------------|----------------------------------------------------------------------------------------------------|
| `4ds`           | this package's version of 4Ds, the default                                                         |
| `4ds_released`  | 4Ds as released, mistakes included, for fair comparison and for the test against released numbers  |
| `cross_entropy` | the student alone, from target labels; with `student.start: source` the fine-tuned student         |
| `distillation`  | plain distillation from the source teacher (arXiv 1503.02531); see `teacher_batch_norm`            |
| `fitnets`       | distillation and feature distillation (FitNets, arXiv 1412.6550)                                   |
| `adabn`         | BatchNorm statistics of the target in teacher and student (AdaBN, arXiv 1603.04779), no teaching   |

Two-stage methods are `adapt.method: fine_tune` or `mcc` followed by `distillation`. These keys switch a part off:
`adapters: false`, `phase_loss: none`, `kd_sample_weight: uniform`, `teacher_batch_norm: frozen`,
`untrained_warmup_power: 0`, `normalise_kd: never`.

EXPERIMENTS.md in this folder has the experiments behind `4ds`.
"""

from __future__ import annotations

from typing import Any

_WITHOUT_4DS: dict[str, Any] = {"adapters": False, "phase_loss": "none", "kd_sample_weight": "uniform"}

PRESETS: dict[str, dict[str, Any]] = {
    "4ds": {
        "teacher_batch_norm": "adapt",
        "phase_loss": "circular",
        "kd_sample_weight": "where_teacher_better_unlabelled",
        "untrained_warmup_power": 16.0,
        "normalise_kd": "untrained",
    },
    "4ds_released": {
        "teacher_batch_norm": "adapt",
        "phase_loss": "squared",
        "kd_sample_weight": "uniform",
    },
    "cross_entropy": _WITHOUT_4DS | {"teacher_batch_norm": "frozen", "kd_weight": 0.0},
    "distillation": _WITHOUT_4DS | {"teacher_batch_norm": "frozen"},
    "fitnets": _WITHOUT_4DS | {"teacher_batch_norm": "frozen", "feature_loss": "all"},
    "adabn": _WITHOUT_4DS | {"teacher_batch_norm": "adapt", "kd_weight": 0.0},
}

WITH_TARGET_LABELS: dict[str, Any] = {
    "domain_batch_norm": False,
    "infomax_weight": 0.0,
    "adapter_kd": "all",
}
"""The values that null stands for, also in presets without an entry below."""

WITHOUT_TARGET_LABELS: dict[str, dict[str, Any]] = {
    "4ds": {
        "domain_batch_norm": True,
        "infomax_weight": 1.0,
        "adapter_kd": "labelled",
    },
}
"""The values that null stands for by preset, in runs that use no training label of the target."""
