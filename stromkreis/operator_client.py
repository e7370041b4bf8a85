"""The coordinator's REST interface as the operator's commands use it: address, root and token, and one request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from protocol.errors import StromkreisError
from protocol.link.tls import client_context

_TIMEOUT_S = 60.0
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Operator:
    """How an operator reaches the coordinator."""

    coordinator: str
    root: Path
    token_file: Path


CoordinatorOption = Annotated[
    str, typer.Option("--coordinator", help="The coordinator's https address.", envvar="STROMKREIS_COORDINATOR_URL")
]
RootOption = Annotated[Path, typer.Option("--root", help="PEM file of the SM-PKI root.", envvar="STROMKREIS_ROOT")]
TokenOption = Annotated[
    Path,
    typer.Option(
        "--token-file",
        help="Token of a log-in, or operator.token of the coordinator's data_dir.",
        envvar="STROMKREIS_OPERATOR_TOKEN",
    ),
]


def operator_options(
    context: typer.Context,
    coordinator: CoordinatorOption = "https://127.0.0.1:7381",
    root: RootOption = Path("var/coordinator/pki/root.pem"),
    token_file: TokenOption = Path("var/coordinator/operator.token"),
) -> None:
    """Keep the options that all of an operator's commands have."""
    context.obj = Operator(coordinator, root, token_file)


@contextmanager
def operator_client(context: typer.Context) -> Iterator[httpx.Client]:
    """A client that shows the token.  Raises StromkreisError where its files cannot be read."""
    operator: Operator = context.obj
    if not operator.coordinator.startswith("https://"):
        raise StromkreisError(f"{operator.coordinator}: expected an https address: the operator's token goes with it")
    try:
        token = operator.token_file.read_text().strip()
        tls = client_context(operator.root)
    except (OSError, ValueError) as error:
        raise StromkreisError(
            f"{getattr(error, 'filename', None) or operator.root}: cannot be read ({type(error).__name__}); expected"
            " the operator's token and the SM-PKI root of the coordinator: see --token-file and --root"
        ) from None
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=operator.coordinator, verify=tls, headers=headers, timeout=_TIMEOUT_S) as client:
        yield client


def call(context: typer.Context, method: str, path: str, **how: Any) -> Any:
    """The JSON of one answer.  Raises StromkreisError as `request` does."""
    with operator_client(context) as client:
        return request(client, method, path, **how).json()


def request(client: httpx.Client, method: str, path: str, **how: Any) -> httpx.Response:
    """One answer below `/api/v1`.  Raises StromkreisError where nobody answers, RefusedError where it is a refusal."""
    try:
        response = client.request(method, f"/api/v1{path}", **how)
    except httpx.TransportError as error:
        raise StromkreisError(
            f"{client.base_url}: the coordinator cannot be reached ({type(error).__name__})"
        ) from None
    if response.is_success:
        return response
    try:
        problem = response.json()
        told = f"{problem['reason']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        told = f"status {response.status_code}"
    raise RefusedError(f"{client.base_url} refuses: {told}", told)


def pages(client: httpx.Client, path: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The items of all pages of a list.  Raises StromkreisError as `request` does."""
    after: str | None = ""
    while after is not None:
        page = request(client, "GET", path, params={**query, "limit": _PAGE, "after": after}).json()
        yield from page["items"]
        after = page["next"]


def enrolled(client: httpx.Client) -> Iterator[str]:
    """The gateways that are enrolled and not revoked, by id.  Raises StromkreisError as `request` does."""
    return (each["id"] for each in pages(client, "/gateways", {}) if each["status"] == "active")


class RefusedError(StromkreisError):
    """The coordinator refuses a request; `told` is why."""

    def __init__(self, text: str, told: str) -> None:
        super().__init__(text)
        self.told = told
