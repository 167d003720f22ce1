"""How a model reads a question about a database, and how its answer is read."""

from tutelage.text2sql.prompts.answer import answer_text, sql_of
from tutelage.text2sql.prompts.base import Detail, Encoded, Matches, Prompt, View

__all__ = ["Detail", "Encoded", "Matches", "Prompt", "View", "answer_text", "sql_of"]
