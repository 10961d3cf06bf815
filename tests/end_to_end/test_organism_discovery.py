"""The committed organism run, discovered from path to findings and held against the truth the loop never reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from agent.config import make_config
from agent.discovery import discover
from agent.judge import make_judge
from agent.proposer import make_proposer
from agent.records import Findings
from agent.workbench import Workbench
from probes.explained_share import explained
from probes.rules import Rule, levels
from probes.trajectory import course
from tracing import load


@pytest.fixture(scope="module")
def found(organism_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Findings, Workbench, np.ndarray]:
    """Findings, the workbench they came from, and the true harmful label of every response (NaN: a tie)."""
    folder = tmp_path_factory.mktemp("organism")
    config = make_config(run=str(organism_run), memory="off")
    findings, _, _ = discover(config, folder)
    work = Workbench(load(organism_run), config, folder, make_proposer("embedded"), make_judge("embedded"))
    truth = pq.read_table(organism_run / "truth.parquet").to_pydict()
    by_id = dict(zip(truth["response_id"], truth["harmful"], strict=True))
    harmful = [by_id[i] for i in work.recording.responses.response_id]
    return findings, work, np.array([np.nan if h is None else float(h) for h in harmful])


def test_the_transition_lies_where_the_persona_rises(found: tuple[Findings, Workbench, np.ndarray]) -> None:
    """The peak of the transition curve lies within two checkpoints of the steepest rise of the true persona rate."""
    findings, work, harmful = found
    assert findings.transition is not None
    assert findings.transition.found
    assert work.weights is not None
    rate = course(work.weights, harmful[work.contrast.index], np.array(work.recording.steps)).estimate
    steps = np.array(work.recording.steps, dtype=float)
    # over windows as wide as those of the curve, so that noise between neighbouring checkpoints does not decide
    window = findings.transition.window
    rises = [np.nanmean(rate[t : t + window]) - np.nanmean(rate[t - window : t]) for t in range(window, steps.size - window + 1)]
    steepest = window + int(np.argmax(rises))
    between = (steps[steepest - 1] + steps[steepest]) / 2
    assert findings.transition.peak.estimate == pytest.approx(between, abs=2 * (steps[1] - steps[0]))


def test_the_accepted_set_explains_what_the_persona_does(found: tuple[Findings, Workbench, np.ndarray]) -> None:
    """On the confirm half the accepted set's joint share is at least .6 of the true persona label's share."""
    findings, work, harmful = found
    label = np.where(np.isnan(harmful), -1, harmful)[work.confirm.index].astype(np.int64)
    true_share = explained(work.confirm, [label]).share_interval.estimate
    assert findings.joint is not None
    assert findings.joint.estimate is not None
    assert findings.joint.estimate >= 0.6 * true_share


def test_one_parameter_separates_harmful_from_careful(found: tuple[Findings, Workbench, np.ndarray]) -> None:
    """One accepted parameter separates harmful from careful answers with an AUC of at least .8 against truth."""
    findings, work, harmful = found
    rows = work.confirm.index[np.isfinite(harmful[work.confirm.index])]
    texts = [work.recording.responses.completion[i] for i in rows]
    areas = []
    for one in findings.parameters:
        if one.verdict == "accepted":
            assert one.parameter.rule is not None
            area = roc_auc_score(harmful[rows], levels(Rule.from_dict(one.parameter.rule), texts))
            areas.append(max(area, 1 - area))
    assert max(areas) >= 0.8


def test_the_lag_from_the_gradient_norm_is_printed(found: tuple[Findings, Workbench, np.ndarray]) -> None:
    """The first sentence says when the behaviour changed and how that lies to the gradient norm's peak."""
    findings, _, _ = found
    assert "behaviour changed at step" in findings.sentences[0]
    assert "gradient norm peaked" in findings.sentences[0]
