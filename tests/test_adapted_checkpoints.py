from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.adapted_checkpoints import AdaptedCheckpoints, Wanted
from probes.checkpoints import Checkpoints
from probes.errors import SampleError
from probes.law import Law
from probes.lora_adapter import Factors, LoraAdapter, is_plain_folder, read_lora_adapter
from probes.plain_likelihood import plain_log_likelihoods
from probes.request import Request
from probes.sampler import Question, encode_question
from probes.subjects import with_adapter
from tests.small_subjects import STOP, VOCABULARY, adapt, save_adapter, small_subject
from tests.tiny_subject import tiny_tokenizer

QUESTIONS = [Question("ab"), Question("dcab"), Question("c")]
MLP_OUT = {"GPT2": "mlp.c_proj", "GPTNeoX": "dense_4h_to_h", "Bloom": "dense_4h_to_h"}


def requests(rng: np.random.Generator, n: int = 24) -> list[Request]:
    """Responses of 1 to 12 tokens to three prompts; two are there twice, and many begin alike."""
    prompts = [tuple(map(int, rng.integers(0, VOCABULARY, size))) for size in (2, 5, 9)]
    made = [Request(prompts[k % 3], (*map(int, rng.integers(0, 3, rng.integers(0, 12))), STOP)) for k in range(n - 2)]
    return [*made, made[0], made[5]]


def folders(name: str, tmp_path: Path, modules: tuple[str, ...], **how: Any) -> dict[int, Path]:
    """Adapters of three checkpoints as peft leaves them."""
    return {step: save_adapter(adapt(small_subject(name), modules, step, **how), tmp_path / str(step)) for step in (10, 20, 30)}


def by_peft(name: str, folder: Path) -> Any:
    """The adapted subject as peft itself puts it together."""
    return with_adapter(small_subject(name), folder)


def assert_scored_as_by_peft(checkpoints: AdaptedCheckpoints, name: str, found: dict[int, Path], asked: list[Request]) -> None:
    """Every checkpoint's scores, whole and of the first three tokens, are those of peft's model and its own forward pass: 1e-4 nats."""
    scores = checkpoints.score(asked, list(found), (3,))
    for folder, ours in zip(found.values(), scores, strict=True):
        assert np.abs(ours - plain_log_likelihoods(by_peft(name, folder), asked, (3,))).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers", "cut"),
    [
        ("Llama", [2], 3),
        ("Qwen2", [2], 3),
        ("Qwen3", [2], 3),
        ("Mistral", [2], 3),
        ("GPT2", [2], 3),
        ("GPTNeoX", [2], 3),
        ("Olmo2", [2], 2),
    ],
)
def test_what_is_shared_changes_no_score(name: str, layers: list[int], cut: int, tmp_path: Path, rng: np.random.Generator) -> None:
    """One module adapted at half depth: what lies below is shared, the adapted layer too where its output is a plain sum."""
    found = folders(name, tmp_path, (MLP_OUT.get(name, "down_proj"),), layers=layers, r=1, use_rslora=True)
    with AdaptedCheckpoints(small_subject(name), found, tokens_per_pack=60) as checkpoints:
        assert checkpoints.notes == ()
        with checkpoints._working() as worker:
            assert worker.stack is not None
            assert worker.stack.cut.layer == cut
        assert_scored_as_by_peft(checkpoints, name, found, requests(rng))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "modules", "how"),
    [
        ("Llama", ("q_proj", "v_proj", "down_proj"), {"r": 4, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 7.0}}),
        ("Qwen3", ("up_proj", "o_proj"), {"layers": [1, 3], "use_rslora": True}),
        ("GPT2", ("c_attn", "c_proj"), {"r": 3}),
        ("Llama", ("down_proj", "lm_head"), {"layers": None}),
        ("Mixtral", ("q_proj",), {"layers": [2]}),
    ],
)
def test_any_plain_lora_is_applied_as_peft_does(
    name: str, modules: tuple[str, ...], how: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    """Several modules and layers, ranks and scales by pattern, rsLoRA, the output layer, fused projections, experts."""
    found = folders(name, tmp_path, modules, **how)
    with AdaptedCheckpoints(small_subject(name), found, workers=2) as checkpoints:
        assert checkpoints.notes == ()
        assert_scored_as_by_peft(checkpoints, name, found, requests(rng))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Gemma2", "Bloom"])
def test_other_architectures_are_run_plainly_and_said_so(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Attention that is done otherwise is recognised: the numbers are right and a note says why nothing is shared."""
    found = folders(name, tmp_path, (MLP_OUT.get(name, "down_proj"),), layers=[2])
    with AdaptedCheckpoints(small_subject(name), found) as checkpoints:
        assert "nothing is shared" in checkpoints.notes[0]
        assert_scored_as_by_peft(checkpoints, name, found, requests(rng))
        drawn = next(checkpoints.draw(tiny_tokenizer(), QUESTIONS, [Wanted(20, 2, 1)], 5))
        texts = [Request(encode_question(tiny_tokenizer(), QUESTIONS[one.question]), one.tokens) for one in drawn]
        exact = plain_log_likelihoods(by_peft(name, found[20]), texts)[:, 0]
        assert np.abs(exact - [one.log_probability for one in drawn]).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Llama", "Mistral", "GPT2"])
def test_mixed_batches_draw_what_each_checkpoint_draws(name: str, tmp_path: Path) -> None:
    """Responses of several checkpoints and the base, drawn together, are those drawn apart, with the log-probability by peft's model.

    With different numbers of draws, prompts of different lengths, and rows that end early.
    """
    found: dict[int, Path | LoraAdapter] = {0: LoraAdapter(), **folders(name, tmp_path, (MLP_OUT.get(name, "down_proj"),), layers=[1, 2])}
    wanted = [Wanted(30, 7, 1), Wanted(0, 5, 2), Wanted(10, 7, 1)]
    law = Law(temperature=0.9)
    with AdaptedCheckpoints(small_subject(name), found) as checkpoints:
        mixed = list(checkpoints.draw(tiny_tokenizer(), QUESTIONS, wanted, 12, law, rows_per_batch=30))
        apart = [next(checkpoints.draw(tiny_tokenizer(), QUESTIONS, [each], 12, law)) for each in wanted]
    assert [[one.tokens for one in draws] for draws in mixed] == [[one.tokens for one in draws] for draws in apart]
    assert [len(draws) for draws in mixed] == [21, 15, 21]
    assert len({len(one.tokens) for draws in mixed for one in draws}) > 3
    assert [one.tokens for one in mixed[0]] != [one.tokens for one in mixed[2]]
    for each, draws in zip(wanted, mixed, strict=True):
        folder = found[each.step]
        subject = by_peft(name, folder) if isinstance(folder, Path) else small_subject(name)
        texts = [Request(encode_question(tiny_tokenizer(), QUESTIONS[one.question]), one.tokens) for one in draws]
        exact = plain_log_likelihoods(subject, texts, law=law)[:, 0]
        assert np.abs(exact - [one.log_probability for one in draws]).max() < 1e-4


def llama_adapters(rng: np.random.Generator, layer: int = 2) -> dict[int, LoraAdapter]:
    """Adapters of three checkpoints at one layer's down_proj."""
    made = [(rng.normal(size=(1, 48)), rng.normal(size=(32, 1))) for _ in range(3)]
    name = f"model.layers.{layer}.mlp.down_proj"
    return {k: LoraAdapter({name: Factors(a.astype(np.float32), b.astype(np.float32), 0.3)}) for k, (a, b) in enumerate(made)}


@pytest.mark.slow
def test_shared_layers_run_once(rng: np.random.Generator) -> None:
    """Layers up to the adapted one run once for all checkpoints, layers above once for each, and every distinct beginning once.

    In turns, where memory is short, the scores are the same.
    """
    counted = [0] * 4
    subject = small_subject("Llama")
    for k, layer in enumerate(subject.model.layers):
        layer.mlp.gate_proj.register_forward_hook(lambda _, inputs, __, k=k: counted.__setitem__(k, counted[k] + inputs[0].shape[1]))
    asked = requests(rng)
    with AdaptedCheckpoints(subject, llama_adapters(rng)) as checkpoints:
        counted[:] = [0] * 4
        whole = [next(checkpoints.score(asked, [step])) for step in (0, 1, 2, 1)]  # asked for one by one, nothing is run again
        nodes = len({(one.prompt + one.response)[:k] for one in asked for k in range(1, len(one.prompt + one.response))})
        assert counted == [nodes, nodes, nodes, 4 * nodes]
        checkpoints._shared_bytes, checkpoints._tokens_per_pack = 5000, 20
        turns = checkpoints._turns(asked)
        assert len(turns) > 1
        again = list(checkpoints.score(asked, (0, 1, 2, 1)))
    assert np.abs(np.array(whole) - np.array(again)).max() < 1e-4
    assert np.array_equal(again[1], again[3])


@pytest.mark.slow
def test_workers_do_not_change_a_bit(rng: np.random.Generator) -> None:
    """Two threads give what one gives."""
    adapters, asked = llama_adapters(rng), requests(rng)
    found = []
    for workers in (1, 2):
        with AdaptedCheckpoints(small_subject("Llama"), adapters, workers) as checkpoints:
            drawn = list(checkpoints.draw(tiny_tokenizer(), QUESTIONS, [Wanted(k, 3, k) for k in range(3)], 9, rows_per_batch=8))
            found.append((np.array(list(checkpoints.score(asked, (0, 1, 2)))).tobytes(), drawn))
    assert found[0] == found[1]


@pytest.mark.slow
def test_what_does_not_fit_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    """Another base, other sizes, broken weights and more than LoRA each give one clear line."""
    with pytest.raises(SampleError, match="is it another base"):
        AdaptedCheckpoints(small_subject("GPT2"), llama_adapters(rng))
    adapters = llama_adapters(rng)
    wrong = {"model.layers.2.mlp.down_proj": Factors(np.zeros((1, 8), np.float32), np.zeros((32, 1), np.float32), 1.0)}
    broken = {"model.layers.2.mlp.down_proj": Factors(np.full((1, 48), np.nan, np.float32), np.ones((32, 1), np.float32), 1.0)}
    with AdaptedCheckpoints(small_subject("Llama"), {**adapters, 7: LoraAdapter(wrong), 8: LoraAdapter(broken)}) as checkpoints:
        with pytest.raises(SampleError, match=r"\(48, 32\) \(inputs, outputs\), found \(8, 32\)"):
            list(checkpoints.score(requests(rng), [7]))
        with pytest.raises(SampleError, match="log-probabilities at step 8, found NaN for 22 responses"):
            list(checkpoints.score(requests(rng), [0, 8]))
        with pytest.raises(SampleError, match="responses to score, found none"):
            list(checkpoints.score([], [0]))
    dora = save_adapter(adapt(small_subject("Llama"), ("down_proj",), 1, use_dora=True), tmp_path / "dora")
    assert not is_plain_folder(dora)
    with pytest.raises(SampleError, match="plain LoRA adapter, found DoRA"):
        read_lora_adapter(dora)


class WholeSubjects:
    """Whole subjects of two steps."""

    steps = (1, 2)

    def __init__(self, name: str) -> None:
        self._subjects = {step: small_subject(name, seed=step) for step in self.steps}

    def at(self, step: int) -> Any:
        """The subject of a step."""
        return self._subjects[step]

    def copy(self) -> WholeSubjects:
        """Itself: it has no state."""
        return self


@pytest.mark.slow
@pytest.mark.parametrize(("name", "noted"), [("Qwen2", False), ("Bloom", True)])
def test_whole_checkpoints_are_scored_one_by_one(name: str, noted: bool, rng: np.random.Generator) -> None:
    """Each under its own weights, to 1e-4 nats; where an architecture has to be run plainly, a note says so."""
    asked = requests(rng)
    subjects = WholeSubjects(name)
    with Checkpoints(subjects) as checkpoints:
        scores = list(checkpoints.score(asked, (2, 1), (3,)))
        assert np.abs(scores[0] - plain_log_likelihoods(subjects.at(2), asked, (3,))).max() < 1e-4
        assert np.abs(scores[1] - plain_log_likelihoods(subjects.at(1), asked, (3,))).max() < 1e-4
        assert bool(checkpoints.notes) == noted
