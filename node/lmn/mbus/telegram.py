"""
A wired telegram: one long frame from a meter to readings.

Only what answers a request is read, and what a meter pushes as the bus's primary (`is_push`): other frames of that
direction, application errors and CI fields of other protocols are named errors.  A telegram whose records break off
gives no readings at all, since where the boundaries are wrong the values may be too.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

from node.lmn.mbus import application
from node.lmn.mbus.application import (
    Context,
    TransportHeader,
    readings_of,
    take_long_header,
    take_short_header,
)
from node.lmn.mbus.device import SYSTEM_COMPONENT, DeviceAddress
from node.lmn.mbus.fixed import fixed_readings
from node.lmn.mbus.link import FCB, SND_UD, LongFrame
from node.lmn.mbus.records import ManufacturerData, is_makers_format, parse_records
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

_APPLICATION_ERRORS: Final = {
    0: "unspecified", 1: "CI field not implemented", 2: "buffer too long", 3: "too many records",
    4: "premature end of record", 5: "more than ten DIFEs", 6: "more than ten VIFEs", 8: "application too busy",
    9: "too many readouts",
}  # fmt: skip
_FROM_PRIMARY: Final = 0x40  # DIR bit: set in what the primary sends
CI_COMMAND_LONG: Final = 0x5B


def is_push(frame: LongFrame) -> bool:
    """
    Whether a meter's customer interface sends this by itself, as the primary of the bus (Siemens AMIS TD-3510, 3511).

    It is SND_UD with the CI field of a command (EN 13757-7, 5B) and a long header that names a system component as its
    sender.  A command to a meter has the same form and the meter's own device type.
    """
    return (
        frame.control & ~FCB == SND_UD
        and frame.ci == CI_COMMAND_LONG
        and len(frame.data) >= 8
        and frame.data[7] == SYSTEM_COMPONENT
    )


class Opener(Protocol):
    """Whoever has the keys: a `receiver.LayerReceiver`."""

    def decode_layers(
        self, sender: DeviceAddress | None, data: bytes, received_at: datetime | None = None
    ) -> list[Reading]:
        """The readings behind a CI field.  Raises RemoteProtocolError."""


def decode_telegram(
    frame: LongFrame,
    received_at: datetime | None = None,
    opener: Opener | None = None,
    *,
    must_be_secured: bool = False,
) -> list[Reading]:
    """
    The readings of one long frame; with `must_be_secured` only those that came under a key.

    Raises RemoteProtocolError: wrong direction, unknown CI, an encrypted telegram without an `opener`, records that
    break off, or the meter's own application error.
    """
    ci = frame.ci
    if is_push(frame):  # what stands behind a command's long header is laid out as behind a response's
        ci = application.CI_LONG
    elif frame.control & _FROM_PRIMARY:
        raise RemoteProtocolError("wrong_direction", "a frame from the primary, not from a meter")
    data = frame.data
    header: TransportHeader
    match ci:
        case application.CI_LONG:
            header, data = take_long_header(data)
            offset = 12
        case application.CI_SHORT:
            header, data = take_short_header(data)
            offset = 4
        case application.CI_NONE:
            header, offset = TransportHeader(0, 0, 0), 0
        case application.CI_FIXED if not must_be_secured:
            return fixed_readings(data, received_at)
        case application.CI_APPLICATION_ERROR:
            text = _APPLICATION_ERRORS.get(data[0], "reserved") if data else "unspecified"
            raise RemoteProtocolError("application_error", f"the meter reports: {text}")
        case application.CI_ALARM:
            raise RemoteProtocolError("alarm", "the meter reports an alarm")
        case 0x90 if opener is not None:
            return opener.decode_layers(None, bytes([ci]) + data, received_at)
        case application.CI_FIXED:
            raise RemoteProtocolError("not_secured", "the fixed structure has no encryption")
        case _:
            raise RemoteProtocolError("unknown_ci", f"CI field {ci:02x}")
    # Meters from before the security modes put a signature of their own there: 16 and up are no modes of EN 13757-7.
    if 0 < (header.configuration >> 8 & 0x1F) < 16:
        if opener is None:
            raise RemoteProtocolError("encrypted", "an encrypted telegram, and nobody who has keys")
        return opener.decode_layers(None, bytes([ci]) + frame.data, received_at)
    if must_be_secured:
        raise RemoteProtocolError("not_secured", "in the clear, from a meter that has a key")
    address = header.address
    device = str(address) if address is not None else f"address {frame.address}"
    context = Context(device, address.medium_of_records if address else 0, header.status, received_at)
    try:
        items = list(parse_records(data))
        if is_makers_format(items):
            items = [ManufacturerData(data)]
        return readings_of(items, context)
    except RemoteProtocolError as error:
        inside = None if error.offset is None else error.offset + offset
        raise RemoteProtocolError(error.reason, error.detail, offset=inside) from None
