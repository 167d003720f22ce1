"""Fixtures that every part shares."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (Spider, BIRD, COCO images), which the project never ships."""
    folder = Path(os.environ.get("TUTELAGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set TUTELAGE_DATA to the folder that holds spider/, bird/, coco_mini/")
    return folder
