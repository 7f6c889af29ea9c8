"""What batch_norm_act promises whatever the backend: values, registration, bad input, stored tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fourds_dist.ops import use_backend
from fourds_dist.ops.norm import ACTIVATIONS, batch_norm_act, operators
from tests.ops.inputs import relative
from tests.ops.norm import cases
from tests.ops.norm.cases import MODES, SHAPES, Case


@pytest.mark.parametrize("backend", ["eager", "reference"])
@pytest.mark.parametrize("case", [*MODES, *SHAPES], ids=str)
def test_results_and_gradients_are_pytorchs_in_float64(case: Case, backend: str) -> None:
    if backend == "reference" and case.dtype == torch.bfloat16:
        pytest.skip("PyTorch rounds to bfloat16 after every function")
    cases.check(case, backend)


@given(
    shape=st.tuples(*(st.integers(1, n) for n in (4, 20, 6, 6))),
    activation=st.sampled_from(list(ACTIVATIONS)),
    flags=st.tuples(*(st.booleans() for _ in range(4))),
    momentum=st.none() | st.floats(0, 1),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 10**6),
)
def test_any_map(shape, activation, flags, momentum, layout, seed: int) -> None:
    residual, training, affine, learns = flags
    training = training and shape[0] * shape[2] * shape[3] > 1
    case = Case(activation, residual, training, affine, learns, shape, torch.float64, momentum, layout, seed)
    inputs = cases.draw(case)
    got, exact = (cases.results(case, inputs, backend, torch.float64) for backend in ("eager", "reference"))
    for name in exact:
        torch.testing.assert_close(got[name], exact[name], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("has_residual", [True, False])
def test_gradcheck(activation: str, training: bool, has_residual: bool) -> None:
    inputs = cases.draw(Case(shape=(2, 3, 3, 2), dtype=torch.float64))
    assert inputs.residual is not None
    maps = [inputs.x, inputs.weight, inputs.bias, inputs.residual if has_residual else None]

    def call(*leaves: Tensor | None) -> Tensor:
        x, weight, bias, residual = leaves
        statistics = inputs.running_mean.double(), inputs.running_var.double()
        how = {"residual": residual, "activation": activation, "training": training, "backend": "eager"}
        return batch_norm_act(x, *statistics, weight, bias, **how)

    leaves = [t if t is None else t.double().requires_grad_() for t in maps]
    assert torch.autograd.gradcheck(call, leaves)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck's own
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("keeps_bits", [True, False])
def test_registration_passes_opcheck(layout: torch.memory_format, keeps_bits: bool) -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    case = Case(shape=(2, 3, 4, 5), layout=layout)
    inputs = cases.draw(case)
    x, weight, bias = inputs.x.requires_grad_(), inputs.weight, inputs.bias
    assert weight is not None
    assert bias is not None
    mean, var = x.detach().mean((0, 2, 3)), x.detach().var((0, 2, 3))
    affine = weight.requires_grad_(), bias.requires_grad_()
    residual = inputs.residual if keeps_bits else None
    last = (1e-5, "relu", True, keeps_bits, "eager")
    torch.library.opcheck(
        torch.ops.fourds.norm_act.default, (x, mean, var, *affine, residual, *last), test_utils=checks
    )
    running = (inputs.running_mean, inputs.running_var, inputs.num_batches)
    for statistics, momentum in ((running, 0.1), (running, None), ((None, None, None), 0.1)):
        torch.library.opcheck(
            torch.ops.fourds.batch_statistics.default,
            (x.detach(), *statistics, momentum, "eager"),
            test_utils=checks,
        )


@pytest.mark.parametrize("training", [True, False])
def test_one_compiled_graph(training: bool) -> None:
    case = Case(training=training)
    inputs = cases.draw(case)

    def step(x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
        buffers = running_mean, running_var
        how = {"residual": inputs.residual, "activation": "relu", "training": training, "backend": "eager"}
        return batch_norm_act(x * 2, *buffers, inputs.weight, inputs.bias, **how).square()

    got = []
    for call in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        x, *buffers = (
            inputs.x.clone().requires_grad_(),
            inputs.running_mean.clone(),
            inputs.running_var.clone(),
        )
        y = call(x, *buffers)
        got.append([y.detach(), *torch.autograd.grad(y.sum(), x), *buffers])
    for a, b in zip(*got, strict=True):
        assert relative(a, b) < 1e-6


@pytest.mark.parametrize("backend", ["eager", "reference"])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_are_those_of_a_layer(backend: str, momentum: float | None) -> None:
    layer = nn.BatchNorm2d(4, momentum=momentum)
    buffers = [b.clone() for b in layer.buffers()]
    for seed in range(3):
        x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) * 3 + 1
        expected = layer(x)
        got = batch_norm_act(
            *(x, *buffers[:2], layer.weight, layer.bias),
            training=True,
            momentum=momentum,
            num_batches=buffers[2],
            backend=backend,
        )
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    for buffer, expected in zip(buffers, layer.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("backend", [None, "eager"])
def test_bad_arguments_are_named(backend: str | None) -> None:
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match="unknown activation 'gelu': choose one of none, relu"):
        batch_norm_act(x, None, None, training=True, activation="gelu", backend=backend)
    with pytest.raises(ValueError, match="needs running_mean and running_var"):
        batch_norm_act(x, None, None, backend=backend)
    with pytest.raises(ValueError, match=r"\(1, 3, 1, 1\) has one value per channel"):
        batch_norm_act(x[:1, :, :1, :1], None, None, training=True, backend=backend)


def test_a_second_derivative_is_refused_by_name() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    y = batch_norm_act(x, None, None, training=True, activation="silu", backend="eager")
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"fourds\.norm_act_backward"):
        grad.sum().backward()


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_an_empty_batch_gives_an_empty_result(backend: str) -> None:
    x = torch.zeros(0, 3, 4, 4, requires_grad=True)
    y = batch_norm_act(x, torch.zeros(3), torch.ones(3), activation="relu", backend=backend)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert y.shape == grad.shape == (0, 3, 4, 4)


def test_a_residual_that_is_broadcast_or_wider_follows_pytorchs_rules() -> None:
    x = torch.randn(2, 3, 4, 4)
    expected = torch.nn.functional.batch_norm(x, None, None, training=True)
    for residual in (torch.randn(1, 3, 1, 1), torch.randn(2, 3, 4, 4, dtype=torch.float64)):
        got = batch_norm_act(x, None, None, residual=residual, training=True, backend="eager")
        assert got.dtype == residual.dtype
        torch.testing.assert_close(got, expected + residual)


def stored_bytes(case: Case, backend: str) -> dict[torch.dtype, int]:
    """Return the bytes that autograd stores for a call, apart from its inputs, by dtype."""
    inputs = cases.draw(case)
    given = {id(t.untyped_storage()): t for t in vars(inputs).values() if t is not None}
    known = {t.untyped_storage().data_ptr() for t in given.values()}
    kept: dict[int, Tensor] = {}

    def note(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in known:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    inputs.x.requires_grad_()
    buffers = inputs.running_mean, inputs.running_var
    how = {"residual": inputs.residual, "activation": case.activation, "training": case.training}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        y = batch_norm_act(inputs.x, *buffers, inputs.weight, inputs.bias, **how, backend=backend)
    assert y.requires_grad
    sizes: dict[torch.dtype, int] = {}
    for t in kept.values():
        sizes[t.dtype] = sizes.get(t.dtype, 0) + t.numel() * t.element_size()
    return sizes


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_nothing_but_statistics_and_bits_is_stored(activation: str) -> None:
    shape = (2, 16, 6, 6)
    statistics = {torch.float32: 2 * 4 * 16}
    alone = stored_bytes(Case(activation, residual=False, shape=shape), "eager")
    assert alone == statistics
    after_sum = stored_bytes(Case(activation, residual=True, shape=shape), "eager")
    bits = {torch.uint8: 2 * 16 * 6 * 6 // 8} if activation in ("relu", "relu6") else {}
    assert after_sum == statistics | bits
    assert stored_bytes(Case(activation, residual=False, training=False, shape=shape), "eager") == {}
    if activation in ("relu", "relu6"):
        assert stored_bytes(Case(activation, shape=shape), "reference")[torch.float32] > 2 * 4 * 16 * 6 * 6


def test_only_gradients_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = operators._norm_act_backward

    def spy(*arguments):
        asked.append(arguments[-4:-1])
        return original(*arguments)

    monkeypatch.setattr(operators, "_norm_act_backward", spy)
    for learns, activation in ((True, "relu"), (False, "relu"), (False, "none")):
        case = Case(activation, learns=learns)
        cases.results(case, cases.draw(case), "eager")
    assert asked == [(True, True, True), (True, True, False), (True, False, False)]


def test_the_context_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(
        operators.reference, "batch_norm_act", lambda x, *_, **__: called.append("reference") or x
    )
    x = torch.randn(2, 3, 4, 4)
    batch_norm_act(x, None, None, training=True)
    with use_backend("eager"):
        batch_norm_act(x, None, None, training=True)
    assert called == ["reference"]
    with pytest.warns(
        RuntimeWarning, match="by PyTorch's functions instead of the fused backend: the map is not"
    ):
        batch_norm_act(x, None, None, training=True, backend="fused")
    assert called == ["reference", "reference"]
