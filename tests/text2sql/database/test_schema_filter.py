"""Which columns a schema filter keeps."""

import json
import re
from pathlib import Path

import pytest

from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.database.schema_filter import columns_in, name_words, rank_columns, subset, words


def table(
    name: str, *columns: str, key: tuple[str, ...] = (), refers: dict[str, tuple[str, str]] | None = None
) -> Table:
    foreign = tuple(ForeignKey(name, (here,), there, (column,)) for here, (there, column) in (refers or {}).items())
    return Table(
        name, tuple(Column(c, "TEXT", name, nullable=True) for c in columns), key, foreign, num_rows=0, is_view=False
    )


SCHOOL = Catalog(
    "school",
    "school.sqlite",
    "sqlite",
    (
        table("student", "id", "name", "birthYear", key=("id",)),
        table(
            "enrolled",
            "student_id",
            "course_id",
            refers={"student_id": ("student", "id"), "course_id": ("course", "id")},
        ),
        table("course", "id", "title", "room", key=("id",)),
        table("parking", "lot", "fee"),
    ),
)


def test_words_lose_their_plural_and_names_are_split() -> None:
    assert words("JetBlue's classes, class IDs") == ["jetblue", "s", "classe", "class", "id"]
    assert name_words("birthYear of student_ids") == ["birth", "year", "of", "student", "id"]


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT NAME FROM student", {"student.name"}),
        ("SELECT count(*) FROM course", {"course.id"}),  # its key stands for a table without columns
        ("SELECT count(*) FROM parking", {"parking.lot"}),  # the first column, where there is no key
        ("SELECT * FROM parking", {"parking.lot", "parking.fee"}),
        ("SELECT T1.* FROM parking AS T1", {"parking.lot", "parking.fee"}),
        ("SELECT 1", set()),
        (
            "SELECT title FROM course JOIN enrolled ON course.id = course_id",
            {"course.title", "course.id", "enrolled.course_id"},
        ),
    ],
)
def test_columns_in_a_query(sql: str, columns: set[str]) -> None:
    assert {f"{t}.{c}" for t, c in columns_in(sql, SCHOOL)} == columns


def test_names_with_spaces_are_found_in_a_query() -> None:
    catalog = Catalog("x", "x", "sqlite", (table("t", "Free Meal (K-12)", "other"),))
    assert columns_in("SELECT `free meal (k-12)` FROM t", catalog) == {("t", "Free Meal (K-12)")}


def test_a_junction_table_ranks_with_what_it_joins() -> None:
    ranked = rank_columns(SCHOOL, "Which students take the course titled Art?", matches={}, needed=())
    assert len(ranked) == 10
    best = {t for t, _ in ranked[:7]}
    assert best == {"student", "enrolled", "course"}
    assert {t for t, _ in ranked[-2:]} == {"parking"}


def test_a_matching_value_and_a_needed_column_come_first() -> None:
    plain = rank_columns(SCHOOL, "Who is it?", matches={}, needed=())
    assert plain[-1] != ("parking", "fee") or plain[0] != ("parking", "fee")
    assert rank_columns(SCHOOL, "Who?", matches={("parking", "lot"): ["A"]}, needed=())[0] == ("parking", "lot")
    assert rank_columns(SCHOOL, "students", matches={}, needed=[("parking", "fee")])[0] == ("parking", "fee")


def test_ranking_does_not_hang_on_the_order_of_hashing() -> None:
    first = rank_columns(SCHOOL, "title and name of students", matches={}, needed=())
    assert first == rank_columns(SCHOOL, "name and title of students", matches={}, needed=())


def test_subset_keeps_whole_keys_only() -> None:
    smaller = subset(
        SCHOOL, [("enrolled", "student_id"), ("enrolled", "course_id"), ("student", "id"), ("course", "title")]
    )
    assert [t.name for t in smaller.tables] == ["student", "enrolled", "course"]
    assert [(k.table, k.referred_table) for k in smaller.foreign_keys] == [("enrolled", "student")]
    assert smaller.table("course").primary_key == ()
    assert smaller.table("student").primary_key == ("id",)


def test_subset_can_take_a_new_order() -> None:
    order = [("parking", "fee"), ("student", "name"), ("parking", "lot"), ("student", "id")]
    shuffled = subset(SCHOOL, order, reorder=True)
    assert [(t.name, [c.name for c in t.columns]) for t in shuffled.tables] == [
        ("parking", ["fee", "lot"]),
        ("student", ["name", "id"]),
    ]


def test_recall_on_spider(shared_data: Path) -> None:
    """With half of each database's columns, nearly all columns of the gold queries are kept."""
    root = shared_data / "spider"
    if not (root / "dev.json").is_file():
        pytest.skip(f"no Spider at {root}")
    questions = json.loads((root / "dev.json").read_text())[::5]
    catalogs = {
        db_id: read_catalog(root / "database" / db_id / f"{db_id}.sqlite", db_id=db_id, statistics=False)
        for db_id in {item["db_id"] for item in questions}
    }
    kept = whole = total = 0
    for item in questions:
        catalog = catalogs[item["db_id"]]
        # Literals hide no column names from the gold's side of the measure.
        needed = columns_in(re.sub(r"'[^']*'|\"[^\"]*\"", "", item["query"]), catalog)
        ranked = rank_columns(catalog, item["question"], matches={}, needed=())
        half = set(ranked[: (len(ranked) + 1) // 2])
        kept, total, whole = kept + len(needed & half), total + len(needed), whole + (needed <= half)
    assert len(questions) == 207
    assert kept / total > 0.9
    assert whole / len(questions) > 0.84
