"""How fast are INT8 x INT8 products on this GPU, beside cuBLAS in BF16, FP16 and FP8 and torch._int_mm?

    python bench/gpu_w8a8.py --machine h200

Every contender is a CUDA graph of calls that take weights in turn, more of them than the second-level cache holds, so
they are read cold as in a decoding model; graphs are replayed in turn, so that clocks and temperature are the same for
all. Figures are microseconds a call, medians. `octavo` is scaled_mm, `octavo_linear` the whole layer, activations
quantized too. Values are normally distributed, scaled as each format has them. With a machine's name, writes
bench/results/NAME/w8a8.json and .png.
"""

import argparse

import torch
from common import geometric_mean, record, results_folder
from cuda_timing import calls_in_graph, compare, copies, gpu_facts, rotating
from gpu_plot import draw_speedups

import octavo  # noqa: F401  (registers the operators)

SHAPES = [(4096, 4096), (14336, 4096), (4096, 14336), (8192, 8192), (6144, 4096), (28672, 4096)]
ROWS = [1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
BASE = "cublas_bf16"


def rotated(make, bytes_each: int) -> list[torch.Tensor]:
    return [make() for _ in range(copies(bytes_each))]


class Weights:
    """Cold weights [N, K] of every type."""

    def __init__(self, N: int, K: int):
        def normal(scale=1.0):
            return torch.randn(N, K, device="cuda") * scale

        self.int8 = rotated(lambda: (normal() * 127 / 4).round().clamp(-127, 127).to(torch.int8), N * K)
        self.fp8 = rotated(lambda: (normal() * 448 / 4).clamp(-448, 448).to(torch.float8_e4m3fn), N * K)
        self.bf16 = rotated(lambda: normal(0.02).to(torch.bfloat16), 2 * N * K)
        self.fp16 = [w.to(torch.float16) for w in self.bf16]
        self.scale = torch.rand(N, device="cuda") * 1e-3
        self.fp8_scale = self.scale.reshape(1, N)


def contenders(w: Weights, M: int, K: int) -> dict:
    """name → function of a call's number."""
    x = torch.randn(M, K, device="cuda").to(torch.bfloat16)
    x16 = x.to(torch.float16)
    x8 = (x.float() * 448 / 4).clamp(-448, 448).to(torch.float8_e4m3fn)
    q, scale = torch.ops.octavo.quantize_per_token(x, -1)
    flat_scale = scale.reshape(-1)
    one = torch.ones((), device="cuda")
    bf16 = torch.bfloat16

    def of(weights, i):
        return weights[i % len(weights)]

    def fp8(a, b):
        return lambda i: torch._scaled_mm(
            x8, of(w.fp8, i).t(), scale_a=a, scale_b=b, out_dtype=bf16, use_fast_accum=True
        )

    calls = {
        "octavo": lambda i: torch.ops.octavo.scaled_mm(q, of(w.int8, i), flat_scale, w.scale, None, bf16, True),
        "octavo_linear": lambda i: torch.ops.octavo.linear_w8a8(x, of(w.int8, i), w.scale, None),
        BASE: lambda i: torch.mm(x, of(w.bf16, i).t()),
        "cublas_fp16": lambda i: torch.mm(x16, of(w.fp16, i).t()),
        "cublaslt_fp8_row_wise": fp8(scale, w.fp8_scale),
        "cublaslt_fp8_tensor_wise": fp8(one, one),
    }
    if M > 16:
        calls["torch_int_mm"] = lambda i: torch._int_mm(q, of(w.int8, i).t())
    return calls


def measure(N: int, K: int, w: Weights, M: int, repeats: int) -> dict:
    calls = calls_in_graph(len(w.int8), M)
    us = compare({name: (rotating(call, calls, calls), calls) for name, call in contenders(w, M, K).items()}, repeats)
    mine, spread = us["octavo"]
    kernel = torch.ops.octavo.select_kernel(1, torch.bfloat16, 8, True, -1, False, 0, M, N, K, True)
    return {
        "scheme": "w8a8",
        "activation": "bfloat16",
        "M": M,
        "N": N,
        "K": K,
        "kernel": kernel,
        "us": round(mine, 3),
        "spread": round(spread, 4),
        "linear_us": round(us["octavo_linear"][0], 3),
        "gbps": round(N * K / mine / 1e3, 1),
        "tops": round(2 * M * N * K / mine / 1e6, 1),
        "peers": {name: round(value[0], 3) for name, value in us.items() if not name.startswith("octavo")},
    }


def line(row: dict) -> str:
    peers, us = row["peers"], row["us"]
    fp8 = "  ".join(f"{peers[f'cublaslt_fp8_{kind}'] / us:5.2f}x" for kind in ("row_wise", "tensor_wise"))
    return (
        f"{row['M']:5} {row['N']:6} {row['K']:6}  {us:8.2f} us {row['tops']:6.0f} TOPS  bf16 {peers[BASE] / us:5.2f}x"
        f"  fp8 {fp8}  with quantization {row['linear_us']:8.2f} us, bf16 {peers[BASE] / row['linear_us']:5.2f}x"
    )


def summary(rows: list[dict]) -> dict:
    """Geometric means over the shapes of prefill, M >= 512."""
    large = [row for row in rows if row["M"] >= 512]
    if not large:
        return {}
    row_wise = [row["peers"]["cublaslt_fp8_row_wise"] / row["us"] for row in large]
    return {
        "over_bf16": round(geometric_mean([row["peers"][BASE] / row["us"] for row in large]), 3),
        "linear_over_bf16": round(geometric_mean([row["peers"][BASE] / row["linear_us"] for row in large]), 3),
        "over_fp8_row_wise": round(geometric_mean(row_wise), 3),
        "least_over_fp8_row_wise": round(min(row_wise), 3),
    }


CURVES = {
    "octavo": ("#1b7f5c", lambda row: row["us"]),
    "octavo, activations quantized too": ("#8cc7b2", lambda row: row["linear_us"]),
    "cuBLASLt FP8, row-wise": ("#707070", lambda row: row["peers"]["cublaslt_fp8_row_wise"]),
    "cuBLASLt FP8, tensor-wise": ("#c0c0c0", lambda row: row["peers"]["cublaslt_fp8_tensor_wise"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", help="record the figures under this name")
    parser.add_argument("--rows", type=lambda text: [int(part) for part in text.split(",")], default=ROWS)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for N, K in SHAPES:
        weights = Weights(N, K)
        for M in options.rows:
            rows.append(measure(N, K, weights, M, options.repeats))
            print(line(rows[-1]), flush=True)
        del weights
    means = summary(rows)
    print(means)
    if options.machine:
        content = gpu_facts(options.machine) | {
            "geometric_means_from_512_rows": means,
            "rows": rows,
        }
        folder = results_folder(options.machine)
        record(folder / "w8a8.json", content)
        draw_speedups(
            rows, lambda row: row["peers"][BASE], CURVES, folder / "w8a8.png", f"{content['gpu']}: cuBLAS BF16"
        )


if __name__ == "__main__":
    main()
