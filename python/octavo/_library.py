"""Finds and loads octavo_torch.so, which registers the operators of the `octavo` namespace with torch."""

import os
from pathlib import Path

import torch

# The library is built over libtorch's stable ABI, whose functions it needs first appeared in this version.
MINIMUM_TORCH = (2, 10)


def library_path() -> Path:
    """octavo_torch.so beside this file, or what the environment variable OCTAVO_TORCH_LIBRARY names."""
    override = os.environ.get("OCTAVO_TORCH_LIBRARY")
    return Path(override) if override else Path(__file__).with_name("octavo_torch.so")


def load_library() -> None:
    """Loads the library. Raises ImportError when torch is too old or the file is missing or cannot be loaded."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < MINIMUM_TORCH:
        raise ImportError(
            f"octavo needs torch {'.'.join(map(str, MINIMUM_TORCH))} or newer; this is {torch.__version__}"
        )
    path = library_path()
    if not path.is_file():
        raise ImportError(
            f"octavo's operators are missing: {path} does not exist; install the wheel, or build the target "
            "octavo_torch and set OCTAVO_TORCH_LIBRARY to the file"
        )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(f"octavo's operators cannot be loaded from {path}: {error}") from error


load_library()
