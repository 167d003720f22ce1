"""What only a GPU can show: `make gpu`. Elsewhere these tests are left out."""

import pytest
import torch


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    """The device; a machine without one skips the test."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return torch.device("cuda", 0)
