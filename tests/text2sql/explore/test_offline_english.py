"""Trees said in English and written as SQL; every wording that may come is listed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from concerts import facts_of, make, opened, written

from tutelage.core.randomness import generator
from tutelage.text2sql.database.nouns import plural, singular
from tutelage.text2sql.explore.facts.roles import Roles
from tutelage.text2sql.explore.synthesizers.naming import Naming
from tutelage.text2sql.explore.synthesizers.offline_realise import realise
from tutelage.text2sql.explore.synthesizers.offline_sql import SqlWriter
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    AgainstAverage,
    Aggregate,
    AtExtreme,
    Combine,
    Compare,
    Cte,
    Having,
    Linked,
    Node,
    OneOf,
    Order,
    Query,
    Ref,
    SameAs,
    Window,
    from_json,
    to_json,
)
from tutelage.text2sql.explore.synthesizers.offline_wording import plural_verb, with_article
from tutelage.text2sql.explore.words import article, phrase, plural_phrase

Voice = tuple[Roles, Naming, SqlWriter]
SINGER = (Node("singer"),)
STADIUM_OF_CONCERT = (Node("concert"), Node("stadium", 0, ("stadium_id",), ("stadium_id",)))
OLD = Compare("compare", Ref(0, "age"), ">", 30)
FRENCH = Compare("compare", Ref(0, "country"), "=", "France")


@contextmanager
def voiced(path: Path) -> Iterator[Voice]:
    with opened(path) as (catalog, execute):
        facts = facts_of(catalog, execute)
        roles = Roles(catalog, execute=execute, facts=facts)
        yield roles, Naming(catalog, roles, facts), SqlWriter(catalog, roles=roles)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Voice]:
    with voiced(make(tmp_path_factory.mktemp("voice"))) as voice:
        yield voice


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
    assert [plural_verb(said) for said in ("mean earnings", "average age", "number of singers")] == [True, False, False]
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
    old = wordings(voice, Query(**{**parts(query), "where": (OLD,)}))
    # "Singers with an age above 30 for each country" would look for one age a country.
    assert "For each country, how many singers are older than 30?" in old
    assert not any(re.search(r"30 for each country", text) for text in old)
    assert voice[2].write(having).endswith("GROUP BY country HAVING COUNT(*) >= 3")
    assert any("each country with at least 3 singers" in text for text in wordings(voice, having))
    first = Query(**{**parts(query), "order": Order(Aggregate("count"), True), "limit": 1})
    assert wordings(voice, first) == {"Which country has the most singers? Show it with the number of singers."}


def test_a_mean_keeps_its_name(voice: Voice) -> None:
    age = Aggregate("avg", Ref(0, "age"))
    query = Query(SINGER, (Ref(0, "country"),), aggregates=(age,), grouped=True, order=Order(age, True))
    said = wordings(voice, query)
    assert any("mean age" in text for text in said)
    assert not any("mean age" in text and "average age" in text for text in said)


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


COMPARED = [
    (AgainstAverage("against_average", Ref(0, "age"), True), "average age of all singers"),
    (AtExtreme("at_extreme", Ref(0, "age"), True), "(highest age|the oldest) of all singers"),
    (SameAs("same_as", Ref(0, "country"), Ref(0, "name"), "Ada"), "(country as|as that of) (singer )?'Ada'"),
]


@pytest.mark.parametrize(("compared", "whom"), COMPARED)
def test_what_is_compared_with_other_rows_takes_no_more_conditions(voice: Voice, compared: object, whom: str) -> None:
    late = Compare("compare", Ref(0, "debut_year"), ">", 2000)
    long = Compare("compare", Ref(0, "name"), "!=", "Eve")
    for query in (
        Query(SINGER, (Ref(0, "name"),), where=(compared, late, long)),
        Query(
            SINGER, (Ref(0, "debut_year"),), where=(compared, late), order=Order(Ref(0, "debut_year"), True), limit=2
        ),
    ):
        for text in wordings(voice, query):
            # "The average age of all singers whose debut year is …" would be an average over those.
            assert re.search(rf"{whom}($|[.?,]| and (name|whose|that) )", text), text
            assert re.search(r"whose .*(age|country) (is|equals|of)", text), text


def test_the_average_is_named(voice: Voice) -> None:
    above = AgainstAverage("against_average", Ref(0, "capacity"), True)
    said = wordings(voice, Query((Node("stadium"),), (Ref(0, "name"),), where=(above,)))
    assert len(said) > 5 and all("the average capacity of all stadiums" in text for text in said)


def test_several_clauses_speak_of_the_rows(voice: Voice) -> None:
    in_leeds = Compare("compare", Ref(0, "city"), "=", "Leeds")
    rock = (Compare("compare", Ref(0, "theme"), "=", "Rock"),)
    none = Linked("linked", 0, ("stadium_id",), (Node("concert"),), ("stadium_id",), True, rock)
    some = Linked("linked", 0, ("stadium_id",), (Node("concert"),), ("stadium_id",), False, ())
    stadium = (Node("stadium"),)
    said = wordings(voice, Query(stadium, (Ref(0, "name"),), where=(in_leeds, some)))
    assert any("stadiums in Leeds that have at least one concert" in text for text in said)
    said = wordings(voice, Query(stadium, (Ref(0, "name"),), where=(none, some)))
    assert said and all(" and that have " in text for text in said)


def test_verbs_agree_with_the_one_that_is_had(voice: Voice) -> None:
    nodes = (
        Node("singer_in_concert"),
        Node("singer", 0, ("singer_id",), ("singer_id",)),
        Node("concert", 0, ("concert_id",), ("concert_id",)),
    )
    married = Compare("compare", Ref(1, "is_married"), "=", "T")
    said = wordings(voice, Query(nodes, (Ref(2, "title"),), subject=2, distinct=True, where=(married,)))
    assert said and all(re.search("(a|at least one) singer that is married", text) for text in said)
    some = Linked("linked", 0, ("concert_id",), nodes[:2], ("concert_id",), True, (married,))
    said = wordings(voice, Query((Node("concert"),), (Ref(0, "title"),), where=(some,)))
    assert {"no singer that is married", "no singers that are married", "not have any singers that are married"} == {
        match[0] for text in said for match in [re.search("(no|not have any) singers? that (is|are) married", text)]
        if match
    }  # fmt: skip


def test_a_thing_named_by_its_own_column_is_said_once(tmp_path: Path) -> None:
    path = written(
        tmp_path / "languages.sqlite",
        "CREATE TABLE country (code TEXT PRIMARY KEY, name TEXT);"
        "CREATE TABLE country_language (language TEXT, share REAL, country_code TEXT REFERENCES country(code));"
        "INSERT INTO country VALUES ('NO', 'Norway'), ('IT', 'Italy');"
        "INSERT INTO country_language VALUES ('Norwegian', 95, 'NO'), ('Italian', 94, 'IT'), ('Sami', 1, 'NO');",
    )
    nodes = (Node("country_language"), Node("country", 0, ("country_code",), ("code",)))
    with voiced(path) as voice:
        said = wordings(voice, Query(nodes, (Ref(1, "name"), Ref(0, "language")), subject=1))
        # "The names of the countries and their languages" might be the names of both.
        assert said and all(re.search("(together|along) with their languages", text) for text in said)
        said = wordings(voice, Query(nodes, (Ref(1, "name"), Ref(0, "language"), Ref(0, "share")), subject=1))
        assert said and all("the languages and shares of their country languages" in text for text in said)


def test_several_values_and_places(voice: Voice) -> None:
    either = OneOf("one_of", Ref(0, "country"), ("Peru", "Japan"))
    said = wordings(voice, Query(SINGER, (Ref(0, "name"),), where=(either, OLD)))
    assert said and all("either 'Peru' or 'Japan'" in text for text in said)
    same = SameAs("same_as", Ref(0, "city"), Ref(0, "name"), "Oval")
    said = wordings(voice, Query((Node("stadium"),), (Ref(0, "name"),), where=(same,)))
    assert any(" in the same city as " in text for text in said)
    assert not any("from the same city" in text for text in said)


def test_what_its_stands_for_comes_first(voice: Voice) -> None:
    in_2015 = Compare("compare", Ref(0, "theme"), "!=", "Pop")
    query = Query(STADIUM_OF_CONCERT, (Ref(1, "name"),), where=(in_2015,), order=Order(Ref(0, "title"), True), limit=1)
    said = wordings(voice, query)
    assert said and all(re.match("For the concert with .*, .* the name of its stadium[.?]$", text) for text in said)


def test_what_cannot_be_counted_is(voice: Voice) -> None:
    said = wordings(voice, Query((Node("concert"),), (Ref(0, "attendance"),)))
    assert "What are the IDs of all concerts?" in wordings(voice, Query((Node("concert"),), (Ref(0, "concert_id"),)))
    assert "What is the attendance of all concerts?" in said and not any("are the attendance" in text for text in said)


def test_a_join_says_in_which_role(tmp_path: Path) -> None:
    path = written(
        tmp_path / "flights.sqlite",
        "CREATE TABLE airport (airport_id INTEGER PRIMARY KEY, name TEXT, country_language TEXT);"
        "CREATE TABLE flight (flight_id INTEGER PRIMARY KEY, price INTEGER,"
        " origin_id INTEGER REFERENCES airport, destination_id INTEGER REFERENCES airport);"
        "INSERT INTO airport VALUES (1, 'Oslo', 'x'), (2, 'Rome', 'y'), (3, 'Bern', 'y');"
        "INSERT INTO flight VALUES (1, 90, 1, 2), (2, 120, 2, 1), (3, 80, 1, 2);",
    )
    nodes = (Node("flight"), Node("airport", 0, ("destination_id",), ("airport_id",)))
    with voiced(path) as voice:
        reached = wordings(voice, Query(nodes, (Ref(1, "name"),), subject=1, distinct=True))
        assert reached and all(re.search("that are the destination of (a|at least one) flight", t) for t in reached)
        none = Linked("linked", 0, ("airport_id",), (Node("flight"),), ("origin_id",), True, ())
        left_out = wordings(voice, Query((Node("airport"),), (Ref(0, "name"),), where=(none,)))
        assert "Which airports are not the origin of any flight? List their names." in left_out
        each = wordings(voice, Query((Node("airport"),), (Ref(0, "name"), Ref(0, "airport_id")), where=(none,)))
        assert "For each airport that is not the origin of any flight, list its name and ID." in each
        priced = wordings(voice, Query(nodes, (Ref(1, "name"), Ref(0, "price")), subject=1))
        assert priced and all("the prices of their flights as the destination" in text for text in priced)


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
    old = Query(**{**parts(rank), "where": (OLD,)})
    # Ranked among those that are left, and not among all.
    assert all("rank by age among these singers" in text for text in wordings(voice, old))
    joined = Query(STADIUM_OF_CONCERT, (Ref(0, "title"), Ref(1, "name")), window=Window("rank", Ref(0, "attendance")))
    # "The title and the name of its stadium of each concert"
    assert all(text.startswith("For each concert, ") for text in wordings(voice, joined))
    beside = Query(SINGER, (Ref(0, "name"),), where=(OLD,), window=Window("average", Ref(0, "age"), Ref(0, "country")))
    assert all("of all such singers with the same country" in text for text in wordings(voice, beside))
    best = Query(
        SINGER, (Ref(0, "country"), Ref(0, "name")), window=Window("best", Ref(0, "age"), Ref(0, "country"), True)
    )
    assert "For each country, show the name of the oldest singer." in wordings(voice, best)
    among = Query(**{**parts(best), "where": (OLD,)})
    assert {"For each country, show the name of the oldest singer among singers older than 30."} <= wordings(
        voice, among
    )
    assert all(text.startswith("For each country, ") for text in wordings(voice, among))
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
        ("Official_ratings_(millions)", "official ratings in millions"),
        ("AREA_CODE_STATE", "area code state"),
        ("MPG", "MPG"),
        ("GNPOld", "old GNP"),
        ("room_count", "number of rooms"),
        ("FlightNo", "flight number"),
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
    assert plural_phrase("code 2") == "code 2"
    assert plural_phrase("scheduled date and hour") == "scheduled dates and hours"
    assert plural_phrase("state, province or county") == "states, province or county"
    assert plural_phrase("number of staff") == "numbers of staff"
    assert plural_phrase("total amount spent") == "total amounts spent"
    assert [with_article(said) for said in ("number killed", "sales", "height")] == [
        "a number killed",
        "sales",
        "a height",
    ]
    assert [article(word) for word in ("age", "university", "hour", "MPG", "year")] == ["an", "a", "an", "an", "a"]
