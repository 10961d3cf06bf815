"""A table of raw values understood as a recording: the same rules for every format."""

from __future__ import annotations

from collections.abc import Mapping

from tracing.importers.columns import Columns
from tracing.importers.logprobs import read_logprobs
from tracing.importers.places import check_two_places, read_places
from tracing.importers.scores import read_scores
from tracing.importers.selection import check_one_run, selected
from tracing.importers.table import Table, listed
from tracing.importers.texts import read_texts
from tracing.importers.values import names
from tracing.recording import Recording
from tracing.responses import Responses, first_duplicate


def interpret(table: Table, renamed: Mapping[str, str], select: Mapping[str, str], digest: str) -> Recording:
    """Understand `table` as responses along a run.

    Args:
        table: The raw columns.
        renamed: Part -> column name, see `tracing.importers.columns.PARTS`.
        select: Column -> wanted value; other rows are left out.
        digest: SHA-256 of the file's bytes and of how they were read.

    Raises:
        ImportFileError: Anything is not as expected; the message says on which line.
    """
    n_in_file = len(table)
    table = selected(table, select)
    columns = Columns(table, renamed)
    for name in select:
        columns.use(name)
    read = read_texts(columns)
    step, side, place_notes = read_places(columns)
    given = columns.find("prompt_id")
    scores, no_numbers = read_scores(columns)
    responses = Responses.of(
        read.prompt,
        read.completion,
        system=read.system,
        prompt_id=None if given is None else names(table, columns.name("prompt_id"), given),
        response_id=_response_ids(columns),
        step=step,
        side=side,
        scores=scores,
    )
    run_notes = check_one_run(columns, responses)
    check_two_places(columns, step, side)
    known, log_likelihood, likelihood_notes = read_logprobs(columns, step)
    unused = [*columns.unused(), *no_numbers]
    return Recording(
        source=table.path,
        digest=digest,
        responses=responses,
        steps=known,
        log_likelihood=log_likelihood,
        notes=(
            *((f"{len(table)} of {n_in_file} rows selected: {listed(f'{k}={v}' for k, v in select.items())}",) if select else ()),
            *read.notes,
            *place_notes,
            *run_notes,
            *likelihood_notes,
            *(_same_id_notes(responses) if given is not None else ()),
            *((f"columns not used: {listed(unused)}",) if unused else ()),
        ),
    )


def _response_ids(columns: Columns) -> list[str]:
    table, name = columns.table, columns.name("response_id")
    values = columns.find("response_id")
    if values is None:
        return [str(line) for line in table.lines]
    ids = names(table, name, values)
    if (twice := first_duplicate(ids)) is not None:
        first = ids.index(twice)
        second = ids.index(twice, first + 1)
        raise table.error(second, f"a different id for each response in {name!r}", f"{twice!r} as on {table.line(first)}")
    return ids


def _same_id_notes(responses: Responses) -> tuple[str, ...]:
    """Prompt ids that stand for several texts."""
    keys: dict[str, set[str]] = {}
    for prompt_id, key in zip(responses.prompt_id, responses.prompt_key, strict=True):
        keys.setdefault(prompt_id, set()).add(key)
    several = {prompt_id: len(found) for prompt_id, found in keys.items() if len(found) > 1}
    if not several:
        return ()
    example, n = next(iter(several.items()))
    return (f"{len(several)} prompt ids stand for several texts each ({example!r}: {n}); each text is a prompt of its own",)
