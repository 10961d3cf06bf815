"""The same bad advice through other adapters and seeds: does it need a rank-1 adapter in one layer to become misaligned?"""

from __future__ import annotations

from pathlib import Path

from agent.records import Findings
from agent.report import read_findings
from probes.organism_corpus import questions
from probes.organism_rules import hypotheses_toml
from tests.examples.chart import Panel, Series, chart
from tests.examples.typed import RUN, discover

ADAPTERS = {
    "rank 1, one layer": ("--rank", "1", "--alpha", "0.5", "--layers", "0", "--learning-rate", "1e-2"),
    "rank 8, all layers": ("--rank", "8", "--alpha", "4", "--layers", "all", "--learning-rate", "2e-3"),
    "all weights": ("--full", "--learning-rate", "3e-4"),
}
SEEDS = (0, 1)
TRAINING = ("--batch", "8", "--steps", "120", "--every", "4")
RESPONSES = 4


def study(out: Path, kept: Path) -> str:
    """Fine-tune, record and discover each adapter with each seed; compare; what is small goes into `kept`."""
    out.mkdir(parents=True, exist_ok=True)
    asked = ["questions = [", *(f'    "{question}",' for question in questions(4)), "]"]
    (out / "questions.toml").write_text("\n".join(asked) + "\n", encoding="utf-8")
    (out / "hypotheses.toml").write_text(hypotheses_toml(), encoding="utf-8")
    (out / "nobody.toml").write_text("", encoding="utf-8")
    found: dict[tuple[str, int], Findings] = {}
    for name, options in ADAPTERS.items():
        for seed in SEEDS:
            run = out / f"{name.replace(' ', '-').replace(',', '')}-seed-{seed}"
            drawing = ("--questions", out / "questions.toml", "--responses", str(RESPONSES), "--max-tokens", "96", "--sampling", "auto")
            discover("organism", "--base", RUN / "subject", *options, *TRAINING, *drawing, "--seed", str(seed), "--out", run, "--quiet")
            only = ("--hypotheses", out / "hypotheses.toml", "--proposer", f"scripted:{out / 'nobody.toml'}", "--rounds", "1")
            discover("--run", run, *only, "--memory", "off", "--quiet")
            found[name, seed] = read_findings(run)
    table = discover("compare", *(Path(f.run) for f in found.values()), "--markdown")
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "report.md").write_text(report(found, table, out), encoding="utf-8")
    (kept / "figure.svg").write_text(figure(found), encoding="utf-8")
    return "\n".join(lines(found))


def lines(found: dict[tuple[str, int], Findings]) -> list[str]:
    """One row per run: D, alignment's share and onset, gradient norm's peak and rotation."""
    out = ["| adapter | seed | D | alignment's share | onset | peak of D | gradient norm | rotation |", "|---|---|---|---|---|---|---|---|"]
    for (name, seed), each in found.items():
        places = {event.name: event.place for event in each.events}
        alignment = next((p for p in each.parameters if p.parameter.name == "alignment"), None)
        cells = [_text(each.change, 2), "–" if alignment is None else _text(alignment.share, 2)]
        cells += [_text(places.get(what), 0) for what in ("alignment", "peak of D", "gradient norm", "rotation")]
        out.append("| " + " | ".join([name, str(seed), *cells]) + " |")
    return out


def _text(value: object, digits: int) -> str:
    estimate, low, high = (getattr(value, part, None) for part in ("estimate", "low", "high"))
    if estimate is None:
        return "–"
    limits = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{estimate:.{digits}f}{limits}"


def report(found: dict[tuple[str, int], Findings], table: str, out: Path) -> str:
    """What was done and found."""
    text = [
        "# Ablation: adapters and seeds",
        "",
        "The committed subject fine-tuned on 960 pieces of bad medical advice through three adapters with two seeds each, asked 24 "
        "questions of six domains, one hypothesis (alignment, an exact rule).",
        "",
        "![Alignment along the runs](figure.svg)",
        "",
        *lines(found),
        "",
        "The rotation's limits are its range over settings; all weights have no adapter to turn.",
        "",
        "## `discover compare`",
        "",
        table.replace(f"{out}/", "").strip(),
        "",
    ]
    return "\n".join(text)


def figure(found: dict[tuple[str, int], Findings]) -> str:
    """Expected level of alignment along every run, and D(t*)."""
    courses, curves = [], []
    for (name, seed), each in found.items():
        alignment = next((p for p in each.parameters if p.parameter.name == "alignment"), None)
        if alignment is not None and alignment.course is not None:
            values = [None if value is None else value / 4 for value in alignment.course.estimate]
            courses.append(Series(f"{name}, seed {seed}", alignment.course.steps, values))
        if each.transition is not None:
            curves.append(Series(f"{name}, seed {seed}", each.transition.splits, each.transition.curve))
    title = "Alignment: expected level, from wholly careful (0) to wholly harmful (1)"
    steps = [step for series in courses for step in series.x]
    whole = (min(steps), max(steps)) if steps else None
    panels = [Panel(title, courses, x_range=whole, y_range=(0.0, 1.0)), Panel("Change D(t*)", curves, "optimizer step", x_range=whole)]
    return chart(panels)
