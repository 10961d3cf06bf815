"""The report in a real browser: quiet, offline, and its controls work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.report import write_all
from tests.optional_part import missing
from tests.report_findings import EXAMPLES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Watched:
    """A page and everything it did that a report must not do."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Write down console errors, exceptions, dialogs and requests beyond the file itself."""
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self._request(request.url))

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, url: str) -> None:
        if not url.startswith(("file://", "data:,", "blob:")):
            self.complaints.append(f"request: {url[:200]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium with a fresh profile, driven by its path."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright", "pip install 'order-parameter-discovery[browser]'")
    if not CHROMIUM.exists():
        missing("Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reports lie."""
    return tmp_path_factory.mktemp("reports")


def opened(browser: Browser, folder: Path, name: str, width: int = 1280) -> Watched:
    """The report of a hand-made run, open and drawn."""
    path = write_all(EXAMPLES[name](), folder / name).html
    seen = Watched(browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light"))
    seen.watch()
    seen.page.goto(path.as_uri())
    seen.page.wait_for_function("[...document.querySelectorAll('[data-figure]')].every(place => place.querySelector('svg'))")
    return seen


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_page_is_quiet_and_fits(browser: Browser, folder: Path, name: str, width: int) -> None:
    """No console error, dialog or request, with everything opened; neither page nor ranked table is wider than the window."""
    seen = opened(browser, folder, name, width)
    seen.page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    seen.page.wait_for_timeout(200)
    assert seen.complaints == []
    assert seen.page.evaluate("window.attacked") is None
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert (
        seen.page.evaluate("(t => t.parentElement.scrollWidth - t.parentElement.clientWidth)(document.getElementById('ranked-table'))") <= 0
    )
    seen.page.close()


def test_the_table_sorts_and_filters(browser: Browser, folder: Path) -> None:
    """A click on a heading sorts by its numbers, another one turns the order round; the filters hide rows."""
    seen = opened(browser, folder, "full")
    page = seen.page
    shares = "[...document.querySelectorAll('#ranked-table tbody td.share')].map(cell => Number(cell.dataset.sort))"
    for reverse in (True, False):
        page.get_by_role("button", name="share of D").click()
        found = page.evaluate(shares)
        assert found == sorted(found, reverse=reverse)
        assert len(found) == 8
    page.select_option("#verdict", "accepted")
    assert page.locator("#ranked-table tbody tr:visible").count() == 3
    page.fill("#find", "professional")
    assert page.locator("#ranked-table tbody tr:visible").count() == 1
    assert seen.complaints == []
    page.close()


def test_details_open_and_close(browser: Browser, folder: Path) -> None:
    """A row's link opens its section, evidence stays closed until asked for, and all sections open and close together."""
    seen = opened(browser, folder, "full")
    page = seen.page
    page.locator("#ranked-table tbody a").nth(4).click()
    page.wait_for_function("document.getElementById('parameter-5').open")
    assert page.locator("details.evidence[open]").count() == 0
    page.get_by_role("button", name="Close all").click()
    assert page.locator("details.parameter[open]").count() == 0
    page.get_by_role("button", name="Open all").click()
    assert page.locator("details.parameter[open]").count() == 8
    page.locator("details.evidence summary").first.click()
    assert page.locator("details.evidence[open] mark").first.is_visible()
    assert seen.complaints == []
    page.close()


def test_dark_mode_changes_page_and_plots(browser: Browser, folder: Path) -> None:
    """The button turns page and plots dark and back."""
    seen = opened(browser, folder, "full")
    page = seen.page
    colours = "[getComputedStyle(document.body).backgroundColor, document.querySelector('.canvas').layout.font.color]"
    light = page.evaluate(colours)
    page.click("#theme")
    page.wait_for_function("document.querySelector('.canvas').layout.font.color === '#e8e6e1'")
    assert page.evaluate(colours)[0] == "rgb(20, 24, 29)" != light[0]
    page.click("#theme")
    page.wait_for_function("document.querySelector('.canvas').layout.font.color === '#1c1f22'")
    assert page.evaluate(colours) == light
    assert seen.complaints == []
    page.close()
