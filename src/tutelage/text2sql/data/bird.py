"""BIRD (Li et al. 2023, arXiv 2305.03111): large databases, column meanings, and evidence with each question."""

from pathlib import Path

from tutelage.core.store import content_hash, file_hash
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.questions import Questions, cut, read_records
from tutelage.text2sql.database.published import bird_files


class Bird(Questions):
    """Train: BIRD's train set where it is there, less the databases held out for validation. Test: dev or mini-dev."""

    def __init__(
        self,
        *,
        root: str,
        questions: str = "dev",
        evidence: bool = True,
        val_databases: int = 5,
        split_seed: int = 0,
    ) -> None:
        """Read the questions.

        Args:
            root: The folder that holds dev.json and dev_databases/, and for training train/train.json and
                train/train_databases/.
            questions: What the score is taken on: ``dev``, ``mini_dev``, ``corrected`` (mini-dev's superhero questions
                with corrected golds), or the name of another file of questions in ``root``.
            evidence: Whether the model is told the evidence; BIRD keeps both rankings apart.
            val_databases: How many training databases are held out, whole, to pick a checkpoint by.
            split_seed: Of the choice of those databases.

        Raises:
            DataError: A file is missing or broken, or not one database of the test questions is at hand.
        """
        folder = Path(root)
        tested, trained = bird_files(folder, questions), bird_files(folder, "train")
        (test_file,), (train_file,) = tested.questions, trained.questions
        files = [path for path in (test_file, train_file) if path != train_file or path.is_file()]
        benchmark = cut(
            name="bird",
            train=_read(train_file, evidence=evidence) if train_file in files else [],
            test=_read(test_file, evidence=evidence),
            train_folders=trained.databases,
            test_folders=tested.databases,
            val_databases=val_databases,
            split_seed=split_seed,
        )
        super().__init__(
            name="bird",
            splits=benchmark.splits,
            databases=benchmark.databases,
            notes={"test_questions": test_file.name, "evidence": evidence, **benchmark.notes},
            fingerprint=content_hash(
                {path.name: file_hash(path) for path in files}
                | {"evidence": evidence, "val": benchmark.notes["val_databases"]}
            ),
        )


def _read(path: Path, *, evidence: bool) -> list[Example]:
    records = read_records(path, where="data.root", fields=("db_id", "question", "SQL"))
    return [
        Example(
            # Train questions carry no id of their own.
            id=f"bird/{path.stem}/{record.get('question_id', number)}",
            db_id=record["db_id"],
            question=" ".join(record["question"].split()),
            sql=record["SQL"],
            evidence=" ".join(str(record.get("evidence") or "").split()) if evidence else "",
            difficulty=str(record.get("difficulty", "")),
        )
        for number, record in records
    ]
