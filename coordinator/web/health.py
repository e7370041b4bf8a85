"""What machines ask of a coordinator, the active one and one that stands by: /metrics, /healthz and /readyz."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client.exposition import choose_encoder

from coordinator.metrics import CoordinatorMetrics


def install_health(
    app: FastAPI,
    metrics: CoordinatorMetrics,
    not_ready: Callable[[], Awaitable[str | None]],
    described: Callable[[], str | None],
) -> None:
    """`not_ready` says why requests must not be sent here, `described` what the process is where they may."""

    @app.get("/metrics", include_in_schema=False)
    async def _metrics(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": media_type})

    @app.get("/healthz", include_in_schema=False)
    async def _healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def _readyz() -> PlainTextResponse:
        reason = await not_ready()
        if reason is not None:
            return PlainTextResponse(f"{reason}\n", 503)
        role = described()
        return PlainTextResponse("ok\n" if role is None else f"ok\n{role}\n")
