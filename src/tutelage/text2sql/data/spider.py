"""Spider 1.0 (Yu et al. 2018, arXiv 1809.08887): many databases, and other ones to test on than to train on."""

from pathlib import Path
from typing import Literal

from tutelage.core.store import content_hash, file_hash
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.questions import Questions, cut, read_records

DOUBTFUL = ("wta_1",)  # in common copies `rankings` is empty and `players` cut off: wrong queries score right there
# Published without rows: every query that runs agrees with the gold.
WITHOUT_ROWS = ("academic", "baseball_1", "geo", "imdb", "music_2", "restaurants", "scholar", "soccer_1", "yelp")


class Spider(Questions):
    """Train: train_spider and train_others, less the databases held out for validation. Test: dev or test."""

    def __init__(
        self, *, root: str, test: Literal["dev", "test"] = "dev", val_databases: int = 10, split_seed: int = 0
    ) -> None:
        """Read the questions.

        Args:
            root: The folder that holds train_spider.json, dev.json and database/.
            test: What the score is taken on: ``dev`` (as most papers do), or ``test`` with its own databases.
            val_databases: How many of the training databases are held out, whole, to pick a checkpoint by.
            split_seed: Of the choice of those databases.

        Raises:
            DataError: A file is missing or broken, or not one database of the test questions is at hand.
        """
        folder = Path(root)
        train_files = [folder / "train_spider.json"]
        if (others := folder / "train_others.json").is_file():
            train_files.append(others)
        test_file = folder / f"{test}.json"
        benchmark = cut(
            name="spider",
            train=[example for path in train_files for example in _read(path)],
            test=_read(test_file),
            train_folder=folder / "database",
            test_folder=folder / ("test_database" if test == "test" else "database"),
            val_databases=val_databases,
            split_seed=split_seed,
            not_for_val=WITHOUT_ROWS,
        )
        doubtful = [name for name in DOUBTFUL if any(e.db_id == name for e in benchmark.splits["test"])]
        super().__init__(
            name="spider",
            splits=benchmark.splits,
            databases=benchmark.databases,
            notes={"test_questions": test_file.name, **benchmark.notes, "doubtful_databases": doubtful},
            fingerprint=content_hash(
                {path.name: file_hash(path) for path in [*train_files, test_file]}
                | {"val": benchmark.notes["val_databases"]}
            ),
        )


def _read(path: Path) -> list[Example]:
    records = read_records(path, where="data.root", fields=("db_id", "question", "query"))
    return [
        Example(
            id=f"spider/{path.stem}/{number}",
            db_id=record["db_id"],
            question=" ".join(record["question"].split()),
            sql=record["query"],
        )
        for number, record in enumerate(records)
    ]
