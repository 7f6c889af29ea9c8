"""What is refused of launch and strategy before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from fourds_dist.settings import Settings
from fourds_dist.training.preflight import _check_launch, _check_networks


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run": {"patience_s": 900.0}}, "launch.collective_timeout_s=900 is not above run.patience_s=900"),
        ({"step": {"max_bad_steps": 1}}, "step.max_bad_steps does not go with launch.strategy=deepspeed"),
        ({"step": {"compile": True}}, "step.compile does not go with"),
        ({"distill": {"optim": {"max_grad_norm": 1.0}}}, "gradient_clipping in launch.deepspeed=zero1"),
        ({"launch": {"deepspeed": "zero7"}}, "launch.deepspeed=zero7: neither a file"),
    ],
)
def test_refused_by_name(given: dict[str, Any], message: str) -> None:
    tree = {"source": {"url": "x"}, "target": {"url": "y"}, **given}
    tree["launch"] = {"strategy": "deepspeed", **given.get("launch", {})}
    with pytest.raises(ValueError, match=message):
        _check_launch(Settings.model_validate(tree))


def test_what_goes_together_passes() -> None:
    _check_launch(Settings.model_validate({"launch": {"strategy": "deepspeed", "deepspeed": "zero3"}}))


def test_networks_without_blocks_cannot_run_them_again() -> None:
    tree = {"step": {"activation_checkpointing": True}, "teacher": {"arch": "resnet10"}}
    tree["student"] = {"arch": "tests.method.networks:vgg11_bn", "stages": ("features.7",)}
    tree["data"] = {"crop_px": 32, "resize_px": 36}
    with pytest.raises(ValueError, match=r"student: .*vgg11_bn is no list of blocks that could run again"):
        _check_networks(Settings.model_validate(tree), 5)
