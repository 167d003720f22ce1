"""Real servers for tests: each in a temporary folder, on a loopback port, as a user without rights."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

# CI sets it: there PostgreSQL must be at hand, and a test that skips would hide that it is not.
REQUIRED = "TUTELAGE_TEST_POSTGRES"
START_SECONDS = 30.0


def program(name: str) -> str | None:
    """Find a program of a server; Debian keeps PostgreSQL's off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or shutil.which(name, path="/usr/sbin") or (str(found[-1]) if found else None)


def absent(why: str) -> None:
    """Skip, or fail where the server has to be there."""
    if os.environ.get(REQUIRED) and "MariaDB" not in why:
        pytest.fail(why)
    pytest.skip(why)


def unprivileged() -> dict[str, Any]:
    """Arguments of subprocess that drop root's rights; none where there are none to drop."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def serving(command: list[str], folder: Path, connect: Any, *, stop: signal.Signals) -> Iterator[None]:
    """Start a server, wait until it lets us in, and stop it at the end."""
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **unprivileged())
    try:
        begin = time.monotonic()
        while True:
            try:
                connect().close()
                break
            except (psycopg.OperationalError, pymysql.OperationalError):
                if server.poll() is not None or time.monotonic() > begin + START_SECONDS:
                    raise
                time.sleep(0.05)
        yield
    finally:
        server.send_signal(stop)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def folder_of(prefix: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"tutelage-{prefix}-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "nobody")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start PostgreSQL; yield the URL of its superuser and first database."""
    initdb, postgres = program("initdb"), program("postgres")
    if initdb is None or postgres is None:
        absent("PostgreSQL is not installed: no initdb and postgres (Debian: apt-get install postgresql)")
    assert initdb and postgres
    with folder_of("postgres") as folder:
        data = folder / "data"
        make = [initdb, "-D", str(data), "-U", "tutor", "--auth-local=trust", "--auth-host=trust", "--no-sync"]
        made = subprocess.run(
            [*make, "-E", "UTF8", "--locale=C"], capture_output=True, text=True, cwd=folder, **unprivileged()
        )
        if made.returncode:
            absent(f"PostgreSQL's initdb fails here: {made.stderr.strip()[-200:]}")
        with (data / "pg_hba.conf").open("r+") as rules:  # one role has to know its password
            before = rules.read()
            rules.seek(0)
            rules.write("host all secretive 127.0.0.1/32 scram-sha-256\n" + before)
        port = free_port()
        command = [postgres, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
        url = f"postgresql://tutor@127.0.0.1:{port}/postgres"
        with serving(command, folder, lambda: psycopg.connect(url), stop=signal.SIGINT):  # which waits for no client
            yield url


@contextmanager
def mariadb_server() -> Iterator[str]:
    """Start MariaDB; yield the URL of its superuser and first database."""
    install, mariadbd = program("mariadb-install-db"), program("mariadbd")
    if install is None or mariadbd is None:
        absent("MariaDB is not installed: no mariadb-install-db and mariadbd (Debian: apt-get install mariadb-server)")
    assert install and mariadbd
    with folder_of("mariadb") as folder:
        data = folder / "data"
        made = subprocess.run(
            [
                install,
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            **unprivileged(),
        )
        if made.returncode:
            absent(f"MariaDB's mariadb-install-db fails here: {(made.stdout + made.stderr).strip()[-200:]}")
        port = free_port()
        command = [
            mariadbd, "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1",
            f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=0",
        ]  # fmt: skip
        with serving(
            command, folder, lambda: pymysql.connect(host="127.0.0.1", port=port, user="root"), stop=signal.SIGTERM
        ):
            with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
                connection.cursor().execute("CREATE DATABASE clinic")
            yield f"mysql://root@127.0.0.1:{port}/clinic"
