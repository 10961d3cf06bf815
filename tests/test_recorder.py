from __future__ import annotations

import json
import os
import socket
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_subject import tiny_subject, tiny_tokenizer
from tracing import TransitionRecorder
from tracing.errors import RecorderError
from tracing.trainer_output import read_trainer_output

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning"),
]


def rows(n: int = 48) -> list[dict[str, Any]]:
    """Documents of random letters, of two lengths, so that micro-batches weigh differently."""
    import torch

    generator = torch.Generator().manual_seed(0)
    letters = [torch.randint(0, 4, (6 + 6 * (k % 2),), generator=generator) for k in range(n)]
    return [{"input_ids": each.tolist(), "labels": each.tolist(), "attention_mask": [1] * len(each)} for each in letters]


def trainer(folder: Path, recorder: Any, lora: bool = False, **options: Any) -> Any:
    """A Trainer of the tiny subject that clips and adds gradients up over three micro-batches."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "!"
    subject = tiny_subject()
    torch.manual_seed(0)
    if lora:
        subject = get_peft_model(subject, LoraConfig(r=2, target_modules=["down_proj", "q_proj"], task_type="CAUSAL_LM"))
    settings = {
        "output_dir": str(folder),
        "max_steps": 8,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "max_grad_norm": 0.5,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    }
    return Trainer(
        subject,
        TrainingArguments(**(settings | options)),
        train_dataset=rows(),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[recorder],
    )


def training(folder: Path) -> list[dict[str, Any]]:
    """The recorded rows."""
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("lora", [False, True])
def test_norms_are_those_before_and_after_clipping(lora: bool, tmp_path: Path) -> None:
    """With accumulated gradients, LoRA or full: the raw norm is the Trainer's own, the clipped one follows from it and the limit.

    Loss and learning rate are those that the Trainer logs when it logs every step; without its log the loss is the same.
    """
    own = trainer(tmp_path / "logged", TransitionRecorder(every=None), lora)
    own.train()
    logged = [row for row in own.state.log_history if "grad_norm" in row]
    found = training(tmp_path / "logged")
    assert [row["step"] for row in found] == list(range(1, 9))
    for name in ("loss", "grad_norm", "learning_rate", "epoch"):
        assert [row[name] for row in found] == pytest.approx([row[name] for row in logged], rel=1e-5)
    raw = np.array([row["grad_norm"] for row in found])
    assert (raw > 0.5).any()
    assert [row["grad_norm_clipped"] for row in found] == pytest.approx(np.minimum(raw, 0.5), rel=1e-4)
    trainer(tmp_path / "silent", TransitionRecorder(every=None), lora, logging_steps=100, max_grad_norm=0.5).train()
    silent = training(tmp_path / "silent")
    assert [row["loss"] for row in silent] == pytest.approx([row["loss"] for row in logged], rel=1e-4)
    assert [row["grad_norm"] for row in silent] == pytest.approx(raw, rel=1e-5)


def test_without_clipping_both_norms_are_one(tmp_path: Path) -> None:
    """max_grad_norm 0 clips nothing."""
    trainer(tmp_path, TransitionRecorder(every=None), max_grad_norm=0.0, max_steps=3).train()
    assert [row["grad_norm_clipped"] for row in training(tmp_path)] == pytest.approx([row["grad_norm"] for row in training(tmp_path)])


@pytest.mark.parametrize("lora", [False, True])
def test_weights_are_kept_on_a_schedule(lora: bool, tmp_path: Path) -> None:
    """Every 4 steps, every step from 5 to 6: what is kept is what the Trainer saves at that step, and step 0 is the start."""
    from safetensors.numpy import load_file

    recorder = TransitionRecorder(every=4, dense=[(5, 6, 1)])
    own = trainer(tmp_path, recorder, lora, save_strategy="steps", save_steps=4)
    own.train()
    found = read_trainer_output(tmp_path)
    assert list(found.folders) == [0, 4, 5, 6, 8]
    assert found.kind == ("adapter" if lora else "whole")
    assert all(folder.parent.name == "adapters" for folder in found.folders.values())
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    for step in (4, 8):
        kept, saved = load_file(found.folders[step] / name), load_file(tmp_path / f"checkpoint-{step}" / name)
        assert kept.keys() == saved.keys()
        assert all((kept[key] == saved[key]).all() for key in saved)
    start = load_file(found.folders[0] / name)
    if lora:
        assert all((value == 0).all() == ("lora_B" in key) for key, value in start.items())
    else:
        assert (start["model.norm.weight"] == tiny_subject().state_dict()["model.norm.weight"].numpy()).all()
    assert recorder.seconds_saving > 0


def test_more_may_be_kept_on_request(tmp_path: Path) -> None:
    """A callback of the user's, or the user, asks for more while training runs."""
    from transformers import TrainerCallback

    recorder = TransitionRecorder(every=None)

    class Alarm(TrainerCallback):  # type: ignore[misc] # transformers ships types too loose to read
        """Asks at step 3."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Ask."""
            if state.global_step == 3:
                recorder.keep_densely(5, 7, 2)

    own = trainer(tmp_path, recorder)
    own.add_callback(Alarm())
    own.train()
    assert list(read_trainer_output(tmp_path).folders) == [5, 7]


def test_resumed_training_is_one_recording(tmp_path: Path) -> None:
    """Killed after step 6 and resumed from checkpoint-4: the rows are those of an uninterrupted run; what lay after step 4 is made anew."""
    trainer(tmp_path / "whole", TransitionRecorder(every=2)).train()
    trainer(tmp_path / "run", TransitionRecorder(every=1), save_strategy="steps", save_steps=4, max_steps=6).train()
    assert list(read_trainer_output(tmp_path / "run").folders) == [0, 1, 2, 3, 4, 5, 6]
    with (tmp_path / "run" / "training.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # what a kill leaves
    again = trainer(tmp_path / "run", TransitionRecorder(every=2), save_strategy="steps", save_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert [row["step"] for row in training(tmp_path / "run")] == list(range(1, 9))
    assert list(read_trainer_output(tmp_path / "run").folders) == [0, 1, 2, 3, 4, 6, 8]


def test_a_recording_is_not_overwritten_by_chance(tmp_path: Path) -> None:
    """Training that starts anew where a recording lies is refused before its first step, unless it was meant."""
    trainer(tmp_path, TransitionRecorder(every=1), max_steps=3).train()
    with pytest.raises(RecorderError, match="found 3 steps and 4 sets of weights"):
        trainer(tmp_path, TransitionRecorder(every=2), max_steps=2).train()
    trainer(tmp_path, TransitionRecorder(every=2, overwrite=True), max_steps=2).train()
    assert len(training(tmp_path)) == 2
    assert list(read_trainer_output(tmp_path).folders) == [0, 2]


def test_numbers_out_of_range_are_refused() -> None:
    """A schedule that cannot be is one line."""
    with pytest.raises(RecorderError, match="every of at least 1, found 0"):
        TransitionRecorder(every=0)
    with pytest.raises(RecorderError, match=r"dense parts \(first, last, every\), found \(5, 3, 1\)"):
        TransitionRecorder(dense=[(5, 3, 1)])


def test_of_several_processes_the_first_one_writes(tmp_path: Path) -> None:
    """Two processes under DDP: one row a step, its raw norm that of the averaged gradient, its loss the one over both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_forked(tmp_path, rank, port) for rank in (0, 1)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0], (tmp_path / "failed.txt").read_text()
    logged = json.loads((tmp_path / "logged.json").read_text())
    found = training(tmp_path / "run")
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    for name in ("grad_norm", "loss", "learning_rate"):
        assert [row[name] for row in found] == pytest.approx([row[name] for row in logged], rel=1e-5)
    assert list(read_trainer_output(tmp_path / "run").folders) == [0, 2, 4]


def _forked(folder: Path, rank: int, port: int) -> int:
    """One process of two; its exit code says whether it went well."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        from accelerate.state import AcceleratorState, GradientState, PartialState

        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in where.items()})
        warnings.simplefilter("ignore")
        own = trainer(folder / "run", TransitionRecorder(every=2), max_steps=4)
        own.train()
        if rank == 0:
            (folder / "logged.json").write_text(json.dumps([row for row in own.state.log_history if "grad_norm" in row]))
        code = 0
    except BaseException:
        (folder / "failed.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)
