"""
What the administrator has for the gateways of one node: new profile sets, asked for now and then.

Gateways only call out (BSI TR-03109-1), so a roll-out waits until the node asks.  One question is for many gateways;
each gateway's part of it is signed by its key, each set comes as a message that only its gateway can read, and each
answer is a receipt that only the gateway can sign, so that who carries them does not matter.  What fails is reported
once and tried again.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import httpx
import trio
from cryptography import x509

from node.profiles.gateway_profiles import GatewayProfiles
from node.wan.bounded_http import ask
from node.wan.certificates import MALFORMED, refusal_text
from protocol import pki
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.profiles.profile_set import PROFILE_SET_SIZE_MAX

log = logging.getLogger(__name__)
_AT_ONCE: Final = 128  # gateways in one question: some 25 KB
_MESSAGE_SIZE_MAX: Final = 2 * PROFILE_SET_SIZE_MAX  # of an answer: the set in base64, and some certificates
_OK = 200
_QUESTION: Final = "the question for profiles"


TakeOrder = Callable[[GatewayProfiles, bytes, Sequence[bytes]], None]


class Administration:
    """
    Asks for the gateways that `gateways` names, every `poll_s`.

    `wake` has it ask at once.
    """

    def __init__(
        self, client: httpx.AsyncClient, gateways: Callable[[], Sequence[GatewayProfiles]], poll_s: float,
        take_order: TakeOrder | None = None, take_firmware: TakeOrder | None = None,
    ) -> None:  # fmt: skip
        """`take_order` gets orders for tunnels, `take_firmware` those for firmware; without it none are asked for."""
        self._client = client
        self._take_order = take_order
        self._take_firmware = take_firmware
        self.wake_up_port: int | None = None
        self._gateways = gateways
        self._poll_s = poll_s
        self._woken = trio.Event()
        self._failing: set[str] = set()
        self._refused: set[str] = set()
        self._known: dict[str, GatewayProfiles] = {}
        self._chain: list[bytes] = []

    def wake(self) -> None:
        """Ask now."""
        self._woken.set()

    def administrator_of(self, identity: str) -> x509.Certificate | None:
        """
        The signature certificate of a gateway's administrator, None for a gateway that is not here.

        Raises RemoteProtocolError: `administrator_unknown` before the first answer, what `TrustStore.administrator`
        raises.
        """
        profiles = self._known.get(identity)
        if profiles is None:
            return None
        if not self._chain:
            raise RemoteProtocolError("administrator_unknown", "the administrator has not answered since the start")
        return profiles.administrator(self._chain[0], self._chain[1:])

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            self._woken = trio.Event()
            await self.look()
            with trio.move_on_after(self._poll_s):
                await self._woken.wait()

    async def look(self) -> None:
        """Ask once, and take what there is."""
        gateways = self._known = {each.identity: each for each in self._gateways()}
        names = sorted(gateways)
        for start in range(0, len(names), _AT_ONCE):
            part = [gateways[each] for each in names[start : start + _AT_ONCE]]
            announced: list[tuple[str, int]] = []
            orders: list[tuple[str, bytes, TakeOrder]] = []
            await self._attempt(_QUESTION, self._announced, part, announced, orders)
            waiting = {name for name, _ in announced}
            for each in part if _QUESTION not in self._failing else ():
                if each.identity not in waiting:
                    each.asked.set()
            for name, version in announced:
                if name in gateways:  # one that fails costs the others nothing
                    await self._attempt(f"the profiles of {name}", self._take, gateways[name], version)
                    gateways[name].asked.set()
            for name, message, take in orders:  # they may be for profiles that have just come
                if name in gateways:
                    take(gateways[name], message, self._chain)

    async def _attempt(self, what: str, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except (httpx.HTTPError, OSError, StromkreisError, *MALFORMED) as error:
            if what not in self._failing:
                log.warning("%s failed, tried again later: %s", what, str(error) or type(error).__name__)
                self._failing.add(what)
            return
        if what in self._failing:
            self._failing.discard(what)
            log.info("%s is answered again", what)

    async def _announced(
        self, gateways: Sequence[GatewayProfiles], found: list[tuple[str, int]],
        orders: list[tuple[str, bytes, TakeOrder]],
    ) -> None:  # fmt: skip
        items = []
        for each in gateways:
            items.append({"gateway": each.identity, "version": each.version, "proof": each.query_proof()})
            await trio.lowlevel.checkpoint()  # a token may take milliseconds for a signature
        body: dict[str, Any] = {"items": items}
        if self._take_order is not None and self.wake_up_port is not None:
            body["wake_up_port"] = self.wake_up_port
        if self._take_firmware is not None:
            body["takes_firmware"] = True
        answer = await self._ask("POST", "/api/v1/profile-sets/newer", json=body)
        self._chain = _chain(answer)
        found += [(str(each["gateway"]), int(each["version"])) for each in answer["items"]]
        refused = {str(each["gateway"]): f"{each['reason']}: {each['detail']}"[:300] for each in answer["refused"]}
        for name in refused.keys() - self._refused:
            log.warning("gateway %s asks for profiles and is not believed: %s", name, refused[name])
        for kind, take in (("orders", self._take_order), ("firmware", self._take_firmware)):
            if take is not None:
                orders += [
                    (str(each["gateway"]), base64.b64decode(each["message"], validate=True), take)
                    for each in answer.get(kind, ())
                ]  # fmt: skip
        asked = {each.identity for each in gateways}
        self._refused = (self._refused - asked) | (refused.keys() & asked)

    async def _take(self, profiles: GatewayProfiles, version: int) -> None:
        path = f"/api/v1/profile-sets/{profiles.identity}"
        proof = {"X-Gateway-Proof": profiles.query_proof()}
        answer = await self._ask("GET", f"{path}/{version}/message", headers=proof, size_max=_MESSAGE_SIZE_MAX)
        message = base64.b64decode(answer["message"], validate=True)
        chain = _chain(answer)
        receipt = await profiles.take(version, message, chain[0], chain[1:])
        body = {"receipt": base64.b64encode(receipt).decode()}
        await self._ask("POST", f"{path}/receipt", json=body)

    async def _ask(self, method: str, path: str, **how: Any) -> Any:
        response = await ask(self._client, method, path, **how)
        if response.status_code != _OK:
            raise RemoteProtocolError("refused", f"status {response.status_code}: {refusal_text(response)}")
        return response.json()


def _chain(answer: Any) -> list[bytes]:
    found = x509.load_pem_x509_certificates(answer["certificate_chain"].encode())
    return [pki.to_der(each) for each in found[: 1 + pki.INTERMEDIATE_COUNT_MAX]]
