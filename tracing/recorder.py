"""`TransitionRecorder`: one callback that has a Trainer (transformers, TRL) write down what a transition is found by.

    trainer = SFTTrainer(..., callbacks=[TransitionRecorder(every=10, dense=[(40, 80, 1)])])

    OUTPUT/training.jsonl           a row per optimizer step: loss, grad_norm, grad_norm_clipped, learning_rate, epoch
    OUTPUT/adapters/step-000010/    LoRA factors (or the whole weights of a full fine-tune) on a schedule, step 0 among them
    OUTPUT/recorder.json            base and schedule

`discover record --checkpoints OUTPUT` reads all of it. Imported lazily by `tracing`: transformers is needed only here.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback

from tracing.errors import RecorderError
from tracing.json_lines import append_lines, read_lines
from tracing.responses import step_name
from tracing.trainer_output import ADAPTER, TRAINING
from tracing.whole_file import sync_folder, whole_file

NOTE = "recorder.json"
ROWS_AT_A_TIME = 64
SECONDS_AT_A_TIME = 5.0
"""Rows are flushed to disk at every saving of weights and when so many, or so old, have gathered; a kill can lose those."""


@dataclass(frozen=True)
class Schedule:
    """Steps at which weights are kept.

    Attributes:
        every: Each multiple of it, 0 included; None: only the dense parts.
        dense: (first, last, every) for parts of the run that are kept more densely, ends included.
    """

    every: int | None = 10
    dense: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RecorderError: One is out of range.
        """
        if self.every is not None and self.every < 1:
            raise RecorderError(f"TransitionRecorder: expected every of at least 1, found {self.every}")
        for part in self.dense:
            if not (0 <= part[0] <= part[1] and part[2] >= 1):
                raise RecorderError(f"TransitionRecorder: expected dense parts (first, last, every), found {part}")

    def wants(self, step: int) -> bool:
        """Whether the weights of a step are kept."""
        whole = self.every is not None and step % self.every == 0
        return whole or any(first <= step <= last and (step - first) % every == 0 for first, last, every in self.dense)


@dataclass
class _Step:
    """What was measured of the optimizer step under way, as tensors on their device: nothing waits for the GPU before the step's end."""

    raw: Any = None
    clipped: Any = None
    losses: list[Any] = field(default_factory=list)
    summed: bool = False
    learning_rate: float | None = None


class TransitionRecorder(TrainerCallback):  # type: ignore[misc] # transformers ships types too loose to read (pyproject)
    """Records gradient norms, loss and learning rate per optimizer step, and weights on a schedule, beside a Trainer's own output.

    *Gradient norms*: `grad_norm` is the Euclidean norm of the gradient of all trained parameters before clipping, measured once backward
    is through with the last micro-batch of a step (after DDP has averaged it); `grad_norm_clipped` is the one the optimizer gets.
    *Loss*: what the model returned, added up over micro-batches as the Trainer does; what the Trainer logs when it logs every step. With
    several processes it is the Trainer's log alone.

    Only the first process writes. Training that goes on from a checkpoint goes on here: what lies after that checkpoint belongs to a
    course that was given up and is removed. Gradients that are sharded over processes (FSDP, DeepSpeed) are refused.
    """

    def __init__(
        self,
        out: str | Path | None = None,
        every: int | None = 10,
        dense: Iterable[tuple[int, int, int]] = (),
        overwrite: bool = False,
    ) -> None:
        """Choose what is kept.

        Args:
            out: Folder; None: the Trainer's output_dir.
            every: Weights are kept at every so many steps, step 0 included; None: only in dense parts.
            dense: (first, last, every): parts of the run that are kept more densely.
            overwrite: Remove a recording that is there when training starts anew.

        Raises:
            RecorderError: A number is out of range.
        """
        self.out = None if out is None else Path(out)
        self.schedule = Schedule(every, tuple(dense))
        self.overwrite = overwrite
        self.seconds_saving = 0.0
        """Time spent writing weights, which is not part of what recording costs a step."""
        self._step = _Step()
        self._rows: list[dict[str, Any]] = []
        self._flushed = 0.0
        self._handles: list[Any] = []
        self._trained: list[Any] = []
        self._waiting = False
        self._alone = True
        self._sharing: Any = None

    def keep_densely(self, first: int, last: int, every: int = 1) -> None:
        """Keep weights more densely between two steps, from now on; may be called while training runs."""
        self.schedule = Schedule(self.schedule.every, (*self.schedule.dense, (first, last, every)))

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **_: Any) -> None:
        """Attach hooks, write the note, keep the weights of step 0; or take up a recording where training takes up."""
        if not state.is_world_process_zero:
            return
        if getattr(args, "deepspeed", None) or getattr(args, "fsdp", None):
            raise RecorderError("TransitionRecorder: expected gradients that are whole in each process, found FSDP or DeepSpeed")
        self.out = self.out or Path(args.output_dir)
        self._prepare(state.global_step)
        self._alone = args.world_size <= 1
        self._attach(model)
        base = _base(model)
        with whole_file(self.out / NOTE) as file:
            note = {"base": base, "every": self.schedule.every, "dense": self.schedule.dense}
            file.write(json.dumps(note, indent=1).encode() + b"\n")
        if processing_class is not None and hasattr(processing_class, "save_pretrained"):
            processing_class.save_pretrained(self.out / "adapters")
        if state.global_step == 0 and self.schedule.wants(0):
            self._save(model, 0)
        self._flushed = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the step before."""
        self._step = _Step()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Measure the gradient as the optimizer gets it."""
        if not self._handles:
            return
        scale = _loss_scale(optimizer)
        if self._step.raw is not None:
            self._step.raw = self._step.raw / scale
        # clipping by the Trainer unscales first
        self._step.clipped = self._norm() if args.max_grad_norm else self._norm() / scale
        if optimizer is not None:
            self._step.learning_rate = float(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Write the row of the step down and keep its weights when the schedule wants them."""
        if not self._handles:
            return
        step = self._step
        self._rows.append(
            {
                "step": int(state.global_step),
                "loss": self._loss(),
                "grad_norm": _number(step.raw),
                "grad_norm_clipped": _number(step.clipped),
                "learning_rate": step.learning_rate,
                "epoch": None if state.epoch is None else float(state.epoch),
            }
        )
        if self.schedule.wants(state.global_step):
            self._save(model, state.global_step)
        elif len(self._rows) > ROWS_AT_A_TIME or time.monotonic() - self._flushed > SECONDS_AT_A_TIME:
            self._flush(keep=1)  # the newest waits for the Trainer's log

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Take the Trainer's loss where it is one step's, or where there is no other."""
        loss = (logs or {}).get("loss")
        if not self._rows or self._rows[-1]["step"] != state.global_step or isinstance(loss, str) or loss is None:
            return
        every_step = args.logging_strategy == "steps" and state.logging_steps == 1
        if every_step or self._rows[-1]["loss"] is None:
            self._rows[-1]["loss"] = float(loss)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What the Trainer saves it may go on from: the rows until there are on disk."""
        self._flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write what is left and detach the hooks."""
        self._flush()
        self._detach()

    # --- hooks

    def _attach(self, model: Any) -> None:
        from accelerate.state import GradientState

        self._sharing = GradientState()
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._handles = [parameter.register_post_accumulate_grad_hook(self._after_gradient) for parameter in self._trained]
        if self._alone:
            self._handles.append(model.register_forward_hook(self._after_forward, with_kwargs=True))

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._trained = [], []

    def _after_gradient(self, parameter: Any) -> None:
        """A gradient is there; once all are, measure. Asked for again by every later one, so nested backwards (checkpointing) count too."""
        if self._waiting or not self._sharing.sync_gradients:
            return
        self._waiting = True
        engine = torch.autograd.Variable._execution_engine
        # DDP averages in a callback that is queued before the first of ours is called: the second one sees what it gave
        engine.queue_callback(lambda: engine.queue_callback(self._after_backward))

    def _after_backward(self) -> None:
        self._waiting = False
        self._step.raw = self._norm()

    def _after_forward(self, model: Any, inputs: Any, options: dict[str, Any], output: Any) -> None:
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if model.training and torch.is_tensor(loss) and loss.numel() == 1:
            self._step.losses.append(loss.detach())
            self._step.summed = options.get("num_items_in_batch") is not None

    def _norm(self) -> Any:
        return get_total_norm([parameter.grad for parameter in self._trained if parameter.grad is not None])

    def _loss(self) -> float | None:
        losses = self._step.losses
        if not losses:
            return None
        total = torch.stack([loss.float().reshape(()) for loss in losses]).sum()
        return _number(total if self._step.summed else total / len(losses))

    # --- disk

    def _prepare(self, step: int) -> None:
        """Make the folder ready for training from `step`: empty for a fresh start, else without what lies after it."""
        out = self._folder()
        folders = {int(child.name.removeprefix("step-")): child for child in (out / "adapters").glob("step-*") if child.name[5:].isdigit()}
        rows = [row for _, row in read_lines(out / TRAINING)] if (out / TRAINING).exists() else []
        if step == 0 and (rows or folders) and not self.overwrite:
            raise RecorderError(
                f"{out}: expected no recording where training starts anew, found {len(rows)} steps and {len(folders)} sets of weights; "
                "choose another folder, resume, or pass overwrite=True"
            )
        for kept, child in folders.items():
            if kept > step or step == 0:
                shutil.rmtree(child)
        if rows:
            with whole_file(out / TRAINING) as file:
                text = [json.dumps(row) for row in rows if isinstance(row.get("step"), int) and 0 < row["step"] <= step]
                file.write("".join(line + "\n" for line in text).encode())

    def _save(self, model: Any, step: int) -> None:
        began = time.monotonic()
        self._flush(keep=1)
        folder = self._folder() / "adapters" / step_name(step)
        half = folder.with_name(f".{folder.name}.tmp")
        for old in (half, folder):
            shutil.rmtree(old, ignore_errors=True)
        half.mkdir(parents=True)
        if hasattr(model, "peft_config"):
            _save_adapter(model, half)
        else:
            model.save_pretrained(half)
        os.replace(half, folder)
        sync_folder(folder.parent)
        self.seconds_saving += time.monotonic() - began

    def _flush(self, keep: int = 0) -> None:
        done = self._rows[: len(self._rows) - keep]
        if done:
            append_lines(self._folder() / TRAINING, done)
        self._rows = self._rows[len(done) :]
        self._flushed = time.monotonic()

    def _folder(self) -> Path:
        if self.out is None:
            raise RecorderError("TransitionRecorder: expected training to have begun, found no folder yet")
        return self.out


def _save_adapter(model: Any, folder: Path) -> None:
    """As peft saves, without its model card and without asking the hub."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    name = model.active_adapter if isinstance(model.active_adapter, str) else model.active_adapter[0]
    weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    model.peft_config[name].save_pretrained(str(folder))
    with whole_file(folder / ADAPTER) as file:
        file.write(save({key: value.detach().cpu().contiguous() for key, value in weights.items()}, metadata={"format": "pt"}))


def _base(model: Any) -> str | None:
    """Where the weights came from that training started with."""
    configs = getattr(model, "peft_config", None)
    name = next(iter(configs.values())).base_model_name_or_path if configs else getattr(model.config, "_name_or_path", "")
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name or None


def _loss_scale(optimizer: Any) -> float:
    """What losses are multiplied by in float16 training, and gradients with them."""
    scaler = getattr(optimizer, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None else 1.0


def _number(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None
