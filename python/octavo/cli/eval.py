"""octavo eval: perplexity, KL divergence, size and speed of models on disk."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ._common import add_model_options, exit_codes, positive, prepare

if TYPE_CHECKING:
    from ..evaluate import Row

BUILTIN_TEXT_WINDOWS = 8

EPILOG = """\
What is measured:
  size        bytes of the weight files
  perplexity  exp of the mean negative log-likelihood over all predicted tokens of disjoint windows; in each window
              every token but the first is predicted from those before it in the window
  KL          mean over the same tokens of KL(reference || model), nats
  tokens/s    greedy decoding at batch 1 with a KV cache: 32 tokens after a short prompt, timed from the first to the
              last, the median of 3 runs

example:
  octavo eval models/llama models/llama-w8a16 models/llama-w4a16 --text wikitext.txt --window 1024
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="octavo eval",
        description="Measure what quantization costs and gains, for one model or several.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="model directory, quantized or not")
    parser.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 text (default: Python's language reference)")
    parser.add_argument(
        "--reference",
        metavar="PATH",
        help="model that KL divergence is taken against (default: the first PATH if it is not quantized)",
    )
    parser.add_argument("--window", type=positive, default=2048, metavar="N", help="tokens a window (default: 2048)")
    parser.add_argument(
        "--windows",
        type=positive,
        metavar="N",
        help=f"use the first N windows (default: all of FILE; {BUILTIN_TEXT_WINDOWS} of the default text)",
    )
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(argv)


@exit_codes("eval")
def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    where = prepare(arguments)
    from ..evaluate import evaluate

    windows = arguments.windows
    if arguments.text is None:
        text, windows = None, windows or BUILTIN_TEXT_WINDOWS
    else:
        text = read_text(arguments.text)
    rows = evaluate(
        arguments.paths, text=text, reference=arguments.reference, window=arguments.window, max_windows=windows, **where
    )
    if arguments.json:
        facts = {"window": arguments.window, "windows": windows, "device": arguments.device}
        print(json.dumps({**facts, "rows": [row.as_json() for row in rows]}, indent=2, ensure_ascii=False))
    else:
        print(table(rows))
    return 0


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: byte {error.start}: {error.reason}") from None


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns; size in MB (10^6 bytes)."""
    cells = [("scheme", "size MB", "perplexity", "KL", "tokens/s", "path")]
    for row in rows:
        divergence = "-" if row.kl_divergence is None else f"{row.kl_divergence:.4f}"
        cells.append(
            (
                row.scheme,
                f"{row.bytes / 1e6:.1f}",
                f"{row.perplexity:.3f}",
                divergence,
                f"{row.tokens_per_second:.1f}",
                row.path,
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for scheme, *figures, path in cells:
        right = "  ".join(figure.rjust(width) for figure, width in zip(figures, widths[1:-1], strict=True))
        lines.append(f"{scheme.ljust(widths[0])}  {right}  {path}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
