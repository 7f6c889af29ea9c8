"""Memory-saving layers: exactly PyTorch's values and gradients; stored tensors; cases in which they are not used."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fourds_dist.ops import memory_saving, nvrtc
from fourds_dist.ops.memory_saving import frozen_conv2d, relu_, relu_max_pool
from tests.ops import emulated_memory_saving as emulated_lean

DEVICES = ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)]
POOLS = [
    ((3, 3), (2, 2), (1, 1), (9, 7), False),  # kernel, stride, padding, size, ceil_mode; the stem of a ResNet
    ((2, 3), (1, 2), (0, 1), (6, 8), True),
    ((2, 2), (3, 3), (0, 0), (8, 9), True),  # gaps between windows
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "emulated":
        if shutil.which("g++") is None:
            pytest.skip("needs g++")
        emulated_lean.use(monkeypatch)
        return "cpu"
    return request.param


def draw(shape: tuple[int, ...], dtype: torch.dtype, device: str, *, seed: int = 0) -> Tensor:
    """Few different numbers, so that windows have ties and some nothing above zero; NaN and infinities."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-6, 4, shape, generator=generator).to(dtype) / 2
    x[0, 0, 2:4, 1:3], x[0, 1, 3, 3] = torch.nan, torch.inf
    x[-1, 2] = -torch.inf
    return x.to(device).contiguous(memory_format=torch.channels_last)


def result_and_gradient(function, x: Tensor) -> list[Tensor]:
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = function(x)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *torch.autograd.grad(out, x, g)]


def equal(x: Tensor, y: Tensor) -> None:
    torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("kernel", "stride", "padding", "size", "ceil_mode"), POOLS)
@pytest.mark.parametrize("relu", [True, False])
def test_max_pool_is_pytorchs(kernel, stride, padding, size, ceil_mode, relu: bool, device: str) -> None:
    x = draw((2, 8, *size), torch.float32, device)

    def plain(x: Tensor) -> Tensor:
        before = F.relu(x) if relu else x
        return F.max_pool2d(before, kernel, stride, padding, ceil_mode=ceil_mode)

    def ours(x: Tensor) -> Tensor:
        return relu_max_pool(x, kernel, stride, padding, relu=relu, ceil_mode=ceil_mode)

    # On a CPU, where sums of a pixel's windows have a known order.
    for got, expected in zip(result_and_gradient(ours, x), result_and_gradient(plain, x.cpu()), strict=True):
        assert got.is_contiguous(memory_format=torch.channels_last)
        equal(got.cpu(), expected)
    with torch.no_grad():
        equal(ours(x).cpu(), plain(x.cpu()))


def test_max_pool_in_bfloat16_sums_in_float32(device: str) -> None:
    x = draw((2, 16, 9, 7), torch.bfloat16, device, seed=1)
    ours = result_and_gradient(lambda x: relu_max_pool(x, (3, 3), (2, 2), (1, 1)), x)
    assert ours[0].dtype == ours[1].dtype == torch.bfloat16
    wide = x.float().requires_grad_()
    out = F.max_pool2d(F.relu(wide), 3, 2, 1)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(x).float()
    (grad,) = torch.autograd.grad(out, wide, g)
    equal(ours[0].float(), out.detach())
    torch.testing.assert_close(ours[1], grad.bfloat16(), rtol=2**-8, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_relu_is_pytorchs(dtype: torch.dtype, memory: torch.memory_format, device: str) -> None:
    x = draw((2, 8, 5, 7), dtype, device).contiguous(memory_format=memory)
    ours = result_and_gradient(lambda x: relu_(x * 1), x)
    plain = result_and_gradient(lambda x: F.relu_(x * 1), x)
    for got, expected in zip(ours, plain, strict=True):
        assert got.stride() == expected.stride()
        equal(got, expected)


def test_relu_is_in_place_and_marks_its_input_as_changed(device: str) -> None:
    x = draw((2, 8, 4, 4), torch.float32, device).requires_grad_()
    kept = x.exp()  # stores its result for its gradient
    out = relu_(kept)
    assert out.data_ptr() == kept.data_ptr()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("settings", [((1, 1), (1, 1), (1, 1), 1), ((2, 2), (0, 0), (1, 1), 2)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("target", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_frozen_convolution_is_pytorchs(settings, bias: bool, autocast: bool, target: str) -> None:
    x = torch.randn(2, 8, 9, 7, generator=torch.Generator().manual_seed(0))
    x = x.to(target, memory_format=torch.channels_last)
    weight = torch.randn(4, 8 // settings[-1], 3, 3, generator=torch.Generator().manual_seed(1)).to(
        target, memory_format=torch.channels_last
    )
    b = torch.ones(4, device=target) if bias else None

    def under_autocast(convolve):
        def run(x: Tensor) -> Tensor:
            with torch.autocast(target, torch.bfloat16, enabled=autocast):
                return convolve(x, weight, b, *settings)

        return run

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        ours = result_and_gradient(under_autocast(frozen_conv2d), x)
        plain = result_and_gradient(under_autocast(F.conv2d), x)
    for got, expected in zip(ours, plain, strict=True):
        assert got.dtype == expected.dtype
        equal(got, expected)


def test_a_convolution_that_learns_is_left_to_pytorch() -> None:
    x, weight = torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(2, 2, 3, 3, requires_grad=True)
    frozen_conv2d(x, weight, None, (1, 1), (0, 0), (1, 1), 1).sum().backward()
    assert weight.grad is not None


def kept_bytes(function, x: Tensor) -> int:
    """Tensors that autograd stores beyond those that existed before."""
    kept = {}
    x = x.detach().requires_grad_() * 1

    def note(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        function(x)
    return sum(kept.values())


def test_what_is_kept(device: str) -> None:
    x = draw((2, 8, 8, 8), torch.float32, device)
    weight = torch.ones(4, 8, 1, 1, device=device)
    assert kept_bytes(lambda x: relu_max_pool(x, (2, 2), (2, 2), (0, 0)), x) == x.numel() // 4
    assert kept_bytes(relu_, x) == x.numel() // 8
    convolved = kept_bytes(lambda x: frozen_conv2d(x, weight, None, (1, 1), (0, 0), (1, 1), 1), x)
    assert convolved == weight.numel() * 4


@pytest.mark.parametrize(
    "unfit",
    [
        torch.randn(2, 8, 6, 6),  # planes, not pixels
        torch.randn(2, 6, 6, 6).contiguous(memory_format=torch.channels_last),  # no multiple of sixteen bytes
        torch.randn(2, 8, 6, 6).double().contiguous(memory_format=torch.channels_last),
        torch.zeros(0, 8, 6, 6).contiguous(memory_format=torch.channels_last),
    ],
)
def test_maps_that_no_kernel_serves_go_to_pytorch(unfit: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = emulated_lean.use(monkeypatch)
    ours = result_and_gradient(lambda x: relu_max_pool(x, (3, 3), (2, 2), (1, 1)), unfit)
    plain = result_and_gradient(lambda x: F.max_pool2d(F.relu(x), 3, 2, 1), unfit)
    assert launched == []
    for got, expected in zip(ours, plain, strict=True):
        equal(got, expected)


def test_a_compiler_that_is_missing_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    emulated_lean.use(monkeypatch)
    monkeypatch.setattr(memory_saving, "build_error", lambda *_: "no NVRTC")
    x = draw((2, 8, 6, 6), torch.float32, "cpu").requires_grad_()
    with pytest.warns(RuntimeWarning, match="max_pool runs without memory saving, by PyTorch: no NVRTC"):
        relu_max_pool(x, (3, 3), (2, 2), (1, 1))
    relu_max_pool(x, (3, 3), (2, 2), (1, 1))


def test_nvrtc_accepts_the_kernels() -> None:
    try:
        nvrtc.compiler()
    except RuntimeError as error:
        pytest.skip(str(error))
    window = memory_saving.Window(64, (112, 112), (56, 56), (3, 3), (2, 2), (1, 1), True, True)
    for dtype in (torch.float32, torch.bfloat16):
        assert nvrtc.compile_source(memory_saving.pool_source(window, dtype), "sm_90")
        assert nvrtc.compile_source(memory_saving.relu_source(dtype), "sm_90")
