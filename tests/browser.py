"""Headless Chromium for tests of pages; they skip where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def assert_it_fits(page_file: Path) -> None:
    """Hold that a page needs no sideways scrolling, on a phone and on a desk, and has no error."""
    with chromium() as browser:
        for width in (380, 1200):
            page = browser.new_page(viewport={"width": width, "height": 800})
            errors: list[str] = []
            page.on("pageerror", lambda error, kept=errors: kept.append(str(error)))
            page.goto(page_file.absolute().as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{page_file} at {width} pixels"
            assert not errors
            page.close()
