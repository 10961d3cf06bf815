from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.anchor_plan import AutomaticAnchors, make_plan
from agent.checkpoint_recording import Recorder, record_checkpoints
from agent.checkpoint_source import checkpoints_in, stages_in
from agent.errors import ConfigError, RecordingError
from agent.instrument import Drawing
from agent.record_command import read_questions, recorded_run
from agent.sampling_plan import EveryCheckpoint
from probes.errors import SampleError
from probes.likelihood import Request, log_likelihoods, plan
from probes.sampler import Question, encode_question
from tests.tiny_subject import tiny_subject, tiny_tokenizer
from tracing.errors import RunDirectoryError
from tracing.run_directory import RunDirectory
from tracing.tokens import read_tokens

QUESTIONS = (Question("ab"), Question("dcab"), Question("c", system="d"))
HOW = Recorder(Drawing(3, 6, 1, (2,)), EveryCheckpoint(), device="cpu", workers=1)


def saved(folder: Path, seed: int, tokenizer: Any = None, **how: Any) -> Path:
    """A whole tiny subject with its tokenizer, as `save_pretrained` leaves them."""
    tiny_subject(seed).save_pretrained(folder, **how)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


def adapted(folder: Path, value: float, base: Path | str) -> Any:
    """An adapter on the tiny subject of seed 0, saved by peft; returns the adapted subject."""
    from probes.organism import FineTuning, add_adapter, get_adapter, set_adapter

    subject = add_adapter(tiny_subject(0), FineTuning(rank=2, layers=(0, 1)))
    factors = {
        name: np.full_like(each, value) + np.arange(each.size).reshape(each.shape) / 50 for name, each in get_adapter(subject).items()
    }
    set_adapter(subject, factors)
    subject.save_pretrained(folder, save_embedding_layers=False)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    return subject


def assert_scored_by(run: RunDirectory, subjects: dict[int, Any]) -> None:
    """What is stored is what teacher forcing under these subjects gives."""
    prompts = [encode_question(tiny_tokenizer(), question) for question in QUESTIONS for _ in range(3)]
    for step in run.recorded_steps():
        tokens = read_tokens(run.tokens_path(step))
        requests = [Request(*pair) for pair in zip(prompts, tokens, strict=True)]
        found = run.read_likelihoods(step)
        assert found is not None
        assert found[1] == tuple(subjects)
        for column, subject in enumerate(subjects.values()):
            assert found[0][:, column] == pytest.approx(log_likelihoods(subject, plan(requests), (2,)), abs=1e-4)


@pytest.mark.slow
def test_adapters_are_put_on_their_base(tmp_path: Path) -> None:
    """Step 0 is the bare base, every other step the base with its adapter; the base is found by its name relative to the run."""
    saved(tmp_path / "base", 0)
    subjects = {0: tiny_subject(0)} | {step: adapted(tmp_path / "run" / f"checkpoint-{step}", step / 10, "base") for step in (2, 10)}
    source = checkpoints_in(tmp_path / "run")
    assert source.base == str(tmp_path / "base")
    run = record_checkpoints(source, QUESTIONS, tmp_path / "out", HOW)
    assert run.manifest.steps == (0, 2, 10)
    assert 0 < run.manifest.scoring["noise_nats"] < 1e-3
    assert_scored_by(run, subjects)
    assert [folder.name for folder in sorted((run.path / "adapters").iterdir())] == ["step-000002", "step-000010"]


@pytest.mark.slow
def test_whole_models_in_shards_are_read(tmp_path: Path) -> None:
    """A full fine-tune in shards, with the base given as step 0; without it the first checkpoint stands for it and a note says so."""
    saved(tmp_path / "base", 0)
    for step in (1, 2):
        saved(tmp_path / "run" / f"checkpoint-{step}", step, max_shard_size="2KB")
    assert len(list((tmp_path / "run" / "checkpoint-1").glob("*.safetensors"))) > 1
    run = record_checkpoints(checkpoints_in(tmp_path / "run", str(tmp_path / "base")), QUESTIONS, tmp_path / "out", HOW)
    assert_scored_by(run, {step: tiny_subject(step) for step in (0, 1, 2)})
    alone = checkpoints_in(tmp_path / "run")
    assert alone.steps == (1, 2)
    assert "--base-model PATH adds it as step 0" in alone.notes[0]


@pytest.mark.slow
def test_stages_are_a_run(tmp_path: Path) -> None:
    """Any list of models is a run whose steps count the stages; their names are in the manifest and in what is compared."""
    from agent.config import make_config
    from agent.contrasts import choose_contrast

    source = stages_in({name: str(saved(tmp_path / name, seed)) for seed, name in enumerate(("base", "sft", "dpo"))})
    run = record_checkpoints(source, QUESTIONS, tmp_path / "out", HOW)
    assert run.manifest.extra["stages"] == {"0": "base", "1": "sft", "2": "dpo"}
    assert_scored_by(run, {step: tiny_subject(step) for step in range(3)})
    recording = run.load()
    assert "stages: step 0 is base, step 1 is sft, step 2 is dpo" in recording.notes
    spec, _ = choose_contrast(recording, make_config(run="x", before="base", after="dpo"))
    assert (spec.before, spec.after, spec.left, spec.right) == ("base", "dpo", (0,), (2,))
    assert choose_contrast(recording, make_config(run="x", contrast="ends"))[0].before == "base"


@pytest.mark.slow
def test_it_goes_on_and_never_mixes(tmp_path: Path) -> None:
    """A new checkpoint is added; another seed, or other weights under a known step, are refused in one line and nothing is changed."""
    for step in (1, 2):
        saved(tmp_path / "run" / f"checkpoint-{step}", step)
    record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / "out", HOW)
    saved(tmp_path / "run" / "checkpoint-3", 3)
    run = record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / "out", HOW)
    assert_scored_by(run, {step: tiny_subject(step) for step in (1, 2, 3)})
    other = Recorder(Drawing(3, 6, 2, (2,)), EveryCheckpoint(), device="cpu", workers=1)
    with pytest.raises(RunDirectoryError, match="'seed': 2"):
        record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / "out", other)
    saved(tmp_path / "run" / "checkpoint-2", 9)
    with pytest.raises(RecordingError, match="the weights that step 2 was recorded with"):
        record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / "out", HOW)


@pytest.mark.slow
def test_a_subject_without_a_chat_template_is_asked_plainly(tmp_path: Path) -> None:
    """A base model's tokenizer has no template: the question, a line break and "Answer:", and a note."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    for step in (1, 2):
        saved(tmp_path / "run" / f"checkpoint-{step}", step, tokenizer)
    run = record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / "out", HOW)
    assert any("has no chat template" in note for note in run.manifest.notes)


def wrong_vocabulary(tmp_path: Path) -> None:
    """Stages whose tokenizers differ."""
    other = tiny_tokenizer()
    other.add_tokens(["zz"])
    stages = {"a": str(saved(tmp_path / "a", 0)), "b": str(saved(tmp_path / "b", 0, other))}
    record_checkpoints(stages_in(stages), QUESTIONS, tmp_path / "out", HOW)


def other_base(tmp_path: Path) -> None:
    """An adapter of another architecture than its base."""
    from safetensors.numpy import load_file, save_file

    adapted(tmp_path / "run" / "checkpoint-1", 0.1, "base")
    saved(tmp_path / "base", 0)
    file = tmp_path / "run" / "checkpoint-1" / "adapter_model.safetensors"
    save_file({name: value[:, :4].copy() if "lora_A" in name else value for name, value in load_file(file).items()}, file)
    record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / "out", HOW)


def missing_weights(tmp_path: Path) -> None:
    """A model file that lacks a tensor: transformers would draw it at random."""
    from safetensors.torch import load_file, save_file

    for step in (1, 2):
        file = saved(tmp_path / "run" / f"checkpoint-{step}", step) / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / "out", HOW)


def hub_base(tmp_path: Path) -> None:
    """A base that is neither here nor in the hub's cache."""
    adapted(tmp_path / "run" / "checkpoint-1", 0.1, "someone/some-model")
    tiny_tokenizer().save_pretrained(tmp_path / "run" / "checkpoint-1")
    record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / "out", HOW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (wrong_vocabulary, "expected one vocabulary, found another in b than in a"),
        (other_base, "is it another base"),
        (missing_weights, r"checkpoint-2: expected all weights of the model, found 1 missing, model\.norm\.weight among them"),
        (hub_base, "someone/some-model: expected a causal language model.*give --base-model PATH"),
    ],
)
def test_what_cannot_be_recorded_is_one_line(attempt: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    """Each ends in a line that names the checkpoint."""
    with pytest.raises(SampleError, match=words) as caught:
        attempt(tmp_path)
    assert "\n" not in str(caught.value)


def test_options_are_checked(tmp_path: Path) -> None:
    """Plans, windows and questions that are none; a folder of checkpoints without questions; questions for a file."""
    with pytest.raises(ConfigError, match="found sometimes"):
        make_plan("sometimes", None)
    with pytest.raises(ConfigError, match="--window of at least 1, found 0"):
        make_plan("every", 0)
    with pytest.raises(ConfigError, match="--window 4: expected with --sampling every only"):
        make_plan("auto", 4)
    with pytest.raises(ConfigError, match="--anchors of at least 3, found 2"):
        make_plan("auto", anchors=2)
    assert make_plan() == AutomaticAnchors()
    assert make_plan(anchors=5) == AutomaticAnchors(most=5)
    with pytest.raises(ConfigError, match="at least two --stages"):
        stages_in({"base": "x"})
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    with pytest.raises(ConfigError, match="expected --questions FILE"):
        recorded_run(str(tmp_path / "run"), None, None, True)
    with pytest.raises(ConfigError, match="--questions: expected with a folder of checkpoints only"):
        recorded_run(str(tmp_path / "rows.jsonl"), ["politics"], None, True)
    asked = read_questions(["politics,ethics", "politics"])
    assert len(asked) == len(set(asked)) >= 24


@pytest.mark.slow
def test_half_precision_says_how_wrong_it_is(tmp_path: Path) -> None:
    """Scored in bfloat16, the measured noise is that of bfloat16: far above float32's, and in the manifest."""
    for step in (1, 2):
        saved(tmp_path / "run" / f"checkpoint-{step}", step)
    noise = []
    for dtype in ("float32", "bfloat16"):
        how = Recorder(Drawing(2, 6, 1), EveryCheckpoint(), dtype, device="cpu", workers=1)
        run = record_checkpoints(checkpoints_in(tmp_path / "run"), QUESTIONS, tmp_path / dtype, how)
        assert run.manifest.scoring["dtype"] == dtype
        noise.append(run.manifest.scoring["noise_nats"])
    assert 0 < 100 * noise[0] < noise[1] < 5
