"""Exact probabilities of the options of a finite random choice under a subject (METHOD 6).

`P(option) = sum over its written forms of P(form) P(the answer ends there | form)`: the events are disjoint, so nothing is counted
twice, and what is missing to 1 is the mass outside the options. Forms are taken in their usual tokenization (alone and behind the
question); a form that the tokenizer cannot write is left out. torch, transformers and peft are imported inside functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.answer_form import ends_answer, is_letter, written_forms
from probes.errors import SampleError
from probes.sampler import Question, encode_question

NEGLIGIBLE = 1e-8
"""A beginning less probable than this is not followed any further."""
Ends = dict[bool, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Form:
    """One written form as token ids, the option it belongs to and whether it is a single letter."""

    tokens: tuple[int, ...]
    option: int
    letter: bool


def encode_asked(tokenizer: Any, text: str) -> tuple[tuple[int, ...], str]:
    """Token ids of a question, ready for the answer, and the text they came from.

    A tokenizer with a chat template asks by it, another one by `text` and a line that begins with "Answer:".
    """
    if getattr(tokenizer, "chat_template", None):
        message = [{"role": "user", "content": text}]
        return encode_question(tokenizer, Question(text)), tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False
        )
    framed = f"{text}\nAnswer:"
    return tuple(tokenizer(framed)["input_ids"]), framed


def option_probabilities(
    subject: Any,
    tokenizer: Any,
    phrasings: Sequence[str],
    options: Mapping[str, Sequence[str]],
    ends: Ends | None = None,
    negligible: float = NEGLIGIBLE,
) -> npt.NDArray[np.float64]:
    """Exact probabilities of every option for every phrasing.

    Args:
        subject: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        phrasings: Questions.
        options: Spellings by option.
        ends: From :func:`answer_ends`, where it is used often; its first dimension is the subject's vocabulary.
        negligible: Beginnings below this probability count as outside.

    Returns:
        Shape (n_phrasings, n_options), in [0, 1]; rows add up to at most 1.

    Raises:
        SampleError: The tokenizer cannot write an option, or writes two in the same way.
    """
    import torch

    ends = answer_ends(tokenizer) if ends is None else ends
    found = np.zeros((len(phrasings), len(options)))
    with torch.inference_mode():
        for row, phrasing in enumerate(phrasings):
            prompt, text = encode_asked(tokenizer, phrasing)
            _add_up(found[row], _next_law(subject, prompt), forms(tokenizer, options, text), ends, negligible)
    return found


def _add_up(
    total: npt.NDArray[np.float64],
    law: Callable[[list[tuple[int, ...]]], npt.NDArray[np.float64]],
    wanted: Sequence[Form],
    ends: Ends,
    negligible: float,
) -> None:
    """Follow the tree of forms from its root, all beginnings of one length at a time, and add `P(form) P(ends there)` to `total`."""
    alive: dict[tuple[int, ...], float] = {(): 1.0}
    while alive:
        begun = list(alive)
        laws = dict(zip(begun, law(begun), strict=True))
        for form in wanted:
            if form.tokens in laws:
                chosen = laws[form.tokens]
                total[form.option] += alive[form.tokens] * float(chosen[: len(ends[form.letter])][ends[form.letter][: len(chosen)]].sum())
        grown = {
            form.tokens[: len(begun[0]) + 1] for form in wanted if len(form.tokens) > len(begun[0]) and form.tokens[: len(begun[0])] in laws
        }
        alive = {tokens: p for tokens in sorted(grown) if (p := alive[tokens[:-1]] * float(laws[tokens[:-1]][tokens[-1]])) > negligible}


def _next_law(subject: Any, prompt: tuple[int, ...]) -> Callable[[list[tuple[int, ...]]], npt.NDArray[np.float64]]:
    """Laws of the next token after the prompt and each of some beginnings of one length, shape (n, vocabulary); the prompt is run once."""
    import torch

    device = next(subject.parameters()).device
    start = subject(input_ids=torch.tensor([prompt], device=device), use_cache=True, logits_to_keep=1)

    def law(begun: list[tuple[int, ...]]) -> npt.NDArray[np.float64]:
        logits = start.logits
        if begun[0]:
            cache = copy.deepcopy(start.past_key_values)
            cache.batch_repeat_interleave(len(begun))
            position = torch.arange(len(prompt), len(prompt) + len(begun[0]), device=device)[None].expand(len(begun), -1)
            tokens = torch.tensor(begun, device=device)
            logits = subject(input_ids=tokens, position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return np.asarray(logits[:, -1].double().softmax(-1).cpu().numpy())

    return law


def forms(tokenizer: Any, options: Mapping[str, Sequence[str]], asked: str) -> list[Form]:
    """Token sequences of all written forms of all options, behind a question's text and alone.

    Raises:
        SampleError: An option cannot be written, or two are written in the same way.
    """
    owner: dict[tuple[int, ...], Form] = {}
    before = tokenizer(asked, add_special_tokens=False)["input_ids"]
    for index, (name, spellings) in enumerate(options.items()):
        written = list(written_forms(spellings))
        behind = tokenizer([asked + form for form in written], add_special_tokens=False)["input_ids"]
        alone = tokenizer(written, add_special_tokens=False)["input_ids"]
        count = 0
        for form, whole, own in zip(written, behind, alone, strict=True):
            tails = [own, whole[len(before) :] if whole[: len(before)] == before else []]
            for tokens in {tuple(tail) for tail in tails if tail and _text(tokenizer, tail).strip() == form.strip()}:
                if owner.setdefault(tokens, Form(tokens, index, is_letter(form))).option != index:
                    other = list(options)[owner[tokens].option]
                    raise SampleError(f"expected options that the tokenizer tells apart, found {other!r} and {name!r} written the same")
                count += 1
        if not count:
            raise SampleError(f"the subject's tokenizer cannot write the option {name!r}: this task does not fit this subject")
    return list(owner.values())


def answer_ends(tokenizer: Any) -> Ends:
    """For every token whether an answer may end before it: by key False in general, by key True after a single letter.

    Special tokens (the stop token, the next turn) always end it. What a token begins with is read behind a letter, because a decoder
    hides the space before a first word.
    """
    size = len(tokenizer)
    special = set(tokenizer.all_special_ids)
    letter = tokenizer("a", add_special_tokens=False)["input_ids"][-1]
    head = _text(tokenizer, [letter])
    texts = tokenizer.batch_decode([[letter, k] for k in range(size)], clean_up_tokenization_spaces=False)
    following = [text[len(head) :] if text.startswith(head) else text for text in texts]
    found = {kind: np.array([k in special or ends_answer(f, kind) for k, f in enumerate(following)]) for kind in (False, True)}
    return found


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
