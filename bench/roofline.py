"""Draws how near their roofs the products of `octavo bench` came, on a CPU or a GPU.

    octavo bench --device cuda --json figures.json
    python bench/roofline.py figures.json [--out figures.png]

The fastest kernel of each product is drawn. W8A8 is the whole of linear_w8a8, with the quantization of activations.
"""

import argparse
import json
import re
from pathlib import Path

from peers.plot import draw

PARTS = ("quantize_per_token", "scaled_mm")  # of linear_w8a8


def family(scheme: str) -> str:
    if scheme == "llm.int8":
        return "w8a8"
    bits, activation = re.match(r"w(\d)a(\d+)", scheme).groups()
    return f"w{4 if int(bits) <= 4 else 8}a{activation}"


def drawable(rows: list[dict]) -> list[dict]:
    """The rows that are whole products, as peers/plot.py takes them."""
    return [row | {"ours": True, "family": family(row["scheme"])} for row in rows if row["op"] not in PARTS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help="what `octavo bench --json` wrote")
    parser.add_argument("--out", type=Path, help="the picture; beside the figures if not given")
    options = parser.parse_args()
    figures = json.loads(options.figures.read_text())
    rows = drawable(figures.get("rows", []))
    if not rows:
        raise SystemExit(
            f"{options.figures} has no products; it takes what `octavo bench --json` writes without --roofs"
        )
    draw(
        rows, f"Products on {figures.get('gpu') or figures['cpu']}", options.out or options.figures.with_suffix(".png")
    )


if __name__ == "__main__":
    main()
