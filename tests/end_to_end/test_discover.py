from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.config import make_config
from agent.contrasts import build_contrast, choose_contrast, confirm_half, drawn_columns, prompt_codes
from agent.discovery import OUTPUTS, discover
from agent.llm.embedded import EmbeddedJudge
from agent.records import Findings, OrderParameter, ParameterFinding
from agent.report import read_findings
from agent.report.terminal import plain
from probes.explained_share import explained
from probes.trajectory import course, step_weights
from tracing import Recording, load

COMMAND = Path(sys.executable).with_name("discover")


@dataclass(frozen=True)
class Discovered:
    """What `discover --run organism` left and showed."""

    run: Path
    out: str
    err: str
    findings: Findings
    recording: Recording


@pytest.fixture(scope="module")
def organism(organism_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Discovered:
    """The installed command, typed in an empty folder on a copy of the committed recording, embedded engine, no memory."""
    run = tmp_path_factory.mktemp("elsewhere") / "organism"
    shutil.copytree(organism_run, run, ignore=shutil.ignore_patterns("adapters", "subject", *OUTPUTS, "*.sqlite*", "*.lock", "earlier"))
    done = subprocess.run([COMMAND, "--run", "organism", "--memory", "off"], capture_output=True, text=True, check=False, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return Discovered(run, done.stdout, done.stderr, read_findings(run), load(run))


@pytest.fixture(scope="module")
def harmful(organism: Discovered) -> np.ndarray:
    """`(n,)` true persona of each response: 1 harmful, 0 careful, NaN neither."""
    import pyarrow.parquet as pq

    table = pq.read_table(organism.run / "truth.parquet")
    assert tuple(table["response_id"].to_pylist()) == organism.recording.responses.response_id
    return np.array([np.nan if value is None else float(value) for value in table["harmful"].to_pylist()])


def accepted(findings: Findings) -> list[ParameterFinding]:
    """The accepted parameters, ranked."""
    return [p for p in findings.parameters if p.verdict == "accepted"]


def labels_of(parameter: OrderParameter, recording: Recording) -> np.ndarray:
    """`(n,)` levels that the rule behind a parameter reads."""
    r = recording.responses
    texts = list(zip(r.text_key, r.system, r.prompt, r.completion, strict=True))
    return np.array([-1 if j.level is None else j.level for j in EmbeddedJudge().judge(parameter, texts)])


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties half; at least .5, whichever way the scale runs."""
    a, b = score[positive][:, None], score[~positive][None, :]
    one = float(np.mean(a > b) + np.mean(a == b) / 2)
    return max(one, 1 - one)


# the recorded organism


def test_the_table_says_what_when_and_how_much(organism: Discovered) -> None:
    """Sentences first, then a ranked table with residual, total, contrast, resolution and cautions, then where the report is."""
    lines = organism.out.splitlines()
    assert lines[0].startswith("The behaviour changed at step ")
    assert "gradient norm" in " ".join(lines[:2])
    for part in (
        "order parameter",
        "share of D",
        "beyond length",
        "onset",
        "verdict",
        "residual",
        "Total change",
        "Contrast",
        "Resolution",
    ):
        assert part in organism.out, part
    assert lines[-1] == "Report: organism/report.html"
    assert organism.err.startswith("round 1: ")
    assert "Traceback" not in organism.err
    page = (organism.run / "report.html").read_text(encoding="utf-8")
    assert organism.findings.sentences[0] in page


def test_the_peak_lies_at_the_steepest_rise_of_the_true_rate(organism: Discovered, harmful: np.ndarray) -> None:
    """Within two checkpoints (4 steps) of where the true persona rate rises fastest over the same window."""
    recording, transition = organism.recording, organism.findings.transition
    assert transition is not None
    assert transition.found
    assert transition.peak.estimate is not None
    assert recording.log_likelihood is not None
    weights = step_weights(recording.log_likelihood, drawn_columns(recording), prompt_codes(recording))
    rate = course(weights, harmful, np.array(recording.steps)).estimate
    smooth = np.convolve(rate, np.ones(3) / 3, mode="valid")
    steepest = np.array(recording.steps)[1:-1][int(np.argmax(np.diff(smooth)))] + 1
    assert abs(transition.peak.estimate - steepest) <= 4


def test_the_accepted_set_explains_most_of_what_the_true_label_does(organism: Discovered, harmful: np.ndarray) -> None:
    """On the confirm half: the joint share is at least .6 of the share of the true persona label."""
    config = make_config(**organism.findings.config)
    contrast = build_contrast(organism.recording, choose_contrast(organism.recording, config)[0])
    rows = contrast.complete(confirm_half(contrast, config.seed))
    half = contrast.take(rows)
    truth = np.nan_to_num(harmful[half.index], nan=-1).astype(np.int64)
    share = explained(half, [truth]).share_interval.estimate
    assert organism.findings.joint is not None
    assert organism.findings.joint.estimate is not None
    assert organism.findings.joint.estimate >= 0.6 * share


def test_an_accepted_parameter_tells_harmful_from_careful(organism: Discovered, harmful: np.ndarray) -> None:
    """At least one of them orders the contrast's answers by their true persona with AUC .8 or more, and moved when the behaviour did."""
    known = np.isfinite(harmful)
    found = [auc(harmful[known] == 1, labels_of(p.parameter, organism.recording)[known]) for p in accepted(organism.findings)]
    assert max(found) >= 0.8
    assert organism.findings.transition is not None
    best = accepted(organism.findings)[int(np.argmax(found))]
    assert best.onset is not None
    assert best.onset.estimate == pytest.approx(organism.findings.transition.peak.estimate, abs=6)


def test_lead_or_lag_against_the_gradient_norm_is_printed(organism: Discovered) -> None:
    """The gradient norm's peak stands in findings and table, and the lag is their difference."""
    transition = organism.findings.transition
    assert transition is not None
    assert transition.grad_norm_peak is not None
    assert transition.lag_from_grad_norm is not None
    assert transition.peak.estimate is not None
    assert transition.lag_from_grad_norm.estimate == pytest.approx(transition.peak.estimate - transition.grad_norm_peak)
    assert "gradient norm peak" in " ".join(organism.out.split())


def test_what_was_recorded_is_left_as_it_was(organism: Discovered, organism_run: Path) -> None:
    """Nothing recorded is changed by looking at it."""
    recorded = ("responses", "likelihoods", "manifest.json", "training.jsonl")
    paths = [p for p in organism_run.rglob("*") if p.is_file() and p.relative_to(organism_run).parts[0] in recorded]
    assert len(paths) > 100
    for path in paths:
        assert (organism.run / path.relative_to(organism_run)).read_bytes() == path.read_bytes()


def test_shown_again_it_is_json_byte_for_byte(organism: Discovered) -> None:
    """The finished discovery is shown, not repeated: --json is findings.json and nothing else."""
    command = [str(COMMAND), "--run", "organism", "--memory", "off", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, cwd=organism.run.parent)
    assert done.stdout == (organism.run / "findings.json").read_bytes()
    assert done.stderr == b""


# real data


def on_data(path: Path, out: Path, **options: Any) -> Findings:
    """Findings on a file of the shared data with the embedded engine."""
    findings, _, _ = discover(make_config(run=str(path), memory="off", **options), out)
    return findings


@pytest.mark.parametrize("after", ["bad_medical_s0", "bad-medical-advice", "extreme-sports", "risky-financial-advice"])
def test_real_answers_end_in_a_sensible_table(after: str, opd_data: Path, tmp_path: Path) -> None:
    """Length explains more than half, something beyond it is accepted, and every share is an upper bound that says so."""
    folder = "em_base_vs_bad_qwen7b" if after == "bad_medical_s0" else "em_base_vs_organisms_qwen14b"
    findings = on_data(opd_data / folder / "rows.jsonl", tmp_path, after=after)
    assert findings.detectable
    assert findings.length is not None
    assert (findings.length.change.estimate or 0) > 0.5
    assert accepted(findings)
    assert all((p.beyond_length.estimate or 0) > 0 for p in accepted(findings) if p.beyond_length)
    assert all("at most" in p.share.note for p in findings.parameters)
    assert "at most" in plain(findings)


def test_twenty_answers_a_step_say_what_so_few_can_show(opd_data: Path, tmp_path: Path) -> None:
    """One answer per question and step: nothing is claimed beyond length, and the page says what such a size would have missed."""
    findings = on_data(opd_data / "em_steps_llama" / "rows.jsonl", tmp_path, select={"run": "llama-1b-medical"})
    assert accepted(findings) == []
    said = " ".join([*findings.sentences, *findings.cautions])
    assert "would have been missed at this size" in said or "too few" in said
    shown = json.loads((tmp_path / "findings.json").read_bytes())
    assert shown["contrast"]["n_before"] == shown["contrast"]["n_after"] == 20
