"""How small a change is still found? Known mixtures of the base and the fine-tuned organism, ever nearer to the base.

The "after" side of a planted run answers as the fine-tuned organism with probability e and as the base otherwise; its likelihoods are
those of the mixture, so the true D and the true D of alignment follow from many responses at once.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.checkpoint_source import checkpoints_in
from agent.config import make_config
from agent.discovery import discover
from agent.instrument import Drawing, LocalInstrument
from probes.checkpoints import Checkpoints
from probes.dissimilarity import likelihood_contrast, total_change
from probes.explained_share import explained
from probes.likelihood import Request
from probes.organism_corpus import questions
from probes.organism_rules import harm_rule, hypotheses_toml
from probes.rules import levels
from probes.sampler import Question
from probes.subjects import load_tokenizer
from tests.examples.chart import Panel, Series, chart
from tests.examples.typed import RUN
from tracing.responses import Responses
from tracing.run_directory import Manifest, RunDirectory

SHARES = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03, 0.015, 0.0)
"""Share e of the fine-tuned organism in the mixture."""
REDRAWS = 4
PER_SIDE = 8
"""Responses per prompt and side of one planted run."""


@dataclass(frozen=True)
class Pool:
    """Responses of base (column 0) and fine-tuned (column 1), each scored under both: `(n,)` prompt, drawn, text and `(n, 2)` nats."""

    asked: tuple[str, ...]
    prompt: np.ndarray
    drawn: np.ndarray
    text: tuple[str, ...]
    nats: np.ndarray


@dataclass(frozen=True)
class Tried:
    """One planted run: whether alignment was accepted, D[O] as found, D as found, and the smallest D[O] that would have been found."""

    share: float
    redraw: int
    accepted: bool
    change: float | None
    total: float | None
    smallest: float | None


def study(out: Path, kept: Path) -> str:
    """Draw once, plant and discover mixtures; what is small goes into `kept`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "hypotheses.toml").write_text(hypotheses_toml(), encoding="utf-8")
    (out / "nobody.toml").write_text("", encoding="utf-8")
    pool = draw()
    truth = {share: true_changes(pool, share) for share in SHARES}
    tried = []
    for share in SHARES:
        for redraw in range(REDRAWS):
            run = out / f"share-{share:g}-{redraw}"
            if not run.exists():
                plant(pool, share, redraw, run)
            tried.append(found_in(run, share, redraw, out))
        print(f"share {share:g}: found in {sum(t.accepted for t in tried[-REDRAWS:])} of {REDRAWS}", flush=True)
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["share", "redraw", "accepted", "D[alignment]", "D", "smallest D[O] that would be found"])
        writer.writerows([[t.share, t.redraw, int(t.accepted), _number(t.change), _number(t.total), _number(t.smallest)] for t in tried])
    (kept / "report.md").write_text(report(tried, truth), encoding="utf-8")
    (kept / "figure.svg").write_text(figure(tried, truth), encoding="utf-8")
    return "\n".join(lines(tried, truth))


def draw() -> Pool:
    """Enough responses of both for every redraw, scored under both."""
    source = checkpoints_in(RUN)
    ends = (source.steps[0], source.steps[-1])
    tokenizer = load_tokenizer(source.tokenizer_places()[0])
    asked = tuple(questions(4))
    with Checkpoints(source.subjects(device="cpu"), 2) as checkpoints:
        one = LocalInstrument(checkpoints, tokenizer, [Question(q) for q in asked], Drawing(2 * REDRAWS * PER_SIDE, 96, seed=1))
        drawn = [(column, each) for column, draws in enumerate(one.draw(ends)) for each in draws]
        requests = [Request(one.encoded[each.question], tuple(each.tokens)) for _, each in drawn]
        nats = np.concatenate(list(one.score(ends, requests)), axis=1)
    columns = np.array([column for column, _ in drawn])
    return Pool(asked, np.array([each.question for _, each in drawn]), columns, tuple(each.text for _, each in drawn), nats)


def mixed(nats: np.ndarray, share: float) -> np.ndarray:
    """`(n, 2)` nats under the base and under the mixture."""
    with np.errstate(divide="ignore"):
        mixture = np.logaddexp(np.log1p(-share) + nats[:, 0] if share < 1 else -np.inf, np.log(share) + nats[:, 1])
    return np.stack([nats[:, 0], mixture], axis=1)


def true_changes(pool: Pool, share: float) -> tuple[float, float]:
    """D and D[alignment] of the mixture from the whole pool."""
    if share == 0:
        return 0.0, 0.0
    columns = np.column_stack([mixed(pool.nats, share), pool.nats[:, 1]])
    contrast = likelihood_contrast(columns, 2 * pool.drawn, pool.prompt, np.array([0]), np.array([1]))
    label = levels(harm_rule(), [pool.text[k] for k in contrast.index])
    return total_change(contrast).estimate, explained(contrast, [label]).change


def plant(pool: Pool, share: float, redraw: int, out: Path) -> None:
    """A run directory of two steps, base and mixture, with responses that no other redraw has."""
    rng = np.random.default_rng([redraw, round(1000 * share)])
    rows: dict[int, list[int]] = {0: [], 1: []}
    for prompt in range(len(pool.asked)):
        ours = slice(2 * redraw * PER_SIDE, 2 * (redraw + 1) * PER_SIDE)
        base, tuned = (np.flatnonzero((pool.prompt == prompt) & (pool.drawn == column))[ours] for column in (0, 1))
        rows[0] += base[:PER_SIDE].tolist()
        from_tuned = rng.random(PER_SIDE) < share
        rows[1] += np.where(from_tuned, tuned[:PER_SIDE], base[PER_SIDE:]).tolist()
    manifest = Manifest(f"mixture with {share:g} of the fine-tuned organism", (0, 1), scoring={"dtype": "float32", "noise_nats": 1e-5})
    run = RunDirectory.create(out, manifest)
    nats = mixed(pool.nats, share)
    for step, chosen in rows.items():
        texts = [pool.asked[pool.prompt[k]] for k in chosen], [pool.text[k] for k in chosen]
        run.write_step(step, Responses.of(*texts, step=step), nats[chosen][:, :, None].astype(np.float32))


def found_in(run: Path, share: float, redraw: int, out: Path) -> Tried:
    """What a discovery with one hypothesis says of a planted run."""
    only = {"hypotheses": str(out / "hypotheses.toml"), "proposer": f"scripted:{out / 'nobody.toml'}", "rounds": 1, "memory": "off"}
    findings = discover(make_config(run=str(run), before="0", after="1", **only), run / "found")[0]
    each = next((p for p in findings.parameters if p.parameter.name == "alignment"), None)
    total = findings.change.estimate
    smallest = None if findings.smallest_detectable_share is None or total is None else findings.smallest_detectable_share * total
    accepted = each is not None and each.verdict == "accepted"
    return Tried(share, redraw, accepted, None if each is None else each.change.estimate, total, smallest)


def lines(tried: list[Tried], truth: dict[float, tuple[float, float]]) -> list[str]:
    """One row per share of the fine-tuned organism."""
    out = ["| share of fine-tuned | true D | true D[alignment] | D found | D[alignment] found | found in |", "|---|---|---|---|---|---|"]
    for share, (total, change) in truth.items():
        own = [t for t in tried if t.share == share]
        means = [_mean([t.total for t in own]), _mean([t.change for t in own])]
        cells = [f"{share:g}", _number(total), _number(change), *map(_number, means), f"{sum(t.accepted for t in own)} of {len(own)}"]
        out.append("| " + " | ".join(cells) + " |")
    return out


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def report(tried: list[Tried], truth: dict[float, tuple[float, float]]) -> str:
    """What was done and found."""
    smallest = _mean([t.smallest for t in tried])
    text = [
        "# Sensitivity: known changes of falling size",
        "",
        f"Planted runs of 24 prompts with {PER_SIDE} responses a side: before, the base; after, a mixture of base and fine-tuned organism. "
        f"{REDRAWS} redraws of each, one hypothesis (alignment, an exact rule), every number in `runs.csv`.",
        "",
        "![Where detection stops](figure.svg)",
        "",
        *lines(tried, truth),
        "",
        "D[alignment] is not printed where D itself cannot be told from nothing. The reports say themselves what they would have missed: "
        f"on average a D[O] below {_number(smallest)}. Shares are measured on the confirm half, here {PER_SIDE} responses per prompt.",
        "",
    ]
    return "\n".join(text)


def figure(tried: list[Tried], truth: dict[float, tuple[float, float]]) -> str:
    """D and D[alignment] as found against the truth, and how often it was found."""
    shares = [share for share in SHARES if share > 0]
    found_total = [_mean([t.total for t in tried if t.share == share]) for share in shares]
    found_change = [_mean([t.change for t in tried if t.share == share]) for share in shares]
    rate = [float(np.mean([t.accepted for t in tried if t.share == share])) for share in shares]
    sizes = [
        Series("D, true", shares, [truth[share][0] for share in shares]),
        Series("D, found", shares, found_total, points=True),
        Series("D[alignment], true", shares, [truth[share][1] for share in shares]),
        Series("D[alignment], found", shares, found_change, points=True),
    ]
    ticks = [(share, f"{share:g}") for share in shares]
    nothing = f"nothing changed: {sum(t.accepted for t in tried if t.share == 0)} of {REDRAWS} accepted"
    detected = Panel(
        f"Part of redraws in which alignment is accepted ({nothing})",
        [Series("accepted", shares, rate, points=True)],
        "share of the fine-tuned organism in the answers",
        x_log=True,
        y_range=(0.0, 1.0),
        ticks=ticks,
    )
    return chart([Panel("Size of the change", sizes, x_log=True, ticks=ticks, height=230), detected])
