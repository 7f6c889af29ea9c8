"""The launch section: numbers of workers, labels of their nodes, and keys that contradict each other."""

from __future__ import annotations

import pytest

from fourds_dist.stages.launch_config import LaunchConfig


def test_workers_are_a_number_or_a_range() -> None:
    fixed, elastic = LaunchConfig(workers=3), LaunchConfig.model_validate_json('{"workers": [2, 4]}')
    assert (fixed.min_workers, fixed.max_workers) == (3, 3)
    assert (elastic.min_workers, elastic.max_workers) == (2, 4)
    with pytest.raises(ValueError, match=r"\[4, 2\] should be \[min, max\]"):
        LaunchConfig.model_validate_json('{"workers": [4, 2]}')


def test_deepspeed_has_its_own_key_for_what_gradients_travel_in() -> None:
    assert LaunchConfig(all_reduce="bfloat16").strategy == "ddp"
    with pytest.raises(ValueError, match=r"all_reduce is for strategy=ddp; see communication_data_type"):
        LaunchConfig(all_reduce="bfloat16", strategy="deepspeed")


def test_a_type_of_gpu_is_a_label_of_nodes() -> None:
    assert LaunchConfig().label_selector == {}
    assert LaunchConfig(accelerator_type="H100").label_selector == {"ray.io/accelerator-type": "H100"}
    with pytest.raises(ValueError, match="accelerator_type: H100 is a GPU, but use_gpu is false; set one"):
        LaunchConfig(accelerator_type="H100", use_gpu=False)


@pytest.mark.parametrize(
    "text",
    [
        '{"workers": 0}',
        '{"workers": [0, 2]}',
        '{"workers": [1, 2, 3]}',
        '{"cpus_per_worker": 0}',
        '{"wait_s": -1}',
    ],
)
def test_impossible_numbers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        LaunchConfig.model_validate_json(text)
