"""A review served to tests, and a client that can send what no browser would."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from agent.review.server import ReviewServer


@dataclass
class Client:
    """A client with the session's cookie.

    Attributes:
        server: What it talks to.
        cookie: Sent with every request.
        form_token: Sent with every form, as our pages do.
    """

    server: ReviewServer
    cookie: str
    form_token: str = ""

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, headers: Mapping[str, str] | None = None, cookie: bool = True
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text; `headers` replace what is sent by default."""
        sent = {"Host": f"127.0.0.1:{self.server.port}"} | ({"Cookie": self.cookie} if cookie else {}) | dict(headers or {})
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        data = None if body is None else body.encode()
        if data is not None and "Content-Length" not in sent:
            connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        found = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return answer.status, found, text

    @property
    def own(self) -> dict[str, str]:
        """Headers of a form sent by one of our pages."""
        return {"Origin": f"http://127.0.0.1:{self.server.port}", "Content-Type": "application/x-www-form-urlencoded"}

    def post(self, path: str, changed: Mapping[str, str] | None = None, /, **fields: str) -> tuple[int, dict[str, str], str]:
        """Send a form as our pages do; `changed` replaces some of the headers they send."""
        return self.ask(path, "POST", urlencode({"form_token": self.form_token} | fields), self.own | dict(changed or {}))


@contextmanager
def reviewed(folder: Path, discovery: str = "d", waiting: bool = False) -> Iterator[Client]:
    """A running review of a folder, and a client that holds its token."""
    server = ReviewServer(folder, discovery, reviewer="tester", waiting=waiting)
    listening = threading.Event()
    thread = threading.Thread(target=server.run, args=(lambda address: listening.set(),))
    thread.start()
    try:
        assert listening.wait(20)
        client = Client(server, "")
        status, headers, _ = client.ask(server.address.partition(str(server.port))[2], cookie=False)
        assert status == 303
        client.cookie = headers["set-cookie"].partition(";")[0]
        page = client.ask("/")[2]
        client.form_token = page.partition('name="form_token" value="')[2].partition('"')[0]
        yield client
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
