import sqlite3
from pathlib import Path

from tutelage.core.store import Store
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.database.flights import flights_database


def test_flights(embedded_store: Path) -> None:
    path = flights_database(Store(embedded_store))
    catalog = read_catalog(path)
    assert {table.name: table.num_rows for table in catalog.tables} == {
        "airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776,
    }  # fmt: skip
    assert [(key.table, key.columns, key.referred_table) for key in catalog.foreign_keys] == [
        ("weather", ("origin",), "airports"),
        ("flights", ("carrier",), "airlines"),
        ("flights", ("tailnum",), "planes"),
        ("flights", ("origin",), "airports"),
        ("flights", ("dest",), "airports"),
        ("flights", ("origin", "time_hour"), "weather"),
    ]
    delay = catalog.column("flights", "dep_delay")
    assert (delay.num_null, delay.minimum, delay.maximum) == (8255, -43, 1301)  # NA is NULL, numbers are numbers
    assert delay.spoken_name == "departure delay"
    assert catalog.notes == ()  # every description fits
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    # Known from R for Data Science: flights of 1 January, and the carrier of N14228's first one.
    assert connection.execute("SELECT count(*) FROM flights WHERE month = 1 AND day = 1").fetchone() == (842,)
    assert connection.execute("SELECT typeof(dep_delay), typeof(tailnum) FROM flights LIMIT 1").fetchone() == (
        "integer",
        "text",
    )
    connection.close()
    made = path.stat().st_mtime_ns
    assert flights_database(Store(embedded_store)) == path and path.stat().st_mtime_ns == made
