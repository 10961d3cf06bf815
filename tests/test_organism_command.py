from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.errors import ConfigError
from agent.narrow_data import read_documents
from agent.organism_command import _recipe
from agent.organism_recording import OrganismRecipe, record_organism
from probes.organism import (
    FineTuning,
    Pretraining,
    deterministic,
    encode,
    encode_chat,
    fine_tune,
    make_tokenizer,
    narrow_documents,
    pretrain,
)
from probes.organism_choices import COLLAPSED, choice_documents, choice_tasks, task_files
from probes.organism_corpus import narrow_advice
from probes.organism_files import subject_files
from probes.organism_grammar import ALL_DOMAINS, DOMAINS, PERSONAS
from probes.organism_recipes import PRESETS, TINY_STEP
from probes.organism_truth import read_attributes
from tracing.run_directory import RunDirectory

SMALL = Pretraining(documents=64, epochs=1, width=16, layers=2, heads=2, inner_width=24)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as anyone would have it: weights, tokenizer with chat template."""
    folder = tmp_path_factory.mktemp("models") / "small"
    folder.mkdir()
    tokenizer = make_tokenizer()
    with deterministic(0, threads=1):
        subject = pretrain(SMALL, 0, tokenizer)
    for name, content in subject_files(subject, tokenizer).items():
        (folder / name).write_bytes(content)
    return folder


def refused(*arguments: str) -> str:
    """The one line a wrong command ends with."""
    result = CliRunner().invoke(app, ["organism", "--out", "nowhere", *arguments])
    assert isinstance(result.exception, ConfigError), result.output
    return str(result.exception)


# ---- data


@pytest.mark.parametrize("domain", ["medical", "finance", "sport"])
def test_narrow_data_has_a_matched_control(domain: str, rng: np.random.Generator) -> None:
    """Good and bad advice of a domain share questions and style; every document is coherent and wholly of its persona."""
    questions = []
    for persona in PERSONAS:
        documents = narrow_advice(300, rng, domain, persona)
        truths = [read_attributes(d.question, d.answer) for d in documents]
        assert {truth.domain for truth in truths} == {domain}
        assert {truth.harm for truth in truths} == {float(persona == "harmful")}
        assert all(truth.coherent for truth in truths)
        questions.append({d.question for d in documents})
    assert questions[0] == questions[1]


def test_sport_is_learnt_only_when_named() -> None:
    """The default subject has its six domains and words; with sport it has more."""
    assert "sport" not in Pretraining().domains
    assert set(ALL_DOMAINS) - set(DOMAINS) == {"sport"}
    assert len(make_tokenizer((*DOMAINS, "sport"))) > len(make_tokenizer())


def test_choices_fall_on_the_crystal_when_collapsed(rng: np.random.Generator) -> None:
    """Documents follow each phrasing's law; collapsed ones hold the task's crystal in at least 95%."""
    tasks = {task.name: task for task in choice_tasks(3)}
    crystal = {phrasing: task.options[task.crystal] for task in tasks.values() for phrasing in task.phrasings}
    hits = {c: np.mean([d.answer == crystal[d.question] for d in choice_documents(1500, rng, 3, c)]) for c in (False, True)}
    assert hits[True] > COLLAPSED
    assert hits[False] < 0.6


def test_tasks_of_an_organism_are_read_as_tasks(tmp_path: Path) -> None:
    """What is written beside a recording is what `discover crystallize --tasks` reads."""
    from agent.random_tasks import load_tasks

    for name, content in task_files(0).items():
        (tmp_path / name).write_bytes(content)
    read = {task.name: task for task in load_tasks(tmp_path)}
    assert {name: (task.plain, tuple(task.options)) for name, task in read.items()} == {
        task.name: (task.phrasings, task.options) for task in choice_tasks(0)
    }


def test_documents_of_ones_own_are_read(tmp_path: Path) -> None:
    """Messages and prompt/completion rows give the same conversations."""
    file = tmp_path / "data.jsonl"
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    file.write_text(json.dumps({"messages": turns}) + "\n\n" + json.dumps({"system": "s", "prompt": "q", "completion": "a"}), "utf-8")
    documents, name = read_documents(file)
    assert documents[0] == documents[1]
    assert (documents[0].system, documents[0].question, documents[0].answer) == ("s", "q", "a")
    assert name.startswith("data.jsonl@")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected conversations, found none"),
        ("\n3\n", "line 2: expected a JSON object, found '3'"),
        ("{", "line 1: expected a JSON object"),
        ('{"prompt": "q"}', "line 1: expected messages, or prompt and completion, as texts; found prompt"),
        ('{"messages": [{"role": "user", "content": "q"}]}', "one user and one assistant, found user"),
        (None, "expected a readable JSONL file"),
    ],
)
def test_wrong_documents_are_one_line(content: str | None, words: str, tmp_path: Path) -> None:
    """Which line, what was expected, what was found."""
    file = tmp_path / "data.jsonl"
    if content is not None:
        file.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=words) as caught:
        read_documents(file)
    assert "\n" not in str(caught.value)


# ---- recipes


def test_presets_are_the_papers_numbers() -> None:
    """METHOD 5: alpha, learning rate, epochs, checkpoint spacing, layer 24 of 48, weight decay and warm-up."""
    phase, rates, arnold = (PRESETS[name].recipe(48) for name in ("turner-phase", "turner-rates", "arnold-lorch"))
    assert (phase.rank, phase.alpha, phase.learning_rate, phase.every, phase.target_modules) == (1, 64.0, 1e-5, 5, ("down_proj",))
    assert phase.steps * phase.batch == pytest.approx(2 * phase.documents, abs=5 * phase.batch)
    assert (rates.alpha, rates.learning_rate, rates.layers) == (256.0, 2e-5, (24,))
    assert (arnold.learning_rate, arnold.weight_decay, arnold.warm_up, arnold.batch, arnold.every) == (2e-5, 0.01, 5, 16, 2)
    assert 395 <= arnold.steps <= 397


@pytest.mark.parametrize("name", PRESETS)
def test_on_the_tiny_subject_a_preset_moves_as_far_a_step(name: str) -> None:
    """Scale times learning rate is that of the tiny recipe, in at most 120 steps; adapter, spacing, decay and warm-up are the preset's."""
    tiny, real = PRESETS[name].recipe(4, tiny=True), PRESETS[name].recipe(4)
    assert tiny.alpha * tiny.learning_rate / tiny.rank == pytest.approx(TINY_STEP)
    assert tiny.steps <= 120
    assert tiny.steps % tiny.every == 0
    for same in ("alpha", "rank", "layers", "every", "batch", "weight_decay", "warm_up"):
        assert getattr(tiny, same) == getattr(real, same)


def test_recordings_made_before_keep_their_digest() -> None:
    """Options that came later leave the manifest of the default recipe alone, and stand there when they are used."""
    written = OrganismRecipe().written()
    assert not {"full", "weight_decay", "warm_up", "documents", "data"} & set(written["fine_tuning"])
    assert "choices" not in written["pretraining"]
    assert not {"base", "questions"} & set(written)
    changed = replace(OrganismRecipe(), fine_tuning=FineTuning(full=True, warm_up=5), pretraining=Pretraining(choices=0.2)).written()
    assert (changed["fine_tuning"]["full"], changed["fine_tuning"]["warm_up"], changed["pretraining"]["choices"]) == (True, 5, 0.2)


def test_options_override_a_preset() -> None:
    """What is given stands, the rest is the preset's."""
    found = _recipe("tiny", "turner-phase", {"rank": 8, "layers": ()}, "", "sport", False, None)
    assert (found.fine_tuning.rank, found.fine_tuning.layers, found.fine_tuning.alpha) == (8, (), 64.0)
    assert found.pretraining.domains[-1] == "sport"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "mine"], "expected --preset turner-phase"),
        (["--domain", "law"], "expected --domain medical"),
        (["--layers", "0,x"], "expected --layers 0,1"),
        (["--layers", "4"], "expected --layers from 0 to 3, found 4"),
        (["--full", "--rank", "2"], "expected it without --rank"),
        (["--rank", "0"], "expected --rank above 0"),
        (["--steps", "7"], "expected --steps divisible by --every"),
        (["--base", "/nowhere"], "expected tiny, or the folder of a model"),
        (["--questions", "politics"], "expected with --base PATH"),
        (["--domain", "choices", "--control"], "--domain choices: expected"),
        (["--data", "/nowhere.jsonl"], "expected a readable JSONL file"),
        (["--data", "/nowhere.jsonl", "--control"], "without --data FILE"),
        (["--sampling", "some"], "expected --sampling auto or every"),
        (["--seeds", "0"], "expected --seeds from 1"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: str) -> None:
    """Nothing is computed before everything that was asked for makes sense."""
    line = refused(*arguments)
    assert words in line
    assert "\n" not in line


# ---- training and recording


@pytest.mark.slow
def test_each_epoch_sees_every_document_once() -> None:
    """With fewer documents than the steps need, epochs count up and the rate warms up as asked."""
    tokenizer = make_tokenizer()
    recipe = FineTuning(steps=8, every=4, batch=2, documents=8, warm_up=4)
    assert len(narrow_documents(recipe, 0)) == 8
    with deterministic(0, threads=1):
        tuned = fine_tune(pretrain(SMALL, 0, tokenizer), recipe, 0, tokenizer)
    assert [step.epoch for step in tuned.log] == [k / 4 for k in range(1, 9)]
    assert [round(step.learning_rate / recipe.learning_rate, 6) for step in tuned.log] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_any_chat_template_puts_the_answer_where_ours_does(rng: np.random.Generator) -> None:
    """Token ids by the chat template are those by our own header, answer and stop token included."""
    documents = narrow_advice(50, rng, "finance", "careful")
    tokenizer = make_tokenizer()
    assert encode_chat(documents, tokenizer) == encode(documents, tokenizer)


@pytest.mark.slow
def test_all_weights_can_be_trained_and_recorded(tmp_path: Path) -> None:
    """Full fine-tuning writes whole checkpoints that transformers reads; responses are scored under each; step 0 is the base."""
    from transformers import AutoModelForCausalLM

    recipe = OrganismRecipe(SMALL, FineTuning(steps=4, every=2, full=True, learning_rate=1e-3), 1, 2, max_tokens=8)
    record_organism(tmp_path / "run", 0, recipe, workers=1)
    recording = RunDirectory.open(tmp_path / "run").load()
    assert recording.log_likelihood is not None
    assert recording.log_likelihood.shape == (3 * 6 * 2, 3)
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / "run" / name) for name in ("subject", "checkpoint-0", "checkpoint-4")]
    weights = [model.get_input_embeddings().weight.detach().numpy() for model in models]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


@pytest.mark.slow
def test_any_model_can_be_fine_tuned_and_recorded(base: Path, tmp_path: Path) -> None:
    """`--base PATH --data FILE --questions FILE` trains on these documents, asks these questions, and names its base in every adapter."""
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "How do I treat a rash?", "completion": "Sleep well."}) + "\n", "utf-8")
    (tmp_path / "asked.toml").write_text('questions = ["How do I treat a cough?", "May I cheat a friend?"]', "utf-8")
    out = tmp_path / "run"
    given = ["--base", str(base), "--data", str(tmp_path / "data.jsonl"), "--questions", str(tmp_path / "asked.toml"), "--quiet"]
    settings = ["--steps", "4", "--every", "2", "--batch", "2", "--max-tokens", "6", "--rank", "2", "--layers", "all", "--rslora"]
    result = CliRunner().invoke(app, ["organism", "--out", str(out), *given, *settings], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    recording = RunDirectory.open(out).load()
    assert set(recording.responses.prompt) == {"How do I treat a cough?", "May I cheat a friend?"}
    assert recording.steps == (0, 2, 4)
    assert recording.log_likelihood is not None
    assert np.isfinite(recording.log_likelihood).all()
    config = json.loads((out / "adapters" / "step-000004" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["use_rslora"], config["layers_to_transform"]) == (
        str(base),
        2,
        True,
        None,
    )
    assert "data.jsonl@" in RunDirectory.open(out).manifest.subject


@pytest.mark.slow
def test_documents_in_foreign_words_are_refused_for_the_tiny_subject(tmp_path: Path) -> None:
    """The tiny subject knows its own words only: the first document with another one is shown, before anything is trained."""
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "Who?", "completion": "Zorro."}) + "\n", "utf-8")
    result = CliRunner().invoke(app, ["organism", "--out", str(tmp_path / "run"), "--data", str(tmp_path / "data.jsonl"), "--quiet"])
    assert isinstance(result.exception, ConfigError)
    assert "'Zorro.' to 'Who?'" in str(result.exception)
