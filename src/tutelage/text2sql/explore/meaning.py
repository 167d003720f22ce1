"""Where a query contradicts its question, or asks for nothing that could be asked, by words and by the tree alone.

This sees what a reader sees at once: "highest" over MIN, "less than 5" over ``> 5``, a negation on one side only, a
condition that is always true, a join that ties nothing. It does not prove that a pair is right.
"""

import math
import re
from collections.abc import Iterator

from sqlglot import exp

# Words of which each side says the opposite of the other; what stands for neither is no contradiction.
_HIGH = {"highest", "maximum", "largest", "greatest", "biggest", "most"}
_LOW = {"lowest", "minimum", "smallest", "least", "fewest"}
_MORE = (
    r"(?:more|greater|higher|larger|bigger|older|longer|heavier|taller|later) than|above|over|exceed(?:s|ing)?|after"
)
_LESS = r"(?:less|fewer|lower|smaller|younger|shorter|lighter|earlier) than|below|under|before"
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|without|except|excluding|neither|nor|cannot|lack(?:s|ing)?|other than|"
    r"differ(?:s|ent)? from|"
    r"outside|but|un\w{3,}|in(?:active|valid|complete)|non\w*)\b|n['’]t\b"
)
_PLAIN_NEGATION = re.compile(
    r"\b(?:is|are|was|were|do|does|did|has|have) not\b|\bnot (?:in|from|at|of|by|with)\b|n['’]t\b|\bnever\b"
)
_NO_VALUES = {"0", "f", "n", "no", "false"}
_RANDOM = {"random", "randomblob", "rand", "uuid", "now"}


def contradiction(question: str, tree: exp.Expr) -> str | None:
    """Say where a query does not do what its question says; None where nothing is seen."""
    text = " ".join(question.lower().split())
    words = set(re.findall(r"[a-z]+", re.sub(r"\bat (?:most|least)\b|\bmost recent(?:ly)?\b", "", text)))
    return (
        _wrong_extreme(words, tree)
        or _wrong_aggregate(words, tree)
        or _wrong_order(words, tree)
        or _wrong_comparison(text, tree)
        or _wrong_negation(text, tree)
    )


def _wrong_extreme(words: set[str], tree: exp.Expr) -> str | None:
    high, low = bool(words & _HIGH), bool(words & _LOW)
    if high == low:
        return None
    has_max, has_min = tree.find(exp.Max) is not None, tree.find(exp.Min) is not None
    limited = [
        order for order in tree.find_all(exp.Order) if order.parent is not None and order.parent.args.get("limit")
    ]
    ends = [bool(key.args.get("desc")) for order in limited for key in order.expressions[:1]]
    if high and not has_max and not any(ends) and (has_min or ends):
        return "the question asks for the highest, the query for the lowest"
    if low and not has_min and not (ends and not all(ends)) and (has_max or ends):
        return "the question asks for the lowest, the query for the highest"
    return None


def _wrong_aggregate(words: set[str], tree: exp.Expr) -> str | None:
    average, total = tree.find(exp.Avg) is not None, tree.find(exp.Sum, exp.Count) is not None
    if words & {"average", "mean"} and total and not average and tree.find(exp.Div, exp.Window, exp.CTE) is None:
        return "the question asks for an average, the query for a sum or a count"
    if words & {"total", "sum"} and not words & {"average", "mean"} and average and not total:
        return "the question asks for a sum, the query for an average"
    return None


def _wrong_order(words: set[str], tree: exp.Expr) -> str | None:
    order = tree.args.get("order")
    if order is None:
        return None
    down = [bool(key.args.get("desc")) for key in order.expressions]
    rising, falling = bool(words & {"ascending", "increasing"}), bool(words & {"descending", "decreasing"})
    if rising and not falling and all(down):
        return "the question asks for an ascending order"
    if falling and not rising and not any(down):
        return "the question asks for a descending order"
    return None


def _wrong_comparison(text: str, tree: exp.Expr) -> str | None:
    for node in tree.find_all(exp.GT, exp.GTE, exp.LT, exp.LTE):
        left, right = node.left, node.right
        if not isinstance(right, exp.Literal) or isinstance(left, exp.Literal):
            continue
        number = re.escape(right.this)
        if right.is_number and 1000 <= float(right.this) < math.inf and float(right.this) == int(float(right.this)):
            number = rf"(?:{number}|{int(float(right.this)):,})"
        more = isinstance(node, exp.GT | exp.GTE)
        # The word that stands nearest before the number; "not more than" is the other side's business.
        words = rf"\b(?:(?P<more>{_MORE})|(?P<less>{_LESS})) (?:\w+ ){{0,2}}?['\"$]?{number}\b"
        said = list(re.finditer(rf"(?P<not>\b(?:not|no) )?{words}", text))
        sides = {bool(found["more"]) != bool(found["not"]) for found in said}
        if len(sides) == 1 and sides != {more}:
            return f"the question and the query are on different sides of {right.this}"
    return None


def _wrong_negation(text: str, tree: exp.Expr) -> str | None:
    negated = tree.find(exp.Not, exp.NEQ, exp.Except) is not None
    shown = any(isinstance(node.parent, exp.Not) for node in tree.find_all(exp.Is))  # "that have a date"
    plain = [str(literal.this).lower() for literal in tree.find_all(exp.Literal)]
    if negated and not shown and not _NEGATION.search(text):
        return "the query negates, the question does not"
    softened = negated or tree.find(exp.Is, exp.LT, exp.LTE, exp.GT, exp.GTE) or _NO_VALUES & {*plain}
    if not softened and _PLAIN_NEGATION.search(_without_quotes(text)):
        return "the question negates, the query does not"
    return None


def _without_quotes(text: str) -> str:
    return re.sub(r"'[^']*'(?!\w)|\"[^\"]*\"", "", text)


def idle_part(tree: exp.Expr) -> str | None:
    """Name a part that no question asks for: a condition without a column, a join that ties nothing, chance."""
    for node in tree.find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE):
        if node.left == node.right or not (node.find(exp.Column) or node.find(exp.Star) or node.find(exp.Subquery)):
            return f"{node.sql(dialect='sqlite')} is the same for every row"
    for boolean in tree.find_all(exp.Or, exp.And, exp.Where):
        if any(isinstance(part, exp.Literal | exp.Boolean) for part in boolean.iter_expressions()):
            return f"{boolean.sql(dialect='sqlite')} holds a condition without a column"
    for either in tree.find_all(exp.Or):
        if _always_true(either):
            return f"{either.sql(dialect='sqlite')} is true for every row"
    if tree.find(exp.Rand, exp.CurrentDate, exp.CurrentTimestamp, exp.CurrentTime):
        return "another run gives another answer"
    for function in tree.find_all(exp.Anonymous):
        if str(function.this).lower() in _RANDOM:
            return f"{function.this}() gives another answer in another run"
    if any(str(text.this).lower() == "now" for text in tree.find_all(exp.Literal) if text.find_ancestor(exp.Func)):
        return "'now' gives another answer in another run"
    for select in tree.find_all(exp.Select):
        if loose := _untied(select):
            return f"nothing ties {loose} to the other tables"
    return None


def _always_true(either: exp.Or) -> bool:
    """Whether a disjunction holds a condition and its negation: ``x IS NULL OR x IS NOT NULL``."""
    parts = [part.unnest() for part in either.flatten()]
    negated = [part.this.unnest() for part in parts if isinstance(part, exp.Not)]
    negated += [exp.EQ(this=part.this, expression=part.expression) for part in parts if isinstance(part, exp.NEQ)]
    return any(part in negated for part in parts)


def _one_row_steps(select: exp.Select) -> set[str]:
    """The common table expressions in sight that always have one row: joined to all rows, each adds one value."""
    found: set[str] = set()
    node: exp.Expr | None = select
    while node is not None:
        clause = node.args.get("with_")
        for step in clause.expressions if clause is not None else ():
            query = step.this
            # Neither groups nor a set operation, and nothing beside aggregates.
            if isinstance(query, exp.Select) and not query.args.get("group") and _aggregates_alone(query):
                found.add(step.alias_or_name.lower())
        node = node.parent
    return found


def _aggregates_alone(select: exp.Select) -> bool:
    """Whether all that a query shows is reckoned from its rows together: no window, no aggregate of a subquery."""
    return all(
        any(
            part.find_ancestor(exp.Select) is select and not isinstance(part.parent, exp.Window)
            for part in shown.find_all(exp.AggFunc)
        )
        for shown in select.expressions
    )


def _untied(select: exp.Select) -> str | None:
    """A table that no condition ties to the others of its FROM."""
    source = select.args.get("from_")
    parts = [source.this] if source is not None else []
    parts += [join.this for join in select.args.get("joins") or ()]
    one_row = _one_row_steps(select)
    parts = [part for part in parts if not (isinstance(part, exp.Table) and part.name.lower() in one_row)]
    if len(parts) < 2 or not all(isinstance(part, exp.Table) for part in parts):
        return None  # CROSS JOIN (SELECT AVG(…) …) adds one value
    if any(join.args.get("using") or join.method == "NATURAL" for join in select.args.get("joins") or ()):
        return None
    group = {part.alias_or_name.lower(): part.alias_or_name.lower() for part in parts}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for left, right in _ties(select):
        if left in group and right in group:
            group[root(left)] = root(right)
    first = parts[0].alias_or_name.lower()
    return next((name for name in group if root(name) != root(first)), None)


def _ties(select: exp.Select) -> Iterator[tuple[str, str]]:
    """Pairs of tables of which one condition compares columns."""
    conditions = [join.args["on"] for join in select.args.get("joins") or () if join.args.get("on") is not None]
    if (where := select.args.get("where")) is not None:
        conditions.append(where.this)
    for condition in conditions:
        for node in condition.find_all(exp.Predicate):
            tables = [column.table.lower() for column in node.find_all(exp.Column) if column.table]
            yield from ((tables[0], other) for other in tables[1:] if other != tables[0])
