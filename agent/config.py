"""One frozen configuration of a discovery; written to the run directory before the first call."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import ConfigError

ContrastChoice = Literal["auto", "window", "ends", "split", "sides"]
RaceChoice = Literal["auto", "on", "off"]
NullKind = Literal["none", "permute", "split"]


class RunConfig(BaseModel):
    """What `discover --run` was asked to do. Defaults are those of METHOD 4.

    Attributes:
        run: What is read: a run directory or a file of responses.
        columns, select: Renamed columns and kept rows of a file.
        contrast: What is compared; `auto` takes the transition if one is found, else the ends, or the two sides of a file.
        before, after: Side names (or steps) when given.
        split: First step of the after side.
        transition: Which of several transitions is analysed, by height of its peak.
        window: L, checkpoints per side; None scans 1, 2, 4, 8, ... up to a quarter of the run.
        proposer, judge: `provider:name`.
        second_judge: Reads a part of the responses as well, to measure the judge.
        reread: Most responses that are read again, in every way, for each accepted parameter.
        human_labels: CSV file of levels that people gave, to measure the judge.
        seed: Seed of every random choice.
        rounds, candidates: Turns of the loop and candidates in each.
        alpha: Family-wise level of the agent's family, split over the rounds as alpha/2^r (a round that accepts all it tests
            passes its part on), and of the human family (Holm).
        min_share: Smallest gain in joint share that counts.
        min_change: The lower limit of D must reach this before any share is printed.
        residual: Stop when the joint share leaves less than this.
        n_permutations: Permutations of each test.
        evidence_pairs: Same-prompt pairs shown to a proposer that reads.
        memory: Folder or address of the memory, or "off".
        memory_examples: Keep evidence pairs (response text) in the memory.
        hypotheses: The user's own order parameters (a TOML file), tested first, in a family of their own.
        hypothesis: More of them, each a sentence or a question.
        race: Whether candidates that show too little on the propose half are given up before they are read to the end; `auto`: where
            reading is paid for. Human hypotheses are always read to the end.
        review: Stop for a reviewer before the end (`discover review`), then go on with what was decided.
        null: Also rerun the whole loop on data in which nothing changed, `null_runs` times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    columns: dict[str, str] = {}
    select: dict[str, str] = {}
    contrast: ContrastChoice = "auto"
    before: str | None = None
    after: str | None = None
    split: int | None = None
    window: int | None = Field(None, ge=1)
    transition: int = Field(1, ge=1)
    proposer: str = "embedded"
    judge: str = "embedded"
    second_judge: str | None = None
    reread: int = Field(200, ge=0)
    human_labels: str | None = None
    seed: int = Field(0, ge=0)
    rounds: int = Field(6, ge=1, le=16)
    candidates: int = Field(5, ge=1, le=50)
    alpha: float = Field(0.05, gt=0, lt=1)
    min_share: float = Field(0.02, ge=0, lt=1)
    min_change: float = Field(0.01, ge=0, lt=1)
    residual: float = Field(0.10, ge=0, lt=1)
    n_permutations: int = Field(2000, ge=99)
    evidence_pairs: int = Field(12, ge=1)
    memory: str | None = None
    memory_examples: bool = False
    hypotheses: str | None = None
    hypothesis: tuple[str, ...] = ()
    race: RaceChoice = "auto"
    null: NullKind = "none"
    null_runs: int = Field(5, ge=1, le=1000)
    review: bool = False

    def written(self) -> dict[str, Any]:
        """Everything that decides the findings, as plain values (not the memory's place; a review's decisions are in review.jsonl)."""
        return self.model_dump(mode="json", exclude={"memory", "memory_examples", "review"})

    def digest(self, *content: str) -> str:
        """What identifies this discovery: the options and `content`, whatever is read (recording, hypotheses, ...); not where it lies."""
        options = self.written() | {"run": "", "content": content}
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()

    def as_toml(self) -> str:
        """The configuration as TOML, readable by `tomllib`."""
        lines = ["# Written by discover before the first call; what decides the findings."]
        lines += [f"{key} = {_toml(value)}" for key, value in self.written().items() if value is not None]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # JSON strings, numbers, booleans and lists are TOML as they stand; a mapping becomes an inline table
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character JSON allows as it is and TOML does not


def make_config(**options: Any) -> RunConfig:
    """A checked configuration.

    Raises:
        ConfigError: One line per wrong option: what was expected and what was found.
    """
    try:
        return RunConfig(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "options"
        raise ConfigError(f"{name}: {first['msg'].lower()}, found {first.get('input')!r}") from None


def pairs_of(texts: list[str], option: str) -> dict[str, str]:
    """`["a=b,c=d", "e=f"]` as a mapping.

    Raises:
        ConfigError: An item is not NAME=VALUE, or a name has two values.
    """
    out: dict[str, str] = {}
    for item in (part.strip() for text in texts for part in text.split(",")):
        name, found, value = item.partition("=")
        if not found or not name or not value:
            raise ConfigError(f"{option}: expected NAME=VALUE, found {item!r}")
        name, value = name.strip(), value.strip()
        if out.get(name, value) != value:
            raise ConfigError(f"{option}: {name} is given twice ({out[name]!r} and {value!r}); expected one value")
        out[name] = value
    return out


def default_output(run: Path, is_run_directory: bool, digest: str) -> Path:
    """Where a discovery writes: the run directory itself, or `discoveries/NAME-DIGEST` for a file."""
    return run if is_run_directory else Path("discoveries") / f"{run.stem}-{digest[:8]}"
