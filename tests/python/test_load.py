"""octavo.load: checkpoints in the compressed-tensors format, here written by the format's own Python package."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file, save_file
from tiny_models import llama

import octavo
from octavo import LLMInt8Linear, QuantizedLinear

TOKENS = torch.arange(40).reshape(2, 20)
SCHEMES = [
    "w8a16",
    "w8a16-g16",
    "w4a16-g16",
    "w4a16-g16-asym",
    "w8a16-asym",
    "w3a16-g32-asym",
    "w5a16",
    "w8a8",
    "w8a8-tensor",
    "w8a8-static",
    "w8a8-tensor-static",
]


def stored(name, module):
    """The tensors that a quantized module has in a checkpoint."""
    s, N, K = module.scheme, module.out_features, module.in_features
    if s.activation:
        scale = module.scale if s.group_size == 0 else module.scale[:, None]
        tensors = {f"{name}.weight": module.weight_int8, f"{name}.weight_scale": scale}
        return tensors | ({f"{name}.input_scale": module.input_scale} if s.activation == 2 else {})
    q = torch.ops.octavo.unpack(module.weight_int4, K, s.symmetric) if s.packed else module.weight_int8
    middle = 0 if s.symmetric else 1 << (s.num_bits - 1)  # pack_to_int32 takes signed values and adds it
    signed = (q.to(torch.int16) - middle).to(torch.int8)
    tensors = {
        f"{name}.weight_packed": pack_to_int32(signed, s.num_bits),
        f"{name}.weight_scale": module.scale.reshape(N, -1),
        f"{name}.weight_shape": torch.tensor([N, K]),
    }
    if not s.symmetric:
        signed = (module.zero_point.reshape(N, -1).to(torch.int16) - middle).to(torch.int8)
        tensors[f"{name}.weight_zero_point"] = pack_to_int32(signed, s.num_bits, packed_dim=0)
    return tensors


def quantization_config(scheme):
    arguments = {"observer_kwargs": {}, "block_structure": None, "actorder": None, "type": "int"}
    weights = {
        "num_bits": scheme.num_bits,
        "symmetric": scheme.symmetric,
        "strategy": "group" if scheme.group_size > 0 else "tensor" if scheme.group_size == 0 else "channel",
        "group_size": scheme.group_size if scheme.group_size > 0 else None,
        "dynamic": False,
        "observer": "minmax",
    }
    activations = {
        "num_bits": 8,
        "symmetric": True,
        "strategy": "token",
        "group_size": None,
        "dynamic": True,
        "observer": None,
    }
    if scheme.activation == 2:
        activations |= {"strategy": "tensor", "dynamic": False, "observer": "minmax"}
    integer = scheme.activation in (1, 2)
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if integer else "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": arguments | weights,
                "input_activations": arguments | activations if integer else None,
                "output_activations": None,
            }
        },
    }


def write(path, scheme, tied=True):
    """A quantized checkpoint, and the model that it holds."""
    model = llama(tie_word_embeddings=tied)
    octavo.quantize_model(model, scheme, **({"input_scale": 0.04} if "static" in scheme else {}))
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    facts = {}
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(name + ".")}
            tensors |= stored(name, module)
            facts[f"{name}.weight"] = {"scheme": scheme}
    path.mkdir(exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, path / "model.safetensors", {"format": "pt"}
    )
    parsed = octavo.parse_scheme("w8a16" if scheme == "llm.int8" else scheme)
    config = json.loads(model.config.to_json_string(use_diff=False)) | {
        "quantization_config": quantization_config(parsed)
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "octavo.json").write_text(json.dumps({"scheme": scheme, "tensors": facts}))
    model.generation_config.save_pretrained(path)
    return model


@torch.no_grad()
def logits(model):
    return model(TOKENS).logits


@pytest.mark.parametrize("scheme", SCHEMES)
def test_loaded_model_is_the_one_that_was_written(tmp_path, scheme):
    model = write(tmp_path, scheme)
    loaded = octavo.load(tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name
    held, made = dict(loaded.named_buffers()), dict(model.named_buffers())
    assert held.keys() == made.keys()  # packed before the first forward where kernels read packed weights
    assert all(torch.equal(tensor, made[name]) for name, tensor in held.items())
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g16", "w4a16-g16-asym", "w8a8", "w8a8-static"])
def test_stock_transformers_agrees(tmp_path, scheme):
    from transformers import AutoModelForCausalLM

    write(tmp_path, scheme)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours, theirs = logits(octavo.load(tmp_path)), logits(stock)
    assert (ours - theirs).norm() / theirs.norm() < (0.06 if "w8a8" in scheme else 1e-5)


def test_llm_int8_is_told_by_octavo_json(tmp_path):
    model = write_llm_int8(tmp_path, threshold=3.5)
    loaded = octavo.load(tmp_path)
    layer = loaded.model.layers[0].mlp.up_proj
    assert type(layer) is LLMInt8Linear
    assert layer.threshold == 3.5
    assert torch.equal(layer.weight_int8, model.model.layers[0].mlp.up_proj.weight_int8)
    (tmp_path / "octavo.json").unlink()
    assert type(octavo.load(tmp_path).model.layers[0].mlp.up_proj) is QuantizedLinear


def write_llm_int8(path, threshold):
    model = write(path, "w8a16")
    facts = json.loads((path / "octavo.json").read_text())
    facts["tensors"] = {name: {"scheme": "llm.int8"} for name in facts["tensors"]}
    (path / "octavo.json").write_text(json.dumps(facts | {"scheme": "llm.int8", "llm_int8_threshold": threshold}))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g32-asym", "w8a8"])
def test_the_command_line_writes_what_quantize_model_makes(tmp_path, scheme, dtype):
    model = llama().to(dtype)
    model.save_pretrained(tmp_path / "model")
    program = Path(sys.executable).with_name("octavo")
    command = [program, "quantize", tmp_path / "model", tmp_path / "quantized", "--scheme", scheme]
    subprocess.run(command, check=True, capture_output=True)
    octavo.quantize_model(model, scheme)
    expected = model.state_dict()
    loaded = octavo.load(tmp_path / "quantized", dtype=dtype).state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_tied_and_nothing_stays_on_meta(tmp_path, tied):
    write(tmp_path, "w4a16-g16", tied)
    model = octavo.load(tmp_path)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    reference = llama().model.rotary_emb.inv_freq
    assert torch.equal(model.model.rotary_emb.inv_freq, reference)
    assert getattr(model.config, "quantization_config", None) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_is_that_of_activations(tmp_path, dtype):
    model = write(tmp_path, "w8a16")
    loaded = octavo.load(tmp_path, dtype=dtype)
    assert loaded.dtype == loaded.model.embed_tokens.weight.dtype == dtype
    assert loaded.model.layers[0].mlp.up_proj.scale.dtype == torch.float32
    y = logits(loaded)
    assert y.dtype == dtype
    assert (y.float() - logits(model)).norm() / logits(model).norm() < 0.05


def test_it_generates_as_its_generation_config_says(tmp_path):
    write(tmp_path, "w8a8")
    (tmp_path / "generation_config.json").write_text(json.dumps({"max_new_tokens": 3, "eos_token_id": 0}))
    model = octavo.load(tmp_path)
    assert model.generate(TOKENS[:1], do_sample=False, pad_token_id=0).shape[1] <= 23
    assert model.generation_config.max_new_tokens == 3


def shard(path):
    """Spreads model.safetensors over three files, parts of one weight over several of them."""
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    weight_map = {name: f"model-{i % 3 + 1:05d}-of-00003.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, path / file)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_shards(tmp_path):
    model = write(tmp_path, "w4a16-g16-asym")
    index = shard(tmp_path)
    assert torch.equal(logits(octavo.load(tmp_path)), logits(model))
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00003"):
        octavo.load(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match="plain file name"):
        octavo.load(tmp_path)


def test_each_module_has_the_scheme_of_its_group(tmp_path):
    write(tmp_path, "w8a16")
    config = json.loads((tmp_path / "config.json").read_text())
    group = config["quantization_config"]["config_groups"]["group_0"]
    names = [f"model.layers.{i}.mlp.{leaf}" for i in range(2) for leaf in ("gate_proj", "up_proj", "down_proj")]
    config["quantization_config"]["config_groups"] = {
        "group_0": group | {"targets": names},
        "group_1": group | {"targets": ["re:.*self_attn.*"]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert octavo.load(tmp_path).model.layers[1].mlp.up_proj.scheme.text == "w8a16"
    del config["quantization_config"]["config_groups"]["group_1"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"self_attn.*no group"):
        octavo.load(tmp_path)


def test_an_unquantized_directory_loads_as_usual(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path)
    loaded = octavo.load(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert not any(isinstance(module, QuantizedLinear) for module in loaded.modules())


def test_what_save_pretrained_made_of_a_quantized_model_is_refused(tmp_path):
    model = llama()
    octavo.quantize_model(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="missing"):
        octavo.load(tmp_path)


UP = "model.layers.0.mlp.up_proj"


def refuses_tensors(folder, scheme, change, message):
    """A checkpoint whose tensors `change` has changed does not load, and why matches `message`."""
    write(folder, scheme)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        octavo.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{UP}.weight_packed"), "no place for .*up_proj.weight_scale"),
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight missing"),
        (lambda t: t.update(extra=torch.ones(1)), "no place for extra"),
        (lambda t: t.update({"model.norm.weight": torch.ones(31)}), r"model.norm.weight: shape \[31\]"),
        (lambda t: t.update({f"{UP}.weight_shape": torch.tensor([64, 31])}), r"weight_shape: says \[64, 31\]"),
        (lambda t: t.update({f"{UP}.weight_scale": torch.zeros(64, 2)}), "weight_scale: has values"),
        (lambda t: t[f"{UP}.weight_scale"].fill_(math.nan), "weight_scale: has values"),
        (lambda t: t.update({f"{UP}.weight_scale": torch.ones(64, 3)}), r"scale is torch.float32 \[64, 3\]"),
        (
            lambda t: t.update({f"{UP}.weight_packed": torch.zeros(64, 3, dtype=torch.int32)}),
            "weight_packed: is .*take 4",
        ),
        (lambda t: t.update({"model.norm.weight_scale": torch.ones(1)}), "it is a LlamaRMSNorm"),
        (lambda t: t.update({"model.nothing.weight_scale": torch.ones(1)}), "no such module"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    refuses_tensors(tmp_path, "w4a16-g16", change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "gptq"}, "'gptq' cannot be loaded"),
        ({"format": "nvfp4-pack-quantized"}, "'nvfp4-pack-quantized' cannot be loaded"),
    ],
)
def test_other_formats_are_refused(tmp_path, change, message):
    write(tmp_path, "w8a8")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        octavo.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{UP}.input_scale"), "no place for .*up_proj.weight"),
        (lambda t: t.update({f"{UP}.input_scale": torch.zeros(1)}), "up_proj.input_scale: has values that are not"),
        (lambda t: t.update({f"{UP}.input_scale": torch.ones(2)}), "up_proj.input_scale: has 2 values"),
    ],
)
def test_static_scales_that_do_not_fit_are_named(tmp_path, change, message):
    refuses_tensors(tmp_path, "w8a8-static", change, message)


@pytest.mark.parametrize("change", [{"symmetric": False}, {"strategy": "channel"}])
def test_other_static_scales_are_refused(tmp_path, change):
    write(tmp_path, "w8a8-static")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["input_activations"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="one a tensor and symmetric"):
        octavo.load(tmp_path)


def test_a_directory_without_a_model_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        octavo.load(tmp_path / "nothing")


def test_a_truncated_file_is_named(tmp_path):
    write(tmp_path, "w4a16-g16")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors: "):
        octavo.load(tmp_path)


def test_loaded_tensors_are_not_views_of_the_file(tmp_path):
    model = write(tmp_path, "w4a16-g16")
    loaded = octavo.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert torch.equal(logits(loaded), logits(model))
