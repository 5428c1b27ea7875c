"""What every Python test shares: the operators, and reproducible random numbers."""

import octavo  # noqa: F401  (registers the operators)
import pytest

import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
