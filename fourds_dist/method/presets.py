"""Named settings of the method. A preset fills the keys of `method` that the user leaves out.

`authors` is the released code, mistakes included, for fair comparison and for the fixture that checks this package
against it. `mended` is the default. What each choice is for is said at its key in `MethodConfig`.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "authors": {
        "teacher_batch_norm": "adapt",
        "phase_loss": "squared",
        "trust": "all",
    },
    "mended": {
        "teacher_batch_norm": "adapt",
        "phase_loss": "circular",
        "trust": "right",
    },
}
