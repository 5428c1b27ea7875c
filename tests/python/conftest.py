"""What every Python test shares: the operators, and reproducible random numbers."""

import pytest
import torch

import octavo  # noqa: F401  (registers the operators)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
