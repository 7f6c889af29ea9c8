"""What the operators promise whatever the backend: registration, compilation, layouts, bad input, the chooser."""

import pytest
import torch
from torch import Tensor

from fourds_dist.ops import (
    backends,
    fourier_mix,
    phase_distance,
    pooled_phase,
)
from tests.ops.inputs import draw_maps, relative


def mix_weights() -> Tensor:
    return torch.tensor([0.3, 0.7], requires_grad=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck's own
@pytest.mark.parametrize("size", [(7, 7), (4, 6)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_registration_passes_opcheck(size: tuple[int, int], layout: torch.memory_format) -> None:
    h, a, _ = (
        x.contiguous(memory_format=layout).requires_grad_() for x in draw_maps((2, 3, *size), torch.float32)
    )
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        torch.ops.fourds.fourier_mix.default, (h, a, mix_weights(), "eager"), test_utils=checks
    )
    torch.library.opcheck(torch.ops.fourds.pooled_phase.default, (h, 2, 2, "eager"), test_utils=checks)
    torch.library.opcheck(
        torch.ops.fourds.phase_distance.default, (h, a.detach(), "eager"), test_utils=checks
    )
    torch.library.opcheck(
        torch.ops.fourds.phase_distance_and_slope.default, (h, a.detach()), test_utils=checks
    )


@pytest.mark.parametrize("size", [7, 20])
def test_results_repeat_bit_for_bit(size: int) -> None:
    """Also where PyTorch fills what is left uninitialised with NaN, as its deterministic mode does."""
    h, a, g = draw_maps((3, 5, size, size), torch.float32)
    both = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            x, y, w = h.clone().requires_grad_(), a.clone().requires_grad_(), mix_weights()
            out = fourier_mix(x, y, w)
            pooled, distance = pooled_phase(x, (2, 2)), phase_distance(x, a)
            grads = torch.autograd.grad((out * g).sum() + pooled.sum() + distance.sum(), (x, y, w))
            both.append([out, pooled, distance, *grads])
        finally:
            torch.use_deterministic_algorithms(False)
    assert all(torch.equal(x, y) for x, y in zip(*both, strict=True))
    assert all(bool(x.isfinite().all()) for x in both[1])


def test_lower_precision_of_matrix_products_leaves_transforms_alone() -> None:
    h, a, _ = draw_maps((2, 3, 7, 7), torch.float32)
    exact = fourier_mix(h.double(), a.double(), mix_weights().double(), backend="reference")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert relative(fourier_mix(h, a, mix_weights(), backend="eager"), exact) < 1e-6
    finally:
        torch.set_float32_matmul_precision(before)


def test_one_compiled_graph_holds_all_three() -> None:
    h, a, g = draw_maps((2, 4, 6, 6), torch.float32)
    mix = mix_weights().detach()

    def step(h: Tensor, a: Tensor) -> Tensor:
        mixed = fourier_mix(h * 2, a, mix)
        return (mixed * g).sum() + pooled_phase(mixed, (3, 3)).square().sum() + phase_distance(h, a).mean()

    results = []
    for call in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        x = h.clone().requires_grad_()
        y = call(x, a)
        results.append((y.detach(), *torch.autograd.grad(y, x)))
    for x, y in zip(*results, strict=True):
        assert relative(x, y) < 1e-5


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_results_take_the_layout_of_their_map(backend: str) -> None:
    h, a, g = draw_maps((2, 4, 6, 8), torch.float32)
    last = [x.contiguous(memory_format=torch.channels_last).requires_grad_() for x in (h, a)]
    out = fourier_mix(*last, mix_2=mix_weights(), backend=backend)
    assert relative(out, fourier_mix(h, a, mix_weights(), backend=backend)) < 1e-6
    if backend == "eager":
        grads = torch.autograd.grad(out, last, g)
        grads += torch.autograd.grad(phase_distance(*last).sum(), last[0])
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (out, *grads))


def test_views_give_what_their_copies_give() -> None:
    h, a, _ = draw_maps((3, 4, 9, 11), torch.float32)
    views = h[:, ::2, 1:, 2::3], a.flip(0)[:, ::2, 1:, 2::3]
    copies = tuple(x.contiguous() for x in views)
    assert torch.equal(fourier_mix(*views, mix_2=mix_weights()), fourier_mix(*copies, mix_2=mix_weights()))
    assert torch.equal(phase_distance(*views), phase_distance(*copies))
    transposed = h.transpose(2, 3)
    assert torch.equal(pooled_phase(transposed, (2, 2)), pooled_phase(transposed.contiguous(), (2, 2)))


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_an_empty_batch_gives_an_empty_result(backend: str) -> None:
    h, a = (torch.zeros(0, 3, 7, 7, requires_grad=True) for _ in range(2))
    mix = mix_weights()
    out = fourier_mix(h, a, mix, backend=backend)
    grads = torch.autograd.grad(out.sum(), (h, a, mix))
    assert out.shape == grads[0].shape == grads[1].shape == (0, 3, 7, 7)
    assert not grads[2].any()
    assert pooled_phase(h, (2, 2), backend=backend).shape == (0, 3, 2, 2)
    assert phase_distance(h, a, backend=backend).shape == (0, 3)


@pytest.mark.parametrize("backend", ["eager", "reference"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_and_infinity_stay_in_their_own_map(backend: str, value: float) -> None:
    h, a, _ = draw_maps((2, 3, 6, 6), torch.float32)
    h[0, 1, 2, 3] = value
    bad = ~fourier_mix(h, a, mix_weights(), backend=backend).isfinite().all(-1).all(-1)
    assert bad.nonzero().tolist() == [[0, 1]]
    assert (~phase_distance(h, a, backend=backend).isfinite()).nonzero().tolist() == [[0, 1]]
    bad = ~pooled_phase(h, (6, 6), backend=backend).isfinite().all(-1).all(-1)
    assert bad.nonzero().tolist() in (
        [[0, 1]],
        [] if value == torch.inf else None,
    )  # angles of infinity are finite


def test_only_gradients_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = backends.eager.fourier_mix_backward

    def spy(g, h, a, mix, *needs):
        asked.append(needs)
        return original(g, h, a, mix, *needs)

    monkeypatch.setattr(backends.eager, "fourier_mix_backward", spy)
    h, a, _ = draw_maps((1, 2, 4, 4), torch.float32)
    mix = mix_weights()
    a.requires_grad_()
    out = fourier_mix(h, a, mix, backend="eager")
    torch.autograd.grad(out.sum(), (a, mix))
    assert asked == [(False, True, True)]


def test_mixed_dtypes_under_autocast_keep_the_wider_one_inside() -> None:
    h, a, _ = draw_maps((1, 2, 6, 6), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = fourier_mix(h, a.bfloat16(), mix_weights())
        pooled = pooled_phase(h, (3, 3))
    assert mixed.dtype == pooled.dtype == torch.float32
    assert relative(mixed, fourier_mix(h, a.bfloat16().float(), mix_weights())) == 0.0
    assert relative(pooled, pooled_phase(h, (3, 3))) == 0.0  # its products were not cast to bfloat16
