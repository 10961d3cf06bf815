from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.answer_form import read_option, written_forms
from probes.errors import SampleError
from probes.likelihood import Request, log_likelihoods, plan
from probes.option_probabilities import encode_asked, option_probabilities
from probes.organism import FineTuning, add_adapter, get_adapter, set_adapter
from probes.subjects import load_subject
from tests.tiny_subject import STOP, all_responses, tiny_subject, tiny_tokenizer

OPTIONS = {"a": ["a"], "bc": ["bc", "cb"], "ddd": ["ddd"]}
TEXT = 'Pick one: heads, tails, 1, 10, Sagittarius. Answer: heads. tails "1" 10 Sagittarius Heads Tails\n'


def _probabilities(subject: Any, prompt: tuple[int, ...], responses: Sequence[tuple[int, ...]]) -> np.ndarray:
    return np.exp(log_likelihoods(subject, plan([Request(prompt, response) for response in responses]))[:, 0])


def _pieces_tokenizer() -> Any:
    """A byte-level BPE tokenizer trained on one line: " heads" is a token, rarer words and capitals are several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<stop>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<stop>")


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_are_those_of_enumeration(seed: int) -> None:
    """On a subject whose responses can all be listed, an option has the probability of the responses that spell it.

    What is left lies outside: nothing is renormalised.
    """
    subject, tokenizer = tiny_subject(seed), tiny_tokenizer()
    found = option_probabilities(subject, tokenizer, ["ab", "dca"], OPTIONS, negligible=0.0)
    responses = list(all_responses(4))
    for row, phrasing in zip(found, ("ab", "dca"), strict=True):
        p = _probabilities(subject, encode_asked(tokenizer, phrasing)[0], responses)
        assert p.sum() == pytest.approx(1.0)
        texts = [tokenizer.decode(response[:-1]) if response[-1] == STOP else None for response in responses]
        expected = [sum(p[k] for k, text in enumerate(texts) if text in spellings) for spellings in OPTIONS.values()]
        assert row == pytest.approx(expected, rel=1e-5)
        assert row.sum() < 1


@pytest.mark.slow
def test_several_tokens_cases_and_spaces_are_summed() -> None:
    """With pieces of words as tokens, every written form is counted once, and only where an answer may end: "1" does not contain "10".

    The reference scores every form with every next token one by one.
    """
    tokenizer = _pieces_tokenizer()
    subject = tiny_subject(1, vocabulary=len(tokenizer))
    options = {"heads": ["heads"], "1": ["1"], "10": ["10"], "Sagittarius": ["Sagittarius"]}
    phrasing = "Pick one: heads, 1, 10."
    (found,) = option_probabilities(subject, tokenizer, [phrasing], options, negligible=0.0)
    expected = [_brute_force(subject, tokenizer, phrasing, spellings) for spellings in options.values()]
    assert found == pytest.approx(expected, rel=1e-4)
    assert len(tokenizer("Sagittarius".upper())["input_ids"]) > 3
    assert (found > 0).all()


def _brute_force(subject: Any, tokenizer: Any, phrasing: str, spellings: Sequence[str]) -> float:
    """Every form with every next token that begins with no letter or digit, scored one by one."""
    prompt, text = encode_asked(tokenizer, phrasing)
    enders = [k for k in range(len(tokenizer)) if not tokenizer.decode([k])[:1].isalnum()]
    sequences = {tuple(tokenizer(form)["input_ids"]) for form in written_forms(spellings)}
    whole = [tokenizer(text + form)["input_ids"] for form in written_forms(spellings)]
    sequences |= {tuple(ids[len(prompt) :]) for ids in whole if tuple(ids[: len(prompt)]) == prompt}
    return float(_probabilities(subject, prompt, [(*tokens, end) for tokens in sorted(sequences) for end in enders]).sum())


def test_what_is_negligible_is_bounded() -> None:
    """Beginnings that are not followed lose at most their own probability, and only ever to the outside."""
    subject, tokenizer = tiny_subject(0), tiny_tokenizer()
    exact = option_probabilities(subject, tokenizer, ["ab"], OPTIONS, negligible=0.0)
    cut = option_probabilities(subject, tokenizer, ["ab"], OPTIONS, negligible=0.05)
    assert (cut <= exact + 1e-7).all()
    assert (exact - cut <= 4 * 0.05).all()
    assert cut.sum() < exact.sum()


def test_options_must_be_writable_and_different() -> None:
    """An option the tokenizer has no tokens for, and two options written with the same tokens, are clear errors."""
    subject, tokenizer = tiny_subject(0), tiny_tokenizer()
    with pytest.raises(SampleError, match="cannot write the option 'heads'"):
        option_probabilities(subject, tokenizer, ["ab"], {"a": ["a"], "heads": ["heads"]})
    with pytest.raises(SampleError, match="found 'a' and 'again' written the same"):
        option_probabilities(subject, tokenizer, ["ab"], {"a": ["a"], "again": ["a"]})


def test_a_tokenizer_without_chat_template_is_asked_plainly() -> None:
    """A base model gets the question and "Answer:", a chat model its own template."""
    assert encode_asked(_pieces_tokenizer(), "Heads or tails?")[1] == "Heads or tails?\nAnswer:"
    assert encode_asked(tiny_tokenizer(), "abc")[1] == "abc"


# loading


def _save(folder: Path, seed: int = 0) -> Path:
    tiny_subject(seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_saved_subject_answers_as_before(tmp_path: Path) -> None:
    """Saved and loaded, the subject has the same probabilities."""
    subject, tokenizer = load_subject(_save(tmp_path / "base"))
    here = option_probabilities(tiny_subject(0), tiny_tokenizer(), ["ab"], OPTIONS)
    assert option_probabilities(subject, tokenizer, ["ab"], OPTIONS) == pytest.approx(here)


def test_an_adapter_is_put_on_its_base(tmp_path: Path) -> None:
    """An adapter's folder is loaded with the base its configuration names relative to the run above it, or with the one that is given."""
    base = _save(tmp_path / "run" / "subject")
    adapted = add_adapter(tiny_subject(0), FineTuning())
    set_adapter(adapted, {name: np.full_like(value, 0.7) for name, value in get_adapter(adapted).items()})
    folder = tmp_path / "run" / "adapters" / "step-000010"
    adapted.save_pretrained(folder, save_embedding_layers=False)
    config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": "subject"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    expected = option_probabilities(adapted, tiny_tokenizer(), ["ab"], OPTIONS)
    plain = option_probabilities(tiny_subject(0), tiny_tokenizer(), ["ab"], OPTIONS)
    assert np.abs(expected - plain).max() > 1e-4
    for given in (None, base):
        assert option_probabilities(*load_subject(folder, given), ["ab"], OPTIONS) == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    """An empty folder, a pickle and an adapter without a base are refused in one line that names the folder."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for name, words in (("empty", "expected a causal language model"), ("pickle", "found a pickle"), ("adapter", "--base-model")):
        with pytest.raises(SampleError, match=words) as caught:
            load_subject(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


# reading sampled answers by the same rule

SPELLED: Mapping[str, Sequence[str]] = {"1": ["1", "one"], "10": ["10", "ten"], "heads": ["heads"], "I": ["I"], "New York": ["New York"]}


@pytest.mark.parametrize(
    ("response", "option"),
    [
        ("10", "10"),
        ("1", "1"),
        ("1.", "1"),
        (" One, of course", "1"),
        ("**10**", "10"),
        ('"Heads" it is', "heads"),
        ("HEADS!", "heads"),
        ("heads\nor tails", "heads"),
        ("New York it is", "New York"),
        ("I", "I"),
        ("I.", "I"),
        ("I would say heads", None),
        ("100", None),
        ("1st", None),
        ("headstrong", None),
        ("My answer is heads", None),
        ("", None),
    ],
)
def test_a_sampled_answer_is_read_by_the_rule_of_the_exact_ones(response: str, option: str | None) -> None:
    """An answer begins with a spelling and ends there; a single letter is no word of a sentence."""
    assert read_option(response, SPELLED) == option


def test_exact_and_sampled_agree() -> None:
    """Reading every possible response and adding up its probability gives the exact probabilities of the options."""
    subject, tokenizer = tiny_subject(2), tiny_tokenizer()
    responses = list(all_responses(4))
    p = _probabilities(subject, encode_asked(tokenizer, "cab")[0], responses)
    read = dict.fromkeys(OPTIONS, 0.0)
    for response, probability in zip(responses, p, strict=True):
        if response[-1] == STOP and (option := read_option(tokenizer.decode(response[:-1]), OPTIONS)):
            read[option] += float(probability)
    assert option_probabilities(subject, tokenizer, ["cab"], OPTIONS, negligible=0.0)[0] == pytest.approx(list(read.values()), rel=1e-5)
