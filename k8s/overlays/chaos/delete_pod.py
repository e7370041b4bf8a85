"""
Delete one pod of the namespace, chosen at random, half of the time without grace; the controller makes it again.

Runs in the CronJob of the overlay `chaos`, of the image's Python and its standard library alone.
"""

from __future__ import annotations

import json
import os
import random
import ssl
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_COORDINATOR_SHARE = 0.1
_TIMEOUT_S = 30.0


def call(method: str, path: str, account: Path = _ACCOUNT) -> dict[str, Any]:
    """A request to the API server and its answer."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    token = (account / "token").read_text(encoding="ascii").strip()
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}{path}", method=method,
        headers={"Authorization": f"Bearer {token}"},
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:  # noqa: S310
        loaded: dict[str, Any] = json.load(answer)
        return loaded


def delete_one(namespace: str, draw: random.Random) -> str:
    """Delete a running pod; what was done, in words."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    component = "coordinator" if draw.random() < _COORDINATOR_SHARE else "gateways"
    selector = urllib.parse.urlencode(
        {"labelSelector": f"app.kubernetes.io/component={component}", "fieldSelector": "status.phase=Running"}
    )
    found = [pod["metadata"]["name"] for pod in call("GET", f"{pods}?{selector}")["items"]]
    if not found:
        return f"no pod of the {component} runs"
    name = draw.choice(found)
    is_forced = draw.random() < 0.5
    call("DELETE", f"{pods}/{name}{'?gracePeriodSeconds=0' if is_forced else ''}")
    return f"deleted {name} {'without' if is_forced else 'with'} grace"


if __name__ == "__main__":
    print(delete_one(os.environ["POD_NAMESPACE"], random.Random()), file=sys.stderr)
