"""The database graph as SVG: a box a table, a line a foreign key, columns shaded by how often they are taught."""

from collections import deque
from collections.abc import Mapping
from html import escape
from math import ceil, sqrt

from tutelage.text2sql.database.schema import Catalog, Table

MAX_TABLES = 40
MAX_COLUMNS = 24
_WIDTH, _ROW, _GAP_X, _GAP_Y, _CHARACTERS = 176, 17, 60, 24, 24


def draw_graph(catalog: Catalog, taught: Mapping[tuple[str, str], int]) -> str:
    """Draw the tables that have the most keys, at most ``MAX_TABLES``.

    Args:
        catalog: The database.
        taught: How many pairs use a (table, column); what is not there was never reached.
    """
    tables = _nearby_together(catalog)
    places: dict[str, tuple[int, int]] = {}  # a table's upper left corner
    num_stacks = max(1, ceil(sqrt(len(tables))))
    heights = [0] * num_stacks
    for table in tables:
        stack = heights.index(min(heights))
        places[table.name] = (stack * (_WIDTH + _GAP_X), heights[stack])
        heights[stack] += (len(_shown(table)) + 1) * _ROW + _GAP_Y
    most = max(taught.values(), default=1)
    lines = [
        _line(places, tables, (key.table, here), (key.referred_table, there), key.inferred)
        for key in catalog.foreign_keys
        if key.table in places and key.referred_table in places
        for here, there in zip(key.columns, key.referred_columns, strict=True)
    ]
    boxes = [_box(table, places[table.name], taught, most) for table in tables]
    width, height = num_stacks * (_WIDTH + _GAP_X), max(heights, default=0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-30 -4 {width} {height + 8}" '
        f'font-family="system-ui, sans-serif" font-size="11">{"".join(lines)}{"".join(boxes)}</svg>'
    )


def _nearby_together(catalog: Catalog) -> list[Table]:
    """Order tables so that joined ones follow each other, from those with the most keys on."""
    joined: dict[str, set[str]] = {table.name: set() for table in catalog.tables}
    for key in catalog.foreign_keys:
        joined[key.table].add(key.referred_table)
        joined[key.referred_table].add(key.table)
    ranked = sorted(joined, key=lambda name: -len(joined[name]))
    order: dict[str, None] = {}
    for start in ranked:
        queue = deque([start])
        while queue:
            name = queue.popleft()
            if name not in order:
                order[name] = None
                queue.extend(sorted(joined[name] - order.keys()))
    by_name = {table.name: table for table in catalog.tables}
    return [by_name[name] for name in order][:MAX_TABLES]


def _shown(table: Table) -> list[str]:
    names = [column.name for column in table.columns]
    return names if len(names) <= MAX_COLUMNS else [*names[: MAX_COLUMNS - 1], f"… {len(names) - MAX_COLUMNS + 1} more"]


def _cut(text: str) -> str:
    return escape(text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…")


def _box(table: Table, place: tuple[int, int], taught: Mapping[tuple[str, str], int], most: int) -> str:
    x, y = place
    parts = [
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_ROW}" fill="#2b4c7e"/>'
        f'<text x="{x + 6}" y="{y + 12}" fill="#fff" font-weight="600">{_cut(table.name)}</text>'
    ]
    for row, name in enumerate(_shown(table), start=1):
        count = taught.get((table.name, name), 0)
        # A root: most columns are taught far less often than the most common one.
        shade = f"rgba(43,124,76,{0.1 + 0.5 * sqrt(count / most):.2f})" if count else "#f3f3f3"
        weight = ' font-weight="600"' if name in table.primary_key else ""
        parts.append(
            f'<rect x="{x}" y="{y + row * _ROW}" width="{_WIDTH}" height="{_ROW}" fill="{shade}" stroke="#ddd"/>'
            f'<text x="{x + 6}" y="{y + row * _ROW + 12}"{weight}>{_cut(name)}<title>{count} pairs</title></text>'
        )
    return "".join(parts)


def _line(
    places: Mapping[str, tuple[int, int]],
    tables: list[Table],
    here: tuple[str, str],
    there: tuple[str, str],
    inferred: bool,
) -> str:
    rows = {table.name: _shown(table) for table in tables}

    def row(end: tuple[str, str]) -> int:
        shown = rows[end[0]]
        place = shown.index(end[1]) if end[1] in shown else len(shown) - 1
        return places[end[0]][1] + (place + 1) * _ROW + _ROW // 2

    x1, x2 = places[here[0]][0], places[there[0]][0]
    if x1 < x2:
        x1 += _WIDTH
    elif x2 < x1:
        x2 += _WIDTH
    # Within one stack the line bows out to the left.
    bend1, bend2 = (-26, -26) if x1 == x2 else (30, -30) if x1 < x2 else (-30, 30)
    dashes = ' stroke-dasharray="4 3"' if inferred else ""
    y1, y2 = row(here), row(there)
    return f'<path d="M{x1},{y1} C{x1 + bend1},{y1} {x2 + bend2},{y2} {x2},{y2}" fill="none" stroke="#999"{dashes}/>'
