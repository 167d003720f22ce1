"""The answer's form: what a model is taught to write, and how SQL is read out of what it writes."""

import re

# The fence may name its language, or not; a block that the token limit cut off runs to the end.
_FENCE = re.compile(r"```[ \t]*(\w*)[ \t]*\r?\n?(.*?)(?:```|\Z)", re.DOTALL)
# What a model thought before it answered is no answer; a thought that the token limit cut off runs to the end.
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_QUERY = re.compile(r"\b(?:select|with)\b.*", re.DOTALL | re.IGNORECASE)


def answer_text(sql: str) -> str:
    """Write SQL as the answer that a model is trained to give: one fenced block."""
    return f"```sql\n{sql.strip().rstrip(';').strip()}\n```"


def sql_of(answer: str) -> str:
    """Read the query out of a model's answer.

    The last block fenced as ``sql`` counts, then the last one of any language; without a fence, the text from
    its first SELECT or WITH to the first semicolon or blank line. Of several statements in a block the first
    is kept. A block of thinking is left out first. Empty if there is no query.
    """
    answer = _THOUGHT.sub("", answer)
    if "</think>" in answer:  # begun by the chat template, so that the answer holds the end alone
        answer = answer.rpartition("</think>")[2]
    blocks = [(language.lower(), body) for language, body in _FENCE.findall(answer)]
    bodies = [body for language, body in blocks if language in {"sql", "sqlite"}] or [body for _, body in blocks]
    if bodies and bodies[-1].strip():
        text = bodies[-1]
    # A prompt that ends with the fence's beginning (XiYan's) leaves its end to the answer.
    elif match := _QUERY.search(answer.partition("```")[0]):
        text = re.split(r"\n\s*\n", match.group(), maxsplit=1)[0]
    else:
        return ""
    return first_statement(text)


def first_statement(text: str) -> str:
    """Cut at the first semicolon that stands outside quotes and comments.

    >>> first_statement("SELECT ';' ; DROP TABLE t")
    "SELECT ';'"
    """
    # One pass over the things that may hide a semicolon; whichever begins first wins.
    token = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/|;""", re.DOTALL)
    for match in token.finditer(text):
        if match.group() == ";":
            return text[: match.start()].strip()
    return text.strip()
