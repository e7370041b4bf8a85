"""/metrics, /healthz and /readyz of a node: the smallest ASGI application that serves Prometheus and Kubernetes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anycorn
import trio
from anycorn.config import Sockets
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from protocol.errors import StromkreisError

Health = Callable[[], str | None]


class _Config(anycorn.Config):
    """anycorn's settings; an address that cannot be bound is told by its name."""

    def create_sockets(self) -> Sockets:
        try:
            return super().create_sockets()
        except OSError as error:
            raise StromkreisError(f"cannot listen on http://{self.bind[0]}: {error.strerror}") from error


async def serve_monitoring(
    registry: CollectorRegistry,
    address: str,
    unhealthy: Health,
    not_ready: Health,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve until cancelled at `http://HOST:PORT`; reports the address bound.  The two say what is wrong, or None.

    Raises StromkreisError where the address is taken.
    """
    config = _Config()
    config.bind = [address.removeprefix("http://")]
    config.accesslog = None
    config.loglevel = "WARNING"
    config.graceful_timeout = 0.5

    async def application(
        scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        kind = b"text/plain; charset=utf-8"
        match scope["path"]:
            case "/metrics":
                status, body, kind = 200, generate_latest(registry), CONTENT_TYPE_LATEST.encode()
            case "/healthz":
                status, body = _health(unhealthy())
            case "/readyz":
                status, body = _health(not_ready())
            case _:
                status, body = 404, b"there is /metrics, /healthz and /readyz\n"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body})

    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: Any) -> None:  # anycorn types it after anyio, trio's does the same
            await anycorn.serve(application, config, mode="asgi", task_status=task_status)

        bound = await nursery.start(serve)
        task_status.started(bound[0])


def _health(problem: str | None) -> tuple[int, bytes]:
    return (200, b"ok\n") if problem is None else (503, f"{problem}\n".encode())
