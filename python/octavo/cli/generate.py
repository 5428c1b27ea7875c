"""octavo generate: greedy text from a model on disk."""

from __future__ import annotations

import argparse
import sys

from ._common import add_model_options, exit_codes, positive, prepare

EPILOG = """\
example:
  octavo generate models/llama-w4a16 "Why is the sky blue?"
  octavo generate models/llama-w4a16 --raw "Once upon a time" --max-new-tokens 200
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="octavo generate",
        description="Generate text, always the most likely token, printed as it comes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", help="model directory, quantized or not")
    parser.add_argument("prompt", help='the prompt; "-" reads it from standard input')
    parser.add_argument("--max-new-tokens", type=positive, default=128, metavar="N", help="stop here (default: 128)")
    style = parser.add_mutually_exclusive_group()
    style.add_argument(
        "--chat",
        dest="chat",
        action="store_true",
        default=None,
        help="the prompt is a user's turn in the model's chat template (default, where there is one)",
    )
    style.add_argument("--raw", dest="chat", action="store_false", help="continue the prompt as plain text")
    add_model_options(parser)
    return parser.parse_args(argv)


@exit_codes("generate")
def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    where = prepare(arguments)
    from transformers import TextStreamer

    from .._generate import encode_prompt, generate_greedily
    from .._models import open_model

    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    model, tokenizer = open_model(arguments.path, **where)
    inputs = encode_prompt(tokenizer, prompt, chat=arguments.chat)
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    generate_greedily(model, inputs, arguments.max_new_tokens, streamer=streamer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
