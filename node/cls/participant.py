"""The gateway's TLS sessions with both ends of a proxy profile, or the reply that says why there is none."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

import trio

from protocol.errors import RemoteProtocolError
from protocol.link.pinned_tls import open_pinned
from protocol.profiles.communication import ProxyProfile
from protocol.socks_tls import Reply

CONNECT_S: Final = 20.0
CLOSE_S: Final = 5.0
SYSTEM_S: Final = 10.0


class UnreachableError(Exception):
    """The participant was not reached: the reply (table 11.1), and why, a code."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply
        self.reason = reason


async def connect(
    proxy: ProxyProfile, tls_context: Callable[[], ssl.SSLContext], stack: AsyncExitStack
) -> trio.SSLStream[trio.SocketStream]:
    """
    Mutual TLS with the very server of the profile, closed with `stack`.

    Raises UnreachableError: HOST_UNREACHABLE where it does not answer in time or there is no way, REFUSED where it
    refuses, or is another one.
    """
    host, port = proxy.endpoint
    return await _entered(
        open_pinned(
            host, port, tls_context(), proxy.participant_certificate, connect_s=CONNECT_S, close_s=CLOSE_S,
            server_name=proxy.wan_server_name,
        ), stack,
    )  # fmt: skip


async def connect_system(
    proxy: ProxyProfile, fingerprint: str, context: ssl.SSLContext, dial: Callable[[str, int], Any],
    stack: AsyncExitStack,
) -> trio.SSLStream[trio.SocketStream]:  # fmt: skip
    """
    Mutual TLS with the controllable system's server at home, closed with `stack`; `fingerprint` is its certificate's.

    Raises UnreachableError as `connect` does, its reason begun with `cls_`.
    """
    host, port = proxy.cls_endpoint or ("", 0)
    session = open_pinned(
        host, port, context, fingerprint, connect_s=SYSTEM_S, close_s=CLOSE_S, server_name=proxy.server_name,
        connect=dial,
    )  # fmt: skip
    try:
        return await _entered(session, stack)
    except UnreachableError as error:
        raise UnreachableError(error.reply, f"cls_{error.reason}") from None


async def _entered(
    session: AbstractAsyncContextManager[trio.SSLStream[trio.SocketStream]], stack: AsyncExitStack
) -> trio.SSLStream[trio.SocketStream]:
    try:
        with trio.fail_after(CONNECT_S):
            return await stack.enter_async_context(session)
    except trio.TooSlowError:
        raise UnreachableError(Reply.HOST_UNREACHABLE, "no_answer") from None
    except RemoteProtocolError as error:
        raise UnreachableError(Reply.REFUSED, error.reason) from None
    except (ssl.SSLError, trio.BrokenResourceError):
        raise UnreachableError(Reply.REFUSED, "tls_refused") from None
    except OSError as error:
        if any(isinstance(each, ConnectionRefusedError) for each in _causes(error)):
            raise UnreachableError(Reply.REFUSED, "connection_refused") from None
        raise UnreachableError(Reply.HOST_UNREACHABLE, "no_route") from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and, where trio has tried several addresses, that of each."""
    yield error
    if isinstance(error.__cause__, BaseExceptionGroup):
        yield from error.__cause__.exceptions
