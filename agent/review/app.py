"""The pages of a review: the report with decisions on it, and the blinded labelling queue; forms answer with a redirect."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from agent.decisions import Decision
from agent.errors import AgentError, ConfigError
from agent.report.html import html_label, html_report, static_script
from agent.report.review_view import LabelView, ParameterReview, ReviewView
from agent.review import forms
from agent.review.session import LABELS_WANTED, Session

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

SCRIPTS = ("plotly.js", "page.js", "label.js")


class Pages:
    """The application's pages.

    Args:
        session: What is reviewed.
        finish: Called when the reviewer says that the review is done.
        waiting: Whether the loop waits for this review.
    """

    def __init__(self, session: Session, finish: Callable[[], None], waiting: bool) -> None:
        self.session, self.finish, self.waiting = session, finish, waiting
        # beside the cookie: a form that our own page did not write is refused whatever the browser sends with it
        self.form_token = secrets.token_urlsafe(32)
        self.message = ""

    # ---- pages

    async def report(self, request: Request) -> Response:
        """The report with what was decided."""
        from starlette.responses import HTMLResponse

        message, self.message = self.message, ""
        return HTMLResponse(html_report(self.session.findings, self.view(message)))

    async def label(self, request: Request) -> Response:
        """One response, one question."""
        from starlette.responses import HTMLResponse

        parameter = forms.known(self.session.findings, request.path_params["parameter_id"]).parameter
        if self.session.no_labels:
            raise ConfigError(self.session.no_labels)
        item = self.session.item(parameter, request.query_params.get("text", ""))
        return HTMLResponse(html_label(LabelView(parameter, item, self.form_token, len(self.session.labelled(parameter)))))

    async def script(self, request: Request) -> Response:
        """One of our scripts; nothing else is served from disk."""
        from starlette.responses import Response

        return Response(static_script(request.url.path.lstrip("/")), media_type="text/javascript")

    def view(self, message: str) -> ReviewView:
        """What the report needs to know of the review."""
        session, now = self.session, self.session.standing
        about = {}
        for found in session.findings.parameters:
            parameter = found.parameter
            decision = now.of(parameter.id)
            new = now.reworded.get(parameter.id)
            about[parameter.id] = ParameterReview(
                decision=decision,
                text=new.name if new is not None else now.confirmed.get(parameter.id, now.vetoed.get(parameter.id, "")),
                labels=0 if session.no_labels else len(session.labelled(parameter)),
                agreement=session.agreement(parameter),
            )
        return ReviewView(self.form_token, about, now.added, LABELS_WANTED, session.no_labels, self.waiting, message)

    # ---- decisions

    async def decide(self, request: Request) -> Response:
        """Accept, veto or withdraw."""
        fields = await self._fields(request)
        self.session.write(forms.decided(fields, self.session.findings))
        return _back_to(fields.get("back", ""))

    async def reword(self, request: Request) -> Response:
        """New words."""
        fields = await self._fields(request)
        self.session.write(forms.reworded(fields, self.session.findings))
        return _back_to(fields.get("back", ""))

    async def hypothesis(self, request: Request) -> Response:
        """A hypothesis."""
        self.session.write(forms.hypothesis(await self._fields(request), self.session.findings))
        return _back_to("hypotheses")

    async def give_label(self, request: Request) -> Response:
        """One label, then the next response."""
        from starlette.responses import RedirectResponse

        decision = forms.labelled(await self._fields(request), self.session.findings)
        if decision.text_key not in self.session.judged(forms.known(self.session.findings, decision.parameter_id).parameter):
            raise ConfigError("label: expected a response of the queue; reload the page")
        self.session.write(decision)
        return RedirectResponse(f"/label/{decision.parameter_id}", status_code=303)

    async def done(self, request: Request) -> Response:
        """The review is done: the loop can go on."""
        from starlette.background import BackgroundTask
        from starlette.responses import PlainTextResponse

        await self._fields(request)
        self.session.write(Decision(kind="done", discovery=""))
        # the answer goes out first
        text = "The review is done and kept in review.jsonl. This page can be closed; the terminal says how it goes on.\n"
        return PlainTextResponse(text, background=BackgroundTask(self.finish))

    async def _fields(self, request: Request) -> dict[str, str]:
        """The fields of one of our forms."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise ConfigError(f"form: expected application/x-www-form-urlencoded, found {kind or 'nothing'}")
        text = (await request.body()).decode("utf-8", "replace")
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=30, errors="replace"))
        if not secrets.compare_digest(fields.pop("form_token", "").encode("utf-8", "replace"), self.form_token.encode()):
            raise ConfigError("form: expected one of this session's pages; reload the page")
        return fields


def _back_to(place: str) -> Response:
    from starlette.responses import RedirectResponse

    known = place if place.replace("-", "").isalnum() else ""
    return RedirectResponse(f"/#{known}" if known else "/", status_code=303)


def application(pages: Pages) -> Starlette:
    """The pages behind their paths; anything else does not exist."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def told(page: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await page(request)
            except (AgentError, ValueError) as error:
                return PlainTextResponse(f"{error}\n\nNothing was changed. Go back and try again.\n", status_code=400)

        return answer

    return Starlette(
        routes=[
            Route("/", told(pages.report)),
            Route("/label/{parameter_id:str}", told(pages.label)),
            *(Route(f"/{name}", pages.script) for name in SCRIPTS),
            Route("/decide", told(pages.decide), methods=["POST"]),
            Route("/reword", told(pages.reword), methods=["POST"]),
            Route("/hypothesis", told(pages.hypothesis), methods=["POST"]),
            Route("/label", told(pages.give_label), methods=["POST"]),
            Route("/done", told(pages.done), methods=["POST"]),
        ]
    )
