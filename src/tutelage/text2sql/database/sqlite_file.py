"""Opening a SQLite file that is only to be read, and saying what is wrong with one that cannot be."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

from tutelage.core.errors import DataError

_MAGIC = b"SQLite format 3\x00"


def sqlite_uri(path: Path) -> str:
    """Make the read-only URI of a file.

    A file in WAL mode without its ``-wal`` companion would make SQLite create one, even to read: such a file is
    opened as immutable. Nobody has it open, for whoever does keeps a ``-wal`` beside it.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    with path.open("rb") as file:
        header = file.read(20)
    # Bytes 18 and 19 are the write and read versions: 2 means WAL (sqlite.org/fileformat.html).
    if header[18:20] == b"\x02\x02" and not _has_log(path):
        uri += "&immutable=1"
    return uri


def _has_log(path: Path) -> bool:
    log, index = _companions(path)
    return log.exists() and (log.stat().st_size > 0 or index.exists())


def _companions(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def check_file(path: Path, *, where: str = "database") -> None:
    """Raise DataError where a path is not a SQLite file that can be opened."""
    if not path.exists():
        raise DataError(where, f"no file {path}", "give the path of a SQLite file")
    if path.is_dir():
        raise DataError(where, f"{path} is a folder", "give the path of the SQLite file in it")
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except PermissionError as error:
        raise DataError(where, f"{path} may not be read by this user", "ask for the right to read it") from error
    if not header:
        raise DataError(where, f"{path} is empty", "give a SQLite file that has tables")
    if not header.startswith(_MAGIC):
        raise DataError(
            where,
            f"{path} is not a SQLite database, or it is encrypted",
            "give a plain SQLite file: decrypt an encrypted one, load a dump with `sqlite3 new.sqlite < dump.sql`",
        )
    # Big-endian fields of the header; a page size of 1 means 65536.
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    # The size in pages holds only where both change counters agree.
    num_pages = int.from_bytes(header[28:32], "big") if header[24:28] == header[92:96] else 0
    if path.stat().st_size < num_pages * page_size:
        raise DataError(
            where,
            f"{path} is truncated: {path.stat().st_size} of {num_pages * page_size} bytes are there",
            "copy the file again",
        )
    log, index = _companions(path)
    if log.exists() and log.stat().st_size and not index.exists():
        # SQLite would write a new index beside it, and leave it there.
        raise DataError(
            where,
            f"the last changes of {path} stand in {log.name}, which has lost its companion {index.name}",
            f'on a copy of both, run: sqlite3 {path.name} "PRAGMA wal_checkpoint(TRUNCATE)"',
        )


def explain(error: sqlite3.Error, path: Path, *, where: str = "database") -> DataError:
    """Turn what SQLite says into where, what, and a hint."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return DataError(
            where,
            f"{path} is locked by another program",
            "close the program that writes to it, or explore a copy",
        )
    if "malformed" in text or "disk I/O" in text or "not a database" in text:
        return DataError(
            where,
            f"{path} is damaged, truncated or encrypted ({text})",
            'copy the file again, or repair it with `sqlite3 broken.sqlite ".recover" | sqlite3 new.sqlite`',
        )
    if "unable to open" in text or "readonly" in text:
        return DataError(
            where,
            f"{path} cannot be opened read-only ({text})",
            "a -wal or -journal file is left beside it: copy all of them to a folder you may write, "
            "open the copy once with the sqlite3 shell, and explore that",
        )
    return DataError(where, f"{path} cannot be read ({text})", "check it with `PRAGMA integrity_check`")


def open_readonly(path: Path, *, seconds: float = 5.0, where: str = "database") -> sqlite3.Connection:
    """Open a SQLite file to read.

    Text that is not UTF-8 is decoded with replacement characters.

    Args:
        path: The file.
        seconds: How long to wait for a lock.
        where: The config key that an error names.

    Raises:
        DataError: The file is not there, or is not a readable SQLite database.
    """
    check_file(path, where=where)
    try:
        connection = sqlite3.connect(sqlite_uri(path), uri=True, timeout=seconds)
        connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise explain(error, path, where=where) from error
    return connection
