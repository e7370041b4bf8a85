"""/metrics, /healthz and /readyz of a node, for Prometheus and Kubernetes: a Starlette application on anycorn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anycorn
import trio
from anycorn.config import Sockets
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from node.readiness import SEPARATE
from protocol.errors import StromkreisError
from protocol.link.web_server import serve_asgi

Health = Callable[[], str | None]
Checks = Callable[[], Mapping[str, str | None]]


class _Config(anycorn.Config):
    """anycorn's settings; an address that cannot be bound is named in the error."""

    def create_sockets(self) -> Sockets:
        try:
            return super().create_sockets()
        except OSError as error:
            raise StromkreisError(f"cannot listen on http://{self.bind[0]}: {error.strerror}") from error


async def serve_monitoring(
    registry: CollectorRegistry,
    address: str,
    unhealthy: Health,
    checks: Checks,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve until cancelled at `http://HOST:PORT`; reports the address bound.

    `unhealthy` says what is wrong, or None, and `checks` what is by the name of a check.  /readyz/NAME is one of them,
    /readyz all but those of `SEPARATE` and those that `?exclude=NAME` names; `?verbose` lists them (as the API server
    of Kubernetes does).
    Raises StromkreisError where the address is taken.
    """
    config = _Config()
    config.bind = [address.removeprefix("http://")]
    config.accesslog = None
    config.loglevel = "WARNING"
    config.graceful_timeout = 0.5
    routes = _application(registry, unhealthy, checks)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await routes(scope, receive, send)
            return
        # Answered here: Starlette reports a cancelled lifespan as a failed shutdown, and every end would be an error.
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})

    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: Any) -> None:  # anycorn types it after anyio, trio's does the same
            await serve_asgi(application, config, task_status)

        bound = await nursery.start(serve)
        task_status.started(bound[0])


def _application(registry: CollectorRegistry, unhealthy: Health, checks: Checks) -> Starlette:
    async def metrics(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": media_type})

    async def healthz(_request: Request) -> Response:
        return _health(unhealthy())

    async def readyz(request: Request) -> Response:
        found = checks()
        excluded = set(request.query_params.getlist("exclude"))
        if unknown := sorted(excluded - set(found)):
            return PlainTextResponse(f"exclude={unknown[0]}: expected one of {', '.join(found)}\n", 400)
        required = {name: problem for name, problem in found.items() if name not in excluded | SEPARATE}
        if not any(required.values()) and "verbose" not in request.query_params:
            return PlainTextResponse("ok\n")
        lines = [f"[-] {name}: {problem}" if problem else f"[+] {name}" for name, problem in required.items()]
        return PlainTextResponse("\n".join([*lines, ""]), 503 if any(required.values()) else 200)

    async def readyz_one(request: Request) -> Response:
        name, found = request.path_params["check"], checks()
        if name not in found:
            return PlainTextResponse(f"no check {name}: expected one of {', '.join(found)}\n", 404)
        return _health(found[name])

    async def elsewhere(_request: Request) -> Response:
        return PlainTextResponse("there is /metrics, /healthz and /readyz\n", 404)

    return Starlette(
        routes=[
            Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz),
            Route("/readyz/{check}", readyz_one), Route("/{path:path}", elsewhere),
        ]
    )  # fmt: skip


def _health(problem: str | None) -> PlainTextResponse:
    return PlainTextResponse("ok\n" if problem is None else f"{problem}\n", 200 if problem is None else 503)
