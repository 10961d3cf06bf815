"""langgraph.json: the graph is seen by `langgraph dev`, and a run is started there."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import make_config
from agent.errors import ConfigError
from agent.graph import build_graph
from agent.report import read_findings
from agent.studio import FOLDER, workbench_of
from tests.optional_part import missing
from tests.planted_recordings import accepted, asks, planted, write_jsonl, write_script

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with langgraph.json, a file of responses and a script."""
    folder = tmp_path_factory.mktemp("studio")
    shutil.copy(ROOT / "langgraph.json", folder)
    write_jsonl(folder / "rows.jsonl", planted(0, n_prompts=8, sides=("base", "tuned")))
    write_script(folder / "script.toml", asks("harm"))
    return folder


def context(place: Path) -> dict[str, Any]:
    """Options of a run as a user of the studio fills them in."""
    provider = f"scripted:{place / 'script.toml'}"
    return {"run": str(place / "rows.jsonl"), "proposer": provider, "judge": provider, "n_permutations": 199, "rounds": 1}


def test_the_graph_runs_with_options_as_its_context(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The named graph has no checkpointer and runs from a `RunConfig`; paid roles and paths that lead nowhere are refused."""
    monkeypatch.chdir(tmp_path)
    named = json.loads((ROOT / "langgraph.json").read_text())["graphs"]["discover"]
    module, _, name = named.partition(":")
    graph = getattr(importlib.import_module(module), name)
    assert graph.checkpointer is None
    state = graph.invoke({}, context=context(place))
    assert len(state["accepted"]) == 1
    assert set(graph.get_graph().nodes) == set(build_graph().get_graph().nodes)
    (folder,) = (tmp_path / FOLDER).iterdir()
    assert accepted(read_findings(folder)) == ["harm"]
    with pytest.raises(ConfigError, match="expected embedded or scripted in the studio"):
        workbench_of(make_config(run="x", judge="openai:m"))
    with pytest.raises(ConfigError, match="found nothing there"):
        workbench_of({"run": "nowhere.jsonl"})


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[str]:
    """`langgraph dev` in that folder; its address."""
    command = Path(sys.executable).with_name("langgraph")
    if importlib.util.find_spec("langgraph_api") is None or not command.exists():
        missing("langgraph dev", "pip install -c constraints.txt -e '.[studio]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "LANGGRAPH_NO_VERSION_CHECK": "true", "LANGSMITH_TRACING": "false"}
    options = ["dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port)]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([str(command), *options], cwd=place, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (place / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/ok", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def asked(address: str, path: str, body: Any = None) -> Any:
    """What the server answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_langgraph_dev_shows_the_graph_and_runs_it(server: str, place: Path) -> None:
    """The server lists `discover`, draws every node, knows its options, and a run started there ends with findings on disk."""
    (assistant,) = asked(server, "/assistants/search", {})
    assert assistant["graph_id"] == "discover"
    drawn = asked(server, f"/assistants/{assistant['assistant_id']}/graph")
    assert {"load", "propose", "judge", "measure_and_decide", "report", "review"} <= {node["id"] for node in drawn["nodes"]}
    schemas = asked(server, f"/assistants/{assistant['assistant_id']}/schemas")
    assert {"run", "judge", "rounds"} <= set(schemas["context_schema"]["properties"])
    state = asked(server, "/runs/wait", {"assistant_id": "discover", "input": {}, "context": context(place)})
    assert len(state["accepted"]) == 1
    (folder,) = (place / FOLDER).iterdir()
    assert accepted(read_findings(folder)) == ["harm"]
