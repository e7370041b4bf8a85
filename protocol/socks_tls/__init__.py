"""SOCKS with TLS inside, by chapter 11 of BSI TR-03109-1 (details): octets in, events and octets out, no I/O."""

from protocol.socks_tls.client import SocksTlsClient
from protocol.socks_tls.events import Authenticated, Closed, Data, Event, Replied, Requested
from protocol.socks_tls.messages import Destination, Reply
from protocol.socks_tls.server import SocksTlsServer

__all__ = [
    "Authenticated",
    "Closed",
    "Data",
    "Destination",
    "Event",
    "Replied",
    "Reply",
    "Requested",
    "SocksTlsClient",
    "SocksTlsServer",
]
