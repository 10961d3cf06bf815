"""What a review is about: the findings as they are now, what was decided, and the responses a person may label."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from agent import decisions
from agent.decisions import Decision, Standing
from agent.errors import AgentError
from agent.labelling import measure_judge, queue
from agent.records import Findings, LabelAgreement, OrderParameter
from agent.report import read_findings
from agent.report.review_view import Item
from tracing import Recording, load
from tracing.errors import TracingError
from tracing.judgements import JudgementStore

LABELS_WANTED = 20
"""Labels asked for per order parameter; more are welcome."""


class Session:
    """A reviewer at work on one folder.

    Args:
        folder: Folder of a discovery with findings.
        discovery: Digest that names it in `review.jsonl`.
        reviewer: Written beside every decision; may be empty.

    Raises:
        FindingsFileError: No findings there.
    """

    def __init__(self, folder: Path, discovery: str, reviewer: str = "") -> None:
        self.folder, self.discovery, self.reviewer = folder, discovery, reviewer
        self.findings: Findings = read_findings(folder)
        self.decisions = decisions.read(folder)

    @property
    def standing(self) -> Standing:
        """What stands now."""
        return decisions.standing(self.decisions, self.discovery)

    def write(self, decision: Decision) -> None:
        """Keep one decision; it is on disk when this returns."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        decision = decision.model_copy(update={"discovery": self.discovery, "reviewer": self.reviewer, "at": now})
        decisions.append(self.folder, decision)
        self.decisions.append(decision)

    # ---- labels

    @cached_property
    def _recording(self) -> Recording | str:
        """The responses, or why they cannot be shown."""
        config = self.findings.config
        path = Path(str(config.get("run", "")))
        path = path if path.exists() else self.folder
        try:
            recording = load(path, columns=config.get("columns", {}), select=config.get("select", {}))
        except (TracingError, AgentError) as error:
            return f"The responses cannot be read, so none can be labelled: {error}"
        if recording.digest != self.findings.run_digest:
            return f"The responses in {path} are not those of these findings, so none can be labelled."
        return recording

    @property
    def no_labels(self) -> str:
        """Why no response can be labelled; "" when they can."""
        if not (self.folder / "judgements.sqlite").exists():
            return "There are no judgements beside these findings to hold labels against."
        return self._recording if isinstance(self._recording, str) else ""

    def judged(self, parameter: OrderParameter) -> dict[str, int | None]:
        """The judge's levels by text key; None where missing."""
        if parameter.id not in self._judged:
            with JudgementStore(self.folder / "judgements.sqlite") as store:
                rows = store.get(self.findings.judge, parameter.id)
            self._judged[parameter.id] = {key: row["level"] for key, row in rows.items()}
        return self._judged[parameter.id]

    @cached_property
    def _judged(self) -> dict[str, dict[str, int | None]]:
        return {}

    @cached_property
    def _place(self) -> dict[str, int]:
        """First response with each text, by text key."""
        if isinstance(self._recording, str):
            return {}
        return {key: i for i, key in reversed(list(enumerate(self._recording.responses.text_key)))}

    def labelled(self, parameter: OrderParameter) -> list[str]:
        """Text keys the reviewer labelled, in the order of the queue."""
        labels = self.standing.labels
        return [key for key in self._queue(parameter) if (parameter.id, key) in labels]

    def _queue(self, parameter: OrderParameter) -> list[str]:
        return queue(parameter.id, (key for key in self.judged(parameter) if key in self._place))

    def item(self, parameter: OrderParameter, text_key: str = "") -> Item | None:
        """The next response to be labelled, or the one asked for; None when there is none."""
        keys, labels = self._queue(parameter), self.standing.labels
        done = [key for key in keys if (parameter.id, key) in labels]
        todo = [key for key in keys if (parameter.id, key) not in labels]
        key = text_key if text_key in keys else todo[0] if todo else ""
        if not key or isinstance(self._recording, str):
            return None
        i, r = self._place[key], self._recording.responses
        level = labels.get((parameter.id, key), "")
        given = "cannot tell" if level is None else str(level)
        before = [d.text_key for d in self.decisions if d.kind == "label" and d.parameter_id == parameter.id and d.text_key != key]
        return Item(key, r.completion[i], r.prompt[i], r.system[i], given, len(done), LABELS_WANTED, before[-1] if before else "")

    def agreement(self, parameter: OrderParameter) -> LabelAgreement | None:
        """How far the judge agrees with the labels so far."""
        if self.no_labels:
            return None
        return measure_judge(parameter, self.standing.labels, self.judged(parameter))
