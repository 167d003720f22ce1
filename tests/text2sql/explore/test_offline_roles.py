"""Column roles, and what people call tables, columns and keys."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from concerts import facts_of, make, opened, written

from tutelage.text2sql.explore.facts.roles import Roles
from tutelage.text2sql.explore.synthesizers.naming import Naming, Noun


def read(path: Path) -> Iterator[tuple[Roles, Naming]]:
    with opened(path) as (catalog, execute):
        facts = facts_of(catalog, execute)
        roles = Roles(catalog, execute=execute, facts=facts)
        yield roles, Naming(catalog, roles, facts)


@pytest.fixture(scope="module")
def concerts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Roles, Naming]]:
    yield from read(make(tmp_path_factory.mktemp("roles")))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Roles, Naming]]:
    path = tmp_path_factory.mktemp("odd") / "odd.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE Has_Pet (StuID INT REFERENCES Student(StuID), PetID INT REFERENCES Pets(PetID));
            CREATE TABLE Student (
                StuID INTEGER PRIMARY KEY, LName TEXT, Fname TEXT, Major INT, zip TEXT, height_text TEXT, horses TEXT,
                seen INT, Number_products INT, best_rank INT, rank_points INT
            );
            CREATE TABLE Pets (PetID INTEGER PRIMARY KEY, PetType TEXT, pet_age INT);
            CREATE TABLE games (game_id INTEGER PRIMARY KEY, winner_id INT REFERENCES Student(StuID),
                loser_id INT REFERENCES Student(StuID), played_on TEXT, killed INT, pet INT);
            """
        )
        students = [
            (
                n,
                f"L{n}",
                f"F{n}",
                500 + 10 * n,
                f"0{n}233",
                str(5 * n),
                "null" if n == 3 else str(n),
                19800101 + n,
                n * n,
                n,
                5 * n,
            )
            for n in range(1, 11)
        ]
        connection.executemany(f"INSERT INTO Student VALUES ({', '.join('?' * 11)})", students)
        connection.executemany("INSERT INTO Pets VALUES (?, ?, ?)", [(1, "cat", 3), (2, "dog", 2), (3, "cat", 5)])
        connection.executemany("INSERT INTO Has_Pet VALUES (?, ?)", [(1, 1), (2, 2), (2, 3)])
        games = [(n, n, n + 1, f"201{n}-05-01 10:00:00", n, n % 3) for n in range(1, 6)]
        connection.executemany("INSERT INTO games VALUES (?, ?, ?, ?, ?, ?)", games)
    connection.close()
    yield from read(path)


@pytest.mark.parametrize(
    ("table", "column", "role"),
    [
        ("stadium", "stadium_id", "key"),
        ("stadium", "name", "name"),
        ("stadium", "city", "category"),
        ("stadium", "capacity", "measure"),
        ("singer", "age", "measure"),
        ("singer", "debut_year", "year"),
        ("singer", "is_married", "flag"),
        ("singer", "phone_number", "code"),
        ("concert", "theme", "category"),
        ("concert", "concert_date", "date"),
        ("concert", "attendance", "measure"),  # numbers kept as text
        ("concert", "stadium_id", "key"),
    ],
)
def test_roles(concerts: tuple[Roles, Naming], table: str, column: str, role: str) -> None:
    assert concerts[0].of(table, column).role == role


def test_what_looks_like_a_number_and_is_none(odd: tuple[Roles, Naming]) -> None:
    roles, _ = odd
    assert roles.of("Student", "Major").role == "code"  # stands for a subject
    assert roles.of("Student", "zip").role == "code"
    horses = roles.of("Student", "horses")
    assert (horses.role, horses.markers) == ("measure", ("null",)) and "null" not in horses.values
    assert roles.of("Student", "best_rank").ranks
    # The most points are the best.
    assert roles.of("Student", "rank_points").role == "measure" and not roles.of("Student", "rank_points").ranks
    assert roles.of("Student", "height_text").numeric_text  # '5' > '10' as text
    assert roles.of("games", "played_on").dated == "time"


def test_numbers_as_text_of_one_length_need_no_cast(concerts: tuple[Roles, Naming]) -> None:
    profile = concerts[0].of("concert", "attendance")
    assert profile.numeric_text and not profile.fixed_width  # '800' and '11000'
    assert profile.values == (640, 800, 3900, 4000, 9500, 11000)
    assert profile.additive and profile.whole


def test_nouns(odd: tuple[Roles, Naming], concerts: tuple[Roles, Naming]) -> None:
    _, naming = odd
    assert naming.noun("Pets") == Noun("pet", "pets")
    assert naming.noun("Student").person
    assert naming.noun("Has_Pet") == Noun("student-pet pair", "student-pet pairs") or naming.noun("Has_Pet") == Noun(
        "pet-student pair", "pet-student pairs"
    )
    assert naming.is_bridge("Has_Pet") and not naming.is_bridge("games")
    assert naming.belongs("Has_Pet", ("PetID",)) and not naming.belongs("Has_Pet", ("StuID",))
    assert concerts[1].is_bridge("singer_in_concert")


def test_columns_are_called_as_their_table_lets_them(odd: tuple[Roles, Naming]) -> None:
    _, naming = odd
    said = {column: naming.column("Student", column) for column in ("StuID", "LName", "Number_products")}
    assert said == {"StuID": "ID", "LName": "last name", "Number_products": "number of products"}
    assert naming.column("Pets", "PetType") == "type"
    assert naming.column("games", "killed") == "number killed"
    assert naming.label("Student") == ("Fname", "LName")


def test_numbers_that_stand_for_another_thing_are_called_ids(odd: tuple[Roles, Naming]) -> None:
    assert odd[1].column("Student", "Major") == "major ID"
    assert odd[1].column("games", "pet") == "pet ID"  # a table of pets knows their names


@pytest.fixture
def airfield(tmp_path: Path) -> Iterator[tuple[Roles, Naming]]:
    path = tmp_path / "airfield.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE weather (month INTEGER, minute INTEGER, temp REAL, weather_station TEXT);"
            "CREATE TABLE other_flight_notes (note TEXT);"
            "CREATE TABLE staff (staff_id INTEGER PRIMARY KEY, staff_name TEXT);"
            "CREATE TABLE flight (flight_id INTEGER PRIMARY KEY, departure_time INTEGER, air_time INTEGER);"
            "INSERT INTO staff VALUES (1, 'Ada'), (2, 'Ben');"
        )
        connection.executemany(
            "INSERT INTO weather VALUES (?, ?, ?, ?)", [(n % 3, 7 * n, 1.5 * n, "x") for n in range(9)]
        )
        connection.executemany("INSERT INTO flight VALUES (?, ?, ?)", [(n, 1330 + n, 1130 + 90 * n) for n in range(9)])
    connection.close()
    yield from read(path)


def test_what_is_not_counted_is_counted_in_records(airfield: tuple[Roles, Naming]) -> None:
    _, naming = airfield
    assert naming.noun("weather") == Noun("weather record", "weather records")
    assert naming.column("weather", "weather_station") == "station"
    assert naming.noun("other_flight_notes") == Noun("flight note", "flight notes")  # other than what?
    assert naming.noun("staff") == Noun("staff member", "staff members", person=True)
    assert naming.column("staff", "staff_name") == "name"


def test_parts_of_a_time_and_times_of_day_are_not_averaged(airfield: tuple[Roles, Naming]) -> None:
    roles, _ = airfield
    assert roles.of("weather", "month").time_part and not roles.of("weather", "minute").listed
    assert roles.of("weather", "temp").listed
    assert roles.of("flight", "departure_time").role == "ordinal" and roles.of("flight", "departure_time").listed
    assert roles.of("flight", "air_time").role == "measure"  # 1850 is no time of day, so 1130 is minutes too


def test_two_keys_to_one_table_are_told_apart(odd: tuple[Roles, Naming]) -> None:
    _, naming = odd
    assert {link.noun.one for link in naming.links_from("games")} == {"winner", "loser"}
    assert naming.among_siblings("games", ("winner_id",)) == Noun("winner", "winners", person=True)
    assert naming.among_siblings("Has_Pet", ("StuID",)) is None


def test_a_key_that_meets_no_row_is_not_followed(tmp_path: Path) -> None:
    path = written(
        tmp_path / "blanks.sqlite",
        "CREATE TABLE airport (code TEXT PRIMARY KEY, city TEXT);"
        "CREATE TABLE flight (number INTEGER PRIMARY KEY, source TEXT REFERENCES airport(code),"
        " goal TEXT REFERENCES airport(code));"
        "INSERT INTO airport VALUES ('OSL', 'Oslo'), ('ROM', 'Rome');"
        "INSERT INTO flight VALUES (1, ' OSL', 'ROM'), (2, ' ROM', 'XXX');",
    )
    for _, naming in read(path):
        assert [link.columns for link in naming.links] == [("goal",)]


def test_a_key_to_several_rows_is_not_followed(tmp_path: Path) -> None:
    path = written(
        tmp_path / "fan.sqlite",
        "CREATE TABLE area (code INTEGER PRIMARY KEY, state TEXT);"
        "CREATE TABLE vote (id INTEGER PRIMARY KEY, state TEXT REFERENCES area(state));"
        "INSERT INTO area VALUES (1, 'NY'), (2, 'NY'), (3, 'NJ'); INSERT INTO vote VALUES (1, 'NY');",
    )
    for _, naming in read(path):
        assert naming.links == ()
