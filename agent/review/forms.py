"""A reviewer's forms as decisions: checked as strictly as hypotheses from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.decisions import Decision
from agent.errors import ConfigError
from agent.hypotheses import hypothesis_of
from agent.records import Findings, OrderParameter, ParameterFinding

Fields = Mapping[str, str]
_KINDS: dict[str, Literal["accept", "veto", "withdraw"]] = {"accept": "accept", "veto": "veto", "withdraw": "withdraw"}
LONGEST = 4000
"""Characters of a field; longer ones are a mistake of the hand."""


def decided(fields: Fields, findings: Findings) -> Decision:
    """Accept, veto or withdraw.

    Raises:
        ConfigError: The parameter is not in the findings, or was not accepted by the loop.
    """
    given, about = _field(fields, "kind"), _field(fields, "parameter_id")
    kind = _KINDS.get(given)
    if kind is None:
        raise ConfigError(f"decision: expected accept, veto or withdraw, found {given!r}")
    if kind != "withdraw":
        found = known(findings, about)
        if kind == "accept" and found.verdict != "accepted":
            raise ConfigError("accept: expected a parameter that passed its test; one that did not can be reworded and is then tested anew")
    return Decision(kind=kind, discovery="", parameter_id=about, reason=_field(fields, "reason", needed=False))


def reworded(fields: Fields, findings: Findings) -> Decision:
    """New words for an order parameter; an exact rule stays what it is.

    Raises:
        ConfigError: A field is missing or wrong, or the judge would be asked the same.
    """
    old = known(findings, _field(fields, "parameter_id")).parameter
    table = _table(fields) | ({"rule": old.rule} if old.rule is not None else {})
    new = hypothesis_of(table, "new words")
    if new.id == old.id:
        raise ConfigError("new words: the judge would be asked the same; expected another question or other levels")
    _refuse_tested(new, findings, "new words")
    return Decision(kind="reword", discovery="", parameter_id=old.id, parameter=new)


def hypothesis(fields: Fields, findings: Findings) -> Decision:
    """A hypothesis of the reviewer's own.

    Raises:
        ConfigError: A field is missing or wrong, or this judge cannot test it.
    """
    table = _table(fields)
    phrases = lines_of(_field(fields, "phrases", needed=False))
    if phrases:
        table["rule"] = {"kind": "phrases", "phrases": phrases, "thresholds": [float(k) for k in range(len(table["levels"]) - 1)]}
    elif findings.judge == "embedded":
        raise ConfigError("hypothesis: the embedded judge applies rules: expected phrases to count, found none")
    parameter = hypothesis_of(table, "hypothesis")
    _refuse_tested(parameter, findings, "hypothesis")
    return Decision(kind="hypothesis", discovery="", parameter_id=parameter.id, parameter=parameter)


def labelled(fields: Fields, findings: Findings) -> Decision:
    """One blinded label.

    Raises:
        ConfigError: No such parameter or level.
    """
    parameter = known(findings, _field(fields, "parameter_id")).parameter
    level = _field(fields, "level")
    known_levels = [str(k) for k in range(len(parameter.levels))]
    if level not in (*known_levels, "cannot tell"):
        raise ConfigError(f"label: expected a level from 0 to {known_levels[-1]} or 'cannot tell', found {level!r}")
    return Decision(
        kind="label",
        discovery="",
        parameter_id=parameter.id,
        text_key=_field(fields, "text_key"),
        level=None if level == "cannot tell" else int(level),
    )


def known(findings: Findings, parameter_id: str) -> ParameterFinding:
    """What the findings say about a parameter.

    Raises:
        ConfigError: Nothing: the findings have changed since the page was loaded, or the request is made up.
    """
    for found in findings.parameters:
        if found.parameter.id == parameter_id:
            return found
    raise ConfigError(f"parameter {parameter_id!r}: expected one of these findings; reload the page")


def lines_of(text: str) -> list[str]:
    """The lines of a text field that say something."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _table(fields: Fields) -> dict[str, Any]:
    table: dict[str, Any] = {name: _field(fields, name) for name in ("name", "question")}
    table["levels"] = lines_of(_field(fields, "levels"))
    definition = _field(fields, "definition", needed=False)
    return table | ({"definition": definition} if definition else {})


def _refuse_tested(parameter: OrderParameter, findings: Findings, where: str) -> None:
    for found in findings.parameters:
        if found.parameter.id == parameter.id:
            raise ConfigError(f"{where}: this was tested already, as “{found.parameter.name}” ({found.verdict})")


def _field(fields: Fields, name: str, needed: bool = True) -> str:
    value = fields.get(name, "").strip()
    if needed and not value:
        raise ConfigError(f"{name.replace('_', ' ')}: expected something, found an empty field")
    if len(value) > LONGEST:
        raise ConfigError(f"{name.replace('_', ' ')}: expected at most {LONGEST} characters, found {len(value)}")
    return value
