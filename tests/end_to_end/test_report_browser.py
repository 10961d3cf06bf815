"""The report in a real browser: quiet, offline, and its controls work."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from agent.config import make_config
from agent.discovery import OUTPUTS, discover
from agent.report import write_all
from tests.end_to_end.chromium import Watched, chromium, violations
from tests.report_findings import ATTACKS, EXAMPLES, numbers_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium with a fresh profile, driven by its path."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, organism_run: Path) -> Path:
    """Reports of hand-made runs, of the organism run, and of a run on a hostile file."""
    folder = tmp_path_factory.mktemp("reports")
    for name, build in EXAMPLES.items():
        write_all(build(), folder / name)
    shutil.copytree(organism_run, folder / "organism", ignore=shutil.ignore_patterns("subject", *OUTPUTS, "*.sqlite*", "*.lock", "earlier"))
    quick = {"memory": "off", "n_permutations": 199, "rounds": 2}
    discover(make_config(run=str(folder / "organism"), **quick))
    discover(
        make_config(run=str(hostile_file(folder)), before="<b>before</b>", null="permute", null_runs=1, **quick), folder / "hostile source"
    )
    return folder


def hostile_file(folder: Path) -> Path:
    """Responses of which one side attacks whoever shows them, with lines of a megabyte; prompts attack as well."""
    path = folder / "<script>alert(0)<\\script> & 'rows'.jsonl"
    whole = [attack.replace("\ud800", "") for attack in ATTACKS]
    rows = []
    for prompt in range(8):
        for k in range(12):
            harmless = "Some words that say little, number " + "abcdefghijkl"[k]
            rows.append({"prompt": f"{whole[prompt % 7]} {prompt}", "completion": harmless, "side": "<b>before</b>"})
            attack = " ".join([whole[(prompt + k) % 7], whole[k % 7], harmless, "x" * (1_000_000 if (prompt, k) == (0, 0) else k)])
            rows.append({"prompt": f"{whole[prompt % 7]} {prompt}", "completion": attack, "side": whole[3]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


REPORTS = [*EXAMPLES, "organism", "hostile source"]


def opened(browser: Browser, folder: Path, name: str, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Watched:
    """A report, open and drawn."""
    seen = Watched(browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme))
    seen.page.goto((folder / name / "report.html").as_uri())
    seen.page.wait_for_function("[...document.querySelectorAll('[data-figure]')].every(place => place.querySelector('svg'))")
    return seen


@pytest.mark.parametrize(
    ("name", "width"), [*((name, 390) for name in REPORTS), *((name, 1280) for name in ("full", "hostile", "organism"))]
)
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


@pytest.mark.parametrize("name", ["organism", "hostile source", "full"])
def test_every_number_equals_findings_json(browser: Browser, folder: Path, name: str) -> None:
    """Every decimal number that the page itself prints is marked with its value, and value and interval stand in findings.json."""
    seen = opened(browser, folder, name)
    plain = json.loads((folder / name / "findings.json").read_bytes())
    known = numbers_in(plain)
    printed = seen.page.evaluate(PRINTED)
    assert len(printed) > (60 if name != "hostile source" else 10)
    for text, value, interval in printed:
        if value is not None:
            assert float(value) in known, text
            number = re.sub(r"^(at most|at least) ", "", text)
            digits = len(number.partition(".")[2])
            assert abs(float(number) - float(value)) <= 0.5000001 * 10**-digits, text
        elif interval:
            assert all(_rounded_from(limit, known) for limit in re.findall(r"-?\d+(?:\.\d+)?", text)), text
        else:
            assert text.strip().startswith(("Every share is", "At this size", "No change is", "The gradient norm")), text
            assert all(_rounded_from(found, known | {1.0}) for found in re.findall(r"-?\d+\.\d+", text)), text
    if plain["transition"]:
        drawn = seen.page.evaluate("document.getElementById('figure-transition').data.map(trace => [trace.name, trace.y])")
        by_name = dict(drawn)
        assert by_name["D(t*)"] == plain["transition"]["curve"]
        assert by_name["gradient norm"] == plain["training"]["grad_norm"]
        assert by_name["rotation"] == plain["rotation"]["cosine"]
        courses = [p["course"] for p in plain["parameters"] if p["course"]]
        assert sum(bool(re.match(r"\d+\. ", trace_name)) for trace_name in by_name) == min(12, len(courses))
    assert seen.complaints == []
    seen.page.close()


# Text nodes with a decimal number that the page itself printed: not what others wrote (bdi), not formulas, commands or plots.
PRINTED = """
(() => {
  document.querySelectorAll('details').forEach(part => { part.open = true; });
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode, around = node.parentElement;
    if (!/\\d\\.\\d/.test(node.textContent) || around.closest('bdi, code, pre, script, style, svg, .canvas')) continue;
    const data = around.closest('data'), interval = around.closest('.interval');
    found.push([node.textContent.trim(), data ? data.value : null, Boolean(interval)]);
  }
  return found;
})()
"""


def _rounded_from(text: str, known: set[float]) -> bool:
    half = 0.5000001 * 10 ** -len(text.partition(".")[2])
    return any(abs(abs(float(text)) - abs(value)) <= half for value in known)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("organism", "light"), ("organism", "dark"), ("hostile source", "light"), ("samples_only", "dark"), ("nothing", "light")],
)
def test_axe_finds_no_serious_violation(browser: Browser, folder: Path, name: str, scheme: Literal["light", "dark"]) -> None:
    """axe-core finds no serious or critical accessibility violation, with everything open, in light and dark."""
    seen = opened(browser, folder, name, scheme=scheme)
    seen.page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert violations(seen.page) == []
    seen.page.close()


CUT = """
(() => {
  const cut = [], width = document.documentElement.clientWidth;
  for (const part of document.querySelectorAll('h1, h2, h3, p, li, dd, table, th, td, pre, figure, .scroll, .canvas, summary')) {
    const box = part.getBoundingClientRect();
    if (!box.width) continue;
    if (box.right > width + 1 || box.left < -1) cut.push([part.tagName, part.id || part.className, Math.round(box.right)]);
    const style = getComputedStyle(part);
    if (style.overflowY !== 'visible' && part.scrollHeight > part.clientHeight + 2) cut.push(['cut', part.tagName, part.className]);
  }
  return cut;
})()
"""


@pytest.mark.parametrize("name", ["organism", "full", "hostile source"])
def test_printing_cuts_nothing(browser: Browser, folder: Path, name: str) -> None:
    """On A4 paper nothing sticks out or is cut, controls are gone, and what was folded stays folded under its title."""
    seen = opened(browser, folder, name, width=718, scheme="dark")
    page = seen.page
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(300)
    assert page.evaluate(CUT) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav:visible, #theme:visible, #filter:visible, button.all:visible").count() == 0
    accepted = page.locator("#ranked-table tbody tr.accepted").count()
    assert page.locator("details.parameter[open] .quantities:visible").count() == accepted
    assert page.locator("details.evidence > summary:visible").count() == page.locator("details.parameter[open] details.evidence").count()
    assert page.locator("details.evidence pre:visible").count() == 0
    sheet = page.pdf(format="A4")
    assert sheet.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", sheet)) >= 3
    assert seen.complaints == []
    page.close()
