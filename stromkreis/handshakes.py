"""
TLS handshakes that peers may have going at once, before anybody knows who they are.

Where there are too many, the oldest gives way: peers that begin one and say nothing more keep nobody else out.
"""

from __future__ import annotations

from typing import Final

import trio

HANDSHAKES_MAX: Final = 32


class Handshakes:
    """At most `HANDSHAKES_MAX` at once, each within `within_s` seconds."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._going: dict[trio.CancelScope, None] = {}

    async def shake(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        """
        A stream's handshake; one that fails is closed.

        Raises trio.TooSlowError for one that took too long or gave way, trio.BrokenResourceError.
        """
        while len(self._going) >= HANDSHAKES_MAX:
            oldest = next(iter(self._going))
            del self._going[oldest]
            oldest.cancel()
        scope = trio.move_on_after(self._within_s)
        self._going[scope] = None
        try:
            with scope:
                await stream.do_handshake()
                return
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)
            raise
        finally:
            self._going.pop(scope, None)
        await trio.aclose_forcefully(stream)
        raise trio.TooSlowError
