"""What the Python verbs share: exit codes, and options that mean the same everywhere."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable

OK, FAILED, INTERRUPTED = 0, 1, 130  # argparse itself exits with 2 for wrong usage

DTYPES = ("float32", "bfloat16", "float16")


def exit_codes(verb: str) -> Callable:
    """Decorates a verb's main: one clear line instead of a traceback for what a user can mend, and an exit code."""

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def run(argv: list[str] | None = None) -> int:
            try:
                code = main(argv)
                sys.stdout.flush()
                return code
            except KeyboardInterrupt:
                print(f"octavo {verb}: interrupted", file=sys.stderr)
                return INTERRUPTED
            except BrokenPipeError:
                # The reader (head, less) has seen enough. Python would complain once more when it closes stdout.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return OK
            except (OSError, ValueError, RuntimeError, ImportError) as error:
                print(f"octavo {verb}: {' '.join(str(error).split())}", file=sys.stderr)
                return FAILED

        return run

    return decorate


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of activations (default: float32 on the CPU, else the checkpoint's own)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: cpu)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: torch's own choice)")


def prepare(arguments: argparse.Namespace) -> dict:
    """Applies --threads, quietens the libraries and returns the keyword arguments `dtype` and `device`."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        device = torch.device(arguments.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {arguments.device} cannot be used: {str(error).splitlines()[0]}") from None
    return {"dtype": arguments.dtype and getattr(torch, arguments.dtype), "device": device}
