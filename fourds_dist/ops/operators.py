"""The registered operators: public functions, schemas, fake implementations, gradients.

Each operator is two torch.library ops, forward and backward, in the namespace `fourds`. Both are opaque to
torch.compile, so no complex tensor is in a graph. The forward saves only its inputs; recomputing the rest in the
backward is cheaper than reading stored tensors. The ops select the backend at run time. On a CPU `phase_distance` has a
third op, which computes the gradient together with the distance.

Equation numbers refer to fourds_dist/method/README.md.

Shape suffixes: B batch, C channels, H and W height and width of a map, U and V those of the pooled map.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fourds_dist.ops import arguments, eager, reference
from fourds_dist.ops.backends import released, requested, resolve, without_autocast
from fourds_dist.ops.spectrum import working_dtype


def fourier_mix(
    h_BCHW: Float[Tensor, "B C H W"],
    a_BCHW: Float[Tensor, "B C H W"],
    mix_2: Float[Tensor, "2"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "B C H W"]:
    """Mix the amplitudes of two maps under the phase of the first (Eq. 4, 5), for the Fourier adapter.

    out = F^-1( (w0 |F(a)| + w1 |F(h)|) exp(i angle F(h)) ), with F the 2-D DFT over the last two axes.

    Args:
        h_BCHW: map of the backbone, with the phase, and the amplitude of weight w1.
        a_BCHW: map of the adapter, with the amplitude of weight w0.
        mix_2: weights (w0, w1) after the softmax; the gradient is with respect to these weights.
        backend: one of `BACKENDS`; the default depends on device, dtype and size.

    >>> h, a = torch.randn(2, 8, 7, 7), torch.randn(2, 8, 7, 7)
    >>> torch.allclose(fourier_mix(h, a, torch.tensor([0.0, 1.0])), h, atol=1e-3)  # amplitude of h only
    True

    Returns:
        The mixed map, in the dtype and memory format of `h_BCHW`. Only gradients of inputs that require one are
        computed.

    Raises:
        ValueError: complex or integer maps, unequal shapes or devices, more than 2^31 - 1 elements.
    """
    arguments.check_pair("h_BCHW", h_BCHW, "a_BCHW", a_BCHW)
    arguments.check_mix(mix_2, h_BCHW)
    dtype = arguments.common_dtype(h_BCHW, a_BCHW)
    name = requested(backend)
    if released(name, h_BCHW):
        with without_autocast(h_BCHW):
            return reference.fourier_mix(h_BCHW.to(dtype), a_BCHW.to(dtype), mix_2).to(h_BCHW.dtype)
    return _fourier_mix(h_BCHW.to(dtype), a_BCHW.to(dtype), mix_2, name).to(h_BCHW.dtype)


def pooled_phase(
    h_BCHW: Float[Tensor, "B C H W"], output_size: tuple[int, int], *, backend: str | None = None
) -> Float[Tensor, "B C U V"]:
    """Average the phases of the spectrum over the cells of an adaptive pool (Eq. 6, 7).

    P = adaptive_avg_pool2d(angle F(h), (U, V)) over the full spectrum, rows and columns in the order of the DFT.

    Args:
        h_BCHW: the map.
        output_size: (U, V), numbers of cells over rows and columns; may exceed the size of the map.
        backend: one of `BACKENDS`; the default depends on device, dtype and size.

    >>> pooled_phase(torch.randn(2, 8, 56, 56), (7, 7)).shape
    torch.Size([2, 8, 7, 7])

    Returns:
        Mean phases in radians, in [-pi, pi]; float32, or float64 for a float64 map.

    Raises:
        ValueError: a complex or integer map, an output size below 1, more than 2^31 - 1 elements.
    """
    arguments.check_map("h_BCHW", h_BCHW)
    num_rows, num_columns = arguments.check_output_size(output_size)
    name = requested(backend)
    if released(name, h_BCHW):
        with without_autocast(h_BCHW):
            return reference.pooled_phase(h_BCHW, (num_rows, num_columns))
    return _pooled_phase(h_BCHW, num_rows, num_columns, name)


def phase_distance(
    h_student_BCHW: Float[Tensor, "B C H W"],
    h_teacher_BCHW: Float[Tensor, "B C H W"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "B C"]:
    """Return the circular distance of two maps' phases, weighted by the teacher's amplitude (Eq. 11).

    d = sum_k A_k (1 - cos(angle S_k - angle T_k)) / sum_k A_k, with S = F(h_student), T = F(h_teacher), A = |T|, over
    the full spectrum without DC (after a ReLU the mean outweighs every other bin, and its phase is always 0). The
    computation needs no angles: A (1 - cos) = |T| - Re(S conj T) / |S|, where |S| is at least sqrt(1e-5).

    Args:
        h_student_BCHW: map of the student, which receives the gradient.
        h_teacher_BCHW: map of the teacher, treated as constant.
        backend: one of `BACKENDS`; the default depends on device, dtype and size.

    >>> h = torch.randn(2, 8, 7, 7)
    >>> [round(phase_distance(x, h).mean().abs().item(), 2) for x in (3 * h, -h)]  # other amplitude, opposite phase
    [0.0, 2.0]

    Returns:
        One distance per image and channel, 0 (same phases) to 2 (opposite); about 1 for unrelated maps. Distance and
        gradient are 0 where the teacher's channel is constant (sum of amplitudes below sqrt(1e-5)), as on a 1x1 map.
        float32, or float64 for float64 maps.

    Raises:
        ValueError: complex or integer maps, unequal shapes or devices, more than 2^31 - 1 elements.
    """
    arguments.check_pair("h_student_BCHW", h_student_BCHW, "h_teacher_BCHW", h_teacher_BCHW)
    dtype = arguments.common_dtype(h_student_BCHW, h_teacher_BCHW)
    student, teacher = h_student_BCHW.to(dtype), h_teacher_BCHW.detach().to(dtype)
    name = requested(backend)
    if released(name, h_student_BCHW):
        with without_autocast(h_student_BCHW):
            return reference.phase_distance(student, teacher)
    on_cpu = student.device.type == "cpu" and name != "fused"
    if on_cpu and student.requires_grad and torch.is_grad_enabled():
        return _phase_distance_and_slope(student, teacher)[0]
    return _phase_distance(student, teacher, name)


# fourier_mix


@torch.library.custom_op("fourds::fourier_mix", mutates_args=())
def _fourier_mix(h: Tensor, a: Tensor, mix: Tensor, backend: str) -> Tensor:
    with without_autocast(h):
        return as_map(resolve(backend, "fourier_mix", h).fourier_mix(h, a, mix), h)


@_fourier_mix.register_fake
def _(h: Tensor, a: Tensor, mix: Tensor, backend: str) -> Tensor:
    return empty_map(h)


@torch.library.custom_op("fourds::fourier_mix_backward", mutates_args=())
def _fourier_mix_backward(
    g: Tensor, h: Tensor, a: Tensor, mix: Tensor, need_h: bool, need_a: bool, need_mix: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    with without_autocast(h):
        gh, ga, gmix = resolve(backend, "fourier_mix", h).fourier_mix_backward(
            g, h, a, mix, need_h, need_a, need_mix
        )
    nothing = g.new_empty(0)
    return (
        as_map(gh, h) if need_h else nothing,
        as_map(ga, a) if need_a else nothing.clone(),
        gmix.to(mix.dtype) if need_mix else nothing.clone(),
    )


@_fourier_mix_backward.register_fake
def _(
    g: Tensor, h: Tensor, a: Tensor, mix: Tensor, need_h: bool, need_a: bool, need_mix: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        empty_map(h) if need_h else g.new_empty(0),
        empty_map(a) if need_a else g.new_empty(0),
        mix.new_empty(2) if need_mix else g.new_empty(0),
    )


def _save_fourier_mix(ctx, inputs, output) -> None:
    h, a, mix, ctx.backend = inputs
    ctx.save_for_backward(h, a, mix)


def _differentiate_fourier_mix(ctx, g: Tensor):
    needs = ctx.needs_input_grad[:3]
    grads = _fourier_mix_backward(g, *ctx.saved_tensors, *needs, ctx.backend)
    return *(grad if need else None for grad, need in zip(grads, needs, strict=True)), None


_fourier_mix.register_autograd(_differentiate_fourier_mix, setup_context=_save_fourier_mix)


# pooled_phase


@torch.library.custom_op("fourds::pooled_phase", mutates_args=())
def _pooled_phase(h: Tensor, num_rows: int, num_columns: int, backend: str) -> Tensor:
    with without_autocast(h):
        cells = (num_rows, num_columns)
        return resolve(backend, "pooled_phase", h, cells).pooled_phase(h, cells).contiguous()


@_pooled_phase.register_fake
def _(h: Tensor, num_rows: int, num_columns: int, backend: str) -> Tensor:
    return h.new_empty((*h.shape[:2], num_rows, num_columns), dtype=working_dtype(h.dtype))


@torch.library.custom_op("fourds::pooled_phase_backward", mutates_args=())
def _pooled_phase_backward(g: Tensor, h: Tensor, backend: str) -> Tensor:
    with without_autocast(h):
        cells = (g.shape[2], g.shape[3])
        return as_map(resolve(backend, "pooled_phase", h, cells).pooled_phase_backward(g, h), h)


@_pooled_phase_backward.register_fake
def _(g: Tensor, h: Tensor, backend: str) -> Tensor:
    return empty_map(h)


def _save_pooled_phase(ctx, inputs, output) -> None:
    h, _, _, ctx.backend = inputs
    ctx.save_for_backward(h)


def _differentiate_pooled_phase(ctx, g: Tensor):
    return _pooled_phase_backward(g, *ctx.saved_tensors, ctx.backend), None, None, None


_pooled_phase.register_autograd(_differentiate_pooled_phase, setup_context=_save_pooled_phase)


# phase_distance


@torch.library.custom_op("fourds::phase_distance", mutates_args=())
def _phase_distance(student: Tensor, teacher: Tensor, backend: str) -> Tensor:
    with without_autocast(student):
        return resolve(backend, "phase_distance", student).phase_distance(student, teacher).contiguous()


@_phase_distance.register_fake
def _(student: Tensor, teacher: Tensor, backend: str) -> Tensor:
    return student.new_empty(student.shape[:2], dtype=working_dtype(student.dtype))


@torch.library.custom_op("fourds::phase_distance_backward", mutates_args=())
def _phase_distance_backward(g: Tensor, student: Tensor, teacher: Tensor, backend: str) -> Tensor:
    with without_autocast(student):
        module = resolve(backend, "phase_distance", student)
        return as_map(module.phase_distance_backward(g, student, teacher), student)


@_phase_distance_backward.register_fake
def _(g: Tensor, student: Tensor, teacher: Tensor, backend: str) -> Tensor:
    return empty_map(student)


def _save_phase_distance(ctx, inputs, output) -> None:
    student, teacher, ctx.backend = inputs
    ctx.save_for_backward(student, teacher)


def _differentiate_phase_distance(ctx, g: Tensor):
    return _phase_distance_backward(g, *ctx.saved_tensors, ctx.backend), None, None


_phase_distance.register_autograd(_differentiate_phase_distance, setup_context=_save_phase_distance)


# phase_distance on a CPU: three transforms per map instead of five, at the cost of storing the gradient


@torch.library.custom_op("fourds::phase_distance_and_slope", mutates_args=())
def _phase_distance_and_slope(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    with without_autocast(student):
        return eager.phase_distance_and_slope(student, teacher)


@_phase_distance_and_slope.register_fake
def _(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    slope = torch.empty(student.shape, dtype=working_dtype(student.dtype), device=student.device)
    return slope.new_empty(student.shape[:2]), slope


def _save_slope(ctx, inputs, output) -> None:
    student, _ = inputs
    _, slope = output
    ctx.mark_non_differentiable(slope)
    ctx.dtype, ctx.memory_format = student.dtype, memory_format(student)
    ctx.save_for_backward(slope)


def _differentiate_by_slope(ctx, g: Tensor, _):
    (slope,) = ctx.saved_tensors
    return (slope * g[..., None, None]).to(ctx.dtype).contiguous(memory_format=ctx.memory_format), None


_phase_distance_and_slope.register_autograd(_differentiate_by_slope, setup_context=_save_slope)


def memory_format(like: Tensor) -> torch.memory_format:
    """Return the memory format of a result: channels_last for a map in channels_last, else contiguous."""
    if like.is_contiguous() or not like.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def empty_map(like: Tensor) -> Tensor:
    """Return a new map of the shape, dtype and memory format of `like`."""
    return torch.empty(like.shape, dtype=like.dtype, device=like.device, memory_format=memory_format(like))


def as_map(x: Tensor, like: Tensor) -> Tensor:
    """Return `x` in the dtype and memory format of `like`."""
    return x.to(like.dtype).contiguous(memory_format=memory_format(like))
