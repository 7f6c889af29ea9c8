"""Timing of calls on a device, and plain-text tables.

On CUDA a call is captured in a graph and its replays are timed with events, so that the time is the device's, without
Python. `hot` replays follow one another; before a `cold` replay a buffer larger than the L2 cache is written.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

FLUSH_BYTES = 256 * 2**20
WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Timing:
    """Medians of repeated calls, in milliseconds."""

    hot_ms: float
    cold_ms: float


def time_call(call: Callable[[], object], device: torch.device, num_repeats: int) -> Timing:
    """Time `call` with warm and cold caches; `call` must not synchronise with the device."""
    return time_cuda(call, device, num_repeats) if device.type == "cuda" else time_cpu(call, num_repeats)


def time_cuda(call: Callable[[], object], device: torch.device, num_repeats: int) -> Timing:
    """Time replays of a CUDA graph of `call`."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)
        hot_ms = median_ms(graph.replay, num_repeats)
        cold_ms = median_ms(graph.replay, num_repeats, flush.zero_)
    return Timing(hot_ms, cold_ms)


def median_ms(
    call: Callable[[], object], num_repeats: int, before: Callable[[], object] = lambda: None
) -> float:
    """Return the median time between two events around `call`; `before` runs ahead of each call, untimed."""
    call()
    events = []
    for _ in range(num_repeats):
        before()
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        events.append((start, stop))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in events)


def time_cpu(call: Callable[[], object], num_repeats: int) -> Timing:
    """Time `call` on the host; before a cold call another buffer is written through the caches."""
    sweep = torch.empty(FLUSH_BYTES // 4, dtype=torch.uint8)
    call()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for cold in (False, True):
        for _ in range(num_repeats):
            if cold:
                sweep.zero_()
            start = time.perf_counter()
            call()
            seconds[cold].append(time.perf_counter() - start)
    return Timing(1e3 * statistics.median(seconds[False]), 1e3 * statistics.median(seconds[True]))


def usable_device(text: str) -> str:
    """Parse the option `--device`: a device that this PyTorch can use."""
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cause = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text} cannot be used ({cause[:200]}); give cpu or cuda") from None
    return text


def device_name(device: torch.device) -> str:
    """Return the name of the device for headings."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned plain-text table: text to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (heading, *rows)) for i in range(len(heading))]

    numeric = [is_number(cell) for cell in rows[0]]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, numeric, strict=True)
        return "  ".join(cell.rjust(n) if right else cell.ljust(n) for cell, n, right in cells).rstrip()

    return "\n".join([line(heading), "  ".join("-" * width for width in widths), *map(line, rows)])


def is_number(cell: str) -> bool:
    """Whether a cell holds a number."""
    return cell.replace(".", "", 1).isdigit()
