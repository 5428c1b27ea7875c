"""How fast are products with 8-bit and 4-bit weights on this GPU, beside cuBLAS in FP16, BF16 and FP8?

    python bench/gpu_weight_only.py --machine h200

The conditions are those of bench/gpu_w8a8.py: CUDA graphs of calls with weights in turn, read cold; medians. Contenders
of a shape have the same weights, each in its format. `error` is the norm of what a product differs from cuBLAS FP16's
with the weights before they were quantized, relative. `floor_us` is the time of a kernel that only reads as many bytes,
measured in the same run (bench/read_floor.py). A decoder layer's four linears at M = 1, one after the other in one
graph, are the `chain`. With a machine's name, writes bench/results/NAME/weight_only.json and two pictures.
"""

import argparse

import torch
from common import geometric_mean, record, results_folder
from cuda_timing import calls_in_graph, compare, copies, gpu_facts, rotating
from gpu_peers import PEERS
from gpu_plot import draw_shares, draw_speedups
from read_floor import read_floor_us
from torch.nn.functional import linear

from octavo import QuantizedLinear

SHAPES = [
    *[(4096, 4096), (14336, 4096), (4096, 14336), (8192, 8192), (28672, 4096)],
    *[(4096, 11008), (11008, 4096)],
]
ROWS = [1, 4, 8, 16, 32, 64, 128, 200, 512, 1000, 1024, 2048]
SQUARE = 8192  # M = N = K, too
SCHEMES = ("w8a16", "w4a16-g128", "w4a16-g32", "w4a16-g128-asym")
DTYPES = {torch.float16: "fp16", torch.bfloat16: "bf16"}
COLORS = dict(zip(SCHEMES, ("#1b7f5c", "#2c5f9e", "#8db4e2", "#b58b2a"), strict=True))
BASE = "cublas_fp16"
# qkv, output, gate and up, down of Llama-3-8B; so many layers in a graph, as in a model's.
CHAIN = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)]
CHAIN_LAYERS = 16
CHAIN_SCHEMES = ("w8a16", "w4a16-g128", "w8a8")


def quantized(weights: list[torch.Tensor], scheme: str) -> list[QuantizedLinear]:
    count = copies(weight_bytes(QuantizedLinear.from_weight(weights[0], None, scheme)))
    return [QuantizedLinear.from_weight(weights[i % len(weights)], None, scheme) for i in range(count)]


def weight_bytes(module: QuantizedLinear) -> int:
    return sum(buffer.nbytes for buffer in module.buffers())


def fp8_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float8 and a scale for each row, float32 [R, 1]."""
    scale = x.float().abs().amax(1, keepdim=True) / 448
    return (x.float() / scale).to(torch.float8_e4m3fn), scale


class Weights:
    """The same cold weights [N, K] in every format."""

    def __init__(self, N: int, K: int):
        count = copies(2 * N * K)
        self.fp16 = [(torch.randn(N, K, device="cuda") * 0.02).to(torch.float16) for _ in range(count)]
        self.bf16 = [w.to(torch.bfloat16) for w in self.fp16]
        self.fp8 = [fp8_rows(self.fp16[i % count]) for i in range(copies(N * K))]
        # As a checkpoint of the activations' type has them: scales are of it too.
        weights = {torch.float16: self.fp16, torch.bfloat16: self.bf16}
        self.modules = {(scheme, dtype): quantized(weights[dtype], scheme) for scheme in SCHEMES for dtype in DTYPES}
        self._inputs = {}
        sizes = {scheme: weight_bytes(self.modules[scheme, torch.float16][0]) for scheme in SCHEMES}
        self.floor_us = {scheme: read_floor_us(size) for scheme, size in sizes.items()}

    def input(self, M: int) -> torch.Tensor:
        """x, float16 [M, K], with values that bfloat16 has too: the same for all contenders."""
        if M not in self._inputs:
            x = torch.randn(M, self.fp16[0].shape[1], device="cuda")
            self._inputs = {M: x.to(torch.bfloat16).to(torch.float16)}
        return self._inputs[M]


def contenders(w: Weights, M: int) -> dict[str, tuple]:
    """name → function of a call's number, and how many weights it takes in turn."""
    x = {dtype: w.input(M).to(dtype) for dtype in DTYPES}
    x8, x8_scale = fp8_rows(x[torch.float16])
    one = torch.ones((), device="cuda")

    def fp8(i, row_wise):
        w8, w8_scale = w.fp8[i]
        scales = dict(scale_a=x8_scale, scale_b=w8_scale.reshape(1, -1)) if row_wise else dict(scale_a=one, scale_b=one)
        return torch._scaled_mm(x8, w8.t(), **scales, out_dtype=torch.bfloat16, use_fast_accum=True)

    calls = {
        BASE: (lambda i: linear(x[torch.float16], w.fp16[i]), len(w.fp16)),
        "cublas_bf16": (lambda i: linear(x[torch.bfloat16], w.bf16[i]), len(w.bf16)),
        "cublaslt_fp8_row_wise": (lambda i: fp8(i, True), len(w.fp8)),
        "cublaslt_fp8_tensor_wise": (lambda i: fp8(i, False), len(w.fp8)),
    }
    for (scheme, dtype), modules in w.modules.items():
        calls[f"{scheme} {DTYPES[dtype]}"] = (lambda i, modules=modules, x=x[dtype]: modules[i](x), len(modules))
    return calls


def peer_contenders(peers: dict, w: Weights, M: int, N: int, K: int) -> dict[str, tuple]:
    """What the peers have for this place. One that fails is left out from then on: it costs its rows, not the run."""
    calls = {}
    for name in list(peers):
        try:
            here = peers[name](w, M, N, K)
            for call, _ in here.values():
                call(0)
            calls |= here
        except Exception as error:
            print(f"{name} fails at M = {M}, {N} x {K}, and is left out: {error!r}"[:500])
            del peers[name]
    return calls


def relative_error(y: torch.Tensor, expected: torch.Tensor) -> float:
    return ((y.float() - expected.float()).norm() / expected.float().norm()).item()


def measure(N: int, K: int, w: Weights, M: int, repeats: int, peers: dict) -> tuple[list[dict], dict]:
    """A row for each scheme and activation type, and one of the others' times and errors. A peer is a function of w, M,
    N and K that returns contenders."""
    calls = contenders(w, M) | peer_contenders(peers, w, M, N, K)
    errors = {name: relative_error(call(0), calls[BASE][0](0)) for name, (call, _) in calls.items()}
    works = {}
    for name, (call, count) in calls.items():
        n = calls_in_graph(count, M)
        works[name] = (rotating(call, count, n), n)
    us = compare(works, repeats)
    ours = {f"{scheme} {name}": (scheme, dtype, name) for scheme in SCHEMES for dtype, name in DTYPES.items()}
    others = {"us": {}, "error": {}}
    for name in (name for name in us if name not in ours):
        others["us"][name] = round(us[name][0], 3)
        if "tensor_wise" not in name:  # whose scales are made up
            others["error"][name] = round(errors[name], 6)
    rows = []
    for contender, (scheme, dtype, activation) in ours.items():
        module, (mine, spread) = w.modules[scheme, dtype][0], us[contender]
        rows.append(
            {
                "scheme": scheme,
                "activation": activation,
                "M": M,
                "N": N,
                "K": K,
                "kernel": module._kernel(dtype, M),
                "us": round(mine, 3),
                "spread": round(spread, 4),
                "speedup": round(us["cublas_" + activation][0] / mine, 3),  # over the type's own product
                "gbps": round(weight_bytes(module) / mine / 1e3, 1),
                "tops": round(2 * M * N * K / mine / 1e6, 1),
                "floor_us": round(w.floor_us[scheme], 3),
                "floor_fraction": round(w.floor_us[scheme] / mine, 3),
                "error": round(errors[contender], 6),
            }
        )
    return rows, {"M": M, "N": N, "K": K} | others


def line(row: dict) -> str:
    return (
        f"{row['scheme']:16} {row['activation']} {row['M']:5} {row['N']:6} {row['K']:6}  {row['us']:8.2f} us "
        f"{row['speedup']:5.2f}x  floor {row['floor_us']:6.2f} us, {100 * row['floor_fraction']:4.0f} %  "
        f"error {row['error']:.4f}  {row['kernel']}"
    )


def chain(repeats: int) -> list[dict]:
    """A decoder layer's linears, each on the first columns of what the one before has made."""
    needed = sum(N * K for N, K in CHAIN)
    layers = [[(torch.randn(*shape, device="cuda") * 0.02).to(torch.float16) for shape in CHAIN] for _ in range(2)]
    x = torch.randn(1, CHAIN[0][1], device="cuda").to(torch.float16)
    floor = {"fp16": read_floor_us(2 * needed)}

    def product(weights):
        return [lambda x, w=w: linear(x, w) for w in weights]

    made = {"fp16": [product(layer) for layer in layers]}
    for scheme in CHAIN_SCHEMES:
        modules = [[QuantizedLinear.from_weight(w, None, scheme) for w in layer] for layer in layers]
        size = sum(map(weight_bytes, modules[0]))
        while len(modules) < copies(size):
            modules.append([QuantizedLinear.from_weight(w, None, scheme) for w in layers[0]])
        made[scheme], floor[scheme] = modules, read_floor_us(size)

    def run(layer):
        y = x
        for (_, K), linear_of in zip(CHAIN, layer, strict=True):
            y = linear_of(y[:, :K])
        return y

    us = compare(
        {
            name: (
                rotating(lambda i, layers_of=layers_of: run(layers_of[i]), len(layers_of), CHAIN_LAYERS),
                CHAIN_LAYERS,
            )
            for name, layers_of in made.items()
        },
        repeats,
    )
    return [
        {
            "scheme": name,
            "us": round(mine, 3),
            "spread": round(spread, 4),
            "speedup": round(us["fp16"][0] / mine, 3),
            "floor_us": round(floor[name], 3),
        }
        for name, (mine, spread) in us.items()
    ]


def summary(rows: list[dict]) -> dict:
    """Of each scheme, FP16 activations: the geometric mean and the least of its speed-ups, by rows of x."""
    bands = {"1-16": range(1, 17), "32-64": range(32, 65), "128-512": range(128, 513), "1000-8192": range(1000, 8193)}
    means = {}
    for scheme in SCHEMES:
        for band, members in bands.items():
            values = [
                row["speedup"]
                for row in rows
                if row["scheme"] == scheme and row["activation"] == "fp16" and row["M"] in members
            ]
            if values:
                means[f"{scheme}, M = {band}"] = [round(geometric_mean(values), 3), round(min(values), 3)]
    return means


def draw(rows: list[dict], others: list[dict], folder, title: str) -> None:
    """Of FP16 activations."""
    times = {(other["M"], other["N"], other["K"]): other | other["us"] for other in others}
    for row in rows:
        if row["activation"] == "fp16":
            times[row["M"], row["N"], row["K"]][row["scheme"]] = row["us"]
    curves = {f"octavo {scheme}": (COLORS[scheme], lambda r, s=scheme: r.get(s)) for scheme in SCHEMES}
    for peer, color in (("cublaslt_fp8_row_wise", "#707070"), ("cublaslt_fp8_tensor_wise", "#c0c0c0")):
        curves[peer.replace("_", " ")] = (color, lambda r, p=peer: r.get(p))
    file = folder / "weight_only.png"
    draw_speedups(
        list(times.values()), lambda r: r[BASE], curves, file, f"{title}: times as fast as cuBLAS FP16, against M"
    )
    shares = {}
    for row in rows:
        if row["M"] == 1 and row["activation"] == "fp16":
            shares.setdefault(f"{row['N']} x {row['K']}", {})[row["scheme"]] = row["floor_fraction"]
    if shares:
        name = f"{title}: one token, in % of the time of only reading the weight"
        draw_shares(shares, COLORS, folder / "weight_only_floor.png", name)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", help="record the figures under this name")
    parser.add_argument("--shapes", type=lambda text: tuple(map(int, text.split("x"))), nargs="+", default=SHAPES)
    parser.add_argument("--rows", type=lambda text: [int(part) for part in text.split(",")], default=ROWS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--without", nargs="*", default=[], choices=list(PEERS), help="peers to leave out")
    options = parser.parse_args()
    torch.manual_seed(0)
    peers, missing = {}, {}
    for name, peer in PEERS.items():
        try:
            if name not in options.without:
                peers[name] = peer()
        except ImportError as error:
            missing[name] = str(error)
    print("peers:", list(peers), "missing:", missing)
    rows, others = [], []
    for N, K in options.shapes:
        weights = Weights(N, K)
        for M in [*options.rows, *([SQUARE] if (N, K) == (SQUARE, SQUARE) else [])]:
            products, beside = measure(N, K, weights, M, options.repeats, peers)
            print("\n".join(map(line, products)), beside["us"], beside["error"], sep="\n", flush=True)
            rows += products
            others.append(beside)
        del weights
    layer = chain(options.repeats)
    means = summary(rows)
    print(*layer, means, sep="\n")
    if options.machine:
        content = gpu_facts(options.machine) | {
            "missing_peers": missing,
            "speedup_over_fp16_mean_and_least": means,
            "chain": layer,
            "rows": rows,
            "others": others,
        }
        folder = results_folder(options.machine)
        record(folder / "weight_only.json", content, tables=("chain", "rows", "others"))
        draw(rows, others, folder, content["gpu"])


if __name__ == "__main__":
    main()
