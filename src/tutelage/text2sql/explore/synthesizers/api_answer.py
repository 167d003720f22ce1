"""Reading what a model answered: JSON of a known shape, or the reason why it is none; a question; pairs as text."""

import json
import re
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tutelage.text2sql.api.journal import Reply
from tutelage.text2sql.explore.pair import Json, Operator
from tutelage.text2sql.prompts.answer import sql_of

Item = TypeVar("Item", bound=BaseModel)
Fault = Literal["empty", "cut", "prose", "half_json", "schema"]


class _Strict(BaseModel):
    # Servers that enforce a schema want every object closed.
    model_config = ConfigDict(extra="forbid")


class Asked(_Strict):
    """A question and its SQL."""

    question: str
    sql: str


class Extended(Asked):
    """A question that does one thing more."""

    operator: Operator


class Meaning(_Strict):
    """What a column means."""

    column: str
    meaning: str


class Begun(_Strict):
    """The answer of semantic exploration."""

    meanings: list[Meaning]
    pairs: list[Asked]


class Continued(_Strict):
    """The answer of structure-guided generation and of progressive rewriting."""

    pairs: list[Extended]


class Unusable(Exception):
    """An answer that cannot be read."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault)


def format_of(kind: Literal["json_schema", "json_object", "text"], answer: type[BaseModel]) -> Json:
    """Make the parameter that asks a server to hold the model to a shape; None asks for nothing."""
    match kind:
        case "json_schema":
            schema: dict[str, Json] = {
                "name": answer.__name__.lower(),
                "strict": True,
                "schema": answer.model_json_schema(),
            }
            return {"type": "json_schema", "json_schema": schema}
        case "json_object":
            return {"type": "json_object"}
        case "text":
            return None


def read_object(reply: Reply, answer: type[BaseModel]) -> dict[str, Json]:
    """Find the JSON object in an answer; fences around it and thoughts before it are passed over.

    Raises:
        Unusable: There is none, or only the beginning of one, or its keys are not those of the answer.
    """
    text = reply.text.rpartition("</think>")[2].strip()
    was_cut = reply.finish_reason == "length"
    if not text:
        raise Unusable("cut" if was_cut else "empty")
    if fenced := re.search(r"```(?:json)?\s*(\{.*?\})\s*```", text, re.DOTALL):
        text = fenced[1]
    start = text.find("{")
    if start < 0:
        raise Unusable("cut" if was_cut else "prose")
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (json.JSONDecodeError, RecursionError):
        raise Unusable("cut" if was_cut else "half_json") from None
    if not all(isinstance(found.get(name), list) for name in answer.model_fields):
        raise Unusable("schema")
    assert isinstance(found, dict)  # it begins with a brace
    return found


def read_list(listed: Json, item: type[Item]) -> tuple[list[Item], int]:
    """Read the items of a list one by one, so that a bad one does not spoil the others.

    Returns:
        The good ones in their order, and how many were bad.
    """
    assert isinstance(listed, list)
    good: list[Item] = []
    for entry in listed:
        try:
            good.append(item.model_validate(entry))
        except ValidationError:
            continue
    return good, len(listed) - len(good)


_QUOTES = "\"'“”‘’`*"
_ASKED = r"^[\W\d]*question[\W\d]*:"  # "Question:", "2. **Question 2:**"
_PAIR = re.compile(
    rf"{_ASKED}\s*(?P<question>\S[^\n]*)(?P<rest>.*?)(?={_ASKED}|\Z)", re.IGNORECASE | re.MULTILINE | re.DOTALL
)
_MOST_WORDS = 40  # of a question; a reply that goes on is no question


def read_question(reply: Reply) -> str | None:
    """Find the question that a model was asked to write; None where its reply is something else."""
    text = reply.text.rpartition("</think>")[2].strip()
    line = next((line.strip() for line in text.splitlines() if line.strip() and not line.startswith("```")), "")
    line = re.sub(r"^\W*(?:natural |spoken )?question\W*:\s*", "", line, flags=re.I).strip(f" {_QUOTES}")
    is_sql = re.match(r"(?:select|with)\b.*\bfrom\b", line, re.I) is not None
    was_cut = reply.finish_reason == "length"
    # A name with an underscore is the database's, and no word of a person's.
    named = re.search(r"[A-Za-z]_[A-Za-z]", re.sub(r"'[^']*'", "", line)) is not None
    if not line or is_sql or was_cut or named or not 3 <= len(line.split()) <= _MOST_WORDS:
        return None
    return line[0].upper() + line[1:]


def read_pairs(reply: Reply) -> list[Asked]:
    """Find questions with their SQL, written as ``Question:`` and a query under it; what is cut off is left out."""
    text = reply.text.rpartition("</think>")[2]
    found = []
    for match in _PAIR.finditer(text):
        sql = sql_of(re.sub(r"^\W*sql\W*:\s*", "", match["rest"].strip(), flags=re.I))
        complete = match.end() < len(text) or reply.finish_reason != "length"
        if sql and complete:
            found.append(Asked(question=match["question"].strip(f" {_QUOTES}"), sql=sql))
    return found
