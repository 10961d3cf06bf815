"""Reading Parquet: one row per response."""

from __future__ import annotations

from tracing.errors import ImportFileError
from tracing.importers.table import Table, listed
from tracing.responses import one_line


def read(path: str, data: bytes) -> Table:
    """Parse `data`, the bytes of the file at `path`; only the columns that are asked for are turned into values.

    Raises:
        ImportFileError: The file is damaged, has no rows, or a column name twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not data:
        raise ImportFileError(f"{path}: expected at least one response, found an empty file")
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ImportFileError(f"{path}: expected a Parquet file, found a damaged or foreign one ({one_line(error)})") from error
    names = tuple(table.column_names)
    if len(set(names)) < len(names):
        raise ImportFileError(f"{path}: expected a different name for each column, found {listed(names)}")
    if table.num_rows == 0:
        raise ImportFileError(f"{path}: expected at least one response, found none under the columns {listed(names)}")
    return Table(path, names, tuple(range(1, table.num_rows + 1)), lambda name: table.column(name).to_pylist(), unit="row ")
