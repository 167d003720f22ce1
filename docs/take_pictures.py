"""Takes the pictures of docs/: the page of ask.py, and a contact sheet of predict.py.

python docs/take_pictures.py run=runs/multilabel/…     # a finished run on the embedded digits

Needs Chromium and Playwright (the dev extra). The page asks the embedded database, and its query was written by hand,
so that the picture does not depend on a trained language model.
"""

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tutelage.core.store import Store
from tutelage.multilabel.data.digits import Digits
from tutelage.multilabel.predict.command import PredictSettings, predict
from tutelage.text2sql.data.flights import Flights
from tutelage.text2sql.database.executor import Executor
from tutelage.text2sql.inference.answer import Answerer, Inference
from tutelage.text2sql.inference.api_engine import counting_tokenizer
from tutelage.text2sql.inference.generate import Decoding, Request
from tutelage.text2sql.inference.session import LIMITS, LoadedRun, Session
from tutelage.text2sql.inference.web import make_app
from tutelage.text2sql.prompts.brief import Brief

DOCS = Path(__file__).resolve().parent
QUESTION = "Which carriers left JFK most often in July?"
ANSWER = """```sql
SELECT airlines.name, COUNT(*) AS flights
FROM flights JOIN airlines ON airlines.carrier = flights.carrier
WHERE flights.origin = 'JFK' AND flights.month = 7
GROUP BY airlines.name ORDER BY flights DESC LIMIT 6
```"""
LARGEST = 100_000  # bytes of a picture


class Written:
    """An engine that has one answer."""

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        return [[ANSWER] for _ in requests]


@contextmanager
def served(store: Path) -> Iterator[str]:
    """The page, on a free port of loopback."""
    source = Flights(store=str(store))
    inference = Inference("transformers", "greedy", 1, 1.0, 1.0, "first_that_runs", 0, max_new_tokens=96, batch_size=1)
    prompt = Brief(template="chatml", comments=False, samples=0, max_values=2, max_tokens=512)
    with Executor(workers=1, limits=LIMITS) as executor:
        answerer = Answerer(source, prompt=prompt, inference=inference, executor=executor, store=Store(store))
        run = LoadedRun(None, counting_tokenizer(), None, Written(), answerer)
        session = Session(run, source=source, db_id="flights", executor=executor)
        config = uvicorn.Config(make_app(session, token=None), host="127.0.0.1", port=0, log_level="warning")
        server = uvicorn.Server(config)
        with config.bind_socket() as listening:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
            server.should_exit = True
            thread.join()


def take(page: Page, file: Path) -> None:
    """Keep what the page shows as WebP, in fewer than 100 kB."""
    taken = file.with_suffix(".png")
    page.screenshot(path=str(taken))
    with Image.open(taken) as picture:
        for quality in (85, 70, 55, 40):
            picture.convert("RGB").save(file, quality=quality, method=6)
            if file.stat().st_size < LARGEST:
                break
    taken.unlink()
    assert file.stat().st_size < LARGEST, f"{file} is too large"
    print(f"{file}  {file.stat().st_size / 1000:.0f} kB")


def take_page(browser: Any, store: Path) -> None:
    """Ask a question, and open how its query was found."""
    with served(store) as address:
        page = browser.new_page(viewport={"width": 1180, "height": 900})
        page.goto(address)
        page.fill("#question", QUESTION)
        page.click("#ask")
        page.wait_for_selector("#chart svg")
        page.wait_for_selector("#table td")
        take(page, DOCS / "ask_page.webp")
        page.close()


def take_sheet(browser: Any, run: Path, folder: Path) -> None:
    """Label test scenes of the embedded digits, maps and all."""
    scenes = Digits(num_train=1, num_val=1, num_test=12, size=48, scene_seed=0).split("test")
    (folder / "photos").mkdir()
    for index, name in enumerate(scenes.ids):
        pixels = scenes.image(index).permute(1, 2, 0).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / "photos" / f"{name.replace('/', '-')}.png")
    os.chdir(folder)  # so that pictures are named as a person would name them
    predict(PredictSettings(run=run, images="photos", out=Path("labels"), cams=True))
    page = browser.new_page(viewport={"width": 1000, "height": 760})
    page.goto((folder / "labels" / "index.html").as_uri())
    take(page, DOCS / "contact_sheet.webp")
    page.close()


def main() -> None:
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        take_page(browser, Path(name) / "store")
        take_sheet(browser, Path(arguments["run"]).absolute(), Path(name))
        browser.close()


if __name__ == "__main__":
    main()
