"""What is timed: a product on copies of its weight."""

from collections.abc import Callable
from dataclasses import dataclass, field

# What weights and activations are multiplied as. Contenders of a family could replace one another in a model.
FAMILIES = {
    "w8a8": "8-bit weights, 8-bit activations",
    "w8a16": "8-bit weights, activations as they come",
    "w4a8": "4-bit weights, 8-bit activations",
    "w4a16": "4-bit weights, activations as they come",
}


@dataclass
class Contender:
    """A product y[M, N] = x[M, K] · W[N, K]ᵀ; `ready(M)` returns a function that computes it with copy i of W."""

    name: str
    families: tuple[str, ...]
    activation: str  # the type of x
    operands: str  # what is multiplied: "int8", "bf16" or "fp32"
    bytes: int  # of one copy of the weight, with scales
    copies: int
    ready: Callable[[int], Callable[[int], object]]
    facts: dict = field(default_factory=dict)  # ours: scheme, op
    kernel: Callable[[int], str] | None = None  # M -> what the library calls the kernel that it runs


@dataclass
class Layer:
    """The weight that every contender of a run has, and the conditions."""

    N: int
    K: int
    threads: int
    cold_bytes: int  # copies of a weight take more than this: then each has left the caches when it is its turn again

    def copies(self, weight_bytes: float) -> int:
        return int(self.cold_bytes // weight_bytes) + 2
