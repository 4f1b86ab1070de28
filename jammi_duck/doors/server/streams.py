"""Arrow record batches as Flight's messages, and back."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from jammi_duck.doors.server.messages import FLIGHT
from jammi_duck.errors import InputError

# Clients refuse messages over 16 MiB, and some over 4.
MOST_BYTES = 4 << 20
# Rows of a batch; DuckDB works on as many at a time, and holds several batches of wide rows.
BATCH_ROWS = 2_048
_CONTINUED = b"\xff\xff\xff\xff"
_HEADER, _BODY = b"\x12", b"\xc2\x3e"


def schema_bytes(schema: pa.Schema) -> bytes:
    """A schema as an encapsulated message of Arrow's IPC format."""
    return bytes(schema.serialize())


def stream_data(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """Record batches as the bytes of FlightData, in as many messages as their bytes need; the schema comes first."""
    if any(_has_dictionary(field.type) for field in schema):
        yield from _with_dictionaries(schema, batches)
        return
    yield _message_data(pa.ipc.read_message(schema.serialize()))
    for batch in batches:
        for part in sliced(batch):
            yield _message_data(pa.ipc.read_message(part.serialize()))


def _with_dictionaries(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """As Arrow writes a stream: with each dictionary before the first batch that needs it."""
    written = bytearray()

    class Sink(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, content: Any) -> int:  # noqa: ANN401
            written.extend(content)
            return len(content)

    def messages() -> Iterator[bytes]:
        content = bytes(written)
        written.clear()
        yield from map(_message_data, pa.ipc.MessageReader.open_stream(pa.py_buffer(content)))

    with pa.ipc.new_stream(pa.PythonFile(Sink(), mode="w"), schema) as writer:
        for batch in batches:
            for part in sliced(batch):
                writer.write_batch(part)
                yield from messages()
        # The schema alone, where there were no batches.
        yield from messages()


def _has_dictionary(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Parts of a batch that take at most `MOST_BYTES` each, or a single row that takes more."""
    size = batch.nbytes
    if size <= MOST_BYTES or batch.num_rows <= 1:
        yield batch
        return
    # Rows may differ much in length, so each half is looked at again.
    half = batch.num_rows // 2
    rows = max(1, min(half, batch.num_rows * MOST_BYTES // size))
    yield from sliced(batch.slice(0, rows))
    yield from sliced(batch.slice(rows))


def _message_data(message: pa.Message) -> bytes:
    header, body = memoryview(message.metadata), memoryview(message.body)
    # As protobuf writes it, but without copying the body into a message first.
    return b"".join((_HEADER, _varint(len(header)), header, _BODY, _varint(len(body)), body))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def received(messages: Iterable[Any], most_bytes: int) -> pa.Table:
    """The table that a client has sent as FlightData.

    Raises:
        InputError: it is larger, or is no stream of Arrow's.
    """
    parts: list[bytes] = []
    total = 0
    for message in messages:
        header, body = message.data_header, message.data_body
        if not header:
            continue
        total += len(header) + len(body)
        if total > most_bytes:
            raise InputError(f"the parameters take more than {most_bytes:,} bytes")
        padding = -len(header) % 8
        parts += [_CONTINUED, struct.pack("<i", len(header) + padding), header, bytes(padding)]
        parts += [body, bytes(-len(body) % 8)]
    if not parts:
        return pa.table({})
    try:
        with pa.ipc.open_stream(pa.py_buffer(b"".join([*parts, _CONTINUED, bytes(4)]))) as reader:
            table: pa.Table = reader.read_all()
        table.validate(full=True)
    except pa.ArrowException as error:
        raise InputError(f"the parameters are no Arrow stream: {error}") from None
    return table


def flight_info(schema: pa.Schema, descriptor: Any, ticket: bytes) -> Any:  # noqa: ANN401
    """Where the rows of an answer are: at one endpoint, which is this server."""
    endpoint = FLIGHT["FlightEndpoint"](ticket=FLIGHT["Ticket"](ticket=ticket))
    return FLIGHT["FlightInfo"](
        schema=schema_bytes(schema),
        flight_descriptor=descriptor,
        endpoint=[endpoint],
        total_records=-1,
        total_bytes=-1,
    )
