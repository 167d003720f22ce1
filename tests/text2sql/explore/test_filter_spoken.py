"""Whether a question speaks of a literal or a column."""

import pytest

from tutelage.text2sql.database.catalog import Column
from tutelage.text2sql.explore.spoken import Question, says_column, says_number, says_text


def column(name: str, *, table: str = "singer", description: str = "", values: str = "") -> Column:
    return Column(name, "TEXT", table, True, description=description, value_description=values)


@pytest.mark.parametrize(
    ("question", "number", "said"),
    [
        ("older than 40", 40.0, True),
        ("the three oldest", 3.0, True),
        ("more than 1,200,000 people", 1_200_000.0, True),
        ("more than 1.2 million people", 1_200_000.0, True),
        ("in half of the cases", 0.5, True),
        ("30 percent", 0.3, True),
        ("born after 1990-05-01", 19900501.0, True),
        ("version 14", 4.0, False),
        ("older than 40", 41.0, False),
    ],
)
def test_numbers(question: str, number: float, said: bool) -> None:
    assert says_number(Question.read(question), number) is said


@pytest.mark.parametrize(
    ("question", "text", "said"),
    [
        ("singers from france", "France", True),
        ("singers from São Paulo", "Sao Paulo", True),
        ("flights from Aberdeen", "Aberdeen ", True),
        ("names with the word call", "%Call%", True),
        ("on May 3, 2014", "2014-05-03", True),
        ("before 2015", "2015-01-01", True),
        ("on June 3, 2014", "2014-05-03", False),
        ("singers from Peru", "France", False),
    ],
)
def test_texts(question: str, text: str, said: bool) -> None:
    assert says_text(Question.read(question), text, None) is said


def test_codes_are_spoken_of_by_what_they_stand_for() -> None:
    status = column("status", values="A: active account\nB: blocked account")
    assert says_text(Question.read("Which accounts are active?"), "A", status)
    assert says_text(Question.read("How many female students are there?"), "F", column("sex"))
    assert says_text(Question.read("Which languages are official?"), "T", column("is_official"))


@pytest.mark.parametrize(
    ("question", "name", "said"),
    [
        ("How old is Ada?", "age", True),
        ("What are the song release years?", "Song_release_year", True),
        ("Which singers are there?", "singer_name", True),
        ("Which concerts are there?", "singer_name", False),
        ("List the singers' names.", "country", False),
        ("the number of products of each shop", "Number_products", True),
    ],
)
def test_columns(question: str, name: str, said: bool) -> None:
    assert says_column(Question.read(question), column(name)) is said


def test_a_description_counts() -> None:
    assert says_column(Question.read("the eye colour of Hulk"), column("ec_id", description="the hero's eye colour"))
