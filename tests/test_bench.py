from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from agent.bench import answered, solve
from agent.bench_card import false_acceptances, interval_score, markdown, recalled, scorecard
from agent.bench_cells import Cell, chosen_cells, grid
from agent.bench_command import bench
from agent.bench_files import README, external_row, read_external
from agent.bench_grid import BenchOptions, exported, problems, scored_external, solved
from agent.bench_problems import N_LEVELS, POPULATION, Problem, World, problem, world
from agent.bench_rivals import RIVALS, readings
from agent.errors import ConfigError
from probes.synthetic import exact_change, exact_shares, reading_matrix
from tracing import load

QUICK = BenchOptions(tuple(chosen_cells(["responses-3/sides"])), 2, 0, 399)


def silent(phase: str, done: int, total: int) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def population() -> World:
    """The base cell's population."""
    return world(chosen_cells(["base"])[0], 0)


@pytest.fixture(scope="module")
def small() -> Problem:
    """A problem of 120 responses without likelihoods."""
    return next(problems(QUICK))


# ---- problems


def test_the_grid_spans_what_it_promises() -> None:
    """0 to 6 parameters, 2% to 100% affected, 6 to 60 prompts, 1 to 50 responses a side, with and without likelihoods; names are unique."""
    cells = grid()
    assert len({cell.name for cell in cells}) == len(cells)
    for key, low, high in (("n_prompts", 6, 60), ("n_each", 1, 50), ("affected", 0.02, 1.0)):
        values = [getattr(cell, key) for cell in cells]
        assert (min(values), max(values)) == (low, high)
    assert {len(cell.effects) for cell in cells} >= {0, 1, 2, 3, 6}
    for varied in ("correlation", "length_effect", "length_correlation", "missing"):
        assert {bool(getattr(cell, varied)) for cell in cells} == {False, True}
    assert {cell.likelihoods for cell in cells if cell.kappa < 1} == {False, True}


def test_a_judge_that_does_not_err_reads_the_planted_levels(population: World) -> None:
    """Every candidate's level stands in the text of every response, whatever order it is offered in."""
    one = problem(population, 0, 0)
    responses, planted = one.recording.responses, population.run.labels[list(one.order)]
    prompts = [int(text.removeprefix("Question ").removesuffix("?")) for text in responses.prompt]
    outcomes = [int(text.split("reply ")[1].split(":")[0]) for text in responses.completion]
    assert np.array_equal(readings(one), planted[:, prompts, outcomes])


def test_paraphrases_agree_with_their_original_as_often_as_planted(population: World) -> None:
    """A second reading with kappa .7 has the level of its original in .7 + .3/5 of the responses."""
    for k, planted in enumerate(population.planted):
        if planted.kind == "paraphrase":
            assert planted.of is not None
            agreement = np.mean(population.run.labels[k] == population.run.labels[planted.of])
            assert agreement == pytest.approx(0.7 + 0.3 / N_LEVELS, abs=0.01)


def test_exact_shares_without_reading_error_are_the_exact_shares(population: World) -> None:
    """Two derivations of D[O], by one set of normal equations and label by label, agree to rounding."""
    exact, run = population.shares(), population.run
    for subset in ([0], [1, 2], [0, 1, 3]):
        assert exact.change(subset) == pytest.approx(exact_change(run, [0], [1], run.labels[subset]), rel=1e-9)
    assert exact.change([]) == 0


def test_exact_shares_with_reading_error_are_what_noisy_labels_show(population: World, rng: np.random.Generator) -> None:
    """The formula for labels read with error agrees with labels that were read with error."""
    part = population.run.at_prompts(np.arange(60))
    matrix = reading_matrix(N_LEVELS, 0.7, 0.1)
    assert np.allclose(matrix.sum(axis=1), 1)
    formula = exact_shares(part, [0], [1], part.labels[:2], [matrix] * 2).change([0, 1])
    redrawn = []
    for _ in range(5):
        read = np.where(rng.random(part.labels[:2].shape) < 0.7, part.labels[:2], rng.integers(0, N_LEVELS, part.labels[:2].shape))
        redrawn.append(exact_change(part, [0], [1], np.where(rng.random(read.shape) < 0.1, -1, read)))
    assert formula == pytest.approx(np.mean(redrawn), rel=0.03)
    assert formula < 0.75 * exact_change(part, [0], [1], part.labels[:2])


def test_length_labels_follow_length_and_nothing_else() -> None:
    """A label that sees only length rises with the words of the response, a distractor does not."""
    of = world(Cell("length", length_labels=1, distractors=1), 3)
    corr = {p.kind: np.corrcoef(of.run.labels[k].ravel(), np.log(of.words.ravel()))[0, 1] for k, p in enumerate(of.planted)}
    assert corr["length"] > 0.85
    assert abs(corr["distractor"]) < 0.02


# ---- the loop on them


def test_the_same_seed_gives_the_same_numbers(small: Problem) -> None:
    """A problem made again and solved again gives the same row, seconds apart; another seed gives other responses."""
    again = problem(world(small.world.cell, 0), 0, 0)
    first, second = (solve(one, 399) for one in (small, again))
    assert first | {"seconds": 0} == second | {"seconds": 0}
    assert first["calls"] == len(set(small.recording.responses.text_key)) * sum(c["tested"] for c in first["candidates"])
    other = problem(world(small.world.cell, 1), 0, 1)
    assert other.recording.responses.completion != small.recording.responses.completion


@pytest.mark.slow
def test_large_effects_are_found_and_measured() -> None:
    """On the base problem both parameters are accepted, no distractor is, and the joint share has its exact value in the interval."""
    row = solve(problem(world(chosen_cells(["base"])[0], 0), 0, 0), 399)
    assert all(hit for _, hit in recalled(row))
    assert not any(false_acceptances(row, 1.0)["distractor"])
    joint = next(e for e in row["estimates"] if e["quantity"] == "joint")
    assert joint["low"] <= joint["truth"] <= joint["high"]


@pytest.mark.slow
def test_results_are_kept_and_not_computed_again(tmp_path: Path) -> None:
    """The same command reads what is there; more repeats add to it; a half-written line costs one problem; other settings are refused."""
    first = solved(QUICK, tmp_path, silent)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"calls": ', b'"calls": 1000'))
    assert [row["calls"] for row in solved(QUICK, tmp_path, silent)] == [int(f"1000{row['calls']}") for row in first]
    path.write_bytes(path.read_bytes()[:-20])
    assert solved(QUICK, tmp_path, silent)[1]["calls"] == first[1]["calls"]
    with pytest.raises(ConfigError, match="choose another folder"):
        solved(BenchOptions(QUICK.cells, 2, 1, 399), tmp_path, silent)


def test_a_distractor_stands_in_only_while_what_it_goes_with_is_missing() -> None:
    """Correlated .6 with a parameter it is no noise before that one is accepted, and noise after it; uncorrelated it always is."""
    one = problem(world(chosen_cells(["correlation-0.6"])[0], 0), 0, 0)
    other = problem(world(chosen_cells(["base"])[0], 0), 0, 0)
    for planted, expected in ((one, True), (other, False)):
        kinds = [p.kind for p in planted.planted]
        true, distractor = [j for j, kind in enumerate(kinds) if kind == "true"], kinds.index("distractor")
        first, last = (answered(planted, order)["candidates"][distractor] for order in ([distractor, *true], [*true, distractor]))
        assert (first["stands_in"], last["stands_in"]) == (expected, False)


# ---- scores


def candidate(name: str, kind: str, place: int | None = None, of: str | None = None, unique: float = 0.0) -> dict[str, Any]:
    """A candidate as a row has it."""
    verdict = {"tested": True, "round": 1, "accepted": place is not None, "place": place, "stands_in": False}
    return {"id": name, "kind": kind, "of": of, "unique": unique} | verdict


def test_a_paraphrase_is_false_only_after_as_good_a_reading() -> None:
    """After its original it is false; its original after it is false only when both are read with the same error."""
    after = {"candidates": [candidate("m0", "true", 0), candidate("m1", "paraphrase", 1, "m0")]}
    before = {"candidates": [candidate("m0", "true", 1), candidate("m1", "paraphrase", 0, "m0")]}
    alone = {"candidates": [candidate("m0", "true"), candidate("m1", "paraphrase", 0, "m0")]}
    nothing = {"candidates": [candidate("m0", "true"), candidate("m1", "paraphrase", None, "m0")]}
    assert [false_acceptances(row, 1.0)["paraphrase"] for row in (after, before, alone, nothing)] == [[True], [], [], []]
    assert [false_acceptances(row, 0.7)["paraphrase"] for row in (after, before, alone, nothing)] == [[True], [True], [False], []]
    assert [recalled(row)[0][1] for row in (after, before, alone, nothing)] == [True, True, True, False]


def test_scores_of_intervals_are_those_of_a_hand_computation() -> None:
    """Errors .1 and -.1, one interval that covers: bias 0, RMSE .1, coverage one half, and of the accepted one 0."""
    common = {"quantity": "share", "of": "m0"}
    one = common | {"accepted": True, "truth": 0.2, "estimate": 0.3, "low": 0.25, "high": 0.35}
    two = common | {"accepted": False, "truth": 0.2, "estimate": 0.1, "low": 0.0, "high": 0.3}
    bare = common | {"accepted": False, "truth": None, "estimate": 0.1, "low": None, "high": None}
    score = interval_score([one, two, bare])
    assert score == pytest.approx({"n": 2, "bias": 0, "rmse": 0.1, "coverage": 0.5, "coverage_accepted": 0.0, "width": 0.2})


def test_the_card_counts_rates_and_leaves_empty_what_there_was_nothing_to_count() -> None:
    """One run with one of two parameters and one distractor accepted: recall 1/2, precision 1/2; no paraphrases: no rate."""
    candidates = [candidate("m0", "true", 0, unique=0.3), candidate("m1", "true", unique=0.04), candidate("m2", "distractor", 1)]
    rest = {"detectable": True, "rounds": 2, "estimates": [], "times": [], "calls": 10, "seconds": 1.0}
    row = {"tool": "x", "problem": "base/000", "cell": "base", "candidates": candidates} | rest
    card = scorecard([row], 0)
    cell = card["cells"][0]
    assert (cell["recall"], cell["recall_large"], cell["precision"], cell["false_runs"]) == (0.5, 1.0, 0.5, 1.0)
    assert cell["paraphrase_accepted"] is None
    assert "| base | 1 | 50% | 100% | 50% | 100% | 100% |  |" in markdown(card)
    assert json.loads(json.dumps(card)) == card


# ---- rivals and other tools


def test_rivals_accept_what_moves(rng: np.random.Generator) -> None:
    """Each rule accepts a label that moves by half the scale; the first asks for .01 of it in the predicted direction and no more."""
    after = np.arange(400) % 2 == 1
    level = np.stack([np.where(after, 0.75, 0.25), rng.integers(0, 2, 400).astype(float)])
    for rule in RIVALS.values():
        assert 0 in rule(level, after, [1, 1], np.random.default_rng(0))
    assert RIVALS["direction"](np.where(after, 0.511, 0.5)[None], after, [1], rng) == [0]
    assert RIVALS["direction"](np.where(after, 0.511, 0.5)[None], after, [-1], rng) == []
    assert RIVALS["direction"](np.where(after, 0.509, 0.5)[None], after, [1], rng) == []


def test_exported_problems_hold_everything_but_the_truth(tmp_path: Path) -> None:
    """Our own importer reads an exported problem; the index names candidates and not which are true; nothing is exported on top."""
    assert exported(QUICK, tmp_path, silent) == 2
    index = json.loads((tmp_path / "problems.json").read_text())
    entry = index["problems"][0]
    assert not {"kind", "of", "unique", "effects"} & set(json.dumps(index).replace('"', " ").split())
    recording = load(tmp_path / entry["file"])
    assert recording.responses.side is not None
    assert len(recording.responses) == 2 * 20 * 3
    row = json.loads((tmp_path / entry["file"]).read_text().splitlines()[0])
    assert set(row["labels"]) == {c["id"] for c in entry["candidates"]}
    assert "--external" in (tmp_path / "README.md").read_text()
    with pytest.raises(ConfigError, match="new or empty folder"):
        exported(QUICK, tmp_path, silent)


def test_another_tools_answers_are_scored_like_ours(small: Problem, tmp_path: Path) -> None:
    """A tool that accepts exactly what is planted, with exact shares, has recall and precision 1 and covers; the rest is not scored."""
    exact = small.world.shares()
    true = [j for j, p in enumerate(small.planted) if p.kind == "true"]
    shares = [exact.change([small.order[j]]) for j in true]
    accepted = [{"id": f"m{j}", "share": s, "low": s - 0.01, "high": s + 0.01} for j, s in zip(true, shares, strict=True)]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"tool": "oracle", "seed": 0, "problems": {small.id: {"accepted": accepted, "calls": 5}}}))
    cell = scorecard(scored_external(QUICK, path, silent), 0)["cells"][0]
    assert (cell["tool"], cell["runs"], cell["recall"], cell["precision"], cell["calls"]) == ("oracle", 1, 1.0, 1.0, 5.0)
    assert cell["shares"]["share"]["coverage_accepted"] == 1.0
    assert cell["shares"]["share"]["rmse"] == pytest.approx(0.0, abs=1e-12)


def test_the_documented_answer_is_one_that_can_be_read(tmp_path: Path) -> None:
    """The example in the README of an export is a valid file of answers."""
    path = tmp_path / "answers.json"
    example = README[README.index('    {"tool"') :]
    path.write_text(example[: example.index("\n\n")])
    tool, answers = read_external(path, 0)
    assert (tool, answers["base/000"]["calls"]) == ("NAME", 800)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "expected"),
        ('{"problems": {"base/000": ["m0"]}}', "accepted"),
        ('{"seed": 4, "problems": {}}', "--seed 4"),
    ],
)
def test_a_wrong_file_of_answers_is_one_clear_line(content: str, message: str, tmp_path: Path) -> None:
    """What was expected is said in one line, whatever is wrong."""
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_external(path, 0)
    assert "\n" not in str(caught.value)


def test_answers_must_name_candidates_and_problems_that_exist(small: Problem, tmp_path: Path) -> None:
    """An unknown candidate, an unknown problem and a share that is no number are refused."""
    with pytest.raises(ConfigError, match="m99"):
        external_row(small, {"accepted": ["m99"]}, "x")
    with pytest.raises(ConfigError, match="expected a number"):
        external_row(small, {"accepted": [{"id": "m0", "share": "large"}]}, "x")
    path = tmp_path / "answers.json"
    path.write_text('{"problems": {"base/999": {"accepted": []}}}')
    with pytest.raises(ConfigError, match="base/999"):
        scored_external(QUICK, path, silent)


# ---- the command


def _command(*arguments: str) -> tuple[int, str, BaseException | None]:
    app = typer.Typer()
    app.command()(bench)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.exception


def test_the_command_lists_cells_and_writes_scorecards(tmp_path: Path) -> None:
    """--list names the grid; --json prints what --out keeps; an unknown cell is refused by name."""
    assert _command("--list")[1].split() == [cell.name for cell in grid()]
    code, shown, error = _command("--quick", "--only", "responses-1/sides", "--json", "--out", str(tmp_path))
    assert (code, error) == (0, None)
    assert json.loads(shown) == json.loads((tmp_path / "scorecard.json").read_text())
    assert (tmp_path / "scorecard.md").read_text().startswith("# Scorecard")
    for wrong in (["--only", "nosuch"], ["--out", str(tmp_path / "scorecard.md")], ["--export", "a", "--external", "b"]):
        assert isinstance(_command(*wrong)[2], ConfigError)


def test_every_cell_can_be_planted() -> None:
    """Each cell of the grid gives a problem with as many responses as it says and one mark per candidate."""
    for cell in grid():
        if cell.likelihoods and cell.n_prompts * cell.n_each <= 200:
            one = problem(world(cell, 5), 0, 5)
            anchors = 2 if cell.n_steps == 2 else 5
            assert len(one.recording.responses) == cell.n_prompts * cell.n_each * anchors
            assert len(one.planted) == len(one.script.candidates)
            assert cell.n_prompts <= POPULATION
