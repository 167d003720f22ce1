"""Spider 1.0 (Yu et al. 2018, arXiv 1809.08887): many databases, and other ones to test on than to train on."""

from pathlib import Path
from typing import Literal

from tutelage.core.store import content_hash, file_hash
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.questions import Questions, cut, read_records
from tutelage.text2sql.database.published import VARIANTS, SplitFiles, spider_files

DOUBTFUL = ("wta_1",)  # in common copies `rankings` is empty and `players` cut off: wrong queries score right there
# Published without rows: every query that runs agrees with the gold.
WITHOUT_ROWS = ("academic", "baseball_1", "geo", "imdb", "music_2", "restaurants", "scholar", "soccer_1", "yelp")


class Spider(Questions):
    """Train: train_spider and train_others, less the databases held out for validation. Test: dev, or another split."""

    def __init__(
        self,
        *,
        root: str,
        test: Literal["dev", "test", "syn", "realistic", "dk"] = "dev",
        variants: str | None = None,
        val_databases: int = 10,
        split_seed: int = 0,
        with_train: bool = True,
    ) -> None:
        """Read the questions.

        Args:
            root: The folder that holds train_spider.json, dev.json and database/.
            test: What the score is taken on: ``dev`` (as most papers do), ``test`` with its own databases, or other
                questions on dev's databases: ``syn`` (Spider-Syn: synonyms of schema words), ``realistic``
                (Spider-Realistic: column names are not mentioned), ``dk`` (Spider-DK: domain knowledge is needed; it
                brings some databases of its own).
            variants: The folder that holds the last three; None for ``root``, or ``spider_variants`` beside it.
            val_databases: How many of the training databases are held out, whole, to pick a checkpoint by.
            split_seed: Of the choice of those databases.
            with_train: False reads the test questions alone; the files of training questions may then be missing.

        Raises:
            DataError: A file is missing or broken, or not one database of the test questions is at hand.
        """
        folder = Path(root)
        trained = spider_files(folder, "train") if with_train else SplitFiles((), (folder / "database",))
        tested = spider_files(folder, test, variants=None if variants is None else Path(variants))
        (test_file,) = tested.questions
        benchmark = cut(
            name="spider",
            train=[example for path in trained.questions for example in _read(path, split=path.stem)],
            test=_read(test_file, split=test),
            train_folders=trained.databases,
            test_folders=tested.databases,
            val_databases=val_databases,
            split_seed=split_seed,
            not_for_val=WITHOUT_ROWS,
        )
        doubtful = [name for name in DOUBTFUL if any(e.db_id == name for e in benchmark.splits["test"])]
        notes = {"test_questions": test_file.name, **benchmark.notes, "doubtful_databases": doubtful}
        dev = folder / "dev.json"
        if test in VARIANTS and dev.is_file():
            asked = {(e.db_id, e.question) for e in _read(dev, split="dev")}
            same = sum((e.db_id, e.question) in asked for e in benchmark.splits["test"])
            notes["questions_as_in_dev"] = same  # these say nothing of what the variant is for
        super().__init__(
            name="spider",
            splits=benchmark.splits,
            databases=benchmark.databases,
            notes=notes,
            fingerprint=content_hash(
                {path.name: file_hash(path) for path in [*trained.questions, test_file]}
                | {"val": benchmark.notes["val_databases"]}
            ),
        )


def _read(path: Path, *, split: str) -> list[Example]:
    records = read_records(path, where="data.root", fields=("db_id", "question", "query"))
    return [
        Example(
            id=f"spider/{split}/{number}",
            db_id=record["db_id"],
            question=" ".join(record["question"].split()),
            sql=record["query"],
        )
        for number, record in records
    ]
