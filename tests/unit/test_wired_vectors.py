"""
What goes over the wired LMN (LKS1) and over an impulse input (S0), octet by octet and pulse by pulse.

The octets of `tests/data/meters/lks1.json` were made with OpenSSL (CMAC, AES-128-CBC) and a bitwise check sum from the
formats that node.lmn.lks1.sym and node.lmn.hdlc.lmn define, not with the code under test.  `s0.json` has arithmetic
that a reader can follow (IEC 62053-31, clause 4, for the shortest pulse and pause).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from node.lmn.hdlc.frame import FrameReader
from node.lmn.hdlc.lmn import AddressTable, Participant, ParticipantStation
from node.lmn.lks1.sym import Credentials, Message, PairingGateway, PairingMeter, Type, seal, unseal
from node.lmn.profiles import MeterProfile
from node.lmn.registry import DRIVERS
from node.lmn.s0 import S0Push
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Quality, Reading

FOLDER = Path(__file__).parents[1] / "data/meters"
LKS1, S0 = (json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in ("lks1", "s0"))
MAIN_KEY, SENSOR_ID = bytes.fromhex(LKS1["main_key"]), LKS1["sensor_id"].encode()
MESSAGES = {row["id"]: row for row in LKS1["messages"]}
FRAMES = {row["id"]: row for row in LKS1["frames"]}


def octets(row: dict[str, Any]) -> bytes:
    return bytes.fromhex(row["hex"])


@pytest.mark.parametrize("row", MESSAGES.values(), ids=MESSAGES)
def test_a_pairing_message_is_sealed_and_opened_as_the_vector_says(row: dict[str, Any]) -> None:
    message = Message(Type(row["type"]), row["counter"], bytes.fromhex(row["body"]))
    assert seal(message, MAIN_KEY, SENSOR_ID, from_gateway=row["from_gateway"]) == octets(row)
    assert unseal(octets(row), MAIN_KEY, SENSOR_ID, from_gateway=row["from_gateway"]) == message


@pytest.mark.parametrize("row", MESSAGES.values(), ids=MESSAGES)
def test_a_pairing_message_with_a_turned_bit_is_refused(row: dict[str, Any]) -> None:
    for at in range(len(octets(row))):
        turned = bytearray(octets(row))
        turned[at] ^= 1 << at % 8
        with pytest.raises(RemoteProtocolError) as caught:
            unseal(bytes(turned), MAIN_KEY, SENSOR_ID, from_gateway=row["from_gateway"])
        assert caught.value.reason in ("sym_authentication", "sym_format")
    with pytest.raises(RemoteProtocolError, match="sym_authentication"):
        unseal(octets(row), MAIN_KEY, SENSOR_ID, from_gateway=not row["from_gateway"])


def test_a_pairing_and_its_undoing_are_the_messages_of_the_vectors() -> None:
    gateway = PairingGateway(MAIN_KEY, SENSOR_ID, 7)
    meter = PairingMeter(MAIN_KEY, SENSOR_ID, capabilities=bytes.fromhex(MESSAGES["capabilities"]["body"]))
    credentials = Credentials(*map(bytes.fromhex, LKS1["credentials"]))
    steps = [
        (gateway.hello, "hello", "capabilities"),
        (lambda: gateway.credentials(credentials), "credentials", "installed"),
        (gateway.reset, "reset", "reset-done"),
    ]
    for ask, question, answer in steps:
        sent = ask()
        assert sent == octets(MESSAGES[question])
        received = meter.answer(sent)
        assert received == octets(MESSAGES[answer])
        assert gateway.receive(received) == bytes.fromhex(MESSAGES[answer]["body"])


def test_an_invitation_and_its_answer_are_the_frames_of_the_vectors() -> None:
    first, answer, second = FRAMES.values()
    table = AddressTable(first["slot_count"], first["slot_ms"])
    assert table.invitation().to_bytes() == octets(first)
    participant, sensor, address, slot = answer["participant"]
    (frame,) = FrameReader().feed(octets(first))
    assert not isinstance(frame, RemoteProtocolError)
    spoken = ParticipantStation(sensor, participant).receive(frame, lambda _: slot)
    assert spoken is not None
    assert (spoken[0], spoken[1].to_bytes()) == (slot * 2 * first["slot_ms"] / 1000, octets(answer))
    (heard,) = FrameReader().feed(octets(answer))
    assert not isinstance(heard, RemoteProtocolError)
    new = table.answer(heard)
    assert new == replace(Participant(participant, sensor, address, slot), address=second["participants"][0][2])
    assert table.invitation().to_bytes() == octets(second)


@pytest.mark.parametrize("row", FRAMES.values(), ids=FRAMES)
def test_a_frame_of_the_wired_lmn_octet_by_octet_is_the_same_as_whole(row: dict[str, Any]) -> None:
    reader = FrameReader()
    pieces = [item for octet in octets(row) for item in reader.feed(bytes([octet]))]
    assert pieces == FrameReader().feed(octets(row))
    assert [item.to_bytes() for item in pieces if not isinstance(item, RemoteProtocolError)] == [octets(row)]


@pytest.mark.parametrize("row", S0["inputs"], ids=lambda row: row["id"])
async def test_pulses_of_an_input_become_the_values_of_the_vector(row: dict[str, Any]) -> None:
    constant, arrivals = row["constant_imp_per_kwh"], row["arrivals"]
    link = "serial:///dev/ttyS0?baud=9600&frame=8N1"
    profile = MeterProfile(device="1ESZ0000000001", protocol="s0", link=link, constant_imp_per_kwh=constant)
    push = S0Push([profile], None)  # type: ignore[arg-type]  # an input keeps nothing
    ours, meter = memory_stream_pair()
    readings: list[Reading] = []
    now_s = 0.0

    async def count() -> None:
        async for batch in push.listen(ours, lambda: now_s):
            readings.extend(each for each in batch if isinstance(each, Reading))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for now_s, pulses in arrivals:  # noqa: B007 - the clock reads it
            await meter.send_all(bytes(pulses))
            await wait_all_tasks_blocked()
        await meter.aclose()
    assert [each.value for each in readings] == row["values"]
    assert {(str(each.obis), each.scaler, each.quality) for each in readings} == {
        ("1-0:1.8.0*255", -3, Quality.NOT_FOR_BILLING)
    }
    pulses_sent = sum(pulses for _, pulses in arrivals)
    assert readings[-1].record == {"pulses": pulses_sent - row["bounces"], "constant_imp_per_kwh": constant}


def test_every_driver_has_vectors_of_its_own() -> None:
    assert set(DRIVERS) <= {file.stem for file in FOLDER.iterdir()}
