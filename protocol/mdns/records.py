"""What a gateway says of itself at home: its names, its addresses on one interface, its services (chapter 12.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from protocol.mdns.messages import AAAA, PTR, SRV, TXT, A, Name, Record, lower, name_of, packed, srv_data, txt_data

HOST_TTL_S: Final = 120
SERVICE_TTL_S: Final = 4_500
SHARED_NAME: Final = name_of("smgw.local")
HAN_SERVICE: Final = "_https._tcp"
CLS_SERVICE: Final = "_socks._tcp"
_SRV_SIZE_MIN: Final = 7
_SERVICES: Final = name_of("_services._dns-sd._udp.local")


@dataclass(frozen=True, slots=True)
class Service:
    """A service of DNS-SD: its type such as `_https._tcp`, its TCP port, what its TXT record says."""

    type: str
    port: int
    text: tuple[tuple[str, str], ...] = ()


def records_of(
    identity: str, services: Sequence[Service], addresses: Sequence[IPv4Address | IPv6Address]
) -> list[Record]:  # fmt: skip
    """All records of the gateway `identity` on an interface with these addresses."""
    host = (identity.lower().encode(), b"local")
    made = []
    for each in addresses:
        kind = A if each.version == 4 else AAAA
        made += [
            Record(host, kind, each.packed, HOST_TTL_S, is_unique=True),
            Record(SHARED_NAME, kind, each.packed, HOST_TTL_S),
            Record(name_of(each.reverse_pointer), PTR, packed(host), HOST_TTL_S),  # others may be at this address too
        ]
    for service in services:
        kind_name = name_of(f"{service.type}.local")
        instance = (instance_of(identity).encode(), *kind_name)
        made += [
            Record(_SERVICES, PTR, packed(kind_name), SERVICE_TTL_S),
            Record(kind_name, PTR, packed(instance), SERVICE_TTL_S),
            Record(instance, SRV, srv_data(service.port, host), HOST_TTL_S, is_unique=True),
            Record(instance, TXT, txt_data(dict(service.text)), SERVICE_TTL_S, is_unique=True),
        ]
    return made


def additionals_of(answers: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """What is asked for next (RFC 6763, section 12): of a service its place and text, of a place its addresses."""
    wanted = {lower(_target(each)) for each in answers if each.type in {PTR, SRV}}
    wanted |= {lower(each.name) for each in answers if each.type in {A, AAAA}}
    found = [each for each in records if lower(each.name) in wanted and each.type in {SRV, TXT, A, AAAA}]
    hosts = {lower(_target(each)) for each in found if each.type == SRV}
    found += [each for each in records if lower(each.name) in hosts and each.type in {A, AAAA}]
    known = {each.key for each in answers}
    return list({each.key: each for each in found if each.key not in known}.values())


def address_of(record: Record) -> IPv4Address | IPv6Address | None:
    """The address of an A or AAAA record, None for anything else."""
    if (record.type, len(record.data)) in {(A, 4), (AAAA, 16)}:
        return ip_address(record.data)
    return None


def instance_of(identity: str) -> str:
    """What the services of a gateway are called."""
    return f"SMGW {identity.upper()}"


def place_of(record: Record) -> tuple[int, Name]:
    """Port and host of an SRV record that `read_message` has let through; port 0 and no name where it is too short."""
    if record.type != SRV or len(record.data) < _SRV_SIZE_MIN:
        return 0, ()
    return int.from_bytes(record.data[4:6], "big"), _target(record)


def _target(record: Record) -> Name:
    """The name in a PTR or SRV record of ours."""
    data, labels = record.data[6 if record.type == SRV else 0 :], []
    while data[0]:
        labels.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    return tuple(labels)
