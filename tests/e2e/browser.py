"""A real headless Chromium, and the side effects of a page that is opened in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

# Playwright would download its own browser build, which not every network allows.
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str:
    """The path of Chromium or Chrome. Raises RuntimeError with a solution."""
    named = os.environ.get("CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        raise RuntimeError(
            f"there is no {named or 'Chromium'}: on Debian, apt-get install chromium; elsewhere CHROMIUM=/path names it"
        )
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser process. Raises RuntimeError if there is no browser."""
    path = program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, path: Path, *, width: int = 1280, **context: Any) -> Iterator[Page]:
    """A page of a file, in its own window; at the end the page must not have logged, requested or thrown anything.

    context: options of Playwright's browser contexts, such as color_scheme and timezone_id.
    """
    mishaps: list[str] = []
    window = browser.new_context(viewport={"width": width, "height": 900}, **context)
    try:
        page = window.new_page()
        page.on("console", lambda message: mishaps.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: mishaps.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (mishaps.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: mishaps.append(f"request: {request.url}"))
        page.goto(path.as_uri())
        yield page
        assert mishaps == [f"request: {path.as_uri()}"]
    finally:
        window.close()
