"""
The only part of the protocol package that touches sockets: ZeroMQ over trio, CURVE, ZAP.

A `LinkContext` per process, a `Listener` (ROUTER) wherever peers call in, a `Connection` (DEALER) for each call out.
Every link is encrypted and both ends are known by their CURVE keys before the first payload.  Delivery is at most once
and in order within one connection; queues are bounded, a sender waits or gets an error.
"""

from protocol.link.connection import Connection
from protocol.link.context import LinkContext, LinkError
from protocol.link.inbox import Inbox
from protocol.link.keys import Keypair
from protocol.link.limits import LinkLimits
from protocol.link.listener import Listener

__all__ = ["Connection", "Inbox", "Keypair", "LinkContext", "LinkError", "LinkLimits", "Listener"]
