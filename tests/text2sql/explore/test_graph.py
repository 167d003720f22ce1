import itertools
from pathlib import Path

import networkx
import numpy as np
import pyarrow.parquet as pq
import pytest

from tutelage.text2sql.database.catalog import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.explore.graph import Graph, build_graph
from tutelage.text2sql.explore.reading import Reader, Reading


def make_catalog(tables: dict[str, list[str]], keys: list[ForeignKey]) -> Catalog:
    return Catalog(
        "db",
        "db.sqlite",
        "sqlite",
        tuple(
            Table(
                name,
                tuple(Column(column, "TEXT", name, True) for column in columns),
                (),
                tuple(key for key in keys if key.table == name),
                1,
                False,
            )
            for name, columns in tables.items()
        ),
    )


SHOP = make_catalog(
    {"a": ["id", "x", "y"], "b": ["a_id", "z"], "lone": ["only"]}, [ForeignKey("b", ("a_id",), "a", ("id",))]
)


def edges(graph: Graph) -> dict[tuple[str, str], tuple[float, bool]]:
    return {
        (".".join(graph.nodes[a]), ".".join(graph.nodes[b])): (weight, inter) for a, b, weight, inter in graph.edges()
    }


def test_cliques_and_keys_by_hand() -> None:
    graph = build_graph(SHOP, readings=[], smoothing=1.0)
    assert edges(graph) == {
        ("a.id", "a.x"): (1.0, False),
        ("a.id", "a.y"): (1.0, False),
        ("a.x", "a.y"): (1.0, False),
        ("a.id", "b.a_id"): (1.0, True),
        ("b.a_id", "b.z"): (1.0, False),
    }
    assert graph.starts_N1.tolist() == [0, 3, 5, 7, 9, 10, 10]
    assert graph.neighbours_E[:3].tolist() == [1, 2, 3]
    assert graph.num_tables == 3


def test_weights_count_seeds_that_use_both_columns() -> None:
    reader = Reader(SHOP)
    readings = [
        reader.read(sql)
        for sql in (
            "SELECT x FROM a WHERE y = 1",
            "SELECT T1.X FROM A AS T1 JOIN B AS T2 ON T1.id = T2.a_id WHERE T2.z > 3",
            "SELECT y FROM a WHERE id IN (SELECT a_id FROM b)",
        )
    ]
    assert None not in readings
    graph = build_graph(SHOP, readings=[r for r in readings if r], smoothing=0.5)
    assert edges(graph) == {
        ("a.id", "a.x"): (1.5, False),
        ("a.id", "a.y"): (1.5, False),
        ("a.x", "a.y"): (1.5, False),
        ("a.id", "b.a_id"): (2.5, True),
        ("b.a_id", "b.z"): (1.5, False),
    }


def test_equals_a_slow_loop_on_a_random_schema() -> None:
    random = np.random.default_rng(0)
    tables = {f"t{t}": [f"c{c}" for c in range(random.integers(1, 7))] for t in range(9)}
    keys = [
        ForeignKey(f"t{t}", (f"c{random.integers(len(tables[f't{t}']))}",), f"t{random.integers(t)}", ("c0",))
        for t in range(1, 9)
    ]
    catalog = make_catalog(tables, keys)
    nodes = [(table, column) for table, columns in tables.items() for column in columns]
    readings = [
        Reading(frozenset(nodes[i] for i in random.choice(len(nodes), 4, replace=False)), frozenset())
        for _ in range(50)
    ]
    expected = {}
    for a, b in itertools.combinations(range(len(nodes)), 2):
        joined = any({nodes[a], nodes[b]} == {(k.table, k.columns[0]), (k.referred_table, "c0")} for k in keys)
        if nodes[a][0] == nodes[b][0] or joined:
            together = sum({nodes[a], nodes[b]} <= reading.columns for reading in readings)
            expected[a, b] = (1.0 + together, nodes[a][0] != nodes[b][0])
    graph = build_graph(catalog, readings=readings, smoothing=1.0)
    assert {(a, b): (weight, inter) for a, b, weight, inter in graph.edges()} == expected
    # Every edge stands in both directions, with one weight.
    both = {(a, b): w for a, b, w, _ in graph.edges()} | {(b, a): w for a, b, w, _ in graph.edges()}
    sources = np.repeat(np.arange(len(nodes)), np.diff(graph.starts_N1))
    assert dict(zip(zip(sources, graph.neighbours_E, strict=True), graph.weights_E, strict=True)) == both


def test_composite_and_self_keys() -> None:
    catalog = make_catalog(
        {"a": ["p", "q", "boss"], "b": ["p", "q"]},
        [ForeignKey("b", ("p", "q"), "a", ("p", "q")), ForeignKey("a", ("boss",), "a", ("p",))],
    )
    found = edges(build_graph(catalog, readings=[], smoothing=1.0))
    assert [pair for pair, (_, inter) in found.items() if inter] == [("a.p", "b.p"), ("a.q", "b.q")]
    assert len(found) == 3 + 1 + 2


def test_exports(tmp_path: Path) -> None:
    graph = build_graph(SHOP, readings=[], smoothing=1.0)
    graph.write_parquet(tmp_path)
    nodes = pq.read_table(tmp_path / "graph_nodes.parquet").to_pydict()
    assert list(zip(nodes["table"], nodes["column"], strict=True)) == list(graph.nodes)
    rows = pq.read_table(tmp_path / "graph_edges.parquet").to_pylist()
    assert rows[2] == {"source": 0, "target": 3, "weight": 1.0, "kind": "foreign key"}
    graph.write_graphml(tmp_path / "graph.graphml")
    read = networkx.read_graphml(tmp_path / "graph.graphml")
    assert (read.number_of_nodes(), read.number_of_edges()) == (6, 5)
    assert read.nodes["n5"] == {"table": "lone", "column": "only"}
    assert read.edges["n0", "n3"] == {"weight": 1.0, "kind": "foreign key"}


def test_names_that_xml_cannot_write(tmp_path: Path) -> None:
    graph = build_graph(make_catalog({"t<&>": ["a\x01b", "ü🚲"]}, []), readings=[], smoothing=1.0)
    graph.write_graphml(tmp_path / "g.graphml")
    read = networkx.read_graphml(tmp_path / "g.graphml")
    assert read.nodes["n0"] == {"table": "t<&>", "column": "a\ufffdb"}
    assert read.nodes["n1"]["column"] == "ü🚲"


def test_one_column_and_no_edges(tmp_path: Path) -> None:
    graph = build_graph(make_catalog({"t": ["a"]}, []), readings=[], smoothing=1.0)
    assert graph.neighbours_E.size == 0 and list(graph.edges()) == []
    graph.write_parquet(tmp_path)
    assert pq.read_table(tmp_path / "graph_edges.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("sql", "columns", "joins"),
    [
        ("SELECT a.x FROM a", {"a.x"}, 0),
        ("SELECT T.z FROM b AS T JOIN a ON a.id = T.a_id", {"b.z", "b.a_id", "a.id"}, 1),
        ("SELECT z FROM a, b WHERE id = a_id AND y = 'q'", {"b.z", "b.a_id", "a.id", "a.y"}, 1),
        ("WITH q AS (SELECT x AS n FROM a) SELECT n FROM q", {"a.x"}, 0),
        ("SELECT x FROM a EXCEPT SELECT z FROM b", {"a.x", "b.z"}, 0),
        ("SELECT x FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id)", {"a.x", "a.id", "b.a_id"}, 1),
        ("SELECT count(*) FROM a", set(), 0),
    ],
)
def test_reader(sql: str, columns: set[str], joins: int) -> None:
    reading = Reader(SHOP).read(sql)
    assert reading is not None
    assert {".".join(column) for column in reading.columns} == columns
    assert len(reading.joins) == joins


@pytest.mark.parametrize("sql", ["SELECT FROM WHERE", "", "SELECT 'open", "(" * 3000 + "1" + ")" * 3000])
def test_reader_leaves_out_what_is_no_query(sql: str) -> None:
    reading = Reader(SHOP).read(sql)
    assert reading is None or not reading.columns
