"""The user's own order parameters: written down beforehand, tested before the agent's, in a family of their own (METHOD 4).

`--hypotheses FILE` has them as TOML tables, `--hypothesis "..."` as a sentence or a question. What the user left out is worded by the
proposer. All of it is registered (`preregistered.json`, with its hash) before any response is judged on it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.errors import ConfigError, ReplyError
from agent.proposer import Proposer, refusal_of
from agent.records import OrderParameter, Preregistration
from probes.rules import Rule, RuleError
from tracing.whole_file import whole_file

FILE = "preregistered.json"
_FIELDS = ("statement", "name", "definition", "question", "levels", "direction", "rule")


@dataclass(frozen=True)
class Hypothesis:
    """One hypothesis as the user wrote it.

    Attributes:
        where: Names it in errors.
        given: Its fields; without a question a statement.
    """

    where: str
    given: Mapping[str, Any]

    @property
    def whole(self) -> bool:
        """Whether nothing is left to be worded."""
        return all(name in self.given for name in ("name", "question", "levels"))

    @property
    def text(self) -> str:
        """Its fields in one canonical form."""
        return json.dumps(dict(self.given), sort_keys=True, ensure_ascii=False)

    def parameter(self, fields: Mapping[str, Any] | None = None) -> OrderParameter:
        """The order parameter it is, with `fields` where something was left out.

        Raises:
            ConfigError: It cannot be judged from one response, or a field is wrong.
        """
        whole = dict(self.given if fields is None else fields)
        whole.pop("statement", None)
        return hypothesis_of(whole, self.where)


def read_hypotheses(path: str | None, sentences: Sequence[str] = ()) -> list[Hypothesis]:
    """Those of `--hypotheses FILE`, then those of `--hypothesis`; whole ones are checked, the others as far as they go.

    A hypothesis that was written down beforehand is never dropped silently: one that cannot be tested as it stands is refused here, before
    anything is spent.

    Raises:
        ConfigError: The file cannot be read, or a hypothesis is wrong: which one, what was expected, what was found.
    """
    out = [_from_table(table, f"--hypotheses {path}: hypothesis {k + 1}") for k, table in enumerate(_tables(path))]
    for k, sentence in enumerate(sentences):
        words = " ".join(sentence.split())
        if not words:
            raise ConfigError(f"--hypothesis {k + 1}: expected a sentence or a question, found nothing")
        out.append(_from_table({"question" if words.endswith("?") else "statement": words}, f"--hypothesis {k + 1}"))
    _refuse_doubles([(h.where, h.parameter().id if h.whole else h.text) for h in out])
    return out


def load_hypotheses(path: str | None) -> list[OrderParameter]:
    """Read `[[hypothesis]]` tables that are whole: name, question, levels (lowest first); optional definition, direction, rule.

    Raises:
        ConfigError: As `read_hypotheses`; or something is left out.
    """
    return [h.parameter() for h in read_hypotheses(path)]


def _refuse_doubles(named: Sequence[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for where, what in named:
        if what in seen:
            raise ConfigError(f"{where}: asks the same as {seen[what].rpartition(': ')[2].removeprefix('--')}")
        seen[what] = where


def _tables(path: str | None) -> list[Any]:
    if path is None:
        return []
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--hypotheses {path}: expected a readable TOML file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--hypotheses {path}: expected TOML, found {error}") from None
    tables = content.get("hypothesis")
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"--hypotheses {path}: expected at least one [[hypothesis]] table, found {', '.join(content) or 'nothing'}")
    return tables


def _from_table(table: Any, where: str) -> Hypothesis:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, found {table!r}")
    found = Hypothesis(where, table)
    if found.whole:
        found.parameter()
        return found
    if "question" not in table and "statement" not in table:
        raise ConfigError(f"{where}: expected question or statement, found {', '.join(table) or 'nothing'}")
    if "rule" in table:
        raise ConfigError(f"{where}: expected name, question and levels with a rule, found {', '.join(table)}")
    # what is given must be right whatever is worded for the rest
    stand_in = {"name": "x", "question": "x?", "levels": ["a", "b"]} | {k: v for k, v in table.items() if k != "statement"}
    hypothesis_of(stand_in, where)
    if not isinstance(table.get("statement", ""), str):
        raise ConfigError(f"{where}: statement: expected a text, found {table['statement']!r}")
    return found


def hypothesis_of(table: Any, where: str) -> OrderParameter:
    """One hypothesis from its fields; `where` says in errors which one it is.

    Raises:
        ConfigError: A field is missing or wrong, or it cannot be judged from one response.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, found {table!r}")
    for key in ("name", "question", "levels"):
        if key not in table:
            raise ConfigError(f"{where}: expected {key}, found {', '.join(table) or 'nothing'}")
    try:
        parameter = OrderParameter(**{"definition": table["question"], **table, "origin": "human"})
        n_levels = None if parameter.rule is None else len(Rule.from_dict(parameter.rule).thresholds) + 1
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}: {first['loc'][0]}: {first['msg'].lower()}, found {first.get('input')!r}") from None
    except RuleError as error:
        raise ConfigError(f"{where}: {error}") from None
    if n_levels is not None and n_levels != len(parameter.levels):
        raise ConfigError(f"{where}: expected {n_levels} levels, as the rule has, found {len(parameter.levels)}")
    if reason := refusal_of(parameter):
        raise ConfigError(f"{where}: {reason}")
    return parameter


Complete = Callable[[Mapping[str, Any], Callable[[dict[str, Any]], str]], dict[str, Any]]


def completer(proposer: Proposer) -> Complete | None:
    """How this proposer words what a hypothesis leaves out; None when it cannot."""
    found: Complete | None = getattr(proposer, "complete", None)
    return found


def completed(given: Sequence[Hypothesis], proposer: Proposer) -> list[OrderParameter]:
    """The order parameters, what was left out worded by the proposer.

    Raises:
        ConfigError: The proposer cannot word them, or worded nothing that can be judged; two come out the same.
        ProviderError, BudgetError, AwaitingError: The proposer's.
    """
    complete, out = completer(proposer), []
    for hypothesis in given:
        if hypothesis.whole:
            out.append(hypothesis.parameter())
            continue
        refuse_incomplete([hypothesis], proposer)
        assert complete is not None  # noqa: S101 - refused above
        try:
            fields = complete(hypothesis.given, lambda fields, h=hypothesis: _fault(h, fields))  # type: ignore[misc]
        except ReplyError as error:
            raise ConfigError(f"{hypothesis.where}: {error}; expected one that can be asked of a single response, or its levels") from None
        out.append(hypothesis.parameter(fields))
    _refuse_doubles([(h.where, p.id) for h, p in zip(given, out, strict=True)])
    return out


def refuse_incomplete(given: Sequence[Hypothesis], proposer: Proposer) -> None:
    """Say before anything is spent that nobody can word what was left out.

    Raises:
        ConfigError: A hypothesis is not whole, and this proposer words nothing.
    """
    for hypothesis in given:
        if not hypothesis.whole and completer(proposer) is None:
            missing = ", ".join(name for name in ("name", "question", "levels") if name not in hypothesis.given)
            raise ConfigError(
                f"{hypothesis.where}: expected {missing} (in a file for --hypotheses), or a --proposer that can word them; "
                f"found {proposer.id}, which cannot"
            )


def _fault(hypothesis: Hypothesis, fields: dict[str, Any]) -> str:
    try:
        hypothesis.parameter(fields)
    except ConfigError as error:
        return str(error).removeprefix(f"{hypothesis.where}: ")
    return ""


def register(folder: Path, given: Sequence[Hypothesis], parameters: Sequence[OrderParameter]) -> Preregistration:
    """Write down what will be tested, before it is; once written, it stands.

    Raises:
        ConfigError: Something else was registered here, or the file was changed since.
    """
    rows = [{"id": p.id, "given": dict(h.given), "parameter": p.model_dump(mode="json")} for h, p in zip(given, parameters, strict=True)]
    sha256 = _sha256(rows)
    content = json.dumps({"sha256": sha256, "hypotheses": rows}, indent=2, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    path = folder / FILE
    if path.exists() and path.read_bytes() != content:
        raise _changed(path, sha256)
    with whole_file(path) as file:
        file.write(content)
    return Preregistration(sha256=sha256, file=FILE, hypotheses=tuple(p.id for p in parameters))


def registered(folder: Path, sha256: str | None = None) -> Preregistration | None:
    """What was registered in a folder; None when nothing was.

    Args:
        folder: The discovery's folder.
        sha256: What it must be; None: it has to agree with itself.

    Raises:
        ConfigError: The file was changed since.
    """
    path = folder / FILE
    if not path.exists():
        if sha256 is not None:
            raise _changed(path, sha256)
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    rows, stated = content["hypotheses"], content["sha256"]
    if _sha256(rows) != stated or stated != (sha256 or stated):
        raise _changed(path, sha256 or stated)
    return Preregistration(sha256=stated, file=FILE, hypotheses=tuple(row["id"] for row in rows))


def _sha256(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()


def _changed(path: Path, sha256: str) -> ConfigError:
    return ConfigError(
        f"{path}: expected what was registered before judging (sha256 {sha256[:16]}), found something else; --fresh starts anew"
    )
