"""Settings of logit and map methods that have no meaning are refused by name."""

from typing import Any

import pytest

from tutelage.core.build import build
from tutelage.core.errors import ConfigError
from tutelage.multilabel.methods.catalog import own_settings


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("kd", {"temperature": 0.0}, r"method\.temperature: 0\.0 is not above 0"),
        ("mld", {"temperature": -1.0}, r"method\.temperature"),
        ("tld", {"temperature": 1.0}, "method=mld"),
        ("dkd", {"beta": -1.0}, r"method\.beta: -1\.0 is negative"),
        ("nkd", {"gamma": float("nan")}, r"method\.gamma"),
        ("mbd", {"omega": 1.5}, r"method\.omega: 1\.5 is no share"),
        ("dist", {"gamma": -0.1}, r"method\.gamma"),
        ("cat_kd", {"grid": 0}, r"method\.grid: 0 is not above 0"),
        ("cwd", {"temperature": 0.0}, r"method\.temperature"),
        ("sdd", {"grids": []}, r"method\.grids"),
        ("sdd", {"grids": [1, 0]}, r"method\.grids"),
        ("sdd", {"complementary_weight": 0.0}, r"method\.complementary_weight"),
        ("at", {"stages": 0}, r"method\.stages"),
        ("grad_cam", {"divergence": "mse"}, r"method\.divergence"),
    ],
)
def test_a_setting_without_meaning_is_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(own_settings(name) | settings, where="method")
