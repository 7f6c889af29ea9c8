"""The decision whether an exported file is close enough to its student to be written."""

from __future__ import annotations

from typing import Any

import pytest

from fourds_dist.inference.export.exported import CLOSE, LEAST_AGREEMENT, Exported


def exported(format_: str, **changes: Any) -> Exported:
    same: dict[str, Any] = {"error": 0.0, "agreement": 1.0, "accuracy": 0.9, "student_accuracy": 0.9}
    return Exported(format_, "file", 1, 1.0, num_images=100, **(same | changes))


@pytest.mark.parametrize("format_", ["safetensors", "torch-export", "onnx", "int8"])
def test_equal_outputs_are_written(format_: str) -> None:
    assert exported(format_).refusal(0.0) is None


def test_formats_without_quantisation_have_the_student_s_outputs() -> None:
    assert exported("onnx", error=CLOSE).refusal(0.0) is None
    assert exported("onnx", error=0.5).refusal(1.0) == (
        "its outputs differ from the student's: logits by up to 0.5 standard deviations (allowed: 0.001), "
        "and 0.0% of the predictions"
    )
    refused = exported("torch-export", agreement=0.98, accuracy=0.95).refusal(1.0)
    assert refused is not None
    assert refused.endswith("and 2.0% of the predictions")


def test_a_quantised_format_may_lose_some_accuracy_and_some_agreement() -> None:
    least = LEAST_AGREEMENT["int8"]
    assert exported("int8", error=3.0, agreement=least, accuracy=0.89).refusal(0.02) is None
    assert exported("int8", accuracy=0.95).refusal(0.0) is None  # a gain is no loss
    loses = exported("int8", accuracy=0.8, agreement=0.5).refusal(0.05)
    assert loses == "it loses 10.0 points of accuracy (allowed: 5.0)"
    differs = exported("int8", agreement=0.94).refusal(0.05)
    assert differs == "it agrees with the student on only 94.0% of the images (least: 95%)"
