"""
The push receiver: what a meter says unasked, from frames or APDUs to readings.

The way up: HDLC segments -> LLC packet, or segments on M-Bus -> general block transfer -> ciphering ->
DataNotification or EventNotification -> list.  Each step keeps something only while a message is under way, each is
bounded, and any broken frame throws the message under way out: a list put together from two halves of two messages
would be a wrong value with a right check sum.

Without ciphering a telegram is as good as its frame: VALID with a frame check sequence, UNVERIFIED bare.  With
ciphering it is VALID only if its tag was checked; a meter's invocation counter has to rise.  A meter that encrypts and
does not authenticate (Kaifa in Austria) is as good as its frame, like one in the clear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final

from node.lmn.dlms import apdu
from node.lmn.dlms.axdr import Reader
from node.lmn.dlms.layout import LayoutBook
from node.lmn.dlms.listing import attribute_reading, readings_from_list
from node.lmn.dlms.mbus_bearer import Segments
from node.lmn.dlms.security import Control, Keys, ReplayGuard, unprotect
from node.lmn.dlms.transport import LLC_COMMAND, LLC_RESPONSE
from node.lmn.hdlc.frame import Frame, Kind
from node.lmn.mbus.link import Frame as MbusFrame
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Quality, Reading

MESSAGE_SIZE_MAX: Final = 1 << 16
_GENERAL_BLOCK: Final = 0xE0
_TITLE_SIZE: Final = 8  # octets of a system title (IEC 62056-5-3, 9.2.3.2)
_PLAIN: Final = (apdu.DataNotification, apdu.EventNotification)


class PushReceiver:
    """
    One meter's (or one line's) pushes.

    `device` names the meter where its messages do not; `system_title` is needed only for messages under `glo-` tags,
    which do not name their sender; `layouts` says what lists mean that name nothing.  A meter whose keys are known may
    send nothing plain unless `plain_allowed`.  Every method raises RemoteProtocolError.
    """

    def __init__(
        self,
        device: str = "",
        keys: Keys | None = None,
        guard: ReplayGuard | None = None,
        system_title: bytes = b"",
        layouts: LayoutBook | None = None,
        *,
        plain_allowed: bool = False,
    ) -> None:
        self._device = device
        self._keys = keys
        self._guard = guard or ReplayGuard()
        self._system_title = system_title
        self._layouts = layouts or LayoutBook()
        self._plain_refused = keys is not None and not plain_allowed
        self._segments = bytearray()
        self._next_number: int | None = None
        self._mbus_segments = Segments()
        self._blocks = bytearray()
        self._next_block = 1

    @property
    def in_message(self) -> bool:
        """Whether a part of a message has come and not its end."""
        return bool(self._segments or self._blocks or self._mbus_segments.in_message)

    def reset(self) -> None:
        """Forget the message under way: a frame was lost or broken."""
        self._segments.clear()
        self._next_number = None
        self._mbus_segments.reset()
        self._blocks.clear()
        self._next_block = 1

    def frame(self, frame: Frame, received_at: datetime | None = None) -> list[Reading | RemoteProtocolError]:
        """
        A frame from the line; pushes come as UI or, unconnected, as I frames.

        A frame may hold several messages: each gives its readings, or an error.
        """
        if frame.kind not in (Kind.INFORMATION, Kind.UNNUMBERED_INFORMATION) or not frame.information:
            return []
        if frame.kind is Kind.INFORMATION:
            expected = self._next_number
            self._next_number = (frame.send_number + 1) % 8 if frame.segmented else None
            if self._segments and expected not in (None, frame.send_number):
                self.reset()
                raise RemoteProtocolError("hdlc_sequence", "a segment is missing")
        if not self._segments:
            has_llc = frame.information.startswith((LLC_RESPONSE, LLC_COMMAND))
            # L+G's meters put the LLC header before the first block of a message only.
            if not has_llc and not (self._blocks and frame.information[0] == _GENERAL_BLOCK):
                raise RemoteProtocolError("dlms_llc", "a message without its beginning")
        self._segments += frame.information
        if len(self._segments) > MESSAGE_SIZE_MAX:
            self.reset()
            raise RemoteProtocolError("hdlc_unit_too_long", f"more than {MESSAGE_SIZE_MAX} bytes in segments")
        if frame.segmented:
            return []
        packet = bytes(self._segments)
        self._segments.clear()
        return self.messages(packet, received_at)

    def mbus_frame(
        self, frame: MbusFrame, received_at: datetime | None = None
    ) -> Iterator[Reading | RemoteProtocolError]:
        """A frame from an M-Bus: readings, and errors between them; it raises none."""
        for item in self._mbus_segments.accept(frame):
            if isinstance(item, RemoteProtocolError):
                yield item
                continue
            try:
                yield from self.message(item, received_at, checked=True)
            except RemoteProtocolError as error:
                yield error

    def messages(self, packet: bytes, received_at: datetime | None) -> list[Reading | RemoteProtocolError]:
        """One APDU after the other, each with an LLC header or without, as a frame's check sum covers them."""
        reader = Reader(packet)
        found: list[apdu.Apdu] = []
        while reader.remaining:
            if reader.peek(3) in (LLC_RESPONSE, LLC_COMMAND):
                reader.take(3)
            try:
                found.append(apdu.read_apdu(reader))
            except RemoteProtocolError as error:
                if not found:
                    raise
                raise RemoteProtocolError("dlms_trailing", f"no message behind the first ({error.reason})") from None
        out: list[Reading | RemoteProtocolError] = []
        for message in found:
            try:
                out += self.received(message, received_at, checked=True)
            except RemoteProtocolError as error:
                if len(found) == 1:
                    raise
                out.append(error)
        return out

    def message(
        self, data: bytes, received_at: datetime | None = None, *, checked: bool = False
    ) -> list[Reading | RemoteProtocolError]:
        """Exactly one APDU; `checked` says that the layer below had a check sum."""
        reader = Reader(data)
        message = apdu.read_apdu(reader)
        reader.end()
        return self.received(message, received_at, checked=checked)

    def received(
        self, message: apdu.Apdu, received_at: datetime | None = None, *, checked: bool = False
    ) -> list[Reading | RemoteProtocolError]:
        """A decoded APDU, perhaps a block or a ciphered one; errors are of a message that it broke off."""
        if not isinstance(message, apdu.GeneralBlock):
            return self._readings(message, received_at, checked=checked)
        out: list[Reading | RemoteProtocolError] = []
        if message.block_number == 1 and self._blocks:
            out.append(RemoteProtocolError("dlms_block_number", "a message broke off before its last block"))
        whole = self._collect(message)
        try:
            if whole is not None:
                out += self._readings(apdu.decode_apdu(whole), received_at, checked=checked)
        except RemoteProtocolError as error:
            if not out:
                raise
            out.append(error)
        return out

    def _readings(
        self, message: apdu.Apdu, received_at: datetime | None, *, checked: bool
    ) -> list[Reading | RemoteProtocolError]:
        """A decoded APDU that is no block, perhaps a ciphered one."""
        quality = Quality.VALID if checked else Quality.UNVERIFIED
        title = b""
        if isinstance(message, apdu.GeneralGlobalCiphering | apdu.Ciphered):
            title = message.system_title if isinstance(message, apdu.GeneralGlobalCiphering) else self._system_title
            plain, verified = self._decipher(message.protected, title)
            has_tag = bool(message.protected[0] & Control.AUTHENTICATED)
            if verified or has_tag:
                quality = Quality.VALID if verified else Quality.UNVERIFIED
            message = _deciphered(plain, verified=verified)
        elif self._plain_refused and isinstance(message, _PLAIN):
            raise RemoteProtocolError("dlms_unprotected", "a plain message from a meter whose keys are known")
        template = Reading(self._device or title.hex(), None, None, received_at=received_at, quality=quality)
        if isinstance(message, apdu.DataNotification):
            when = message.date_time.to_datetime() if message.date_time else None
            return readings_from_list(message.body, when, template, self._layouts)
        if isinstance(message, apdu.EventNotification):
            when = message.date_time.to_datetime() if message.date_time else None
            return [replace(attribute_reading(message.body, message.attribute, template), measured_at=when)]
        raise RemoteProtocolError("dlms_unexpected", f"{type(message).__name__} is no push")

    def _collect(self, block: apdu.GeneralBlock) -> bytes | None:
        if block.block_number == 1:
            self._blocks.clear()
            self._next_block = 1
        if block.block_number != self._next_block or len(self._blocks) + len(block.content) > MESSAGE_SIZE_MAX:
            self.reset()
            raise RemoteProtocolError("dlms_block_number", "a block is missing, or the message is too long")
        self._next_block += 1
        self._blocks += block.content
        if not block.control & 0x80:
            return None
        whole = bytes(self._blocks)
        self.reset()
        return whole

    def _decipher(self, protected: bytes, title: bytes) -> tuple[bytes, bool]:
        if self._keys is None:
            whose = f" for its system title {title[:_TITLE_SIZE].hex()}" if title else ""
            raise RemoteProtocolError("dlms_key_missing", f"a ciphered message, and no key{whose}")
        plain, counter, control = unprotect(protected, self._keys, title, unverified=True)
        verified = bool(control & Control.AUTHENTICATED)
        if self._keys.authentication and not verified:
            raise RemoteProtocolError("dlms_unprotected", "not authenticated, though the authentication key is known")
        self._guard.check(title, counter)
        if verified:
            self._guard.accept(title, counter)
        return plain, verified


def _deciphered(plain: bytes, *, verified: bool) -> apdu.Apdu:
    try:
        return apdu.decode_apdu(plain)
    except RemoteProtocolError as error:
        if verified:
            raise
        raise RemoteProtocolError(
            "dlms_key_wrong", f"deciphered it is no message ({error.reason}): another key?"
        ) from None
