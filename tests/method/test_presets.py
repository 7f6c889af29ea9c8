"""Presets of the method: their keys exist, users' keys win over them, and every preset trains."""

from __future__ import annotations

import pytest
import torch

from fourds_dist.config.loading import load
from fourds_dist.config.section import ConfigError
from fourds_dist.method import MethodConfig
from fourds_dist.method import presets as module
from fourds_dist.method.presets import PRESETS
from tests.method.test_fourds import batch, make


def test_the_table_of_the_module_has_every_preset() -> None:
    assert module.__doc__ is not None
    rows = [line.split("|")[1].strip() for line in module.__doc__.splitlines() if line.startswith("| `")]
    assert rows == [f"`{name}`" for name in PRESETS]


def test_presets_fill_what_the_user_leaves_out() -> None:
    assert load(MethodConfig, None, ["preset=4ds_released"]).phase_loss == "squared"
    mixed = load(MethodConfig, None, ["preset=4ds_released", "kd_sample_weight=teacher_confidence"])
    assert (mixed.phase_loss, mixed.kd_sample_weight) == ("squared", "teacher_confidence")
    with pytest.raises(ConfigError, match="preset"):
        load(MethodConfig, None, ["preset=ours"])


def test_every_preset_s_keys_exist_and_every_preset_trains() -> None:
    for preset in PRESETS:
        config = load(MethodConfig, None, [f"preset={preset}"])
        assert PRESETS[preset].items() <= config.model_dump().items()
        output = make(preset=preset)(*batch())
        assert torch.isfinite(output.loss)
