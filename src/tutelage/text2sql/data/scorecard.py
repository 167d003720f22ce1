"""All published sets at once, for one page about one system: what is at hand is asked, and the rest is named."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import content_hash
from tutelage.text2sql.data.bird import Bird
from tutelage.text2sql.data.defog import Defog
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.data.spider import Spider
from tutelage.text2sql.database.defog import DefogDialect
from tutelage.text2sql.database.schema import Catalog

Owner = Literal["spider", "bird", "defog"]


@dataclass(frozen=True, slots=True)
class SetName:
    """One set of the scorecard.

    Attributes:
        owner: Whose layout and rules.
        split: As `evaluation.gold.load_benchmark` calls it; of Defog, the dialect.
        prefix: What its questions' ids begin with.
        title: For people.
    """

    owner: Owner
    split: str
    prefix: str
    title: str


SETS: Mapping[str, SetName] = {
    "spider_dev": SetName("spider", "dev", "spider/dev/", "Spider dev"),
    "spider_syn": SetName("spider", "syn", "spider/syn/", "Spider-Syn"),
    "spider_realistic": SetName("spider", "realistic", "spider/realistic/", "Spider-Realistic"),
    "spider_dk": SetName("spider", "dk", "spider/dk/", "Spider-DK"),
    "bird_dev": SetName("bird", "dev", "bird/dev/", "BIRD dev"),
    "bird_corrected": SetName(
        "bird", "corrected", "bird/mini_dev_cleaned_superhero/", "BIRD superhero, corrected labels"
    ),
    "defog_sqlite": SetName("defog", "sqlite", "defog/sqlite/", "Defog in SQLite"),
    "defog_duckdb": SetName("defog", "duckdb", "defog/duckdb/", "Defog in DuckDB"),
    "defog_postgresql": SetName("defog", "postgresql", "defog/postgresql/", "Defog in PostgreSQL"),
}


class Scorecard(Questions):
    """The test questions of every set that is at hand. A database is called by its set's owner and its own name."""

    def __init__(
        self,
        *,
        spider: str | None = None,
        bird: str | None = None,
        defog: str | None = None,
        variants: str | None = None,
        defog_server: str | None = None,
    ) -> None:
        """Read what is there.

        Args:
            spider: Spider's folder; None leaves its sets out.
            bird: BIRD's.
            defog: Defog's.
            variants: Where Spider's variants lie; None for Spider's folder, or ``spider_variants`` beside it.
            defog_server: The URL of the PostgreSQL server that has Defog's databases; None leaves that set out.

        Raises:
            ConfigError: No folder is given.
            DataError: Not one set is at hand.
        """
        given = {"spider": spider, "bird": bird, "defog": defog}
        if not any(given.values()):
            raise ConfigError("data", "no folder of any set", "give data.spider=, data.bird= or data.defog=")
        self.folders = {owner: Path(folder) for owner, folder in given.items() if folder is not None}
        self.variants = None if variants is None else Path(variants)
        self.defog_server = defog_server
        self._sources: dict[str, Questions] = {}  # by set
        self.absent = {name: f"data.{which.owner} is not given" for name, which in SETS.items()}
        for name, which in SETS.items():
            folder = given[which.owner]
            if folder is None:
                continue
            try:
                if which.owner == "defog":
                    self._sources[name] = _defog(folder, which.split, defog_server)
                else:
                    self._sources[name] = _OPEN[which.owner](folder, which.split, variants)
                del self.absent[name]
            except (ConfigError, DataError) as error:
                self.absent[name] = str(error)
        if not self._sources:
            raise DataError("data", f"no set is at hand: {'; '.join(self.absent.values())}", "give the sets' folders")
        self._of: dict[str, tuple[Questions, str]] = {}
        asked: list[Example] = []
        for name, source in self._sources.items():
            # Spider's variants share its databases; one of Defog's is another one in each dialect.
            owner = name if SETS[name].owner == "defog" else SETS[name].owner
            for example in source.split("test"):
                called = f"{owner}/{example.db_id}"
                self._of.setdefault(called, (source, example.db_id))
                asked.append(replace(example, db_id=called))
        super().__init__(
            name="scorecard",
            splits={"train": [], "val": [], "test": asked},
            databases={called: source.databases[db_id] for called, (source, db_id) in self._of.items()},
            notes={
                "sets": {name: source.notes for name, source in self._sources.items()},
                "absent": self.absent,
                "doubtful_databases": ["spider/wta_1"] if "spider/wta_1" in self._of else [],
            },
            fingerprint=content_hash({name: source.fingerprint for name, source in self._sources.items()}),
        )

    def catalog(self, db_id: str) -> Catalog:
        source, own = self._of[db_id]
        return source.catalog(own)


def _spider(folder: str, split: str, variants: str | None) -> Questions:
    test: Literal["dev", "syn", "realistic", "dk"]
    match split:
        case "syn" | "realistic" | "dk":
            test = split
        case _:
            test = "dev"
    return Spider(root=folder, test=test, variants=variants, val_databases=0, with_train=False)


def _bird(folder: str, split: str, variants: str | None) -> Questions:
    return Bird(root=folder, questions=split, val_databases=0)


def _defog(folder: str, split: str, server: str | None) -> Questions:
    dialect: DefogDialect
    match split:
        case "duckdb" | "postgresql":
            dialect = split
        case _:
            dialect = "sqlite"
    return Defog(root=folder, unanswerable=True, dialect=dialect, server=server)


_OPEN: Mapping[Owner, Callable[[str, str, str | None], Questions]] = {
    "spider": _spider,
    "bird": _bird,
}
