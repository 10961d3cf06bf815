"""Drawing and scoring on the machines of a Ray cluster: the same pieces of work as in one process, with the same results.

A piece is one checkpoint: its draws, or the scores it gives. The driver asks for all pieces and writes each as it arrives; what was on a
machine that is lost, Ray computes again elsewhere. Weights are read by the machines themselves, so folders have to be visible to all of
them under the same path; the token ids of responses are sent once to each. ray is imported inside functions: it is an optional part.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.checkpoint_source import CheckpointSource
from agent.errors import ConfigError, RecordingError
from agent.instrument import Drawing, LocalInstrument
from agent.run_tokenizer import run_tokenizer
from probes.request import Request
from probes.sampler import Draw, Question

ATTEMPTS = 5
"""Times a piece is begun again after the machine that had it was lost."""
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
"""As the command sets it in its own process, where a machine does not say otherwise."""
_held: dict[str, LocalInstrument] = {}  # of a machine's process: loaded for its first piece, kept for the others


@dataclass(frozen=True)
class Job:
    """Everything a machine needs to know, sent once.

    Attributes:
        source: Where the weights lie.
        questions: What is asked.
        drawing: How responses are drawn and scored.
        dtype: Of the weights.
        device: None: the best the machine has.
    """

    source: CheckpointSource
    questions: tuple[Question, ...]
    drawing: Drawing
    dtype: str
    device: str | None

    @property
    def digest(self) -> str:
        """What identifies it to the machines."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


def draw_piece(job: Job, digest: str, step: int) -> list[Draw]:
    """The draws of one checkpoint, on the machine where this is called."""
    return next(iter(_instrument(job, digest).draw([step])))


def score_piece(job: Job, digest: str, step: int, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
    """The scores that one checkpoint gives, on the machine where this is called."""
    return next(iter(_instrument(job, digest).score([step], requests)))


def _instrument(job: Job, digest: str) -> LocalInstrument:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from probes.checkpoints import Checkpoints

    if digest not in _held:
        _held.clear()
        checkpoints = Checkpoints(job.source.subjects(job.dtype, job.device), workers=1)
        _held[digest] = LocalInstrument(checkpoints, run_tokenizer(job.source)[0], job.questions, job.drawing)
    return _held[digest]


class RayInstrument:
    """An :class:`agent.recording.Instrument` of a Ray cluster."""

    def __init__(self, job: Job, encoded: Sequence[tuple[int, ...]]) -> None:
        """Send the job.

        Args:
            job: What the machines need to know.
            encoded: Token ids of the questions.
        """
        import ray

        self.questions, self.encoded = job.questions, tuple(encoded)
        self._digest = job.digest
        self._job = ray.put(job)
        gpus = 1 if job.device is not None and job.device.startswith("cuda") else 0
        how = {"num_cpus": 1, "num_gpus": gpus, "max_retries": ATTEMPTS}
        self._draw: Any
        self._score: Any
        self._draw, self._score = (ray.remote(piece).options(**how) for piece in (draw_piece, score_piece))

    def draw(self, steps: Sequence[int]) -> Iterator[list[Draw]]:
        """The responses drawn at each of these steps."""
        yield from self._results([self._draw.remote(self._job, self._digest, step) for step in steps])

    def score(self, steps: Sequence[int], requests: Sequence[Request]) -> Iterator[npt.NDArray[np.float64]]:
        """Nats of all requests under each of these steps."""
        import ray

        sent: Any = ray.put(list(requests))
        yield from self._results([self._score.remote(self._job, self._digest, step, sent) for step in steps])

    def _results(self, pieces: list[Any]) -> Iterator[Any]:
        """Results in order; what is not wanted any more is called off."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            for piece in pieces:
                yield ray.get(piece)
        except RayTaskError as error:
            raise error.cause from None  # what the piece itself raised
        except RayError as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RecordingError(
                f"--ray: a piece of work was lost {ATTEMPTS} times or more ({line}); run the same command to go on"
            ) from error
        finally:
            for piece in pieces:
                ray.cancel(piece, force=False)


@contextmanager
def ray_cluster(address: str) -> Iterator[None]:
    """A connection to a cluster, unless this process has one.

    Args:
        address: `auto`, HOST:PORT of a running cluster, or `local` to start one on this machine.

    Raises:
        ConfigError: ray is not installed.
        RecordingError: No cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray: expected the optional part, found none; install it: pip install -c constraints.txt -e '.[ray]'") from None
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecordingError(f"--ray {address}: expected a running Ray cluster, found none ({line})") from error
    try:
        yield
    finally:
        ray.shutdown()
