"""Whether a query shows what its question asks to see: "names and salaries" of a query without salaries."""

import re

from sqlglot import exp

from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.explore.spoken import named_columns, resolve
from tutelage.text2sql.explore.words import phrase, stem

_ASKED = re.compile(
    r"^\s*(?:please\s+)?(?:what (?:are|is)|list|show|give|find|report|return|display|tell me)\b(.*?)\b(?:of|for|from)\b"
)
# Said of anything, so that they speak of no column by themselves.
_COMMON_WORDS = (
    "all", "average", "both", "code", "count", "date", "day", "different", "distinct", "earliest", "full", "greatest",
    "group", "highest", "id", "key", "largest", "latest", "longest", "lowest", "maximum", "mean", "minimum", "month",
    "name", "number", "order", "percentage", "rank", "record", "row", "share", "shortest", "smallest", "sum", "time",
    "title", "top", "total", "type", "unique", "value", "year",
)  # fmt: skip
_COMMON = frozenset(map(stem, _COMMON_WORDS))


def not_shown(question: str, tree: exp.Query, catalog: Catalog) -> str | None:
    """Find a column that the question asks to see and that the query does not use at all.

    Args:
        question: As a person would read it.
        tree: The query, qualified against the catalog.
        catalog: What it was qualified against.
    """
    asked = _ASKED.match(re.sub(r"'[^']*'|\"[^\"]*\"", "", question.casefold()))
    if not asked:
        return None
    words = {stem(word) for word in re.findall(r"\w+", asked[1])} - _COMMON
    used = {(column.table, column.name) for node in tree.find_all(exp.Column) if (column := resolve(node, catalog))}
    explained: set[str] = set()
    for column in named_columns(tree, catalog):
        for text in (phrase(column.name), column.spoken_name, column.description, column.comment, column.table):
            explained |= {stem(word) for word in re.findall(r"[a-z]+", text.lower())}
    tables = {table.name.casefold() for table in tree.find_all(exp.Table)}
    for table in catalog.tables:
        explained |= {stem(word) for word in phrase(table.name).lower().split()}
    for table in catalog.tables:
        for column in table.columns if table.name.casefold() in tables else ():
            own = {stem(word) for word in phrase(column.name).lower().split()}
            if (table.name, column.name) not in used and own - _COMMON and own <= words and not own & explained:
                return f"{column.name} is asked for and not used"
    return None
