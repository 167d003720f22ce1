"""How a model reads a question: schema, values, evidence and question, as token ids.

The schema comes first and is a function of the database (in training: of the view as well); what depends on the
question comes after it. So all questions about a database begin with the same tokens, which training
(``training/packing.py``) and answering (``inference/generate.py``) compute once.

A format (``ddl``, ``m_schema``, ``codes``, ``brief``) is one file: a subclass of ``Prompt`` that writes a schema.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.schema import DIALECTS, Catalog, Column, Table
from tutelage.text2sql.database.schema_filter import ColumnName, columns_in, rank_columns, subset
from tutelage.text2sql.database.sql_text import identifier
from tutelage.text2sql.prompts import chat
from tutelage.text2sql.prompts.answer import answer_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Values of the database that match the question, best first, by (table, column).
Matches = Mapping[ColumnName, Sequence[str]]

SYSTEM = "You are an expert in {dialect} who answers questions about a database with one query."
MATCHED = "Values of the database that match the question:"
REQUEST = "Answer with one {dialect} query in a ```sql block."
# Tokens that the schema leaves free for values, evidence and question, and the most of max_tokens that these may be:
# how much detail a schema shows must not depend on the question.
ROOM, ROOM_SHARE = 256, 4
LONGEST_VALUE = 60  # characters; a longer sample tells a model no more about a column's form


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of each column a schema shows."""

    comments: bool
    samples: int


@dataclass(frozen=True, slots=True)
class View:
    """Names the version of a database's schema that a group of training examples sees in an epoch.

    Attributes:
        seed: The run's.
        epoch: Counted from 0.
        group: Names the group, by the id of its first example.
    """

    seed: int
    epoch: int
    group: str


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
        values: Literal["after", "inline"] = "after",
        max_values: int,
        max_tokens: int,
        shuffle_tables: bool = False,
        drop_tables: float = 0.0,
    ) -> None:
        """Set what is shown.

        Args:
            template: How turns are marked: ``chatml`` (Qwen, SmolLM), the tokenizer's ``own``, or ``plain``.
            comments: Whether to show what the database says of its tables and columns.
            samples: How many of a column's frequent values the schema shows.
            values: Where values that match the question are shown: ``after`` the schema, so that questions about a
                database share all tokens of its schema; or ``inline``, in their columns, before the frequent ones.
            max_values: The most values shown of a column.
            max_tokens: Length of the prompt above which the schema loses detail, and then columns.
            shuffle_tables: In training, order tables and columns anew for each view.
            drop_tables: In training, the probability that a table which no gold query of the group uses is left out.

        Raises:
            ConfigError: A setting that makes no sense.
        """
        if values not in ("after", "inline"):
            raise ConfigError(
                "prompt.values",
                f"{values!r} is not a place for values",
                "give after or inline; how many values of a column are shown is prompt.max_values",
            )
        for key, number in (("samples", samples), ("max_values", max_values)):
            if number < 0:
                raise ConfigError(f"prompt.{key}", f"{number} is negative", "give 0 or more")
        if max_tokens < 1:
            raise ConfigError(
                "prompt.max_tokens", f"{max_tokens} tokens are too few for a prompt", "give some hundreds at least"
            )
        if not 0 <= drop_tables <= 1:
            raise ConfigError("prompt.drop_tables", f"{drop_tables} is not a probability", "give a number from 0 to 1")
        self.template = template
        self.comments, self.samples, self.values, self.max_values = comments, samples, values, max_values
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
        parts = [self.database(catalog, matches=matches, detail=detail)]
        if example.evidence:
            parts.append(f"Evidence: {example.evidence}")
        parts.append(f"Question: {example.question}\n{REQUEST.format(dialect=dialect)}")
        return [
            {"role": "system", "content": SYSTEM.format(dialect=dialect)},
            {"role": "user", "content": "\n\n".join(parts)},
        ]

    def database(self, catalog: Catalog, *, matches: Matches, detail: Detail) -> str:
        """Write the schema, and the values that match a question where ``values`` says."""
        if self.values == "inline":
            return self.schema(catalog, matches=matches, detail=detail)
        schema = self.schema(catalog, matches={}, detail=detail)
        found = self._matched(catalog, matches)
        return "\n\n".join([schema, "\n".join([MATCHED, *found])]) if found else schema

    def _matched(self, catalog: Catalog, matches: Matches) -> list[str]:
        """A line for each shown column with values that match the question, as SQL names and literals."""
        lines = []
        spell = partial(identifier, dialect=catalog.dialect)
        for table in catalog.tables:
            for column in table.columns:
                values = list(dict.fromkeys(literal(value) for value in matches.get((table.name, column.name), ())))
                if values := values[: self.max_values]:
                    lines.append(f"{spell(table.name)}.{spell(column.name)}: {', '.join(values)}")
        return lines

    def encode(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        example: Example,
        catalog: Catalog,
        *,
        matches: Matches,
        training: bool = False,
        longest: int | None = None,
    ) -> Encoded:
        """Turn an example into token ids, with as much of the schema as fits.

        Detail goes first (samples, then comments), and as a function of the catalog, so that questions about it keep
        a common beginning. Where a prompt is still too long, the question alone decides: its schema loses more
        detail, then columns, those least like the question before others.

        Args:
            tokenizer: The model's.
            example: Question, and SQL if there is to be an answer.
            catalog: Its database, or in training a view of it (``training_view``).
            matches: What ``values.ValueIndex.match`` found for the question.
            training: Whether the gold query's own columns must stay: to ask for what a prompt hides teaches guessing.
            longest: The most tokens of prompt and answer together; None for no limit but ``max_tokens``.
        """
        chat.check_template(tokenizer, self.template)

        def write(shown: Catalog, detail: Detail) -> tuple[list[chat.Message], list[int]]:
            messages = self.messages(example, shown, matches=matches, detail=detail)
            return messages, chat.prompt_ids(tokenizer, messages, template=self.template)

        answer: list[int] = []
        if example.sql is not None:
            answer = chat.text_ids(tokenizer, answer_text(example.sql))
            answer.append(chat.end_token(tokenizer, self.template))
        most = self.max_tokens if longest is None else min(self.max_tokens, longest - len(answer))
        details = self._details()
        messages, prompt = write(catalog, detail := details[0])
        room = min(ROOM, self.max_tokens // ROOM_SHARE)
        if len(prompt) > most - room:
            if self.values == "after":
                details = self._details_that_fit(tokenizer, catalog, room=room)
            for detail in details:
                messages, prompt = write(catalog, detail)
                if len(prompt) <= most:
                    break
        dropped: tuple[str, ...] = ()
        if len(prompt) > most:
            needed = columns_in(example.sql, catalog) if training and example.sql else frozenset[ColumnName]()
            ranked = rank_columns(catalog, f"{example.question} {example.evidence}", matches=matches, needed=needed)
            kept = most_that_fit(
                len(ranked), lambda count: len(write(subset(catalog, ranked[:count]), detail)[1]) <= most
            )
            messages, prompt = write(subset(catalog, ranked[:kept]), detail)
            dropped = tuple(sorted(f"{table}.{column}" for table, column in ranked[kept:]))
        return Encoded(messages, prompt, answer, dropped, detail, fits=len(prompt) <= most)

    def _details_that_fit(self, tokenizer: "PreTrainedTokenizerBase", catalog: Catalog, *, room: int) -> list[Detail]:
        """The details from the first on with which a schema leaves ``room`` tokens; the last where none does."""
        details = self._details()
        nothing = Example("", catalog.db_id, "", None)
        while len(details) > 1:
            messages = self.messages(nothing, catalog, matches={}, detail=details[0])
            if len(chat.prompt_ids(tokenizer, messages, template=self.template)) <= self.max_tokens - room:
                break
            details = details[1:]
        return details

    def _details(self) -> list[Detail]:
        """From what is asked for down to bare names."""
        steps = [
            Detail(self.comments, self.samples),
            Detail(self.comments, min(self.samples, 1)),
            Detail(self.comments, 0),
            Detail(False, 0),
        ]
        return list(dict.fromkeys(steps))

    def training_view(self, catalog: Catalog, *, db_id: str, sqls: Sequence[str | None], view: View) -> Catalog:
        """Shuffle and thin out a schema, as a function of (seed, epoch, db_id, group).

        Args:
            catalog: The database.
            db_id: Its name.
            sqls: The group's gold queries, whose tables all stay.
            view: Names the version.
        """
        rng = generator(view.seed, view.epoch, db_id, view.group)
        if self.drop_tables:
            used = [{table for table, _ in columns_in(sql, catalog)} for sql in sqls if sql]
            thrown = rng.random(len(catalog.tables)) < self.drop_tables
            # Where a query names no table (it could not be read), nothing is left out.
            if used and all(used):
                spared = frozenset[str]().union(*used)
                catalog = subset(
                    catalog,
                    [
                        (table.name, column.name)
                        for table, gone in zip(catalog.tables, thrown, strict=True)
                        for column in table.columns
                        if table.name in spared or not gone
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
        """The values that a schema shows of a column, as SQL literals: ``matches`` first, then frequent ones."""
        matched = [literal(value) for value in matches.get((table.name, column.name), ())]
        frequent = [literal(value) for value in column.frequent if len(str(value)) <= LONGEST_VALUE]
        fresh = [value for value in dict.fromkeys(frequent) if value not in matched]
        return [*dict.fromkeys(matched), *fresh[: detail.samples]][: self.max_values]


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
