"""A session in a real terminal (a pseudo-terminal): editing, history, and what an interruption leaves of it."""

import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest
from prompt_toolkit.history import FileHistory

# A session without a model: it says what it was asked.
SESSION = """
import sys
from types import SimpleNamespace
from tutelage.core.errors import DataError
from tutelage.text2sql.inference.terminal import converse

def ask(question, after=None):
    raise DataError("heard", f"<{question}>", "go on")

session = SimpleNamespace(db_id="shop", catalog=SimpleNamespace(tables=[1]), ask=ask)
converse(session, rows=5)
print("left", flush=True)
"""

PROMPT = "\x1b[?2004h"  # what prompt_toolkit writes when it is ready to read a line


class Terminal:
    """A program in a pseudo-terminal, and what it wrote."""

    def __init__(self, code: str, state: Path) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:  # the child
            os.environ.update(XDG_STATE_HOME=str(state), TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1")
            os.execv(sys.executable, [sys.executable, "-c", code])
        self.written = ""

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until a text comes after all that was waited for before; the limit is only for a test that fails."""
        end = time.monotonic() + 120
        while text not in self.written:
            assert time.monotonic() < end, f"no {text!r} in {self.written!r}"
            if select.select([self.file], [], [], 1.0)[0]:
                try:
                    self.written += os.read(self.file, 4096).decode(errors="replace")
                except OSError:  # the program ended
                    break
        assert text in self.written, self.written
        self.written = self.written.partition(text)[2]

    def end(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)
        os.waitpid(self.pid, 0)
        os.close(self.file)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_an_interrupted_session_keeps_its_history(state: Path) -> None:
    terminal = Terminal(SESSION, state)
    terminal.wait_for(PROMPT)
    terminal.type("How many lamps?\r")
    terminal.wait_for("<How many lamps?>")
    terminal.wait_for(PROMPT)
    terminal.type("dropped\x03")  # Ctrl-C drops the line and ends nothing
    terminal.type("How many chairs?\r")
    terminal.wait_for("<How many chairs?>")
    terminal.wait_for(PROMPT)
    terminal.type("\x1b[A\x1b[A\r")  # twice back in the history
    terminal.wait_for("<How many lamps?>")
    terminal.wait_for(PROMPT)
    terminal.type("\x1b[A\x7f, all of them?\r")  # the last line again, its last character replaced
    terminal.wait_for("<How many lamps, all of them?>")
    terminal.wait_for(PROMPT)
    terminal.type("half a li")
    terminal.end(signal.SIGKILL)
    (kept,) = state.rglob("ask_history")
    newest_first = list(FileHistory(str(kept)).load_history_strings())
    assert newest_first[-2:] == ["How many chairs?", "How many lamps?"]
    assert newest_first[0] == "How many lamps, all of them?" and not any("half" in line for line in newest_first)
    # The next session finds it, and Ctrl-D leaves.
    terminal = Terminal(SESSION, state)
    terminal.wait_for(PROMPT)
    terminal.type("\x1b[A\r")
    terminal.wait_for("<How many lamps, all of them?>")
    terminal.wait_for(PROMPT)
    terminal.type("\x04")
    terminal.wait_for("left")
    os.waitpid(terminal.pid, 0)
    os.close(terminal.file)
