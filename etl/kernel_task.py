"""One Spark task of a batch: Parquet files in, as bytes; what etl.kernel makes of their rows out. Pure.

Runs inside Spark's Python workers, as the kernel does, and imports no more than it. A task reads its files by pyarrow:
Spark moves compressed files only. To move rows costs more than all that the kernel does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl import kernel, kernel_energy

PIECE = "name string, piece binary"
"""What `pieces` gives, as Spark's DDL: the name of a table, and rows of it as an Arrow stream."""
PIECE_ROWS = 50_000
"""About 5 MB before it is compressed. Readings that are rarer than minutes make more rollups than they have values, and
all of a task's pieces stand in Spark's memory at once."""
MINUTE = (
    "site string, device_id string, metric string, bucket timestamp, mean double, min double, max double, last double"
)
"""What `minutes` gives, as Spark's DDL."""
TEXTS = ["device_id", "site", "kafka_topic", "carried.list.element"]
"""Read as dictionaries: a number a row."""
CHUNK_ROWS = 200_000
"""Rows that the kernel gets at once, where that many devices sent them: 150 MB."""


def pieces(
    metrics: Sequence[kernel.Metric],
    grain: str,
    schema: pa.Schema,
    files: Iterable[pa.RecordBatch],
    past: kernel.Past = kernel.NO_PAST,
    phases: kernel_energy.Phases = kernel_energy.NO_PHASES,
) -> Iterator[pa.RecordBatch]:
    """All tables of kernel.derive, cut into PIECEs. `files` as `_rows` takes them."""
    compressed = pa.ipc.IpcWriteOptions(compression="zstd")
    for chunk in _rows(schema, files):
        for name, derived in kernel.derive(chunk, metrics, grain, past, phases).items():
            table = _as_texts(derived)
            for start in range(0, max(table.num_rows, 1), PIECE_ROWS):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, table.schema, options=compressed) as stream:
                    stream.write_table(table.slice(start, PIECE_ROWS))
                piece = pa.array([sink.getvalue().to_pybytes()], pa.binary())
                yield pa.RecordBatch.from_arrays([pa.array([name]), piece], ["name", "piece"])


def minutes(
    metrics: Sequence[kernel.Metric], grain: str, schema: pa.Schema, files: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The rollups of a minute, the same that are in the warehouse. `files` as `_rows` takes them."""
    names = [column.split()[0] for column in MINUTE.split(", ")]
    for chunk in _rows(schema, files):
        found = kernel.derive(chunk, metrics, grain)["rollups"]
        yield from _as_texts(found.filter(pc.equal(found["grain"], "1m")).select(names)).to_batches()


def _rows(schema: pa.Schema, files: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """What the kernel takes at once, with all of a device. `files` have content, version, share and shares: one in
    `shares` of a file's devices is this task's. All files of a partition must be there that it has a share of."""
    read = (_read(file, schema) for batch in files for file in batch.to_pylist())
    tables = [table for of_file in read for table in of_file if table.num_rows]
    if tables:
        yield from _chunks(pa.concat_tables(tables).unify_dictionaries())


def _read(file: Mapping[str, Any], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of this share, with the columns of `schema` and spec_version: what a file lacks is null, as the type
    may have got it later, and what an older version had besides is left. A row group at a time: Arrow reads no list of
    dictionaries over several, and what is not of this share goes at once."""
    content = pq.ParquetFile(pa.BufferReader(file["content"]), read_dictionary=TEXTS, page_checksum_verification=True)
    there = [name for name in schema.names if name in content.schema_arrow.names]
    for number in range(content.num_row_groups):
        yield _of_share(content.read_row_group(number, columns=there), file, schema)


def _of_share(table: pa.Table, file: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    arrays = [table[f.name] if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in schema]
    table = pa.table(arrays, names=schema.names)
    version = pa.repeat(pa.scalar(file["version"], pa.int32()), table.num_rows)
    table = table.append_column("spec_version", version)
    if file["shares"] == 1:
        return table
    device = table["device_id"].combine_chunks()
    shares = np.array([crc32(name.encode()) % file["shares"] for name in device.dictionary.to_pylist()])
    return table.filter(pa.array(shares[device.indices.to_numpy()] == file["share"]))


def _as_texts(table: pa.Table) -> pa.Table:
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(number, field.name, table[number].cast(pa.string()))
    return table


def _chunks(rows: pa.Table) -> Iterator[pa.Table]:
    """Some devices each."""
    number = -(-rows.num_rows // CHUNK_ROWS)
    if number == 1:
        yield rows
        return
    device = rows["device_id"].combine_chunks()
    chunk = device.indices.to_numpy() % number
    order, ends = np.argsort(chunk, kind="stable"), np.cumsum(np.bincount(chunk, minlength=number))
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        if end > start:
            yield rows.take(order[start:end])
