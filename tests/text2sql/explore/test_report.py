from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from tutelage.text2sql.database.catalog import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.explore.drawing import MAX_COLUMNS, MAX_TABLES, draw_graph
from tutelage.text2sql.explore.facts.fact import Fact, Subject
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.graph import build_graph
from tutelage.text2sql.explore.outcome import Outcome, Rejected
from tutelage.text2sql.explore.pair import Pair
from tutelage.text2sql.explore.report import coverage_of, informative, write_report

KEY = ForeignKey("b", ("a_id",), "a", ("id",))
SELF = ForeignKey("a", ("boss",), "a", ("id",), inferred=True)


def table(name: str, columns: list[str], keys: tuple[ForeignKey, ...] = ()) -> Table:
    return Table(name, tuple(Column(column, "TEXT", name, True) for column in columns), (), keys, 1, False)


CATALOG = Catalog(
    "db",
    "/somewhere/db.sqlite",
    "sqlite",
    (table("a", ["id", "<b>", "boss"], (SELF,)), table("b", ["a_id", "z"], (KEY,))),
    notes=("view v left out: no such table: <gone>",),
)


def pair(number: int, level: int, columns: tuple[str, ...], operators: tuple[str, ...]) -> Pair:
    return Pair(
        f"db/{number}", "db", level, f"What is number {number}?", f"SELECT {number} < 3", operators, "coverage",
        None, number, columns, (), {},
    )  # fmt: skip


OUTCOME = Outcome(
    pairs=[
        pair(0, 1, ("a.id",), ()),
        pair(1, 2, ("a.id", "b.a_id"), ("join",)),
        pair(2, 2, ("a.id", "a.<b>"), ("filter",)),
    ],
    rejected=[
        Rejected("db/3", 3, 1, None, "<i>?", "SELECT 1", (), "constant", "one"),
        Rejected("db/4", 4, 1, None, "second", "SELECT 2", (), "empty", "none"),
        Rejected("db/5", 5, 1, None, "third", "SELECT 3", (), "empty", "none"),
    ],
    num_walks=7,
)


def test_coverage_by_hand() -> None:
    coverage = coverage_of(OUTCOME, CATALOG)
    assert coverage.columns == {
        ("a", "id"): 3, ("a", "<b>"): 1, ("a", "boss"): 0, ("b", "a_id"): 1, ("b", "z"): 0,
    }  # fmt: skip
    assert coverage.joins == {KEY: 1, SELF: 0}
    assert {name: count for name, count in coverage.operators.items() if count} == {"filter": 1, "join": 1}
    assert len(coverage.operators) == 11


FACTS = Facts([Fact(Subject("a", ("id",), value=0), "code", "<none>", "person", 1.0)])


def test_report(tmp_path: Path) -> None:
    graph = build_graph(CATALOG, readings=[], smoothing=1.0)
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, outcome=OUTCOME, catalog=CATALOG, graph=graph, facts=FACTS)
    html = (tmp_path / "one.html").read_text()
    assert html == (tmp_path / "two.html").read_text()
    for text in (
        "3 pairs of question and SQL from 7 walks over 5 columns in 2 tables; 3 candidates were turned away",
        "3 of 5 columns are taught",
        "a.boss<br>b.z<br>",
        "b (a_id) → a (id)</td>",
        "a (boss) → a (id), inferred</td>",
        "What is number 2?<br><code>SELECT 2 &lt; 3</code>",
        '<td>empty</td><td class="number">2</td><td>second',
        "no such table: &lt;gone&gt;",
        "<td>a.id = 0</td><td>code</td><td>&lt;none&gt;</td><td>person</td>",
    ):
        assert text in html, text
    assert "<i>" not in html and "<b>" not in html  # names and questions are text, not markup
    assert "somewhere" not in html


def test_how_often_a_model_was_right_is_shown(tmp_path: Path) -> None:
    solved = [replace(one, solved=share) for one, share in zip(OUTCOME.pairs, (0.5, 1.0, 1.0), strict=True)]
    lost = Rejected("db/6", 6, 1, None, "?", "SELECT 1", (), "disagreed", "1 of 4 answers agree; one that does not: x")
    outcome = Outcome(pairs=solved, rejected=[*OUTCOME.rejected, lost], num_walks=7)
    assert informative(outcome) == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 0, 0), (4, 2, 0)]
    assert informative(Outcome(pairs=solved, rejected=[], num_walks=7)) == [(0, 0, 0), (1, 1, 0), (2, 2, 0)]
    assert informative(OUTCOME) == []
    graph = build_graph(CATALOG, readings=[], smoothing=1.0)
    write_report(tmp_path / "r.html", outcome=outcome, catalog=CATALOG, graph=graph, facts=Facts())
    assert "<td>4 of 4</td>" in (tmp_path / "r.html").read_text()


def test_an_exploration_that_found_nothing_has_a_report(tmp_path: Path) -> None:
    write_report(
        tmp_path / "report.html",
        outcome=Outcome([], [], 0),
        catalog=CATALOG,
        graph=build_graph(CATALOG, readings=[], smoothing=1.0),
        facts=Facts(),
    )
    assert "0 of 5 columns are taught" in (tmp_path / "report.html").read_text()


def test_drawing_is_xml_and_stays_small() -> None:
    svg = ElementTree.fromstring(draw_graph(CATALOG, {("a", "id"): 3}))
    names = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a", "b", "id", "<b>", "z"} <= names
    paths = list(svg.iter("{http://www.w3.org/2000/svg}path"))
    assert [path.get("stroke-dasharray") is not None for path in paths] == [True, False]
    many = Catalog("x", "x", "sqlite", tuple(table(f"t{i}", [f"c{j}" for j in range(300)]) for i in range(2000)))
    svg = ElementTree.fromstring(draw_graph(many, {}))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert len(texts) == MAX_TABLES * (MAX_COLUMNS + 1)
    assert "… 277 more" in texts
