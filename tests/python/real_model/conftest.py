"""SmolLM2-135M-Instruct in FP16 and in the schemes that are asked for, made once a session."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="session")
def smollm2():
    """The example that exports the model."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import smollm2
    finally:
        sys.path.remove(str(EXAMPLES))
    return smollm2


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("smollm2")


@pytest.fixture(scope="session")
def fp16(smollm2, models) -> Path:
    return smollm2.export(models / "fp16")


@pytest.fixture(scope="session")
def quantized(fp16, models) -> Callable[[str], Path]:
    """The model in a scheme, quantized by the program that is installed beside this Python."""

    def quantize(scheme: str) -> Path:
        path = models / scheme
        if not path.exists():
            program = Path(sys.executable).with_name("octavo")
            subprocess.run([program, "quantize", fp16, path, "--scheme", scheme, "--quiet"], check=True)
        return path

    return quantize
