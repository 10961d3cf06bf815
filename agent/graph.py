"""The loop on one screen.

    load -> detect -> hypotheses -> [ screen -> judge (fan-out) -> measure_and_decide -> propose ] -> report -> review

A round starts with candidates (the user's own first, then the proposer's), drops those that need no judging, has every
response judged on the rest in parallel branches, tests them on the confirm half, and ends when nothing more is found.
With `--review` it then waits for a reviewer and goes on with what was vetoed, reworded or added.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send, interrupt

from agent import nodes
from agent.errors import AwaitingError
from agent.state import LoopState
from agent.workbench import Workbench

Graph = CompiledStateGraph[LoopState, Workbench, LoopState, LoopState]
RECURSION_LIMIT = 500
"""Steps of the graph; a round takes four, and there are at most 16."""


def build_graph(
    checkpointer: BaseCheckpointSaver[Any] | None = None,
    context: type[Any] = Workbench,
    workbench: Callable[[Any], Workbench] | None = None,
) -> Graph:
    """The compiled loop; its context is the workbench, its state ids and numbers.

    Args:
        checkpointer: Keeps finished steps; without one nothing can wait at an interrupt, unless a server brings its own.
        context: Type of the context where it is something else that a workbench is made from.
        workbench: Makes the workbench from such a context; given when a server runs the graph.
    """
    opened = workbench or (lambda given: given)
    stops = checkpointer is not None or workbench is not None
    graph: StateGraph[LoopState, Any, LoopState, LoopState] = StateGraph(LoopState, context_schema=context)
    for node in (
        nodes.load,
        nodes.detect,
        nodes.hypotheses,
        nodes.propose,
        nodes.screen,
        nodes.judge,
        nodes.measure_and_decide,
        nodes.nothing_to_judge,
        nodes.report,
    ):
        graph.add_node(node.__name__, _on_workbench(node, opened, stops))
    graph.add_edge(START, "load")
    graph.add_edge("load", "detect")
    graph.add_conditional_edges("detect", _goes_on("hypotheses"), ["hypotheses", "report"])
    graph.add_edge("hypotheses", "screen")
    graph.add_conditional_edges("screen", _fan_out, ["judge", "nothing_to_judge"])
    graph.add_edge("judge", "measure_and_decide")
    graph.add_conditional_edges("measure_and_decide", _goes_on("propose"), ["propose", "report"])
    graph.add_conditional_edges("nothing_to_judge", _goes_on("propose"), ["propose", "report"])
    graph.add_edge("propose", "screen")
    graph.add_edge("report", "review")
    graph.add_node("review", _review(opened))
    graph.add_conditional_edges("review", _after_review, ["screen", "propose", "report", END])
    return graph.compile(checkpointer=checkpointer)


def _on_workbench(node: Callable[[Any, Workbench], LoopState], opened: Callable[[Any], Workbench], stops: bool) -> Any:
    """The node as LangGraph calls it; where its answers come from elsewhere, the loop stops at an interrupt until they are there."""

    def run(state: Any, runtime: Runtime[Any]) -> LoopState:
        while True:
            try:
                return node(state, opened(runtime.context))
            except AwaitingError as error:
                if not stops:
                    raise
                interrupt({"waiting": str(error)})  # ends this call; taken up with a value, it returns, and the node looks again

    return run


def _review(opened: Callable[[Any], Workbench]) -> Any:
    """The gate for a reviewer; without `--review`, or when all reviews are taken in, the loop ends here."""

    def run(state: LoopState, runtime: Runtime[Any]) -> LoopState:
        turn, work = state.get("reviews", 0) + 1, opened(runtime.context)
        if turn > work.reviews_wanted:
            return {"candidates": [], "reviewing": False}
        while turn > work.reviews_done:
            interrupt({"review": turn, "accepted": state["accepted"]})  # the loop goes on from here when the review is done
        return nodes.review(state, work)

    return run


def _after_review(state: LoopState) -> str:
    if not state["reviewing"]:
        return END
    if state["candidates"]:
        return "screen"
    return "report" if state["stopped"] else "propose"


def _goes_on(where: str) -> Callable[[LoopState], str]:
    def route(state: LoopState) -> str:
        return "report" if state["stopped"] else where

    return route


def _fan_out(state: LoopState) -> list[Send] | str:
    if not state["candidates"]:
        return "nothing_to_judge"
    # what a person worded is read to the end, as in round 0
    shared = {
        "round": 0 if state.get("reviewing") else state["round"],
        "n_candidates": len(state["candidates"]),
        "carried": state["carried"],
        "accepted": state["accepted"],
    }
    return [Send("judge", {"parameter_id": i, **shared}) for i in state["candidates"]]


def run_loop(work: Workbench, thread: str | None = None) -> LoopState:
    """Run the loop, or take it up again where a killed process stopped.

    Args:
        work: What is worked on.
        thread: Name of this discovery in `graph.sqlite`, which keeps every finished step; None keeps nothing on disk.

    Returns:
        The final state, or, with `--review` before the reviewer is done, the state as it waits (see `waits_for_review`).

    Raises:
        AwaitingError: The loop stopped at an interrupt: answers are given elsewhere. Called again, it goes on.
    """
    config: RunnableConfig = {"recursion_limit": RECURSION_LIMIT}
    if thread is None:
        return cast(LoopState, build_graph().invoke({}, config, context=work))
    config["configurable"] = {"thread_id": thread}
    with closing(sqlite3.connect(work.folder / "graph.sqlite", check_same_thread=False)) as connection:
        graph = build_graph(SqliteSaver(connection))
        kept = graph.get_state(config)
        # tasks, not `next`: killed between the writes of a step and its checkpoint, `next` is empty in the middle of the loop
        if kept.values and not kept.tasks:
            if not waits_for_review(cast(LoopState, kept.values), work):
                return cast(LoopState, kept.values)  # killed after its last step: everything is written
            # finished before anybody asked for a review: back to where one is waited for
            graph.update_state(config, {"reviewing": False}, as_node="report")
            kept = graph.get_state(config)
        # an unfinished thread gets no new input: LangGraph goes on from its last step
        start: LoopState | None = None if kept.tasks else {}
        final = graph.invoke(start, config, context=work, durability="sync")
        stopped = [stop.value["waiting"] for task in graph.get_state(config).tasks for stop in task.interrupts if "waiting" in stop.value]
        if stopped:
            raise AwaitingError(work.waiting() or "; ".join(stopped))
        return cast(LoopState, final)


def waits_for_review(state: LoopState, work: Workbench) -> bool:
    """Whether a review was asked for and is not taken in yet."""
    return state.get("reviews", 0) < work.reviews_wanted
