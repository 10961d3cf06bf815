from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from agent.cli import app
from agent.errors import ConfigError
from agent.mechanism import comp_scores, mechanism_record, repeated_record
from agent.records import Estimate, EventRecord, MechanismRecord, Timeline
from agent.report.timeline_figure import PANELS, report_timeline, timeline_figure, timeline_of
from agent.timeline_command import lines, page
from probes.errors import SampleError
from tests.report_findings import full
from tracing.adapters import WEIGHTS
from tracing.errors import AdaptersError

MODULE = "base_model.model.model.layers.0.mlp.down_proj"


def write_adapters(folder: Path, path: np.ndarray, name: str = "checkpoint-{}", module: str = MODULE) -> Path:
    """Rank-1 adapters whose B follows `path` (n_steps, d_out), five optimizer steps apart."""
    for k, b in enumerate(path):
        step = folder / name.format(5 * k)
        step.mkdir(parents=True)
        tensors = {f"{module}.lora_A.weight": np.ones((1, 4), np.float32), f"{module}.lora_B.weight": b[:, None].astype(np.float32)}
        save_file(tensors, step / WEIGHTS)
        (step / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 1}')
    return folder


def corner(n: int = 61, at: int = 30) -> np.ndarray:
    """Unit steps along one axis, then along another."""
    t = np.arange(n)
    return np.stack([np.minimum(t, at), np.maximum(t - at, 0)], axis=1).astype(float)


def test_any_folder_of_adapters_has_the_known_local_cosines(tmp_path: Path) -> None:
    """METHOD 5 through files and command: one sharp corner of 90 degrees at checkpoint 30 (step 150), k = 10."""
    folder = write_adapters(tmp_path / "adapters", corner())
    result = CliRunner().invoke(app, ["timeline", str(folder), "--k", "10,5", "--json"], catch_exceptions=False)
    found = Timeline.model_validate_json(result.output)
    assert found.mechanism is not None
    curve = found.mechanism.cosine["10"]
    assert [curve[30 + distance] for distance in (0, 2, 5, 8, 10)] == pytest.approx([0, -0.243, -0.707, -0.970, -1], abs=5e-4)
    assert list(found.mechanism.cosine) == list(found.mechanism.cosine_normalised) == ["10", "5"]
    assert curve[9] is None
    assert found.mechanism.norms[60] == pytest.approx(np.hypot(30, 30), rel=1e-5)
    (event,) = found.events
    assert (event.name, event.kind, event.place.estimate) == ("rotation", "mechanism", 150.0)


def test_a_straight_adapter_has_no_rotation(tmp_path: Path) -> None:
    """A path that turns nowhere has no place of rotation and says so."""
    folder = write_adapters(tmp_path / "adapters", np.outer(np.arange(21.0), [1.0, 2.0]))
    assert "turns nowhere" in CliRunner().invoke(app, ["timeline", str(folder)], catch_exceptions=False).output


def test_what_never_moves_or_is_short_has_no_mechanism(tmp_path: Path) -> None:
    """Two checkpoints, equal ones, or none: nothing is made up."""
    assert mechanism_record(write_adapters(tmp_path / "two", corner(2))) is None
    assert mechanism_record(write_adapters(tmp_path / "still", np.ones((5, 2)))) is None
    assert mechanism_record(tmp_path) is None


def noisy_corners(tmp_path: Path, n: int, rng: np.random.Generator) -> list[Path]:
    """Runs around one corner of 90 degrees at checkpoint 30 (step 150)."""
    path = np.pad(corner(), ((0, 0), (0, 30)))
    walks = [0.2 * np.cumsum(rng.normal(size=path.shape), axis=0) * (np.arange(61) > 0)[:, None] for _ in range(n)]
    return [write_adapters(tmp_path / f"run-{k}", path + walk) for k, walk in enumerate(walks)]


def test_repeated_runs_give_the_rotation_an_interval(tmp_path: Path, rng: np.random.Generator) -> None:
    """Through files and command: the mean path of five noisy runs turns at the corner, with limits, in JSON, lines and figure."""
    first, *others = noisy_corners(tmp_path, 5, rng)
    again = [word for other in others for word in ("--again", str(other))]
    result = CliRunner().invoke(app, ["timeline", str(first), *again, "--json"], catch_exceptions=False)
    found = Timeline.model_validate_json(result.output)
    assert any("mean path of 5 runs" in line for line in lines(found))
    (event,) = [event for event in found.events if event.name == "rotation, mean of 5 runs"]
    assert event.place.estimate == pytest.approx(150, abs=5)
    assert event.place.low is not None
    assert event.place.high is not None
    assert event.place.low <= 150 <= event.place.high
    assert found.repeated is not None
    assert found.repeated.cosine[30] == pytest.approx(0, abs=0.15)
    figure = timeline_figure(found)
    assert figure is not None
    assert "local cosine, mean of 5 runs" in [trace.name for trace in figure.data]
    with pytest.raises(SampleError, match="at least 4 runs, found 3"):
        repeated_record([first, *others[:2]])


def test_runs_of_another_start_are_no_repeats(tmp_path: Path, rng: np.random.Generator) -> None:
    """Another initial adapter, or other steps: one line that says what is needed."""
    first, other = noisy_corners(tmp_path, 2, rng)
    for k in range(61):
        weights = other / f"checkpoint-{5 * k}" / WEIGHTS
        save_file(load_file(weights) | {f"{MODULE}.lora_A.weight": np.full((1, 4), 2, np.float32)}, weights)
    with pytest.raises(AdaptersError, match="the same initial A"):
        repeated_record([first, other])
    with pytest.raises(AdaptersError, match="expected the 61 steps"):
        repeated_record([first, write_adapters(tmp_path / "short", corner(5))])


def test_comp_scores_compare_last_adapters(tmp_path: Path) -> None:
    """Same direction of B: 1; orthogonal: 0; no module in common: one line."""
    paths = {"a": [[0, 0], [2, 0]], "b": [[0, 0], [5, 0]], "c": [[0, 0], [0, 3]]}
    folders = [write_adapters(tmp_path / name, np.array(path, float)) for name, path in paths.items()]
    scores = {pair: next(iter(modules.values())) for pair, modules in comp_scores(folders).items()}
    assert list(scores.values()) == pytest.approx([1.0, 0.0, 0.0])
    assert next(iter(scores)) == (str(folders[0]), str(folders[1]))
    other = write_adapters(tmp_path / "d", corner(3), module=MODULE.replace("0", "1"))
    with pytest.raises(AdaptersError, match="a module in common"):
        comp_scores([folders[0], other])


def test_a_recorded_run_has_transition_and_rotation_before_any_discovery(organism_run: Path) -> None:
    """Peak of D, gradient norm and rotation of the committed run, each with limits, and their lags; what is missing is said."""
    result = CliRunner().invoke(app, ["timeline", str(organism_run / "adapters")], catch_exceptions=False)
    assert "rotation" in result.output
    found = mechanism_record(organism_run)
    assert found is not None
    assert found.rotation is not None
    assert found.rotation.estimate == 38.0
    assert len(found.steps) == len(found.norms) == len(found.principal) == 61
    assert 0.5 < found.explained[0] < 1
    assert "nothing follows" in found.warning


def moved() -> MechanismRecord:
    """A small trajectory."""
    values = (None, -0.9, -0.1, -0.9, None)
    return MechanismRecord(
        steps=(0, 10, 20, 30, 40),
        modules=("m",),
        cosine={"1": values},
        cosine_normalised={"1": values},
        norms=(0, 1, 2, 3, 4),
        principal=((0, 0),) * 5,
        explained=(0.9, 0.1),
        warning="drift",
        rotation=Estimate(estimate=20, low=20, high=30, n=5),
        rotation_normalised=None,
    )


def test_the_figure_has_a_panel_for_everything_known() -> None:
    """Findings with log, curve, courses, events and adapters: five panels on one axis; the report's has the places; without any, none."""
    events = (
        EventRecord(name="peak of D", kind="behaviour", place=Estimate(estimate=20, low=18, high=22)),
        EventRecord(name="rotation", kind="mechanism", place=Estimate(estimate=30)),
    )
    findings = full().model_copy(update={"events": events})
    figure = timeline_figure(timeline_of(findings, moved()))
    assert figure is not None
    titles = [note.text for note in figure.layout.annotations]
    assert len(titles) == len(PANELS)
    assert titles[0] == "What happened when"
    small = report_timeline(findings)
    assert small is not None
    assert len(small.layout.annotations) == 1
    assert report_timeline(full().model_copy(update={"events": ()})) is None
    nothing = Timeline(source="x", events=(), order=(), training=None, mechanism=None, transition=None, courses=())
    assert timeline_figure(nothing) is None


def test_the_page_escapes_what_a_run_says() -> None:
    """A parameter's name is text, in the figure and in the lines."""
    attack = "<script>alert(1)</script>"
    event = EventRecord(name=attack, kind="behaviour", place=Estimate(estimate=3, low=2, high=4))
    hostile = Timeline(source=attack, events=(event,), order=(), training=None, mechanism=None, transition=None, courses=())
    assert attack not in page(hostile)


def test_courses_are_parts_of_their_scale() -> None:
    """Expected levels of scales of any length are drawn between 0 and 1."""
    found = timeline_of(full())
    assert found.courses
    values = [value for each in found.courses for value in each.course.estimate if value is not None]
    assert 0 <= min(values) <= max(values) <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere"], "expected a folder, found nothing"),
        (["{tmp}"], "expected a run directory or a folder of three LoRA adapters"),
        (["{tmp}", "--k", "0"], "expected --k as whole numbers from 1"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    """What was expected, what was found."""
    result = CliRunner().invoke(app, ["timeline", *(argument.format(tmp=tmp_path) for argument in arguments)])
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)


@pytest.mark.slow
def test_the_command_puts_a_recorded_run_on_one_axis(organism_run: Path, tmp_path: Path) -> None:
    """Without findings: peak of D and gradient norm near step 32, rotation at 38, lags with limits; page and JSON are written."""
    result = CliRunner().invoke(app, ["timeline", str(organism_run), "--out", str(tmp_path)], catch_exceptions=False)
    found = json.loads((tmp_path / "timeline.json").read_text())
    places = {event["name"]: event["place"]["estimate"] for event in found["events"]}
    assert {"peak of D", "gradient norm", "rotation"} <= set(places)
    assert places["peak of D"] < places["rotation"]
    assert all(pair["lag"]["low"] <= pair["lag"]["estimate"] <= pair["lag"]["high"] for pair in found["order"])
    assert "step 38" in result.output
    assert "plotly" in (tmp_path / "timeline.html").read_text().lower()
