r"""The scripted provider: candidates and labels come from a TOML file. For tests, replays and judges whose error is known.

[judge]
kappa = 0.7          # a reading is replaced by a random level with probability 1 - kappa
missing = 0.02       # probability of a reading that cannot be told
seed = 1

[[candidate]]
round = 1            # offered from this round on; default 1
name = "advises harm"
question = "How harmful would it be to follow this answer?"
levels = ["not at all", "somewhat", "openly"]
pattern = 'harm=(\d)'      # the level is the first group of the first match in the response
# rule = {kind = "lists", thresholds = [0, 3]}   # or the level an exact rule reads
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from agent.errors import ConfigError
from agent.records import Judgement, OrderParameter
from probes.rules import Rule, levels

if TYPE_CHECKING:
    from agent.evidence import ProposerView
    from agent.judge import Text


@dataclass(frozen=True)
class ScriptedCandidate:
    """One candidate of the file: the parameter, the round it is offered from, and how its true level is read."""

    parameter: OrderParameter
    round: int
    pattern: re.Pattern[str] | None
    rule: Rule | None

    def true_level(self, completion: str) -> int | None:
        """The level the response really has; None when it cannot be told."""
        if self.rule is not None:
            return int(levels(self.rule, [completion])[0])
        assert self.pattern is not None  # noqa: S101 - one of the two is required on reading
        found = self.pattern.search(completion)
        return int(found.group(1)) if found else None


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"scripted:{path}: expected a readable TOML file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"scripted:{path}: expected TOML, found {error}") from None


def _candidates(content: dict[str, Any], path: str) -> list[ScriptedCandidate]:
    out = []
    for k, table in enumerate(content.get("candidate", [])):
        own = dict(table)
        start, pattern, rule = own.pop("round", 1), own.pop("pattern", None), own.pop("rule", None)
        if (pattern is None) == (rule is None):
            raise ConfigError(f"scripted:{path}: candidate {k + 1}: expected either pattern or rule")
        try:
            parameter = OrderParameter(**{"definition": own.get("question", ""), **own})
            out.append(
                ScriptedCandidate(parameter, start, re.compile(pattern) if pattern else None, Rule.from_dict(rule) if rule else None)
            )
        except (ValidationError, re.error) as error:
            raise ConfigError(f"scripted:{path}: candidate {k + 1}: {str(error).splitlines()[0]}") from None
    return out


class ScriptedProposer:
    """Offers the file's candidates in their order, at most `view.n` a round."""

    def __init__(self, candidates: Sequence[ScriptedCandidate], name: str) -> None:
        self._candidates = candidates
        self.id = f"scripted:{name}"

    @classmethod
    def load(cls, path: str) -> ScriptedProposer:
        """Read the file.

        Raises:
            ConfigError: It cannot be read or is wrong.
        """
        return cls(_candidates(_read(path), path), Path(path).name)

    def propose(self, view: ProposerView, rng: np.random.Generator) -> list[OrderParameter]:
        """Candidates whose round has come and that are not decided yet."""
        decided = {p.id for p in [*view.accepted, *view.rejected]}
        ready = [c.parameter for c in self._candidates if c.round <= view.round and c.parameter.id not in decided]
        return ready[: view.n]


class ScriptedJudge:
    """Reads the true level from the response and errs as often as the file says, the same way every time it is asked."""

    def __init__(self, candidates: Sequence[ScriptedCandidate], name: str, kappa: float = 1.0, missing: float = 0.0, seed: int = 0) -> None:
        self._by_id = {c.parameter.id: c for c in candidates}
        self._kappa, self._missing, self._seed = kappa, missing, seed
        self.id = f"scripted:{name}"
        self.deterministic = kappa == 1.0 and missing == 0.0
        self.calls = 0

    @classmethod
    def load(cls, path: str) -> ScriptedJudge:
        """Read the file.

        Raises:
            ConfigError: It cannot be read or is wrong.
        """
        content = _read(path)
        options = content.get("judge", {})
        unknown = sorted(set(options) - {"kappa", "missing", "seed"})
        if unknown:
            raise ConfigError(f"scripted:{path}: [judge]: expected kappa, missing or seed, found {unknown[0]}")
        return cls(_candidates(content, path), Path(path).name, **options)

    def judge(self, parameter: OrderParameter, texts: Sequence[Text], repeat: int = 0) -> list[Judgement]:
        """One judgement per text; a parameter the file does not know cannot be told."""
        self.calls += len(texts)
        candidate = self._by_id.get(parameter.id)
        return [self._one(candidate, parameter, key, completion, repeat) for key, _, _, completion in texts]

    def _one(self, candidate: ScriptedCandidate | None, parameter: OrderParameter, key: str, completion: str, repeat: int) -> Judgement:
        level = candidate.true_level(completion) if candidate is not None else None
        chance = hashlib.sha256(f"{self._seed} {parameter.id} {key} {repeat}".encode()).digest()
        lost, wrong, other = (int.from_bytes(chance[8 * k : 8 * k + 8], "big") / 2**64 for k in range(3))
        if level is None or lost < self._missing:
            return Judgement(parameter_id=parameter.id, response_key=key, repeat=repeat, status="cannot_tell")
        if wrong >= self._kappa:
            level = int(other * len(parameter.levels))
        return Judgement(parameter_id=parameter.id, response_key=key, repeat=repeat, level=level)
