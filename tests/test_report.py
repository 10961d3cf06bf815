"""The report: what it prints is what findings.json says, whoever wrote the texts in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agent.records import Estimate, Findings
from agent.report import FindingsFileError, ReportPaths, read_findings, write_all
from agent.report.figures import label
from agent.report.html import RawText, data_block
from agent.report.markdown import escape, fenced
from agent.report.ranking import contrast_text, ranked
from agent.report.schema import SCHEMA_PATH
from agent.report.sensitivity import choices
from agent.report.shown import number, shown
from agent.report.terminal import plain
from agent.report.visible import excerpt, is_hidden, one_line
from tests.large_findings import large
from tests.report_findings import ATTACKS, EXAMPLES, full, numbers_in

LOADING = {"iframe", "img", "object", "embed", "link", "base", "form", "audio", "video", "svg", "frame", "applet", "portal"}
HIDDEN = "".join(map(chr, [0x202E, 0x202C, 0x2066, 0x2069, 0x200B, 0x200D, 0x1B, 0x07, 0x00]))


class Page(HTMLParser):
    """A page as a browser's parser sees it: elements with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self.numbers: list[tuple[float, str]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self._inside = ""
        self._value: float | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element."""
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        value = dict(attrs).get("value") if tag == "data" else None
        self._value = None if value is None else float(value)

    def handle_endtag(self, tag: str) -> None:
        """Text after it belongs to no raw element."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Keep the text, scripts and styles apart from what is read."""
        if self._inside in self.raw:
            self.raw[self._inside].append(data)
            return
        self.words.append(data)
        if self._value is not None:
            self.numbers.append((self._value, data))
            self._value = None

    @property
    def text(self) -> str:
        """What a reader reads."""
        return "".join(self.words)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReportPaths]:
    """Every hand-made run's report, written once."""
    folder = tmp_path_factory.mktemp("reports")
    return {name: write_all(build(), folder / name) for name, build in EXAMPLES.items()}


@pytest.fixture(scope="module")
def pages(reports: dict[str, ReportPaths]) -> dict[str, Page]:
    """The same pages, parsed."""
    return {name: Page(paths.html.read_text(encoding="utf-8")) for name, paths in reports.items()}


@pytest.mark.parametrize("name", ["full", "samples_only", "nothing"])
def test_every_marked_number_of_the_page_is_in_findings_json(name: str, reports: dict[str, ReportPaths], pages: dict[str, Page]) -> None:
    """A number on the page stands in findings.json in full precision, and its text is that number rounded."""
    known = numbers_in(json.loads(reports[name].findings.read_bytes()))
    assert len(pages[name].numbers) > 10
    for value, text in pages[name].numbers:
        assert value in known, text
        printed = re.sub(r"^(at most|at least) ", "", text)
        digits = len(printed.partition(".")[2])
        assert float(printed) == pytest.approx(value, abs=0.5000001 * 10**-digits)


@pytest.mark.parametrize("name", ["full", "samples_only"])
def test_ranked_rows_say_the_same_in_all_three(name: str, reports: dict[str, ReportPaths], pages: dict[str, Page]) -> None:
    """Share and D[O] of every row, with interval, stand in HTML, Markdown and the terminal as findings.json has them."""
    findings = read_findings(reports[name].findings.parent)
    text = plain(findings, width=240)
    lines = reports[name].markdown.read_text(encoding="utf-8").splitlines()
    sorted_by = [
        float(cell["data-sort"] or "nan")
        for tag, cell in pages[name].elements
        if tag == "td" and "share" in str(cell.get("class")) and "data-sort" in cell
    ]
    rows = ranked(findings)
    assert sorted_by == [row.finding.share.estimate for row in rows]
    for row in rows:
        share, change = row.finding.share, row.finding.change
        cells = next(line for line in lines if line.startswith(f"| {row.rank} |")).split(" | ")
        assert cells[2] == shown(share).line
        assert cells[3] == shown(change).line
        at = text.index(f"{row.name} [{row.finding.parameter.badge}]")
        assert re.search(re.escape(shown(share).text) + r"\S*\s+" + re.escape(number(change.estimate)), text[at:])


def test_totals_are_printed_everywhere(reports: dict[str, ReportPaths], pages: dict[str, Page]) -> None:
    """Total change, joint share and residual stand in all three."""
    findings = full()
    texts = [plain(findings), reports["full"].markdown.read_text(encoding="utf-8").replace("\\", ""), pages["full"].text]
    for estimate in (findings.change, findings.joint, findings.residual):
        assert estimate is not None
        for text in texts:
            assert number(estimate.estimate) in text
            assert shown(estimate).interval in text


def test_order_transitions_and_sensitivity_are_shown(reports: dict[str, ReportPaths], pages: dict[str, Page]) -> None:
    """What moved before what, further transitions, D[O] at equal length and other choices stand in page and Markdown."""
    findings = full()
    for text in (pages["full"].text, reports["full"].markdown.read_text(encoding="utf-8").replace("\\", "")):
        for entry in findings.order:
            assert shown(entry.lag, unit=False).interval in text
        assert "84 [79.5, 88.5]" in text
        assert "D[O] at equal length" in text
        for line in choices(findings)[0]:
            assert line.what in text
            assert number(line.joint_share) in text


def test_bound_names_its_classifier_and_calibration(reports: dict[str, ReportPaths], pages: dict[str, Page]) -> None:
    """Without likelihoods the page says which classifier bounds D and how well its predictions hold."""
    for text in (pages["samples_only"].text, reports["samples_only"].markdown.read_text(encoding="utf-8")):
        assert "tells the sides apart: words" in text
        assert "0.431" in text
        assert re.search(r"0\.110\D*0\.130\D*138", text)


def test_nothing_detectable_prints_no_share(reports: dict[str, ReportPaths], pages: dict[str, Page]) -> None:
    """Where no change is detectable no share, joint share or residual is printed; the page says what would have been found."""
    page, findings = pages["nothing"], read_findings(reports["nothing"].findings.parent)
    shares = [cell for tag, cell in page.elements if tag == "td" and "share" in str(cell.get("class")) and "data-sort" in cell]
    assert shares
    assert all(cell["data-sort"] == "" for cell in shares)
    for text in (page.text, plain(findings), reports["nothing"].markdown.read_text(encoding="utf-8")):
        assert "No change is detectable" in text
        assert "0.083" in text
        assert "not explained yet" not in text
        assert "all accepted together" not in text


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_no_page_asks_the_network(name: str, pages: dict[str, Page]) -> None:
    """No element loads anything: no src, links stay inside the page, styles fetch nothing, the policy forbids the rest."""
    page = pages[name]
    for tag, attributes in page.elements:
        assert "src" not in attributes
        assert "srcset" not in attributes
        assert str(attributes.get("href", "#")).startswith("#") or (tag, attributes.get("href")) == ("link", "data:,")
        assert tag not in LOADING - {"link"}
    assert not re.search(r"url\(|@import", "".join(page.raw["style"]))
    policy = next(str(a["content"]) for tag, a in page.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_hostile_texts_stay_text_in_the_page(reports: dict[str, ReportPaths], pages: dict[str, Page]) -> None:
    """Script tags, handlers, end tags, javascript: and data: URLs end up as words; hidden characters are written out by number."""
    page, innocent = pages["hostile"], pages["full"]
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
    count = [sum(tag == "script" for tag, _ in p.elements) for p in (page, innocent)]
    assert count[0] == count[1]
    assert page.raw["script"][1:] == innocent.raw["script"][1:]
    assert isinstance(json.loads(page.raw["script"][0]), dict)
    assert ATTACKS[0] in page.text
    assert "javascript:alert(4)" in page.text
    assert "U+202E" in page.text
    assert not [character for character in HIDDEN if character in page.text]
    assert "{{ 7 * 7 }}" in page.text
    assert reports["hostile"].html.stat().st_size < 8_000_000


def test_hostile_texts_stay_text_in_markdown(reports: dict[str, ReportPaths]) -> None:
    """Outside code fences no tag, link, image or table cell of a response's making is left."""
    text = reports["hostile"].markdown.read_text(encoding="utf-8")
    prose = re.sub(r"^(`{3,})text\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"<(?!/?(?:details|summary)>)", prose)) == set()
    assert not re.search(r"(?<!\\)\]\(", re.sub(r"<summary>.*?</summary>", "", prose))
    assert not [character for character in HIDDEN if character in text]
    tables = [block.splitlines() for block in prose.split("\n\n") if block.startswith("| ")]
    assert len(tables) > 10
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1, table[0]


def test_hostile_texts_do_not_reach_the_terminal(reports: dict[str, ReportPaths]) -> None:
    """No escape sequence, bell or direction override is written, whatever the width."""
    findings = read_findings(reports["hostile"].findings.parent)
    for width in (60, 120):
        assert not [character for character in plain(findings, width) if is_hidden(character)]


@pytest.mark.parametrize("attack", ["</script>", "</SCRIPT >", "<!--", "</style>"])
def test_raw_text_cannot_leave_its_element(attack: str) -> None:
    """Text for script and style elements that could end them is refused; the data block has nothing that could."""
    with pytest.raises(ValueError, match="stays inside"):
        RawText(f"x{attack}")
    block = data_block({attack: [attack]})
    assert "<" not in block
    assert json.loads(RawText(block).text) == {attack: [attack]}


@pytest.mark.parametrize("attack", ATTACKS)
def test_small_pieces_escape_every_attack(attack: str) -> None:
    """Markdown cells, fences and Plotly labels keep an attack inside."""
    assert not re.search(r"[<>\n]|(?<!\\)[|`\[]", escape(attack))
    fence, *body, end = fenced(attack).split("\n")
    assert fence == f"{end}text"
    assert not any(line.startswith(end) for line in body)
    assert not re.search(r"[<>$]|%{", label(attack))


def test_long_texts_are_cut_with_their_count() -> None:
    """A line of a million characters is shown in part, the rest counted; a quote far inside is found and shown."""
    text = "A" * 1_000_000 + "the quote" + "B" * 1_000_000
    part = excerpt(text, "The  quote")
    seen = "".join(piece.text for piece in part.segments)
    assert len(seen) + part.before + part.after == len(text)
    assert [piece.text for piece in part.segments if piece.marked] == ["the quote"]
    assert one_line(text, 100) == f"{'A' * 100}… ({len(text) - 100:,} more characters)"


def test_long_questions_are_kept_whole(reports: dict[str, ReportPaths], pages: dict[str, Page]) -> None:
    """A question of a thousand characters is folded away, not cut."""
    question = next(p.parameter.question for p in full().parameters if p.parameter.name == "writes lists")
    assert len(question) > 650
    assert question in pages["full"].text
    assert escape(question, 4000) in reports["full"].markdown.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_rebuild_gives_the_same_bytes(name: str, reports: dict[str, ReportPaths], tmp_path: Path) -> None:
    """Report files rebuilt from findings.json are byte-identical."""
    old = reports[name]
    new = write_all(read_findings(old.findings.parent), tmp_path)
    assert new.findings.read_bytes() == old.findings.read_bytes()
    assert new.markdown.read_bytes() == old.markdown.read_bytes()
    assert new.html.read_bytes() == old.html.read_bytes()


def test_published_schema_is_the_models() -> None:
    """The schema file equals `Findings.model_json_schema()`; `python -m agent.report.schema` renews it."""
    assert json.loads(SCHEMA_PATH.read_text(encoding="utf-8")) == Findings.model_json_schema()


def test_a_nan_is_refused_by_its_place(tmp_path: Path) -> None:
    """Missing is null: NaN in findings is refused with the place where it stands, and nothing is written."""
    broken = full().model_copy(update={"change": Estimate(estimate=float("nan"))})
    with pytest.raises(FindingsFileError, match=r"findings\.change\.estimate"):
        write_all(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "expected JSON"), ("[]", "another kind of file"), ('{"format": "order-parameter-findings", "version": 99}', "found 99")],
)
def test_foreign_findings_are_refused_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    """A broken, foreign or newer findings.json is refused in one line naming the file."""
    (tmp_path / "findings.json").write_text(content)
    with pytest.raises(FindingsFileError, match=message) as caught:
        read_findings(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("before", "after"), [("", ""), ("steps 18-24", "steps 26-32"), ("steps 18 to 24 (4 checkpoints)", "")])
def test_steps_are_said_once(before: str, after: str) -> None:
    """A side named by its steps is not followed by the same steps."""
    text = contrast_text(full().contrast.model_copy(update={"before": before, "after": after}))
    assert text.count("18") == 2  # the step and the 18 prompts
    assert text.count("32") == 1


def test_estimates_outside_their_range_are_flagged_not_clipped() -> None:
    """A share of 1.083 or -0.012 is printed as it is and marked; "-0.000" is never printed."""
    high, low = shown(Estimate(estimate=1.083, note="at most")), shown(Estimate(estimate=-0.012))
    assert (high.text, high.flag != "") == ("at most 1.083", True)
    assert (low.text, low.flag != "") == ("-0.012", True)
    assert number(-0.0001) == "0.000"


@pytest.mark.slow
def test_a_large_run_has_a_light_page(tmp_path: Path) -> None:
    """20 order parameters on 10,000 responses and 5,000 prompts: report.html weighs less than 8 MB and says which prompts it draws."""
    page = write_all(large(), tmp_path).html
    assert page.stat().st_size < 8_000_000
    assert "5000 prompts (200 with the largest shares are drawn)" in page.read_text(encoding="utf-8")
