"""Reading SQL out of what a model writes."""

import pytest

from tutelage.text2sql.prompts.answer import answer_text, first_statement, sql_of


@pytest.mark.parametrize(
    ("answer", "sql"),
    [
        ("```sql\nSELECT 1\n```", "SELECT 1"),
        ("First\n```sql\nSELECT 1\n```\nno, better:\n```sql\nSELECT 2;\n```\ndone", "SELECT 2"),
        ("```sql\nSELECT 1\n```\nwhich prints\n```\n1\n```", "SELECT 1"),  # the last block of sql, not of anything
        ("```\nSELECT 3\n```", "SELECT 3"),
        ("```sqlite\nSELECT 4\n```", "SELECT 4"),
        ("```SQL\r\nSELECT 5\r\n```", "SELECT 5"),
        ("```sql SELECT 6 ```", "SELECT 6"),
        ("```sql\nSELECT 7 FROM t WHERE a = 1", "SELECT 7 FROM t WHERE a = 1"),  # cut off at the token limit
        ("The query is SELECT 8; it counts.", "SELECT 8"),
        ("with a as (select 1) select * from a", "with a as (select 1) select * from a"),
        ("SELECT 9\n\nThis selects nine.", "SELECT 9"),
        ("I do not know.", ""),
        ("", ""),
        ("```sql\n```", ""),
        ("SELECT 10 FROM t\n```", "SELECT 10 FROM t"),  # the prompt began the fence
        ("<think>\n```sql\nSELECT 0\n```\n</think>\n\n```sql\nSELECT 11\n```", "SELECT 11"),
        ("<think>\n\n</think>\n\nSELECT 12", "SELECT 12"),
        ("so SELECT 0 it is\n</think>\nSELECT 13", "SELECT 13"),  # the template began the thought
        ("<think>perhaps ```sql\nSELECT 0\n```", ""),  # cut off while it thought
    ],
)
def test_the_last_sql_block_counts(answer: str, sql: str) -> None:
    assert sql_of(answer) == sql


def test_answers_are_read_back() -> None:
    assert answer_text(" SELECT 1 ; ") == "```sql\nSELECT 1\n```"
    for sql in ("SELECT ';' AS a", "SELECT 1 -- one; or two", "SELECT \"a;b\" FROM `c;d` WHERE [e;f] = 'it''s;'"):
        assert sql_of(answer_text(sql)) == sql


def test_only_the_first_statement_is_kept() -> None:
    assert first_statement("SELECT 1; DROP TABLE t") == "SELECT 1"
    assert first_statement("SELECT /* ; */ 1 ; SELECT 2") == "SELECT /* ; */ 1"
