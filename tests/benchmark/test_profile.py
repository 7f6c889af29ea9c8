"""`benchmark profile`: kinds of kernels, and the tables and JSON of a step's time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fourds_dist.benchmark.__main__ import main
from fourds_dist.benchmark.profile import kind_of
from tests.benchmark.test_step import SMALL


def test_kinds_of_kernels() -> None:
    kinds = {
        "fourier_mix_backward": "Fourier",
        "transpose": "Fourier",
        "void regular_fft_factor<56u, EPT>(...)": "Fourier",
        "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>": "optimisers",
        "void cudnn::bn_bw_1C11_kernel_new<__nv_bfloat16, float>": "BatchNorm",
        "batch_norm_transform_input_channels_last_kernel": "BatchNorm",
        "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc": "convolutions",
        "void cudnn::ops::nchwToNhwcKernel<float>": "convolutions",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float>": "LayerNorm",
        "void at::native::(anonymous namespace)::GammaBetaBackwardCUDAKernel": "LayerNorm",
        "void pytorch_flash::flash_fwd_kernel<...>": "attention",
        "max_pool_backward_nhwc": "pooling",
        "relu_backward": "pointwise, copies",
        "void at::native::vectorized_elementwise_kernel<4, BinaryFunctor>": "pointwise, copies",
        "Memcpy DtoD (Device -> Device)": "pointwise, copies",
        "something new": "other",
    }
    for kernel, kind in kinds.items():
        assert kind_of(kernel) == kind, kernel


@pytest.mark.slow
def test_a_profile_names_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["profile", *SMALL, "--batch", "2", "--json", str(tmp_path / "profile.json")])
    record = json.loads((tmp_path / "profile.json").read_text())
    shown = capsys.readouterr().out
    assert {"Fourier", "convolutions", "BatchNorm", "optimisers"} <= set(record["kinds_ms"])
    assert sum(record["kinds_ms"].values()) == pytest.approx(sum(record["kernels_ms"].values()))
    assert "convolutions" in shown
