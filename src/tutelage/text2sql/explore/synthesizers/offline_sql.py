"""From the tree to SQL as people write it: names quoted where they must be, aliases where there is a join."""

import sqlglot

from tutelage.text2sql.database.catalog import Catalog, Value
from tutelage.text2sql.database.sql_text import identifier, literal
from tutelage.text2sql.explore.facts.roles import Roles
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    AgainstAverage,
    Aggregate,
    AtExtreme,
    Between,
    Compare,
    Condition,
    InYear,
    Like,
    Linked,
    Missing,
    Node,
    OneOf,
    Query,
    Ref,
    SameAs,
)


class SqlWriter:
    """Writes trees over one catalog as SQL of its dialect."""

    def __init__(self, catalog: Catalog, *, roles: Roles) -> None:
        self._catalog, self._roles = catalog, roles

    def write(self, query: Query) -> str:
        """Write the whole statement."""
        sql = self._statement(query)
        if self._catalog.dialect == "sqlite":
            return sql
        return sqlglot.transpile(sql, read="sqlite", write=_SQLGLOT[self._catalog.dialect])[0]

    def values(self, query: Query, ref: Ref, *, rows: str, limit: int) -> str:
        """Write the statement that fetches the distinct values a column takes under the query's conditions.

        ``rows``: The rowids of the first table to look at, as SQL's list; empty for all.
        """
        column = self._column(query.nodes, ref)
        conditions = [*self._where(query.nodes, query.where), f"{column} IS NOT NULL"]
        if rows:
            conditions.insert(0, f"{'T1.' if len(query.nodes) > 1 else ''}rowid IN {rows}")
        return f"SELECT DISTINCT {column} FROM {self._from(query.nodes)} WHERE {' AND '.join(conditions)} LIMIT {limit}"

    # ---- parts

    def _column(self, nodes: tuple[Node, ...], ref: Ref, *, alias: str = "T") -> str:
        name = identifier(ref.column)
        return name if len(nodes) == 1 else f"{alias}{ref.node + 1}.{name}"

    def _reckoned(self, nodes: tuple[Node, ...], ref: Ref, *, alias: str = "T") -> str:
        """The column as it must stand to be compared, ordered or reckoned with."""
        column = self._column(nodes, ref, alias=alias)
        profile = self._roles.of(nodes[ref.node].table, ref.column)
        for value in profile.markers:
            if not isinstance(value, str) or value.strip():
                column = f"NULLIF({column}, {literal(value)})"
        if not profile.numeric_text:
            return column
        if profile.has_blanks:
            column = f"NULLIF(TRIM({column}), '')"  # a blank is no 0
        return f"CAST({column} AS {'INTEGER' if profile.whole else 'REAL'})"

    def _from(self, nodes: tuple[Node, ...], *, alias: str = "T") -> str:
        if len(nodes) == 1:
            return identifier(nodes[0].table)
        text = f"{identifier(nodes[0].table)} AS {alias}1"
        for index, node in enumerate(nodes[1:], start=1):
            on = " AND ".join(
                f"{alias}{node.parent + 1}.{identifier(ours)} = {alias}{index + 1}.{identifier(theirs)}"
                for ours, theirs in zip(node.columns, node.referred, strict=True)
            )
            text += f" JOIN {identifier(node.table)} AS {alias}{index + 1} ON {on}"
        return text

    def _aggregate(self, nodes: tuple[Node, ...], aggregate: Aggregate) -> str:
        if aggregate.ref is None:
            return "COUNT(*)"
        if aggregate.function == "count":
            return f"COUNT({'DISTINCT ' if aggregate.distinct else ''}{self._column(nodes, aggregate.ref)})"
        return f"{aggregate.function.upper()}({self._reckoned(nodes, aggregate.ref)})"

    def _condition(self, nodes: tuple[Node, ...], condition: Condition, *, alias: str = "T") -> str:
        if isinstance(condition, Linked):
            return self._linked(nodes, condition, alias=alias)
        if isinstance(condition, Missing):
            return f"{self._column(nodes, condition.ref, alias=alias)} IS {'NOT ' if condition.negated else ''}NULL"
        if isinstance(condition, Like):
            text = {"starts": f"{condition.text}%", "contains": f"%{condition.text}%", "ends": f"%{condition.text}"}
            return f"{self._column(nodes, condition.ref, alias=alias)} LIKE {literal(text[condition.where])}"
        if isinstance(condition, SameAs):
            column, table = self._column(nodes, condition.ref, alias=alias), nodes[condition.ref.node].table
            inner = f"SELECT {identifier(condition.ref.column)} FROM {identifier(table)}"
            return f"{column} = ({inner} WHERE {identifier(condition.by.column)} = {literal(condition.value)})"
        column = self._reckoned(nodes, condition.ref, alias=alias)
        as_text = self._roles.of(nodes[condition.ref.node].table, condition.ref.column).fixed_width

        def written(value: Value) -> str:
            return literal(str(value) if as_text else value)

        if isinstance(condition, Compare):
            return f"{column} {condition.op} {written(condition.value)}"
        if isinstance(condition, Between):
            return f"{column} BETWEEN {written(condition.low)} AND {written(condition.high)}"
        if isinstance(condition, OneOf):
            return f"{column} IN ({', '.join(written(value) for value in condition.values)})"
        if isinstance(condition, InYear):
            return f"strftime('%Y', {column}) = '{condition.year}'"
        source = (Node(nodes[condition.ref.node].table),)
        whole, table = self._reckoned(source, Ref(0, condition.ref.column)), identifier(source[0].table)
        if isinstance(condition, AgainstAverage):
            return f"{column} {'>' if condition.above else '<'} (SELECT AVG({whole}) FROM {table})"
        assert isinstance(condition, AtExtreme)
        return f"{column} = (SELECT {'MAX' if condition.highest else 'MIN'}({whole}) FROM {table})"

    def _linked(self, nodes: tuple[Node, ...], condition: Linked, *, alias: str) -> str:
        column = self._column(nodes, Ref(condition.node, condition.columns[0]), alias=alias)
        inner_alias = "S" if alias == "T" else "R"
        inner = self._column(condition.nodes, Ref(0, condition.referring[0]), alias=inner_alias)
        conditions = [self._condition(condition.nodes, part, alias=inner_alias) for part in condition.where]
        if condition.negated and self._roles.of(condition.nodes[0].table, condition.referring[0]).has_gaps:
            # NOT IN is never true beside a NULL.
            conditions.append(f"{inner} IS NOT NULL")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        source = self._from(condition.nodes, alias=inner_alias)
        return f"{column} {'NOT IN' if condition.negated else 'IN'} (SELECT {inner} FROM {source}{where})"

    def _where(self, nodes: tuple[Node, ...], conditions: tuple[Condition, ...]) -> list[str]:
        return [self._condition(nodes, condition) for condition in conditions]

    # ---- statements

    def _clauses(self, query: Query, columns: list[str], where: tuple[Condition, ...]) -> str:
        """SELECT to HAVING."""
        nodes = query.nodes
        sql = f"SELECT {'DISTINCT ' if query.distinct else ''}{', '.join(columns)} FROM {self._from(nodes)}"
        if where:
            sql += f" WHERE {' AND '.join(self._where(nodes, where))}"
        if query.grouped:
            keys = [self._column(nodes, ref) for ref in query.group_key or query.select]
            sql += f" GROUP BY {', '.join(keys)}"
        if query.having:
            having = query.having
            sql += f" HAVING {self._aggregate(nodes, having.aggregate)} {having.op} {literal(having.value)}"
        return sql

    def _order(self, query: Query) -> str:
        if query.order is None:
            return ""
        by = query.order.by
        text = self._aggregate(query.nodes, by) if isinstance(by, Aggregate) else self._reckoned(query.nodes, by)
        limit = f" LIMIT {query.limit}" if query.limit is not None else ""
        return f" ORDER BY {text}{' DESC' if query.order.descending else ' ASC'}{limit}"

    def _statement(self, query: Query) -> str:
        columns = [self._column(query.nodes, ref) for ref in query.select]
        columns += [self._aggregate(query.nodes, aggregate) for aggregate in query.aggregates]
        if query.cte:
            return self._cte(query, columns)
        if query.window:
            return self._window(query, columns)
        sql = self._clauses(query, columns, query.where)
        if query.combine:
            second = self._clauses(query, columns, (*query.where[:-1], query.combine.where))
            return f"{sql} {query.combine.op.upper()} {second}"
        return sql + self._order(query)

    def _cte(self, query: Query, columns: list[str]) -> str:
        assert query.cte is not None
        if query.cte.kind == "top":
            aggregate = query.cte.aggregate
            assert aggregate is not None
            if aggregate.ref is None:
                inner, function = columns[0], "COUNT(*)"
            else:
                inner = f"{self._reckoned(query.nodes, aggregate.ref)} AS amount"
                function = f"{aggregate.function.upper()}(amount)"
            step = self._clauses(query, [inner], query.where) + self._order(query)
            return f"WITH chosen AS ({step}) SELECT {function} FROM chosen"
        names = [identifier(ref.column) for ref in query.select]
        columns = [*columns[:-1], f"{columns[-1]} AS amount"]
        step = f"WITH per_group AS ({self._clauses(query, columns, query.where)})"
        if query.cte.kind == "average":
            return f"{step} SELECT AVG(amount) FROM per_group"
        shown = ", ".join([*names, "amount"])
        return f"{step} SELECT {shown} FROM per_group WHERE amount > (SELECT AVG(amount) FROM per_group)"

    def _window(self, query: Query, columns: list[str]) -> str:
        window, nodes = query.window, query.nodes
        assert window is not None
        if window.kind == "share":
            amount = self._aggregate(nodes, query.aggregates[-1])
            columns = [*columns, f"{amount} * 100.0 / SUM({amount}) OVER () AS percentage"]
            return self._clauses(query, columns, query.where) + self._order(query)
        assert window.ref is not None
        ref = self._reckoned(nodes, window.ref)
        partition = f"PARTITION BY {self._column(nodes, window.by)} " if window.by else ""
        if window.kind == "average":
            columns = [*columns, f"AVG({ref}) OVER ({partition.strip()}) AS average"]
            return self._clauses(query, columns, query.where) + self._order(query)
        order = f"ORDER BY {ref} {'DESC' if window.descending else 'ASC'}"
        ranked = f"RANK() OVER ({partition}{order}) AS place"
        if window.kind == "rank":
            return self._clauses(query, [*columns, ranked], query.where)
        names = ", ".join(identifier(ref.column) for ref in query.select)
        inner = self._clauses(query, [*columns, ranked], query.where)
        return f"SELECT {names} FROM ({inner}) AS ranked WHERE place = 1"


_SQLGLOT = {"sqlite": "sqlite", "postgresql": "postgres", "mysql": "mysql", "duckdb": "duckdb"}
