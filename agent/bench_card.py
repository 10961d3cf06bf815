"""The scorecard: rows of `results.jsonl` summed up by tool and cell, as plain values and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from agent.bench import Row
from agent.bench_cells import Cell, chosen_cells
from agent.bench_problems import PARAPHRASE_KAPPA

LARGE = 0.05
"""Unique share from which a planted parameter must be found."""
QUANTITIES = ("share", "joint", "unique", "Shapley", "D")


def scorecard(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """All scores.

    Args:
        rows: One per tool and problem; `tool` names the tool.
        seed: What the problems were made with.

    Returns:
        `cells`: one entry per tool and cell; `intervals`: one per tool, quantity, and whether likelihoods are known, over all cells.
        A rate is None where there was nothing to count.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda r: str(r["problem"])):
        groups.setdefault((row["tool"], row["cell"]), []).append(row)
    cells = [cell_score(tool, chosen_cells([name])[0], group) for (tool, name), group in groups.items()]
    order = {cell.name: k for k, cell in enumerate(chosen_cells([]))}
    tools = list(dict.fromkeys(tool for tool, _ in groups))
    cells.sort(key=lambda c: (tools.index(c["tool"]), order[c["cell"]]))
    return {"format": "order-parameter-bench-card", "version": 1, "seed": seed, "cells": cells, "intervals": _intervals(rows, tools)}


def false_acceptances(row: Row, kappa: float) -> dict[str, list[bool]]:
    """Whether each candidate that should be refused was accepted, by kind.

    A *paraphrase* here is any further reading of something accepted before by a reading that was as good: with a judge better than
    the paraphrase was planted, the original may still follow its paraphrase.
    """
    out: dict[str, list[bool]] = {"distractor": [], "length": [], "paraphrase": []}
    by_id = {c["id"]: c for c in row["candidates"]}
    for c in row["candidates"]:
        if c["kind"] in ("distractor", "length") and c["tested"] and not c["stands_in"]:
            out[c["kind"]].append(c["accepted"])
        if c["kind"] == "paraphrase" and c["tested"]:
            original = by_id[c["of"]]
            first, second = sorted((original, c), key=lambda x: np.inf if x["place"] is None else x["place"])
            if first["accepted"] and second["tested"] and (kappa <= PARAPHRASE_KAPPA or second is c):
                out["paraphrase"].append(second["accepted"])
    return out


def recalled(row: Row) -> list[tuple[float, bool]]:
    """For each planted parameter its exact unique share and whether it, or its paraphrase, was accepted."""
    found = {c["id"] for c in row["candidates"] if c["accepted"]}
    found |= {c["of"] for c in row["candidates"] if c["accepted"] and c["kind"] == "paraphrase"}
    return [(c["unique"], c["id"] in found) for c in row["candidates"] if c["kind"] == "true"]


def cell_score(tool: str, cell: Cell, rows: Sequence[Row]) -> dict[str, Any]:
    """Every score of one tool on one cell."""
    false = [false_acceptances(row, cell.kappa) for row in rows]
    true = [pair for row in rows for pair in recalled(row)]
    n_accepted = sum(c["accepted"] and not c["stands_in"] for row in rows for c in row["candidates"])
    n_false = sum(sum(kind) for one in false for kind in one.values())
    estimates = [e for row in rows for e in row["estimates"]]
    return {
        "tool": tool,
        "cell": cell.name,
        "runs": len(rows),
        "likelihoods": cell.likelihoods,
        "detectable": _rate(row["detectable"] for row in rows),
        "recall": _rate(hit for _, hit in true),
        "recall_large": _rate(hit for size, hit in true if size >= LARGE),
        "precision": None if not n_accepted else 1 - n_false / n_accepted,
        "false_runs": _rate(any(any(kind) for kind in one.values()) for one in false),
        **{f"{kind}_accepted": _rate(hit for one in false for hit in one[kind]) for kind in ("distractor", "paraphrase", "length")},
        "shares": {quantity: interval_score([e for e in estimates if e["quantity"] == quantity]) for quantity in QUANTITIES},
        "onset": interval_score([e for row in rows for e in row["times"] if e["quantity"] == "onset"]),
        "transition": interval_score([e for row in rows for e in row["times"] if e["quantity"] == "transition"]),
        "calls": _mean(row["calls"] for row in rows),
        "seconds": _mean(row["seconds"] for row in rows),
    }


def interval_score(entries: Sequence[Row]) -> dict[str, float | int | None]:
    """Bias, RMSE, coverage and mean width of estimates whose truth is known; also coverage of those that were accepted."""
    known = [e for e in entries if e["truth"] is not None and e["estimate"] is not None]
    error = [e["estimate"] - e["truth"] for e in known]
    limits = [e for e in known if e["low"] is not None and e["high"] is not None]
    covered = [e["low"] <= e["truth"] <= e["high"] for e in limits]
    return {
        "n": len(known),
        "bias": _mean(error),
        "rmse": float(np.sqrt(np.mean(np.square(error)))) if error else None,
        "coverage": _rate(covered),
        "coverage_accepted": _rate(hit for e, hit in zip(limits, covered, strict=True) if e["accepted"]),
        "width": _mean(e["high"] - e["low"] for e in limits),
    }


def _intervals(rows: Sequence[Row], tools: Sequence[str]) -> list[dict[str, Any]]:
    known = {cell.name: cell.likelihoods for cell in chosen_cells([])}
    out = []
    for tool in tools:
        for likelihoods in (True, False):
            part = [e for r in rows if r["tool"] == tool and known[r["cell"]] == likelihoods for e in (*r["estimates"], *r["times"])]
            for quantity in (*QUANTITIES, "onset", "transition"):
                entries = [e for e in part if e["quantity"] == quantity]
                if entries:
                    out.append({"tool": tool, "likelihoods": likelihoods, "quantity": quantity} | interval_score(entries))
    return out


def _rate(hits: Iterable[bool]) -> float | None:
    return _mean(float(hit) for hit in hits)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


# ---- Markdown


def markdown(card: dict[str, Any]) -> str:
    """The scorecard as Markdown: one table of cells per tool, one of intervals."""
    lines = ["# Scorecard", "", f"Planted problems of seed {card['seed']}; every share, onset and null in them is known exactly.", ""]
    for tool in dict.fromkeys(c["tool"] for c in card["cells"]):
        lines += [f"## {tool}", "", *_table(CELL_COLUMNS, [_cell_line(c) for c in card["cells"] if c["tool"] == tool]), ""]
    lines += ["## Intervals, all cells together", "", *_table(INTERVAL_COLUMNS, [_interval_line(i) for i in card["intervals"]]), "", NOTES]
    return "\n".join(lines) + "\n"


CELL_COLUMNS = (
    *("cell", "runs", "recall", f"recall, unique ≥ {LARGE:g}", "precision", "runs with a false one"),
    *("distractors", "paraphrases", "length labels", "share bias", "RMSE", "coverage", "given acceptance", "width"),
    *("Shapley RMSE", "onset RMSE", "onset coverage", "judge calls", "seconds"),
)
INTERVAL_COLUMNS = ("tool", "likelihoods", "quantity", "n", "bias", "RMSE", "coverage of 95%", "given acceptance", "mean width")
NOTES = (
    "Recall counts a parameter as found when it or its paraphrase is accepted. Distractors, paraphrases (further readings of something "
    "accepted) and length labels: part of those tested that was accepted; none should be. A distractor that goes with a parameter not "
    "found yet (it shows .02 of the change beyond what was accepted before) is neither right nor false. Shares are D[O]/D with "
    "likelihoods, D[O] without, as the judge reads them, for a population of prompts. Seconds depend on the machine, everything "
    "else on the seed alone."
)


def _cell_line(c: dict[str, Any]) -> list[str]:
    share, percent = c["shares"]["share"], _percent
    return [
        *(c["cell"], str(c["runs"]), percent(c["recall"]), percent(c["recall_large"]), percent(c["precision"]), percent(c["false_runs"])),
        *(percent(c[f"{kind}_accepted"]) for kind in ("distractor", "paraphrase", "length")),
        *(_number(share["bias"], "+.3f"), _number(share["rmse"]), percent(share["coverage"]), percent(share["coverage_accepted"])),
        *(_number(share["width"]), _number(c["shares"]["Shapley"]["rmse"]), _number(c["onset"]["rmse"], ".2f")),
        *(percent(c["onset"]["coverage"]), _number(c["calls"], ".0f"), _number(c["seconds"], ".1f")),
    ]


def _interval_line(i: dict[str, Any]) -> list[str]:
    return [
        *(i["tool"], "yes" if i["likelihoods"] else "no", i["quantity"], str(i["n"]), _number(i["bias"], "+.4f"), _number(i["rmse"])),
        *(_percent(i["coverage"]), _percent(i["coverage_accepted"]), _number(i["width"])),
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}%"


def _number(value: float | None, form: str = ".3f") -> str:
    return "" if value is None else format(value, form)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *lines)]
