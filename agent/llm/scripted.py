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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from agent.errors import ConfigError, ReplyError
from agent.records import Judgement, OrderParameter
from probes.rules import Rule, RuleError, levels

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

    def true_levels(self, completions: Sequence[str]) -> list[int | None]:
        """The level each response really has; None when it cannot be told, -1 when what stands there is no level."""
        if self.rule is not None:
            return list(levels(self.rule, completions).tolist())
        return [self._found(completion) for completion in completions]

    def _found(self, completion: str) -> int | None:
        assert self.pattern is not None  # noqa: S101 - one of the two is required on reading
        found = self.pattern.search(completion)
        if found is None:
            return None
        text = found.group(1) or ""
        return int(text) if text.isdecimal() and int(text) < len(self.parameter.levels) else -1


@dataclass(frozen=True)
class Script:
    """A file of the scripted provider.

    Attributes:
        id: `scripted:NAME@DIGEST`; another content is another provider, whose judgements are never mixed with these.
        candidates: In the file's order.
        judge: Options of the judge.
    """

    id: str
    candidates: tuple[ScriptedCandidate, ...]
    judge: dict[str, float]

    @classmethod
    def read(cls, path: str) -> Script:
        """Read and check a file.

        Raises:
            ConfigError: It cannot be read or is wrong: where, what was expected, what was found.
        """
        if not path:
            raise ConfigError("scripted: expected scripted:FILE, found no file")
        try:
            data = Path(path).read_bytes()
            content = tomllib.loads(data.decode())
        except OSError as error:
            raise ConfigError(f"scripted:{path}: expected a readable TOML file ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"scripted:{path}: expected TOML, found {error}") from None
        tables = content.pop("candidate", [])
        options = content.pop("judge", {})
        if content or not isinstance(tables, list) or not isinstance(options, dict):
            raise ConfigError(f"scripted:{path}: expected [judge] and [[candidate]] tables, found {', '.join(content) or 'others'}")
        candidates = tuple(_candidate(table, f"scripted:{path}: candidate {k + 1}") for k, table in enumerate(tables))
        return cls(f"scripted:{Path(path).name}@{hashlib.sha256(data).hexdigest()[:8]}", candidates, _options(options, f"scripted:{path}"))


def _candidate(table: Any, where: str) -> ScriptedCandidate:
    own = dict(table) if isinstance(table, dict) else {}
    start, pattern, rule = own.pop("round", 1), own.pop("pattern", None), own.pop("rule", None)
    if (pattern is None) == (rule is None):
        raise ConfigError(f"{where}: expected either pattern or rule, found {'neither' if pattern is None else 'both'}")
    if not isinstance(start, int) or start < 1:
        raise ConfigError(f"{where}: expected round as a whole number from 1, found {start!r}")
    try:
        parameter = OrderParameter(**{"definition": own.get("question", ""), **own})
        compiled = None if pattern is None else re.compile(pattern)
        exact = None if rule is None else Rule.from_dict(rule)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}: {first['loc'][0]}: {first['msg'].lower()}, found {first.get('input')!r}") from None
    except (RuleError, re.error, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None
    if compiled is not None and compiled.groups < 1:
        raise ConfigError(f"{where}: expected a pattern with one group for the level, such as 'harm=(\\d)', found {pattern!r}")
    n_levels = len(parameter.levels)
    if exact is not None and len(exact.thresholds) + 1 != n_levels:
        raise ConfigError(f"{where}: expected {len(exact.thresholds) + 1} levels, as the rule has, found {n_levels}")
    return ScriptedCandidate(parameter, start, compiled, exact)


def _options(options: dict[str, Any], where: str) -> dict[str, float]:
    for name, value in options.items():
        if name not in ("kappa", "missing", "seed"):
            raise ConfigError(f"{where}: [judge]: expected kappa, missing or seed, found {name}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (name != "seed" and not 0 <= value <= 1):
            expected = "a number" if name == "seed" else "a number from 0 to 1"
            raise ConfigError(f"{where}: [judge]: expected {name} as {expected}, found {value!r}")
    return options


class ScriptedProposer:
    """Offers the file's candidates in their order, at most `view.n` a round."""

    def __init__(self, script: Script) -> None:
        self._candidates = script.candidates
        self.id = script.id

    @classmethod
    def load(cls, path: str) -> ScriptedProposer:
        """Read the file.

        Raises:
            ConfigError: It cannot be read or is wrong.
        """
        return cls(Script.read(path))

    def propose(self, view: ProposerView, rng: np.random.Generator) -> list[OrderParameter]:
        """Candidates whose round has come and that are not decided yet."""
        decided = {p.id for p in [*view.accepted, *view.rejected]}
        ready = [c.parameter for c in self._candidates if c.round <= view.round and c.parameter.id not in decided]
        return ready[: view.n]

    def complete(self, given: Mapping[str, Any], fault_of: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        """A hypothesis as the candidate of the file that is called so, asks so or is defined so.

        Raises:
            ReplyError: There is none, or it does not go with what is given.
        """
        words = given.get("statement", given.get("question"))
        for parameter in self._candidates:
            p = parameter.parameter
            if words in (p.name, p.question, p.definition):
                fields = {"name": p.name, "definition": p.definition, "question": p.question, "levels": list(p.levels)}
                fields |= {name: value for name, value in given.items() if name != "statement"}
                if fault := fault_of(fields):
                    raise ReplyError(fault)
                return fields
        raise ReplyError(f"{self.id} has no candidate for {words!r}")


class ScriptedJudge:
    """Reads the true level from the response and errs as often as the file says, the same way every time it is asked."""

    def __init__(self, script: Script) -> None:
        self._by_id = {c.parameter.id: c for c in script.candidates}
        options = script.judge
        self._kappa, self._missing, self._seed = options.get("kappa", 1.0), options.get("missing", 0.0), options.get("seed", 0)
        self.id = script.id
        self.deterministic = self._kappa == 1 and self._missing == 0
        self.calls = 0

    @classmethod
    def load(cls, path: str) -> ScriptedJudge:
        """Read the file.

        Raises:
            ConfigError: It cannot be read or is wrong.
        """
        return cls(Script.read(path))

    def judge(self, parameter: OrderParameter, texts: Sequence[Text], repeat: int = 0) -> list[Judgement]:
        """One judgement per text; a parameter the file does not know is read by its own rule, or cannot be told without one."""
        self.calls += len(texts)
        completions = [completion for _, _, _, completion in texts]
        candidate = self._by_id.get(parameter.id)
        true: Sequence[int | None] = [None] * len(texts)
        if candidate is not None:
            true = candidate.true_levels(completions)
        elif parameter.rule is not None:
            true = levels(Rule.from_dict(parameter.rule), completions).tolist()
        return [self._one(level, parameter, text[0], repeat) for level, text in zip(true, texts, strict=True)]

    def _one(self, level: int | None, parameter: OrderParameter, key: str, repeat: int) -> Judgement:
        chance = hashlib.sha256(f"{self._seed} {parameter.id} {key} {repeat}".encode()).digest()
        lost, wrong, other = (int.from_bytes(chance[8 * k : 8 * k + 8], "big") / 2**64 for k in range(3))
        if level is None or lost < self._missing:
            return Judgement(parameter_id=parameter.id, response_key=key, repeat=repeat, status="cannot_tell")
        if level < 0:
            return Judgement(parameter_id=parameter.id, response_key=key, repeat=repeat, status="unreadable")
        if wrong >= self._kappa:
            level = int(other * len(parameter.levels))
        return Judgement(parameter_id=parameter.id, response_key=key, repeat=repeat, level=level)
