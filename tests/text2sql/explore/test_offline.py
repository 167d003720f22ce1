"""The offline synthesizer over many walks: one operator a level, sound SQL, the same again."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import sqlglot
from concerts import facts_of, make, opened
from sqlglot import exp

from tutelage.core.randomness import generator
from tutelage.text2sql.database.catalog import Catalog
from tutelage.text2sql.explore.filter import Accepted, Guard, Seen, check
from tutelage.text2sql.explore.knowledge import Knowledge
from tutelage.text2sql.explore.pair import OPERATORS, Candidate, Pair, Walk
from tutelage.text2sql.explore.synthesizers.offline import Offline
from tutelage.text2sql.explore.synthesizers.offline_grammar import Grammar
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    Compare,
    Linked,
    Node,
    Order,
    Query,
    Ref,
    from_json,
)

KNOWLEDGE = Knowledge((), ())
LEVELS = 6


def walks(catalog: Catalog, count: int) -> list[Walk]:
    """Walks over all tables, each without some columns."""
    columns = [(table.name, column.name) for table in catalog.tables for column in table.columns]
    chosen = [(*columns[number % 5 :], *columns[: number % 3]) for number in range(count)]
    return [Walk(number, walked, "test") for number, walked in enumerate(chosen)]


def pair_of(candidate: Candidate, name: str, walk: Walk) -> Pair:
    about = (candidate.level, candidate.question, candidate.sql, candidate.operators)
    return Pair(name, "concerts", *about, "test", None, walk.id, (), (), candidate.state)


Grown = list[tuple[Candidate, Pair | None, Walk]]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple]:
    with opened(make(tmp_path_factory.mktemp("offline"))) as door:
        yield door


@pytest.fixture(scope="module")
def grown(door: tuple) -> Grown:
    """Candidates of all levels; each level grows from the first ones of the level before."""
    catalog, execute = door
    synthesizer = Offline(
        width=3, catalog=catalog, facts=facts_of(catalog, execute), knowledge=KNOWLEDGE, execute=execute, seed=1
    )
    found: Grown = []
    for walk in walks(catalog, 24):
        frontier: list[tuple[Candidate, Pair | None]] = [(candidate, None) for candidate in synthesizer.begin(walk)]
        while frontier:
            candidate, parent = frontier.pop(0)
            found.append((candidate, parent, walk))
            if candidate.level < LEVELS and len(frontier) < 6:
                pair = pair_of(candidate, f"{walk.id}.{len(found)}", walk)
                frontier += [(child, pair) for child in synthesizer.extend(pair, walk)]
    return found


def test_each_level_adds_one_operator(grown: Grown) -> None:
    for candidate, parent, _ in grown:
        assert candidate.level == len(candidate.operators) + 1
        assert set(candidate.operators) <= set(OPERATORS)
        assert candidate.operators[:-1] == (parent.operators if parent else ())
    assert {candidate.level for candidate, _, _ in grown} == set(range(1, LEVELS + 1))


def test_every_operator_comes(grown: Grown) -> None:
    counts = Counter(operator for candidate, _, _ in grown for operator in candidate.operators)
    assert set(counts) == set(OPERATORS), set(OPERATORS) - set(counts)


def test_no_group_has_one_row_only(grown: Grown, door: tuple) -> None:
    _, execute = door
    counted = 0
    for candidate, _, _ in grown:
        query = from_json(dict(candidate.state))
        if query.grouped:
            tree = sqlglot.parse_one(candidate.sql, dialect="sqlite")
            select = next(part for part in tree.find_all(exp.Select) if part.args.get("group"))
            select.set("having", None)
            counts = select.select(exp.Count(this=exp.Star()), append=False)
            for clause in ("order", "limit", "with_"):
                counts.set(clause, None)
            assert max(row[0] for row in execute(counts.sql(dialect="sqlite")).rows) > 1, candidate.sql
            counted += 1
    assert counted > 50


def test_the_largest_are_not_sought_among_the_large(grown: Grown) -> None:
    limited = [query for candidate, _, _ in grown if (query := from_json(dict(candidate.state))).limit is not None]
    sought = [query for query in limited if query.order and isinstance(query.order.by, Ref)]
    assert len(sought) > 20
    for query in sought:
        assert query.order and query.order.by not in {getattr(part, "ref", None) for part in query.where}


def test_a_set_operation_compares_other_columns_than_it_is_limited_by(grown: Grown) -> None:
    combined = [query for candidate, _, _ in grown if (query := from_json(dict(candidate.state))).combine]
    assert combined
    for query in combined:
        assert query.combine is not None
        base = {part.ref for part in query.where[:-1] if not isinstance(part, Linked)}
        # "Ships whose name starts with L that have … but no ships whose name starts with H"
        assert query.combine.where.ref not in base, query
        # "Those that are not X, except those that are not Y"
        excepted = query.combine.where if query.combine.op == "except" else None
        assert not (isinstance(excepted, Compare) and excepted.op == "!="), query


def test_what_rows_lead_to_is_listed_once(door: tuple) -> None:
    catalog, execute = door
    grammar = Grammar(catalog, execute=execute, facts=facts_of(catalog, execute))
    nodes = (Node("concert"), Node("stadium", 0, ("stadium_id",), ("stadium_id",)))
    query = Query(nodes, (Ref(1, "name"), Ref(0, "theme")), subject=1)
    ordered = replace(query, order=Order(Ref(1, "capacity"), True))
    given = 0
    for parent in (query, ordered):
        for seed in range(60):
            grown = grammar.extend(parent, walks(catalog, 1)[0], ("join",), generator("given", seed))
            for operator, child in islice(grown, 8):
                if operator == "filter" and child.select == (Ref(1, "name"),):
                    # "Stadiums that have a concert whose theme is Rock": a stadium may have two of them.
                    assert child.distinct and child.order is None
                    given += 1
    assert given > 5


def test_a_step_joins_nothing_that_it_does_not_speak_of(grown: Grown) -> None:
    steps = [
        (query, candidate)
        for candidate, _, _ in grown
        if (query := from_json(dict(candidate.state))).cte and query.cte.kind == "top"
    ]
    assert len(steps) > 20
    for query, candidate in steps:
        spoken = {part.node if isinstance(part, Linked) else part.ref.node for part in query.where}
        assert len(query.nodes) == 1 or spoken, candidate.sql


def test_values_that_name_too_little_or_too_much_are_not_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "blanks.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE airport (name TEXT, country TEXT, code TEXT, city TEXT, opening_year INTEGER)")
        rows = [(f"Field{n}", ("US", "US ", "UK ", "NO")[n % 4], f"C{n}", f"City{n % 9}", 2013) for n in range(40)]
        connection.executemany("INSERT INTO airport VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    with opened(path) as (catalog, execute):
        synthesizer = Offline(
            width=4, catalog=catalog, facts=facts_of(catalog, execute), knowledge=KNOWLEDGE, execute=execute, seed=1
        )
        asked = ";".join(
            child.sql
            for walk in walks(catalog, 40)
            for candidate in synthesizer.begin(walk)
            for child in synthesizer.extend(pair_of(candidate, f"{walk.id}", walk), walk)
        )
    # All opened in one year: "the latest year" asks for nothing.
    assert "opening_year" in asked and "(opening_year)" not in asked
    # Each code names one airport, of which nothing else is counted, sorted or told apart.
    assert "code = 'C" in asked and not any(
        "code = 'C" in part and ("DISTINCT" in part or "COUNT" in part) for part in asked.split(";")
    )
    assert "'US'" in asked and "'UK '" in asked and "'US '" not in asked


def test_the_key_of_a_join_is_no_condition(tmp_path: Path) -> None:
    path = tmp_path / "languages.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE country (code TEXT PRIMARY KEY, name TEXT, continent TEXT);"
            "CREATE TABLE language (name TEXT UNIQUE, country_code TEXT REFERENCES country(code), share REAL);"
        )
        rows = [(f"C{n}", f"Land{n}", "AB"[n % 2]) for n in range(9)]
        connection.executemany("INSERT INTO country VALUES (?, ?, ?)", rows)
        spoken = [(f"Tongue{n}", f"C{n % 5}", 2.5 * n) for n in range(30)]
        connection.executemany("INSERT INTO language VALUES (?, ?, ?)", spoken)
    connection.close()
    asked = joined = 0
    with opened(path) as (catalog, execute):
        synthesizer = Offline(
            width=4, catalog=catalog, facts=facts_of(catalog, execute), knowledge=KNOWLEDGE, execute=execute, seed=1
        )
        for walk in walks(catalog, 40):
            level = [pair_of(candidate, f"{walk.id}", walk) for candidate in synthesizer.begin(walk)]
            for depth in range(2):
                children = [child for pair in level for child in synthesizer.extend(pair, walk)]
                level = [pair_of(child, f"{walk.id}.{depth}.{n}", walk) for n, child in enumerate(children[:12])]
                for child in children:
                    conditioned = any(f"country_code {how}" in child.sql for how in ("= '", "IN ('", "= (SELECT"))
                    query = from_json(dict(child.state))
                    # "Countries that have a language whose country code is …"; of languages it may be said.
                    of_countries = query.subject != 0 or query.nodes[0].table == "country"
                    assert not (conditioned and of_countries), child.sql
                    asked += conditioned
                    joined += of_countries and "country_code" in child.sql
    assert asked > 5 and joined > 20  # "languages whose country code is …" may be asked for


def test_all_sql_runs(grown: Grown, door: tuple) -> None:
    _, execute = door
    failed = [
        (candidate.sql, result.error) for candidate, _, _ in grown if (result := execute(candidate.sql)).status != "ok"
    ]
    assert failed == []


CLAUSES: dict[str, type[exp.Expr] | tuple[type[exp.Expr], ...]] = {
    "filter": exp.Where,
    "join": exp.Join,
    "aggregate": exp.AggFunc,
    "group": exp.Group,
    "having": exp.Having,
    "order": exp.Order,
    "limit": exp.Limit,
    "nesting": exp.Subquery,
    "set_operation": exp.SetOperation,
    "cte": exp.CTE,
    "window": exp.Window,
}


def test_operators_stand_in_the_sql(grown: Grown) -> None:
    for candidate, _, _ in grown:
        tree = sqlglot.parse_one(candidate.sql, dialect="sqlite")
        for operator in candidate.operators:
            found = tree.find(CLAUSES[operator]) or (operator == "nesting" and tree.find(exp.In))
            assert found, (operator, candidate.sql)


def test_questions_are_sentences(grown: Grown) -> None:
    for candidate, _, _ in grown:
        text = candidate.question
        assert text[0].isupper() and text[-1] in ".?", text
        assert "  " not in text and "_" not in text and " ," not in text, text
        assert "None" not in text and "()" not in text, text


def test_no_arithmetic_over_what_is_no_measure(grown: Grown) -> None:
    for candidate, _, _ in grown:
        for call in sqlglot.parse_one(candidate.sql, dialect="sqlite").find_all(exp.Avg, exp.Sum):
            names = {column.name for column in call.find_all(exp.Column)}
            assert not names & {"singer_id", "concert_id", "stadium_id", "phone_number", "debut_year"}, candidate.sql


def test_the_filter_finds_every_question_complete(grown: Grown, door: tuple) -> None:
    catalog, execute = door
    seen, reasons = Seen(), Counter[str]()
    for candidate, _, _ in grown:
        alone = replace(candidate, operators=(), level=1)
        verdict = check(alone, parent=None, catalog=catalog, execute=execute, guard=Guard.of(()), seen=seen)
        reasons["accepted" if isinstance(verdict, Accepted) else verdict.reason] += 1
    # What the grammar writes always parses, fits, runs, and says what it asks for.
    wrong = {"does_not_parse", "not_select", "does_not_fit", "fails", "unspoken_literal", "unspoken_column", "timeout"}
    assert not wrong & set(reasons), reasons
    assert reasons["accepted"] > 150


def test_the_same_again_and_other_ids_other_proposals(door: tuple) -> None:
    catalog, execute = door
    first, second = (
        Offline(
            width=3, catalog=catalog, facts=facts_of(catalog, execute), knowledge=KNOWLEDGE, execute=execute, seed=7
        )
        for _ in range(2)
    )
    walk = walks(catalog, 1)[0]
    begun = first.begin(walk)
    list(second.begin(walks(catalog, 2)[1]))  # what ran before does not matter
    assert begun == second.begin(walk)
    pair = pair_of(begun[0], "p", walk)
    # A pair that was written to JSON and read back is extended in the same way.
    again = replace(pair, state=json.loads(json.dumps(pair.state)))
    assert first.extend(pair, walk) == second.extend(again, walk)
    assert first.extend(pair, walk) != first.extend(pair, replace(walk, id=99))
    other = Offline(
        width=3, catalog=catalog, facts=facts_of(catalog, execute), knowledge=KNOWLEDGE, execute=execute, seed=8
    )
    assert [c.question for c in other.begin(walk)] != [c.question for c in begun]


def test_width_bounds_the_proposals(door: tuple) -> None:
    catalog, execute = door
    synthesizer = Offline(
        width=2, catalog=catalog, facts=facts_of(catalog, execute), knowledge=KNOWLEDGE, execute=execute, seed=1
    )
    walk = walks(catalog, 1)[0]
    candidates = synthesizer.begin(walk)
    children = [
        synthesizer.extend(pair_of(candidate, str(place), walk), walk) for place, candidate in enumerate(candidates)
    ]
    assert max(map(len, children)) == 2
    assert all(len({child.sql for child in found}) == len(found) for found in children)


def test_other_dialects_get_their_own_sql(door: tuple) -> None:
    catalog, execute = door
    duck = replace(catalog, dialect="duckdb")
    synthesizer = Offline(
        width=4, catalog=duck, facts=facts_of(duck, execute), knowledge=KNOWLEDGE, execute=execute, seed=1
    )
    walk = walks(catalog, 1)[0]
    for candidate in synthesizer.begin(walk):
        sqlglot.parse_one(candidate.sql, dialect="duckdb")
