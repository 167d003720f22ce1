"""Fixtures of asking: a database and a run."""

from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from asking_run import database, source_of

from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.inference.answer import Answerer, Inference
from tutelage.text2sql.inference.generate import Request
from tutelage.text2sql.inference.session import LoadedRun
from tutelage.text2sql.model.tiny import train_tokenizer
from tutelage.text2sql.prompts.brief import Brief


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return database(tmp_path / "shop.sqlite")


@pytest.fixture
def run(tmp_path: Path, shop: Path) -> SimpleNamespace:
    """A run whose model answers from ``answers``, one after the other."""
    tokenizer = train_tokenizer(["SELECT name FROM item"], vocabulary=400)
    made = SimpleNamespace(answers=[], folder=tmp_path / "run", source=source_of(shop))
    made.folder.mkdir()

    class Engine:
        def generate(self, requests: Sequence[Request], decoding: object) -> list[list[str]]:
            return [[made.answers.pop(0)] for _ in requests]

    def load_run(
        folder: Path | None,
        *,
        device: str,
        changes: tuple[str, ...] = (),
        database: Path | None = None,
        trusted: Collection[str] = (),
    ) -> LoadedRun:
        made.trusted = trusted
        answerer = Answerer(
            made.source,
            prompt=Brief(template="chatml", comments=False, samples=0, max_values=2, max_tokens=500),
            inference=Inference("transformers", "greedy", 1, 1.0, 1.0, "first", 0, max_new_tokens=20, batch_size=4),
            executor=Executor(workers=0, limits=Limits()),
            store=None,
        )
        return LoadedRun(None, tokenizer, 1000, Engine(), answerer)

    made.load_run = load_run
    return made
