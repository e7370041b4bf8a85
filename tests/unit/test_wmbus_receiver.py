"""Wireless telegrams: layers, security modes, compact frames, replays, and what real radio does to them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from loadtest.meters.wmbus import WirelessMeter
from node.lmn.mbus import security
from node.lmn.mbus.compact import FormatCache
from node.lmn.mbus.crc import crc16
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.keys import KeyStore
from node.lmn.wmbus.framing import Datagram, RawReader
from node.lmn.wmbus.link import Format, guess_format, seal, strip
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality

DEVICE = DeviceAddress.from_text("8ISK0112345678", 7)
RADIO = DeviceAddress.from_text("FRAD0287654321", 0x37)
KEY = bytes(range(16))
KEYS = KeyStore({"8ISK0112345678": KEY})
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
VOLUME = Obis(8, 0, 1, 0, 0, 255)
MODES = (0, 5, 7, 10)

# A real telegram under security mode 10 (wmbusmeters, simulations/simulation_kamwater_ccm_tag_ok.txt): number, key.
REAL_MODE_10 = bytes.fromhex(
    "4544372c060382533c168c20307a3010ff2a10018c570e006da7632471f42b0a3ceccd461353573ed02b87118bc5ffe982f7f00a0274543bc5"
    "1938f8b9c8bb8928114d60788a"
)
REAL_MODE_10_KEY = bytes.fromhex("BF902DD6DFADAFE83E4AE6832B5FA14C")


def meter(mode: Any = 5, **how: Any) -> WirelessMeter:
    return WirelessMeter(DEVICE, lambda _: [(VOLUME, 876543, -3, 13)], lambda: CLOCK, key=KEY, mode=mode, **how)


def reason(receiver: Receiver, datagram: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        receiver.decode(datagram)
    return caught.value.reason


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("radio", [None, RADIO])
def test_every_mode_gives_the_reading(mode: int, radio: DeviceAddress | None) -> None:
    keys = KEYS if mode else KeyStore()
    volume, clock = Receiver(keys).decode(meter(mode, radio=radio).datagram(), CLOCK)
    assert (volume.device, volume.obis, volume.value, volume.scaler, volume.unit) == (
        str(DEVICE),
        VOLUME,
        876543,
        -3,
        13,
    )
    assert volume.received_at == CLOCK
    assert volume.quality is Quality.VALID
    assert clock.value == "2026-01-02T03:04:00"
    assert volume.record.get("link_device") == (None if radio is None else str(RADIO))


@pytest.mark.parametrize(("mode", "expected"), [(5, "wrong_key"), (7, "mac_mismatch"), (10, "mac_mismatch")])
def test_a_wrong_key_gives_an_error_and_no_reading(mode: int, expected: str) -> None:
    wrong = Receiver(KeyStore(default=bytes(16)))
    assert reason(wrong, meter(mode).datagram()) == expected


@pytest.mark.parametrize("mode", MODES[1:])
def test_without_a_key_nothing_is_read_not_even_at_the_desk(mode: int) -> None:
    assert reason(Receiver(), meter(mode).datagram()) == "no_key"
    assert reason(Receiver(accept_decrypted=True), meter(mode).datagram()) == "no_key"


def test_nobody_speaks_in_the_clear_for_a_meter_that_has_a_key() -> None:
    assert reason(Receiver(KEYS), meter(0).datagram()) == "not_secured"
    blocks_of_none = bytearray(meter(0).datagram())
    blocks_of_none[14] = 5  # mode 5, no encrypted block
    assert reason(Receiver(KEYS), bytes(blocks_of_none)) == "not_secured"
    (at_the_desk, _) = Receiver(KEYS, accept_decrypted=True).decode(meter(0).datagram())
    assert at_the_desk.quality is Quality.UNVERIFIED


def test_a_gateway_takes_no_plaintext_where_ciphertext_is_declared() -> None:
    datagram = bytearray(meter(5).datagram())
    datagram[15:17] = b"\x2f\x2f"
    assert reason(Receiver(), bytes(datagram)) == "no_key"
    assert reason(Receiver(KEYS), bytes(datagram)) == "wrong_key"


@pytest.mark.parametrize("mode", [7, 10])
def test_one_altered_bit_anywhere_is_seen(mode: int) -> None:
    datagram = meter(mode).datagram()
    fragment_control = {12, 13} if mode == 7 else set()  # which fragment it is: neither the MAC nor a value needs it
    for position in set(range(10, len(datagram))) - fragment_control:
        altered = bytearray(datagram)
        altered[position] ^= 1
        with pytest.raises(RemoteProtocolError):
            Receiver(KEYS).decode(bytes(altered))


def test_a_real_telegram_of_mode_10() -> None:
    readings = Receiver(KeyStore({"53820306": REAL_MODE_10_KEY})).decode(REAL_MODE_10)
    assert readings[0].device == "8KAW3C53820306"
    volumes = [r for r in readings if r.obis == VOLUME]
    assert [r.value for r in volumes] == [0]
    wrong = bytearray(REAL_MODE_10)
    wrong[-1] ^= 1
    assert reason(Receiver(KeyStore(default=REAL_MODE_10_KEY)), bytes(wrong)) == "mac_mismatch"


@pytest.mark.parametrize("tag_size", [4, 8, 12, 16])
def test_tags_of_mode_10(tag_size: int) -> None:
    """With a persistent key (no derivation) and a part in the clear, which the tag covers too."""
    counter, secret, clear = b"\x07\0\0\0", bytes.fromhex("041301000000"), bytes.fromhex("041302000000")
    fields = bytes([1, 0, len(secret), 10, 0, tag_size // 4 - 1])
    sealed = security.encrypt_ccm(
        KEY, security.mode10_nonce(DEVICE, counter), secret, b"\x7a" + fields + clear, tag_size
    )  # fmt: skip
    content = sealed[: len(secret)] + clear + sealed[len(secret) :]
    body = b"\x44" + DEVICE.to_link() + b"\x7a" + fields + counter + content
    datagram = bytes([len(body)]) + body
    if tag_size == 4:
        assert reason(Receiver(KEYS), datagram) == "mac_too_short"
    else:
        assert [r.value for r in Receiver(KEYS).decode(datagram)] == [1, 2]


def test_the_nonce_of_mode_10_octet_by_octet() -> None:
    """Table 10.1 of the specification: manufacturer and number least significant first, the counter most."""
    assert security.mode10_nonce(DEVICE, bytes.fromhex("02010000")).hex() == "6b267856341201070000000102"


def test_cmac_and_key_derivation_against_published_values() -> None:
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")  # RFC 4493 clause 4
    assert security.cmac(key, b"").hex() == "bb1d6929e95937287fa37d129b756746"
    assert (
        security.cmac(key, bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")).hex()
        == "070a16b46b4d4144f79bdd9dd04a287c"
    )
    derived = security.derive(KEY, 0x00, bytes(4), DEVICE)
    assert derived == security.cmac(KEY, bytes(5) + bytes.fromhex("78563412") + b"\x07" * 7)


@pytest.mark.parametrize("mode", [7, 10])
def test_a_replayed_or_older_telegram_is_thrown_away(mode: int) -> None:
    receiver = Receiver(KEYS)
    source = meter(mode)
    old, new = source.datagram(), source.datagram()
    assert receiver.decode(new)
    assert reason(receiver, new) == "counter_not_rising"
    assert reason(receiver, old) == "counter_not_rising"
    assert receiver.decode(source.datagram())
    assert receiver.counters == {str(DEVICE): 3}
    assert reason(Receiver(KEYS, counters=receiver.counters), new) == "counter_not_rising"


def test_a_forged_counter_does_not_lock_the_meter_out() -> None:
    receiver = Receiver(KEYS)
    forged = bytearray(meter(7, counter=1 << 30).datagram())
    forged[-1] ^= 1
    assert reason(receiver, bytes(forged)) == "mac_mismatch"
    assert receiver.decode(meter(7).datagram())


def test_a_short_mac_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="mac_too_short"):
        security.verify_cmac(KEY, b"x", security.cmac(KEY, b"x")[:4])


def test_mode_7_without_a_mac_is_refused() -> None:
    datagram = meter(7).datagram()
    afl = datagram.index(b"\x90\x0f")
    stripped = datagram[:afl] + datagram[afl + 17 :]
    assert reason(Receiver(KEYS), bytes([len(stripped) - 1]) + stripped[1:]) == "mac_missing"


@pytest.mark.parametrize("mode", MODES)
def test_compact_frames_need_their_full_telegram_first(mode: int) -> None:
    source = meter(mode, compact=True, full_every=3)
    full, compact, other, _ = (source.datagram() for _ in range(4))
    assert len(compact) <= len(full)
    keys = KEYS if mode else KeyStore()
    receiver = Receiver(keys)
    assert reason(Receiver(keys), compact) == "compact_format_unknown"
    values = [r.value for r in receiver.decode(full)]
    assert [r.value for r in receiver.decode(compact)] == values
    assert [r.value for r in receiver.decode(other)] == values


def test_open_telegrams_teach_no_headers_to_secured_ones() -> None:
    receiver = Receiver(KeyStore(default=KEY))
    receiver.decode(meter(0).datagram())
    source = meter(5, compact=True, full_every=2)
    source.datagram()
    assert reason(receiver, source.datagram()) == "compact_format_unknown"


def test_a_compact_frame_with_other_values_than_its_check_sum_is_refused() -> None:
    source = meter(0, compact=True, full_every=2)
    receiver = Receiver()
    receiver.decode(source.datagram())
    damaged = bytearray(source.datagram())
    damaged[-9] ^= 1
    assert reason(receiver, bytes(damaged)) == "compact_frame_crc"


def test_the_memory_for_formats_is_bounded() -> None:
    cache = FormatCache(count_max=4)
    for number in range(100):
        cache.learn((bytes([0x04, number & 0x7F]),))
    assert len(cache) == 4


def test_extended_link_layer_with_session_encryption() -> None:
    """A Kamstrup-like telegram: ELL 8D, AES-CTR, payload CRC inside the ciphertext."""
    payload = b"\x78" + bytes.fromhex("041301000000041302000000")
    session = bytes.fromhex("39d16820")
    vector = security.ell_vector(DEVICE, 0x20, session)
    sealed = security.crypt_ctr(KEY, vector, crc16(payload).to_bytes(2, "little") + payload)
    body = b"\x44" + DEVICE.to_link() + b"\x8d\x20\x39" + session + sealed
    datagram = bytes([len(body)]) + body
    assert [r.value for r in Receiver(KEYS).decode(datagram)] == [1, 2]
    assert reason(Receiver(), datagram) == "no_key"
    assert reason(Receiver(KeyStore(default=bytes(16))), datagram) == "wrong_key"


def test_less_ciphertext_than_declared_and_plaintext_after_it() -> None:
    datagram = bytearray(meter(5).datagram())
    datagram[13] = datagram[13] & 0x0F | 0xF0
    assert reason(Receiver(KEYS), bytes(datagram)) == "ciphertext_short"
    source = meter(5).datagram()
    longer = bytes([source[0] + 6]) + source[1:] + bytes.fromhex("041307000000")
    *inside, outside = Receiver(KEYS).decode(longer)
    assert outside.value == 7
    assert {r.quality for r in inside} == {Quality.VALID}


def test_plain_octets_behind_the_blocks_of_mode_5_are_not_read() -> None:
    """Anybody may hang a register on to a recorded telegram: mode 5 has no check sum under the key."""
    source = meter(5).datagram()
    for tail, quality in (("0413ffffff00", Quality.UNVERIFIED), ("2f2f2f", None)):
        forged = bytes([source[0] + len(tail) // 2]) + source[1:] + bytes.fromhex(tail)
        readings = Receiver(KEYS).decode(forged)
        assert (readings[0].value, readings[0].quality) == (876543, Quality.VALID)
        assert [r.quality for r in readings if r.value == 0xFFFFFF] == ([] if quality is None else [quality])
    assert len(Receiver(KEYS).decode(source)) == 2


@pytest.mark.parametrize(("tail", "read"), [("2f2f", True), ("0413ffffff00", False)])
def test_a_compact_frame_does_not_go_on_in_the_clear(tail: str, read: bool) -> None:
    source, receiver = meter(5, compact=True, full_every=2), Receiver(KEYS)
    receiver.decode(source.datagram())
    compact = source.datagram()
    longer = bytes([compact[0] + len(tail) // 2]) + compact[1:] + bytes.fromhex(tail)
    if read:
        assert receiver.decode(longer)[0].value == 876543
    else:
        assert reason(receiver, longer) == "not_secured"


def test_no_record_reaches_from_the_blocks_of_mode_5_into_the_clear() -> None:
    """Its first octets came under the key and its value from anybody."""
    plain = bytes.fromhex("2f2f0413010000002f2f2f2f2f2f2f04")
    vector = security.mode5_vector(DEVICE, 1)
    body = b"\x44" + DEVICE.to_link() + b"\x7a\x01\x00\x10\x05" + security.encrypt_cbc(KEY, vector, plain)
    datagram = body + bytes.fromhex("1309000000")
    assert reason(Receiver(KEYS), bytes([len(datagram)]) + datagram) == "record_truncated"


def fragment(number: int, more: bool, payload: bytes, length: int | None = None) -> bytes:
    control = number | (0x4000 if more else 0) | (0 if length is None else 0x1000)
    header = control.to_bytes(2, "little") + (b"" if length is None else length.to_bytes(2, "little"))
    body = b"\x44" + DEVICE.to_link() + bytes([0x90, len(header)]) + header + payload
    return bytes([len(body)]) + body


def test_a_fragment_without_those_before_it_is_no_telegram() -> None:
    """What it begins with may look like any header and record."""
    for lost, more in ((2, False), (3, False), (2, True)):
        assert reason(Receiver(), fragment(lost, more, bytes.fromhex("780413ffffff00"))) == "afl_fragment_missing"
    receiver = Receiver()
    assert receiver.decode(fragment(1, True, b"\x78\x04")) == []
    assert reason(receiver, fragment(3, False, bytes.fromhex("780413ffffff00"))) == "afl_fragment_missing"
    assert reason(receiver, fragment(2, False, bytes.fromhex("780413ffffff00"))) == "afl_fragment_missing"


@pytest.mark.parametrize("number", [0, 1])
def test_an_unfragmented_message_has_the_length_that_it_says(number: int) -> None:
    payload = bytes.fromhex("780413070000000413")
    assert [r.value for r in Receiver().decode(fragment(number, False, payload[:7], 7))] == [7]
    assert reason(Receiver(), fragment(number, False, payload[:7], 13)) == "afl_length"


def test_fragments_are_put_together() -> None:
    whole = b"\x78" + bytes.fromhex("041301000000")
    receiver = Receiver()
    assert receiver.decode(fragment(1, True, whole[:3])) == []
    assert [r.value for r in receiver.decode(fragment(2, False, whole[3:]))] == [1]
    assert receiver.decode(fragment(1, True, whole[:3])) == []
    with pytest.raises(RemoteProtocolError):
        receiver.decode(fragment(3, False, whole[3:]))


@pytest.mark.parametrize("control", [0x53, 0x5B, 0x40, 0x73])
def test_other_gateways_are_not_meters(control: int) -> None:
    assert reason(Receiver(KEYS), meter(0).datagram(control)) == "wrong_direction"


def test_a_manufacturers_telegram_is_kept_raw() -> None:
    body = b"\x44" + DEVICE.to_link() + b"\xa2\x01\x02\x03"
    (reading,) = Receiver().decode(bytes([len(body)]) + body)
    assert (reading.value, reading.obis, reading.record["ci"]) == (b"\x01\x02\x03", None, 0xA2)
    assert reading.quality is Quality.NOT_FOR_BILLING


def test_a_left_over_check_sum_costs_no_reading_but_is_marked() -> None:
    source = meter(0).datagram()
    longer = bytes([source[0] + 2]) + source[1:] + b"\xde\x47"
    readings = Receiver().decode(longer)
    assert readings[0].value == 876543
    assert readings[0].quality is Quality.UNVERIFIED
    assert (readings[-1].value, readings[-1].record["quantity"]) == (b"\xde\x47", "trailing octets")


@pytest.mark.parametrize("frame_format", [Format.A, Format.B])
def test_both_frame_formats(frame_format: Format) -> None:
    for size in (12, 26, 100, 125, 126, 200):
        datagram = bytes([size]) + bytes((7 * n) & 0xFF for n in range(size))
        sealed = seal(datagram, frame_format)
        assert strip(sealed, frame_format) == datagram
        assert guess_format(sealed) is frame_format
        for position in (1, len(sealed) // 2, len(sealed) - 1):
            damaged = bytearray(sealed)
            damaged[position] ^= 4
            with pytest.raises(RemoteProtocolError, match="block_crc"):
                strip(bytes(damaged), frame_format)


@pytest.mark.parametrize("frame_format", [Format.A, Format.B])
def test_every_length_is_cut_where_the_standard_cuts_it(frame_format: Format) -> None:
    """Blocks by EN 13757-4: A 10, then 16 octets each; B 126, then the rest; L counts the check sums in B only."""
    for size in range(11, 252):
        stripped = bytes([size - 1, 0x44]) + bytes((11 * n) & 0xFF for n in range(size - 2))
        if frame_format is Format.A:
            blocks = [stripped[:10]] + [stripped[at : at + 16] for at in range(10, size, 16)]
        else:
            length = size - 1 + (2 if size <= 126 else 4)
            whole = bytes([length]) + stripped[1:]
            blocks = [block for block in (whole[:126], whole[126:]) if block]
        on_air = b"".join(block + crc16(block).to_bytes(2, "big") for block in blocks)
        assert seal(stripped, frame_format) == on_air
        assert strip(on_air, frame_format) == stripped
        assert guess_format(on_air) is frame_format
        assert [event.octets for event in RawReader().feed(on_air * 2) if isinstance(event, Datagram)] == [stripped] * 2
        for at in range(0, len(on_air), 7):
            broken = on_air[:at] + bytes([on_air[at] ^ 0x10]) + on_air[at + 1 :]
            if at:  # the length itself makes it another datagram
                with pytest.raises(RemoteProtocolError):
                    strip(broken, frame_format)


def test_the_check_sum_is_the_standards() -> None:
    assert crc16(b"123456789") == 0xC2B7


def test_keys_are_never_shown_and_must_be_keys() -> None:
    assert KEY.hex() not in repr(KEYS)
    assert repr(KEY) not in repr(KEYS)
    with pytest.raises(LocalProtocolError):
        KeyStore({"8ISK0112345678": b"short"})
