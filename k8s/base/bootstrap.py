"""
Make the SM-PKI and an enrolment token of a cluster once, and put them where the pods find them.

Runs in the bootstrap Job, of the image's Python and its standard library alone.  Five objects, created and never
changed, the one that all pods of gateways wait for last: the Secrets `stromkreis-root-key` (mounted nowhere: take it
out and delete it), `stromkreis-pki`, `stromkreis-keys` (of the ring service and of the enrolment log) and
`stromkreis-enrolment`, and the ConfigMap `stromkreis-root-certificate`.  A Job that was interrupted goes on with what
is there, so that root certificate and keys always belong together.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ROOT_KEY, _PKI, _ENROLMENT = "stromkreis-root-key", "stromkreis-pki", "stromkreis-enrolment"
_KEYS = "stromkreis-keys"
_ROOT_CERTIFICATE = "stromkreis-root-certificate"
_CONFLICT = 409
_TIMEOUT_S = 30.0


class Api:
    """The part of the API server's interface that this Job may use: objects of its own namespace."""

    def __init__(self, namespace: str, account: Path = _ACCOUNT) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self._base = f"https://{f'[{host}]' if ':' in host else host}:{port}/api/v1/namespaces/{namespace}"
        self._token = (account / "token").read_text(encoding="ascii").strip()
        self._context = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def create(self, kind: str, name: str, data: Mapping[str, bytes]) -> bool:
        """Create a Secret or ConfigMap; False where one of that name is there already."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
        if kind == "Secret":
            body |= {"type": "Opaque", "data": {key: base64.b64encode(each).decode() for key, each in data.items()}}
        else:
            body |= {"data": {key: each.decode() for key, each in data.items()}}
        try:
            self._call("POST", f"{kind.lower()}s", body)
        except urllib.error.HTTPError as error:
            if error.code == _CONFLICT:
                return False
            raise
        return True

    def secret(self, name: str) -> dict[str, bytes]:
        """What a Secret holds."""
        return {key: base64.b64decode(each) for key, each in self._call("GET", f"secrets/{name}")["data"].items()}

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - https, see above
            f"{self._base}/{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=self._context) as answer:  # noqa: S310
            loaded: dict[str, Any] = json.load(answer)
            return loaded


def hosts(namespace: str, service: str = "stromkreis-coordinator") -> list[str]:
    """The names by which the coordinator is called inside a cluster, shortest first."""
    return [service, f"{service}.{namespace}", f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local"]


def make_pki(directory: Path, keys: Path, namespace: str) -> dict[str, bytes]:
    """The files of a new SM-PKI by name; the ring service's keys are made in `keys`."""
    options = [option for host in ("localhost", "127.0.0.1", *hosts(namespace)) for option in ("--host", host)]
    environment = os.environ | {"STROMKREIS_COORDINATOR__KEYS_DIR": str(keys)}
    command = ["stromkreis", "pki", "init", "--pki", str(directory), *options]
    subprocess.run(command, check=True, env=environment)  # noqa: S603
    return _files(directory)


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def run(api: Api, namespace: str, scratch: Path) -> None:
    """Create what is not there yet."""
    files = make_pki(scratch / "pki", scratch / "keys", namespace)
    root_key = files.pop("root.key")
    if api.create("Secret", _PKI, files):
        api.create("Secret", _ROOT_KEY, {"root.key": root_key})
    else:
        files = api.secret(_PKI)
    api.create("Secret", _KEYS, _files(scratch / "keys"))
    api.create("Secret", _ENROLMENT, {"token": f"stk_{secrets.token_urlsafe(32)}".encode()})
    made = api.create("ConfigMap", _ROOT_CERTIFICATE, {"root.pem": files["root.pem"]})
    print("the cluster's SM-PKI is made" if made else "the cluster has its SM-PKI already", file=sys.stderr)


if __name__ == "__main__":
    space = os.environ["POD_NAMESPACE"]
    run(Api(space), space, Path("/tmp"))  # noqa: S108 - a volume in memory of this pod alone
