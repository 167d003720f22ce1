"""How a model reads a question: schema, values, evidence and question, as token ids.

A format (``ddl``, ``m_schema``, ``codes``, ``brief``) is one file: a subclass of ``Prompt`` that writes a schema.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.schema import DIALECTS, Catalog, Column, Table
from tutelage.text2sql.database.schema_filter import ColumnName, columns_in, rank_columns, subset
from tutelage.text2sql.prompts import chat
from tutelage.text2sql.prompts.answer import answer_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Values of the database that match the question, best first, by (table, column).
Matches = Mapping[ColumnName, Sequence[str]]

SYSTEM = "You are an expert in {dialect} who answers questions about a database with one query."
REQUEST = "Answer with one {dialect} query in a ```sql block."
LONGEST_VALUE = 60  # characters; a longer sample tells a model no more about a column's form


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of each column a schema shows."""

    comments: bool
    samples: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of an example.

    Attributes:
        messages: The turns before the answer.
        prompt_ids: Up to where the assistant begins to answer.
        answer_ids: The answer and the token that ends it; empty for an example without SQL.
        dropped: Columns (``table.column``) that the schema filter left out so that the prompt fits.
        detail: What was shown of the columns that stayed.
        fits: Whether the prompt keeps to ``max_tokens``; where it does not, nothing was left to drop.
    """

    messages: list[chat.Message]
    prompt_ids: list[int]
    answer_ids: list[int]
    dropped: tuple[str, ...]
    detail: Detail
    fits: bool


class Prompt(ABC):
    """A way to put a question and its database before a model."""

    def __init__(
        self,
        *,
        template: chat.Template,
        comments: bool,
        samples: int,
        values: int,
        max_tokens: int,
        shuffle_tables: bool = False,
        drop_tables: float = 0.0,
    ) -> None:
        """Set what is shown.

        Args:
            template: How turns are marked: ``chatml`` (Qwen, SmolLM), the tokenizer's ``own``, or ``plain``.
            comments: Whether to show what the database says of its tables and columns.
            samples: How many of a column's frequent values are shown beside those that match the question.
            values: The most values shown of a column, matched ones first.
            max_tokens: Length of the prompt above which the schema loses detail, and then columns.
            shuffle_tables: In training, order tables and columns anew for each view of an example.
            drop_tables: In training, the probability that a table which the gold query does not use is left out.

        Raises:
            ConfigError: A number that makes no sense.
        """
        for key, number in (("samples", samples), ("values", values)):
            if number < 0:
                raise ConfigError(f"prompt.{key}", f"{number} is negative", "give 0 or more")
        if max_tokens < 1:
            raise ConfigError("prompt.max_tokens", f"{max_tokens} tokens hold no prompt", "give some hundreds at least")
        if not 0 <= drop_tables <= 1:
            raise ConfigError("prompt.drop_tables", f"{drop_tables} is no probability", "give a number from 0 to 1")
        self.template = template
        self.comments, self.samples, self.values = comments, samples, values
        self.max_tokens = max_tokens
        self.shuffle_tables, self.drop_tables = shuffle_tables, drop_tables

    @abstractmethod
    def schema(self, catalog: Catalog, *, matches: Matches, detail: Detail) -> str:
        """Write a database's schema."""

    def messages(
        self, example: Example, catalog: Catalog, *, matches: Matches, detail: Detail | None = None
    ) -> list[chat.Message]:
        """Write the turns before the answer. A system turn is always given: templates differ where there is none."""
        detail = detail or Detail(self.comments, self.samples)
        dialect = DIALECTS[catalog.dialect].display
        parts = [self.schema(catalog, matches=matches, detail=detail)]
        if example.evidence:
            parts.append(f"Evidence: {example.evidence}")
        parts.append(f"Question: {example.question}\n{REQUEST.format(dialect=dialect)}")
        return [
            {"role": "system", "content": SYSTEM.format(dialect=dialect)},
            {"role": "user", "content": "\n\n".join(parts)},
        ]

    def encode(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        example: Example,
        catalog: Catalog,
        *,
        matches: Matches,
        view: tuple[int, int] | None = None,
    ) -> Encoded:
        """Turn an example into token ids, with as much of the schema as fits.

        Detail goes first (samples, then comments), then columns, those least like the question before others.

        Args:
            tokenizer: The model's.
            example: Question, and SQL if there is to be an answer.
            catalog: Its database.
            matches: What ``values.ValueIndex.match`` found for the question.
            view: (seed, view) in training, of which shuffling and dropping are a function; None when answering.
        """
        chat.check_template(tokenizer, self.template)
        if view is not None:
            catalog = self._training_view(catalog, example, view)

        def write(shown: Catalog, detail: Detail) -> tuple[list[chat.Message], list[int]]:
            messages = self.messages(example, shown, matches=matches, detail=detail)
            return messages, chat.prompt_ids(tokenizer, messages, template=self.template)

        for detail in self._details():
            messages, prompt = write(catalog, detail)
            if len(prompt) <= self.max_tokens:
                break
        dropped: tuple[str, ...] = ()
        if len(prompt) > self.max_tokens:
            # In training the gold query's own columns stay: to ask for what the prompt hides would teach guessing.
            needed = columns_in(example.sql, catalog) if view is not None and example.sql else frozenset[ColumnName]()
            ranked = rank_columns(catalog, f"{example.question} {example.evidence}", matches=matches, needed=needed)
            kept = most_that_fit(
                len(ranked), lambda count: len(write(subset(catalog, ranked[:count]), detail)[1]) <= self.max_tokens
            )
            messages, prompt = write(subset(catalog, ranked[:kept]), detail)
            dropped = tuple(sorted(f"{table}.{column}" for table, column in ranked[kept:]))
        answer: list[int] = []
        if example.sql is not None:
            answer = chat.text_ids(tokenizer, answer_text(example.sql))
            answer.append(chat.end_token(tokenizer, self.template))
        return Encoded(messages, prompt, answer, dropped, detail, fits=len(prompt) <= self.max_tokens)

    def _details(self) -> list[Detail]:
        """From what is asked for down to bare names."""
        steps = [
            Detail(self.comments, self.samples),
            Detail(self.comments, min(self.samples, 1)),
            Detail(self.comments, 0),
            Detail(False, 0),
        ]
        return list(dict.fromkeys(steps))

    def _training_view(self, catalog: Catalog, example: Example, view: tuple[int, int]) -> Catalog:
        """Shuffle and thin out a schema, as a function of (seed, view, example id)."""
        rng = generator(*view, example.id)
        if self.drop_tables and example.sql:
            used = {table for table, _ in columns_in(example.sql, catalog)}
            thrown = rng.random(len(catalog.tables)) < self.drop_tables
            kept = {
                table.name for table, gone in zip(catalog.tables, thrown, strict=True) if table.name in used or not gone
            }
            # Where no table is named (a query that could not be read), nothing is left out.
            if used:
                catalog = subset(
                    catalog,
                    [
                        (table.name, column.name)
                        for table in catalog.tables
                        for column in table.columns
                        if table.name in kept
                    ],
                )
        if self.shuffle_tables:
            order = rng.permutation(len(catalog.tables))
            catalog = subset(
                catalog,
                [
                    (catalog.tables[t].name, catalog.tables[t].columns[c].name)
                    for t in order
                    for c in rng.permutation(len(catalog.tables[t].columns))
                ],
                reorder=True,
            )
        return catalog

    def shown_values(self, table: Table, column: Column, *, matches: Matches, detail: Detail) -> list[str]:
        """The values shown of a column as SQL literals: those that match the question first, then frequent ones."""
        matched = [literal(value) for value in matches.get((table.name, column.name), ())]
        frequent = [literal(value) for value in column.frequent if len(str(value)) <= LONGEST_VALUE]
        fresh = [value for value in dict.fromkeys(frequent) if value not in matched]
        return [*dict.fromkeys(matched), *fresh[: detail.samples]][: self.values]


def most_that_fit(count: int, fits: Callable[[int], bool]) -> int:
    """Find how many of ``count`` items fit, by bisection; at least 1, fit or not."""
    least, most = 1, count  # all of them are known not to fit
    while most - least > 1:
        middle = (least + most) // 2
        if fits(middle):
            least = middle
        else:
            most = middle
    return least


def literal(value: object) -> str:
    """Write a value as SQL would; line breaks become spaces, for a schema is read line by line."""
    if isinstance(value, str):
        return "'" + " ".join(value.split()).replace("'", "''") + "'"
    return str(value)


def comment_of(subject: Column | Table) -> str:
    """What is known of a table or column, on one line."""
    if isinstance(subject, Table):
        return " ".join(subject.comment.split())
    meaning = subject.description or subject.comment or subject.spoken_name
    return " ".join(f"{meaning} {subject.value_description}".split())
