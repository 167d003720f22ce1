"""The tree of an offline question: what is asked, before it is SQL or English.

Every row before grouping is one row of the *anchor*, the first node: each further node hangs from another by a key
that leads to exactly one row. So a join never multiplies rows behind the question's back. The *subject* is the node
that the question is about: the anchor, or a node that the anchor leads to ("students that have a cat").
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from tutelage.text2sql.database.catalog import Value
from tutelage.text2sql.explore.pair import Json

Comparison = Literal["=", "!=", ">", "<", ">=", "<="]
Function = Literal["count", "sum", "avg", "min", "max"]


@dataclass(frozen=True, slots=True)
class Node:
    """A table in the join tree; ``columns`` of the node ``parent`` are its key to this one's ``referred``."""

    table: str
    parent: int = -1
    columns: tuple[str, ...] = ()
    referred: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ref:
    """A column of a node."""

    node: int
    column: str


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A function over a column; ``count`` without a column counts rows."""

    function: Function
    ref: Ref | None = None
    distinct: bool = False


@dataclass(frozen=True, slots=True)
class Compare:
    kind: Literal["compare"]
    ref: Ref
    op: Comparison
    value: Value


@dataclass(frozen=True, slots=True)
class Between:
    kind: Literal["between"]
    ref: Ref
    low: Value
    high: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    kind: Literal["one_of"]
    ref: Ref
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Like:
    kind: Literal["like"]
    ref: Ref
    where: Literal["starts", "contains", "ends"]
    text: str


@dataclass(frozen=True, slots=True)
class InYear:
    kind: Literal["in_year"]
    ref: Ref
    year: int


@dataclass(frozen=True, slots=True)
class Missing:
    kind: Literal["missing"]
    ref: Ref
    negated: bool


Simple: TypeAlias = Annotated[Compare | Between | OneOf | Like | InYear | Missing, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class AgainstAverage:
    """Above or below the average over the whole table."""

    kind: Literal["against_average"]
    ref: Ref
    above: bool


@dataclass(frozen=True, slots=True)
class AtExtreme:
    """At the highest or lowest value of the whole table."""

    kind: Literal["at_extreme"]
    ref: Ref
    highest: bool


@dataclass(frozen=True, slots=True)
class SameAs:
    """The same value as the row that ``by`` = ``value`` names."""

    kind: Literal["same_as"]
    ref: Ref
    by: Ref
    value: Value


@dataclass(frozen=True, slots=True)
class Linked:
    """Rows of a node that other rows lead to, or that none do; ``nodes`` is the other rows' own join tree."""

    kind: Literal["linked"]
    node: int
    columns: tuple[str, ...]  # of the node
    nodes: tuple[Node, ...]
    referring: tuple[str, ...]  # of the first of ``nodes``
    negated: bool
    where: tuple[Simple, ...]


Condition: TypeAlias = Annotated[
    Compare | Between | OneOf | Like | InYear | Missing | AgainstAverage | AtExtreme | SameAs | Linked,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, slots=True)
class Having:
    aggregate: Aggregate
    op: Comparison
    value: Value


@dataclass(frozen=True, slots=True)
class Order:
    by: Ref | Aggregate
    descending: bool


@dataclass(frozen=True, slots=True)
class Combine:
    """A set operation: the second arm has the first's tree, with ``where`` in place of its last condition."""

    op: Literal["union", "intersect", "except"]
    where: Simple


@dataclass(frozen=True, slots=True)
class Cte:
    """What is asked of the query, made into a named step.

    ``average``: the mean of the groups' aggregate; ``above``: the groups whose aggregate exceeds that mean;
    ``top``: ``aggregate`` over the few rows that order and limit leave.
    """

    kind: Literal["average", "above", "top"]
    aggregate: Aggregate | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """``rank`` by ``ref`` (within ``by``); ``average`` of ``ref`` within ``by`` beside each row; ``best``: the rows
    ranked first by ``ref`` within ``by``; ``share``: the groups' percentages of their total."""

    kind: Literal["rank", "average", "best", "share"]
    ref: Ref | None = None
    by: Ref | None = None
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Query:
    """A question as a tree. ``select`` are the columns listed, or the keys of the groups when ``grouped``."""

    nodes: tuple[Node, ...]
    select: tuple[Ref, ...]
    subject: int = 0
    aggregates: tuple[Aggregate, ...] = ()
    distinct: bool = False
    where: tuple[Condition, ...] = ()
    grouped: bool = False
    group_key: tuple[Ref, ...] = ()  # grouped by these where the columns shown need not be unique
    having: Having | None = None
    order: Order | None = None
    limit: int | None = None
    combine: Combine | None = None
    cte: Cte | None = None
    window: Window | None = None


_QUERY = TypeAdapter(Query)


def to_json(query: Query) -> dict[str, Json]:
    """Write a tree as JSON; what stands at its default is left out."""
    written: dict[str, Json] = _QUERY.dump_python(query, mode="json", exclude_defaults=True)
    return written


def from_json(state: dict[str, Json]) -> Query:
    """Read a tree back."""
    return _QUERY.validate_python(state)
