"""Triton kernels of batch normalisation with residual sum and activation, for maps in channels_last memory.

A map is a matrix of N = B H W rows (pixels) and C columns (channels), in row-major order. A program takes every
num_programs-th tile of ROWS rows of a block of COLS columns, and holds its sums per place of a tile in registers until
its last tile, so that warps exchange nothing between tiles. A second kernel adds the programs' partial results in a
fixed order: results repeat bit for bit. All arithmetic is float32; `eager.py` defines the symbols.

    kernel             reads                                writes
    statistics         x                                    mean, squares per program
    normalise          x, residual                          y, bits
    sum_gradients      g, x, residual or bits               sums per program, h
    input_gradient     g or h, x, residual or bits          gradient of x, h
"""

import triton
import triton.language as tl


@triton.jit
def statistics(x, means, squares, num_rows, C: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Write mean and sum of squared deviations of the rows of each program, (num_programs, C).

    Every place of a tile follows Welford's recurrence; the places are then merged by Chan's formula. Means are relative
    to the first pixel of the map. So a mean far above the standard deviation costs no precision.
    """
    r, c = tl.arange(0, ROWS), tl.program_id(1) * COLS + tl.arange(0, COLS)
    step = tl.num_programs(0) * ROWS
    start = tl.program_id(0) * ROWS
    offsets = r[:, None] * C + c[None, :]
    first_pixel = tl.load(x + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    mean = tl.zeros([ROWS, COLS], tl.float32)
    square = tl.zeros([ROWS, COLS], tl.float32)
    count = 0.0
    for first in range(start, num_rows, step):
        inside = ((first + r) < num_rows)[:, None] & (c < C)[None, :]
        v = tl.load(x + tl.cast(first, tl.int64) * C + offsets, mask=inside, other=0.0).to(tl.float32)
        v -= first_pixel
        count += 1.0
        change = tl.where(inside, v - mean, 0.0)
        mean += change / count
        square += change * (v - mean)
    counts = tl.maximum(num_rows - start - r + step - 1, 0) // step  # rows of each place
    counts = counts.to(tl.float32)[:, None]
    total_mean = tl.sum(counts * mean, 0) / tl.sum(counts)  # pyright: ignore[reportOperatorIssue]
    deviation = mean - total_mean[None, :]
    total_square = tl.sum(square + counts * deviation * deviation, 0)
    out = tl.program_id(0) * C + c
    tl.store(means + out, total_mean, mask=c < C)
    tl.store(squares + out, total_square, mask=c < C)


@triton.jit
def merge_statistics(
    x,
    means,
    squares,
    mean_out,
    var_out,
    running_mean,
    running_var,
    num_batches,
    momentum,
    num_rows,
    num_programs,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    PROGRAMS: tl.constexpr,
    COLS: tl.constexpr,
    CUMULATIVE: tl.constexpr,
):
    """Merge the results of `statistics` (at most PROGRAMS programs) and update the running statistics.

    CUMULATIVE: num_batches includes this batch, and its inverse is the momentum. Otherwise one is added to num_batches.
    """
    p, c = tl.arange(0, PROGRAMS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    num_tiles = (num_rows + ROWS - 1) // ROWS
    counts = tl.maximum(num_tiles - p + num_programs - 1, 0) // num_programs * ROWS
    counts -= tl.where(p == (num_tiles - 1) % num_programs, num_tiles * ROWS - num_rows, 0)
    counts = tl.where(p < num_programs, counts, 0).to(tl.float32)[:, None]
    inside = (p < num_programs)[:, None] & (c < C)[None, :]
    places = p[:, None] * C + c[None, :]
    mean = tl.load(means + places, mask=inside, other=0.0)
    square = tl.load(squares + places, mask=inside, other=0.0)
    total = tl.cast(num_rows, tl.float32)
    total_mean = tl.sum(counts * mean, 0) / total
    deviation = mean - total_mean[None, :]
    total_square = tl.sum(square + counts * deviation * deviation, 0)
    total_mean += tl.load(x + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(mean_out + c, total_mean, mask=c < C)
    tl.store(var_out + c, total_square / total, mask=c < C)
    if running_mean is not None:
        factor = momentum
        if CUMULATIVE:
            factor = 1.0 / tl.load(num_batches).to(tl.float32)
        old_mean = tl.load(running_mean + c, mask=c < C, other=0.0).to(tl.float32)
        old_var = tl.load(running_var + c, mask=c < C, other=0.0).to(tl.float32)
        unbiased = total_square / (total - 1.0)
        tl.store(running_mean + c, old_mean * (1.0 - factor) + total_mean * factor, mask=c < C)
        tl.store(running_var + c, old_var * (1.0 - factor) + unbiased * factor, mask=c < C)
    if num_batches is not None and not CUMULATIVE and tl.program_id(0) == 0:
        tl.store(num_batches, tl.load(num_batches) + 1)


@triton.jit
def normalise(
    x,
    residual,
    y,
    bits,
    mean,
    var,
    weight,
    bias,
    eps,
    num_rows,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """Write y = act(n weight + bias + residual), and the bits that say where ReLU or ReLU6 pass the gradient."""
    r, c = tl.arange(0, ROWS), tl.program_id(1) * COLS + tl.arange(0, COLS)
    m, scale, shift = _channel(mean, var, weight, bias, eps, c, C)
    offsets = r[:, None] * C + c[None, :]
    row_bytes: tl.constexpr = (C + 7) // 8
    byte = tl.program_id(1) * (COLS // 8) + tl.arange(0, COLS // 8)
    for first in range(tl.program_id(0) * ROWS, num_rows, tl.num_programs(0) * ROWS):
        in_rows = ((first + r) < num_rows)[:, None]
        inside = in_rows & (c < C)[None, :]
        begin = tl.cast(first, tl.int64)
        v = tl.load(x + begin * C + offsets, mask=inside, other=0.0).to(tl.float32)
        z = (v - m[None, :]) * scale[None, :] + shift[None, :]
        if residual is not None:
            z += tl.load(residual + begin * C + offsets, mask=inside, other=0.0).to(tl.float32)
        tl.store(y + begin * C + offsets, _activate(z, ACTIVATION).to(y.dtype.element_ty), mask=inside)
        if bits is not None:
            passes = tl.reshape(_passes(z, ACTIVATION).to(tl.int32), (ROWS, COLS // 8, 8))
            packed = tl.sum(passes << tl.arange(0, 8)[None, None, :], 2).to(tl.uint8)
            places = begin * row_bytes + r[:, None] * row_bytes + byte[None, :]
            tl.store(bits + places, packed, mask=in_rows & (byte < row_bytes)[None, :])


@triton.jit
def sum_gradients(
    g,
    x,
    residual,
    bits,
    h_out,
    sums_h,
    sums_hx,
    mean,
    var,
    weight,
    bias,
    eps,
    num_rows,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """Write the sums of h and of h (x - m) over the rows of each program, (num_programs, C), and h if asked for."""
    r, c = tl.arange(0, ROWS), tl.program_id(1) * COLS + tl.arange(0, COLS)
    m, scale, shift = _channel(mean, var, weight, bias, eps, c, C)
    offsets = r[:, None] * C + c[None, :]
    sum_h = tl.zeros([ROWS, COLS], tl.float32)
    sum_hx = tl.zeros([ROWS, COLS], tl.float32)
    for first in range(tl.program_id(0) * ROWS, num_rows, tl.num_programs(0) * ROWS):
        inside = ((first + r) < num_rows)[:, None] & (c < C)[None, :]
        begin = tl.cast(first, tl.int64)
        v = tl.load(x + begin * C + offsets, mask=inside, other=0.0).to(tl.float32)
        h = tl.load(g + begin * C + offsets, mask=inside, other=0.0).to(tl.float32)
        v -= m[None, :]
        h = _before(h, v, residual, bits, scale, shift, begin, num_rows, r, c, inside, C, COLS, ACTIVATION)
        if h_out is not None:
            tl.store(h_out + begin * C + offsets, h.to(h_out.dtype.element_ty), mask=inside)
        sum_h += h
        sum_hx += tl.where(inside, h * v, 0.0)
    out = tl.program_id(0) * C + c
    tl.store(sums_h + out, tl.sum(sum_h, 0), mask=c < C)
    tl.store(sums_hx + out, tl.sum(sum_hx, 0), mask=c < C)


@triton.jit
def merge_gradients(
    sums_h,
    sums_hx,
    grad_weight,
    grad_bias,
    var,
    eps,
    num_programs,
    C: tl.constexpr,
    PROGRAMS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Add the sums of the programs: the gradients of weight and bias."""
    p, c = tl.arange(0, PROGRAMS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    inside = (p < num_programs)[:, None] & (c < C)[None, :]
    places = p[:, None] * C + c[None, :]
    sum_h = tl.sum(tl.load(sums_h + places, mask=inside, other=0.0), 0)
    sum_hx = tl.sum(tl.load(sums_hx + places, mask=inside, other=0.0), 0)
    v = tl.load(var + c, mask=c < C, other=1.0).to(tl.float32)
    tl.store(grad_weight + c, sum_hx * tl.rsqrt(v + eps), mask=c < C)
    tl.store(grad_bias + c, sum_h, mask=c < C)


@triton.jit
def input_gradient(
    g,
    x,
    residual,
    bits,
    grad_x,
    h_out,
    mean,
    var,
    weight,
    bias,
    grad_weight,
    grad_bias,
    eps,
    num_rows,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OF_BATCH: tl.constexpr,
):
    """Write the gradient of x, and h if asked for; ACTIVATION "none": g is h."""
    r, c = tl.arange(0, ROWS), tl.program_id(1) * COLS + tl.arange(0, COLS)
    m, scale, shift = _channel(mean, var, weight, bias, eps, c, C)
    mean_h, mean_hn = shift, shift  # unused unless OF_BATCH
    if OF_BATCH:
        inverse = tl.rsqrt(tl.load(var + c, mask=c < C, other=1.0).to(tl.float32) + eps)
        total = tl.cast(num_rows, tl.float32)
        mean_h = tl.load(grad_bias + c, mask=c < C, other=0.0) / total
        mean_hn = tl.load(grad_weight + c, mask=c < C, other=0.0) * inverse / total
    offsets = r[:, None] * C + c[None, :]
    for first in range(tl.program_id(0) * ROWS, num_rows, tl.num_programs(0) * ROWS):
        inside = ((first + r) < num_rows)[:, None] & (c < C)[None, :]
        begin = tl.cast(first, tl.int64)
        h = tl.load(g + begin * C + offsets, mask=inside, other=0.0).to(tl.float32)
        v = h
        if OF_BATCH or (bits is None and ACTIVATION != "none"):
            v = tl.load(x + begin * C + offsets, mask=inside, other=0.0).to(tl.float32) - m[None, :]
        h = _before(h, v, residual, bits, scale, shift, begin, num_rows, r, c, inside, C, COLS, ACTIVATION)
        if h_out is not None:
            tl.store(h_out + begin * C + offsets, h.to(h_out.dtype.element_ty), mask=inside)
        if grad_x is not None:
            if OF_BATCH:
                h = h - mean_h[None, :] - v * mean_hn[None, :]
            tl.store(
                grad_x + begin * C + offsets, (h * scale[None, :]).to(grad_x.dtype.element_ty), mask=inside
            )


@triton.jit
def _channel(mean, var, weight, bias, eps, c, C: tl.constexpr):
    """Return m, s weight and the bias of channels c."""
    inside = c < C
    m = tl.load(mean + c, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.load(var + c, mask=inside, other=1.0).to(tl.float32) + eps)
    shift = tl.zeros_like(m)
    if weight is not None:
        scale *= tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        shift += tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    return m, scale, shift


@triton.jit
def _before(
    g,
    centred,
    residual,
    bits,
    scale,
    shift,
    begin,
    num_rows,
    r,
    c,
    inside,
    C: tl.constexpr,
    COLS: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """Return h = g act'(z), from the bits or from z."""
    h = g
    if ACTIVATION != "none":
        if bits is not None:
            h = tl.where(_unpack(bits, begin, r, num_rows, C, COLS) != 0, g, 0.0)
        else:
            z = centred * scale[None, :] + shift[None, :]
            if residual is not None:
                places = begin * C + r[:, None] * C + c[None, :]
                z += tl.load(residual + places, mask=inside, other=0.0).to(tl.float32)
            if ACTIVATION == "hardswish":
                h = tl.where(z < -3.0, 0.0, tl.where(z <= 3.0, g * (z / 3.0 + 0.5), g))
            elif ACTIVATION == "silu":
                s = 1.0 / (1.0 + tl.exp(-z))
                h = g * s * (1.0 + z * (1.0 - s))
            else:
                h = tl.where(_passes(z, ACTIVATION), g, 0.0)
    return h


@triton.jit
def _unpack(bits, begin, r, num_rows, C: tl.constexpr, COLS: tl.constexpr):
    """Return the bits of a tile, one per place. Each byte is read once, by the thread that holds its eight places."""
    row_bytes: tl.constexpr = (C + 7) // 8
    byte = tl.program_id(1) * (COLS // 8) + tl.arange(0, COLS // 8)
    inside = (begin + r < num_rows)[:, None] & (byte < row_bytes)[None, :]
    places = begin * row_bytes + r[:, None] * row_bytes + byte[None, :]
    places = tl.max_contiguous(places, [1, 1])  # else threads load neighbours and exchange them
    packed = tl.load(bits + places, mask=inside, other=0).to(tl.int32)
    spread = (packed[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(spread, (r.shape[0], COLS))


@triton.jit
def _passes(z, ACTIVATION: tl.constexpr):
    """Whether ReLU or ReLU6 pass the gradient; NaN passes, as in PyTorch."""
    blocked = z <= 0.0
    if ACTIVATION == "relu6":
        blocked = blocked | (z >= 6.0)
    return blocked == 0


@triton.jit
def _activate(z, ACTIVATION: tl.constexpr):
    """Return act(z); NaN stays NaN."""
    if ACTIVATION == "relu":
        z = tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == "relu6":
        z = tl.where(z < 0.0, 0.0, tl.where(z > 6.0, 6.0, z))
    elif ACTIVATION == "hardswish":
        z *= tl.where(z < -3.0, 0.0, tl.where(z > 3.0, 6.0, z + 3.0)) / 6.0
    elif ACTIVATION == "silu":
        z /= 1.0 + tl.exp(-z)
    return z
