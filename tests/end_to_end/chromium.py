"""Debian's Chromium with a fresh profile, driven by its path, and a page that writes down what it must not do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.optional_part import missing

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


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """A running browser.

    Args:
        more: Further command-line arguments.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright", "pip install 'order-parameter-discovery[browser]'")
    if not CHROMIUM.exists():
        missing("Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[*ARGUMENTS, *more])
        yield started
        started.close()


@dataclass
class Watched:
    """A page and everything it did that it must not do.

    Attributes:
        page: The page.
        allowed: Beginnings of addresses it may ask for.
        complaints: Console errors, exceptions, dialogs, other requests.
    """

    page: Page
    allowed: tuple[str, ...] = ("file://",)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Watch from the start."""
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self._request(request.url))

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, url: str) -> None:
        if not url.startswith((*self.allowed, "data:,", "blob:")):
            self.complaints.append(f"request: {url[:200]}")


def violations(page: Page) -> list[str]:
    """Serious and critical accessibility violations that axe-core finds: rule, what it asks, and where."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        missing("axe-core", "pip install 'order-parameter-discovery[browser]'")
    found = Axe().run(page).response["violations"]
    return [
        f"{entry['id']}: {entry['help']}: {[node['target'] for node in entry['nodes']][:3]}"
        for entry in found
        if entry["impact"] in ("serious", "critical")
    ]
