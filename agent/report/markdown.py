"""`report.md`: the findings as Markdown, for a pull request, a wiki or a pager."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence

from agent.records import EvidencePair, Findings
from agent.report.method import METHOD_LINES
from agent.report.ranking import (
    Row,
    contrast_text,
    flagged,
    further_text,
    joint,
    lag_text,
    missed_text,
    quantities,
    ranked,
    residual,
    row,
    total_text,
    undetectable_text,
)
from agent.report.reproduce import command_line
from agent.report.sensitivity import choices
from agent.report.shown import MISSING, NAME_LIMIT, number, p_value, shown, step
from agent.report.visible import excerpt, one_line, visible

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_LINE_START = re.compile(r"^(\s*(?:\d+(?=[.)]))?)([#+=.)-])")


def escape(text: str, limit: int = 300) -> str:
    """Untrusted `text` on one line, with nothing left that Markdown or HTML would read as markup."""
    flat = one_line(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINE_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", flat))


def markdown_report(findings: Findings) -> str:
    """The whole report; sections without content are left out."""
    from agent.report.reliability import markdown_blocks  # it is written with this module's tables

    sections: Iterable[Iterator[str]] = (
        _summary(findings),
        _ranked(findings),
        _cautions(findings),
        _transition(findings),
        _order(findings),
        _parameters(findings),
        markdown_blocks(findings),
        _checks(findings),
        _cost(findings),
        _method(),
        _reproduce(findings),
    )
    return "\n\n".join(block for section in sections for block in section) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table; cells are escaped by the caller."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _summary(findings: Findings) -> Iterator[str]:
    yield f"# What changed: {escape(findings.run)}"
    if findings.sentences:
        yield "\n".join(f"- {escape(sentence, 600)}" for sentence in findings.sentences)
    if undetectable_text(findings):
        yield f"**{undetectable_text(findings)}**"
    lines = [f"**Total change** {escape(total_text(findings), 600)}", f"**Contrast** {escape(contrast_text(findings.contrast), 600)}"]
    if lag_text(findings):
        lines.append(f"**Timing** {lag_text(findings)}")
    if findings.detectable and missed_text(findings):
        lines.append(f"**Resolution** {missed_text(findings)}")
    yield "  \n".join(lines)


def _ranked(findings: Findings) -> Iterator[str]:
    yield "## Ranked order parameters"
    header = ("", "order parameter", "share of D", "D[O]", "unique", "beyond length", "onset (step)", "judge", "verdict")
    lines = [_table_line(entry, str(entry.rank)) for entry in ranked(findings)]
    if findings.length:
        length = row(findings.length)
        lines.append(
            ["", "*length alone* (never a discovery)", length.share.line, length.change.line, "", "", length.onset.line, "exact", ""]
        )
    if findings.detectable:
        if findings.joint:
            lines.append(["", "*all accepted together*", joint(findings).line, "", "", "", "", "", ""])
        lines.append(["", "**residual**: not explained yet", residual(findings).line, "", "", "", "", "", ""])
    yield markdown_table(header, lines)
    if flagged(findings):
        yield "! lies outside 0 to 1: printed as estimated, never clipped."
    notes = [f"- {escape(entry.name, NAME_LIMIT)}: {escape(note)}" for entry in ranked(findings) for note in entry.notes]
    if notes:
        yield "\n".join(notes)


def _table_line(entry: Row, rank: str) -> list[str]:
    cells = (entry.share, entry.change, entry.unique, entry.beyond_length, entry.onset)
    parameter = entry.finding.parameter
    name = f"{escape(entry.name, NAME_LIMIT)} ({parameter.badge}{', human' if parameter.origin == 'human' else ''})"
    return [rank, name, *(cell.line for cell in cells), entry.reliability, entry.finding.verdict]


def _cautions(findings: Findings) -> Iterator[str]:
    if findings.cautions:
        yield "## What would make these numbers wrong"
        yield "\n".join(f"- {escape(caution, 600)}" for caution in findings.cautions)
    if findings.notes:
        yield "\n".join(f"- Note: {escape(note, 600)}" for note in findings.notes)


def _transition(findings: Findings) -> Iterator[str]:
    transition = findings.transition
    if transition is None:
        return
    yield "## Transition"
    found = "found" if transition.found else "none found"
    yield markdown_table(
        ("quantity", "value"),
        [
            ["transition", f"{found}: {escape(transition.reason, 600)}" if transition.reason else found],
            ["peak of D(t\\*)", f"step {shown(transition.peak, unit=False).line}"],
            ["prominence (times the median)", shown(transition.prominence, unit=False).line],
            ["window L", f"{transition.window} checkpoints a side"],
            *([["further transitions", further_text(findings)]] if findings.other_transitions else []),
            ["gradient norm peaks at step", step(transition.grad_norm_peak)],
            ["lag behind it (steps)", shown(transition.lag_from_grad_norm, unit=False).line],
            *_rotation(findings),
            ["effective sample size, 5th percentile", number(transition.ess_fifth_percentile, 1)],
            ["weight checks failed", f"{transition.weight_check_failures} of {transition.weight_checks}"],
        ],
    )
    if findings.prefix_change:
        yield "D of the first tokens of a response:"
        yield markdown_table(("first tokens", "D"), [[escape(key), number(value)] for key, value in findings.prefix_change.items()])


def _rotation(findings: Findings) -> list[list[str]]:
    place = findings.rotation.place if findings.rotation else None
    return [["LoRA adapter turns at step", shown(place, unit=False).line]] if place else []


def _order(findings: Findings) -> Iterator[str]:
    if findings.order:
        yield "## What moved before what"
        rows = [
            [escape(entry.first, NAME_LIMIT), escape(entry.second, NAME_LIMIT), shown(entry.lag, unit=False).line, _yes(entry.settled)]
            for entry in findings.order
        ]
        yield markdown_table(("first", "then", "steps between", "established"), rows)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _parameters(findings: Findings) -> Iterator[str]:
    for entry in ranked(findings):
        finding, parameter = entry.finding, entry.finding.parameter
        yield f"## {entry.rank}. {escape(entry.name, NAME_LIMIT)}"
        yield long_text("Definition", parameter.definition)
        yield long_text("Question to the judge", parameter.question)
        yield f"{finding.verdict.capitalize()} in round {finding.round}: {escape(finding.reason, 600) or 'no reason given'}."
        yield markdown_table(("quantity", "value", "responses"), _quantities(entry))
        if finding.levels:
            levels = finding.levels
            rows = [
                [str(k), escape(_level_name(parameter.levels, k)), number(before), number(after)]
                for k, (before, after) in enumerate(zip(levels.before, levels.after, strict=False))
            ]
            rows.append(["", "missing (not read)", number(levels.missing_before), number(levels.missing_after)])
            yield markdown_table(("level", "meaning", "before", "after"), rows)
            yield f"Judgements not read: {levels.refused} refused, {levels.unreadable} unreadable, {levels.cannot_tell} could not tell."
        for index, pair in enumerate(finding.evidence, start=1):
            yield from _pair(index, pair)


def long_text(title: str, text: str) -> str:
    """Untrusted `text` as a paragraph; past 300 characters folded away behind its beginning."""
    if len(text) <= 300:
        return f"{title}: {escape(text)}"
    return f"<details><summary>{title}: {in_html(text, 120)}</summary>\n\n{escape(text, 4000)}\n\n</details>"


def in_html(text: str, limit: int) -> str:
    """Untrusted `text` on one line inside an HTML element, where Markdown's backslashes would be shown."""
    return html.escape(one_line(text, limit))


def _level_name(levels: Sequence[str], k: int) -> str:
    return levels[k] if k < len(levels) else f"level {k}"


def _quantities(entry: Row) -> list[list[str]]:
    finding = entry.finding
    rows = [[name, shown(estimate).line, f"{estimate.n:,}"] for name, estimate in quantities(finding)]
    plain = (
        ("family-wise p-value", p_value(finding.p_value)),
        ("held against", p_value(finding.alpha)),
        ("Jensen-Shannon share", number(finding.jensen_shannon_share)),
        ("total-variation share", number(finding.total_variation_share)),
        ("onset (step)", shown(finding.onset, unit=False).line),
        (
            "10% and 90% of the way (steps)",
            f"{step(finding.t10)}, {step(finding.t90)}" if finding.t10 is not None or finding.t90 is not None else MISSING,
        ),
    )
    rows += [[name, value, ""] for name, value in plain if value != MISSING]
    rows += [[f"judge: {escape(name)}", number(value, 2), ""] for name, value in finding.reliability.items()]
    return rows


def _pair(index: int, pair: EvidencePair) -> Iterator[str]:
    yield f"<details><summary>Evidence {index}: {in_html(pair.prompt, 120)}</summary>"
    if pair.system:
        yield "System:\n\n" + fenced(pair.system)
    yield "Prompt:\n\n" + fenced(pair.prompt)
    for side, text, level, quote in (
        ("Before", pair.before, pair.before_level, pair.before_quote),
        ("After", pair.after, pair.after_level, pair.after_quote),
    ):
        reading = "not judged" if level is None else f"level {level}"
        quoted = f", quote: {escape(quote)}" if quote else ""
        yield f"{side} ({reading}{quoted}):\n\n" + fenced(text, quote)
    yield "</details>"


def fenced(text: str, quote: str | None = None) -> str:
    """Untrusted `text` in a code fence longer than any run of backticks in it, cut with a stated count."""
    part = excerpt(text, quote)
    body = "".join(f"<{piece.text}>" if piece.hidden else piece.text for piece in part.segments)
    if part.before:
        body = f"[{part.before:,} characters before this are not shown]\n{body}"
    if part.after:
        body = f"{body}\n[{part.after:,} more characters are not shown]"
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}"


def _checks(findings: Findings) -> Iterator[str]:
    yield "## Checks"
    if findings.null_run:
        null = findings.null_run
        counts = f": {null.accepted} of {null.tested} candidates accepted." if null.runs else "."
        yield f"Null run ({null.kind}, {null.runs} runs){counts} {escape(null.sentence, 600)}"
    else:
        yield "No null run was made."
    if findings.tests:
        yield "Ledger: every test made, whatever came out."
        header = ("round", "family", "order parameter", "responses", "gain", "p", "held against", "accepted", "reason")
        yield markdown_table(
            header,
            [
                [
                    str(test.round),
                    test.family,
                    escape(test.name, NAME_LIMIT),
                    f"{test.n:,}",
                    number(test.gain),
                    p_value(test.p_value),
                    p_value(test.alpha),
                    _yes(test.accepted),
                    escape(test.reason, 200),
                ]
                for test in findings.tests
            ],
        )
    if findings.screened:
        yield "Dropped before any response was judged on them:"
        rows = [[str(one.round), escape(one.name, NAME_LIMIT), escape(one.reason, 200)] for one in findings.screened]
        yield markdown_table(("round", "candidate", "reason"), rows)
    yield from _review(findings)
    yield from _sensitivity(findings)
    yield from _bound(findings)


def _review(findings: Findings) -> Iterator[str]:
    if findings.review is None:
        return
    said = {"accept": "Confirmed", "veto": "Vetoed", "reword": "Reworded", "hypothesis": "Added"}
    lines = []
    for entry in findings.review.decisions:
        words = [said[entry.kind], *(f"“{escape(name, NAME_LIMIT)}”" for name in (entry.name, entry.successor) if name)]
        lines.append(f"- {' '.join(words)}{f': {escape(entry.reason, 400)}' if entry.reason else ''}")
    yield "Reviewer:\n\n" + ("\n".join(lines) or "- Reviewed; nothing was changed.")
    rows = [
        [
            escape(a.name, NAME_LIMIT),
            str(a.labels),
            str(a.n),
            number(a.exact, 2),
            number(a.weighted_kappa, 2),
            number(a.krippendorff_alpha, 2),
        ]
        for a in findings.review.agreement
    ]
    if rows:
        header = ("labelled blind", "labels", "both read", "same level", "weighted kappa", "Krippendorff's alpha")
        yield markdown_table(header, rows)


def _sensitivity(findings: Findings) -> Iterator[str]:
    lines, other = choices(findings)
    if lines:
        yield "Sensitivity: what the numbers become under other choices."
        rows = [[escape(line.what), number(line.change), number(line.joint_share)] for line in lines]
        yield markdown_table(("choice", "D", "joint share"), rows)
    if other:
        yield "Further sensitivity:\n\n" + fenced(json.dumps(other, indent=2, ensure_ascii=False))


def _bound(findings: Findings) -> Iterator[str]:
    bound = findings.bound
    if bound is None:
        return
    yield f"Without likelihoods D is bounded below by how well a classifier tells the sides apart: {escape(bound.classifier)}."
    yield markdown_table(("classifier", "bound on the propose half"), [[escape(k), number(v)] for k, v in bound.candidates.items()])
    rows = [[number(predicted), number(observed), f"{n:,}"] for predicted, observed, n in bound.calibration]
    yield markdown_table(("predicted probability of before", "observed share of before", "responses"), rows)


def _cost(findings: Findings) -> Iterator[str]:
    yield "## Cost"
    roles = f"Proposer {escape(findings.proposer)}, judge {escape(findings.judge)}."
    yield f"{findings.rounds} rounds; stopped: {escape(findings.stopped)}. {roles}"
    if findings.cost:
        header = ("role", "provider", "round", "calls", "input tokens", "of these cached", "output tokens", "USD")
        yield markdown_table(
            header,
            [
                [
                    escape(line.role),
                    escape(line.provider),
                    str(line.round),
                    f"{line.calls:,}",
                    f"{line.input_tokens:,}",
                    f"{line.cached:,}",
                    f"{line.output_tokens:,}",
                    "price unknown" if line.usd is None else f"{line.usd:.4f}",
                ]
                for line in findings.cost
            ],
        )


def _method() -> Iterator[str]:
    yield "## Method"
    yield "\n".join(f"{k}. {line.text}{f' `{line.formula}`' if line.formula else ''}" for k, line in enumerate(METHOD_LINES, start=1))


def _reproduce(findings: Findings) -> Iterator[str]:
    yield "## How to reproduce"
    yield fenced(command_line(findings))
    rows = [["run digest", escape(findings.run_digest)], ["seed", str(findings.seed)]]
    rows += [[f"template prompts/{escape(name)}.md", escape(digest)] for name, digest in findings.templates.items()]
    rows += [[escape(name), escape(version)] for name, version in findings.versions.items()]
    yield markdown_table(("what", "value"), rows)
    yield "Options:\n\n" + fenced(visible(json.dumps(findings.config, indent=2, ensure_ascii=False)))
