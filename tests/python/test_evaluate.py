import json
import math

import pytest
import torch
from tiny_models import TEXT, byte_tokenizer, llama, save

import octavo._generate
from octavo._generate import decode_speed, encode_prompt
from octavo._models import scheme_name, weight_bytes
from octavo.cli import eval as eval_cli
from octavo.cli import generate as generate_cli
from octavo.evaluate import Row, builtin_text, evaluate, kl_divergence
from octavo.perplexity import perplexity

FIELDS = {"scheme", "bytes", "perplexity", "kl_divergence", "tokens_per_second", "sample", "path"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save(tmp_path_factory.mktemp("base"), llama(0), byte_tokenizer(chat=True))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return save(tmp_path_factory.mktemp("other"), llama(1), byte_tokenizer())


def run(paths, **options):
    options = {"text": TEXT, "window": 64, "new_tokens": 2} | options
    return evaluate(paths, **options)


def naive_kl(reference, model, tokenizer, window):
    ids = torch.tensor(tokenizer(TEXT)["input_ids"])
    rows = []
    with torch.no_grad():
        for part in ids.split(window):
            p, q = (m(part[None]).logits[0, :-1].double().log_softmax(-1) for m in (reference, model))
            rows += (p.exp() * (p - q)).sum(-1).tolist()
    return sum(rows) / len(rows)


def test_kl_divergence_of_known_distributions():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert kl_divergence(p.log() + 3, q.log() - 1).item() == pytest.approx(expected, rel=1e-5)
    r = torch.tensor([[0.98, 0.01, 0.01]])
    assert kl_divergence(p.log(), r.log()).item() != pytest.approx(kl_divergence(r.log(), p.log()).item(), rel=0.1)


def test_rows(base, other):
    first, second = run([base, other])
    tokenizer = byte_tokenizer()
    assert (first.scheme, first.path, second.path) == ("fp32", str(base), str(other))
    assert first.bytes == (base / "model.safetensors").stat().st_size
    assert first.perplexity == pytest.approx(perplexity(llama(0), tokenizer, TEXT, 64), rel=1e-5)
    assert second.perplexity == pytest.approx(perplexity(llama(1), tokenizer, TEXT, 64), rel=1e-5)
    assert first.kl_divergence == pytest.approx(0, abs=1e-6)
    assert second.kl_divergence == pytest.approx(naive_kl(llama(0), llama(1), tokenizer, 64), rel=1e-4)
    assert first.tokens_per_second > 0
    assert isinstance(first.sample, str)


def test_a_reference_apart_is_measured_against_but_gets_no_row(base, other):
    (row,) = run([other], reference=base)
    assert row.path == str(other)
    assert row.kl_divergence == pytest.approx(naive_kl(llama(0), llama(1), byte_tokenizer(), 64), rel=1e-4)
    assert row.perplexity == pytest.approx(perplexity(llama(1), byte_tokenizer(), TEXT, 64), rel=1e-5)


def test_without_a_reference_there_is_no_divergence(base, monkeypatch):
    monkeypatch.setattr("octavo.evaluate.is_quantized", lambda path: True)
    (row,) = run([base])
    assert row.kl_divergence is None


def test_tokens_that_differ_are_refused(base, tmp_path):
    strange = save(tmp_path / "strange", llama(0), byte_tokenizer(order=-1))
    with pytest.raises(ValueError, match="strange does not cut the text.*base"):
        run([base, strange])


def test_a_wrong_path_fails_before_any_model_runs(base, tmp_path, monkeypatch):
    monkeypatch.setattr("octavo.evaluate.open_model", lambda *a, **k: pytest.fail("a model was opened"))
    with pytest.raises(FileNotFoundError, match="missing"):
        run([base, tmp_path / "missing"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no weights"):
        run([base, tmp_path])


def test_scheme_names(tmp_path):
    def config(**entries):
        (tmp_path / "config.json").write_text(json.dumps(entries))
        return scheme_name(tmp_path)

    assert config(dtype="bfloat16") == "bf16"
    assert config(torch_dtype="float16") == "fp16"
    assert config(quantization_config={"quant_method": "gptq"}) == "gptq"
    (tmp_path / "octavo.json").write_text('{"scheme": "w4a16-g64"}')
    assert config(quantization_config={"quant_method": "compressed-tensors"}) == "w4a16-g64"


def test_weight_bytes_counts_every_shard(tmp_path):
    for name, size in {"a.safetensors": 10, "b.safetensors": 5, "tokenizer.json": 100, "old.bin": 7}.items():
        (tmp_path / name).write_bytes(bytes(size))
    assert weight_bytes(tmp_path) == 15


def test_decode_speed_counts_tokens_between_the_first_and_the_last(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(octavo._generate.time, "perf_counter", lambda: next(ticks) * 0.25)
    inputs = encode_prompt(byte_tokenizer(), "abc")
    # One tick a token: four tokens a second, whatever the prompt took.
    assert decode_speed(llama(), inputs, new_tokens=5, repeats=3) == pytest.approx(4.0)


def test_prompts():
    chatty = byte_tokenizer(chat=True)
    assert chatty.decode(encode_prompt(chatty, "hi")["input_ids"][0]) == "<user>hi<assistant>"
    assert chatty.decode(encode_prompt(chatty, "hi", chat=False)["input_ids"][0]) == "hi"
    with pytest.raises(ValueError, match="no chat template"):
        encode_prompt(byte_tokenizer(), "hi", chat=True)
    with pytest.raises(ValueError, match="prompt is empty"):
        encode_prompt(byte_tokenizer(), "")


def test_the_builtin_text_is_long_and_the_same_each_time():
    assert len(builtin_text()) > 100_000
    assert builtin_text() == builtin_text()


def test_broken_figures_are_null_in_json():
    row = Row("w2a16", 1, math.inf, math.nan, 1.0, "", "p")
    assert (row.as_json()["perplexity"], row.as_json()["kl_divergence"]) == (None, None)
    json.dumps(row.as_json(), allow_nan=False)


def test_eval_prints_json_or_a_table(base, tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text(TEXT)
    arguments = [str(base), "--text", str(text), "--window", "64", "--windows", "2"]
    assert eval_cli.main([*arguments, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row.keys() == FIELDS
    assert row["perplexity"] == pytest.approx(perplexity(llama(0), byte_tokenizer(), TEXT, 64, max_windows=2), rel=1e-5)
    assert eval_cli.main(arguments) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["scheme", "size", "MB", "perplexity", "KL", "tokens/s", "path"]
    assert line.split()[0] == "fp32"
    assert line.split()[-1] == str(base)


def test_generate_prints_what_the_model_says(base, capsys):
    assert generate_cli.main([str(base), "The quick", "--raw", "--max-new-tokens", "6"]) == 0
    tokenizer = byte_tokenizer()
    ids = encode_prompt(tokenizer, "The quick")["input_ids"]
    for _ in range(6):
        with torch.no_grad():
            ids = torch.cat([ids, llama(0)(ids).logits[:, -1:].argmax(-1)], 1)
    assert capsys.readouterr().out.rstrip("\n") == tokenizer.decode(ids[0, 9:], skip_special_tokens=True).rstrip("\n")


@pytest.mark.parametrize("main", [eval_cli.main, generate_cli.main])
def test_exit_codes(main, base, tmp_path, capsys, monkeypatch):
    prompt = ["prompt"] if main is generate_cli.main else []
    assert main([str(tmp_path / "nowhere"), *prompt]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "nowhere" in captured.err
    assert "expected" in captured.err

    assert main([str(base), *prompt, "--device", "cuda:99"]) == 1
    assert "cuda:99" in capsys.readouterr().err

    with pytest.raises(SystemExit) as usage:
        main([str(base), *prompt, "--no-such-option"])
    assert usage.value.code == 2

    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("octavo.evaluate.open_model", interrupt)
    monkeypatch.setattr("octavo._models.open_model", interrupt)
    assert main([str(base), *prompt]) == 130


def test_eval_refuses_a_text_that_is_not_utf8(base, tmp_path, capsys):
    text = tmp_path / "text"
    text.write_bytes(b"good \xff bad")
    assert eval_cli.main([str(base), "--text", str(text)]) == 1
    assert "byte 5" in capsys.readouterr().err
