"""The only place that makes objects: what it binds, converts and refuses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from omegaconf import OmegaConf

from tutelage.core import build as building
from tutelage.core.build import build, check, split
from tutelage.core.errors import ConfigError

HERE = __name__


@dataclass(frozen=True)
class Engine:
    power: int
    fuel: Literal["petrol", "diesel"] = "petrol"


class Car:
    def __init__(
        self, *, name: str, engine: Engine, doors: tuple[int, ...] = (), manual: Path | None = None, lr: float = 0.1
    ):
        self.name, self.engine, self.doors, self.manual, self.lr = name, engine, doors, manual, lr


@dataclass(frozen=True)
class Tyres:
    tread: float = 8.0


def node(**values: object) -> dict[str, object]:
    return {
        "_target_": f"{HERE}.Car",
        "name": "beetle",
        "engine": {"_target_": f"{HERE}.Engine", "power": 34},
        **values,
    }


def test_it_makes_what_the_node_names_with_the_annotated_types() -> None:
    car = build(OmegaConf.create(node(doors=[1, 2], manual="m.pdf", lr=1)))
    assert (car.name, car.engine, car.doors, car.manual, car.lr) == ("beetle", Engine(34), (1, 2), Path("m.pdf"), 1.0)
    assert isinstance(car.lr, float)


def test_runtime_arguments_win() -> None:
    assert build(node(), name="golf").name == "golf"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dors": [1]}, "car.dors: .*Car has no such key. Did you mean doors?"),
        ({"wheels": 4}, "car.wheels: .*Car has no such key. It has: name, engine, doors, manual, lr."),
        ({"lr": "fast"}, "car.lr: 'fast'"),
        ({"lr": "3"}, "car.lr: '3' is not a float"),
        ({"lr": True}, "car.lr: True is not a float"),
        ({"doors": [1, "x"]}, r"car.doors.1: .*valid integer"),
        (
            {"engine": {"_target_": f"{HERE}.Engine", "power": 1, "fuel": "coal"}},
            "engine.fuel: 'coal': .*'petrol' or 'diesel'",
        ),
        ({"engine": {"_target_": f"{HERE}.Engine"}}, "car.engine: .*missing a required argument: 'power'"),
        ({"_target_": f"{HERE}.Cra"}, "car._target_: there is no class"),
        ({"_target_": "no_such_package.Car"}, "car._target_: there is no class no_such_package.Car"),
    ],
)
def test_slips_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(node(**values), where="car")


def test_everything_is_checked_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(Car, "__init__", lambda self, *, name: made.append(name))
    config = OmegaConf.create(
        {"a": {"_target_": f"{HERE}.Car", "name": "x"}, "b": [{"_target_": f"{HERE}.Engine", "powr": 1}]}
    )
    with pytest.raises(ConfigError, match=r"b.0.powr: .*Did you mean power"):
        check(config)
    assert not made


def test_a_missing_value_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"data.root: no value given. Give it on the command line: data.root=…"):
        check(OmegaConf.create({"data": {"root": "???"}}))


def test_keys_of_two_objects_lie_side_by_side() -> None:
    both = node(tread=7)
    tyres, rest = split(both, Tyres, where="car")
    assert tyres == Tyres(7.0) and "tread" not in rest and rest["name"] == "beetle"
    check({"car": both}, shared={"car": Tyres})
    with pytest.raises(ConfigError, match=r"car.tred: .*Did you mean tread"):
        check({"car": node(tred=7)}, shared={"car": Tyres})


def test_an_error_inside_the_named_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        building.build({"_target_": "broken_module.X"})
