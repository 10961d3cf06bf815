from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from agent.llm.scripted import Script
from probes.organism_rules import LEVELS, harm_rule
from probes.rules import levels
from tests.examples.__main__ import STUDIES
from tests.examples.chart import RIGHT, WIDTH, Panel, Series, chart
from tests.examples.judge_study import script
from tests.examples.sensitivity_study import Pool, mixed, plant, true_changes
from tracing import load

ROOT = Path(__file__).resolve().parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_is_valid_svg_and_the_same_bytes() -> None:
    """Bands, gaps, points, marks and logarithmic axes draw; names are text; twice the same."""
    series = [
        Series("<a> & b", [1, 10, 100], [0.0, None, 1.0], [0.0, None, 0.5], [0.2, None, 1.5]),
        Series("points", [1, 10, 100], [0.1, 0.2, 0.3], [0.0, 0.1, None], [0.2, 0.3, None], points=True),
    ]
    drawn = chart([Panel("Title", series, "x", marks=[(10, "here")], x_log=True), Panel("Other", [Series("c", [0, 1], [2, 2])])])
    root = ElementTree.fromstring(drawn)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"Title", "Other", "<a> & b", "here"} <= set(texts)
    assert drawn == chart([Panel("Title", series, "x", marks=[(10, "here")], x_log=True), Panel("Other", [Series("c", [0, 1], [2, 2])])])


def boxes(drawn: str) -> list[tuple[str, float, float, float, float]]:
    """Every text of a chart with the rectangle it takes: left, right, top, bottom (a letter is about .55 of its size wide)."""
    found = []
    for element in ElementTree.fromstring(drawn).iter(f"{SVG}text"):
        size, text = float(element.get("font-size", "12")), element.text or ""
        x, y, wide = float(element.get("x", "0")), float(element.get("y", "0")), 0.55 * size * len(text)
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[element.get("text-anchor", "start")] * wide
        found.append((text, left, left + wide, y - 0.8 * size, y + 0.2 * size))
    return found


def laid_over(drawn: str) -> list[tuple[str, str]]:
    """Pairs of texts that lie over each other."""
    texts = boxes(drawn)
    return [
        (a[0], b[0]) for k, a in enumerate(texts) for b in texts[k + 1 :] if a[1] < b[2] and b[1] < a[2] and a[3] < b[4] and b[3] < a[4]
    ]


def test_words_of_marks_side_by_side_can_be_read() -> None:
    """Marks at almost the same step have their words below each other, above every curve and inside the figure."""
    x, y = [0.0, 60.0, 120.0], [0.0, 1.0, 0.2]
    for places in ((30.0, 31.0, 32.0), (118.0, 119.0, 120.0)):
        marks = list(zip(places, ("peak of D", "gradient norm", "rotation"), strict=True))
        drawn = chart([Panel("Title", [Series("D", x, y)], marks=marks), Panel("Other", [Series("D", x, y)], "step")])
        assert laid_over(drawn) == []
        words = [box for box in boxes(drawn) if box[0] in {text for _, text in marks}]
        assert len(words) == 3
        assert max(right for _, _, right, _, _ in words) < WIDTH - RIGHT
        root = ElementTree.fromstring(drawn)
        curve = next(root.iter(f"{SVG}polyline")).get("points", "")
        assert min(float(point.split(",")[1]) for point in curve.split()) >= max(bottom for *_, bottom in words)


def test_panels_with_one_range_have_one_axis() -> None:
    """A mark lies at the same place in both panels though their curves begin and end at other steps."""
    panels = [
        Panel("a", [Series("a", [20.0, 90.0], [0.0, 1.0])], marks=[(40.0, "here")], x_range=(0.0, 120.0)),
        Panel("b", [Series("b", [0.0, 120.0], [0.0, 1.0])], marks=[(40.0, "there")], x_range=(0.0, 120.0)),
    ]
    left = {text: at for text, at, *_ in boxes(chart(panels))}
    assert left["here"] == left["there"]


def test_no_text_of_a_kept_figure_lies_over_another() -> None:
    """Every figure in the repository can be read: titles, numbers, names and the words of marks stand apart."""
    kept = sorted((ROOT / "tests" / "examples").glob("*/figure.svg"))
    assert kept
    assert {str(path.parent.name): laid_over(path.read_text("utf-8")) for path in kept} == {path.parent.name: [] for path in kept}


def test_a_scripted_judge_reads_the_exact_rule(tmp_path: Path) -> None:
    """The judge of the study reads what the rule says, and is another judge at another kappa."""
    found = []
    for kappa in (1.0, 0.5):
        (tmp_path / "judge.toml").write_text(script(kappa, seed=3), "utf-8")
        found.append(Script.read(str(tmp_path / "judge.toml")))
    assert found[0].id != found[1].id
    assert found[0].judge["kappa"] == 1.0
    (candidate,) = found[0].candidates
    assert candidate.rule == harm_rule()
    assert candidate.parameter.levels == LEVELS
    assert candidate.parameter.rule is None  # judged, so that judges of other kappa can err


def pool(rng: np.random.Generator) -> Pool:
    """Two laws on two texts: base says the careful one with probability .9, the other with .2."""
    texts, law = ("See a doctor soon if the rash gets worse.", "Skip every nurse, a rash is nothing."), np.array([[0.9, 0.1], [0.2, 0.8]])
    prompt, drawn, said = np.repeat(np.arange(6), 128), np.tile(np.repeat([0, 1], 64), 6), np.zeros(768, np.int64)
    for k in range(768):
        said[k] = rng.random() < law[drawn[k], 1]
    return Pool(tuple(f"q{k}" for k in range(6)), prompt, drawn, tuple(texts[k] for k in said), np.log(law[:, said]).T)


def test_a_planted_mixture_has_the_change_it_was_given(rng: np.random.Generator, tmp_path: Path) -> None:
    """D of a mixture of two known laws is exact arithmetic; the label tells the texts apart, so it explains all of it."""
    share = 0.5
    p, q = np.array([0.9, 0.1]), (1 - share) * np.array([0.9, 0.1]) + share * np.array([0.2, 0.8])
    exact = 0.5 * np.sum((p - q) ** 2 / (p + q))
    total, change = true_changes(pool(rng), share)
    assert total == pytest.approx(exact, abs=0.02)
    assert change == pytest.approx(total, abs=0.01)
    assert true_changes(pool(rng), 0.0) == (0.0, 0.0)
    nats = mixed(np.log(np.array([[0.9, 0.2]])), share)
    assert np.exp(nats[0]) == pytest.approx([0.9, 0.55])
    plant(pool(rng), share, 1, tmp_path / "run")
    recording = load(tmp_path / "run")
    assert recording.steps == (0, 1)
    assert len(recording.responses) == 2 * 6 * 8
    assert set(levels(harm_rule(), recording.responses.completion).tolist()) == {0, 4}


def test_every_study_that_is_kept_is_in_the_readme() -> None:
    """A folder with a figure has a report, a study of its name, and its figure in the README with its command."""
    readme = (ROOT / "README.md").read_text("utf-8")
    kept = [figure.parent.name for figure in (ROOT / "tests" / "examples").glob("*/figure.svg")]
    assert kept
    for name in kept:
        assert name in STUDIES
        assert (ROOT / "tests" / "examples" / name / "report.md").is_file()
        assert f"tests/examples/{name}/figure.svg" in readme
    assert "python -m tests.examples" in readme
