from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from probes.errors import SampleError
from probes.law import Law
from probes.likelihood import Request, log_likelihoods, plan
from probes.sampler import Draw, Question, encode_question, sample
from tests.tiny_subject import STOP, all_responses, tiny_subject, tiny_tokenizer

QUESTIONS = [Question("ab"), Question("dcab"), Question("c")]


def draws(n: int = 40, seed: int = 0, **options: Any) -> list[Draw]:
    """Draws of the tiny subject, `n` for each question."""
    return sample(tiny_subject(), tiny_tokenizer(), QUESTIONS, n, seed, **{"max_tokens": 6, **options})


def scores(found: list[Draw]) -> np.ndarray:
    """Log-probabilities of draws by teacher forcing, shape (n,)."""
    requests = [Request(encode_question(tiny_tokenizer(), QUESTIONS[one.question]), one.tokens) for one in found]
    return log_likelihoods(tiny_subject(), plan(requests))[:, 0]


LAWS = [
    Law(),
    Law(temperature=0.6),
    Law(temperature=1.5, top_k=3),
    Law(temperature=2.0, top_p=0.8),
    Law(temperature=1.3, top_p=0.9, top_k=4),
]


@pytest.mark.slow
@pytest.mark.parametrize(("law", "stops", "max_tokens"), [*((law, {STOP}, 3) for law in LAWS), (Law(), {STOP, 2}, 4), (Law(), {STOP}, 1)])
def test_sampling_law_equals_scoring_law(law: Law, stops: set[int], max_tokens: int) -> None:
    """Frequencies of 12000 responses agree with the enumerated law that scores them, and that law sums to 1.

    Whatever temperature, top_p, top_k, stop tokens and max_tokens are; G-test over all responses, cut ones included.
    """
    question, subject = Question("ab"), tiny_subject()
    subject.generation_config.eos_token_id = sorted(stops)
    possible = [response for response in all_responses(max_tokens) if not stops & {*response[:-1]}]
    possible += [(*response[:-1], 2) for response in possible if response[-1] == STOP and 2 in stops]
    possible = list(dict.fromkeys(possible))
    requests = [Request(encode_question(tiny_tokenizer(), question), response) for response in possible]
    p = np.exp(log_likelihoods(subject, plan(requests), law=law)[:, 0])
    assert p.sum() == pytest.approx(1.0, abs=1e-5)
    n = 12_000
    seen = Counter(one.tokens for one in sample(subject, tiny_tokenizer(), [question], n, 1, max_tokens, rows_per_batch=n, law=law))
    assert set(seen) <= {response for response, chance in zip(possible, p, strict=True) if chance > 0}
    counts = np.array([seen[response] for response in possible])
    frequent = p * n >= 5
    observed, expected = counts[frequent], p[frequent] * n
    if (rare := p[~frequent].sum() * n) >= 5:
        observed, expected = np.append(observed, counts[~frequent].sum()), np.append(expected, rare)
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def test_a_draw_carries_the_log_probability_it_is_scored_with() -> None:
    """What the sampler says about a draw, with other prompts of other lengths beside it, is what teacher forcing says: 1e-5."""
    found = draws()
    assert np.abs(scores(found) - [one.log_probability for one in found]).max() < 1e-5


def test_generate_agrees_with_teacher_forcing() -> None:
    """The scores that transformers' own `generate` reports for its samples are ours to 1e-5, so a run sampled elsewhere can be scored."""
    import torch

    subject, prompt = tiny_subject(), encode_question(tiny_tokenizer(), QUESTIONS[1])
    torch.manual_seed(0)
    settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 6, "pad_token_id": STOP}
    out = subject.generate(
        torch.tensor([prompt] * 50),
        attention_mask=torch.ones(50, len(prompt), dtype=torch.long),
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    said = subject.compute_transition_scores(out.sequences, out.scores, normalize_logits=True).numpy()
    for row, tokens in enumerate(out.sequences[:, len(prompt) :].tolist()):
        n = tokens.index(STOP) + 1 if STOP in tokens else len(tokens)
        ours = log_likelihoods(subject, plan([Request(prompt, tuple(tokens[:n]))]))[0, 0]
        assert ours == pytest.approx(said[row, :n].sum(), abs=1e-5)


def test_a_subjects_own_generation_settings_are_ignored() -> None:
    """A checkpoint that asks for greedy, cold or truncated generation is sampled by its plain law all the same."""
    subject = tiny_subject()
    subject.generation_config.do_sample = False
    subject.generation_config.temperature = 0.01
    subject.generation_config.top_k = 1
    subject.generation_config.repetition_penalty = 5.0
    assert sample(subject, tiny_tokenizer(), QUESTIONS, 40, 0, max_tokens=6) == draws()


def test_the_same_seed_draws_the_same() -> None:
    """Seed, questions and subject decide the draws; another seed draws others."""
    assert draws(seed=3) == draws(seed=3)
    assert draws(seed=3) != draws(seed=4)


def test_draws_are_ordered_by_question() -> None:
    """`per_question` draws of each question, in the order of the questions, whatever the batches."""
    assert [one.question for one in draws(n=7, rows_per_batch=4)] == [k for k in range(3) for _ in range(7)]


def test_a_response_ends_with_the_stop_token_or_is_cut() -> None:
    """Cut means max_tokens tokens without a stop token; the text never holds the stop token."""
    found = draws(n=200, max_tokens=3)
    assert {one.cut for one in found} == {True, False}
    for one in found:
        assert (one.tokens[-1] == STOP) != one.cut
        assert STOP not in one.tokens[:-1]
        assert len(one.text) == len(one.tokens) - (not one.cut)
        assert one.cut <= (len(one.tokens) == 3)
        assert math.isfinite(one.log_probability)


def test_the_system_prompt_is_part_of_the_question() -> None:
    """A system text goes through the chat template; without one there is no system message at all."""
    assert encode_question(tiny_tokenizer(), Question("ab", system="cd")) == (2, 3, 0, 1)
    assert encode_question(tiny_tokenizer(), Question("ab")) == (0, 1)


def test_a_subject_without_a_template_is_asked_as_text() -> None:
    """No template: the text itself, system text above it. A template that takes no system text says so in one line."""
    bare = tiny_tokenizer()
    bare.chat_template = None
    assert encode_question(bare, Question("ab")) == (0, 1)
    picky = tiny_tokenizer()
    picky.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}a"
    assert encode_question(picky, Question("ab")) == (0,)
    with pytest.raises(SampleError, match="system and user message, found: no system here"):
        encode_question(picky, Question("ab", system="c"))


def test_nothing_to_draw_is_refused() -> None:
    """No question, no draw and no stop token each give one clear line."""
    with pytest.raises(SampleError, match="found 0 questions"):
        sample(tiny_subject(), tiny_tokenizer(), [], 1, 0)
    with pytest.raises(SampleError, match="0 draws"):
        sample(tiny_subject(), tiny_tokenizer(), QUESTIONS, 0, 0)
    endless = tiny_tokenizer()
    endless.eos_token = None
    with pytest.raises(SampleError, match="stop token"):
        sample(tiny_subject(), endless, QUESTIONS, 1, 0)
