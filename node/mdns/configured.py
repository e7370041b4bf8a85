"""From the configuration to what each gateway announces at home."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from urllib.parse import urlsplit

from node.gateway_config import GatewayConfig
from node.mdns.service import MdnsService
from protocol.mdns.records import CLS_SERVICE, HAN_SERVICE, Service


def mdns_services(gateways: Sequence[GatewayConfig]) -> dict[str, MdnsService]:
    """By gateway; those that announce themselves nowhere are not there."""
    return {
        each.id: MdnsService(each.id, services_of(each), each.mdns.interfaces, Random(f"mdns of {each.id}"))
        for each in gateways
        if each.mdns.interfaces
    }


def services_of(gateway: GatewayConfig) -> list[Service]:
    """The services that listen at a port which is known beforehand."""
    text = (("txtvers", "1"), ("id", gateway.id.lower()))
    found = []
    if gateway.han.listen is not None and (port := urlsplit(gateway.han.listen).port):
        found.append(Service(HAN_SERVICE, port, (*text, ("path", "/"))))
    if gateway.cls.listen is not None and (port := int(gateway.cls.listen.rpartition(":")[2])):
        found.append(Service(CLS_SERVICE, port, text))
    return found
