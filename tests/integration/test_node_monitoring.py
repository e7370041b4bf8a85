"""A node's /metrics, /healthz and /readyz over a real socket."""

import httpx
import trio
from prometheus_client import CollectorRegistry

from node.metrics import NodeMetrics
from node.monitoring import serve_monitoring


async def test_metrics_health_and_readiness() -> None:
    registry = CollectorRegistry()
    metrics = NodeMetrics(registry)
    trouble: list[str | None] = [None]
    checks: dict[str, str | None] = {"linked": None, "seated": "1 of 2 waits", "placed": "1 of 2 is in no ring"}
    async with trio.open_nursery() as nursery:
        address = await nursery.start(
            serve_monitoring, registry, "http://127.0.0.1:0", lambda: trouble[0], lambda: checks
        )
        async with httpx.AsyncClient(base_url=address) as client:
            assert (await client.get("/healthz")).text == "ok\n"
            for path, expected in (
                ("/readyz", (503, "[+] linked\n[-] seated: 1 of 2 waits\n")),
                ("/readyz?exclude=seated", (200, "ok\n")),
                ("/readyz?exclude=seated&verbose", (200, "[+] linked\n")),
                ("/readyz?exclude=seats", (400, "exclude=seats: expected one of linked, seated, placed\n")),
                ("/readyz/linked", (200, "ok\n")),
                ("/readyz/seated", (503, "1 of 2 waits\n")),
                ("/readyz/placed", (503, "1 of 2 is in no ring\n")),
                ("/readyz/seats", (404, "no check seats: expected one of linked, seated, placed\n")),
            ):
                answer = await client.get(path)
                assert (answer.status_code, answer.text) == expected, path
            checks["seated"] = None
            assert (await client.get("/readyz")).text == "ok\n"
            trouble[0] = "the disk is full"
            assert (await client.get("/healthz")).status_code == 503
            assert (await client.get("/")).status_code == 404
            metrics.store_error()
            metrics.protocol_error("bad_share")
            metrics.settled(included=True)
            metrics.settled(included=False)
            metrics.phase("collect", 0.003)
            metrics.phase("retry", 0)
            answer = await client.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain")
        nursery.cancel_scope.cancel()
    lines = answer.text.splitlines()
    for line in (
        "stromkreis_node_store_errors_total 1.0",
        'stromkreis_node_protocol_errors_total{reason="bad_share"} 1.0',
        'stromkreis_node_contributions_total{outcome="opened"} 1.0',
        'stromkreis_node_contributions_total{outcome="carried"} 1.0',
        'stromkreis_node_round_phase_duration_seconds_bucket{le="0.005",phase="collect"} 1.0',
        'stromkreis_node_ring_events_total{event="retry"} 1.0',
    ):
        assert line in lines
