"""Schemes: what "w4a16-g128-asym" means. The grammar is that of the C++ library (octavo/scheme.h), which parses."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import torch

from . import ops

PER_TENSOR = 0
PER_CHANNEL = -1


class Activation(IntEnum):
    """What happens to the activations."""

    FLOAT = 0  # they stay floating point
    INT8_PER_TOKEN = 1  # int8, one scale a row, taken at run time; with grouped weights a row and group
    INT8_STATIC = 2  # int8, one calibrated scale
    INT8_OUTLIERS = 3  # LLM.int8(): int8 but for the outliers


@dataclass(frozen=True)
class Scheme:
    """A parsed scheme. group_size is PER_TENSOR, PER_CHANNEL, or how many weights along K share a scale."""

    text: str
    num_bits: int
    symmetric: bool
    group_size: int
    activation: Activation

    @property
    def packed(self) -> bool:
        """Whether weights are held two a byte."""
        return self.num_bits <= 4

    def groups(self, K: int) -> int:
        """Number of scales along K."""
        return ops.groups(K, self.group_size)

    def __str__(self) -> str:
        return self.text


@cache
def parse_scheme(text: str) -> Scheme:
    """Raises ValueError, saying which part is wrong and what is accepted."""
    try:
        num_bits, symmetric, group_size, activation = torch.ops.octavo.parse_scheme(text)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    return Scheme(text, num_bits, bool(symmetric), group_size, Activation(activation))
