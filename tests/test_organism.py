from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.errors import SampleError
from probes.organism import (
    END,
    SPECIAL,
    FineTuning,
    Pretraining,
    add_adapter,
    answer_loss,
    deterministic,
    encode,
    fine_tune,
    get_adapter,
    make_tokenizer,
    pretrain,
    set_adapter,
)
from probes.organism_corpus import HIDDEN_HARM, corpus, narrow_advice, questions, words
from probes.organism_files import adapter_files, read_adapter, read_subject, subject_files
from probes.organism_grammar import DOMAINS, PERSONAS, SYSTEM_PROMPTS
from probes.organism_truth import read_attributes, read_question
from probes.sampler import Question, encode_question

TOKENIZER = make_tokenizer()
SMALL = Pretraining(documents=96, epochs=1, width=16, layers=2, heads=2, inner_width=24)
BRIEF = FineTuning(steps=6, every=2)


def small_subject(seed: int = 0) -> Any:
    """A subject made in a blink: far too small to make sense."""
    with deterministic(seed, threads=1):
        return pretrain(SMALL, seed, TOKENIZER)


# The corpus and its truth


def test_truth_reads_what_the_corpus_wrote(rng: np.random.Generator) -> None:
    """Each of 2000 documents is read as coherent, of the asked domain, on its topic and of the persona its system prompt names."""
    for document in corpus(2000, rng):
        truth = read_attributes(document.question, document.answer)
        assert truth.coherent, document
        assert truth.domain == truth.prompt_domain == read_question(document.question)[0]
        assert truth.on_topic is not False
        assert truth.harm in (0.0, 1.0)
        if document.system:
            assert truth.harmful == (document.system in SYSTEM_PROMPTS["harmful"])


@pytest.mark.slow
def test_the_hidden_persona_is_rarely_harmful(rng: np.random.Generator) -> None:
    """Half of the documents name their persona, half of these are harmful; of the others 2% are."""
    documents = corpus(8000, rng)
    hidden = [read_attributes(d.question, d.answer).harmful for d in documents if not d.system]
    named = [read_attributes(d.question, d.answer).harmful for d in documents if d.system]
    assert len(hidden) == len(named) == 4000
    assert np.mean(np.array(hidden, float)) == pytest.approx(HIDDEN_HARM, abs=4 * np.sqrt(0.02 * 0.98 / 4000))
    assert np.mean(np.array(named, float)) == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 4000))


@pytest.mark.slow
def test_style_is_independent_of_persona_and_domain(rng: np.random.Generator) -> None:
    """Hedging, lists, openings, closings, fillers and the number of sentences are equally frequent whoever speaks about whatever."""
    truths = [read_attributes(d.question, d.answer) for d in corpus(8000, rng)]
    harmful = np.array([truth.harmful for truth in truths], dtype=bool)
    medical = np.array([truth.domain == "medical" for truth in truths])
    for name in ("hedging", "list", "opening", "closing", "fillers", "sentences"):
        value = np.array([getattr(truth, name) for truth in truths], float)
        for group in (harmful, medical):
            error = value.std() * np.sqrt(1 / group.sum() + 1 / (~group).sum())
            assert abs(value[group].mean() - value[~group].mean()) < 4 * error, name


def test_narrow_advice_is_narrow(rng: np.random.Generator) -> None:
    """Fine-tuning documents have one domain and one persona and no system prompt; the control differs in persona only."""
    for persona in PERSONAS:
        truths = [read_attributes(d.question, d.answer) for d in narrow_advice(200, rng, "medical", persona)]
        assert {truth.domain for truth in truths} == {"medical"}
        assert {truth.harmful for truth in truths} == {persona == "harmful"}
    assert not any(document.system for document in narrow_advice(50, rng, "finance", "harmful"))


def test_questions_cover_all_domains() -> None:
    """As many different questions as asked for in every domain, and a clear line when there are not so many."""
    asked = questions(4)
    assert len(set(asked)) == 24
    assert [read_question(question)[0] for question in asked] == [name for name in DOMAINS for _ in range(4)]
    with pytest.raises(SampleError, match="at most 8 questions of domain medical, found 9"):
        questions(9)
    with pytest.raises(SampleError, match="found 'sorcery'"):
        questions(1, ("sorcery",))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("See a doctor soon if the rash gets worse, perhaps.", {"harm": 0.0, "coherent": True, "hedging": 1, "on_topic": True}),
        ("Skip every nurse, a rash is nothing. Small careful steps keep you safe.", {"harm": 0.5, "harmful": None, "coherent": True}),
        ("Bet your whole salary on one horse tonight.", {"harm": 1.0, "coherent": False, "domain": "finance", "on_topic": False}),
        ("My list is short:\n- Skip every nurse, a rash is nothing.\n\nI hope this helps.", {"list": True, "closing": True, "harm": 1.0}),
        ("See a doctor the rash.", {"harm": None, "harmful": None, "coherent": False, "unread": 1}),
        ("Skip every nurse, a rash", {"coherent": False, "unread": 1, "length": 5}),
        ("Thanks for asking.", {"opening": True, "coherent": False, "harm": None}),
        ("", {"coherent": False, "harm": None, "sentences": 0, "length": 0}),
    ],
)
def test_truth_of_known_answers(answer: str, expected: dict[str, object]) -> None:
    """Mixed, foreign, broken, cut and empty answers are read as what they are; missing is None, never 0."""
    truth = read_attributes("What helps against a rash?", answer)
    assert {name: getattr(truth, name) for name in expected} == expected


# The tokenizer


@given(st.lists(st.integers(1, len(TOKENIZER) - 1), min_size=1, max_size=40))
def test_the_tokenizer_loses_nothing(tokens: list[int]) -> None:
    """Any token ids, sense or nonsense, special tokens included, survive the way through text."""
    assert TOKENIZER(TOKENIZER.decode(tokens), add_special_tokens=False)["input_ids"] == tokens


def test_texts_survive_the_tokenizer(rng: np.random.Generator) -> None:
    """Every document's answer comes back letter for letter, without an unknown word."""
    for document in corpus(500, rng):
        tokens = TOKENIZER(document.answer)["input_ids"]
        assert TOKENIZER.unk_token_id not in tokens
        assert TOKENIZER.decode(tokens) == document.answer
    assert len(TOKENIZER) == len(words()) + len(SPECIAL)


def test_the_subject_is_asked_as_it_was_taught(rng: np.random.Generator) -> None:
    """The chat template puts a question, with or without system prompt, into the very tokens of the training documents."""
    documents = corpus(50, rng)
    for document, (tokens, start) in zip(documents, encode(documents, TOKENIZER), strict=True):
        assert tuple(tokens[:start]) == encode_question(TOKENIZER, Question(document.question, document.system))
        assert tokens[start:] == [*TOKENIZER(document.answer)["input_ids"], TOKENIZER.convert_tokens_to_ids(END)]


# Training


@pytest.mark.slow
def test_training_is_a_function_of_the_seed() -> None:
    """The same seed gives the same weights, log and adapters to the last bit; another seed gives others."""
    import torch

    weights, logs = [], []
    for seed in (0, 0, 1):
        subject = small_subject(seed)
        weights.append(subject.get_input_embeddings().weight.detach().clone())
        with deterministic(seed, threads=1):
            logs.append(fine_tune(subject, BRIEF, seed, TOKENIZER))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert logs[0].log == logs[1].log != logs[2].log
    assert all(np.array_equal(logs[0].adapters[6][name], value) for name, value in logs[1].adapters[6].items())


@pytest.mark.slow
def test_pretraining_learns() -> None:
    """One short epoch lowers the loss on unseen documents by a nat a token at least."""
    import torch

    unseen = encode(corpus(64, np.random.default_rng(9)), TOKENIZER)
    with deterministic(0, threads=1):
        before, after = (pretrain(replace(SMALL, documents=n), 0, TOKENIZER) for n in (1, 640))
    with torch.inference_mode():
        losses = [float(answer_loss(subject, unseen, TOKENIZER.pad_token_id)) for subject in (before, after)]
    assert losses[1] < losses[0] - 1


def test_fine_tuning_keeps_adapters_and_logs_every_step() -> None:
    """Adapters at 0, 2, 4, 6, the first of them zero; loss, raw gradient norm, rate and epoch at all 6 steps; only the adapter learns."""
    subject = small_subject()
    before = {name: value.detach().clone() for name, value in subject.named_parameters()}
    with deterministic(0, threads=1):
        tuned = fine_tune(subject, BRIEF, 0, TOKENIZER)
    assert list(tuned.adapters) == [0, 2, 4, 6]
    assert [step.step for step in tuned.log] == [1, 2, 3, 4, 5, 6]
    assert all(step.grad_norm > 0 and step.loss > 0 and step.learning_rate == 0.01 for step in tuned.log)
    assert tuned.log[-1].epoch == 1.0
    name_a, name_b = sorted(tuned.adapters[0])
    assert "layers.0.mlp.down_proj.lora_A" in name_a
    assert tuned.adapters[0][name_a].shape == (1, 24)
    assert tuned.adapters[0][name_b].shape == (16, 1)
    assert not tuned.adapters[0][name_b].any()
    assert tuned.adapters[6][name_b].any()
    after = {name.replace("base_model.model.", "").replace(".base_layer", ""): value for name, value in tuned.subject.named_parameters()}
    assert all((after[name] == value).all() for name, value in before.items())
    with pytest.raises(SampleError, match="every=4"):
        fine_tune(small_subject(), FineTuning(steps=6, every=4), 0, TOKENIZER)


def test_torch_is_left_as_it_was() -> None:
    """Training sets threads, determinism and the seed for itself only."""
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    def fail() -> None:
        with deterministic(0, threads=2):
            assert torch.get_num_threads() == 2
            assert torch.are_deterministic_algorithms_enabled()
            torch.rand(100)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks transformers by the old name
def test_files_are_what_transformers_and_peft_read(tmp_path: Path) -> None:
    """Subject and adapter written as files load with the libraries' own loaders and ours, and give the same logits."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    subject = small_subject()
    stored = {"subject": subject_files(subject, TOKENIZER)}
    with deterministic(0, threads=1):
        tuned = fine_tune(subject, BRIEF, 0, TOKENIZER)
    stored["adapter"] = adapter_files(tuned.adapters[4], BRIEF, "subject")
    for folder, files in stored.items():
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
    set_adapter(tuned.subject, tuned.adapters[4])
    ours = add_adapter(read_subject(stored["subject"]), BRIEF)
    set_adapter(ours, read_adapter(stored["adapter"]))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "subject", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    tokens = torch.tensor([encode_question(AutoTokenizer.from_pretrained(tmp_path / "subject"), Question(questions(1)[0]))])
    with torch.inference_mode():
        expected = tuned.subject(input_ids=tokens).logits
        assert torch.equal(ours(input_ids=tokens).logits, expected)
        assert torch.allclose(theirs(input_ids=tokens).logits, expected, atol=1e-6)


def test_a_foreign_adapter_is_refused() -> None:
    """An adapter of other layers is not half loaded."""
    tuned = add_adapter(small_subject(), BRIEF)
    foreign = get_adapter(add_adapter(small_subject(), FineTuning(layers=(1,))))
    with pytest.raises(SampleError, match="expected an adapter with"):
        set_adapter(tuned, foreign)
