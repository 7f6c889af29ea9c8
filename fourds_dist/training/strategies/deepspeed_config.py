"""DeepSpeed's configuration: a built-in one or a file, without the sections that the keys of the run determine."""

from __future__ import annotations

from typing import Any

from fourds_dist.config.loading import builtin_config, parsed
from fourds_dist.config.section import ConfigError
from fourds_dist.io.error_text import one_line
from fourds_dist.io.storage import locate

OURS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "optimizer",
    "scheduler",
)
"""Sections that the keys of the run determine."""


def read_config(name: str) -> dict[str, Any]:
    """Read a DeepSpeed configuration by the name of a built-in one, or by the path or URL of a JSON or YAML file.

    Raises:
        ValueError: the file cannot be read, or has a section that the keys of the run determine.
    """
    key = f"launch.deepspeed={name}"
    local = builtin_config(f"deepspeed/{name}.yaml")
    url = str(local) if "/" not in name and local.exists() else name
    try:
        fs, path = locate(url)
        content: Any = fs.cat_file(path)
        config = parsed(content.decode(), key).tree  # JSON is YAML
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in builtin_config("deepspeed").glob("*.yaml")))
        raise ValueError(f"{key}: neither a file nor a built-in configuration ({known})") from None
    except (ConfigError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{key} is neither JSON nor YAML with DeepSpeed's sections: {one_line(error)}"
        ) from None
    for section in OURS:
        if section in config:
            raise ValueError(
                f"{key} has {section!r}, which the keys of the run determine; remove {section!r}"
            )
    for section in ("fp16", "bf16"):
        if section in config:
            raise ValueError(f"{key} has {section!r}; remove {section!r} and set step.precision")
    return config
