"""
From the first CI field to readings, the same on wire and air: extended link layer, fragments, security, records.

One `LayerReceiver` per bus or radio.  It knows the keys, remembers the headers for compact frames, the message counters
against replay (BSI TR-03109-1 details REQ.WMBUS.Unidirektional.60) and unfinished fragments; each of these memories is
bounded.

Two addresses may differ: the radio module's on the link, the meter's in the transport header.  The meter's names the
device and its key; the module's is noted in the reading's record.  A meter that has a key is only believed under it:
otherwise anybody could leave the encryption away and speak in its name.

What is in a maker's own format is read by tables (`node.lmn.mbus.makers`), where the meter has no key; its octets are a
reading as well, and nothing of it is for billing.

`accept_decrypted` is for the `decode` command: recordings are often published with the ciphertext replaced by its
plaintext. Such readings are marked unverified, and a gateway never turns it on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from node.lmn.mbus import security
from node.lmn.mbus.application import Context, readings_of
from node.lmn.mbus.compact import FormatCache, Layout
from node.lmn.mbus.crc import crc16
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.layers import (
    ALARM,
    CI_AFL,
    COMPACT,
    ERROR,
    NO_DATA,
    ExtendedLink,
    Fragment,
    Transport,
    is_extended_link,
    take_extended_link,
    take_fragment,
    take_transport,
)
from node.lmn.mbus.makers.diehl import is_intact_real_data, is_real_data, named_address, open_real_data
from node.lmn.mbus.makers.reader import FormatBook, Named, shipped_book
from node.lmn.mbus.records import IDLE_FILLER, Item, ManufacturerData, Record, is_makers_format, parse_records
from node.lmn.mbus.values import VARIABLE
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Quality, Reading

COUNTER_COUNT_MAX: Final = 10_000
FRAGMENTED_DEVICE_COUNT_MAX: Final = 64
FRAGMENT_COUNT_MAX: Final = 16
MANUFACTURER_MODE_MIN: Final = 16  # security modes 16 to 31 (EN 13757-7): whether anything is encrypted is not said
TAIL_SIZE_MAX: Final = 2  # a length field that counts a check sum which the receiver left in place


class LayerReceiver:
    """What follows a link header in, readings out."""

    def __init__(
        self,
        keys: KeyStore | None = None,
        *,
        accept_decrypted: bool = False,
        check_counters: bool = True,
        counters: Mapping[str, int] | None = None,
        formats: FormatBook | None = None,
    ) -> None:
        self._keys = keys or KeyStore()
        self._accept_decrypted = accept_decrypted
        self._check_counters = check_counters
        self.counters: OrderedDict[str, int] = OrderedDict(counters or {})
        self._makers = formats or shipped_book()
        known = self._makers.compact
        # What anyone could have sent must not teach headers to telegrams that came under a key.
        self._formats = {True: FormatCache(known=known), False: FormatCache(known=known)}
        self._fragments: OrderedDict[DeviceAddress | None, list[Fragment]] = OrderedDict()

    def decode_layers(
        self, sender: DeviceAddress | None, data: bytes, received_at: datetime | None = None
    ) -> list[Reading]:
        """
        The readings behind the first CI field; an empty list for a fragment that is not the last and for answers
        without data.  `sender` is None on a wired bus, where only the meter says who it is.

        Raises RemoteProtocolError: damaged, no key, wrong key, replayed, or a compact frame whose headers were not seen
        yet.
        """
        verified: bool | None = None  # True: under a key; False: claimed to be, but was plaintext; None: open
        if is_extended_link(data[0]) and sender is not None:
            extended, data = take_extended_link(data)
            if extended.session is not None:
                data, verified = self._open_session(sender, extended, data)
            if not data:
                return []
        fragment: Fragment | None = None
        if data[0] == CI_AFL:
            fragment = self._assembled(sender, take_fragment(data))
            if fragment is None:
                return []
            data = fragment.payload
            if not data:
                raise RemoteProtocolError("afl_empty", "no transport layer")
        if 0xA0 <= data[0] <= 0xB7 and sender is not None:
            return self._makers_telegram(sender, data, received_at)
        transport = take_transport(data)
        if transport.content == NO_DATA:  # an acknowledgement: it says nothing that a key could vouch for
            return []
        address = transport.header.address or sender
        if address is None:
            raise RemoteProtocolError("no_address", "a secured telegram that does not say whose it is")
        if transport.mode >= MANUFACTURER_MODE_MIN:
            return self._real_data(address, data, transport, received_at)
        plain, clear, opened = self._open_transport(address, transport, fragment, data)
        verified = opened if opened is not None else verified
        if verified is None and self._keys.must_be_secured(address):
            if not self._accept_decrypted:
                raise RemoteProtocolError("not_secured", f"in the clear, from meter {address}, which has a key")
            verified = False
        return self._readings(sender, address, transport, plain, clear, verified, received_at)

    def _readings(
        self,
        sender: DeviceAddress | None,
        address: DeviceAddress,
        transport: Transport,
        plain: bytes,
        clear: bytes,
        verified: bool | None,
        received_at: datetime | None,
    ) -> list[Reading]:
        content = transport.content
        if content in (ERROR, ALARM):
            raise RemoteProtocolError("application_error" if content == ERROR else "alarm", "reported by the meter")
        formats = self._formats[verified is True]
        items: list[Item]
        outside: list[Item] = []
        if content == COMPACT:
            if clear.strip(bytes([IDLE_FILLER])):
                raise RemoteProtocolError("not_secured", "a compact frame that goes on in the clear")
            items = formats.expand(plain.removeprefix(security.VERIFICATION) if transport.mode else plain)
        else:
            items, outside = _parsed(plain, clear)
            if is_makers_format(items + outside):
                return [_manufacturer_reading(address, transport.ci, plain + clear, received_at)]
            last = (items + outside)[-1:]
            if last and isinstance(last[0], ManufacturerData) and last[0].is_tail:
                verified = False
            else:
                formats.learn(_layout(items + outside))
        extra: dict[str, Any] | None = {"link_device": str(sender)} if sender not in (None, address) else None
        quality = Quality.UNVERIFIED if verified is False else Quality.VALID
        context = Context(
            _text(address), address.medium_of_records, transport.header.status, received_at, quality, extra
        )
        readings = readings_of(items, context)
        if outside:  # read apart, so that no clock or flag in the clear has a say in what came under the key
            readings += readings_of(outside, replace(context, quality=Quality.UNVERIFIED))
        if content != COMPACT:
            readings += self._inside(address, items + outside, context)
        return readings

    def _inside(self, address: DeviceAddress, items: list[Item], context: Context) -> list[Reading]:
        """What a maker put behind DIF 0F, or into a record of its own."""
        found: list[Named] = []
        for item in items:
            if isinstance(item, Record):
                if item.header.data.field == VARIABLE and not item.header.value.understood:
                    found += self._makers.in_record(address, item)
            elif not item.is_tail:
                found += self._makers.in_data(address, item.octets)
        return _readings_named(found, context)

    def _makers_telegram(self, sender: DeviceAddress, layer: bytes, received_at: datetime | None) -> list[Reading]:
        address = named_address(sender, layer)
        raw = _manufacturer_reading(address, layer[0], layer[1:], received_at)
        if self._keys.must_be_secured(address) or self._keys.must_be_secured(sender):
            return [raw]
        context = Context(_text(address), address.medium_of_records, 0, received_at)
        return [*_readings_named(self._makers.behind_ci(sender, layer), context), raw]

    def _real_data(
        self, sender: DeviceAddress, layer: bytes, transport: Transport, received_at: datetime | None
    ) -> list[Reading]:
        """Records under Diehl's cipher; any other telegram of a maker's security mode stays octets."""
        address = named_address(sender, layer)
        raw = _manufacturer_reading(address, transport.ci, transport.data, received_at)
        is_open = is_real_data(sender.manufacturer, layer) and not self._keys.must_be_secured(address)
        if not is_open or self._keys.must_be_secured(sender):
            return [raw]
        plain = transport.data
        is_recording = self._accept_decrypted and is_intact_real_data(layer, plain)
        opened = plain if is_recording else open_real_data(sender, layer)
        if opened is None:
            return [raw]
        try:
            items = list(parse_records(opened))
        except RemoteProtocolError:
            return [raw]
        if is_makers_format(items):  # another key, whose sum fits by chance
            return [raw]
        quality = Quality.UNVERIFIED if is_recording else Quality.NOT_FOR_BILLING
        context = Context(
            _text(address), address.medium_of_records, transport.header.status, received_at, quality,
            {"format": "diehl-real-data"},
        )  # fmt: skip
        return readings_of(items, context)

    def _open_session(self, sender: DeviceAddress, extended: ExtendedLink, data: bytes) -> tuple[bytes, bool | None]:
        if len(data) < 2:
            raise RemoteProtocolError("ell_truncated", "no payload CRC")
        if not extended.encrypted:
            return _checked(data), None
        key = self._keys.key_of(sender)
        if key is not None:
            vector = security.ell_vector(sender, extended.communication, extended.session or b"")
            opened = security.crypt_ctr(key, vector, data)
            if crc16(opened[2:]) == int.from_bytes(opened[:2], "little"):
                return opened[2:], True
            raise RemoteProtocolError("wrong_key", "the payload CRC of the session does not fit")
        if self._accept_decrypted:
            return _checked(data), False
        raise RemoteProtocolError("no_key", f"an encrypted session of meter {sender}, whose key is not here")

    def _open_transport(
        self, address: DeviceAddress, transport: Transport, fragment: Fragment | None, tpdu: bytes
    ) -> tuple[bytes, bytes, bool | None]:
        """The octets that count, those in the clear behind them that no key vouches for, and `verified`."""
        mode, data = transport.mode, transport.data
        if mode == security.MODE_NONE:
            if fragment is not None and fragment.mac is not None:
                self._verify(address, fragment, tpdu, derived=True)
                return data, b"", True
            return data, b"", None
        if mode not in (security.MODE_5, security.MODE_7, security.MODE_10):
            raise RemoteProtocolError("security_mode_unsupported", f"mode {mode}")
        key = self._keys.key_of(address)
        if key is None:
            if self._accept_decrypted and (data[:2] == security.VERIFICATION or not transport.block_count):
                return data, b"", False
            raise RemoteProtocolError("no_key", f"an encrypted telegram of meter {address}, whose key is not here")
        if mode == security.MODE_5:
            if not transport.block_count:
                return data, b"", None
            vector = security.mode5_vector(address, transport.header.access)
            size = transport.block_count * security.BLOCK_SIZE
            return security.decrypt_cbc(key, vector, data, transport.block_count), data[size:], True
        if mode == security.MODE_7:
            if fragment is None or fragment.mac is None:
                raise RemoteProtocolError("mac_missing", "mode 7 without an authenticated fragmentation layer")
            derived = transport.extension >> 4 & 3 == 1
            self._verify(address, fragment, tpdu, derived=derived)
            if derived:
                key = security.derive(
                    key, security.DERIVE_ENCRYPTION_FROM_METER, fragment.counter or b"", address
                )  # fmt: skip
            size = transport.block_count * security.BLOCK_SIZE
            opened = security.decrypt_cbc(key, bytes(16), data, transport.block_count) if size else b""
            return opened + data[size:], b"", True
        return self._open_mode10(address, transport, key), b"", True

    def _open_mode10(self, address: DeviceAddress, transport: Transport, key: bytes) -> bytes:
        counter = transport.counter or b""
        if transport.extension >> 4 & 3 == 1:
            key = security.derive(key, security.DERIVE_ENCRYPTION_FROM_METER, counter, address)
        tag_size = 4 + 4 * (transport.extension >> 8 & 3)
        if tag_size < security.CMAC_SIZE_MIN:
            raise RemoteProtocolError("mac_too_short", f"{tag_size} octets")
        data, declared = transport.data, transport.header.configuration & 0xFF
        if declared == 0xFF:
            encrypted, clear = data, b""
        else:
            if len(data) < declared + tag_size:
                raise RemoteProtocolError("ciphertext_short", "fewer octets than declared")
            clear = data[declared : len(data) - tag_size]
            encrypted = data[:declared] + data[len(data) - tag_size :]
        plain = security.decrypt_ccm(
            key, security.mode10_nonce(address, counter), encrypted, transport.associated + clear, tag_size
        )  # fmt: skip
        self._count(address, counter)
        return plain + clear

    def _verify(self, address: DeviceAddress, fragment: Fragment, tpdu: bytes, *, derived: bool) -> None:
        key = self._keys.key_of(address)
        if key is None:
            if self._accept_decrypted:
                return
            raise RemoteProtocolError("no_key", f"an authenticated telegram of meter {address}, whose key is not here")
        if fragment.counter is None:
            raise RemoteProtocolError("counter_missing", "no message counter to derive keys from")
        if derived:
            key = security.derive(key, security.DERIVE_MAC_FROM_METER, fragment.counter, address)
        security.verify_cmac(key, fragment.authenticated + tpdu, fragment.mac or b"")
        self._count(address, fragment.counter)

    def _count(self, address: DeviceAddress, counter: bytes) -> None:
        """Only authenticated counters come here, so nobody can push a meter's counter up from outside."""
        device, number = str(address), int.from_bytes(counter, "little")
        if self._check_counters and number <= self.counters.get(device, -1):
            raise RemoteProtocolError("counter_not_rising", "a telegram that was received before, or an older one")
        self.counters[device] = number
        self.counters.move_to_end(device)
        if len(self.counters) > COUNTER_COUNT_MAX:
            self.counters.popitem(last=False)

    def _assembled(self, sender: DeviceAddress | None, fragment: Fragment) -> Fragment | None:
        pending = self._fragments.pop(sender, [])
        if fragment.number <= 1:  # a message begins, whole (0 or 1) or in parts (from 1 on)
            pending = []
        elif not pending or fragment.number != pending[-1].number + 1:
            raise RemoteProtocolError("afl_fragment_missing", f"fragment {fragment.number} without those before it")
        pending.append(fragment)
        if fragment.more:
            if len(pending) < FRAGMENT_COUNT_MAX:
                self._fragments[sender] = pending
            while len(self._fragments) > FRAGMENTED_DEVICE_COUNT_MAX:
                self._fragments.popitem(last=False)
            return None
        payload = b"".join(part.payload for part in pending)
        first = pending[0]
        if first.length is not None and first.length != len(payload):
            raise RemoteProtocolError("afl_length", "the fragments do not add up to the message length")
        counter = first.counter or fragment.counter
        authenticated = b"".join(part.authenticated for part in pending)
        return Fragment(0, False, first.message_control, counter, fragment.mac, first.length, authenticated, payload)


def _parsed(plain: bytes, clear: bytes) -> tuple[list[Item], list[Item]]:
    """The records before and behind the end of the encrypted blocks; none may reach over it."""
    if not clear:
        return list(parse_records(plain, tail_size_max=TAIL_SIZE_MAX)), []
    items = list(parse_records(plain))
    if items and isinstance(items[-1], ManufacturerData):  # they go on to the end of the telegram
        return list(parse_records(plain + clear)), []
    return items, list(parse_records(clear, tail_size_max=TAIL_SIZE_MAX))


@lru_cache(maxsize=1024)
def _text(address: DeviceAddress) -> str:
    return str(address)


def _layout(items: list[Item]) -> Layout:
    return tuple(
        item.header.octets if isinstance(item, Record) else bytes([0x1F if item.more_records_follow else 0x0F])
        for item in items
        if isinstance(item, Record | ManufacturerData)
    )


def _checked(data: bytes) -> bytes:
    if crc16(data[2:]) != int.from_bytes(data[:2], "little"):
        raise RemoteProtocolError("payload_crc", "the extended link layer's payload is damaged", offset=0)
    return data[2:]


def _readings_named(found: list[Named], context: Context) -> list[Reading]:
    """What tables name; never for billing, and of a doubtful telegram still doubtful."""
    if not found:
        return []
    quality = context.quality if context.quality is not Quality.VALID else Quality.NOT_FOR_BILLING
    readings = readings_of((each.record for each in found), replace(context, quality=quality))
    return [
        replace(reading, record={**reading.record, **each.extra})
        for reading, each in zip(readings, found, strict=True)
    ]  # fmt: skip


def _manufacturer_reading(address: DeviceAddress, ci: int, data: bytes, received_at: datetime | None) -> Reading:
    """A telegram in the manufacturer's own format or security mode: kept whole, never used as a measured value."""
    record: dict[str, Any] = {
        "function": "manufacturer", "storage": 0, "tariff": 0, "subunit": 0, "quantity": "manufacturer telegram",
        "ci": ci,
    }  # fmt: skip
    return Reading(
        _text(address), None, data, received_at=received_at, quality=Quality.NOT_FOR_BILLING, record=record
    )  # fmt: skip
