from collections import Counter

import numpy as np
import pytest

from tutelage.core.build import build
from tutelage.core.errors import ConfigError
from tutelage.text2sql.database.catalog import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.explore.graph import Graph, build_graph
from tutelage.text2sql.explore.reading import Reading
from tutelage.text2sql.explore.samplers.base import Sampler
from tutelage.text2sql.explore.samplers.coverage import Coverage
from tutelage.text2sql.explore.samplers.empirical_weighted import EmpiricalWeighted
from tutelage.text2sql.explore.samplers.inter_boost import InterBoost
from tutelage.text2sql.explore.samplers.join_tree import JoinTree
from tutelage.text2sql.explore.samplers.mix import Mix
from tutelage.text2sql.explore.samplers.random_walk import RandomWalk

SIZE = 8
PARTS = {
    name: {"_target_": f"tutelage.text2sql.explore.samplers.{name}.{cls}", "size": SIZE, **more}
    for name, cls, more in (
        ("random_walk", "RandomWalk", {}),
        ("empirical_weighted", "EmpiricalWeighted", {}),
        ("inter_boost", "InterBoost", {"hop": 0.3}),
        ("join_tree", "JoinTree", {"max_tables": 4}),
        ("coverage", "Coverage", {}),
    )
}
MIX = {
    "_target_": "tutelage.text2sql.explore.samplers.mix.Mix",
    "size": SIZE,
    "shares": {"random_walk": 1.0, "empirical_weighted": 2.0, "inter_boost": 1.0, "join_tree": 4.0, "coverage": 2.0},
    "parts": PARTS,
}


def tree_of_tables(num_tables: int, num_columns: int, *, joined: bool = True) -> Graph:
    tables = tuple(
        Table(
            f"t{t}",
            tuple(Column(f"c{c}", "INTEGER", f"t{t}", True) for c in range(num_columns)),
            ("c0",),
            (ForeignKey(f"t{t}", ("c1",), f"t{(t - 1) // 2}", ("c0",)),) if joined and t else (),
            1,
            False,
        )
        for t in range(num_tables)
    )
    return build_graph(Catalog("x", "x", "sqlite", tables), readings=[], smoothing=1.0)


def make(name: str, graph: Graph, *, seed: int = 1) -> Sampler:
    sampler: Sampler = build(MIX if name == "mix" else PARTS[name], where="sampler", graph=graph, seed=seed)
    return sampler


ALL = [*PARTS, "mix"]


@pytest.mark.parametrize("name", ALL)
def test_a_walk_is_a_function_of_seed_and_id_alone(name: str) -> None:
    graph = tree_of_tables(7, 5)
    whole = make(name, graph).walks(range(300))
    one_by_one = [make(name, graph).walks([number])[0] for number in (0, 1, 17, 299)]
    assert one_by_one == [whole[number] for number in (0, 1, 17, 299)]
    assert make(name, graph).walks([299, 3, 17]) == [whole[299], whole[3], whole[17]]
    other = make(name, graph, seed=2).walks(range(300))
    assert sum(a.columns != b.columns for a, b in zip(whole, other, strict=True)) > 250
    assert len({walk.columns for walk in whole}) > 150  # ids differ, so do walks


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("graph", [tree_of_tables(7, 5), tree_of_tables(3, 1, joined=False), tree_of_tables(1, 12)])
def test_columns_are_different_and_at_most_as_many_as_asked(name: str, graph: Graph) -> None:
    for walk in make(name, graph).walks(range(200)):
        assert 1 <= len(walk.columns) <= SIZE
        assert len(set(walk.columns)) == len(walk.columns)
        assert set(walk.columns) <= set(graph.nodes)


@pytest.mark.parametrize("name", ["random_walk", "empirical_weighted", "inter_boost", "join_tree", "coverage"])
def test_tables_of_a_walk_are_joined(name: str) -> None:
    for walk in make(name, tree_of_tables(15, 6)).walks(range(500)):
        tables = {int(table[1:]) for table in walk.tables}
        # In a tree of tables, joined means: every table but the topmost has its parent there.
        assert sum((table - 1) // 2 not in tables for table in tables) == 1


def test_random_walk_follows_every_edge_equally() -> None:
    graph = tree_of_tables(3, 4)
    nodes_WS = make("random_walk", graph).sample(np.arange(60_000))
    start = graph.nodes.index(("t0", "c0"))  # 3 in its table, 2 keys
    after = Counter(nodes_WS[nodes_WS[:, 0] == start, 1].tolist())
    assert len(after) == 5
    for count in after.values():
        assert count / after.total() == pytest.approx(1 / 5, abs=0.015)
    assert np.bincount(nodes_WS[:, 0], minlength=12) / 60_000 == pytest.approx(np.full(12, 1 / 12), abs=0.006)


def test_empirical_weighted_follows_weights() -> None:
    catalog = Catalog(
        "x", "x", "sqlite", (Table("t", tuple(Column(c, "", "t", True) for c in "abcd"), (), (), 1, False),)
    )
    pair = Reading(frozenset({("t", "a"), ("t", "b")}), frozenset())
    graph = build_graph(catalog, readings=[pair] * 7, smoothing=1.0)  # a–b weighs 8, all others 1
    nodes_WS = EmpiricalWeighted(graph=graph, seed=1, size=2).sample(np.arange(40_000))
    starts = np.bincount(nodes_WS[:, 0], minlength=4) / 40_000
    assert starts == pytest.approx(np.array([10, 10, 3, 3]) / 26, abs=0.01)
    after_a = np.bincount(nodes_WS[nodes_WS[:, 0] == 0, 1], minlength=4)
    assert after_a / after_a.sum() == pytest.approx(np.array([0, 8, 1, 1]) / 10, abs=0.01)


@pytest.mark.parametrize(("num_columns", "uniform", "boosted"), [(12, 0.88, 0.03), (40, 0.99, 0.07)])
def test_the_trap_of_uniform_walks_and_its_mend(num_columns: int, uniform: float, boosted: float) -> None:
    """Walks of 8 columns that stay in one table: measured on 20 tables (facts of the paper's graph)."""
    graph = tree_of_tables(20, num_columns)

    def stays(sampler: Sampler) -> float:
        return float((np.ptp(graph.table_N[sampler.sample(np.arange(20_000))], axis=1) == 0).mean())

    assert stays(make("random_walk", graph)) == pytest.approx(uniform, abs=0.01)
    assert stays(make("inter_boost", graph)) == pytest.approx(boosted, abs=0.01)
    assert stays(InterBoost(graph=graph, seed=1, size=8, hop=0.0)) == pytest.approx(uniform, abs=0.01)


def test_join_tree_gives_every_size() -> None:
    graph = tree_of_tables(15, 6)
    sizes = Counter(len(walk.tables) for walk in JoinTree(graph=graph, seed=1, size=8, max_tables=4).walks(range(4000)))
    assert sorted(sizes) == [1, 2, 3, 4]
    for count in sizes.values():
        assert count / 4000 == pytest.approx(0.25, abs=0.03)
    single = JoinTree(graph=tree_of_tables(4, 6, joined=False), seed=1, size=8, max_tables=4).walks(range(50))
    assert {len(walk.tables) for walk in single} == {1}


def test_coverage_takes_every_column_once_a_round() -> None:
    graph = tree_of_tables(5, 7)  # hands of 4: 2 a table, 10 a round
    sampler = Coverage(graph=graph, seed=1, size=8)
    for first in (0, 10, 70):
        own = Counter()
        for walk in sampler.walks(range(first, first + 10)):
            own.update(column for column in walk.columns[:4] if column[0] == walk.columns[0][0])
        assert set(own) == set(graph.nodes)
    # One round reaches all; as many random walks seldom do.
    reached = [
        len({column for walk in make(name, graph, seed=seed).walks(range(10)) for column in walk.columns})
        for name in ("coverage", "random_walk")
        for seed in range(8)
    ]
    assert reached[:8] == [35] * 8
    assert sum(count < 35 for count in reached[8:]) >= 4


def test_mix_keeps_its_shares_and_names_the_part() -> None:
    graph = tree_of_tables(7, 5)
    walks = make("mix", graph).walks(range(5000))
    counts = Counter(walk.sampler for walk in walks)
    for name, share in MIX["shares"].items():
        assert counts[name] / 5000 == pytest.approx(share / 10, abs=0.02)
    one = next(walk for walk in walks if walk.sampler == "join_tree")
    assert make("join_tree", graph).walks([one.id]) == [one]


def test_mix_refuses_shares_that_cannot_work() -> None:
    graph = tree_of_tables(2, 3)
    for shares, message in (({"teleport": 1.0}, "no sampler teleport"), ({"random_walk": 0.0}, "no positive share")):
        with pytest.raises(ConfigError, match=message):
            Mix(graph=graph, seed=1, size=4, shares=shares, parts=PARTS)


def test_hashes_are_uniform_and_independent() -> None:
    sampler = RandomWalk(graph=tree_of_tables(2, 3), seed=3, size=4)
    first, second = (sampler.uniforms(np.arange(200_000), draw) for draw in (0, 1))
    for values in (first, second):
        assert values.min() >= 0 and values.max() < 1
        assert np.histogram(values, bins=20)[0] / 200_000 == pytest.approx(np.full(20, 0.05), abs=0.003)
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
