"""
Tunnels that market participants order from the administrator (BSI TR-03109-1, scenario HKS4).

A participant is known by its TLS certificate and gets what a proxy profile of the gateway names that certificate for.
The order is signed, the gateway woken up (chapter 2 of the details), and the order handed over when its node asks.  An
order lives for a minute and in memory: after a restart the participant orders again.  Who ordered what is in the audit
log before anything leaves.  Methods block, and any thread may call them.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from coordinator.gwa.profiles import ProfileRollout
from coordinator.storage.audit import AuditRepository
from coordinator.storage.gateways import GatewayStatus
from protocol import pki
from protocol.errors import RemoteProtocolError
from protocol.peer_addresses import is_among
from protocol.profiles.communication import ProxyProfile
from protocol.profiles.profile_set import ProfileSet
from protocol.profiles.tunnel_order import ORDER_VALID_S, TunnelOrder

ORDERS_MAX: Final = 1_000
ORDERS_OF_ONE_MAX: Final = 16
"""Of one participant, that are not over: as many as a system may have tunnels."""
KEPT_OF_ONE_MAX: Final = 64
"""Of one participant, with those that are over: gateways that refuse at once let nobody fill what all share."""
WAKE_AGAIN_S: Final = 5.0
"""A wake-up message is a datagram, which may be lost."""
_KEPT_S: Final = 2 * ORDER_VALID_S
_ADDRESSES_MAX: Final = 100_000
WAITING: Final = "waiting"
EXPIRED: Final = "expired"


@dataclass(slots=True)
class OrderState:
    """
    An order and what has become of it: `waiting`, `expired`, or the gateway's word.

    `server_name` is what the gateway shows in the handshake with the participant, None for nothing.
    """

    order: TunnelOrder
    participant: str
    message: bytes
    server_name: str | None = None
    outcome: str = WAITING
    woken_s: float = float("-inf")


class TunnelOrders:
    """All that are not over; `lists` are the revocation lists that count now, `proxies` are before the web server."""

    def __init__(
        self, rollout: ProfileRollout, audit: AuditRepository, root: x509.Certificate, sub_ca: x509.Certificate,
        lists: Callable[[datetime], pki.RevocationLists], clock: Callable[[], datetime],
        proxies: Sequence[IPv4Network | IPv6Network] = (),
    ) -> None:  # fmt: skip
        self._rollout = rollout
        self._audit = audit
        self._root = root
        self._sub_ca = sub_ca
        self._lists = lists
        self._clock = clock
        self._proxies_before = proxies
        self._orders: dict[str, OrderState] = {}
        self._addresses: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()

    def participant(self, pem: str) -> str:
        """
        The SHA-256 of a market participant's TLS certificate (hexadecimal).

        Raises RemoteProtocolError: what `pki.verify_chain` raises.
        """
        certificate, now = x509.load_pem_x509_certificate(pem.encode()), self._clock()
        pki.verify_chain(
            certificate, [self._sub_ca], self._root, now, role=pki.Role.PARTICIPANT_TLS, revocations=self._lists(now)
        )
        return certificate.fingerprint(hashes.SHA256()).hex()

    def place(self, participant: str, gateway: str, proxy: str, duration_s: int | None, address: str) -> OrderState:
        """
        Order a tunnel by a proxy profile, and wake the gateway up.

        Raises RemoteProtocolError: `gateway_unknown`, `gateway_revoked`, `no_proxy_profile`, `ambiguous_profile`,
        `too_many_orders`.
        """
        profile, now = self._profile(participant, gateway, proxy), self._clock()
        order = TunnelOrder(
            id=secrets.token_hex(16), gateway=gateway, proxy=proxy,
            duration_s=min(duration_s or profile.duration_max_s, profile.duration_max_s),
            issued_ms=_ms(now),
        )  # fmt: skip
        made = OrderState(order, participant, self._rollout.sign_order(order), profile.shown_name)
        with self._lock:
            self._forget(now)
            theirs = [each for each in self._orders.values() if each.participant == participant]
            waiting = sum(each.outcome == WAITING for each in theirs)
            if waiting >= ORDERS_OF_ONE_MAX or len(theirs) >= KEPT_OF_ONE_MAX or len(self._orders) >= ORDERS_MAX:
                raise RemoteProtocolError(
                    "too_many_orders",
                    f"{waiting} orders are waiting, {len(theirs)} were placed within {_KEPT_S:g} s; try again later",
                )
            self._orders[order.id] = made
        try:
            self._audit.append(
                time_ms=order.issued_ms, account=profile.participant, role="participant", action="order_tunnel",
                subject=f"{gateway} {proxy} {order.id}", address=address[:64],
            )  # fmt: skip
        except BaseException:
            with self._lock:  # what is in no log is handed to nobody
                del self._orders[order.id]
            raise
        self._wake(made)
        return made

    def state(self, participant: str, order_id: str) -> OrderState:
        """An order of this participant, whose gateway is woken up again now and then while it waits."""
        now = self._clock()
        with self._lock:
            found = self._orders.get(order_id)
            if found is None or found.participant != participant:
                raise RemoteProtocolError("order_unknown", "no order of this id, or it has been over for long")
            self._expire(found, now)
        self._wake(found)
        return found

    def waiting(self, gateways: Iterable[str]) -> list[tuple[str, bytes]]:
        """Orders for these gateways, each as the message that its gateway believes."""
        wanted, now = set(gateways), self._clock()
        with self._lock:
            self._forget(now)
            waiting = [each for each in self._orders.values() if each.outcome == WAITING]
            return [(each.order.gateway, each.message) for each in waiting if each.order.gateway in wanted]

    def answer(self, gateway: str, order_id: str, outcome: str) -> None:
        """Take a gateway's word on an order; the first counts.  Raises RemoteProtocolError `order_unknown`."""
        with self._lock:
            found = self._orders.get(order_id)
            if found is None or found.order.gateway != gateway:
                raise RemoteProtocolError("order_unknown", "no order of this id for this gateway")
            if found.outcome == WAITING:
                found.outcome = outcome

    def heard_from(self, gateways: Iterable[str], address: tuple[str, int]) -> None:
        """
        Remember where the node of these gateways listens for wake-up messages; until a restart.

        The address of a reverse proxy that did not say who called is nobody's: a gateway would choose a port of that
        machine.
        """
        if is_among(address[0], self._proxies_before):
            return
        with self._lock:
            for each in gateways:
                self._addresses.pop(each, None)
                self._addresses[each] = address
            while len(self._addresses) > _ADDRESSES_MAX:
                del self._addresses[next(iter(self._addresses))]

    def _profile(self, participant: str, gateway: str, proxy: str) -> ProxyProfile:
        record, now = self._rollout.gateways.some([gateway]).get(gateway), self._clock()
        if record is None:
            raise RemoteProtocolError("gateway_unknown", "no gateway of this id is enrolled")
        if record.status is not GatewayStatus.ACTIVE:
            raise RemoteProtocolError("gateway_revoked", "this gateway was revoked")
        theirs = {
            each.id: each for each in self._proxies(gateway)
            if each.participant_certificate == participant and each.is_valid_at(now)
        }  # fmt: skip
        found = theirs.get(proxy)
        if found is not None and "participant" in found.initiators:
            _require_distinct(found, theirs.values())
            return found
        raise RemoteProtocolError(
            "no_proxy_profile", "no proxy profile of this id by which the owner of this certificate may begin"
        )

    def _proxies(self, gateway: str) -> tuple[ProxyProfile, ...]:
        if self._rollout.profile_sets.newest(gateway) is None:
            return ()
        return ProfileSet.from_bytes(self._rollout.export(gateway)).proxy

    def _wake(self, state: OrderState) -> None:
        now = self._clock()
        gateway, now_s = state.order.gateway, now.timestamp()
        with self._lock:
            address = self._addresses.get(gateway)
            if address is None or state.outcome != WAITING or now_s - state.woken_s < WAKE_AGAIN_S:
                return
            state.woken_s = now_s
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.sendto(self._rollout.wake_up(gateway, now), address)
        except OSError:
            return  # the node asks by itself, later

    def _forget(self, now: datetime) -> None:
        for order_id, each in list(self._orders.items()):
            self._expire(each, now)
            if _ms(now) - each.order.issued_ms > _KEPT_S * 1000:
                del self._orders[order_id]

    @staticmethod
    def _expire(state: OrderState, now: datetime) -> None:
        if state.outcome == WAITING and not state.order.is_good_at(_ms(now)):
            state.outcome = EXPIRED


def _require_distinct(wanted: ProxyProfile, others: Iterable[ProxyProfile]) -> None:
    """The participant could not tell a connection by one profile from that by another."""
    for each in others:
        is_same = (each.endpoint, each.shown_name) == (wanted.endpoint, wanted.shown_name)
        if each.id != wanted.id and is_same:
            raise RemoteProtocolError(
                "ambiguous_profile", f"proxy profile {each.id} leads to {each.address} too; give one a wan_server_name"
            )


def _ms(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1000)
