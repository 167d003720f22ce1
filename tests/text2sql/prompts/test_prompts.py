"""Schemas as text: each form written out by hand."""

from typing import Literal

import pytest

from tutelage.core.errors import ConfigError
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.prompts import Detail, Prompt
from tutelage.text2sql.prompts.base import most_that_fit
from tutelage.text2sql.prompts.brief import Brief
from tutelage.text2sql.prompts.codes import Codes
from tutelage.text2sql.prompts.ddl import Ddl
from tutelage.text2sql.prompts.m_schema import MSchema
from tutelage.text2sql.prompts.omnisql import OmniSql
from tutelage.text2sql.prompts.xiyan import XiYan

SHOPS = Table(
    name="shop",
    columns=(
        Column("id", "INTEGER", "shop", nullable=False, frequent=(1, 2, 3)),
        Column(
            "Shop Name", "TEXT", "shop", nullable=True, description="what the\nsign says", frequent=("O'Hara", "Zest")
        ),
    ),
    primary_key=("id",),
    foreign_keys=(),
    num_rows=3,
    is_view=False,
    comment="places that sell",
)
SALES = Table(
    name="order",
    columns=(
        Column("shop_id", "integer", "order", nullable=False, frequent=(2,)),
        Column("price", "", "order", nullable=True, spoken_name="price", value_description="in cents"),
    ),
    primary_key=(),
    foreign_keys=(ForeignKey("order", ("shop_id",), "shop", ("id",)),),
    num_rows=9,
    is_view=False,
)
CATALOG = Catalog("market", "market.sqlite", "sqlite", (SHOPS, SALES))
MATCHES = {("shop", "Shop Name"): ["Zest", "Zest & Co"]}
FULL = Detail(comments=True, samples=2)


def make(
    kind: type[Prompt],
    *,
    values: Literal["after", "inline"] = "after",
    max_tokens: int = 10_000,
    shuffle: bool = False,
    drop: float = 0.0,
) -> Prompt:
    return kind(
        template="chatml",
        comments=True,
        samples=2,
        values=values,
        max_values=3,
        max_tokens=max_tokens,
        shuffle_tables=shuffle,
        drop_tables=drop,
    )


def test_ddl() -> None:
    assert make(Ddl).schema(CATALOG, matches=MATCHES, detail=FULL) == (
        "CREATE TABLE shop ( -- places that sell\n"
        "    id INTEGER, -- example: [1, 2]\n"
        "    \"Shop Name\" TEXT, -- what the sign says, example: ['Zest', 'Zest & Co', 'O''Hara']\n"
        "    PRIMARY KEY (id)\n"
        ");\n"
        "\n"
        'CREATE TABLE "order" (\n'
        "    shop_id integer, -- example: [2]\n"
        "    price, -- price in cents\n"
        "    FOREIGN KEY (shop_id) REFERENCES shop (id)\n"
        ");"
    )


def test_m_schema() -> None:
    assert make(MSchema).schema(CATALOG, matches=MATCHES, detail=FULL) == (
        "【DB_ID】 market\n"
        "【Schema】\n"
        "# Table: shop, places that sell\n"
        "[\n"
        "(id:INTEGER, Primary Key, Examples: [1, 2]),\n"
        "(Shop Name:TEXT, what the sign says, Examples: ['Zest', 'Zest & Co', 'O''Hara'])\n"
        "]\n"
        "# Table: order\n"
        "[\n"
        "(shop_id:INTEGER, Examples: [2]),\n"
        "(price:, price in cents)\n"
        "]\n"
        "【Foreign keys】\n"
        "order.shop_id=shop.id"
    )


def test_codes() -> None:
    assert make(Codes).schema(CATALOG, matches=MATCHES, detail=FULL) == (
        "database schema :\n"
        "table shop , columns = [ shop.id ( integer | primary key | values : 1 , 2 ) , "
        "shop.Shop Name ( text | comment : what the sign says | values : 'Zest' , 'Zest & Co' , 'O''Hara' ) ]\n"
        "table order , columns = [ order.shop_id ( integer | values : 2 ) , "
        "order.price ( comment : price in cents ) ]\n"
        "foreign keys :\n"
        "order.shop_id = shop.id"
    )


def test_brief_without_detail_names_columns_and_matches_only() -> None:
    assert make(Brief).schema(CATALOG, matches=MATCHES, detail=Detail(comments=False, samples=0)) == (
        "shop(id, \"Shop Name\" = 'Zest' | 'Zest & Co')\n\"order\"(shop_id, price)"
    )


def test_values_come_matched_first_and_no_more_than_asked() -> None:
    prompt = make(Ddl)
    column = SHOPS.columns[1]
    shown = prompt.shown_values(SHOPS, column, matches={("shop", "Shop Name"): ["a", "b", "a"]}, detail=FULL)
    assert shown == ["'a'", "'b'", "'O''Hara'"]
    assert prompt.shown_values(SHOPS, column, matches={}, detail=Detail(comments=True, samples=1)) == ["'O''Hara'"]


def test_turns_hold_evidence_question_and_request() -> None:
    example = Example("1", "market", "How many shops?", None, evidence="a shop is a place")
    system, user = make(Brief).messages(example, CATALOG, matches={}, detail=Detail(comments=False, samples=0))
    assert system == {
        "role": "system",
        "content": "You are an expert in SQLite who answers questions about a database with one query.",
    }
    assert user["content"] == (
        'shop(id, "Shop Name")\n"order"(shop_id, price)\n\n'
        "Evidence: a shop is a place\n\n"
        "Question: How many shops?\nAnswer with one SQLite query in a ```sql block."
    )


def test_omnisql() -> None:
    example = Example("1", "market", "How many shops?", None, evidence="a shop is a place")
    prompt = make(OmniSql, values="inline")
    system, user = prompt.messages(example, CATALOG, matches=MATCHES, detail=FULL)
    assert system["content"] == "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    schema = make(Ddl).schema(CATALOG, matches=MATCHES, detail=FULL)
    assert user["content"].startswith(
        "Task Overview:\nYou are a data science expert. Below, you are provided with a database schema and a natural "
        "language question. Your task is to understand the schema and generate a valid SQL query to answer the "
        f"question.\n\nDatabase Engine:\nSQLite\n\nDatabase Schema:\n{schema}\nThis schema describes the database's "
        "structure, including tables, columns, primary keys, foreign keys, and any relevant relationships or "
        "constraints.\n\nQuestion:\na shop is a place\nHow many shops?\n\nInstructions:\n- Make sure"
    )
    assert user["content"].endswith(
        "```sql\n-- Your SQL query\n```\n\nTake a deep breath and think step by step to find the correct SQL query."
    )


def test_xiyan() -> None:
    prompt = make(XiYan, values="inline")
    example = Example("1", "market", "How many shops?", None, evidence="a shop is a place")
    _, user = prompt.messages(example, CATALOG, matches=MATCHES, detail=FULL)
    schema = make(MSchema).schema(CATALOG, matches=MATCHES, detail=FULL)
    assert user["content"] == (
        "你是一名SQLite专家，现在需要阅读并理解下面的【数据库schema】描述，以及可能用到的【参考信息】，"
        "并运用SQLite知识生成sql语句回答【用户问题】。\n【用户问题】\nHow many shops?\n\n"
        f"【数据库schema】\n{schema}\n\n【参考信息】\na shop is a place\n\n【用户问题】\nHow many shops?\n\n```sql"
    )


@pytest.mark.parametrize("kind", [Ddl, MSchema, Codes, Brief])
def test_matched_values_come_after_the_schema_or_in_it(kind: type[Prompt]) -> None:
    example = Example("1", "market", "Which shop is called Zest?", None, evidence="a shop is a place")
    many = {("shop", "Shop Name"): ["Zest", "O'Hara", "Zest", "a", "b"], ("order", "gone"): ["x"]}
    after, inline = make(kind), make(kind, values="inline")
    schema = after.schema(CATALOG, matches={}, detail=FULL)
    assert after.messages(example, CATALOG, matches=many)[1]["content"] == (
        f"{schema}\n\n"
        "Values of the database that match the question:\n"
        "shop.\"Shop Name\": 'Zest', 'O''Hara', 'a'\n\n"  # max_values is 3; a column that is not shown has no line
        "Evidence: a shop is a place\n\n"
        "Question: Which shop is called Zest?\nAnswer with one SQLite query in a ```sql block."
    )
    written = inline.schema(CATALOG, matches=many, detail=FULL)
    assert written != schema
    assert inline.messages(example, CATALOG, matches=many)[1]["content"].startswith(f"{written}\n\nEvidence: ")


def test_a_number_is_no_place_for_values() -> None:
    with pytest.raises(ConfigError, match=r"prompt\.values: 6 is not a place.* prompt\.max_values"):
        make(Ddl, values=6)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Ddl, MSchema, Codes, Brief])
def test_a_value_cannot_break_the_line(kind: type[Prompt]) -> None:
    evil = {("shop", "Shop Name"): ["one\n); DROP TABLE shop; --"]}
    text = make(kind).schema(CATALOG, matches=evil, detail=FULL)
    assert "'one ); DROP TABLE shop; --'" in text
    assert "one\n" not in text


@pytest.mark.parametrize(
    ("key", "value"),
    [("samples", -1), ("max_values", -1), ("max_tokens", 0), ("drop_tables", 1.5), ("drop_tables", -0.1)],
)
def test_numbers_that_make_no_sense(key: str, value: float) -> None:
    settings = {"template": "chatml", "comments": True, "samples": 1, "max_values": 1, "max_tokens": 10} | {key: value}
    with pytest.raises(ConfigError, match=rf"prompt\.{key}"):
        Ddl(**settings)


@pytest.mark.parametrize(("room", "kept"), [(1, 1), (2, 2), (7, 7), (9, 9), (0, 1)])
def test_as_many_as_fit(room: int, kept: int) -> None:
    assert most_that_fit(10, lambda count: count <= room) == kept
