"""DeepSpeed still has each undocumented attribute that `deepspeed_private` uses. What they do, `test_base` runs."""

from __future__ import annotations

import inspect

import pytest

pytest.importorskip("deepspeed")


def test_stages_1_and_2() -> None:
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer as Zero

    for method in (
        "_lazy_init_hp_params_optimizer_state",
        "setup_buckets",
        "reduce_gradients",
        "set_gradient_accumulation_boundary",
    ):
        assert callable(getattr(Zero, method, None)), method
    source = inspect.getsource(Zero)
    for attribute in ("single_partition_of_fp32_groups", "_grad_acc_hooks", "overflow"):
        assert f"self.{attribute}" in source, attribute


def test_stage_3() -> None:
    from deepspeed.runtime.zero import partition_parameters
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3 as Zero

    source = inspect.getsource(Zero)
    for attribute in ("fp32_partitioned_groups_flat", "sub_group_to_group_id", "overflow"):
        assert f"self.{attribute}" in source, attribute
    assert "ds_shape" in inspect.getsource(partition_parameters)


def test_the_engine_and_fragments_of_parameters() -> None:
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.utils import mixed_precision_linkage, tensor_fragment

    assert callable(DeepSpeedEngine.set_gradient_accumulation_boundary)
    assert "_hp_mapping" in inspect.getsource(mixed_precision_linkage)
    assert "lp_fragment" in inspect.getsource(tensor_fragment)
