"""docs/methods.md says what the code says; softmax methods are refused on several labels with their counterpart."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tutelage.core.build import build
from tutelage.core.errors import ConfigError
from tutelage.core.run import open_task
from tutelage.multilabel.methods import catalog
from tutelage.multilabel.methods.method import Method


def method(name: str) -> Method:
    made = build(catalog.own_settings(name), where="method")
    assert isinstance(made, Method)
    return made


METHODS = catalog.method_names()
SINGLE = [name for name in METHODS if method(name).labels == "single"]


def test_none_is_forgotten() -> None:
    assert len(METHODS) == 35 and len(set(METHODS)) == 35
    assert set(SINGLE) == {"kd", "dkd", "logit_std", "nkd", "ofa"}
    for name in SINGLE:
        assert method(method(name).multi_label_counterpart).labels == "multi" or name == "logit_std"
    # A method that reads nothing of a teacher before setup would be trained without one.
    assert [name for name in METHODS if not method(name).teacher_reads] == ["supervised"]


@pytest.mark.parametrize("name", SINGLE)
def test_a_softmax_over_several_labels_is_refused_with_its_counterpart(
    name: str, compose_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    def check(*more: str) -> None:
        open_task(compose_config(f"method={name}", "data.num_train=32", *more), folder=tmp_path).check()

    with pytest.raises(ConfigError, match=f"Choose method={method(name).multi_label_counterpart}") as refused:
        check()
    assert "method.force_softmax=true" in str(refused.value)
    check("method.force_softmax=true")


def test_the_page_is_what_the_code_says() -> None:
    page = (catalog.ROOT / "docs" / "methods.md").read_text()
    assert page == catalog.page(), "run: python -m tutelage.multilabel.methods.catalog > docs/methods.md"
    assert all(page.count(f"| `{name}` |") == 1 for name in METHODS if name != "supervised")
