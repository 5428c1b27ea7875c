"""Times of CUDA work as a model sees it: replays of CUDA graphs, on weights that are read cold."""

import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from common import facts, median_and_spread

_random = random.Random(0)

COLD_BYTES = (
    256 << 20
)  # copies of a weight take more than this: then each has left the caches when it is its turn again


class Graph:
    """A function's CUDA graph. What it returned lives as long as the graph."""

    def __init__(self, work: Callable[[], object]):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles, and allocates what is allocated once
                work()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.result = work()
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def us(self) -> float:
        """Microseconds of a replay."""
        self._start.record()
        self._graph.replay()
        self._end.record()
        self._end.synchronize()
        return self._start.elapsed_time(self._end) * 1e3


def copies(bytes_each: float) -> int:
    """How many copies of a weight to take in turn."""
    return max(2, math.ceil(COLD_BYTES / bytes_each))


def rotating(call: Callable[[int], object], kept: int, calls: int) -> Callable[[], object]:
    """So many calls: call(0) … call(kept - 1), again and again. Only the last one's result is kept. A replay has some
    10 microseconds that no call takes, so calls should be many."""

    def work():
        for i in range(calls):
            result = call(i % kept)
        return result

    return work


def calls_in_graph(kept: int, M: int) -> int:
    """How many calls of M rows to measure at a time, where so many copies of a weight are kept."""
    if M > 512:
        return min(kept, 4)
    return max(kept, 256 if M <= 16 else 96 if M <= 64 else 8)


def compare(works: dict[str, tuple[Callable[[], object], int]], repeats: int) -> dict[str, tuple[float, float]]:
    """name → microseconds a call, median, and their spread. Of each a graph of some calls is replayed; graphs take
    turns, so that clocks and temperature are the same for all. In an order that changes: after one that draws little
    power, the next runs at a higher clock."""
    graphs = {name: Graph(work) for name, (work, _) in works.items()}
    us = {name: [] for name in works}
    order = list(works)
    for repeat in range(repeats + 1):
        _random.shuffle(order)
        for name in order:
            time = graphs[name].us() / works[name][1]
            if repeat > 0:
                us[name].append(time)
    return {name: median_and_spread(times) for name, times in us.items()}


def gpu_facts(machine: str) -> dict:
    """facts() of a machine with a GPU and of the command that runs."""
    command = " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return facts(machine, command) | {"gpu": torch.cuda.get_device_properties(0).name, "torch": torch.__version__}
