"""A real Chromium for tests of pages, or the reason why there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = [
    f"--{word}"
    for word in (
        "no-sandbox", "disable-background-networking", "disable-component-update", "disable-sync",
    )
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of this machine, driven by Playwright. Skips the test where either is missing."""
    why = "pip install playwright, and Debian's chromium or another one, to test pages"
    sync = pytest.importorskip("playwright.sync_api", reason=why)
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(why)
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, address: str, **context: Any) -> Iterator[Any]:
    """A page that shows the address. Fails if the page's script does, or asks another machine."""
    within = browser.new_context(**context)
    page = within.new_page()
    wrong: list[str] = []
    home = address.split("#")[0].rsplit("/", 1)[0]
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((home, "data:", "blob:")) else wrong.append(asked.url)
        ),
    )
    try:
        page.goto(address)
        yield page
        assert wrong == []
    finally:
        within.close()
