"""Where the published sets of questions lie: each split's files of questions, and the folders of its databases.

Training and scoring find them here, so that a split has one name in both.
"""

from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import ConfigError, DataError

# Other questions on Spider's databases. Each name is followed by the files it is published or kept as.
VARIANTS = {
    "syn": ("spider_syn_dev.json", "Spider-Syn/dev.json"),  # arXiv 2106.01065: words of the schema are replaced
    "realistic": ("spider_realistic.json", "spider-realistic.json"),  # arXiv 2010.12773: column names are taken out
    "dk": ("spider_dk/Spider-DK.json", "Spider-DK/Spider-DK.json", "Spider-DK.json"),  # arXiv 2109.05157
}
BIRD_SPLITS = {
    "mini_dev": "mini_dev_sqlite.json",
    "corrected": "mini_dev_cleaned_superhero.json",  # arcwisedata/bird-sql: questions of mini-dev with corrected golds
}


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """What belongs to one split.

    Attributes:
        questions: JSON files of questions, one after the other.
        databases: Folders that hold ``<db_id>/<db_id>.sqlite``; the first that has a database is taken.
        tables: Files of foreign keys in Spider's form, as far as they are there.
    """

    questions: tuple[Path, ...]
    databases: tuple[Path, ...]
    tables: tuple[Path, ...] = ()

    def database(self, db_id: str) -> Path | None:
        """The file of a database; None where it is not there."""
        return find_database(self.databases, db_id)


def find_database(folders: tuple[Path, ...], db_id: str) -> Path | None:
    """Look for ``<folder>/<db_id>/<db_id>.sqlite``."""
    return next((path for folder in folders if (path := folder / db_id / f"{db_id}.sqlite").is_file()), None)


def spider_files(root: Path, split: str, *, variants: Path | None = None) -> SplitFiles:
    """Find a split of Spider.

    Args:
        root: The folder with ``dev.json`` and ``database/``.
        split: ``dev``, ``test``, ``train``, ``syn``, ``realistic``, ``dk``, or the name of another file of questions.
        variants: The folder of the last three; None for ``root``, or ``spider_variants`` beside it.

    Raises:
        DataError: A variant is asked for, and its file is not there.
    """
    if split in VARIANTS:
        file = _variant(root, split, variants)
        beside = (file.parent / "database",) if split == "dk" else ()
        tables = [root / "tables.json", *([file.parent / "tables.json"] if split == "dk" else [])]
        return SplitFiles((file,), (*beside, root / "database"), tuple(path for path in tables if path.is_file()))
    if split == "train":
        paths = [root / "train_spider.json", root / "train_others.json"]
        questions = tuple(path for path in paths if path.is_file()) or (paths[0],)
    else:
        questions = (root / f"{split}.json",)
    own = root / "test_database"
    databases = own if split == "test" and own.is_dir() else root / "database"
    tables = [root / "tables.json", root / "test_tables.json"]
    return SplitFiles(questions, (databases,), tuple(path for path in tables if path.is_file()))


def bird_files(root: Path, split: str) -> SplitFiles:
    """Find a split of BIRD.

    Args:
        root: The folder with ``dev.json`` and ``dev_databases/``.
        split: ``dev``, ``train``, ``mini_dev``, ``corrected``, or the name of another file of questions, with or
            without its ending.
    """
    if split == "train":
        return SplitFiles((root / "train" / "train.json",), (root / "train" / "train_databases",))
    return SplitFiles((root / bird_file(split),), (root / "dev_databases",))


def bird_file(split: str) -> str:
    """The name of the file that a split of BIRD is published as."""
    return BIRD_SPLITS.get(split, split if split.endswith(".json") else f"{split}.json")


def _variant(root: Path, split: str, variants: Path | None) -> Path:
    folders = (root, root.parent / "spider_variants") if variants is None else (variants,)
    tried = [folder / name for folder in folders for name in VARIANTS[split]]
    for path in tried:
        if path.is_file():
            return path
    if variants is not None and not variants.is_dir():
        raise ConfigError("data.variants", f"no folder {variants}", f"give the folder that holds {VARIANTS[split][0]}")
    raise DataError(
        "data.variants",
        f"no questions of Spider's variant {split!r}: looked for {', '.join(map(str, tried))}",
        "give the folder that holds one of these files: data.variants=…",
    )
