"""The page of ask.py: its API, and what a person sees and does in a real browser."""

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser import chromium

from tutelage.core.errors import ConfigError
from tutelage.text2sql.database.executor import Executor
from tutelage.text2sql.inference.asking import AskSettings, ask
from tutelage.text2sql.inference.session import LIMITS, Session
from tutelage.text2sql.inference.web import check_page, make_app

pytest.importorskip("fastapi")
EIGHT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 8) SELECT i FROM n"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def session(run: SimpleNamespace) -> Iterator[Session]:
    with Executor(workers=1, limits=LIMITS) as executor:
        yield Session(run.load_run(run.folder, device="cpu"), source=run.source, db_id="shop", executor=executor)


@pytest.fixture
def address(session: Session) -> Iterator[str]:
    """The page, served on a free port of loopback."""
    import uvicorn

    config = uvicorn.Config(make_app(session, token=None), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    with config.bind_socket() as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def test_the_api(run: SimpleNamespace, session: Session, shop: Path) -> None:
    from fastapi.testclient import TestClient

    client = TestClient(make_app(session, token=None), base_url="http://127.0.0.1")
    assert [table["name"] for table in client.get("/api/schema").json()["tables"]] == ["item"]
    run.answers = ["SELECT name, price FROM item"]
    found = client.post("/api/ask", json={"question": "What is there?", "ticket": "a"}).json()
    assert found["rows"] == [["[red] Lamp", 5], [None, 9], ["0001", 7]] and found["why"][-1].startswith("chosen")
    before = shop.read_bytes()
    refused = client.post("/api/run", json={"sql": "DELETE FROM item", "ticket": "b"}).json()
    assert refused["status"] == "refused" and shop.read_bytes() == before
    rows = client.post("/api/csv", json={"sql": "SELECT price, name FROM item", "ticket": "c"})
    assert rows.text.splitlines() == ["price,name", "5,[red] Lamp", "9,", "7,0001"]
    run.answers = ["none", "none"]
    failed = client.post("/api/ask", json={"question": "Nothing?", "ticket": "d"})
    assert failed.status_code == 400 and "wrote no query" in failed.json()["error"]
    assert client.post("/api/ask", json={"question": "x" * 100_000, "ticket": "e"}).status_code == 422
    assert client.post("/api/stop", json={"ticket": "nothing"}).json() == {"stopped": False}


def test_a_question_whose_query_is_slow_can_be_stopped(run: SimpleNamespace, session: Session) -> None:
    """The model is not asked to repair it, and the next question finds a sandbox that works."""
    from fastapi.testclient import TestClient

    with TestClient(make_app(session, token=None), base_url="http://127.0.0.1") as client:
        run.answers = [ENDLESS, "SELECT price FROM item", "SELECT 2"]
        replies: list[Any] = []
        asking = threading.Thread(
            target=lambda: replies.append(client.post("/api/ask", json={"question": "Q?", "ticket": "slow"}))
        )
        asking.start()
        while asking.is_alive():
            client.post("/api/stop", json={"ticket": "slow"})
            asking.join(0.05)
        assert replies[0].json()["status"] == "crashed" and replies[0].json()["sql"] == ENDLESS
        run.answers.pop(0)
        assert client.post("/api/ask", json={"question": "And?", "ticket": "next"}).json()["rows"] == [[2]]


def test_who_may_come_in(session: Session) -> None:
    from fastapi.testclient import TestClient

    elsewhere = TestClient(make_app(session, token=None), base_url="http://evil.example")
    assert elsewhere.get("/api/schema").status_code == 403
    client = TestClient(make_app(session, token="secret"), base_url="http://10.0.0.5")
    assert client.get("/").status_code == 403 and client.get("/?token=wrong").status_code == 403
    assert client.get("/?token=secret").status_code == 200
    assert client.get("/api/schema", headers={"x-token": "secret"}).status_code == 200


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ConfigError, match=r"web: the page needs FastAPI .* Pip install fastapi uvicorn"):
        check_page("127.0.0.1", 0)


def test_an_address_that_cannot_be_used(run: SimpleNamespace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot be used"):
            check_page("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match="questions are asked on the page"):
        ask(AskSettings(run=run.folder, question="Q?", web=True), run.load_run)


def test_a_person_asks(run: SimpleNamespace, address: str, browser: Any, shop: Path) -> None:
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("text=1 tables")
    run.answers = ["SELECT coalesce(name, 'unnamed') AS name, price FROM item WHERE typeof(name) <> 'blob'"]
    page.fill("#question", "What does each item cost?")
    page.click("#ask")
    page.wait_for_selector("#table td")
    assert page.locator("#table td").all_inner_texts() == ["[red] Lamp", "5", "unnamed", "9"]
    assert page.locator("#chart rect").count() == 2 and page.locator("#shown .k").first.inner_text() == "SELECT"
    # Eight bars have slanted labels, which end at a word and stay inside the picture.
    page.fill("#sql", f"SELECT 'Delta Air Lines Incorporated ' || i AS name, i AS price FROM ({EIGHT})")
    page.click("#run")
    page.wait_for_selector("#chart rect:nth-of-type(8)")
    labels = page.locator("#chart text[transform]")
    assert labels.evaluate_all("all => all.map(text => text.firstChild.data)") == ["Delta Air Lines…"] * 8
    box, svg = labels.first.bounding_box(), page.locator("#chart svg").bounding_box()
    assert svg["x"] <= box["x"] and box["y"] + box["height"] <= svg["y"] + svg["height"]
    # Edited and run; the question's chart goes with its rows.
    page.fill("#sql", "SELECT max(price) AS most FROM item")
    page.click("#run")
    page.wait_for_selector("th:text('most')")
    assert page.locator("#table td").all_inner_texts() == ["9"] and page.locator("#chart svg").count() == 0
    with page.expect_download() as download:
        page.click("#csv")
    assert Path(download.value.path()).read_text().splitlines() == ["most", "9"]
    before = shop.read_bytes()
    page.fill("#sql", "DELETE FROM item")
    page.click("#run")
    page.wait_for_selector("#error:visible")
    assert page.inner_text("#error").startswith("Refused: ") and shop.read_bytes() == before
    page.fill("#sql", ENDLESS)
    page.click("#run")
    page.wait_for_selector("#stop:visible")
    page.wait_for_function("fetch('/api/schema').then(found => found.ok)")  # others are answered meanwhile
    while page.locator("#stop").is_visible():
        page.click("#stop")
        page.wait_for_timeout(200)
    assert page.inner_text("#error").startswith("Stopped: ")
    page.reload()
    page.wait_for_selector("#error:visible")
    assert page.input_value("#sql") == ENDLESS and not errors
    page.close()


def test_two_people_at_once(run: SimpleNamespace, address: str, browser: Any) -> None:
    one, two = browser.new_context().new_page(), browser.new_context().new_page()
    for page in (one, two):
        page.goto(address)
    run.answers = ["SELECT 'first' AS a", "SELECT 'second' AS a"]
    one.fill("#question", "One?")
    one.click("#ask")
    one.wait_for_selector("td:text('first')")
    two.fill("#question", "Two?")
    two.click("#ask")
    two.wait_for_selector("td:text('second')")
    assert one.locator("td").all_inner_texts() == ["first"]
    for page in (one, two):
        page.context.close()


@pytest.mark.parametrize("width", [380, 1200])
def test_nothing_sticks_out(run: SimpleNamespace, address: str, browser: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    run.answers = ["SELECT name AS a_rather_long_name_of_a_column, price, price * 1000000007 AS large FROM item"]
    page.fill("#question", "What is there?")
    page.click("#ask")
    page.wait_for_selector("#table td")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
