"""A figure of panels as a small SVG text: the same numbers always give the same bytes, and it needs no library to be drawn."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#57606a")
DASHES = ("", "7 4", "2 3", "8 3 2 3", "12 4", "4 2", "")
WIDTH, LEFT, RIGHT, TOP, BELOW = 760, 64, 210, 30, 34
MARK = 12
"""Height of a mark's word: each stands lower than the one before it."""
Number = float | None


@dataclass(frozen=True)
class Series:
    """One curve: points, an optional band or error bars (`low`, `high`), a name in the legend. None breaks the line."""

    name: str
    x: Sequence[float]
    y: Sequence[Number]
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()
    points: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves over one pair of axes.

    `marks` are vertical lines with a word; panels of one `x_range` have their marks below each other.
    """

    title: str
    series: Sequence[Series]
    x_label: str = ""
    marks: Sequence[tuple[float, str]] = ()
    x_log: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    height: int = 190
    ticks: Sequence[tuple[float, str]] = field(default=())


def chart(panels: Sequence[Panel]) -> str:
    """The panels one below the other."""
    parts, top = [], 8.0
    for panel in panels:
        parts.append(_panel(panel, top))
        top += TOP + panel.height + BELOW + (14 if panel.x_label else 0)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" width="{WIDTH}" height="{top:.0f}" '
        'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{top:.0f}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _panel(panel: Panel, top: float) -> str:
    def scale(x: float) -> float:
        return math.log10(x) if panel.x_log else x

    xs = [scale(x) for s in panel.series for x in s.x] + [scale(x) for x, _ in panel.ticks]
    ys = [y for s in panel.series for column in (s.y, s.low, s.high) for y in column if y is not None and math.isfinite(y)]
    x0, x1 = (scale(x) for x in panel.x_range) if panel.x_range else (min(xs), max(xs))
    y0, y1 = panel.y_range or (min(0.0, *ys), max(ys) * 1.05 or 1.0)
    if panel.marks and not panel.y_range:  # room for the words above the curves
        y1 = y0 + (y1 - y0) * panel.height / (panel.height - MARK * len(panel.marks))
    wide, y_top = WIDTH - LEFT - RIGHT, top + TOP

    def px(x: float) -> float:
        return LEFT + (scale(x) - x0) / ((x1 - x0) or 1) * wide

    def py(y: float) -> float:
        return y_top + panel.height - (min(max(y, y0), y1) - y0) / ((y1 - y0) or 1) * panel.height

    out = [f'<text x="{LEFT}" y="{top + 18:.0f}" font-weight="600">{html.escape(panel.title)}</text>']
    for value in _round_values(y0, y1):
        out.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{py(value):.1f}" y2="{py(value):.1f}" stroke="#e3e6ea"/>')
        out.append(f'<text x="{LEFT - 6}" y="{py(value) + 4:.1f}" text-anchor="end" fill="#57606a">{value:g}</text>')
    ticks = list(panel.ticks) or [(10**v if panel.x_log else v, f"{10**v if panel.x_log else v:g}") for v in _round_values(x0, x1)]
    base = y_top + panel.height
    for x, text in ticks:
        out.append(f'<line x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{base:.1f}" y2="{base + 4:.1f}" stroke="#57606a"/>')
        out.append(f'<text x="{px(x):.1f}" y="{base + 16:.1f}" text-anchor="middle" fill="#57606a">{html.escape(text)}</text>')
    if panel.x_label:
        middle = LEFT + wide / 2
        out.append(f'<text x="{middle:.0f}" y="{base + 32:.1f}" text-anchor="middle">{html.escape(panel.x_label)}</text>')
    for x, _ in panel.marks:
        out.append(f'<line x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{y_top:.1f}" y2="{base:.1f}" stroke="#57606a" stroke-dasharray="2 3"/>')
    halo = 'font-size="10" fill="#57606a" stroke="#ffffff" stroke-width="4" paint-order="stroke"'  # other marks' lines stop at a word
    for k, (x, text) in enumerate(panel.marks):
        side, anchor = (-3, "end") if px(x) > LEFT + 0.8 * wide else (3, "start")
        place = f'x="{px(x) + side:.1f}" y="{y_top + 10 + MARK * k:.1f}" text-anchor="{anchor}"'
        out.append(f"<text {place} {halo}>{html.escape(text)}</text>")
    for k, series in enumerate(panel.series):
        colour, dash = COLOURS[k % len(COLOURS)], DASHES[k % len(DASHES)]
        out += _curve(series, px, py, colour, dash)
        y = y_top + 12 + 18 * k
        out.append(_line([(LEFT + wide + 12, y - 4), (LEFT + wide + 34, y - 4)], colour, dash))
        out.append(f'<text x="{LEFT + wide + 40}" y="{y}">{html.escape(series.name)}</text>')
    return "\n".join(out)


def _curve(series: Series, px: object, py: object, colour: str, dash: str) -> list[str]:
    assert callable(px)
    assert callable(py)
    out: list[str] = []
    if series.low and not series.points:
        known = [(x, lo, hi) for x, lo, hi in zip(series.x, series.low, series.high, strict=True) if lo is not None and hi is not None]
        outline = [(px(x), py(hi)) for x, _, hi in known] + [(px(x), py(lo)) for x, lo, _ in reversed(known)]
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
        out.append(f'<polygon points="{text}" fill="{colour}" opacity="0.18"/>')
    run: list[tuple[float, float]] = []
    for k, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
        if y is None or not math.isfinite(y):
            out += [_line(run, colour, dash)] if len(run) > 1 else []
            run = []
            continue
        run.append((px(x), py(y)))
        if series.points:
            low, high = (series.low[k], series.high[k]) if series.low else (None, None)
            if low is not None and high is not None:
                out.append(f'<line x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{py(low):.1f}" y2="{py(high):.1f}" stroke="{colour}"/>')
            out.append(f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="3.5" fill="{colour}"/>')
    return [*out, _line(run, colour, dash)] if len(run) > 1 else out


def _line(points: Sequence[tuple[float, float]], colour: str, dash: str) -> str:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'


def _round_values(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values."""
    span = (high - low) or 1.0
    unit = 10 ** math.floor(math.log10(span / about))
    unit *= next(m for m in (1, 2, 5, 10) if span / (unit * m) <= about + 1)
    first = math.ceil(low / unit - 1e-9)
    return [round(k * unit, 10) for k in range(first, math.floor(high / unit + 1e-9) + 1)]
