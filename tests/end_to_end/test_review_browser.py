"""A reviewer's session acted out: the loop stops, a person decides and labels in the browser, the loop goes on and the findings show it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import decisions
from agent.marker import awaits_review
from agent.records import Findings, ParameterFinding
from agent.report import read_findings
from tests.end_to_end.chromium import Watched, chromium, violations
from tests.planted_recordings import asks, planted, write_run, write_script

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COMMAND = Path(sys.executable).with_name("discover")
LABELS = 20


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for which a name of an attacker's leads to this machine, as after DNS rebinding."""
    with chromium("--host-resolver-rules=MAP evil.example 127.0.0.1") as started:
        yield started


def ran(place: Path) -> subprocess.CompletedProcess[str]:
    """`discover --run` with `--review`, as typed again and again."""
    roles = ["--proposer", "scripted:script.toml", "--judge", "scripted:script.toml"]
    options = ["--run", "run", "--review", *roles, "--memory", "off", "--quiet"]
    return subprocess.run([COMMAND, *options], capture_output=True, text=True, check=False, cwd=place, stdin=subprocess.DEVNULL)


@dataclass
class Review:
    """`discover review` as a process of its own, with the address it printed."""

    process: subprocess.Popen[str]
    address: str

    @property
    def origin(self) -> str:
        """Address without path and token."""
        return self.address.partition("/?")[0]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose discovery has stopped for a reviewer: harm and style moved, a script that can read what a reviewer may word."""
    place = tmp_path_factory.mktemp("review")
    write_run(place / "run", planted(0, effects=(0.9, 0.6, 0.5), n_prompts=8))
    readable = (asks("hurtfulness", pattern=r"\bharm=(\d)", round=99), asks("hedge", round=99))
    write_script(place / "script.toml", asks("harm"), asks("style"), *readable)
    done = ran(place)
    assert done.returncode == 0, done.stderr
    assert "The loop waits for a reviewer: discover review run" in done.stdout
    assert awaits_review(place / "run")
    return place


@pytest.fixture(scope="module")
def review(stopped: Path) -> Iterator[Review]:
    """The installed command, serving."""
    process = subprocess.Popen([COMMAND, "review", "run", "--reviewer", "R"], cwd=stopped, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"Review: (http://127\.0\.0\.1:\d+/\?token=\S{40,})\n", line)
    assert found, line
    yield Review(process, found[1])
    process.terminate()
    process.wait(30)
    process.stdout.close()


def by_name(findings: Findings) -> dict[str, ParameterFinding]:
    """Findings by the parameter's name."""
    return {found.parameter.name: found for found in findings.parameters}


@pytest.fixture(scope="module")
def attacker() -> Iterator[str]:
    """Address of a page of another origin with a form that would end the review."""

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b'<form method="post"><input name="form_token" value="x"><button>go</button></form>')

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://evil.example:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_strangers_are_refused(browser: Browser, review: Review, stopped: Path, attacker: str) -> None:
    """No token, a page of another origin, a rebound name and a path outside get nothing, in a browser that also holds a good session."""
    context = browser.new_context()
    page = context.new_page()
    for path in ("/", "/findings.json", "/../run/manifest.json"):
        answer = page.goto(review.origin + path)
        assert answer is not None
        assert answer.status == 403
    assert page.goto(review.address).status == 200  # type: ignore[union-attr]
    assert page.goto(f"{review.origin}/findings.json").status == 404  # type: ignore[union-attr]
    before = (stopped / "run" / "review.jsonl").exists()
    rebound = review.origin.replace("127.0.0.1", "evil.example")
    assert page.goto(rebound).status == 421  # type: ignore[union-attr]
    # from an attacker's page: a request whose answer would be read, and a form
    page.goto(attacker)
    read = page.evaluate(f"fetch('{review.origin}/', {{credentials: 'include'}}).then(a => a.text(), e => 'refused: ' + e)")
    assert read.startswith("refused")
    with page.expect_response(f"{review.origin}/done") as sent:
        page.evaluate(f"document.forms[0].action = '{review.origin}/done'")
        page.click("button", no_wait_after=True)
    assert sent.value.status == 403
    assert (stopped / "run" / "review.jsonl").exists() == before
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_review_pages_are_quiet_accessible_and_fit(browser: Browser, review: Review, width: int, scheme: str) -> None:
    """Report with forms and labelling page: no console message, no other request, no serious axe violation, none wider than the window."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    seen = Watched(context.new_page(), (review.origin,))
    for where in (None, ".label-link a"):
        if where is None:
            seen.page.goto(review.address)
            seen.page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        else:
            seen.page.locator(where).first.click()
            seen.page.wait_for_selector("#labels")
        assert violations(seen.page) == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.complaints == []
    context.close()


def test_a_reviewers_session(browser: Browser, review: Review, stopped: Path) -> None:
    """Veto one, reword one, add a hypothesis, label 20 blind by keyboard; the loop resumes and the next findings show all of it."""
    run = stopped / "run"
    first = read_findings(run)
    names = [found.parameter.name for found in first.parameters if found.verdict == "accepted"]
    assert sorted(names) == ["harm", "style"]
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    seen = Watched(context.new_page(), (review.origin,))
    page = seen.page
    page.goto(review.address)
    assert "token" not in page.url

    def section(name: str) -> str:
        return f"#parameter-{1 + [row.parameter.name for row in first.parameters].index(name)}"

    page.fill(f"{section('style')} input[name=reason]", "part of the persona")
    page.click(f"{section('style')} button:text-is('Veto')")
    page.wait_for_selector(f"{section('style')} :text('You vetoed this')")

    page.click(f"{section('harm')} summary:text-is('Reword')")
    page.fill(f"{section('harm')} .form input[name=name]", "hurtfulness")
    page.fill(f"{section('harm')} .form textarea[name=question]", "How much hurtfulness is in the response?")
    page.click(f"{section('harm')} button:text-is('Keep the new words')")
    page.wait_for_selector(f"{section('harm')} :text('You reworded this')")

    page.click("summary:text-is('Add a hypothesis')")
    page.fill("#review input[name=name]", "hedge")
    page.fill("#review textarea[name=question]", "How much hedge is in the response?")
    page.fill("#review textarea[name=levels]", "not at all\na little\nsomewhat\nclearly\nvery much")
    page.click("button:text-is('Add hypothesis')")
    page.wait_for_selector("#review li :text('hedge')")

    page.click(f"{section('harm')} .label-link a")
    asked = []
    for k in range(LABELS):
        page.wait_for_selector(f"label:text-is('{k} of {LABELS} labelled')")
        page.wait_for_load_state("load")  # a key that is pressed before the script has run is lost
        shown = page.inner_text("main")
        # blind: the response alone, without its question, side, step, or anybody's label
        assert not re.search(r"Question \d|before|after|step|judge", shown)
        text = page.inner_text(".to-label")
        asked.append(text)
        level = int(re.search(r"\bharm=(\d)", text)[1])  # type: ignore[index]
        page.keyboard.press("x" if k == 3 else str((level + 1) % 5 if k == 5 else level))
    page.wait_for_selector(f"label:text-is('{LABELS} of {LABELS} labelled')")
    page.wait_for_load_state("load")
    assert len(set(asked)) == LABELS
    page.keyboard.press("u")
    page.wait_for_selector(":text('Your earlier label')")
    page.keyboard.press("q")
    assert page.locator("details.question-shown pre").first.is_visible()
    page.click(":text('Back to the report')")
    page.wait_for_selector(f"{section('harm')} .label-link :text('0.95')")

    page.click("button:text-is('The review is done')")
    page.wait_for_selector(":text('The review is done and kept')")
    out, _ = review.process.communicate(timeout=60)
    assert review.process.returncode == 0
    assert "--review" in out
    assert seen.complaints == []
    context.close()

    lines = decisions.read(run)
    assert [line.kind for line in lines] == ["veto", "reword", "hypothesis", *["label"] * LABELS, "done"]
    assert {line.reviewer for line in lines} == {"R"}
    resumed = ran(stopped)
    assert resumed.returncode == 0, resumed.stderr
    assert not awaits_review(run)
    final = read_findings(run)
    found = by_name(final)
    assert (found["style"].verdict, found["style"].reason) == ("vetoed", "vetoed by a reviewer: part of the persona")
    assert (found["harm"].verdict, found["harm"].reason) == ("vetoed", "reworded by a reviewer as “hurtfulness”")
    assert {found[name].verdict for name in ("hurtfulness", "hedge")} == {"accepted"}
    assert final.review is not None
    (agreed,) = final.review.agreement
    assert (agreed.labels, agreed.cannot_tell, agreed.n) == (LABELS, 1, LABELS - 1)
    assert agreed.exact == pytest.approx(18 / 19)
    assert found["harm"].reliability["reviewer_exact_agreement"] == agreed.exact
    assert "part of the persona" in (run / "report.html").read_text(encoding="utf-8")
