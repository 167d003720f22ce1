"""The prompt that OmniSQL's models were trained on (arXiv 2503.02240).

The template is that of ``train_and_evaluate/process_dataset.py`` in their repository (RUCKBReasoning/OmniSQL), which
puts evidence on the line before the question. Its README leaves out "sql" behind the fence.
"""

from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.schema import DIALECTS, Catalog
from tutelage.text2sql.prompts import chat
from tutelage.text2sql.prompts.base import Detail, Matches
from tutelage.text2sql.prompts.ddl import Ddl

# Their code gives no system turn, and Qwen2.5's chat template then writes this one.
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
TASK = """Task Overview:
You are a data science expert. Below, you are provided with a database schema and a natural language question. Your \
task is to understand the schema and generate a valid SQL query to answer the question.

Database Engine:
{engine}

Database Schema:
{schema}
This schema describes the database's structure, including tables, columns, primary keys, foreign keys, and any \
relevant relationships or constraints.

Question:
{question}

Instructions:
- Make sure you only output the information that is asked in the question. If the question asks for a specific \
column, make sure to only include that column in the SELECT clause, nothing more.
- The generated query should return all of the information asked in the question without any missing or extra \
information.
- Before generating the final SQL query, please think through the steps of how to write the query.

Output Format:
In your answer, please enclose the generated SQL query in a code block:
```sql
-- Your SQL query
```

Take a deep breath and think step by step to find the correct SQL query."""


class OmniSql(Ddl):
    """One user turn: the schema as ``CREATE TABLE``, evidence and question, and the request to think first."""

    def messages(
        self, example: Example, catalog: Catalog, *, matches: Matches, detail: Detail | None = None
    ) -> list[chat.Message]:
        detail = detail or Detail(self.comments, self.samples)
        text = TASK.format(
            engine=DIALECTS[catalog.dialect].display,
            schema=self.database(catalog, matches=matches, detail=detail),
            question="\n".join(filter(None, [example.evidence, example.question])),
        )
        return [{"role": "system", "content": QWEN_SYSTEM}, {"role": "user", "content": text}]
