"""Questions to one database, one after the other, with a model that was loaded once."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import DataError, RunError
from tutelage.text2sql.data.examples import Example, Source
from tutelage.text2sql.database.executor import Executor, Limits, Result
from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.inference.answer import Answer, Answerer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tutelage.text2sql.inference.generate import Engine
    from tutelage.text2sql.model.language_model import LanguageModel

# A person waits; and what does not fit on a screen is no answer.
LIMITS = Limits(seconds=60.0, rows=100_000)
MAX_QUESTION = 4_000  # characters


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """What can be asked: a finished run, opened, or a server.

    Attributes:
        model: In eval mode, on its device; None where a server answers.
        tokenizer: Measures prompts, and encodes them for the model.
        context: The most tokens that the model attends to; None where that is not known.
        engine: Answers.
        answerer: Of the run's own databases, with the prompt and the inference that it was scored with.
    """

    model: "LanguageModel | None"
    tokenizer: "PreTrainedTokenizerBase"
    context: int | None
    engine: "Engine"
    answerer: Answerer


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a question.

    Attributes:
        question: As asked; empty for a query that was typed.
        sql: The query.
        result: What it gave; its status tells whether it ran.
        answer: How the query was found; None for one that was typed.
    """

    question: str
    sql: str
    result: Result
    answer: Answer | None


class Session:
    """One database, one model, and the question that was asked last. Databases are only read."""

    def __init__(self, run: LoadedRun, *, source: Source, db_id: str, executor: Executor) -> None:
        """Keep the loaded run.

        Args:
            run: The model and how it was scored.
            source: Of the database, the run's own or another.
            db_id: The database.
            executor: The sandbox that queries run in.
        """
        # What fails gets one more chance, whatever the run's scores were taken with.
        own = run.answerer
        inference = replace(own.inference, repair_rounds=max(1, own.inference.repair_rounds))
        self._run = run
        self._answerer = Answerer(source, prompt=own.prompt, inference=inference, executor=executor, store=own.store)
        self._executor = executor
        self.database, self.db_id = source.databases[db_id], db_id
        self.catalog: Catalog = source.catalog(db_id)

    def ask(self, question: str, *, after: tuple[str, str] | None = None, executor: Executor | None = None) -> Reply:
        """Write a query for a question, and run it once.

        Args:
            question: In words.
            after: The question and the query that this one goes on from: "and of these, which …". The model is shown
                them as evidence. It was trained on questions that stand alone, so expect less.
            executor: Another sandbox to run it in; None for the session's own.

        Raises:
            DataError: The question is empty, or too long for the model.
            RunError: The model wrote no query.
        """
        text = question.strip()
        if not text or len(text) > MAX_QUESTION:
            what = f"{len(text):,} characters" if text else "nothing was asked"
            raise DataError("question", what, f"ask in words, in at most {MAX_QUESTION:,} characters")
        evidence = f"The question before was: {after[0]} Its query was: {after[1]}" if after is not None else ""
        example = Example("asked", self.db_id, text, None, evidence=evidence)
        tokenizer = self._run.tokenizer
        answerer = self._answerer if executor is None else self._answerer.changed(executor=executor)
        context, results = self._run.context, dict[str, Result]()
        encoded = answerer.check(tokenizer, [example], context=context)
        (answer,) = answerer.answer(
            self._run.engine, tokenizer, [example], context=context, encoded=encoded, results=results
        )
        if answer.unanswered:
            raise RunError("inference", answer.unanswered, "see to the server, and ask again")
        if not answer.sql:
            raise RunError("answer", "the model wrote no query", "ask in other words, or train longer")
        return Reply(answer.question, answer.sql, results[answer.sql], answer)

    def run_sql(self, sql: str, *, executor: Executor | None = None) -> Reply:
        """Run a query that was typed, in the session's sandbox or another."""
        return Reply("", sql, (executor or self._executor).run(self.database, sql), None)

    def schema(self) -> list[str]:
        """Describe the tables, a line each: columns with their types, and where keys lead."""
        lines = []
        for table in self.catalog.tables:
            leads = {key.columns[0]: f" → {key.referred_table}" for key in table.foreign_keys if len(key.columns) == 1}
            columns = [f"{column.name} {column.type}{leads.get(column.name, '')}".strip() for column in table.columns]
            rows = "" if table.num_rows is None else f" [{table.num_rows:,} rows]"
            lines.append(f"{table.name}{rows}: {', '.join(columns)}")
        return lines

    def why(self, answer: Answer | None) -> list[str]:
        """Tell how a query was found: values that matched, candidates with their votes, repairs, what was left out."""
        if answer is None:
            return ["This query was typed, not written by the model."]
        example = Example("asked", self.db_id, answer.question, None)
        lines = [
            f"{column[0]}.{column[1]} holds {', '.join(map(repr, values))}, which the question speaks of"
            for column, values in self._answerer.matches(example).items()
        ]
        if answer.dropped:
            lines.append(f"{len(answer.dropped)} columns were not shown to the model, to fit prompt.max_tokens")
        for number, candidate in enumerate(answer.candidates):
            chosen = "chosen" if number == answer.chosen else "not chosen"
            votes = f", {candidate.votes} votes" if candidate.votes else ""
            repair = f", repair {candidate.round}" if candidate.round else ""
            fate = f"{candidate.status}: {candidate.error}" if candidate.error else candidate.status or "not run"
            lines.append(f"{chosen}{votes}{repair} ({fate}): {candidate.sql}")
        return lines


def write_csv(path: Path, result: Result) -> int:
    """Write a result's rows.

    Returns:
        How many.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(result.columns)
            writer.writerows([plain(cell) for cell in row] for row in result.rows)
    except OSError as error:
        raise DataError("csv", f"cannot write {path} ({error.strerror})", "give another file") from None
    return len(result.rows)


def plain(cell: Any) -> Any:
    """Make a cell what JSON and CSV can hold: a blob is written in hexadecimal, NULL stays None."""
    return cell.hex() if isinstance(cell, bytes) else cell


def record(reply: Reply, *, rows: int) -> dict[str, Any]:
    """Write a reply as JSON values.

    Args:
        reply: The reply.
        rows: The most rows that are listed; ``num_rows`` counts all of them.
    """
    result = reply.result
    return {
        "question": reply.question,
        "sql": reply.sql,
        "status": result.status,
        "error": result.error,
        "columns": list(result.columns),
        "rows": [[plain(cell) for cell in row] for row in result.rows[:rows]],
        "num_rows": len(result.rows),
        "seconds": round(result.seconds, 4),
    }
