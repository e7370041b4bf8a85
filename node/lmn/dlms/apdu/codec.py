"""From bytes to APDUs, and the lists of results and values that long answers cut into blocks."""

from __future__ import annotations

from typing import Any, Final

from node.lmn.dlms.apdu.general import CIPHERED_TAGS, Ciphered
from node.lmn.dlms.apdu.message import MESSAGES, Apdu
from node.lmn.dlms.axdr import Data, Reader
from node.lmn.dlms.fields import DATA, Codec, either, list_of
from protocol.errors import RemoteProtocolError

_RESULTS: Final = list_of(either(DATA))
_VALUES: Final = list_of(DATA)


def results_to_bytes(results: tuple[Data | int, ...]) -> bytes:
    """The results of a list of attributes, as they go into blocks."""
    return _RESULTS.write(results)


def results_from_bytes(raw: bytes) -> tuple[Data | int, ...]:
    """Inverse of `results_to_bytes`.  Raises RemoteProtocolError."""
    return tuple(_whole(raw, _RESULTS))


def values_to_bytes(values: tuple[Data, ...]) -> bytes:
    """The values of a list of attributes to be written, as they go into blocks."""
    return _VALUES.write(values)


def values_from_bytes(raw: bytes) -> tuple[Data, ...]:
    """Inverse of `values_to_bytes`.  Raises RemoteProtocolError."""
    return tuple(_whole(raw, _VALUES))


def _whole(raw: bytes, codec: Codec) -> Any:
    reader = Reader(raw)
    value = codec.read(reader)
    reader.end()
    return value


def read_apdu(reader: Reader) -> Apdu:
    """The APDU that begins here; bytes after it stay in the reader.  Raises RemoteProtocolError."""
    tag = reader.peek(2)
    if tag[:1] and tag[0] in CIPHERED_TAGS:
        return Ciphered(reader.byte(), reader.octets())
    cls = MESSAGES.get(tag[:1]) or MESSAGES.get(tag)
    if cls is None:
        raise RemoteProtocolError("dlms_apdu", "not the beginning of any APDU", offset=reader.offset)
    reader.take(len(cls.PREFIX))
    return cls(*(codec.read(reader) for _, codec in cls.CODECS))


def decode_apdu(data: bytes) -> Apdu:
    """Exactly one APDU.  Raises RemoteProtocolError for anything else."""
    reader = Reader(data)
    apdu = read_apdu(reader)
    reader.end()
    return apdu
