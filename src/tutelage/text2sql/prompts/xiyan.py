"""The prompt that XiYanSQL-QwenCoder was trained on, in Chinese.

The template is ``nl2sqlite_template_cn`` of the README of XGenerationLab/XiYanSQL-QwenCoder, which names the dialect.
"""

from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.schema import DIALECTS, Catalog
from tutelage.text2sql.prompts import chat
from tutelage.text2sql.prompts.base import Detail, Matches
from tutelage.text2sql.prompts.m_schema import MSchema
from tutelage.text2sql.prompts.omnisql import QWEN_SYSTEM

TASK = """你是一名{dialect}专家，现在需要阅读并理解下面的【数据库schema】描述，以及可能用到的【参考信息】，\
并运用{dialect}知识生成sql语句回答【用户问题】。
【用户问题】
{question}

【数据库schema】
{schema}

【参考信息】
{evidence}

【用户问题】
{question}

```sql"""


class XiYan(MSchema):
    """One user turn: question, M-Schema, evidence, the question again, and the beginning of the answer's fence.

    The question comes first, so that prompts about a database share no beginning.
    """

    def messages(
        self, example: Example, catalog: Catalog, *, matches: Matches, detail: Detail | None = None
    ) -> list[chat.Message]:
        detail = detail or Detail(self.comments, self.samples)
        text = TASK.format(
            dialect=DIALECTS[catalog.dialect].display,
            question=example.question,
            schema=self.database(catalog, matches=matches, detail=detail),
            evidence=example.evidence,
        )
        return [{"role": "system", "content": QWEN_SYSTEM}, {"role": "user", "content": text}]
