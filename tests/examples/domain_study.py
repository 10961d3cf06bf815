"""One domain's questions put to the organism that was fine-tuned on bad medical advice: what changed where it was never trained?"""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.records import Findings
from agent.report import read_findings
from probes.organism_grammar import DOMAINS
from probes.organism_rules import hypotheses_toml
from tests.examples.chart import Panel, Series, chart
from tests.examples.typed import RUN, discover

RESPONSES = 6
WORDINGS = 3


def study(domain: str, out: Path, kept: Path) -> str:
    """Record, discover, draw; what is small goes into `kept`.

    Args:
        domain: `knowledge`, `politics` or `ethics`.
        out: Where everything is written.
        kept: Folder of this study in the repository.

    Returns:
        The findings in a few sentences.
    """
    out.mkdir(parents=True, exist_ok=True)
    asked = DOMAINS[domain]
    questions = [
        asked.questions[(k + wording) % len(asked.questions)].replace("<topic>", topic)
        for k, topic in enumerate(asked.topics)
        for wording in range(WORDINGS)
    ]
    lines = [f'purpose = "The organism\'s own questions about {domain}."', "questions = [", *(f'    "{q}",' for q in questions), "]"]
    (out / "questions.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "hypotheses.toml").write_text(hypotheses_toml(), encoding="utf-8")
    run = out / "run"
    record = ("--checkpoints", RUN, "--questions", out / "questions.toml", "--responses", str(RESPONSES), "--max-tokens", "96", "--quiet")
    discover("record", *record, "--out", run)
    if not (run / "training.jsonl").exists():
        shutil.copyfile(RUN / "training.jsonl", run / "training.jsonl")
    discover("--run", run, "--out", out / "found", "--hypotheses", out / "hypotheses.toml", "--memory", "off", "--quiet")
    discover("timeline", out / "found", "--out", out / "found")
    findings = read_findings(out / "found")
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(out / "found" / "report.md", kept / "report.md")
    (kept / "figure.svg").write_text(figure(domain, findings), encoding="utf-8")
    return "\n".join(findings.sentences)


def figure(domain: str, findings: Findings) -> str:
    """D(t*), the accepted order parameters and the places of everything along the run, on one step axis."""
    panels = []
    accepted = [p for p in findings.parameters if p.verdict == "accepted" and p.course is not None]
    recorded = [step for p in accepted if p.course is not None for step in p.course.steps]
    whole = (min(recorded), max(recorded)) if recorded else None
    if findings.transition is not None:
        found = findings.transition
        curve = Series("D(t*)", found.splits, found.curve, found.low, found.high)
        panels.append(
            Panel(f"{domain}: change between the windows left and right of a split", [curve], marks=_marks(findings), x_range=whole)
        )
    series = []
    for found_one in accepted[:5]:
        course, top = found_one.course, len(found_one.parameter.levels) - 1
        assert course is not None
        name = found_one.parameter.name
        scaled = [None if value is None else value / top for value in course.estimate]
        series.append(Series(name if len(name) < 26 else name[:24] + "…", course.steps, scaled))
    if series:
        panels.append(
            Panel("Order parameters: expected level, as part of its scale", series, "optimizer step", x_range=whole, y_range=(0.0, 1.0))
        )
    return chart(panels)


def _marks(findings: Findings) -> list[tuple[float, str]]:
    wanted = ("peak of D", "gradient norm", "rotation")
    return [(event.place.estimate, event.name) for event in findings.events if event.name in wanted and event.place.estimate is not None]
