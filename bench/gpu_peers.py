"""Other libraries' weight-only products, where they are installed; at some places only, because each is tuned there.

A peer is made by a function that raises ImportError where its library is missing. It is called with the weights of
gpu_weight_only.py, M, N and K, and returns contenders: name → function of a call's number, and how many weights.
"""

from pathlib import Path

import torch
from cuda_timing import copies
from torch import nn

SHAPES = [(4096, 4096), (14336, 4096)]
ROWS = [1, 16, 64, 1024]


class _Peer:
    """Keeps the modules of the latest weights."""

    def __init__(self):
        self._of, self._modules = None, {}

    def __call__(self, weights, M: int, N: int, K: int) -> dict[str, tuple]:
        if (N, K) not in SHAPES or M not in ROWS:
            return {}
        if self._of is not weights:
            self._of, self._modules = weights, self.modules(weights.fp16, N, K)
        x = weights.input(M)
        return {
            name: (lambda i, made=made: self.product(made[i], x), len(made)) for name, made in self._modules.items()
        }

    def product(self, module, x: torch.Tensor) -> torch.Tensor:
        return module(x)


class _Gemlite(_Peer):
    """Mobius Labs' Triton kernels, with the configurations that they bring for the H100."""

    def __init__(self):
        super().__init__()
        import gemlite
        from gemlite.helper import A16W8, A16Wn

        gemlite.load_config(str(Path(gemlite.__file__).with_name("configs") / "h100.json"))
        self._w8, self._w4 = A16W8(dtype=torch.float16), A16Wn(dtype=torch.float16)

    def modules(self, weights, N, K):
        def four_bits(w):
            q, scale, zero_point = torch.ops.octavo.quantize(w, 4, False, 128, 0, 99.9, torch.float32)
            return self._w4.from_weights(q, scale.half(), zero_point.half(), 4, 128)

        count8, count4 = copies(N * K), copies(N * K / 2)
        return {
            "gemlite_w8a16": [self._w8.from_weights(weights[i % len(weights)]) for i in range(count8)],
            "gemlite_w4a16_g128": [four_bits(weights[i % len(weights)]) for i in range(count4)],
        }


class _Torchao(_Peer):
    """torchao's INT8 weights, which torch.compile makes a kernel for."""

    def __init__(self):
        super().__init__()
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        self._quantize, self._config = quantize_, Int8WeightOnlyConfig
        self._compiled = torch.compile(nn.functional.linear, dynamic=False, mode="max-autotune-no-cudagraphs")

    def modules(self, weights, N, K):
        made = []
        for i in range(copies(N * K)):
            linear = nn.Linear(K, N, bias=False, device="meta")
            linear.weight = nn.Parameter(weights[i % len(weights)], requires_grad=False)
            self._quantize(linear, self._config(set_inductor_config=False))
            made.append(linear)
        return {"torchao_w8a16": made}

    def product(self, module, x):
        return self._compiled(x, module.weight)


PEERS = {"gemlite": _Gemlite, "torchao": _Torchao}
