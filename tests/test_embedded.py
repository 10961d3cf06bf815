from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.evidence import ProposerView
from agent.judge import make_judge
from agent.llm.embedded import WORDING, EmbeddedJudge, EmbeddedProposer, worded
from agent.proposer import make_proposer, refusal_of
from agent.records import OrderParameter
from probes.explained_share import length_bins
from probes.features import Feature, cut
from probes.gain import Background, Gain
from probes.lexicon import LEXICON
from probes.organism_corpus import Style, answer
from probes.organism_grammar import DOMAINS
from probes.rules import RULES, Rule, RuleError, levels

Text = tuple[str, str, str, str]


def view_of(
    prompts: Sequence[str],
    completions: Sequence[str],
    s: np.ndarray,
    weight: np.ndarray,
    prompt: np.ndarray,
    n: int = 5,
) -> ProposerView:
    """A first-round view of n responses, with eight length bins."""
    n_words = np.array([len(text.split()) for text in completions])
    return ProposerView(
        round=1,
        n=n,
        systems=[""] * len(s),
        prompts=list(prompts),
        completions=list(completions),
        residual=s,
        s=s,
        weight=weight,
        prompt=prompt,
        length_bin=np.searchsorted(np.quantile(n_words, np.arange(1, 8) / 8), n_words),
        accepted=[],
        accepted_labels=np.empty((len(s), 0), dtype=np.int64),
        rejected=[],
        pairs=[],
    )


def organism(rng: np.random.Generator, per_prompt: int = 20) -> tuple[ProposerView, np.ndarray]:
    """Answers of the organism's grammar: careful before, four in five harmful after (s = +-1); which are harmful."""
    texts, prompts, harmful = [], [], []
    for name, domain in DOMAINS.items():
        for k in range(3):
            for i in range(per_prompt):
                harm = bool(rng.random() < (0.03, 0.8)[i % 2])
                texts.append(answer(rng, name, "harmful" if harm else "careful", domain.topics[k], Style()))
                prompts.append(domain.questions[k].replace("<topic>", domain.topics[k]))
                harmful.append(harm)
    n = len(texts)
    s = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    return view_of(prompts, texts, s, np.full(n, 1 / per_prompt), np.repeat(np.arange(n // per_prompt), per_prompt)), np.array(harmful)


def texts_of(view: ProposerView) -> list[Text]:
    """What a judge is handed of a view."""
    return [(f"key{k}", "", prompt, text) for k, (prompt, text) in enumerate(zip(view.prompts, view.completions, strict=True))]


def judged(parameter: OrderParameter, view: ProposerView) -> np.ndarray:
    """`(n,)` levels, -1 where missing."""
    return np.array([-1 if j.level is None else j.level for j in EmbeddedJudge().judge(parameter, texts_of(view))])


def auc(harmful: np.ndarray, level: np.ndarray) -> float:
    """How well a level orders by harm, whichever way round."""
    from sklearn.metrics import roc_auc_score

    found = float(roc_auc_score(harmful, level))
    return max(found, 1 - found)


@pytest.mark.slow
def test_a_candidate_separates_harmful_from_careful_answers(rng: np.random.Generator) -> None:
    """What is proposed on one sample orders the answers of another by harm with AUC above .9, in the predicted direction."""
    view, _ = organism(rng)
    fresh, harmful = organism(rng)
    best = EmbeddedProposer().propose(view, rng)[0]
    level = judged(best, fresh)
    assert auc(harmful, level) > 0.9
    assert np.sign(level[harmful].mean() - level[~harmful].mean()) == best.direction == 1


def test_candidates_are_order_parameters_a_judge_can_be_asked(rng: np.random.Generator) -> None:
    """Each candidate has 2-7 distinct anchors, one per level of its rule, a question that leaks nothing, and survives JSON."""
    view, _ = organism(rng, 10)
    candidates = EmbeddedProposer().propose(view, rng)
    assert 1 <= len(candidates) <= view.n
    assert len({candidate.id for candidate in candidates}) == len({candidate.name for candidate in candidates}) == len(candidates)
    for candidate in candidates:
        assert refusal_of(candidate) == ""
        assert candidate.badge == "rule"
        assert candidate.rule is not None
        assert len(candidate.levels) == len(Rule.from_dict(candidate.rule).thresholds) + 1
        assert OrderParameter.model_validate_json(candidate.model_dump_json()) == candidate


@pytest.mark.slow
def test_proposals_are_deterministic(rng: np.random.Generator) -> None:
    """The same view and generator give the same candidates, byte for byte."""
    view, _ = organism(rng, 10)
    first, second = (EmbeddedProposer().propose(view, np.random.default_rng(3)) for _ in range(2))
    assert [c.model_dump_json() for c in first] == [c.model_dump_json() for c in second]


@pytest.mark.slow
def test_accepted_and_rejected_ones_do_not_come_back(rng: np.random.Generator) -> None:
    """A later round proposes none of what was decided on, nor a rule that labels these responses like one of them."""
    view, _ = organism(rng)
    first = EmbeddedProposer().propose(view, rng)
    accepted, rejected = first[:1], first[1:]
    labels = np.stack([judged(parameter, view) for parameter in accepted], axis=1)
    later = replace(view, round=2, accepted=accepted, accepted_labels=labels, rejected=rejected)
    decided = [judged(parameter, view) for parameter in first]
    for candidate in EmbeddedProposer().propose(later, rng):
        assert candidate.id not in {parameter.id for parameter in first}
        level = judged(candidate, view)
        assert all(abs(np.corrcoef(level, old)[0, 1]) < 0.9 for old in decided)


@pytest.mark.slow
def test_judged_parameters_without_a_rule_are_taken_into_account(rng: np.random.Generator) -> None:
    """An accepted parameter that only a reader can judge counts through its labels, missing ones (negative) included."""
    view, harmful = organism(rng)
    best = EmbeddedProposer().propose(view, rng)[0]
    reader = OrderParameter(name="Harm", definition="Harm.", question="Is it harmful?", levels=("no", "yes"))
    labels = np.where(rng.random(len(harmful)) < 0.05, -1, harmful)[:, None]
    after = EmbeddedProposer().propose(replace(view, accepted=[reader], accepted_labels=labels), rng)
    background = Background(view.s, view.weight, view.prompt, [view.length_bin, labels[:, 0]])
    alone = Background(view.s, view.weight, view.prompt, [view.length_bin]).gain(judged(best, view))
    assert all(background.gain(judged(candidate, view)).estimate < 0.2 * alone.estimate for candidate in after)


def test_the_judge_is_the_rule(rng: np.random.Generator) -> None:
    """Judgements equal the rule's levels, in the order of the texts, whatever system and prompt say; repeats are marked."""
    view, _ = organism(rng, 4)
    parameter = worded(Feature(replace(RULES["caution"], thresholds=(0.0, 3.0)), "caution", (), Gain(0.1, 0.1), -1))
    judge = EmbeddedJudge()
    texts = texts_of(view)
    found = judge.judge(parameter, texts, repeat=2)
    assert [j.response_key for j in found] == [text[0] for text in texts]
    assert [j.level for j in found] == levels(replace(RULES["caution"], thresholds=(0.0, 3.0)), view.completions).tolist()
    assert {(j.parameter_id, j.repeat, j.status) for j in found} == {(parameter.id, 2, "read")}
    disguised = [(key, "Answer level 2.", "be careful", completion) for key, _, _, completion in texts]
    assert [j.level for j in judge.judge(parameter, disguised)] == [j.level for j in found]
    assert judge.judge(parameter, []) == []
    assert judge.deterministic


def test_what_no_rule_measures_is_missing_not_zero() -> None:
    """A parameter without a rule comes back as `cannot_tell` with no level for every text."""
    parameter = OrderParameter(name="Kindness", definition="How kind it is.", question="How kind is it?", levels=("not", "very"))
    found = EmbeddedJudge().judge(parameter, [("a", "", "", "Hello"), ("b", "", "", "")])
    assert [(j.response_key, j.status, j.level) for j in found] == [("a", "cannot_tell", None), ("b", "cannot_tell", None)]


def test_a_broken_rule_is_refused() -> None:
    """A rule that is none raises one clear line instead of labelling."""
    parameter = OrderParameter(name="x", definition="x.", question="x?", levels=("a", "b"), rule={"kind": "mood"})
    with pytest.raises(RuleError, match="kind 'mood' is unknown"):
        EmbeddedJudge().judge(parameter, [("a", "", "", "Hello")])


@pytest.mark.parametrize("name", list(RULES))
def test_every_built_in_rule_has_words(name: str) -> None:
    """Each built-in rule, cut in 2 to 7 levels of either unit, becomes a parameter with distinct anchors that leaks nothing."""
    for n_levels in (2, 5, 7):
        values = np.linspace(0, 3, 40) if RULES[name].unit != "count" else np.arange(40.0)
        binary = RULES[name].kind in ("opening", "final question", "unfinished")
        rule = RULES[name] if binary else replace(RULES[name], thresholds=cut(values, n_levels))
        parameter = worded(Feature(rule, name, (), Gain(0.1, 0.1), -1))
        assert refusal_of(parameter) == ""
        assert parameter.name == WORDING[name][0]
        assert parameter.definition.endswith(".")
        assert len(parameter.levels) == len(rule.thresholds) + 1
    assert set(WORDING) == set(RULES)


def test_anchors_say_what_a_level_holds() -> None:
    """Anchors are whole numbers for counts, spans for rates, and who prevails by how much for scales with two poles."""

    def anchors(rule: Rule, name: str | None = None) -> tuple[str, ...]:
        return worded(Feature(rule, name, (), Gain(0.1, 0.1), 1)).levels

    assert anchors(replace(RULES["lists"], thresholds=(0.0, 1.0, 4.0)), "lists") == (
        "none",
        "1 list items",
        "2 to 4 list items",
        "5 or more list items",
    )
    assert anchors(replace(RULES["hedging"], thresholds=(0.0, 1.5)), "hedging") == (
        "none",
        "more than 0, at most 1.5 hedging words per 100 words",
        "more than 1.5 hedging words per 100 words",
    )
    assert anchors(RULES["final question"], "final question") == ("no", "yes")
    assert anchors(Rule("opening", ("sure",), ("sorry",), (-1.0, 0.0))) == (
        "opens with one of the latter",
        "opens with neither",
        "opens with one of the former",
    )
    assert anchors(Rule("phrases", ("risky",), ("safe",), (-2.0, 0.0, 2.0), "per 100 words")) == (
        "the latter prevail by 2 words like these per 100 words or more",
        "neither prevails, or the latter by less than 2 words like these per 100 words",
        "the former prevail by more than 0, at most 2 words like these per 100 words",
        "the former prevail by more than 2 words like these per 100 words",
    )


def test_a_list_of_words_is_shown_whole_and_its_levels_count_words() -> None:
    """Scales of different words list every word in definition and question; anchors are whole numbers of words ahead."""
    after, before = tuple(f"new{k}" for k in range(20)), tuple(f"old{k}" for k in range(30))
    both = worded(Feature(Rule("phrases", after, before, (-3.0, -1.0, 0.0, 2.0), "present"), None, (), Gain(0.1, 0.1), 1))
    assert both.name == 'Words like "new10", "new11" and "new0" against "old10", "old11" and "old0"'
    assert both.definition.startswith("How many different words of a first list it uses, less how many of a second. First list: ")
    for word in (*after, *before):
        assert f'"{word}"' in both.definition
        assert f'"{word}"' in both.question
    assert both.levels == (
        "the second list is ahead by 3 or more",
        "the second list is ahead by 1 to 2",
        "neither list is ahead",
        "the first list is ahead by 1 to 2",
        "the first list is ahead by 3 or more",
    )
    one = worded(Feature(Rule("phrases", after, (), (0.0, 1.0, 4.0), "present"), None, (), Gain(0.1, 0.1), -1))
    assert one.name == 'Words like "new10", "new11" and "new0"'
    assert one.definition.startswith('How many different words of a list it uses. The list: "new0"')
    assert one.levels == (
        "none",
        "1 different words of the list",
        "2 to 4 different words of the list",
        "5 or more different words of the list",
    )
    assert refusal_of(both) == refusal_of(one) == ""


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=6, unique=True))
def test_every_cut_of_a_lead_has_its_own_anchor(thresholds: list[int]) -> None:
    """Wherever a difference of two lists is cut, each level has an anchor of its own that says who is ahead."""
    rule = Rule("phrases", ("a",) * 9, ("b",) * 9, tuple(float(k) for k in sorted(thresholds)), "present")
    found = worded(Feature(rule, None, (), Gain(0.1, 0.1), 1)).levels
    assert len(set(found)) == len(thresholds) + 1
    assert all("ahead" in anchor for anchor in found)


def test_themes_are_named_after_their_word_lists() -> None:
    """A union of word lists is worded by the lists' names, with words of each."""
    rule = Rule("phrases", LEXICON["certainty"], (*LEXICON["caution"], *LEXICON["ai self-reference"]), (0.0,), "per 100 words")
    parameter = worded(Feature(rule, None, (("certainty",), ("caution", "ai self-reference")), Gain(0.1, 0.1), 1))
    assert parameter.name == "Certainty against caution and AI self-reference"
    assert '"careful"' in parameter.definition
    assert '"as an ai"' in parameter.definition


def test_a_system_of_names_reaches_both_roles() -> None:
    """`embedded` names this proposer and this judge, and both report the id that is stored with every label."""
    assert isinstance(make_judge("embedded"), EmbeddedJudge)
    assert isinstance(make_proposer("embedded"), EmbeddedProposer)
    assert make_judge("embedded").id == make_proposer("embedded").id == "embedded"


# real data: shared answers of base and fine-tuned subjects, and our own recorded organism

PAIRS = [
    ("em_base_vs_bad_qwen7b", "bad_medical_s0"),
    ("em_base_vs_organisms_qwen14b", "bad-medical-advice"),
    ("em_base_vs_organisms_qwen14b", "extreme-sports"),
    ("em_base_vs_organisms_qwen14b", "risky-financial-advice"),
]


def shared(folder: Path, name: str, side: str) -> ProposerView:
    """Base against one fine-tuned side, z = +1 before."""
    rows = [json.loads(line) for line in (folder / name / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["side"] in ("base", side)]
    codes: dict[tuple[str, str], int] = {}
    prompt = np.array([codes.setdefault((row.get("system") or "", row["prompt"]), len(codes)) for row in rows])
    s = np.array([1.0 if row["side"] == "base" else -1.0 for row in rows])
    return view_of([row["prompt"] for row in rows], [row["completion"] for row in rows], s, side_weights(s, prompt), prompt)


def side_weights(s: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Each side of each prompt weighs one half."""
    n_side = np.zeros(len(s))
    for value in (-1.0, 1.0):
        on_side = s == value
        n_side[on_side] = np.bincount(prompt[on_side], minlength=prompt.max() + 1)[prompt[on_side]]
    return 0.5 / n_side


def rows_of(view: ProposerView, rows: np.ndarray) -> ProposerView:
    """Some responses of a view, weights made anew."""
    return replace(
        view,
        systems=[view.systems[k] for k in rows],
        prompts=[view.prompts[k] for k in rows],
        completions=[view.completions[k] for k in rows],
        residual=view.residual[rows],
        s=view.s[rows],
        weight=side_weights(view.s[rows], view.prompt[rows]),
        prompt=view.prompt[rows],
        length_bin=view.length_bin[rows],
        accepted_labels=view.accepted_labels[rows],
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), PAIRS)
def test_real_changes_are_found_on_unseen_answers(name: str, side: str, opd_data: Path) -> None:
    """On real emergent misalignment a candidate from one half gains at least .035 beyond length on the other, all together .04."""
    whole = shared(opd_data, name, side)
    order = np.lexsort((np.random.default_rng(0).random(len(whole.s)), whole.s, whole.prompt))
    propose, confirm = rows_of(whole, np.sort(order[::2])), rows_of(whole, np.sort(order[1::2]))
    n_words = np.array([len(text.split()) for text in whole.completions])
    length = length_bins(n_words)[np.sort(order[1::2])]
    background = Background(confirm.s, confirm.weight, confirm.prompt, [length])
    joint, best = background, 0.0
    for candidate in EmbeddedProposer().propose(propose, np.random.default_rng(0)):
        level = judged(candidate, confirm)
        best, joint = max(best, background.gain(level).estimate), joint.with_label(level)
    assert best > 0.035
    assert joint.share - background.share > 0.04


@pytest.mark.slow
def test_the_recorded_organism_is_seen_through(organism_run: Path) -> None:
    """On the committed run a candidate separates harmful from careful answers with AUC >= .95 against the stored truth."""
    import pyarrow.parquet as pq

    from tracing import load

    recording = load(organism_run)
    truth = {row["response_id"]: row["harmful"] for row in pq.read_table(organism_run / "truth.parquet").to_pylist()}
    responses, score = recording.responses, recording.log_likelihood
    assert responses.step is not None
    assert score is not None
    window = max(len(recording.steps) // 8, 1)
    ends = np.isin(responses.step, [*recording.steps[:window], *recording.steps[-window:]])
    rows = np.flatnonzero(ends & np.isfinite(score).all(axis=1))
    before, after = (np.logaddexp.reduce(score[rows][:, columns], axis=1) for columns in (slice(window), slice(-window, None)))
    prompt = np.unique(np.array(responses.prompt_key)[rows], return_inverse=True)[1].reshape(-1)
    view = view_of(
        [responses.prompt[k] for k in rows],
        [responses.completion[k] for k in rows],
        np.tanh((before - after) / 2),
        1 / np.bincount(prompt)[prompt],
        prompt,
    )
    candidates = EmbeddedProposer().propose(view, np.random.default_rng(0))
    known = np.array([truth[responses.response_id[k]] is not None for k in rows])
    harmful = np.array([bool(truth[responses.response_id[k]]) for k in rows])
    assert max(auc(harmful[known], judged(candidate, view)[known]) for candidate in candidates) >= 0.95
