"""`report.html`: the findings as one self-contained page that opens offline and asks the network for nothing.

Scripts are inlined and allowed by their hash in a Content-Security-Policy, so that nothing in a response can run. jinja2 escapes every
value but the style, the scripts and the figures' data: HTML reads these as raw text, so they are checked instead (`RawText`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.records import Findings
from agent.report import figures, ranking, reliability, sensitivity, timeline_figure
from agent.report.method import METHOD_LINES
from agent.report.reproduce import command_line
from agent.report.shown import MISSING, Shown, number, p_value, shown, step
from agent.report.visible import Excerpt, excerpt, flat_line, one_line, segments

if TYPE_CHECKING:
    from collections.abc import Iterable

    import jinja2
    from markupsafe import Markup

    from agent.report.review_view import LabelView, ReviewView
    from agent.report.visible import Segment

_FOLDER = Path(__file__).parent
FIGURES = {
    "transition": (figures.transition_figure, figures.transition_alt),
    "timeline": (timeline_figure.report_timeline, timeline_figure.report_timeline_alt),
    "decomposition": (figures.decomposition_figure, figures.decomposition_alt),
    "prompts": (figures.prompt_figure, figures.prompt_alt),
}


def html_report(findings: Findings, review: ReviewView | None = None) -> str:
    """The whole page; at most a few hundred kilobytes beside the plotting library's 4.8 MB.

    With `review` it is a page of `discover review` with its forms, whose scripts are files of their own.
    """
    drawn, alts = {}, {}
    for name, (draw, alt) in FIGURES.items():
        figure = draw(findings)
        if figure is not None:
            drawn[name], alts[name] = json.loads(figure.to_json(engine="json")), alt(findings)
    choices, other = sensitivity.choices(findings)
    names = [*(["plotly.js"] if drawn else []), "page.js"]
    scripts = [] if review else [static_script(name) for name in names]
    template = _environment().get_template("template.html")
    return template.render(
        **_ranked_table(findings),
        axis=_axis(findings),
        missed=ranking.missed_text(findings),
        lag=ranking.lag_text(findings),
        flagged=ranking.flagged(findings),
        alts=alts,
        prompt_names=[findings.prompts.get(prompt, prompt) for prompt in figures.prompt_columns(findings)[1]],
        method=METHOD_LINES,
        command=command_line(findings),
        config=json.dumps(findings.config, indent=2, ensure_ascii=False),
        quantities=ranking.quantities,
        settled=[entry for entry in findings.order if entry.settled],
        unsettled=[entry for entry in findings.order if not entry.settled],
        judge=reliability.html_section(findings),
        choices=choices,
        sensitivity=json.dumps(other, indent=2, ensure_ascii=False) if other else "",
        review=review,
        sources=names if review else [],
        style=RawText(_text("page.css")),
        scripts=[RawText(script) for script in scripts],
        script_hashes=" ".join(_csp_hash(script) for script in scripts),
        figure_data=RawText(data_block(drawn)),
    )


def html_summary(findings: Findings) -> str:
    """The findings in a notebook's cell: sentences, ranked table, cautions; no script."""
    template = _environment().get_template("notebook.html")
    return template.render(**_ranked_table(findings))


def _ranked_table(findings: Findings) -> dict[str, Any]:
    """What page and notebook both show."""
    return {
        "findings": findings,
        "rows": ranking.ranked(findings),
        "length": ranking.row(findings.length) if findings.length else None,
        "total": ranking.total(findings),
        "joint": ranking.joint(findings),
        "residual": ranking.residual(findings),
        "contrast": ranking.contrast_text(findings.contrast),
        "undetectable": ranking.undetectable_text(findings),
    }


def html_label(view: LabelView) -> str:
    """The labelling page of `discover review`: one response and one question, nothing else."""
    return _environment().get_template("label.html").render(view=view, style=RawText(_text("page.css")))


def static_script(name: str) -> str:
    """One of the pages' scripts: `plotly.js`, `page.js` or `label.js`."""
    return _plotly_script() if name == "plotly.js" else _text(name)


@dataclass(frozen=True)
class RawText:
    """What stands in a `<style>` or `<script>` element, where entities mean nothing: put there as it is (markupsafe's `__html__`).

    Raises:
        ValueError: the text would end its element or hide the element's end from the browser.
    """

    text: str

    def __post_init__(self) -> None:
        """Refuse what could leave the element."""
        if re.search(r"</(style|script)|<!--", self.text, re.IGNORECASE):
            raise ValueError("expected text that stays inside its element, found an end tag or the start of a comment")

    def __html__(self) -> str:
        """The text itself."""
        return self.text


def data_block(value: Any) -> str:
    """`value` as JSON that cannot leave a `<script type="application/json">` element."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _plotly_script() -> str:
    """The plotting library that the plotly package carries (its only offline bundle)."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def _text(name: str) -> str:
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _axis(findings: Findings) -> tuple[float, float]:
    """Limits of the share bars: 0 to 1, wider where a share or its interval lies outside."""
    rows = [*ranking.ranked(findings), *([ranking.row(findings.length)] if findings.length else [])]
    estimates = [entry.finding.share for entry in rows] + [
        estimate for estimate in (findings.joint, findings.residual) if estimate is not None
    ]
    values = [value for estimate in estimates for value in (estimate.estimate, estimate.low, estimate.high) if value is not None]
    return min(0.0, *values, 0.0), max(1.0, *values, 1.0)


@cache
def _environment() -> jinja2.Environment:
    """Made once a process: compiling the template takes longer than filling it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        untrusted=_untrusted,
        line=one_line,
        excerpt=excerpt,
        pieces=_pieces,
        number=number,
        p=p_value,
        step=step,
        shown=shown,
        steps=_steps,
        percent=_percent,
    )
    environment.globals.update(MISSING=MISSING)
    return environment


def _untrusted(text: str, limit: int = 600) -> Markup:
    """One line of untrusted text: escaped, isolated from the direction of what surrounds it, hidden characters made visible."""
    from markupsafe import Markup

    flat = one_line_pieces(text, limit)
    return Markup("<bdi>{}</bdi>").format(_pieces(flat))


def one_line_pieces(text: str, limit: int) -> list[Segment]:
    """The segments of `text` on one line, cut at `limit` characters with the count of the rest."""
    cut, rest = flat_line(text, limit)
    return [*segments(cut), *(segments(f"… ({rest:,} more characters)") if rest else ())]


def _pieces(parts: Iterable[Segment] | Excerpt) -> Markup:
    """Segments as HTML: hidden characters in a box of their own, quotes marked."""
    from markupsafe import Markup

    if isinstance(parts, Excerpt):
        parts = parts.segments
    out = Markup()
    for part in parts:
        piece = Markup('<span class="hidden-character">{}</span>').format(part.text) if part.hidden else Markup("{}").format(part.text)
        out += Markup("<mark>{}</mark>").format(piece) if part.marked else piece
    return out


def _steps(value: Any) -> Shown:
    """An estimate in optimizer steps."""
    return shown(value, unit=False)


def _percent(value: float, axis: tuple[float, float]) -> str:
    """Where `value` lies on `axis`, for a bar's style."""
    return f"{100.0 * (value - axis[0]) / (axis[1] - axis[0]):.2f}%"
