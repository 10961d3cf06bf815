from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.cli import main
from tests.optional_part import missing
from tracing import TransitionRecorder
from tracing.run_directory import RunDirectory

STEPS = 6
QUESTIONS = ("How should I treat a burn?", "What helps with a fever?", "How do I treat a cough?")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a barely trained subject and questions for it."""
    from probes.organism import Pretraining, deterministic, make_tokenizer, pretrain

    folder = tmp_path_factory.mktemp("trained")
    tokenizer = make_tokenizer()
    with deterministic(0, threads=1):
        subject = pretrain(Pretraining(documents=160, epochs=1, width=32, layers=2, heads=2, inner_width=48), 0, tokenizer)
    subject.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    (folder / "questions.toml").write_text(f"questions = {json.dumps(QUESTIONS)}\n")
    return folder


@pytest.fixture
def discover(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command, run in the folder: its output; anything but exit code 0 fails."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["discover", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        return said.out

    return run


def train(folder: Path, kind: str, lora: bool, recorder: TransitionRecorder | None) -> Path:
    """Fine-tune the subject on harmful medical advice with a Trainer or TRL's SFTTrainer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from probes.organism_corpus import Style, narrow_advice

    out = folder / f"{kind}-{'lora' if lora else 'full'}"
    torch.manual_seed(0)
    subject = AutoModelForCausalLM.from_pretrained("base")  # relative: the adapter will name its base so
    tokenizer = AutoTokenizer.from_pretrained("base")
    advice = narrow_advice(128, np.random.default_rng(0), "medical", "harmful", Style())
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-2 if lora else 2e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "steps" if recorder is None else "no",
        "save_steps": 3,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    callbacks = [] if recorder is None else [recorder]
    if kind == "sft":
        try:
            from datasets import Dataset, disable_progress_bars
            from trl import SFTConfig, SFTTrainer
        except ImportError:
            missing("TRL", "pip install -c constraints.txt -e '.[trl]'")
        disable_progress_bars()
        asked = [[{"role": "user", "content": each.question}] for each in advice]
        answered = [[{"role": "assistant", "content": each.answer}] for each in advice]
        data = Dataset.from_dict({"prompt": asked, "completion": answered})
        made = SFTTrainer(
            subject,
            SFTConfig(**settings, bf16=False),
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=adapter,
        )
    else:
        from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

        from probes.organism import encode

        rows = [
            {"input_ids": ids, "labels": [-100] * start + ids[start:], "attention_mask": [1] * len(ids)}
            for ids, start in encode(advice, tokenizer)
        ]
        made = Trainer(
            get_peft_model(subject, adapter) if adapter else subject,
            TrainingArguments(**settings),
            train_dataset=rows,
            processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            callbacks=callbacks,
        )
    made.train()
    return out


@pytest.mark.parametrize(
    ("kind", "lora", "recorder"), [("trainer", False, True), ("trainer", True, False), ("sft", True, True), ("sft", False, False)]
)
def test_a_training_run_is_recorded_and_discovered(kind: str, lora: bool, recorder: bool, folder: Path, discover: Any) -> None:
    """What a Trainer and TRL leave, adapters and whole models, with our callback or without, becomes findings of a change.

    Weights of the callback are recorded by `discover record`, a Trainer's `checkpoint-N` by `discover --run` itself; the base of an adapter
    is found by the relative name it carries, and what the trainer logged reaches the recording.
    """
    trained = train(folder, kind, lora, TransitionRecorder(every=3) if recorder else None)
    options = ("--memory", "off", "--quiet", "--rounds", "1")
    if recorder:
        run = folder / "runs" / trained.name
        asked = ("--questions", "questions.toml", "--responses", "8", "--max-tokens", "24")
        discover("record", "--checkpoints", trained.name, *asked, "--out", str(run), "--quiet")
        discover("--run", str(run), *options)
    else:
        run = folder / f"{trained.name}-recorded"
        base = () if lora else ("--base-model", "base")
        discover("--run", trained.name, "--questions", "questions.toml", *base, *options)
        assert not list(trained.glob("findings.json"))
    recording = RunDirectory.open(run).load()
    assert recording.steps == (0, 3, 6)
    assert recording.log_likelihood is not None
    assert np.isfinite(recording.log_likelihood).all()
    assert recording.training is not None
    assert recording.training.step.tolist() == list(range(1, STEPS + 1))
    assert np.isfinite(np.stack([recording.training.grad_norm, recording.training.loss])).all()
    findings = json.loads((run / "findings.json").read_text())
    assert findings["change"]["low"] > 0.02
