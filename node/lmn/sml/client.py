"""
The SML client of a gateway, without I/O: requests out as bytes, answers in as messages.

An `Exchange` is one request file: Open, one message per question, Close.  A meter answers with one file that names
the request's file id and repeats each question's transaction id, so an answer is told from what the meter says unasked
by these ids alone.  Ids are drawn from a counter: they must differ, not be secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from node.lmn.sml.bodies import (
    AttentionResponse,
    Body,
    CloseRequest,
    CloseResponse,
    GetListRequest,
    Message,
    OpenRequest,
    OpenResponse,
)  # fmt: skip
from node.lmn.sml.messages import encode_file
from node.lmn.sml.transport import wrap


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request file on its way: its frame, and the ids by which its answer is known."""

    frame: bytes
    file_id: bytes
    transaction_ids: tuple[bytes, ...]

    def answer(self, messages: Sequence[Message]) -> list[Message] | None:
        """
        The messages of a received file that answer this request, None where the file is not its answer.

        An Attention for the whole file (say, a refused Open) is part of the answer.
        """
        mine = any(
            message.body.req_file_id == self.file_id
            if isinstance(message.body, OpenResponse)
            else message.transaction_id in self.transaction_ids
            for message in messages
        )
        if not mine:
            return None
        return [message for message in messages if not isinstance(message.body, (CloseResponse,))]


class SmlClient:
    """
    Makes the requests of one gateway to one meter.

    `client_id` names the gateway.  `server_id`, `username` and `password` go into the Open of each file and into the
    requests that need them; None where the link has one meter only [REQ.SML.CLI.RequestMeterData.20].
    """

    def __init__(
        self,
        client_id: bytes,
        *,
        server_id: bytes | None = None,
        username: bytes | None = None,
        password: bytes | None = None,
    ) -> None:
        self.client_id = client_id
        self.server_id = server_id
        self.username = username
        self.password = password
        self._files = count(1)

    def exchange(self, bodies: Sequence[Body]) -> Exchange:
        """A request file with one message per body."""
        file_id = next(self._files).to_bytes(4, "big")
        opening = OpenRequest(None, self.client_id, file_id, self.server_id, self.username, self.password)
        messages = [
            Message(file_id + index.to_bytes(2, "big"), body, group=min(index, 0xFF))
            for index, body in enumerate((opening, *bodies, CloseRequest()))
        ]
        ids = tuple(message.transaction_id for message in messages)
        return Exchange(wrap(encode_file(messages)), file_id, ids)

    def get_list(self, list_name: bytes | None = None) -> Exchange:
        """Ask for a list of registers; None is the meter's standard list."""
        return self.exchange([GetListRequest(self.client_id, self.server_id, self.username, self.password, list_name)])


def attentions(messages: Sequence[Message]) -> list[AttentionResponse]:
    """The refusals and confirmations among the messages of an answer."""
    return [message.body for message in messages if isinstance(message.body, AttentionResponse)]
