"""What `tracing.TransitionRecorder` adds to a training step of a Trainer: with it and without it in turn, in one process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from transformers import TrainerCallback

from tests.benchmarks.section import Section
from tracing import TransitionRecorder

COMMAND = "python -m tests.benchmarks --only recorder"
LIMIT = 0.03
WARM_UP = 4
LENGTH, BATCH, VOCABULARY = 64, 8, 8000


class EveryOther(TransitionRecorder):
    """A recorder that is there at half of the steps, in the order with, without, without, with, and at the others costs nothing."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Attach or detach the hooks before the clock starts."""
        self._detach()
        if recorded(state.global_step):
            self._attach(model)
        super().on_step_begin(args, state, control, **more)

    def on_pre_optimizer_step(self, *given: Any, **more: Any) -> None:
        """As always, with a clock."""
        with self._inside():
            super().on_pre_optimizer_step(*given, **more)

    def on_step_end(self, *given: Any, **more: Any) -> None:
        """As always, with a clock."""
        with self._inside():
            super().on_step_end(*given, **more)

    def _after_gradient(self, parameter: Any) -> None:
        with self._inside():
            super()._after_gradient(parameter)

    def _after_backward(self) -> None:
        with self._inside():
            super()._after_backward()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        began, saved = time.perf_counter(), self.seconds_saving
        yield
        self.seconds_inside += time.perf_counter() - began - (self.seconds_saving - saved)

    seconds_inside = 0.0
    """Spent in the recorder's own methods, without saving: what it costs, free of the noise between steps."""


def recorded(step: int) -> bool:
    """Whether the recorder is there at a step, counted from 0."""
    return step % 4 in (0, 3)


class Clock(TrainerCallback):  # type: ignore[misc] # transformers ships types too loose to read
    """Seconds from each step's beginning to the end of its last callback, without what the recorder spent saving weights."""

    def __init__(self, recorder: TransitionRecorder) -> None:
        self.seconds: list[float] = []
        self._recorder, self._began, self._saved = recorder, 0.0, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self._saved = self._recorder.seconds_saving
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop; the recorder's turn came before."""
        self.seconds.append(time.perf_counter() - self._began - (self._recorder.seconds_saving - self._saved))


def subject(lora: bool) -> Any:
    """A Llama of 20M random parameters, as it is or with LoRA of rank 8 on all linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    plain = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=384,
            intermediate_size=1152,
            num_hidden_layers=9,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=256,
            tie_word_embeddings=True,
        )
    )
    return get_peft_model(plain, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")) if lora else plain


def train(folder: Path, lora: bool, steps: int) -> tuple[np.ndarray, EveryOther]:
    """Seconds of every step, and the recorder."""
    import torch
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(1)
    rows = [{"input_ids": each, "labels": each} for each in torch.randint(0, VOCABULARY, (BATCH * 8, LENGTH))]
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    recorder = EveryOther(every=steps - 1)  # a step with the recorder
    clock = Clock(recorder)
    Trainer(subject(lora), TrainingArguments(**settings), train_dataset=rows, callbacks=[recorder, clock]).train()
    return np.array(clock.seconds), recorder


def pair_ratios(seconds: np.ndarray) -> np.ndarray:
    """What the recorder adds, from each pair of neighbouring steps with and without it, ascending."""
    pairs = seconds[WARM_UP:].reshape(-1, 2)
    first = np.array([recorded(WARM_UP + 2 * k) for k in range(len(pairs))])
    return np.sort(np.where(first, pairs[:, 0] / pairs[:, 1], pairs[:, 1] / pairs[:, 0]) - 1)


def run(quick: bool) -> Section:
    """Measure LoRA and full fine-tuning."""
    import torch

    torch.set_num_threads(1)
    steps = WARM_UP + (12 if quick else 120)
    rows: list[tuple[str, ...]] = []
    held = True
    for lora, name in ((False, "full fine-tuning"), (True, "LoRA, rank 8, all linear layers")):
        with tempfile.TemporaryDirectory() as place:
            seconds, recorder = train(Path(place), lora, steps)
        added = pair_ratios(seconds)
        edge = int(stats.binom.ppf(0.025, len(added), 0.5))
        held &= float(np.median(added)) < LIMIT
        without = np.median([each for step, each in enumerate(seconds) if not recorded(step)])
        inside = recorder.seconds_inside / seconds[[recorded(step) for step in range(steps)]].sum()
        interval = f"{np.median(added):+.2%} [{added[edge]:+.2%}, {added[-1 - edge]:+.2%}]"
        saving = f"{500 * recorder.seconds_saving:.0f} ms"
        rows.append((name, f"{1000 * without:.0f} ms", interval, f"< {LIMIT:.0%}", f"{inside:.2%}", saving))
    size = sum(each.numel() for each in subject(False).parameters()) / 1e6
    return Section(
        title="Recorder: what the callback adds to a training step",
        command=COMMAND,
        columns=(
            "training",
            "step without it",
            "added to a step",
            "bar",
            "spent inside the callback",
            "one saving of weights (not counted)",
        ),
        rows=tuple(rows),
        notes=(
            f"A Llama of {size:.1f}M random parameters in the Trainer, batches of {BATCH} x {LENGTH} tokens, float32, one thread: "
            f"{(steps - WARM_UP) // 2} pairs of neighbouring steps, one with the recorder and one without, in turn: median of the ratios, "
            "95% interval of the sign test. Recorded: raw and clipped norm of all trained parameters, loss, learning rate, rows on disk.",
        ),
        bar=f"Bar {'held' if held else 'NOT held'}.",
    )
