"""The condition of `discover score --fail-if`: a small language over the numbers of a score, for continuous integration.

    mean("advises harm", side="after") > 1.5 or share("advises harm") > .2 and not joint() < .5

Quantities: `mean(NAME)`, `rate(NAME, LEVEL)` and `missing(NAME)`, each with `side=` (a side's name, "before", "after"; without it all
responses, every side counting the same); `shift(NAME)` or `shift(NAME, LEVEL)`, `change(NAME)` (D[O]), `share(NAME)`, `joint()`,
`change()` (D). `low(...)` and `high(...)` are the limits of their 95% intervals. Numbers, `+ - * /`, `abs()`, comparisons, `and`,
`or`, `not` and parentheses do what they do in Python. Text is parsed, never executed.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.errors import AgentError
from agent.records import Estimate, OrderParameter
from agent.score import GateRecord, ParameterScore, Score, Side

LONGEST = 2000
SHORTEST_ID = 4

Numbers = Mapping["Quantity", float]
Number = Callable[[Numbers], float]
Truth = Callable[[Numbers], bool]


class ExpressionError(AgentError, ValueError):
    """The expression of `--fail-if` is wrong, or asks for a number that there is not."""


@dataclass(frozen=True)
class Kind:
    """A quantity's arguments: whether it takes an order parameter, a level, a side, and whether it needs a contrast."""

    parameter: bool = True
    optional_parameter: bool = False
    level: bool = False
    optional_level: bool = False
    side: bool = False
    contrast: bool = False


KINDS = {
    "mean": Kind(side=True),
    "rate": Kind(level=True, side=True),
    "missing": Kind(side=True),
    "shift": Kind(optional_level=True, contrast=True),
    "change": Kind(optional_parameter=True, contrast=True),
    "share": Kind(contrast=True),
    "joint": Kind(parameter=False, contrast=True),
}
LIMITS = ("low", "high")
FUNCTIONS = (*KINDS, *LIMITS, "abs")
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True)
class Quantity:
    """A number the expression asks for: as written, and in parts; `limit` is "low", "high" or "" for the estimate."""

    text: str
    kind: str
    parameter: str | None = None
    level: int | None = None
    side: str | None = None
    limit: str = ""


@dataclass(frozen=True)
class Expression:
    """A checked expression: `quantities` are the numbers it looks at, in their order."""

    text: str
    quantities: tuple[Quantity, ...]
    truth: Truth

    def check(self, sides: Sequence[Side], has_contrast: bool, reason: str) -> None:
        """Refuse an expression that cannot be answered for these sides, before anything is judged.

        Raises:
            ExpressionError: No such side, or no contrast; `reason` says why there is none.
        """
        for quantity in self.quantities:
            _side_of(quantity, [(side.name, side.role) for side in sides])
            if KINDS[quantity.kind].contrast and not has_contrast:
                raise ExpressionError(f"--fail-if: {quantity.text} needs two sides to compare, and there are none here: {reason}")

    def evaluate(self, score: Score) -> GateRecord:
        """Whether the expression is true.

        Every number it asks for must be there, also those that would not decide: an unknown number is never taken for false.

        Raises:
            ExpressionError: A number is undefined; the line says which and why.
        """
        values = {quantity: _estimate(quantity, score) for quantity in self.quantities}
        numbers = {quantity: _number_of(quantity, estimate) for quantity, estimate in values.items()}
        return GateRecord(expression=self.text, values={q.text: e for q, e in values.items()}, true=self.truth(numbers))


def parse(text: str, parameters: Sequence[OrderParameter]) -> Expression:
    """Check an expression and make it ready.

    Args:
        text: As given to `--fail-if`.
        parameters: The order parameters it may name, by name or id (or its beginning).

    Raises:
        ExpressionError: It is no condition, or names something that there is not: what was expected, what was found.
    """
    text = " ".join(text.splitlines()).strip()
    if len(text) > LONGEST:
        raise ExpressionError(f"--fail-if: expected at most {LONGEST} characters, found {len(text)}")
    reader = _Reader(text, parameters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a name are the user's affair
            tree = ast.parse(text, mode="eval").body
        truth = reader.truth(tree)
    except SyntaxError as error:
        raise ExpressionError(f'{reader.where}: expected a condition such as share("NAME") > 0.2, found {error.msg}') from None
    except (RecursionError, MemoryError):
        raise ExpressionError("--fail-if: expected a condition that is nested less deeply") from None
    return Expression(text, tuple(dict.fromkeys(reader.quantities)), truth)


class _Reader:
    """Turns the parsed text into functions of the numbers it asks for; everything that is not on the list is refused."""

    def __init__(self, text: str, parameters: Sequence[OrderParameter]) -> None:
        self.text, self.parameters = text, parameters
        self.where = f"--fail-if {text!r}"
        self.quantities: list[Quantity] = []

    def shown(self, node: ast.AST) -> str:
        """The node as it was written."""
        return ast.get_source_segment(self.text, node) or type(node).__name__

    def refuse(self, expected: str, node: ast.AST) -> ExpressionError:
        """One line about a node."""
        return ExpressionError(f"{self.where}: expected {expected}, found {self.shown(node)}")

    def truth(self, node: ast.expr) -> Truth:
        """A condition: comparisons joined by and, or, not."""
        if isinstance(node, ast.BoolOp):
            parts = [self.truth(value) for value in node.values]
            every = isinstance(node.op, ast.And)
            return lambda numbers: (all if every else any)([part(numbers) for part in parts])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand)
            return lambda numbers: not inner(numbers)
        if isinstance(node, ast.Compare):
            return self.comparison(node)
        raise self.refuse("a condition (a comparison, or several with and, or, not)", node)

    def comparison(self, node: ast.Compare) -> Truth:
        """`a < b <= c`."""
        sides = [self.number(side) for side in (node.left, *node.comparators)]
        for op in node.ops:
            if type(op) not in _COMPARISONS:
                raise self.refuse("<, <=, >, >=, == or !=", node)
        compares = [_COMPARISONS[type(op)] for op in node.ops]

        def true(numbers: Numbers) -> bool:
            values = [side(numbers) for side in sides]
            return all(compare(one, other) for compare, one, other in zip(compares, values, values[1:], strict=False))

        return true

    def number(self, node: ast.expr) -> Number:
        """A number: a literal, arithmetic, or a quantity."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return self.literal(node.value, node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner, sign = self.number(node.operand), -1.0 if isinstance(node.op, ast.USub) else 1.0
            return lambda numbers: sign * inner(numbers)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self.arithmetic(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.Name):
            raise self.refuse(f"a number or one of {', '.join(FUNCTIONS)} with parentheses", node)
        raise self.refuse("a number", node)

    def literal(self, written: float, node: ast.Constant) -> Number:
        """A finite literal."""
        try:
            value = float(written)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self.refuse("a finite number", node)
        return lambda numbers: value

    def arithmetic(self, node: ast.BinOp) -> Number:
        """Sum, difference, product or quotient; a result that is no number is an error."""
        left, right, compute = self.number(node.left), self.number(node.right), _ARITHMETIC[type(node.op)]
        undefined = ExpressionError(f"{self.where}: {self.shown(node)} is not a number here")

        def result(numbers: Numbers) -> float:
            try:
                value = compute(left(numbers), right(numbers))
            except ZeroDivisionError:
                raise undefined from None
            if not math.isfinite(value):
                raise undefined
            return value

        return result

    def call(self, node: ast.Call) -> Number:
        """A quantity, a limit of one, or abs."""
        name = node.func.id if isinstance(node.func, ast.Name) else self.shown(node.func)
        if name == "abs" and len(node.args) == 1 and not node.keywords:
            inner = self.number(node.args[0])
            return lambda numbers: abs(inner(numbers))
        asked, limit = (node.args[0], name) if name in LIMITS and len(node.args) == 1 and not node.keywords else (node, "")
        if isinstance(asked, ast.Call) and isinstance(asked.func, ast.Name) and asked.func.id in KINDS:
            return self.quantity(asked, asked.func.id, limit, self.shown(node))
        if name in LIMITS:
            raise self.refuse(f"{name}(...) around one of {', '.join(KINDS)}", node)
        raise self.refuse(f"one of {', '.join(FUNCTIONS)}", node.func)

    def quantity(self, node: ast.Call, name: str, limit: str, text: str) -> Number:
        """A quantity of the score, with its arguments checked."""
        kind = KINDS[name]
        arguments = list(node.args)
        parameter = None
        if kind.parameter and (arguments or not kind.optional_parameter):
            parameter = self.parameter(arguments.pop(0) if arguments else node)
        level = None
        if parameter is not None and (kind.level or (kind.optional_level and arguments)):
            level = self.level(arguments.pop(0) if arguments else node, parameter)
        if arguments:
            raise self.refuse(f"fewer arguments in {name}(...)", node)
        side = self.side(node, kind)
        asked = Quantity(text, name, None if parameter is None else parameter.id, level, side, limit)
        self.quantities.append(asked)
        return lambda numbers: numbers[asked]

    def parameter(self, node: ast.expr) -> OrderParameter:
        """The order parameter a text names: exactly, ignoring case, or by the beginning of its id."""
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            raise self.refuse("the name of an order parameter in quotes", node)
        wanted = node.value
        ways: list[Callable[[OrderParameter], bool]] = [
            lambda p: p.name == wanted,
            lambda p: p.name.casefold() == wanted.casefold(),
            lambda p: len(wanted) >= SHORTEST_ID and p.id.startswith(wanted),
        ]
        for way in ways:
            found = [p for p in self.parameters if way(p)]
            if len(found) == 1:
                return found[0]
            if found:
                raise ExpressionError(f"{self.where}: {wanted!r} may be {' or '.join(p.id for p in found)}: expected one of these ids")
        known = ", ".join(f"{p.name!r} ({p.id[:8]})" for p in self.parameters)
        raise self.refuse(f"one of the accepted order parameters {known}", node)

    def level(self, node: ast.expr, parameter: OrderParameter) -> int:
        """A level by its number or its anchor."""
        if isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value < len(parameter.levels):
            return node.value
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and parameter.levels.count(node.value) == 1:
            return parameter.levels.index(node.value)
        raise self.refuse(f"a level of {parameter.name!r} from 0 to {len(parameter.levels) - 1}", node)

    def side(self, node: ast.Call, kind: Kind) -> str | None:
        """The side asked for, if any."""
        if not node.keywords:
            return None
        keyword = node.keywords[0]
        if len(node.keywords) > 1 or keyword.arg != "side" or not kind.side:
            raise self.refuse('side="NAME" in mean, rate and missing, and no other keyword', node)
        if not (isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)):
            raise self.refuse("the name of a side in quotes", keyword.value)
        return keyword.value.value


# ---- numbers of a score


def _side_of(quantity: Quantity, sides: Sequence[tuple[str, str]]) -> int:
    """Which of the (name, role) a quantity is about: own names first, then the roles."""
    if quantity.side is None:
        return 0
    named = [k for k, (name, _) in enumerate(sides) if k and name == quantity.side]
    named += [k for k, (_, role) in enumerate(sides) if role == quantity.side]
    if not named:
        known = ", ".join(dict.fromkeys([name for name, _ in sides] + [role for _, role in sides if role]))
        raise ExpressionError(f"--fail-if: {quantity.text}: expected one of the sides {known}, found {quantity.side!r}")
    return named[0]


def _estimate(quantity: Quantity, score: Score) -> Estimate:
    if quantity.parameter is None:
        found = score.joint if quantity.kind == "joint" else score.change
    else:
        parameter = next(p for p in score.parameters if p.parameter.id == quantity.parameter)
        found = _of_parameter(quantity, parameter)
    return Estimate(estimate=None, note="there is none here") if found is None else found


def _of_parameter(quantity: Quantity, found: ParameterScore) -> Estimate | None:
    if quantity.kind == "shift":
        if quantity.level is None:
            return found.shift
        return found.rate_shifts[quantity.level] if found.rate_shifts else None
    if quantity.kind in ("change", "share"):
        return found.change if quantity.kind == "change" else found.share
    side = found.sides[_side_of(quantity, [(side.side, side.role) for side in found.sides])]
    if quantity.kind == "rate":
        assert quantity.level is not None  # noqa: S101 - a rate has a level
        return side.rates[quantity.level]
    return side.mean if quantity.kind == "mean" else side.missing


def _number_of(quantity: Quantity, found: Estimate) -> float:
    value = {"": found.estimate, "low": found.low, "high": found.high}[quantity.limit]
    if value is None or not math.isfinite(value):
        why = found.note or "it has no interval here"
        raise ExpressionError(f"--fail-if: {quantity.text} is not known: {why}")
    return value
