"""Named settings of the method. A preset fills the keys of `method` that the user leaves out.

| preset          | what it is                                                                                      |
|-----------------|-------------------------------------------------------------------------------------------------|
| `mended`        | ours, the default                                                                               |
| `authors`       | 4Ds as released, mistakes included, for fair comparison and for the fixture that checks us      |
| `cross_entropy` | the student alone, from target labels; with `student.start: source` the fine-tuned student      |
| `distillation`  | plain distillation from the teacher as it is (arXiv 1503.02531); `teacher_batch_norm` chooses   |
| `hint`          | distillation and feature hints (FitNets, arXiv 1412.6550)                                       |

Two-stage methods are `adapt.method: fine_tune` or `mcc` followed by `distillation`. A part left out is a key changed:
`adapters: false`, `phase_loss: none`, `trust: all`, `teacher_batch_norm: frozen`, `apprenticeship: 0`,
`balance: never`.

EXPERIMENTS.md beside this file has the trials that settled `mended`.
"""

from __future__ import annotations

from typing import Any

_WITHOUT_4DS: dict[str, Any] = {"adapters": False, "phase_loss": "none", "trust": "all"}

PRESETS: dict[str, dict[str, Any]] = {
    "mended": {
        "teacher_batch_norm": "adapt",
        "phase_loss": "circular",
        "trust": "surer",
        "apprenticeship": 16.0,
        "balance": "novices",
    },
    "authors": {
        "teacher_batch_norm": "adapt",
        "phase_loss": "squared",
        "trust": "all",
    },
    "cross_entropy": _WITHOUT_4DS | {"teacher_batch_norm": "frozen", "distillation_weight": 0.0},
    "distillation": _WITHOUT_4DS | {"teacher_batch_norm": "frozen"},
    "hint": _WITHOUT_4DS | {"teacher_batch_norm": "frozen", "hint": "all"},
}
