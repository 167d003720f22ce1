"""Identifiers in a schema's text."""

import re

# Words that SQLite, PostgreSQL or MySQL refuse as a bare name of a table or column.
RESERVED = frozenset(
    """add all alter and as asc between by case check collate column constraint create cross current_date
    current_time current_timestamp default delete desc distinct drop else end escape except exists false for foreign
    from full group having if in index inner insert intersect into is isnull join key left like limit natural not
    notnull null offset on or order outer primary references right select set table then to transaction true union
    unique update using values when where window with""".split()  # noqa: SIM905
)


def quoted(name: str) -> str:
    """Quote a name where SQL needs it.

    >>> quoted("city"), quoted("Free Meal Count (K-12)"), quoted("order")
    ('city', '"Free Meal Count (K-12)"', '"order"')
    """
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'
