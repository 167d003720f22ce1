"""Mutants, perturbed copies and the judge, on cases worked by hand."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlglot
from concerts import make, written
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify

from tutelage.text2sql.database.catalog import Catalog, read_catalog
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.explore.filter import Accepted, Guard, Rejection, Seen, check
from tutelage.text2sql.explore.pair import Candidate
from tutelage.text2sql.explore.reading import mapping_schema
from tutelage.text2sql.explore.runner import Runner
from tutelage.text2sql.explore.verify.agreement import agreement, enough
from tutelage.text2sql.explore.verify.judge import Verifier
from tutelage.text2sql.explore.verify.mutants import mutants
from tutelage.text2sql.explore.verify.perturb import Copies, write_copies

COMPANY = """
CREATE TABLE department (department_id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE employee (
    employee_id INTEGER PRIMARY KEY, name TEXT NOT NULL, salary INTEGER NOT NULL, bonus INTEGER, job TEXT NOT NULL,
    department_id INTEGER NOT NULL REFERENCES department(department_id), office_id INTEGER REFERENCES office(office_id)
);
CREATE TABLE office (office_id INTEGER PRIMARY KEY, floor INTEGER NOT NULL);
INSERT INTO department VALUES (80, 'Sales', 'Oslo'), (90, 'Research', 'Rome'), (100, 'Finance', 'Oslo');
INSERT INTO office VALUES (1, 3), (2, 5);
INSERT INTO employee VALUES
    (1, 'Ada', 4000, 100, 'clerk', 80, 1), (2, 'Ben', 5500, NULL, 'clerk', 90, 2),
    (3, 'Cleo', 7000, 300, 'analyst', 90, NULL), (4, 'Dan', 6200, 200, 'analyst', 100, 1),
    (5, 'Eve', 4800, 250, 'clerk', 80, 1), (6, 'Finn', 9000, NULL, 'head', 100, 2);
"""


@dataclass(frozen=True)
class Company:
    """A database with all that verifies pairs of it."""

    path: Path
    catalog: Catalog
    copies: Copies
    runner: Runner

    def verifier(self) -> Verifier:
        """Verify with mutants."""
        return Verifier(self.catalog, copies=self.copies, database=self.path, run_all=self.runner.run_all)

    def check(self, question: str, sql: str) -> Accepted | Rejection:
        """Put one candidate through the whole filter."""
        candidate = Candidate(question, sql, 1, (), {})
        return check(
            candidate,
            parent=None,
            catalog=self.catalog,
            execute=self.runner.run,
            guard=Guard.of(()),
            seen=Seen(),
            verify=self.verifier(),
        )


def opened(path: Path, folder: Path) -> Iterator[Company]:
    catalog = read_catalog(path)
    copies = write_copies(path, catalog, folder, copies=5, seed=1)
    with Executor(workers=0, limits=Limits(seconds=5.0, rows=10_000)) as executor:
        yield Company(path, catalog, copies, Runner(executor, path))


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    yield from opened(written(folder / "company.sqlite", COMPANY), folder)


@pytest.fixture(scope="module")
def concerts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("concerts")
    yield from opened(make(folder), folder)


def qualified(sql: str, catalog: Catalog) -> exp.Query:
    tree = qualify(sqlglot.parse_one(sql, dialect="sqlite"), schema=mapping_schema(catalog), dialect="sqlite")
    assert isinstance(tree, exp.Query)
    return tree


# The nine that the filter took: for each, the question, the SQL that came with it, and the SQL that it means.
TURNED_ROUND = [
    ("contradiction", "What is the highest salary of all employees?", "SELECT MIN(salary) FROM employee"),
    (
        "contradiction",
        "List the names of employees whose salary is less than 5000.",
        "SELECT name FROM employee WHERE salary > 5000",
    ),
    (
        "contradiction",
        "List the names of employees in ascending order of salary.",
        "SELECT name FROM employee ORDER BY salary DESC",
    ),
    ("contradiction", "What is the average salary of employees?", "SELECT SUM(salary) FROM employee"),
    (
        "contradiction",
        "List the names of employees not in department ID 90.",
        "SELECT name FROM employee WHERE department_id = 90",
    ),
    (
        "contradiction",
        "List the names and salaries of employees in department ID 90.",
        "SELECT name FROM employee WHERE department_id = 90",
    ),
    (
        "idle_part",
        "List the names of employees whose salary is above 5000.",
        "SELECT name FROM employee WHERE salary > 5000 OR 1=1",
    ),
    (
        "idle_part",
        "List the names of employees and the cities of departments.",
        "SELECT employee.name, department.city FROM employee JOIN department",
    ),
    (
        "idle_part",
        "List the names of 2 employees.",
        "SELECT name FROM employee ORDER BY random() LIMIT 2",
    ),
]


@pytest.mark.parametrize(("reason", "question", "sql"), TURNED_ROUND)
def test_what_the_filter_once_took_is_rejected(company: Company, reason: str, question: str, sql: str) -> None:
    verdict = company.check(question, sql)
    assert isinstance(verdict, Rejection) and verdict.reason == reason, verdict


@pytest.mark.parametrize(
    ("question", "sql"),
    [
        ("What is the highest salary of all employees?", "SELECT MAX(salary) FROM employee"),
        (
            "List the names of employees whose salary is less than 5000.",
            "SELECT name FROM employee WHERE salary < 5000",
        ),
        (
            "List the names of employees in ascending order of salary.",
            "SELECT name FROM employee ORDER BY salary ASC",
        ),
        ("What is the average salary of employees?", "SELECT AVG(salary) FROM employee"),
        (
            "List the names of employees not in department ID 90.",
            "SELECT name FROM employee WHERE department_id <> 90",
        ),
        (
            "List the names and salaries of employees in department ID 90.",
            "SELECT name, salary FROM employee WHERE department_id = 90",
        ),
        (
            "List the names of employees whose salary is not below 5000.",
            "SELECT name FROM employee WHERE salary >= 5000",
        ),
        (
            "How many employees are there in each department? Show the department's city and name.",
            "SELECT d.name, d.city, COUNT(*) FROM employee AS e JOIN department AS d "
            "ON e.department_id = d.department_id GROUP BY d.department_id",
        ),
        (
            "Which employees earn more salary than the average salary? List their names.",
            "SELECT name FROM employee WHERE salary > (SELECT AVG(salary) FROM employee)",
        ),
        (
            "What share of the average bonus is each employee's bonus? Show the name.",
            "SELECT e.name, e.bonus * 1.0 / a.mean FROM employee AS e "
            "JOIN (SELECT AVG(bonus) AS mean FROM employee) AS a",
        ),
        (
            "Which departments have no employees who are clerks? Show their names.",
            "SELECT name FROM department WHERE department_id NOT IN "
            "(SELECT department_id FROM employee WHERE job = 'clerk')",
        ),
    ],
)  # fmt: skip
def test_what_is_right_stays(company: Company, question: str, sql: str) -> None:
    assert isinstance(verdict := company.check(question, sql), Accepted), verdict


# Each kind of mutant, on a pair that it is told from.
KINDS = [
    ("MAX for MIN", "SELECT MIN(salary) FROM employee"),
    ("AVG for SUM", "SELECT SUM(salary) FROM employee"),
    ("COUNT for AVG", "SELECT AVG(salary) FROM employee"),
    ("COUNT DISTINCT for COUNT", "SELECT COUNT(job) FROM employee"),
    ("COUNT for COUNT DISTINCT", "SELECT COUNT(DISTINCT job) FROM employee"),
    ("COUNT(*) for COUNT(column)", "SELECT COUNT(bonus) FROM employee"),
    (">= for >", "SELECT name FROM employee WHERE salary > 5000"),
    ("< for >", "SELECT name FROM employee WHERE salary > 5000"),
    ("< for <=", "SELECT name FROM employee WHERE salary <= 5000"),
    ("<> for =", "SELECT name FROM employee WHERE job = 'clerk'"),
    ("= for <>", "SELECT name FROM employee WHERE job <> 'clerk'"),
    ("another value of job", "SELECT name FROM employee WHERE job = 'clerk'"),
    ("OR for AND", "SELECT name FROM employee WHERE job = 'clerk' AND salary > 4500"),
    ("AND for OR", "SELECT name FROM employee WHERE job = 'clerk' OR salary > 6500"),
    ("without employee.salary > 4500", "SELECT name FROM employee WHERE job = 'clerk' AND salary > 4500"),
    ("without WHERE employee.job = 'clerk'", "SELECT name FROM employee WHERE job = 'clerk'"),
    ("without HAVING COUNT(*) > 2", "SELECT job FROM employee GROUP BY job HAVING COUNT(*) > 2"),
    ("without DISTINCT", "SELECT DISTINCT job FROM employee"),
    ("with DISTINCT", "SELECT job FROM employee"),
    ("ASC for DESC", "SELECT name FROM employee ORDER BY salary DESC"),
    ("DESC for ASC", "SELECT name FROM employee ORDER BY salary"),
    ("LIMIT 1", "SELECT name FROM employee ORDER BY salary LIMIT 2"),
    ("LIMIT 3", "SELECT name FROM employee ORDER BY salary LIMIT 2"),
    (
        "LEFT for INNER JOIN",
        "SELECT employee.name, office.floor FROM employee JOIN office ON employee.office_id = office.office_id",
    ),
    (
        "INNER for LEFT JOIN",
        "SELECT employee.name, office.floor FROM employee LEFT JOIN office ON employee.office_id = office.office_id",
    ),
    ("job for name", "SELECT name FROM employee"),
    ("INTERSECT for UNION", "SELECT department_id FROM department UNION SELECT department_id FROM employee"),
    ("UNION for EXCEPT", "SELECT department_id FROM department EXCEPT SELECT department_id FROM employee"),
    (
        "IN for NOT IN",
        "SELECT name FROM department WHERE NOT department_id IN "
        "(SELECT department_id FROM employee WHERE job = 'head')",
    ),
    ("NOT IN for IN", "SELECT name FROM employee WHERE job IN ('clerk', 'head')"),
    ("IS NOT NULL for IS NULL", "SELECT name FROM employee WHERE bonus IS NULL"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "sql"), KINDS)
def test_each_kind_of_mutant_is_told_from_a_good_query(company: Company, name: str, sql: str) -> None:
    tree = qualified(sql, company.catalog)
    before = tree.sql(dialect="sqlite")
    names = [mutant.name.replace('"', "") for mutant in mutants(tree, company.catalog)]
    assert name in names
    assert tree.sql(dialect="sqlite") == before  # changed on the way, and the same again
    assert company.verifier().meaning(tree) is None


@pytest.mark.parametrize(
    ("name", "sql"),
    [
        ("with DISTINCT", "SELECT employee_id, name FROM employee"),
        ("with DISTINCT", "SELECT job, COUNT(*) FROM employee GROUP BY job"),
        ("with DISTINCT", "SELECT MAX(salary) FROM employee"),
        (
            "with DISTINCT",
            "SELECT employee.employee_id, department.name FROM employee JOIN department "
            "ON employee.department_id = department.department_id",
        ),
        ("COUNT(*) for COUNT(column)", "SELECT COUNT(salary) FROM employee"),
        ("COUNT(*) for COUNT(column)", "SELECT COUNT(bonus) FROM employee WHERE bonus > 100"),
        ("COUNT DISTINCT for COUNT", "SELECT COUNT(employee_id) FROM employee"),
        (
            "LEFT for INNER JOIN",
            "SELECT employee.name, department.name FROM employee JOIN department "
            "ON employee.department_id = department.department_id",
        ),
    ],
)
def test_mutants_that_the_schema_proves_equal_are_not_made(company: Company, name: str, sql: str) -> None:
    assert name not in [mutant.name for mutant in mutants(qualified(sql, company.catalog), company.catalog)]


def test_another_join_path(tmp_path: Path) -> None:
    script = """
    CREATE TABLE team (team_id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE match (
        match_id INTEGER PRIMARY KEY, home_id INTEGER REFERENCES team(team_id), away_id INTEGER REFERENCES team(team_id)
    );
    INSERT INTO team VALUES (1, 'Reds'), (2, 'Blues'), (3, 'Greens');
    INSERT INTO match VALUES (1, 1, 2), (2, 2, 3), (3, 3, 1);
    """
    for club in opened(written(tmp_path / "club.sqlite", script), tmp_path):
        # On the data itself home and away give the same: each team plays once in each place.
        sql = "SELECT t.name, COUNT(*) FROM match AS m JOIN team AS t ON m.home_id = t.team_id GROUP BY t.team_id"
        tree = qualified(sql, club.catalog)
        (path,) = [mutant for mutant in mutants(tree, club.catalog) if mutant.name == "joined by away_id for home_id"]
        assert sorted(club.runner.run(sql).rows) == sorted(club.runner.run(path.sql).rows)
        assert club.verifier().meaning(tree) is None


def test_what_no_row_can_tell_is_untestable(company: Company) -> None:
    verdict = company.check(
        "What is the lowest salary of the employee with ID 3?", "SELECT MIN(salary) FROM employee WHERE employee_id = 3"
    )
    assert verdict == Rejection("untestable", "gives the same as MAX for MIN")


def test_a_result_that_depends_on_the_order_of_rows(company: Company) -> None:
    verdict = company.check(
        "For each job, show the name and the number of employees.",
        "SELECT job, name, COUNT(*) FROM employee GROUP BY job",
    )
    assert isinstance(verdict, Rejection) and verdict.reason == "row_order"


def test_a_bound_that_no_row_stands_on_is_planted(company: Company) -> None:
    # No salary is 5100, in the data or in a copy: only the value planted for this query tells > from >=.
    sql = "SELECT name FROM employee WHERE salary > 5100"
    assert company.runner.run("SELECT COUNT(*) FROM employee WHERE salary = 5100").rows == [(0,)]
    assert company.verifier().meaning(qualified(sql, company.catalog)) is None


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_copies_are_a_function_of_database_and_seed(concerts: Company, tmp_path: Path) -> None:
    before = digest(concerts.path)
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for folder in folders:
        folder.mkdir()
    one, two, other = (
        write_copies(concerts.path, concerts.catalog, folder, copies=2, seed=seed)
        for folder, seed in zip(folders, (1, 1, 2), strict=True)
    )
    assert [digest(path) for path in one.perturbed] == [digest(path) for path in two.perturbed]
    assert digest(one.perturbed[0]) != digest(one.perturbed[1])
    assert digest(one.perturbed[0]) != digest(other.perturbed[0])
    assert digest(concerts.path) == before
    assert sorted(path.name for path in concerts.path.parent.glob("concerts.sqlite*")) == ["concerts.sqlite"]


def test_what_copies_hold(concerts: Company) -> None:
    """Keys stay unique; some parents are childless, some children orphaned; rows repeat but for their key."""
    for path in concerts.copies.perturbed:
        connection = sqlite3.connect(path)

        def count(sql: str, connection: sqlite3.Connection = connection) -> int:
            return int(connection.execute(sql).fetchone()[0])

        for table, key in (
            ("singer", "singer_id"),
            ("concert", "concert_id"),
            ("singer_in_concert", "singer_id, concert_id"),
        ):
            rows = count(f"SELECT COUNT(*) FROM {table}")
            assert rows == count(f"SELECT COUNT(*) FROM (SELECT DISTINCT {key} FROM {table})") >= 9
        assert count("SELECT COUNT(*) FROM concert WHERE stadium_id NOT IN (SELECT stadium_id FROM stadium)") > 0
        assert count("SELECT COUNT(*) FROM stadium WHERE stadium_id NOT IN (SELECT stadium_id FROM concert)") > 0
        assert count("SELECT COUNT(*) FROM singer WHERE age IS NULL") == 0  # NOT NULL in the schema
        alike = count("SELECT COUNT(*) FROM singer") - count(
            "SELECT COUNT(*) FROM (SELECT DISTINCT name, country, age, debut_year, is_married FROM singer)"
        )
        assert alike >= 9
        ages = {row[0] for row in connection.execute("SELECT age FROM singer")}
        assert ages <= {23, 31, 45, 52, 38, 29, 61, 27}  # the column's own
        connection.close()


@pytest.fixture
def ask(company: Company) -> Callable[..., Rejection | None]:
    def asked(sql: str, answers: list[str], agree: int) -> Rejection | None:
        found = agreement(
            qualified(sql, company.catalog),
            answers=answers,
            catalog=company.catalog,
            copies=company.copies,
            database=company.path,
            run_all=company.runner.run_all,
        )
        return enough(found, agree=agree)

    return asked


def test_agreement(ask: Callable[..., Rejection | None]) -> None:
    right = "SELECT name, salary FROM employee WHERE salary > 5100"
    other_columns = "SELECT salary, name FROM employee WHERE 5100 < salary"
    # The same on the data, where no salary is 5100.
    boundary = "SELECT name, salary FROM employee WHERE salary >= 5100"
    broken = "SELECT nothing FROM nowhere"
    assert ask(right, [right, other_columns, boundary], 2) is None
    assert ask(right, [right, boundary, broken], 2) == Rejection(
        "disagreed", f"1 of 3 answers agree; one that does not: {boundary}"
    )
    assert ask(right, [], 1) == Rejection("disagreed", "0 of 0 answers agree; one that does not: None")


@pytest.mark.parametrize(("reason", "question", "sql"), TURNED_ROUND)
def test_people_who_see_the_question_alone_disagree_with_what_was_taken(
    ask: Callable[..., Rejection | None], reason: str, question: str, sql: str
) -> None:
    meant = {
        0: "SELECT MAX(salary) FROM employee",
        1: "SELECT name FROM employee WHERE salary < 5000",
        2: "SELECT name FROM employee ORDER BY salary",
        3: "SELECT AVG(salary) FROM employee",
        4: "SELECT name FROM employee WHERE department_id <> 90",
        5: "SELECT name, salary FROM employee WHERE department_id = 90",
        6: "SELECT name FROM employee WHERE salary > 5000",
        7: "SELECT e.name, d.city FROM employee AS e JOIN department AS d ON e.department_id = d.department_id",
        8: "SELECT name FROM employee LIMIT 2",
    }[TURNED_ROUND.index((reason, question, sql))]
    verdict = ask(sql, [meant, meant], 1)
    assert verdict is not None and verdict.reason == "disagreed"


def test_a_batch_of_statements_shares_the_time_of_one(company: Company) -> None:
    endless = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    with Executor(workers=0, limits=Limits(seconds=0.2)) as executor:
        first, slow, late = executor.run_all(company.path, ["SELECT 1", endless, "SELECT 2"])
    assert (first.status, first.rows) == ("ok", [(1,)])
    assert slow.status == late.status == "timeout"


def test_a_batch_in_a_process_of_its_own(company: Company) -> None:
    with Executor(workers=1, limits=Limits(seconds=5.0)) as executor:
        results = executor.run_all(company.path, ["SELECT 1", "SELECT nothing", "DELETE FROM employee"])
    assert [result.status for result in results] == ["ok", "error", "refused"]
