"""What the sources of questions share: reading files, finding databases, holding databases out."""

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import DataError
from tutelage.core.randomness import generator
from tutelage.core.store import Store
from tutelage.text2sql.data.examples import Example, Split
from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.catalog import Catalog, read_catalog
from tutelage.text2sql.database.kept_catalog import kept_catalog
from tutelage.text2sql.database.published import find_database
from tutelage.text2sql.explore.facts.store import Facts


class Questions:
    """Questions in memory, and the databases they ask; the base of each source."""

    def __init__(
        self,
        *,
        name: str,
        splits: Mapping[Split, list[Example]],
        databases: Mapping[str, Database],
        notes: Mapping[str, Any],
        fingerprint: str,
        explored: Path | None = None,
        descriptions: Path | None = None,
        facts: Facts | None = None,
        store: Store | None = None,
    ) -> None:
        """Keep what a source has read; see ``examples.Source`` for the meaning of most parts.

        Args:
            descriptions: A folder that says what columns mean; None for the one beside each database, if any.
            facts: What an exploration and a person know of the databases: columns are described by it.
            store: Where catalogs are kept between runs; None to read each anew.
        """
        self.name = name
        self.databases: dict[str, Database] = dict(databases)
        self.notes = {"questions": {split: len(part) for split, part in splits.items()}, **notes}
        self.fingerprint = fingerprint
        self.explored = explored
        self._splits = dict(splits)
        self._descriptions, self._facts, self._store = descriptions, facts, store
        self._catalogs: dict[str, Catalog] = {}

    def split(self, name: Split) -> list[Example]:
        """The questions of a split whose database is at hand, in the file's order."""
        return self._splits[name]

    def catalog(self, db_id: str) -> Catalog:
        """The schema of a database, read once.

        Raises:
            DataError: The database vanished, or cannot be read.
        """
        if db_id not in self._catalogs:
            path, meanings = self.databases[db_id], self._descriptions
            catalog = (
                read_catalog(path, db_id=db_id, descriptions=meanings)
                if self._store is None
                else kept_catalog(path, db_id=db_id, descriptions=meanings, store=self._store)
            )
            self._catalogs[db_id] = catalog if self._facts is None else self._facts.described(catalog)
        return self._catalogs[db_id]


def read_records(path: Path, *, where: str, fields: tuple[str, ...]) -> list[tuple[int, dict[str, Any]]]:
    """Read a published file: a JSON list of objects, each of which has some text fields.

    Args:
        path: A ``.json`` file.
        where: The config key that an error names.
        fields: Keys that an object must have, with text as value. One that lacks any is left out and named.

    Returns:
        Each object with its place in the file, which is its id in prediction files.

    Raises:
        DataError: The file is missing, no JSON, or has no object that can be used.
    """
    if not path.is_file():
        raise DataError(
            where, f"no {path.name} in {path.parent}", f"point {where} at the folder that holds {path.name}"
        )
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(where, f"{path} is not JSON ({error})", "download or write the file again") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(where, f"{path} is not a list of questions", "see docs/sets_of_questions.md for the format")
    good: list[tuple[int, dict[str, Any]]] = []
    bad: list[str] = []
    for number, record in enumerate(records):
        lacking = [field for field in fields if not isinstance(record.get(field), str)]
        if lacking:
            bad.append(f"item {number} of {path} has no text {lacking[0]!r}")
        else:
            good.append((number, record))
    if bad and not good:
        raise DataError(where, bad[0], "choose the data set that this file belongs to")
    say_bad_rows(bad, total=len(records))
    return good


def say_bad_rows(bad: Sequence[str], *, total: int) -> None:
    """Warn of rows that are left out, by number and by name."""
    if bad:
        named = "; ".join(bad[:5]) + ("; …" if len(bad) > 5 else "")
        warnings.warn(f"{len(bad)} of {total} questions are left out: {named}", stacklevel=3)


def find_databases(folders: tuple[Path, ...], examples: list[Example]) -> dict[str, Path]:
    """Look for the file of each database asked about; keep those that are there."""
    files = {db_id: find_database(folders, db_id) for db_id in sorted({e.db_id for e in examples})}
    return {db_id: path for db_id, path in files.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A published set of questions, cut into splits."""

    splits: dict[Split, list[Example]]
    databases: dict[str, Path]
    notes: dict[str, Any]


def cut(
    *,
    name: str,
    train: list[Example],
    test: list[Example],
    train_folders: tuple[Path, ...],
    test_folders: tuple[Path, ...],
    val_databases: int,
    split_seed: int,
    not_for_val: Collection[str] = (),
) -> Benchmark:
    """Leave out questions without their database, and hold whole training databases out for validation.

    Published test databases are other ones than the training databases; a checkpoint is picked the same way.
    Databases ``not_for_val`` are trained on, but would tell right from wrong badly.

    Raises:
        DataError: Not one database of the test questions is at hand, or none would be left to train on.
    """
    train_found, test_found = find_databases(train_folders, train), find_databases(test_folders, test)
    if not test_found:
        folders = ", ".join(map(str, test_folders))
        raise DataError("data.root", f"no <db_id>/<db_id>.sqlite in {folders}", "unpack the databases there")
    names = sorted(train_found)
    if names and val_databases >= len(names):
        raise DataError(
            "data.val_databases",
            f"{val_databases} of {len(names)} training databases would leave none to train on",
            "lower data.val_databases",
        )
    fit = [db_id for db_id in names if db_id not in not_for_val]
    val_names = {fit[index] for index in generator(split_seed, name, "val").permutation(len(fit))[:val_databases]}
    splits: dict[Split, list[Example]] = {
        "train": [e for e in train if e.db_id in train_found and e.db_id not in val_names],
        "val": [e for e in train if e.db_id in val_names],
        "test": [e for e in test if e.db_id in test_found],
    }
    left_out = [e for e in train if e.db_id not in train_found] + [e for e in test if e.db_id not in test_found]
    notes = {
        "val_databases": sorted(val_names),
        "missing_databases": sorted({e.db_id for e in left_out}),
        "questions_without_database": len(left_out),
    }
    return Benchmark(splits, train_found | test_found, notes)
