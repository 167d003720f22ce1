"""What kinds of SQL a query is made of, to say which of them a system gets wrong."""

from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

_KINDS: tuple[tuple[str, tuple[type[exp.Expr], ...]], ...] = (
    ("JOIN", (exp.Join,)),
    ("GROUP BY", (exp.Group,)),
    ("HAVING", (exp.Having,)),
    ("ORDER BY", (exp.Order,)),
    ("LIMIT", (exp.Limit,)),
    ("DISTINCT", (exp.Distinct,)),
    ("UNION, INTERSECT, EXCEPT", (exp.SetOperation,)),
    ("aggregate", (exp.AggFunc,)),
    ("LIKE", (exp.Like,)),
    ("OR", (exp.Or,)),
    ("NOT, <>", (exp.Not, exp.NEQ)),
    ("BETWEEN", (exp.Between,)),
    ("arithmetic", (exp.Add, exp.Sub, exp.Mul, exp.Div)),
    ("CASE, IIF", (exp.Case, exp.If)),
    ("CAST", (exp.Cast,)),
    ("WITH", (exp.With,)),
    ("window", (exp.Window,)),
)
OPERATORS: tuple[str, ...] = ("one table, no operator", *(name for name, _ in _KINDS), "subquery", "two JOINs or more")
UNPARSED = "cannot be parsed"


@lru_cache(maxsize=16_384)
def operators_of(sql: str) -> tuple[str, ...]:
    """Name the kinds of SQL that are in a query, in the order of `OPERATORS`.

    >>> operators_of("SELECT count(*) FROM a JOIN b ON a.id = b.id WHERE b.x IN (SELECT x FROM c)")
    ('JOIN', 'aggregate', 'subquery')
    >>> operators_of("SELECT name FROM a WHERE x = 1")
    ('one table, no operator',)
    """
    try:
        tree = sqlglot.parse_one(sql, dialect="sqlite")
    except (SqlglotError, RecursionError):
        return (UNPARSED,)
    found = [name for name, kinds in _KINDS if tree.find(*kinds) is not None]
    selects = sum(1 for _ in tree.find_all(exp.Select)) - sum(1 for _ in tree.find_all(exp.SetOperation))
    if selects - sum(1 for _ in tree.find_all(exp.CTE)) > 1:
        found.append("subquery")
    if sum(1 for _ in tree.find_all(exp.Join)) > 1:
        found.append("two JOINs or more")
    return tuple(found) or (OPERATORS[0],)
