"""The floor under products with few rows: a kernel that only reads as many bytes, measured beside them."""

import torch
import triton
import triton.language as tl
from cuda_timing import Graph, calls_in_graph, copies, rotating
from triton.language.extra import cuda as gdc

# Integers a program reads at a time, its warps, programs for each SM. Which is best depends on the bytes.
CONFIGURATIONS = [(4096, 4, 4), (4096, 4, 8), (8192, 8, 2), (8192, 8, 4), (16384, 8, 2), (16384, 16, 1)]
UNLIKELY = 0x5EED5EED  # as a sum


@triton.jit
def _read(source, result, count, unlikely, BLOCK: tl.constexpr, OVERLAPS: tl.constexpr):
    """Sums up int32 [count]; a store hangs on the sum, so that no load is left out. With OVERLAPS it starts while the
    kernel before it still runs, as ours do (programmatic dependent launch), and reads before that has ended."""
    if OVERLAPS:
        gdc.gdc_launch_dependents()
    sums = tl.zeros([BLOCK], tl.int32)
    for first in tl.range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK, num_stages=1):
        places = first + tl.arange(0, BLOCK)
        sums += tl.load(source + places, mask=places < count, other=0)
    if OVERLAPS:
        gdc.gdc_wait()
    total = tl.sum(sums)
    if total == unlikely:
        tl.store(result, total)


def read_floor_us(read_bytes: int, repeats: int = 7) -> float:
    """Least microseconds of a kernel in a graph of kernels that each read so many bytes, cold: the median of `repeats`
    replays, with the best of some shapes of launch."""
    count = read_bytes // 4
    bounds = torch.iinfo(torch.int32)
    sources = [
        torch.randint(bounds.min, bounds.max, (count,), dtype=torch.int32, device="cuda")
        for _ in range(copies(read_bytes))
    ]
    result = torch.zeros(1, dtype=torch.int32, device="cuda")
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    least = float("inf")
    for block, warps, programs in CONFIGURATIONS:
        for overlaps in (False, True):

            def read(i, block=block, warps=warps, programs=programs, overlaps=overlaps):
                grid = (min(programs * processors, -(-count // block)),)
                options = dict(num_warps=warps, launch_pdl=overlaps)
                _read[grid](sources[i], result, count, UNLIKELY, BLOCK=block, OVERLAPS=overlaps, **options)

            calls = calls_in_graph(len(sources), 1)
            graph = Graph(rotating(read, len(sources), calls))
            times = sorted(graph.us() / calls for _ in range(repeats))
            least = min(least, times[len(times) // 2])
    return least
