"""Real and published telegrams: every APDU vector and every Norwegian push frame of the corpus."""

import json
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from node.lmn.dlms import acse, apdu
from node.lmn.dlms.decode import decode_stream
from node.lmn.hdlc.frame import Frame, FrameReader
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Quality, Reading

FOLDER = Path(__file__).parents[2] / "../shared/corpora/dlms"
pytestmark = pytest.mark.beside_repository


def rows(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


CLASSES: dict[str, Any] = {
    "ApplicationAssociationRequest": acse.AssociationRequest,
    "ApplicationAssociationResponse": acse.AssociationResponse,
    "ReleaseRequest": acse.Release,
    "ReleaseResponse": acse.Release,
    "InitiateRequest": apdu.InitiateRequest,
    "GlobalCipherInitiateRequest": apdu.Ciphered,
    "GeneralGlobalCipher": apdu.GeneralGlobalCiphering,
    "DataNotification": apdu.DataNotification,
    "ConfirmedServiceError": apdu.ConfirmedServiceError,
    "ExceptionResponse": apdu.ExceptionResponse,
    "GetRequestNormal": apdu.GetRequest,
    "GetRequestNext": apdu.GetRequestNext,
    "GetRequestWithList": apdu.GetRequestList,
    "GetResponseNormal": apdu.GetResponse,
    "GetResponseNormalWithError": apdu.GetResponse,
    "GetResponseWithBlock": apdu.GetResponseBlock,
    "GetResponseLastBlock": apdu.GetResponseBlock,
    "GetResponseLastBlockWithError": apdu.GetResponseBlock,
    "GetResponseWithList": apdu.GetResponseList,
    "SetRequestNormal": apdu.SetRequest,
    "SetResponseNormal": apdu.SetResponse,
    "ActionRequestNormal": apdu.ActionRequest,
    "ActionResponseNormal": apdu.ActionResponse,
    "ActionResponseNormalWithData": apdu.ActionResponse,
    "ActionResponseNormalWithError": apdu.ActionResponse,
}
# What dlms-cosem gives a meaning and we do not, with the reason.
REFUSED = {
    "c101c1000100002b0100ff0200": "a set without data: A-XDR has no such thing, dlms-cosem takes the rest as it comes",
    "c003c100000001": "a list of no attributes with three bytes behind it; dlms-cosem does not look",
    "c402c1000600001391": "a get request's tail under another tag; dlms-cosem answers with nothing",
}


def decode(data: bytes) -> Any:
    if data[0] in (acse.AARQ, acse.AARE, acse.RLRQ, acse.RLRE):
        kind: Any = {acse.AARQ: acse.AssociationRequest, acse.AARE: acse.AssociationResponse}.get(data[0], acse.Release)
        return kind.from_bytes(data)
    return apdu.decode_apdu(data)


def facts(text: str) -> dict[str, Any]:
    """What can be compared in dlms-cosem's text without knowing its classes."""
    found: dict[str, Any] = {}
    for name in ("invoke_id", "block_number", "long_invoke_id", "max_pdu_size", "server_max_receive_pdu_size"):
        match = re.search(rf"\b{name}=(\d+)", text)
        if match:
            found[name] = int(match[1])
    match = re.search(r"Obis\(a=(\d+), b=(\d+), c=(\d+), d=(\d+), e=(\d+), f=(\d+)\)", text)
    if match:
        found["obis"] = tuple(map(int, match.groups()))
    for name in ("error", "result", "status", "result_source_diagnostics", "authentication"):
        match = re.search(rf"\b{name}=<[A-Za-z.]+[A-Z0-9_]*: (\d+)>", text)
        if match:
            found[name] = int(match[1])
    return found


def ours(message: Any) -> dict[str, Any]:
    found = {}
    if hasattr(message, "invoke"):
        found["invoke_id"] = message.invoke & 0x0F
        found["long_invoke_id"] = message.invoke & 0xFFFFFF
    if hasattr(message, "block_number"):
        found["block_number"] = message.block_number
    for name in ("attribute", "method"):
        if hasattr(message, name):
            found["obis"] = tuple(getattr(message, name).obis)
    if isinstance(message, acse.AssociationResponse):
        found |= {"result": message.result, "result_source_diagnostics": message.diagnostic}
        found["authentication"] = message.mechanism
    if isinstance(message, acse.AssociationRequest):
        found["authentication"] = message.mechanism
    if isinstance(message, apdu.GetResponse | apdu.GetResponseBlock):
        found["error"] = message.result
    if isinstance(message, apdu.SetResponse):
        found["result"] = message.result
    if isinstance(message, apdu.ActionResponse):
        found |= {"status": message.result, "error": message.returned}
    if isinstance(message, apdu.InitiateRequest):
        found["max_pdu_size"] = message.pdu_size_max
    return found


def test_every_apdu_that_dlms_cosem_reads_we_read_alike_and_write_back() -> None:
    outcome: Counter[str] = Counter()
    for row in rows("apdu_vectors.jsonl"):
        text, data = row["expected"].get("dlms_cosem_repr"), bytes.fromhex(row["hex"])
        if not text or text == "hdlc":
            outcome["no APDU"] += 1
            continue
        if row["hex"] in REFUSED:
            with pytest.raises(RemoteProtocolError):
                decode(data)
            outcome["refused"] += 1
            continue
        message = decode(data)
        assert isinstance(message, CLASSES[text.split("(")[0]]), row["id"]
        assert message.to_bytes() == data, row["id"]
        mine = ours(message)
        for name, value in facts(text).items():
            if name in mine:
                assert mine[name] == value, (row["id"], name)
        outcome["equal"] += 1
    assert sum(outcome.values()) == 138
    assert outcome == {"equal": EQUAL, "refused": 3, "no APDU": 138 - EQUAL - 3}


EQUAL = 53


def test_what_dlms_cosem_refuses_raises_the_remote_error_here() -> None:
    count = 0
    for row in rows("apdu_vectors.jsonl"):
        if row["expected"].get("dlms_cosem_repr"):
            continue
        count += 1
        try:
            decode(bytes.fromhex(row["hex"]))
        except RemoteProtocolError:
            continue
    assert count > 0


def test_every_hdlc_vector_is_one_frame_that_writes_back_or_none() -> None:
    whole = 0
    for row in rows("apdu_vectors.jsonl"):
        if row["expected"].get("dlms_cosem_repr") != "hdlc":
            continue
        data = bytes.fromhex(row["hex"])
        reader = FrameReader()
        found = reader.feed(data) + reader.end()
        if row["hex"] == "7e66666666":  # what dlms-cosem uses as a frame without an end
            assert not [item for item in found if not isinstance(item, RemoteProtocolError)]
            continue
        (frame,) = found
        assert isinstance(frame, Frame)
        assert frame.to_bytes() == data
        whole += 1
    assert whole == 5


NAMES = {
    "active_power_import": (1, 7), "active_power_export": (2, 7), "reactive_power_import": (3, 7),
    "reactive_power_export": (4, 7), "active_power_import_total": (1, 8), "active_power_export_total": (2, 8),
    "reactive_power_import_total": (3, 8), "reactive_power_export_total": (4, 8),
    "current_l1": (31, 7), "current_l2": (51, 7), "current_l3": (71, 7),
    "voltage_l1": (32, 7), "voltage_l2": (52, 7), "voltage_l3": (72, 7),
    "active_power_import_l1": (21, 7), "active_power_export_l1": (22, 7), "reactive_power_import_l1": (23, 7),
    "reactive_power_export_l1": (24, 7), "active_power_import_l2": (41, 7), "active_power_export_l2": (42, 7),
    "reactive_power_import_l2": (43, 7), "reactive_power_export_l2": (44, 7), "active_power_import_l3": (61, 7),
    "active_power_export_l3": (62, 7), "reactive_power_import_l3": (63, 7), "reactive_power_export_l3": (64, 7),
}  # fmt: skip


ONE_NUMBER = "amshan/test_hdlc.FRAME_WITH_FLAG_SEQUENCE_CHARACTER_IN_INFO"  # Kaifa's list 1: nothing says that it is


@pytest.mark.parametrize("row", rows("frames.jsonl"), ids=lambda row: row["id"])
def test_every_push_frame_gives_what_amshan_sees(row: dict[str, Any]) -> None:
    items = list(decode_stream([bytes.fromhex(row["hex"])]))
    found = [item for item in items if isinstance(item, Reading)]
    assert found
    assert found == items
    sure = Quality.NOT_FOR_BILLING if row["id"] == ONE_NUMBER else Quality.VALID
    assert {item.quality for item in found} == {sure if row["protocol"] == "dlms/hdlc" else Quality.UNVERIFIED}
    numbers = {(item.obis.c, item.obis.d): item for item in found if item.obis and isinstance(item.value, int)}
    expected = row["expected"] or {}
    for name, value in expected.items():
        if name in NAMES:
            assert numbers.pop(NAMES[name]).decimal() == Decimal(str(value)), name
    if expected:
        assert not numbers
        assert {item.measured_at and item.measured_at.isoformat() for item in found} == {expected["meter_datetime"]}
        if "meter_id" in expected:
            assert {item.device for item in found} == {expected["meter_id"]}
            assert expected["meter_type"] in [item.value for item in found]
    else:
        (item,) = numbers.values()
        assert item.decimal() == {"test_hdlc.FRAME_WITH_ESCAPE_CHARACTER_IN_INFO": 1661}.get(
            row["id"].split("/")[1], 5502
        )
