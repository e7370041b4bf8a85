"""
A recorded receiver's stream to readings, for `stromkreis decode wmbus` and for eyes.

The framing follows from the first octets: A5 and FF open the two serial framings, unless the C field of a meter stands
behind them; sixteen printable characters are text lines, anything else is taken as raw datagrams.  In the `decode`
command recordings that somebody has decrypted already are accepted and marked; counters are not checked, since a
recording may be looked at twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.makers.reader import FormatBook
from node.lmn.mbus.makers.table import find_format
from node.lmn.wmbus.framing import AmberReader, Event, ImstReader, LineReader, RawReader, Reader
from node.lmn.wmbus.heard import HeardMeters
from node.lmn.wmbus.link import SND_IR, SND_NR
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

find_layout = find_format  # what `--layout` names with this codec
_PROBE_SIZE: Final = 16
_UNASKED: Final = (bytes([SND_NR]), bytes([SND_IR]))  # in second place: no message of a module has these
_PRINTABLE: Final = frozenset(range(0x20, 0x7F)) | {0x09, 0x0A, 0x0D}


def reader_for(head: bytes) -> Reader:
    """The reader for a stream that begins like this."""
    if head[:1] in (b"\xa5", b"\xff") and head[1:2] not in _UNASKED:
        return ImstReader() if head[0] == 0xA5 else AmberReader()
    if _PRINTABLE.issuperset(head):
        return LineReader()
    return RawReader()


def decode_stream(
    chunks: Iterable[bytes],
    keys: Mapping[str, bytes] | bytes | None = None,
    *,
    layouts: Sequence[str] = (),
    heard: HeardMeters | None = None,
    reader: Reader | None = None,
) -> Iterator[Reading | RemoteProtocolError]:
    """
    Readings and errors out of a receiver's bytes, however they are cut.

    `keys`: meter number (14 characters or the last eight) to key, or one key for all.  `layouts` are tables of makers'
    formats that go before the shipped ones (`node.lmn.mbus.makers`); `heard` counts who speaks; `reader` is that of the
    receiver where it is known, otherwise the first octets say it.  A signal strength that
    the receiver says stands in the readings' records.  Raises LocalProtocolError for a key of another length or no such
    table.
    """
    formats = FormatBook([find_format(each) for each in layouts])
    receiver = Receiver(KeyStore.of(keys), accept_decrypted=True, check_counters=False, formats=formats)
    head = b""
    for chunk in chunks:
        data = chunk
        if reader is None:
            head += chunk
            if len(head) < _PROBE_SIZE:
                continue
            reader, data = reader_for(head[:_PROBE_SIZE]), head
        for event in reader.feed(data):
            yield from _decoded(receiver, event, heard)
    if reader is None:
        reader = reader_for(head)
        for event in reader.feed(head):
            yield from _decoded(receiver, event, heard)
    for event in reader.finish():
        yield from _decoded(receiver, event, heard)


def _decoded(
    receiver: Receiver, event: Event, heard: HeardMeters | None
) -> Iterator[Reading | RemoteProtocolError]:  # fmt: skip
    if isinstance(event, RemoteProtocolError):
        yield event
        return
    meter = None if heard is None else heard.take(event)
    try:
        readings = receiver.decode(event.octets)
    except RemoteProtocolError as error:
        if meter is not None:
            meter.outcome = error.reason
        yield RemoteProtocolError(error.reason, error.detail, offset=event.offset)
        return
    if meter is not None:
        meter.outcome = "readings"
    if event.signal is not None:
        signal = event.signal.to_json()
        readings = [replace(reading, record={**reading.record, "signal": signal}) for reading in readings]
    yield from readings
