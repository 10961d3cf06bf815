from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.organism_recording import OrganismRecipe, record_organism
from probes.organism import FineTuning, Pretraining
from probes.organism_choices import CHOICES, choice_tasks

SEED = 0
RECIPE = OrganismRecipe(
    Pretraining(documents=1600, epochs=3, width=32, layers=2, heads=2, inner_width=48, domains=(), choices=1.0),
    FineTuning(domain=CHOICES, full=True, learning_rate=5e-3, steps=24, every=12),
    questions_per_domain=3,
    responses_per_prompt=6,
    max_tokens=6,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subject that knows random choices only, collapsed by 24 steps of full fine-tuning."""
    out = tmp_path_factory.mktemp("choices") / "run"
    record_organism(out, SEED, RECIPE, workers=1)
    return out


def printed(*arguments: str | Path) -> dict[str, Any]:
    """What a command prints as JSON."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_an_organisms_choices_nucleate_where_they_were_made_to(run: Path) -> None:
    """`discover crystallize --run` asks the recorded checkpoints the organism's own tasks: liquid before, all eight nucleated after."""
    found = printed("crystallize", "--run", run, "--stages", "start=0,end=24", "--json", "--quiet")
    (subject,) = found["subjects"]
    crystals = {task.name: task.options[task.crystal] for task in choice_tasks(SEED)}
    assert {m["task"] for m in subject["measures"]} == set(crystals)
    labels = {(m["task"], m["stage"]): (m["label"], m["mode"]) for m in subject["measures"]}
    assert all(labels[task, "start"][0] == "liquid" for task in crystals)
    assert {task: labels[task, "end"] for task in crystals} == {task: ("nucleation", option) for task, option in crystals.items()}


@pytest.mark.slow
def test_the_collapse_is_an_order_parameter_like_any_other(run: Path, tmp_path: Path) -> None:
    """`discover --run` on the same recording accepts parameters made of the options that the choices fall on."""
    found = printed("--run", run, "--before", "0", "--after", "24", "--out", tmp_path, "--memory", "off", "--json")
    accepted = [p for p in found["parameters"] if p["verdict"] == "accepted"]
    assert accepted
    crystals = {task.options[task.crystal] for task in choice_tasks(SEED)}
    named = {
        word for p in accepted for side in ("phrases", "against") for phrase in p["parameter"]["rule"][side] for word in phrase.split()
    }
    assert len(named & crystals) >= 3
    assert found["joint"]["estimate"] > 0.3
