"""What counts as the same question or query, and what does not."""

import sqlglot

from tutelage.text2sql.explore.guard import Guard, canonical, content


def same(left: str, right: str) -> bool:
    trees = [canonical(sqlglot.parse_one(sql, dialect="sqlite")).sql(dialect="sqlite") for sql in (left, right)]
    return trees[0] == trees[1]


def test_canonical_forgets_spelling() -> None:
    assert same("SELECT Name FROM Singer", 'SELECT t."name" FROM singer AS t')
    assert same("SELECT a FROM x ORDER BY a", "SELECT a FROM x ORDER BY a ASC")
    assert same("SELECT x.a FROM x INNER JOIN y ON x.i = y.i", "SELECT p.a FROM x AS p JOIN y AS q ON p.i = q.i")
    assert not same("SELECT a FROM x WHERE b = 'K'", "SELECT a FROM x WHERE b = 'k'")
    assert not same("SELECT a FROM x ORDER BY a", "SELECT a FROM x ORDER BY a DESC")


def test_content_is_what_is_asked_for() -> None:
    assert content("List the names of all singers") == content("What are the names of the singers?")
    assert content("How many singers are there?") != content("How many songs are there?")


def test_near_queries_have_the_same_parts_in_another_order() -> None:
    guard = Guard.of([("?", "SELECT DISTINCT name FROM singer WHERE age > 20 AND country = 'Peru'")])

    def near(sql: str) -> bool | None:
        meeting = guard.query(canonical(sqlglot.parse_one(sql, dialect="sqlite")))
        return meeting.near if meeting else None

    assert near("SELECT name FROM singer WHERE country = 'Peru' AND age > 20") is True
    assert near("SELECT DISTINCT name FROM singer WHERE age > 20 AND country = 'Peru'") is False
    assert near("SELECT name FROM singer WHERE country = 'Peru' AND age > 21") is None
    assert near("SELECT name FROM singer WHERE country = 'Peru' AND age < 20") is None


def test_sql_that_does_not_parse_is_no_trouble() -> None:
    assert Guard.of([("Why?", "SELEC nothing")]).question("why") is not None


def test_longer_questions_are_near_when_most_words_are_shared() -> None:
    guard = Guard.of([("Show the name, country and age of the singers who were born before 1980 in Peru.", None)])
    assert guard.question("Give the name, country and age for singers born before 1980 in Peru") is not None
    assert guard.question("Give the name, country and age for singers born before 1990 in Japan") is None
