"""A radio datagram to readings: the link header here, all behind it as on a wire (`node.lmn.mbus.receiver`)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from node.lmn.mbus.receiver import LayerReceiver
from node.lmn.wmbus.link import take_link_header
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

FROM_METER: Final = frozenset({0x44, 0x46, 0x47, 0x48, 0x08, 0x18, 0x28, 0x38, 0x00, 0x10, 0x20, 0x30})


class Receiver(LayerReceiver):
    """Stripped datagrams in, readings out."""

    def decode(self, datagram: bytes, received_at: datetime | None = None) -> list[Reading]:
        """
        The readings of one stripped datagram, as `decode_layers`.

        Raises RemoteProtocolError as it does, and for a damaged datagram or one of another direction.
        """
        link = take_link_header(datagram)
        if link.control not in FROM_METER:
            raise RemoteProtocolError("wrong_direction", f"C field {link.control:02x} is not sent by meters")
        return self.decode_layers(link.address, link.rest, received_at)
