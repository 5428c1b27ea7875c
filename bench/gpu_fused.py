"""How fast are the quantizations in front of an INT8 product on this GPU, beside a kernel that only copies?

    python bench/gpu_fused.py --machine h200

Every contender is a CUDA graph of calls that take inputs in turn, more of them than the second-level cache holds (but
for single rows), and leave their outputs in memory of their own; graphs are replayed in turn, so that clocks and
temperature are the same for all.
`copy` moves as many bytes as the fused call reads and writes; `apart` are torch's operator and quantize_per_token (for
`static`, torch's operators alone). Figures are microseconds a call, medians; bfloat16. With a machine's name, writes
bench/results/NAME/fused.json.
"""

import argparse

import torch
import torch.nn.functional as F
from common import facts, median_and_spread, record, results_folder

import octavo

COLD_BYTES = 200 << 20
SHAPES = [(M, K) for K in (4096, 8192, 14336) for M in (1, 16, 1024, 4096)]


class Case:
    """A quantization: bytes that it moves a call, the call itself, and what it replaces."""

    def __init__(self, name: str, M: int, K: int):
        self.name, self.M, self.K = name, M, K
        reads, writes = {"per_token": (2, 1), "static": (2, 1), "rms_norm": (2, 1), "add_rms_norm": (4, 3)}.get(
            name, (4, 1)
        )
        self.bytes = (reads + writes) * M * K
        self.count = min(max(COLD_BYTES // self.bytes, 3), 200)
        wide = torch.randn(M, reads // 2 * K, device="cuda").bfloat16()
        self.inputs = [wide.clone() for _ in range(self.count)]
        self.sources = [torch.empty(self.bytes // 2, dtype=torch.uint8, device="cuda") for _ in range(self.count)]
        self.weight = torch.randn(K, device="cuda").bfloat16()
        self.scale = torch.tensor([0.03], device="cuda")

    def fused(self, i: int):
        x = self.inputs[i]
        if self.name == "per_token":
            return torch.ops.octavo.quantize_per_token(x, -1)
        if self.name == "static":
            return octavo.quantize_static(x, self.scale)
        if self.name == "rms_norm":
            return octavo.rms_norm_quantize(x, self.weight)
        if self.name == "add_rms_norm":
            x, residual = x.view(2, self.M, self.K)
            return octavo.rms_norm_quantize(x, self.weight, 1e-6, residual)
        return octavo.silu_mul_quantize(x)

    def apart(self, i: int):
        x = self.inputs[i]
        if self.name == "per_token":
            return self.fused(i)
        if self.name == "static":
            return torch.round(x / self.scale).clamp(-128, 127).to(torch.int8)
        if self.name == "add_rms_norm":
            x, residual = x.view(2, self.M, self.K)
            x = x + residual
        if self.name == "silu_mul":
            gate, up = x.chunk(2, -1)
            return torch.ops.octavo.quantize_per_token(F.silu(gate) * up, -1)
        return torch.ops.octavo.quantize_per_token(F.rms_norm(x, (self.K,), self.weight, 1e-6), -1)

    def copy(self, i: int):
        return self.sources[i].clone()


class Replay:
    """A graph of a contender's calls, whose outputs all stay, and the microseconds a call that its replays took."""

    def __init__(self, call, count: int, stream: torch.cuda.Stream):
        self.count, self.stream, self.us = count, stream, []
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            call(0)
            torch.cuda.synchronize()
            with torch.cuda.graph(self.graph, stream=stream):
                self.outputs = [call(i) for i in range(count)]

    def run(self) -> None:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self.stream):
            start.record()
            self.graph.replay()
            end.record()
        end.synchronize()
        self.us.append(start.elapsed_time(end) * 1e3 / self.count)


def measure(name: str, M: int, K: int, repeats: int) -> dict:
    case, stream = Case(name, M, K), torch.cuda.Stream()
    torch.cuda.synchronize()
    replays = {what: Replay(getattr(case, what), case.count, stream) for what in ("fused", "copy", "apart")}
    for repeat in range(repeats + 1):
        for replay in replays.values():
            replay.run()
            if repeat == 0:
                replay.us.clear()
    us = {what: median_and_spread(replay.us) for what, replay in replays.items()}
    return {
        "quantization": name,
        "activation": "bfloat16",
        "M": M,
        "K": K,
        "us": round(us["fused"][0], 3),
        "spread": round(us["fused"][1], 4),
        "gbps": round(case.bytes / us["fused"][0] / 1e3, 1),
        "share_of_copy": round(us["copy"][0] / us["fused"][0], 3),
        "peers": {"copy": round(us["copy"][0], 3), "apart": round(us["apart"][0], 3)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", help="record the figures under this name")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    rows = []
    print(f"{'quantization':14}{'M':>6}{'K':>7}{'us':>9}{'GB/s':>8}{'of copy':>9}{'apart us':>10}")
    for name in ("per_token", "static", "rms_norm", "add_rms_norm", "silu_mul"):
        for M, K in SHAPES:
            row = measure(name, M, K, arguments.repeats)
            rows.append(row)
            print(
                f"{name:14}{M:6}{K:7}{row['us']:9.2f}{row['gbps']:8.0f}{row['share_of_copy']:9.2f}"
                f"{row['peers']['apart']:10.2f}",
                flush=True,
            )
    if arguments.machine:
        command = f"python bench/gpu_fused.py --machine {arguments.machine}"
        content = {**facts(arguments.machine, command), "gpu": torch.cuda.get_device_name(), "rows": rows}
        record(results_folder(arguments.machine) / "fused.json", content)


if __name__ == "__main__":
    main()
