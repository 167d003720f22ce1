"""The store: one folder a result, whole or not there."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from tutelage.core.store import Store, content_hash, file_hash


def test_the_hash_is_of_the_content() -> None:
    assert content_hash({"a": 1, "b": [2, "x"]}) == content_hash({"b": [2, "x"], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": "1"})
    assert content_hash({"a": 1}) == "015abd7f5cc57a2d"


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea"


def test_a_result_is_built_once(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "weights").write_text("w")

    first = store.make("teachers", {"name": "resnet"}, build)
    assert store.make("teachers", {"name": "resnet"}, build) == first == store.find("teachers", {"name": "resnet"})
    assert len(calls) == 1 and (first / "weights").read_text() == "w"
    assert json.loads((first / "manifest.json").read_text()) == {"kind": "teachers", "inputs": {"name": "resnet"}}


def test_a_builder_that_failed_is_resumed_and_never_found_half_done(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def half(folder: Path) -> None:
        (folder / "first").write_text("1")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.make("k", {"a": 1}, half)
    assert store.find("k", {"a": 1}) is None

    def rest(folder: Path) -> None:
        assert (folder / "first").read_text() == "1"
        (folder / "second").write_text("2")

    folder = store.make("k", {"a": 1}, rest)
    assert sorted(path.name for path in folder.iterdir()) == ["first", "manifest.json", "second"]


def _slow_build(folder: Path) -> None:
    with (folder / "log").open("a") as file:
        file.write("built\n")
    time.sleep(0.3)


def _make(root: Path) -> None:
    Store(root).make("k", {"a": 1}, _slow_build)


def test_two_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_make, args=(tmp_path,)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    found = Store(tmp_path).find("k", {"a": 1})
    assert found is not None and (found / "log").read_text() == "built\n"
