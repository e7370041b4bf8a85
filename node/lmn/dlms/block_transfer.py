"""
General block transfer (IEC 62056-5-3, 9.4.6.13) as conversations: long messages in numbered blocks, lost ones again.

Whoever receives grants a window: so many blocks come in a row, each but the last of them marked as streamed.  Back goes
the number of the last block before any gap, and from there the sender goes on.  Where the last block of a window is
lost nobody says anything; the driver throws the silence in as `dlms_timeout`, and the same answer goes back.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, TypeVar

from node.lmn.dlms import apdu
from protocol.errors import RemoteProtocolError

T = TypeVar("T")
Conversation = Generator[bytes, bytes, T]

ANSWER_SIZE_MAX: Final = 1 << 20
WINDOW: Final = 8  # blocks in a row that a meter may send us; more save turns and cost more at a loss
_LAST_BLOCK, _STREAMING = 0x80, 0x40
_REPEAT_MAX: Final = 3


def check_block(number: int, expected: int, size: int) -> None:
    """Raises RemoteProtocolError for another block than the expected one, or for too much in all blocks."""
    if number != expected:
        raise RemoteProtocolError("dlms_block_number", "a block is missing or comes twice")
    if size > ANSWER_SIZE_MAX:
        raise RemoteProtocolError("dlms_too_large", f"an answer of more than {ANSWER_SIZE_MAX} bytes")


def send_block(number: int, content: bytes, *, last: bool) -> Conversation[bytes]:
    """
    One block of ours until it is acknowledged, or the last until it is answered: again after silence.

    One at a time, whatever window the meter grants: our requests are seldom longer than a PDU.
    """
    block = apdu.GeneralBlock(_LAST_BLOCK * last | WINDOW, number, 0, content)
    for attempt in range(_REPEAT_MAX + 1):
        try:
            answer = yield block.to_bytes()
        except RemoteProtocolError as error:
            if error.reason != "dlms_timeout" or attempt == _REPEAT_MAX:
                raise
            continue
        if last:
            return answer
        said = apdu.decode_apdu(answer)
        if not isinstance(said, apdu.GeneralBlock):
            raise RemoteProtocolError("dlms_unexpected", "the block transfer ends before its last block")
        if said.acknowledged == number:
            return answer
    raise RemoteProtocolError("dlms_block_number", "our block was not acknowledged")


def receive_blocks(answer: bytes, own_blocks: int) -> Conversation[bytes]:
    """
    The message that begins with `answer`, put together from windows of blocks.

    At the end of each window goes back the number of the last block before any gap; from there the meter goes on.
    Silence counts as such an end.  Blocks that come twice are passed over; after `_REPEAT_MAX`
    windows without any progress the transfer has failed.
    """
    whole = bytearray()
    expected, fruitless = 1, 0
    while True:
        progress = ended = False
        if answer:
            block = apdu.decode_apdu(answer)
            if not isinstance(block, apdu.GeneralBlock):
                raise RemoteProtocolError("dlms_unexpected", "the block transfer ends before its last block")
            if block.block_number == expected:
                check_block(block.block_number, expected, len(whole) + len(block.content))
                whole += block.content
                expected += 1
                progress = True
                if block.control & _LAST_BLOCK:
                    return bytes(whole)
            ended = not block.control & _STREAMING
        fruitless = 0 if progress else fruitless + (WINDOW if ended or not answer else 1)
        if fruitless > _REPEAT_MAX * 2 * WINDOW:
            raise RemoteProtocolError("dlms_block_number", "a block is missing, and asking again does not help")
        request = b""
        if ended or not answer:
            own_blocks += 1
            request = apdu.GeneralBlock(_LAST_BLOCK | WINDOW, own_blocks, expected - 1, b"").to_bytes()
        try:
            answer = yield request
        except RemoteProtocolError as error:
            if error.reason != "dlms_timeout":
                raise
            answer = b""
