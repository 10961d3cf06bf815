"""The loop for `langgraph dev` (see langgraph.json): the graph is seen there, and a run is started with options of `RunConfig` as context.

A server keeps the state, so the graph has no checkpointer of its own. Roles that cost nothing only: a server has no way to ask before
spending. Everything is written to `discoveries/studio/NAME-DIGEST` in the folder the server runs in.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

from agent.config import RunConfig, make_config
from agent.discovery import open_workbench
from agent.errors import ConfigError
from agent.graph import build_graph
from agent.report import write_all
from agent.workbench import Workbench

FOLDER = Path("discoveries") / "studio"
FREE = ("embedded", "scripted")
_lock = Lock()
_open: dict[str, Workbench] = {}


def workbench_of(context: Any) -> Workbench:
    """The workbench of a run started in the studio; the same options give the same one.

    Args:
        context: A `RunConfig` or its fields.

    Raises:
        ConfigError: An option is wrong or missing, or a role would have to be paid.
    """
    config = context if isinstance(context, RunConfig) else make_config(**(context or {}))
    with _lock:
        key = config.model_dump_json()
        if key not in _open:
            _open[key] = _opened(config)
        return _open[key]


def _opened(config: RunConfig) -> Workbench:
    roles = (("proposer", config.proposer), ("judge", config.judge), ("second_judge", config.second_judge or "embedded"))
    for name, spec in roles:
        if spec.partition(":")[0] not in FREE:
            raise ConfigError(f"{name} {spec!r}: expected embedded or scripted in the studio; discover --run asks before it spends")
    # a server remembers nothing between runs that it was not asked to
    work = open_workbench(config.model_copy(update={"memory": "off"}))
    work.folder = FOLDER / f"{Path(config.run).stem}-{work.discovery[:8]}"
    work.folder.mkdir(parents=True, exist_ok=True)
    work.publish = lambda findings: write_all(findings, work.folder)
    return work


graph = build_graph(context=RunConfig, workbench=workbench_of)
