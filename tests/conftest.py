"""Fixtures that every part shares."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from tutelage.core import config

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (Spider, BIRD, COCO images), which the project never ships."""
    folder = Path(os.environ.get("TUTELAGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set TUTELAGE_DATA to the folder that holds spider/, bird/, coco_mini/")
    return folder


@pytest.fixture
def compose_config(tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose conf/config.yaml with overrides, as train.py does, with the store in the test's own folder."""
    config.register()

    def composed(*overrides: str, primary: str = "config") -> DictConfig:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose(primary, overrides=[f"run={tmp_path / 'run'}", f"store={tmp_path / 'store'}", *overrides])

    return composed
