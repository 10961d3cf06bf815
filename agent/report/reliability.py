"""How far the judge can be relied on, for terminal, Markdown and HTML: every other reading held against the judge's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.records import Estimate, Findings, ParameterFinding, ReadingAgreement
from agent.report.ranking import ranked
from agent.report.shown import NAME_LIMIT, number, shown
from agent.report.visible import one_line

if TYPE_CHECKING:
    from markupsafe import Markup

TITLE = "How far the judge can be relied on"
HEADER = (
    "order parameter",
    "read again by",
    "responses",
    "same level",
    "weighted kappa",
    "alpha",
    "missing before",
    "missing after",
    "kappa of missing",
    "share without reading error",
)
_NAMES = {"repeat": "the judge once more", "other words": "its rubric reworded", "second judge": "second judge", "human": "person"}
EXPLAINED = (
    "Kappa has quadratic weights, alpha (Krippendorff) the ordinal metric; both are of responses with a level both times. A share without "
    "reading error is on the numeric scale of the levels (without likelihoods it is D[O]); repeats and rewordings share the judge's own "
    "errors, so that it is still too small where only they are known."
)


def measured(findings: Findings) -> list[ParameterFinding]:
    """The order parameters that something is known about, in the order of the report."""
    return [
        entry.finding for entry in ranked(findings) if entry.finding.agreement or (entry.finding.levels and entry.finding.levels.quotes)
    ]


def rows(findings: Findings) -> Iterator[list[str]]:
    """Cells of the table, untrusted names and readers as they are."""
    for finding in measured(findings):
        for found in finding.agreement:
            yield [finding.parameter.name, _reader(found), *_numbers(found)]


def _reader(found: ReadingAgreement) -> str:
    name = _NAMES[found.reading]
    return f"{name} ({found.reader})" if found.reading in ("second judge", "human") else name


def _numbers(found: ReadingAgreement) -> list[str]:
    return [
        f"{found.n_both:,} of {found.n_read:,}",
        number(found.exact, 2),
        _with_interval(found.weighted_kappa),
        _with_interval(found.krippendorff_alpha),
        number(found.missing_before, 2),
        number(found.missing_after, 2),
        number(found.missing_kappa, 2),
        shown(found.noise_free_share).line,
    ]


def _with_interval(agreement: Estimate) -> str:
    """Agreement may be below 0: worse than chance is no mistake of the number."""
    if agreement.estimate is None or agreement.low is None or agreement.high is None:
        return number(agreement.estimate, 2)
    return f"{number(agreement.estimate, 2)} [{number(agreement.low, 2)}, {number(agreement.high, 2)}]"


def sentences(findings: Findings) -> list[str]:
    """One line for each parameter: alpha, the range of the share without reading error, quotes that do not occur."""
    out = []
    for finding in measured(findings):
        parts = []
        numbers = finding.reliability
        if numbers.get("krippendorff_alpha") is not None:
            parts.append(f"alpha {number(numbers['krippendorff_alpha'], 2)}")
        low, high = numbers.get("noise_free_share_low"), numbers.get("noise_free_share_high")
        if low is not None and high is not None:
            range_ = number(low) if number(low) == number(high) else f"{number(low)} to {number(high)}"
            parts.append(f"{_what(finding)} without reading error {range_}")
        parts += [
            f"{_reader(found)}: kappa {number(found.weighted_kappa.estimate, 2)}"
            for found in finding.agreement
            if found.reading == "human" and finding.verdict == "accepted"
        ]
        levels = finding.levels
        if levels and levels.quotes:
            parts.append(f"{levels.quotes_dropped:,} of {levels.quotes:,} quotes do not occur in the response")
        if parts:
            out.append(f"“{finding.parameter.name}”: {'; '.join(parts)}")
    return out


def _what(finding: ParameterFinding) -> str:
    return "D[O]" if any(found.noise_free_share.note == "of D[O]" for found in finding.agreement) else "share"


def terminal_line(findings: Findings) -> str:
    """For the terminal: the accepted ones' sentences; "" when nothing was measured."""
    accepted = findings.model_copy(update={"parameters": tuple(p for p in findings.parameters if p.verdict == "accepted")})
    return one_line("; ".join(sentences(accepted)), 600)


def markdown_blocks(findings: Findings) -> Iterator[str]:
    """For `report.md`; nothing when nothing was measured."""
    from agent.report.markdown import escape, markdown_table

    if not measured(findings):
        return
    yield f"## {TITLE}"
    yield "\n".join(f"- {escape(line, 600)}" for line in sentences(findings))
    cells = [[escape(name, NAME_LIMIT), escape(reader, NAME_LIMIT), *numbers] for name, reader, *numbers in rows(findings)]
    if cells:
        yield markdown_table(HEADER, cells)
        yield EXPLAINED


def html_section(findings: Findings) -> Markup:
    """For `report.html`: a section, every text escaped; empty when nothing was measured."""
    from markupsafe import Markup

    if not measured(findings):
        return Markup("")
    lines = Markup("").join(Markup("<li><bdi>{}</bdi></li>\n").format(one_line(line, 600)) for line in sentences(findings))
    cells = [
        Markup("<tr>{}</tr>\n").format(Markup("").join(Markup("<td><bdi>{}</bdi></td>").format(one_line(c, NAME_LIMIT)) for c in row))
        for row in rows(findings)
    ]
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in HEADER)
    table = Markup('<div class="scroll"><table><thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody></table></div>\n<p>{}</p>\n').format(
        head, Markup("").join(cells), EXPLAINED
    )
    return Markup('<section id="judge" aria-labelledby="judge-title">\n<h2 id="judge-title">{}</h2>\n<ul>\n{}</ul>\n{}</section>\n').format(
        TITLE, lines, table if cells else Markup("")
    )
