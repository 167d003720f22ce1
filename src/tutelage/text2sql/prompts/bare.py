"""The question and nothing else, for a model that is trained on one database and knows it by heart (ours)."""

from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.schema import DIALECTS, Catalog
from tutelage.text2sql.prompts import chat
from tutelage.text2sql.prompts.base import Detail, Matches, Prompt


class Bare(Prompt):
    """No schema: a sixth of the tokens of the shortest prompt with one, and useless for any other database."""

    def schema(self, catalog: Catalog, *, matches: Matches, detail: Detail) -> str:
        return ""

    def messages(
        self, example: Example, catalog: Catalog, *, matches: Matches, detail: Detail | None = None
    ) -> list[chat.Message]:
        parts = [f"Evidence: {example.evidence}"] if example.evidence else []
        return [
            {"role": "system", "content": DIALECTS[catalog.dialect].display},
            {"role": "user", "content": "\n".join([*parts, example.question])},
        ]
