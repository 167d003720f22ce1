"""Trees said in English and written as SQL; every wording that may come is listed."""

import re
from collections.abc import Iterator

import pytest
from concerts import make, opened

from tutelage.core.randomness import generator
from tutelage.text2sql.explore.synthesizers.naming import Naming
from tutelage.text2sql.explore.synthesizers.offline_realise import realise
from tutelage.text2sql.explore.synthesizers.offline_sql import SqlWriter
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    AgainstAverage,
    Aggregate,
    Combine,
    Compare,
    Cte,
    Having,
    Linked,
    Node,
    Order,
    Query,
    Ref,
    Window,
    from_json,
    to_json,
)
from tutelage.text2sql.explore.synthesizers.roles import Roles
from tutelage.text2sql.explore.words import article, phrase, plural, plural_phrase, singular

Voice = tuple[Roles, Naming, SqlWriter]
SINGER = (Node("singer"),)
STADIUM_OF_CONCERT = (Node("concert"), Node("stadium", 0, ("stadium_id",), ("stadium_id",)))
OLD = Compare("compare", Ref(0, "age"), ">", 30)
FRENCH = Compare("compare", Ref(0, "country"), "=", "France")


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Voice]:
    with opened(make(tmp_path_factory.mktemp("voice"))) as (catalog, execute):
        roles = Roles(catalog, execute=execute)
        yield roles, Naming(catalog, roles), SqlWriter(catalog, roles=roles)


def wordings(voice: Voice, query: Query) -> set[str]:
    """What 200 draws say, with double quotes made single."""
    roles, naming, _ = voice
    said = {realise(query, naming=naming, roles=roles, rng=generator("english", draw)) for draw in range(200)}
    assert from_json(to_json(query)) == query
    return {text.replace('"', "'") for text in said}


def test_a_projection(voice: Voice) -> None:
    query = Query(SINGER, (Ref(0, "name"), Ref(0, "age")))
    said = wordings(voice, query)
    assert voice[2].write(query) == "SELECT name, age FROM singer"
    assert "What are the names and ages of all singers?" in said
    assert "List the name and age of each singer." in said
    assert "For each singer, show their name and age." in said
    assert all(re.search(r"names? and ages?\b", text) for text in said)


def test_conditions_become_modifiers(voice: Voice) -> None:
    query = Query(SINGER, (Ref(0, "name"),), where=(OLD, FRENCH))
    said = wordings(voice, query)
    assert voice[2].write(query) == "SELECT name FROM singer WHERE age > 30 AND country = 'France'"
    assert any("singers older than 30 and from France" in text for text in said)
    assert any("singers from France with an age above 30" in text for text in said)
    assert all("30" in text and "France" in text for text in said)


def test_a_single_condition_may_ask_which(voice: Voice) -> None:
    said = wordings(voice, Query(SINGER, (Ref(0, "name"),), where=(OLD,)))
    assert "Which singers are older than 30? List their names." in said
    married = Compare("compare", Ref(0, "is_married"), "=", "F")
    said = wordings(voice, Query(SINGER, (), aggregates=(Aggregate("count"),), where=(married,)))
    assert "How many singers are not married?" in said


def test_aggregates(voice: Voice) -> None:
    query = Query(SINGER, (), aggregates=(Aggregate("avg", Ref(0, "age")),), where=(FRENCH,))
    assert voice[2].write(query) == "SELECT AVG(age) FROM singer WHERE country = 'France'"
    assert "What is the average age of the singers from France?" in wordings(voice, query)
    query = Query(SINGER, (), aggregates=(Aggregate("min", Ref(0, "age")), Aggregate("max", Ref(0, "age"))))
    assert "What are the minimum and maximum age of all singers?" in wordings(voice, query)


def test_numbers_kept_as_text_are_cast(voice: Voice) -> None:
    query = Query((Node("concert"),), (Ref(0, "title"),), where=(Compare("compare", Ref(0, "attendance"), ">", 3900),))
    assert voice[2].write(query) == "SELECT title FROM concert WHERE CAST(attendance AS INTEGER) > 3900"


def test_joins_speak_of_the_other_thing(voice: Voice) -> None:
    query = Query(STADIUM_OF_CONCERT, (Ref(0, "title"), Ref(1, "name")))
    sql = "SELECT T1.title, T2.name FROM concert AS T1 JOIN stadium AS T2 ON T1.stadium_id = T2.stadium_id"
    assert voice[2].write(query) == sql
    said = wordings(voice, query)
    assert "What are the titles of the concerts and the names of their stadiums?" in said
    assert "For each concert, list its title and the name of its stadium." in said
    in_leeds = Compare("compare", Ref(1, "city"), "=", "Leeds")
    counted = Query(STADIUM_OF_CONCERT, (), aggregates=(Aggregate("count"),), where=(in_leeds,))
    assert "How many concerts are there whose stadium's city is 'Leeds'?" in wordings(voice, counted)


def test_a_bridge_is_passed_without_a_word(voice: Voice) -> None:
    nodes = (
        Node("singer_in_concert"),
        Node("singer", 0, ("singer_id",), ("singer_id",)),
        Node("concert", 0, ("concert_id",), ("concert_id",)),
    )
    listed = wordings(voice, Query(nodes, (Ref(1, "name"), Ref(2, "title")), subject=1))
    assert "List the names of the singers and the titles of their concerts." in listed
    rock = Compare("compare", Ref(2, "theme"), "=", "Rock")
    query = Query(nodes, (Ref(1, "singer_id"),), subject=1, distinct=True, where=(rock,))
    assert any(
        "singers that have at least one concert whose theme is 'Rock'" in text for text in wordings(voice, query)
    )
    per_singer = Query(nodes[:2], (Ref(1, "name"),), aggregates=(Aggregate("count"),), grouped=True)
    assert "Show the name of each singer and the number of concerts." in wordings(voice, per_singer)


def test_groups(voice: Voice) -> None:
    query = Query(SINGER, (Ref(0, "country"),), aggregates=(Aggregate("count"),), grouped=True)
    assert voice[2].write(query) == "SELECT country, COUNT(*) FROM singer GROUP BY country"
    assert {
        "How many singers are there for each country?",
        "For each country, how many singers are there?",
    } <= wordings(voice, query)
    having = Query(**{**parts(query), "having": Having(Aggregate("count"), ">=", 3)})
    assert voice[2].write(having).endswith("GROUP BY country HAVING COUNT(*) >= 3")
    assert any("each country with at least 3 singers" in text for text in wordings(voice, having))
    first = Query(**{**parts(query), "order": Order(Aggregate("count"), True), "limit": 1})
    assert wordings(voice, first) == {"Which country has the most singers? Show it with the number of singers."}


def parts(query: Query) -> dict[str, object]:
    """A tree's fields."""
    return {name: getattr(query, name) for name in Query.__dataclass_fields__}


def test_superlatives(voice: Voice) -> None:
    query = Query(SINGER, (Ref(0, "name"),), order=Order(Ref(0, "age"), False), limit=3)
    assert voice[2].write(query) == "SELECT name FROM singer ORDER BY age ASC LIMIT 3"
    assert {
        "What are the names of the 3 youngest singers?",
        "What are the names of the three youngest singers?",
    } <= wordings(voice, query)
    query = Query((Node("stadium"),), (Ref(0, "name"),), order=Order(Ref(0, "capacity"), True), limit=1)
    assert "What is the name of the stadium with the largest capacity?" in wordings(voice, query)
    chosen = Query(
        SINGER,
        (Ref(0, "name"),),
        order=Order(Ref(0, "age"), True),
        limit=3,
        cte=Cte("top", Aggregate("avg", Ref(0, "age"))),
    )
    assert "What is the average age of the three oldest singers?" in wordings(voice, chosen)
    assert voice[2].write(chosen) == (
        "WITH chosen AS (SELECT age AS amount FROM singer ORDER BY age DESC LIMIT 3) SELECT AVG(amount) FROM chosen"
    )


def test_nesting(voice: Voice) -> None:
    none = Linked("linked", 0, ("stadium_id",), (Node("concert"),), ("stadium_id",), True, ())
    query = Query((Node("stadium"),), (Ref(0, "name"),), where=(none,))
    assert voice[2].write(query) == (
        "SELECT name FROM stadium WHERE stadium_id NOT IN (SELECT stadium_id FROM concert)"
    )
    assert "Which stadiums have no concerts? Show their names." in wordings(voice, query)
    above = Query(SINGER, (Ref(0, "name"),), where=(AgainstAverage("against_average", Ref(0, "age"), True),))
    assert voice[2].write(above) == "SELECT name FROM singer WHERE age > (SELECT AVG(age) FROM singer)"
    assert "Which singers are older than the average age of all singers? Give their names." in wordings(voice, above)


def test_set_operations(voice: Voice) -> None:
    young = Compare("compare", Ref(0, "age"), "<", 28)
    query = Query(SINGER, (Ref(0, "country"),), where=(OLD,), combine=Combine("except", young))
    assert voice[2].write(query) == (
        "SELECT country FROM singer WHERE age > 30 EXCEPT SELECT country FROM singer WHERE age < 28"
    )
    assert "Which countries have singers older than 30 but no singers younger than 28?" in wordings(voice, query)
    both = Query(SINGER, (Ref(0, "country"),), where=(OLD,), combine=Combine("intersect", young))
    assert "Which countries have both singers older than 30 and singers younger than 28?" in wordings(voice, both)


def test_windows(voice: Voice) -> None:
    rank = Query(SINGER, (Ref(0, "name"),), window=Window("rank", Ref(0, "age"), None, True))
    assert voice[2].write(rank) == "SELECT name, RANK() OVER (ORDER BY age DESC) AS place FROM singer"
    assert "Rank the singers by age, oldest first, and show the name of each with the rank." in wordings(voice, rank)
    best = Query(
        SINGER, (Ref(0, "country"), Ref(0, "name")), window=Window("best", Ref(0, "age"), Ref(0, "country"), True)
    )
    assert "For each country, show the name of the oldest singer." in wordings(voice, best)
    share = Query(SINGER, (Ref(0, "country"),), aggregates=(Aggregate("count"),), grouped=True, window=Window("share"))
    assert "For each country, show the number of singers and its percentage of all singers." in wordings(voice, share)


def test_means_over_groups(voice: Voice) -> None:
    query = Query(SINGER, (Ref(0, "country"),), aggregates=(Aggregate("count"),), grouped=True, cte=Cte("average"))
    assert voice[2].write(query) == (
        "WITH per_group AS (SELECT country, COUNT(*) AS amount FROM singer GROUP BY country)"
        " SELECT AVG(amount) FROM per_group"
    )
    assert wordings(voice, query) == {
        "On average, how many singers are there for each country?",
        "What is the average number of singers per country?",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Num_of_Ticket", "number of tickets"),
        ("StuID", "student ID"),
        ("LName", "last name"),
        ("Pay_per_view_PPV", "pay per view"),
        ("18_49_Rating_Share", "18-49 rating share"),
        ("Official_ratings_(millions)", "official ratings in millions"),
        ("AREA_CODE_STATE", "area code state"),
        ("MPG", "MPG"),
        ("GNPOld", "old GNP"),
        ("room_count", "number of rooms"),
        ("FlightNo", "flight number"),
        ("Directed_by", "director"),
    ],
)
def test_identifiers_are_said_as_words(name: str, said: str) -> None:
    assert phrase(name) == said


def test_plurals() -> None:
    nouns = {
        "city": "cities",
        "class": "classes",
        "person": "people",
        "series": "series",
        "staff": "staff",
        "day": "days",
    }
    assert {noun: plural(noun) for noun in nouns} == nouns
    assert {noun: singular(many) for noun, many in nouns.items()} == {noun: noun for noun in nouns}
    assert plural_phrase("number of staff") == "numbers of staff"
    assert plural_phrase("total amount spent") == "total amounts spent"
    assert [article(word) for word in ("age", "university", "hour", "MPG", "year")] == ["an", "a", "an", "an", "a"]
