"""Ours, through the operators of torch.ops.octavo: packed weights, threads of torch."""

import os
from functools import partial
from pathlib import Path

import torch

from .contender import Contender, Layer

ROOT = Path(__file__).resolve().parents[2]

# op numbers of the C++ enum Op
LINEAR, SCALED_MM, LINEAR_W4A8, LLM_INT8 = range(4)

# scheme, family, op, bits, group_size, types of x; float32 where x is quantized inside, as the peers take it
SCHEMES = [
    ("w8a16", "w8a16", LINEAR, 8, -1, (torch.bfloat16, torch.float32)),
    ("w8a8", "w8a8", SCALED_MM, 8, -1, (torch.float32,)),
    ("llm.int8", "w8a8", LLM_INT8, 8, -1, (torch.float32,)),
    ("w4a16-g128", "w4a16", LINEAR, 4, 128, (torch.bfloat16, torch.float32)),
    ("w4a8-g128", "w4a8", LINEAR_W4A8, 4, 128, (torch.float32,)),
    ("w4a8-g32", "w4a8", LINEAR_W4A8, 4, 32, (torch.float32,)),
]
OP_NAMES = ["linear", "linear_w8a8", "linear_w4a8", "linear_llm_int8"]


def load() -> str:
    """Loads octavo_torch.so, the one that OCTAVO_TORCH_LIBRARY names or this checkout's newest, and says which."""
    built = [ROOT / "build" / "wheel" / "src" / "torch" / "octavo_torch.so"]
    built += (ROOT / ".venv").glob("lib/python3*/site-packages/octavo/octavo_torch.so")
    found = sorted((file for file in built if file.is_file()), key=lambda file: file.stat().st_mtime)
    path = os.environ.get("OCTAVO_TORCH_LIBRARY") or (str(found[-1]) if found else None)
    if path is None:
        raise ImportError("octavo_torch.so is not built (make build), and OCTAVO_TORCH_LIBRARY is not set")
    torch.ops.load_library(path)
    return f"octavo {(ROOT / 'VERSION').read_text().strip()}, {'packed' if _has_packed() else 'row-major'} weights"


def _arguments(operator, **values) -> list:
    """The values in the order of the operator's schema."""
    return [values[argument.name] for argument in operator._schema.arguments]


def _weight(layer: Layer, bits: int, group: int):
    columns = layer.K if bits == 8 else (layer.K + 1) // 2
    q = torch.randint(-127, 127, (layer.N, columns), dtype=torch.int8)
    groups = -(-layer.K // group) if group > 0 else 1
    return q if bits == 8 else q.view(torch.uint8), torch.full((layer.N, groups), 0.002)


def _x(M: int, K: int, dtype: torch.dtype) -> torch.Tensor:
    x = torch.rand(M, K) * 2 - 1
    x[:, K // 2 :: 1024] = 20  # large columns, as language models have: outliers to LLM.int8()
    return x.to(dtype)


def _packed(layer: Layer, q, scale, op: int, bits: int, group: int):
    """Packed copies and a function of x and a copy."""
    pack = torch.ops.octavo.pack_weight.default
    values = dict(q=q, scale=scale, zero_point=None, num_bits=bits, group_size=group, packed=bits < 8, K=layer.K)
    first = pack(*_arguments(pack, **values))
    copies = [first] + [pack(*_arguments(pack, **values)) for _ in range(layer.copies(first.numel()) - 1)]
    product = getattr(torch.ops.octavo, OP_NAMES[op] + "_packed").default
    rest = _arguments(product, x=None, weight=None, bias=None, N=layer.N, threshold=6.0, rule=0)[2:]
    return copies, first.numel(), lambda x, weight: product(x, weight, *rest)


def _row_major(layer: Layer, q, scale, op: int, bits: int, group: int):
    """The same with the operators that take weights as checkpoints store them, for libraries without packed ones."""
    ops = torch.ops.octavo
    weight_bytes = q.numel() + scale.numel() * 4
    copies = [(q.clone(), scale.clone()) for _ in range(layer.copies(weight_bytes))]

    def w8a8(x, w):
        x_q, x_scale = ops.quantize_per_token(x, -1)
        return ops.scaled_mm(x_q, w[0], x_scale, w[1], None, x.dtype)

    products = [
        lambda x, w: ops.linear(x, w[0], w[1], None, None, bits, group, bits < 8),
        w8a8,
        lambda x, w: ops.linear_w4a8(x, w[0], w[1], None, None, bits, group, bits < 8),
        lambda x, w: ops.linear_llm_int8(x, w[0], w[1], None, 6.0, 0),
    ]
    return copies, weight_bytes, products[op]


def _kernel(layer: Layer, op: int, bits: int, group: int, dtype: torch.dtype, M: int) -> str:
    """The row of the kernel table; "unknown" for a library whose select_kernel asks for something else."""
    select = torch.ops.octavo.select_kernel.default
    activation = torch.int8 if op == SCALED_MM else dtype
    values = dict(op=op, activation=activation, num_bits=bits, symmetric=True, group_size=group, packed=bits < 8)
    values |= dict(layout=int(_has_packed()), M=M, N=layer.N, K=layer.K, cuda=False)
    try:
        return select(*_arguments(select, **values))
    except (KeyError, RuntimeError):
        return "unknown"


def _has_packed() -> bool:
    return hasattr(torch.ops.octavo, "linear_w8a8_packed")


def contenders(layer: Layer) -> list[Contender]:
    torch.set_num_threads(layer.threads)
    made = []
    for scheme, family, op, bits, group, dtypes in SCHEMES:
        q, scale = _weight(layer, bits, group)
        make = _packed if _has_packed() else _row_major
        copies, weight_bytes, product = make(layer, q, scale, op, bits, group)
        for dtype in dtypes:

            def ready(M, copies=copies, product=product, dtype=dtype):
                x = _x(M, layer.K, dtype)
                return lambda i: product(x, copies[i])

            activation = str(dtype).removeprefix("torch.")
            name = f"octavo {scheme} {activation}"
            facts = {"scheme": scheme, "op": OP_NAMES[op]}
            kernel = partial(_kernel, layer, op, bits, group, dtype)
            operands = "int8" if op != LINEAR else {torch.bfloat16: "bf16"}.get(dtype, "fp32")
            made.append(
                Contender(name, (family,), activation, operands, weight_bytes, len(copies), ready, facts, kernel)
            )
    return made
