from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from probes.crystal_seed import find_seed
from probes.crystallization import Crystallization, crystallize, over_subjects, permuted
from probes.errors import SampleError
from probes.finite_choice import Answers, Choice, clusters, each_entropy, entropy, js_distance, js_distances, left_out_entropy
from probes.moderated import Prior, fit_prior, holm, paired_difference, unpaired_difference

STAGES = ("pretrained", "sft", "rl")
SIZES = (2, 4, 6, 10)


def _answers(p: Sequence[Sequence[float]], n: Sequence[float] | None = None) -> Answers:
    return Answers(np.array(p, dtype=float), np.full(len(p), np.inf) if n is None else np.array(n, dtype=float))


# entropy, distances, clusters


def test_exact_entropies_are_the_textbook_ones() -> None:
    """Uniform: log n; certain: 0; the mean of two certain answers: log 2."""
    answers = _answers([[0.25] * 4, [1, 0, 0, 0], [0, 1, 0, 0]])
    assert each_entropy(answers) == pytest.approx([math.log(4), 0, 0])
    assert entropy(_answers([[1, 0], [0, 1]])) == pytest.approx(math.log(2))
    left_out = [entropy(_answers(np.delete(answers.p, k, axis=0).tolist())) for k in range(3)]
    assert left_out_entropy(answers) == pytest.approx(left_out)


def test_entropy_of_counts_is_corrected(rng: np.random.Generator) -> None:
    """From 40 draws of ten options the plug-in entropy is .1 nats too low on average, the corrected one less than .02.

    That of six such phrasings together is wrong by less than .01.
    """
    law = rng.dirichlet(np.full(10, 5.0))
    exact = entropy(_answers([law.tolist()]))
    p = rng.multinomial(40, law, size=(1000, 6)) / 40
    single = np.array([each_entropy(Answers(each, np.full(6, 40.0))) for each in p])
    together = np.array([entropy(Answers(each, np.full(6, 40.0))) for each in p])
    plug_in = np.array([each_entropy(_answers(each)) for each in p])
    assert plug_in.mean() - exact < -0.09
    assert abs(single.mean() - exact) < 0.02
    assert abs(together.mean() - exact) < 0.01


def test_jensen_shannon_distance_knows_its_ends() -> None:
    """0 for the same, 1 for disjoint answers; sampling alone makes no distance on average."""
    assert js_distance(_answers([[0.3, 0.7]]), _answers([[0.3, 0.7]])) == pytest.approx(0)
    assert js_distance(_answers([[1, 0]]), _answers([[0, 1]])) == pytest.approx(1)
    table = js_distances(_answers([[1, 0], [0, 1], [0.5, 0.5]]))
    assert table[0, 1] == pytest.approx(1)
    assert table[0, 2] == pytest.approx(math.sqrt(1.5 - 0.75 * math.log2(3)))  # entropy of (3/4, 1/4) less half a bit
    assert (table == table.T).all()


def test_phrasings_that_answer_alike_are_one_cluster() -> None:
    """Two groups of near-equal answers are two clusters, numbered as they appear."""
    near_uniform, certain = [0.26, 0.25, 0.25, 0.24], [0.97, 0.01, 0.01, 0.01]
    assert clusters(_answers([certain, near_uniform, certain, near_uniform])).tolist() == [0, 1, 0, 1]
    assert clusters(_answers([certain])).tolist() == [0]


def test_a_distribution_is_checked() -> None:
    """More than all the mass, less than none, no mass on the options and a single option are refused; rounding is not."""
    assert Choice("s", "t", "p", (0.6, 0.41)).outside == 0
    assert Choice("s", "t", "p", (0.6, 0.1)).outside == pytest.approx(0.3)
    assert Choice("s", "t", "p", (0.6, 0.2)).conditional == pytest.approx([0.75, 0.25])
    for p in ((0.7, 0.5), (1.1, -0.2), (0.0, 0.0), (math.nan, 0.5), (1.0,)):
        with pytest.raises(SampleError, match="expected"):
            Choice("s", "t", "p", p)


# moderated comparison


def test_without_a_prior_it_is_welch_and_student(rng: np.random.Generator) -> None:
    """With nothing known about other groups the tests are those of the textbook."""
    a, b, nothing = rng.normal(1, 1, 5), rng.normal(0, 3, 5), Prior(0.0, 0.0, 0.0)
    assert unpaired_difference(a, b, nothing).p == pytest.approx(stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue)
    assert paired_difference(a, b, nothing).p == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
    assert fit_prior([a, b]) == nothing


def test_the_prior_is_recovered(rng: np.random.Generator) -> None:
    """Variances drawn from a scaled inverse chi-square with 8 degrees of freedom around 4 give that prior back.

    Equal variances give a prior of many degrees of freedom.
    """
    sigma = np.sqrt(4 * 8 / rng.chisquare(8, 3000))
    prior = fit_prior([rng.normal(0, s, 6) for s in sigma])
    assert prior.variance == pytest.approx(4, rel=0.1)
    assert prior.df == pytest.approx(8, rel=0.25)
    assert fit_prior([rng.normal(0, 2, 6) for _ in range(300)]).df > 50


def test_moderation_finds_more_and_errs_no_more(rng: np.random.Generator) -> None:
    """Three against three with 40 other groups: at level .05 at most 7% false alarms, and far more power than Welch alone."""
    false, found, alone = 0, 0, 0
    for _ in range(400):
        groups = [rng.normal(0, 1, 3) for _ in range(40)]
        prior = fit_prior(groups)
        false += unpaired_difference(groups[0], groups[1], prior).p < 0.05
        found += unpaired_difference(groups[2] + 2.5, groups[3], prior).p < 0.05
        alone += unpaired_difference(groups[2] + 2.5, groups[3], Prior(0.0, 0.0, 0.0)).p < 0.05
    assert false / 400 < 0.07
    assert found / 400 > alone / 400 + 0.15


def test_holm_is_the_textbook_one() -> None:
    """Adjusted p values step down and never fall below an earlier one."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


# planted subjects


def _planted(rng: np.random.Generator, built: Sequence[str], n: int | None = None, phrasings: int = 5, tasks: int = 8) -> list[Choice]:
    """Tasks over three stages; the named ones ("nucleation", "settling") change as built, the others stay liquid with noise."""
    choices = []
    for task in range(tasks):
        size = SIZES[task % len(SIZES)]
        laws = rng.dirichlet(np.full(size, 30.0), phrasings)
        kind = built[task % len(built)]
        seed = np.eye(size)[int(np.argmax(laws[0]))]
        sharp = {"liquid": (0, 0, 0), "nucleation": (0, 0.75, 0.75), "settling": (0, 0.75, 0.96)}[kind]
        for stage, mass in zip(STAGES, sharp, strict=True):
            for k, law in enumerate(laws):
                p = rng.dirichlet(200 * ((1 - mass) * law + mass * seed) + 0.01)
                p = rng.multinomial(n, p) / n if n else p
                choices.append(Choice(stage, f"{kind} {task}", f"phrasing {k}", tuple(p.tolist()), n))
    return choices


def _measure(choices: Sequence[Choice], rng: np.random.Generator, stages: Sequence[str] = STAGES) -> Crystallization:
    sizes = {choice.task: len(choice.probability) for choice in choices}
    options = {task: tuple(map(str, range(size))) for task, size in sizes.items()}
    (found,) = crystallize({"subject": choices}, options, stages, rng)
    return found


@pytest.mark.parametrize("n", [None, 60])
def test_what_was_built_in_is_found_and_nothing_else(n: int | None) -> None:
    """Five subjects, exact and with 60 draws: liquid, nucleation and settling where they were built in (over 90%) and no call elsewhere."""
    right, asked, false = 0, 0, 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found = _measure(_planted(rng, ("settling", "nucleation", "liquid", "liquid", "settling", "nucleation"), n), rng)
        for measure in found.measures:
            kind, stage = measure.task.split()[0], STAGES.index(measure.stage)
            expected = {
                "liquid": ("liquid",) * 3,
                "nucleation": ("liquid", "nucleation", None),
                "settling": ("liquid", "nucleation", "settling"),
            }
            built = expected[kind][stage]
            right += measure.label == built
            asked += built is not None
            false += measure.label in ("nucleation", "settling") and built not in ("nucleation", "settling")
    assert right / asked > 0.9
    assert false == 0


@pytest.mark.slow
def test_nothing_is_called_where_stages_are_exchanged() -> None:
    """Planted collapses with the stages of each phrasing exchanged at random: at most 5% + 2 SE of 40 copies hold any call."""
    rng = np.random.default_rng(0)
    planted = _planted(rng, ("settling", "nucleation"), tasks=6)
    assert len(_measure(planted, rng).calls) >= 6
    calls = sum(bool(_measure(permuted(planted, rng), rng).calls) for _ in range(40))
    assert calls / 40 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 40)


@pytest.mark.slow
@pytest.mark.parametrize("n", [None, 20])
def test_nothing_is_called_where_nothing_happens(n: int | None) -> None:
    """Forty subjects whose phrasings vary and whose stages do not: at most 5% + 2 SE hold any call."""
    calls = 0
    for seed in range(40):
        rng = np.random.default_rng([7, seed])
        calls += bool(_measure(_planted(rng, ("liquid",), n, phrasings=4, tasks=4), rng).calls)
    assert calls / 40 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 40)


def test_exchanging_keeps_every_answer(rng: np.random.Generator) -> None:
    """The null holds the same answers, as many at every stage, with other partners."""
    planted = _planted(rng, ("nucleation",), tasks=2)
    shuffled = permuted(planted, rng)
    assert sorted(c.probability for c in shuffled) == sorted(c.probability for c in planted)
    assert sorted((c.stage, c.task) for c in shuffled) == sorted((c.stage, c.task) for c in planted)
    assert [c.probability for c in shuffled] != [c.probability for c in planted]


def test_obedience_is_no_crystal(rng: np.random.Generator) -> None:
    """A subject that starts to follow prompts which push to different options loses entropy in each answer, and nothing nucleates."""
    choices = []
    for k in range(6):
        for stage, push in (("pretrained", 0.1), ("sft", 0.95)):
            p = rng.dirichlet(300 * (push * np.eye(6)[k] + (1 - push) / 6))
            choices.append(Choice(stage, "die", f"the die shows {k + 1} most of the time", tuple(p.tolist()), steered=True))
    found = _measure(choices, rng, ("pretrained", "sft"))
    (step,) = found.transitions
    assert step.entropy.low > 0.5
    assert not step.all_fall
    before, after = found.measures
    assert after.distinct > 4 > 2 > before.distinct
    assert after.n_clusters == 6


def test_with_plain_phrasings_steered_ones_are_not_measured(rng: np.random.Generator) -> None:
    """Three plain phrasings carry H and the mode; steered ones count for what prompting can reach."""
    plain = [Choice("a", "t", f"plain {k}", tuple(rng.dirichlet([90, 5, 5]).tolist())) for k in range(3)]
    steered = [Choice("a", "t", f"steered {k}", tuple(np.eye(3)[k].tolist()), steered=True) for k in range(3)]
    (measure,) = _measure(plain + steered, rng, ("a",)).measures
    assert measure.n_phrasings == 3
    assert measure.mode == "0"
    assert measure.options.estimate < 2 < measure.variety.estimate


# seeds


def test_the_seed_is_the_distribution_it_grew_from(rng: np.random.Generator) -> None:
    """A later concentration on the favourites of one earlier phrasing names this phrasing, with a small p.

    On options that no phrasing favoured, p is not small.
    """
    earlier = rng.dirichlet(np.full(10, 8.0), 6)
    earlier[4] = rng.dirichlet([60, 1, 1, 40, 1, 1, 1, 1, 1, 1])
    names, options = [f"phrasing {k}" for k in range(6)], [str(k) for k in range(10)]
    later = _answers([[0.6, 0.01, 0.01, 0.32, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]])
    found = find_seed(_answers(earlier.tolist()), names, later, options, rng, 0.25)
    assert found.phrasings == ("phrasing 4",)
    assert {"0", "3"} <= set(found.top)
    assert found.p < 0.05
    assert found.distance < found.null_distance
    elsewhere = np.roll(later.p, 1, axis=1)
    assert find_seed(_answers(earlier.tolist()), names, _answers(elsewhere.tolist()), options, rng, 0.25).p > 0.05


def test_a_seed_in_noise_is_not_named_too_often() -> None:
    """Where the later favourites have nothing to do with the earlier answers, p below .05 comes in at most 5% + 2 SE of 200 cases."""
    low = 0
    for seed in range(200):
        rng = np.random.default_rng([3, seed])
        earlier, later = rng.dirichlet(np.full(6, 3.0), 4), rng.dirichlet(np.full(6, 0.3), 1)
        found = find_seed(_answers(earlier.tolist()), list("abcd"), _answers(later.tolist()), list("123456"), rng, 0.25)
        low += found.p <= 0.05
    assert low / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


# undecided


def _reason(choices: Sequence[Choice], rng: np.random.Generator, stage: str) -> tuple[str, str]:
    (found,) = [measure for measure in _measure(choices, rng).measures if measure.stage == stage]
    return found.label, found.reason


def test_one_phrasing_decides_nothing(rng: np.random.Generator) -> None:
    """One exact answer a stage, however different: no interval, so undecided, and it says why."""
    choices = [Choice("pretrained", "t", "p", (0.25,) * 4), Choice("sft", "t", "p", (0.97, 0.01, 0.01, 0.01))]
    assert _reason(choices, rng, "sft") == ("undecided", "1 phrasing gives no interval")
    assert _reason(choices, rng, "pretrained")[0] == "undecided"


def test_mass_outside_the_options_decides_nothing(rng: np.random.Generator) -> None:
    """Where most answers are no option, a collapse of the rest is not called; the mass outside is printed and not spread."""
    before = [Choice("pretrained", "t", f"p{k}", tuple((0.9 * rng.dirichlet([50] * 4)).tolist())) for k in range(5)]
    after = [Choice("sft", "t", f"p{k}", tuple((0.2 * rng.dirichlet([300, 1, 1, 1])).tolist())) for k in range(5)]
    label, reason = _reason([*before, *after], rng, "sft")
    assert (label, reason) == ("undecided", "80% of the mass lies outside the options")
    assert _measure([*before, *after], rng).calls == ()


def test_a_faint_fall_is_not_called(rng: np.random.Generator) -> None:
    """A tiny but perfectly regular fall of entropy is no nucleation."""
    choices = []
    for k in range(8):
        law = rng.dirichlet([40] * 4)
        for stage, power in (("pretrained", 1.0), ("sft", 1.2)):
            p = law**power / (law**power).sum()
            choices.append(Choice(stage, "t", f"p{k}", tuple(p.tolist())))
    found = _measure(choices, rng)
    assert found.transitions[0].entropy.low > 0
    assert found.calls == ()


def test_mistakes_are_one_line(rng: np.random.Generator) -> None:
    """An unknown stage or task, another number of options, and a phrasing given twice are refused."""
    good = Choice("a", "t", "p", (0.5, 0.5))
    for choices, words in (
        ([Choice("b", "t", "p", (0.5, 0.5))], "known stage"),
        ([Choice("a", "u", "p", (0.5, 0.5))], "known stage and task"),
        ([Choice("a", "t", "p", (0.5, 0.2, 0.3))], "expected 2 probabilities, found 3"),
        ([good, good], "'p' twice"),
    ):
        with pytest.raises(SampleError, match=words):
            crystallize({"s": choices}, {"t": ("x", "y")}, ["a"], rng)


# real subjects


def _real(folder: Path) -> tuple[dict[str, list[Choice]], dict[str, tuple[str, ...]]]:
    pairs = {
        "allenai_OLMoE-1B-7B-0924": "allenai_OLMoE-1B-7B-0924-Instruct",
        "google_gemma-2-2b": "google_gemma-2-2b-it",
        "meta-llama_Llama-3.1-8B": "meta-llama_Llama-3.1-8B-Instruct",
        "microsoft_phi-2": "microsoft_Phi-3.5-mini-instruct",
        "mistralai_Mistral-7B-v0.3": "mistralai_Mistral-7B-Instruct-v0.3",
    }
    with (folder / "probs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    subjects: dict[str, list[Choice]] = {name: [] for name in pairs}
    sizes: dict[str, int] = {}
    for row, (base, tuned) in itertools.product(rows, pairs.items()):
        if row["model"] in (base, tuned):
            p = tuple(json.loads(row["choice_probs"]))
            sizes[row["experiment"]] = len(p)
            stage = "base" if row["model"] == base else "instruct"
            subjects[base].append(Choice(stage, row["experiment"], row["condition"], p, None, row["condition"] != "unconditional"))
    return subjects, {task: tuple(str(k + 1) for k in range(size)) for task, size in sizes.items()}


def test_five_real_pairs(opd_data: Path) -> None:
    """Base and tuned subjects: the random number 1-10 nucleates in all five pairs, with mode 7 and in common; the coin in none."""
    subjects, options = _real(opd_data / "coinflip_base_vs_instruct")
    found = crystallize(subjects, options, ("base", "instruct"), np.random.default_rng(0))
    assert len(found) == 5
    for each in found:
        label = {(measure.task, measure.stage): measure for measure in each.measures}
        assert label["random_number", "base"].label == "liquid"
        assert label["random_number", "instruct"].label == "nucleation"
        assert label["random_number", "instruct"].mode == "7"
        assert label["coin_flip", "instruct"].label in ("liquid", "undecided")
    common = {each.task: each for each in over_subjects(found)}
    assert common["random_number"].consistent
    assert not common["coin_flip"].consistent
    assert common["coin_flip"].n_called == 0
