"""Quantizes a real language model and shows what that costs and gains.

SmolLM2-135M-Instruct is exported as FP16, quantized by the `octavo` program to four schemes, and every model is
evaluated on the same text. Prints a table, and writes results.json and results.png beside the models. Needs no network.

    python examples/demo.py            models and results go to build/demo
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import textwrap
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import matplotlib

matplotlib.use("Agg")
import smollm2
import torch
from matplotlib import pyplot as plt
from transformers.utils import logging

import octavo
from octavo.cli.eval import table
from octavo.evaluate import DEFAULT_PROMPT, Row, evaluate

SCHEMES = ("w8a16", "w8a8", "w4a16-g64", "w4a16-g32-asym")
WINDOW, WINDOWS = 1024, 4
W8A16_TOLERANCE = 0.005  # relative perplexity; W8A16 is meant to be free

NOTES = (
    "INT4 looks worse here than on other models, and groups of 32 with zero points better than other INT4: the "
    "published weights already lie on a 4-bit grid (GGUF's Q4_1: blocks of 32 with a minimum), which symmetric levels "
    "and integer zero points cannot hit. Weights that never were INT4 lose far less.",
    "W8A8 has W8A16's weights; the rest of its cost is rounding activations to 8 bits with one scale a token. Outliers "
    "take that scale with them: in down_proj of layers 11, 28 and 29 single inputs are thousands of times larger than "
    "the usual one. Leaving every down_proj's input unrounded would save about a quarter of the cost.",
    f"Perplexity and KL: the first {WINDOWS} windows of {WINDOW} tokens of Python's language reference, in FP32 "
    "arithmetic. Tokens/s: greedy decoding at batch 1, on the kernels that `octavo kernels` lists for this machine.",
)


def quantize(source: Path, destination: Path, scheme: str) -> None:
    """Runs the command line, as a user would. Raises subprocess.CalledProcessError after its message."""
    program = Path(sys.executable).with_name("octavo")
    if not program.is_file():
        raise FileNotFoundError(f"{program} is missing; install this package first: pip install .")
    command = [program, "quantize", source, destination, "--scheme", scheme, "--force", "--quiet"]
    start = time.perf_counter()
    subprocess.run([os.fspath(part) for part in command], check=True)
    print(f"octavo quantize {source} {destination} --scheme {scheme}   ({time.perf_counter() - start:.1f} s)")


def facts() -> dict:
    """The machine and the measurement, for whoever reads the figures later."""
    return {
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "command": "make demo",
        "octavo": octavo.__version__,
        "torch": torch.__version__,
        "text": f"pydoc_data.topics of Python {platform.python_version()}",
        "window": WINDOW,
        "windows": WINDOWS,
        "prompt": DEFAULT_PROMPT,
    }


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def draw(rows: list[Row], file: Path) -> None:
    """Size, perplexity and speed of each model, as bars side by side."""
    panels = (
        ("Weights on disk, MB", [row.bytes / 1e6 for row in rows], "{:.0f}", "smaller is better"),
        ("Perplexity", [row.perplexity for row in rows], "{:.2f}", "smaller is better"),
        ("Greedy decoding, tokens/s", [row.tokens_per_second for row in rows], "{:.1f}", "larger is better"),
    )
    colors = ["#9aa5b1"] + ["#2f6f9f"] * (len(rows) - 1)
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.2), sharey=True, layout="constrained")
    for axis, (title, values, form, hint) in zip(axes, panels, strict=True):
        bars = axis.barh([row.scheme for row in rows], values, color=colors, height=0.65)
        axis.bar_label(bars, labels=[form.format(value) for value in values], padding=4, fontsize=10)
        axis.axvline(values[0], color="#9aa5b1", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axis.set_xlabel(hint, fontsize=9, color="#52606d", loc="left")
        axis.set_xlim(0, 1.2 * max(values))
        axis.set_xticks([])
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.suptitle("SmolLM2-135M-Instruct, quantized by Octavo", x=0.01, ha="left", fontsize=13)
    figure.savefig(file, dpi=150)


def run(directory: Path) -> int:
    fp16 = smollm2.export(directory / "fp16")
    for scheme in SCHEMES:
        quantize(fp16, directory / scheme, scheme)
    rows = evaluate([fp16, *(directory / scheme for scheme in SCHEMES)], window=WINDOW, max_windows=WINDOWS)

    print(f"\n{table(rows)}\n")
    print(f"{DEFAULT_PROMPT}")
    for row in rows:
        print(textwrap.fill(row.sample, 110, initial_indent=f"  {row.scheme:16}", subsequent_indent=" " * 18))
    for note in NOTES:
        print("\n" + textwrap.fill(note, 110))

    results = directory / "results.json"
    content = {**facts(), "rows": [row.as_json() for row in rows]}
    results.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(rows, directory / "results.png")
    print(f"\n{results}\n{directory / 'results.png'}")

    base, w8a16 = rows[0].perplexity, rows[1].perplexity
    if not abs(w8a16 / base - 1) <= W8A16_TOLERANCE:
        print(
            f"demo: w8a16 has a perplexity of {w8a16:.3f}, fp16 {base:.3f}; they should be within "
            f"{W8A16_TOLERANCE:.1%} of each other",
            file=sys.stderr,
        )
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Quantize SmolLM2-135M-Instruct and compare the results.")
    parser.add_argument("directory", nargs="?", type=Path, default=Path("build/demo"), help="default: build/demo")
    logging.disable_progress_bar()
    try:
        return run(parser.parse_args().directory)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
