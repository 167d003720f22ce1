"""The database graph: columns are nodes, joined within a table and along foreign keys (DB-Explore, 2503.04959).

An edge's weight is how often its two columns occur together in a seed query, plus a smoothing; without seeds all
weights are equal. Stored as CSR arrays: the neighbours of node ``n`` are ``neighbours_E[starts_N1[n]:starts_N1[n+1]]``,
in ascending order.
"""

# N columns (N1: N + 1), E directed edges, T tables (T1: T + 1)

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.explore.reading import ColumnRef, Reading


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The arrays. Nodes of one table stand together, in the catalog's order."""

    nodes: tuple[ColumnRef, ...]
    table_N: np.ndarray  # int64: the table of a node
    first_T1: np.ndarray  # int64: a table's first node
    starts_N1: np.ndarray  # int64
    neighbours_E: np.ndarray  # int64
    weights_E: np.ndarray  # float64, positive
    inter_E: np.ndarray  # bool: along a foreign key

    @property
    def num_nodes(self) -> int:
        """How many columns there are."""
        return len(self.nodes)

    @property
    def num_tables(self) -> int:
        """How many tables there are."""
        return len(self.first_T1) - 1

    def edges(self) -> Iterator[tuple[int, int, float, bool]]:
        """Yield each edge once: source < target, weight, whether it is along a foreign key."""
        sources_E = np.repeat(np.arange(self.num_nodes), np.diff(self.starts_N1))
        once_E = sources_E < self.neighbours_E
        columns = (sources_E, self.neighbours_E, self.weights_E, self.inter_E)
        yield from zip(*(column[once_E].tolist() for column in columns), strict=True)

    def keys_by_table(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the directed foreign-key edges that leave each table.

        Returns:
            starts_T1 and far_H: the keys of table ``t`` end at the nodes ``far_H[starts_T1[t]:starts_T1[t+1]]``.
        """
        edges = np.flatnonzero(self.inter_E)
        # Edges are sorted by their source, and a table's nodes stand together: so do its keys.
        sources = np.searchsorted(self.starts_N1, edges, side="right") - 1
        starts_T1 = np.searchsorted(self.table_N[sources], np.arange(self.num_tables + 1))
        return starts_T1, self.neighbours_E[edges]

    def write_parquet(self, folder: Path) -> None:
        """Write ``graph_nodes.parquet`` and ``graph_edges.parquet``."""
        tables, columns = zip(*self.nodes, strict=True)
        ids = list(range(self.num_nodes))
        pq.write_table(pa.table({"id": ids, "table": tables, "column": columns}), folder / "graph_nodes.parquet")
        schema = pa.schema({"source": pa.int64(), "target": pa.int64(), "weight": pa.float64(), "kind": pa.string()})
        edges = [
            {"source": source, "target": target, "weight": weight, "kind": "foreign key" if inter else "table"}
            for source, target, weight, inter in self.edges()
        ]
        pq.write_table(pa.Table.from_pylist(edges, schema=schema), folder / "graph_edges.parquet")

    def write_graphml(self, path: Path) -> None:
        """Write GraphML, which networkx, igraph, Gephi and yEd read."""
        root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
        keys = (("table", "node", "string"), ("column", "node", "string"), ("weight", "edge", "double"))
        for name, target, kind in (*keys, ("kind", "edge", "string")):
            ElementTree.SubElement(root, "key", {"id": name, "for": target, "attr.name": name, "attr.type": kind})
        graph = ElementTree.SubElement(root, "graph", edgedefault="undirected")

        def data(parent: ElementTree.Element, key: str, text: str) -> None:
            # XML has no way to write control characters, which SQLite allows in names.
            ElementTree.SubElement(parent, "data", key=key).text = "".join(
                letter if letter.isprintable() else "\ufffd" for letter in text
            )

        for number, (table, column) in enumerate(self.nodes):
            node = ElementTree.SubElement(graph, "node", id=f"n{number}")
            data(node, "table", table)
            data(node, "column", column)
        for a, b, weight, inter in self.edges():
            edge = ElementTree.SubElement(graph, "edge", source=f"n{a}", target=f"n{b}")
            data(edge, "weight", repr(weight))
            data(edge, "kind", "foreign key" if inter else "table")
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def build_graph(catalog: Catalog, *, readings: Iterable[Reading], smoothing: float) -> Graph:
    """Build the graph of a catalog.

    Args:
        catalog: Its columns become nodes. A key within one table adds no edge: its columns are joined already.
        readings: Seed queries; empty gives equal weights.
        smoothing: Added to every co-occurrence count; > 0, so that what no seed asks is still reached.
    """
    nodes = tuple((table.name, column.name) for table in catalog.tables for column in table.columns)
    index = {node: number for number, node in enumerate(nodes)}
    sizes_T = np.array([len(table.columns) for table in catalog.tables], dtype=np.int64)
    first_T1 = np.concatenate([[0], np.cumsum(sizes_T)])
    table_N = np.repeat(np.arange(len(sizes_T)), sizes_T)

    # Within tables: each node with every node of its table but itself.
    degrees_N = sizes_T[table_N] - 1
    intra_source = np.repeat(np.arange(len(nodes)), degrees_N)
    ends = np.cumsum(degrees_N)
    rank = np.arange(intra_source.size) - np.repeat(ends - degrees_N, degrees_N)
    intra_target = first_T1[table_N[intra_source]] + rank
    intra_target += intra_target >= intra_source  # steps over the node itself

    pairs = {
        (index[key.table, here], index[key.referred_table, there])
        for key in catalog.foreign_keys
        if key.table != key.referred_table
        for here, there in zip(key.columns, key.referred_columns, strict=True)
    }
    both = np.array(sorted(pairs | {(b, a) for a, b in pairs}), dtype=np.int64).reshape(-1, 2)
    source_E = np.concatenate([intra_source, both[:, 0]])
    target_E = np.concatenate([intra_target, both[:, 1]])
    inter_E = np.arange(source_E.size) >= intra_source.size
    order = np.lexsort((target_E, source_E))
    source_E, target_E, inter_E = source_E[order], target_E[order], inter_E[order]

    weights_E = np.full(source_E.size, float(smoothing))
    together = _co_occurrences(readings, index)
    if together and source_E.size:
        # Edges are sorted by (source, target), so each pair is found by its place in one number.
        code_E = source_E * len(nodes) + target_E
        for (a, b), count in together.items():
            for code in (a * len(nodes) + b, b * len(nodes) + a):
                place = int(np.searchsorted(code_E, code))
                if place < code_E.size and code_E[place] == code:  # columns of two tables may have no edge
                    weights_E[place] += count
    starts_N1 = np.concatenate([[0], np.cumsum(np.bincount(source_E, minlength=len(nodes)))])
    return Graph(nodes, table_N, first_T1, starts_N1, target_E, weights_E, inter_E)


def _co_occurrences(readings: Iterable[Reading], index: dict[ColumnRef, int]) -> Counter[tuple[int, int]]:
    together = Counter[tuple[int, int]]()
    for reading in readings:
        together.update(combinations(sorted(index[column] for column in reading.columns), 2))
    return together
