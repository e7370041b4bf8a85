"""
Deliveries of one gateway: what use cases have derived goes to the market participants, each once and in order.

A delivery waits in the store until it was accepted.  It is built when it is sent (COSEM XML, compressed, encrypted to
the participant, signed by the gateway), under an id that stays the same, so that a participant who has it already says
so and nothing is there twice.  Directly to the participant, or, pseudonymous, through the administrator: who sees that
a message comes from this gateway and for whom it is, and cannot open it; and passes it on without the signature, so
that the participant sees what is in it and not from whom.

The signed profile decides at that moment too: where the set in force does not name the recipient with the same form of
delivery any more, the delivery is withheld, for good.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from operator import itemgetter
from random import Random
from typing import Final
from urllib.parse import urlsplit

import trio

from node.metrics import NodeMetrics
from node.profiles.checking import administrator_profile, encryption_certificate, wan_profile
from node.profiles.gateway_profiles import GatewayProfiles, Note
from node.security.module import SecurityModule
from node.storage.errors import SealError, StoreError
from node.storage.repositories.use_cases import UseCaseRepository, WaitingDelivery
from node.trust import TrustStore
from node.wan.tls_session import Session, open_session
from protocol import cms
from protocol.cosem.delivery import CONTENT_TYPE, EVENT, Delivery
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.logs.events import Event
from protocol.profiles.communication import WanProfile
from protocol.profiles.processing import Delivery as Form
from protocol.profiles.processing import Recipient
from protocol.profiles.profile_set import ProfileSet

log = logging.getLogger(__name__)
SESSIONS_MAX: Final = 16
"""TLS sessions for deliveries that a node has open at once: the end of a month comes for all its gateways."""
_HIGH_FREQUENCY: Final = 14
_PAUSE_S_MIN: Final = 1.0
_PAUSE_S_MAX: Final = 900.0
_ACCEPTED: Final = frozenset({200, 201, 204})
_REFUSED: Final = frozenset({409, 422})  # by whoever has read it; any other status is tried again


class _Outcome(Enum):
    DELIVERED = "delivered"
    WITHHELD = "withheld"


class _WithheldError(Exception):
    """The delivery must not leave, or was refused by whom it is for: why, a code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryServices:
    """
    What the deliveries of all gateways of a node share.

    `tls_context` makes a client's context that trusts the SM-PKI root alone.
    """

    repository: UseCaseRepository
    trust: TrustStore
    metrics: NodeMetrics
    tls_context: Callable[[], ssl.SSLContext]
    sessions: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(SESSIONS_MAX))


class Deliveries:
    """One gateway's; `run` serves until cancelled, `wake` has it look at once."""

    def __init__(
        self, services: DeliveryServices, module: SecurityModule, profiles: GatewayProfiles, note: Note, rng: Random
    ) -> None:
        self._services = services
        self._module = module
        self._profiles = profiles
        self._note = note
        self._rng = rng
        self._woken = trio.Event()
        self._is_failing = False
        self._ended = 0
        self.is_open = False
        """Whether a session with a participant is open."""

    def wake(self) -> None:
        """Something waits."""
        self._woken.set()

    async def run(self) -> None:
        """Send what waits, again and again: with back-off and jitter while it does not get through."""
        pause_s = _PAUSE_S_MIN
        while True:
            self._woken, ended = trio.Event(), self._ended
            try:
                is_done = await self.send_waiting()
            except StoreError as error:
                log.error("gateway %s does not deliver: %s", self._module.identity, error)
                is_done = False
            if is_done:
                pause_s = _PAUSE_S_MIN
                await self._woken.wait()
            else:
                if self._ended > ended:  # a session that broke after something got through is no reason to wait longer
                    pause_s = _PAUSE_S_MIN
                await trio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(_PAUSE_S_MAX, 2 * pause_s)

    async def send_waiting(self) -> bool:
        """
        Send what waits, in order for each participant; whether nothing is left that must be tried again.

        A participant that cannot be reached keeps its own deliveries back, not those of others.
        Raises StoreError.
        """
        waiting = self._services.repository.waiting(self._module.identity)
        is_done = True
        queues: dict[tuple[bool, str, str], list[WaitingDelivery]] = {}
        fast = self._high_frequency()
        for each in waiting:
            queues.setdefault((each.profile in fast, each.participant, each.delivery), []).append(each)
        # High frequency behind all others, so that many values of no weight never keep a bill's back.
        for queue in sorted(queues, key=itemgetter(0)):
            is_done &= await self._send_to_participant(queues[queue])
        return is_done

    def _high_frequency(self) -> set[str]:
        """The profiles of TAF 14."""
        current = self._profiles.current
        known = () if current is None else current.processing
        return {each.id for each in known if each.use_case.taf == _HIGH_FREQUENCY}

    async def _send_to_participant(self, waiting: list[WaitingDelivery]) -> bool:
        """Whether all of one participant's are done.  Its address is looked up for each: profiles change."""
        while waiting:
            try:
                current, recipient = self._recipient(waiting[0])
                channel = self._channel(current, recipient)
            except _WithheldError as error:
                await self._end(waiting.pop(0), _Outcome.WITHHELD, str(error))
                continue
            try:
                async with self._services.sessions, open_session(channel, self._tls_context()) as session:
                    self.is_open = True
                    while waiting and self._channel_of(waiting[0]) == channel:
                        await self._send(session, channel, waiting[0])
                        waiting.pop(0)
            except StoreError:
                raise
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, StromkreisError) as error:
                self._report(channel, error)
                return False
            finally:
                self.is_open = False
            self._is_failing = False
        return True

    def _report(self, channel: WanProfile, error: Exception) -> None:
        self._services.metrics.delivery("failed")
        if not self._is_failing:
            log.warning(
                "gateway %s cannot deliver to %s, tries again: %s", self._module.identity, channel.id,
                str(error) or type(error).__name__,
            )  # fmt: skip
        self._is_failing = True

    def _recipient(self, waiting: WaitingDelivery) -> tuple[ProfileSet, Recipient]:
        current = self._profiles.current
        for profile in () if current is None else current.processing:
            for each in profile.recipients:
                if (profile.id, each.participant, each.delivery.value) == (
                    waiting.profile, waiting.participant, waiting.delivery,
                ) and current is not None:  # fmt: skip
                    return current, each
        raise _WithheldError("profile_changed")

    def _channel(self, current: ProfileSet, recipient: Recipient) -> WanProfile:
        if recipient.delivery is Form.PSEUDONYMOUS:
            return administrator_profile(current)
        if recipient.delivery is Form.DIRECT:
            return wan_profile(current, recipient.communication)
        raise _WithheldError("aggregated")

    def _channel_of(self, waiting: WaitingDelivery) -> WanProfile | None:
        try:
            return self._channel(*self._recipient(waiting))
        except _WithheldError:
            return None

    async def _send(self, session: Session, channel: WanProfile, waiting: WaitingDelivery) -> None:
        """One delivery to its end.  Raises what leaves it waiting."""
        current, recipient = self._recipient(waiting)
        try:
            result = self._services.repository.result(self._module.identity, waiting.profile, waiting.start_s)
        except SealError as error:
            log.error("gateway %s: a result that is to be delivered is lost: %s", self._module.identity, error)
            result = None
        if result is None:
            await self._end(waiting, _Outcome.WITHHELD, "not_kept")
            return
        if recipient.delivery is Form.PSEUDONYMOUS:  # nothing in it may name the household
            details = tuple(each if each.subject == EVENT else replace(each, subject="") for each in result.details)
            result = replace(result, profile="", metering_point="", details=details)
        certificate = encryption_certificate(
            current, recipient.communication, self._module.intermediates, self._services.trust
        )
        document = Delivery(waiting.id, waiting.sender, result).to_xml()
        message = cms.protect(
            document, certificate, self._module.signature_key, entropy=self._module, compressed=True,
            with_certificate=False,
        )  # fmt: skip
        headers = [("Content-Type", CONTENT_TYPE), ("x-CID", f"uuid:{_uuid(waiting.id)}")]
        answer = await session.post(urlsplit(channel.uri).path or "/", message, headers)
        if answer.status in _ACCEPTED:
            await self._end(waiting, _Outcome.DELIVERED, "")
        elif answer.status in _REFUSED:  # it would be refused again, and keep all others back
            await self._end(waiting, _Outcome.WITHHELD, f"refused_{answer.status}")
        else:
            raise RemoteProtocolError("bad_answer", f"status {answer.status}")

    async def _end(self, waiting: WaitingDelivery, outcome: _Outcome, reason: str) -> None:
        repository = self._services.repository
        await repository.store.write([repository.delivered(self._module.identity, waiting.id)])
        self._ended += 1
        self._services.metrics.delivery(outcome.value)
        common = {
            "profile": waiting.profile, "participant": waiting.participant,
            "start": f"{datetime.fromtimestamp(waiting.start_s, UTC):%Y-%m-%dT%H:%M:%SZ}",
        }  # fmt: skip
        if outcome is _Outcome.DELIVERED:
            self._note(Event.DELIVERED, delivery=waiting.delivery, **common)
        else:
            log.warning("gateway %s withholds a delivery: %s", self._module.identity, reason)
            self._note(Event.DELIVERY_WITHHELD, reason=reason, **common)

    def _tls_context(self) -> ssl.SSLContext:
        context = self._services.tls_context()
        context.check_hostname = False  # the profile names the certificate itself
        self._module.load_tls(context)
        return context


def _uuid(name: str) -> str:
    return "-".join((name[:8], name[8:12], name[12:16], name[16:20], name[20:]))
