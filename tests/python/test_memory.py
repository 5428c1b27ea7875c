"""Figures of compare_memory_footprint, and the memory that modules really take."""

import pytest
import torch
from torch import nn

import octavo


def state_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def test_footprint_of_a_shape():
    footprint = octavo.compare_memory_footprint((64, 256))
    assert (footprint.fp32, footprint.fp16) == (65536, 32768)
    assert footprint.int8 == 64 * 256 + 64 * 4
    assert footprint.int4 == 64 * 128 + 64 * 2 * 4
    assert octavo.compare_memory_footprint((64, 250), group_size=32).int4 == 64 * 125 + 64 * 8 * 4


def test_footprint_prints_a_table():
    lines = str(octavo.compare_memory_footprint((1024, 1024))).splitlines()
    assert [line.split()[0] for line in lines] == ["format", "FP32", "FP16", "INT8", "INT4"]
    assert lines[2].split()[1:] == ["2.00", "50.0", "%"]


@pytest.mark.parametrize(("scheme", "column"), [("w8a16", "int8"), ("w4a16-g128", "int4")])
def test_footprint_of_a_model_is_what_its_state_takes(scheme, column):
    model = nn.Sequential(nn.Embedding(100, 256), nn.Linear(256, 512), nn.LayerNorm(512), nn.Linear(512, 64)).half()
    before = octavo.compare_memory_footprint(model)
    assert before.fp16 == state_bytes(model)
    octavo.quantize_model(model, scheme)
    assert state_bytes(model) == getattr(before, column)
    assert octavo.compare_memory_footprint(model) == before


def test_a_weight_shared_with_an_embedding_is_counted_once_and_stays():
    model = nn.Sequential(nn.Embedding(100, 32), nn.Linear(32, 100, bias=False))
    model[1].weight = model[0].weight
    footprint = octavo.compare_memory_footprint(model)
    assert footprint.fp32 == 4 * 3200
    assert footprint.int8 == footprint.fp16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_int8_halves_16_bit_weights(dtype):
    linear = nn.Linear(1024, 1024, bias=False, dtype=dtype)
    module = octavo.QuantizedLinear.from_linear(linear)
    assert 0.5 <= state_bytes(module) / state_bytes(linear) < 0.51
