"""
The reference pages that follow from the code: configuration, metrics, REST, command line and messages.

    python -m tools.reference            write docs/reference/{configuration,metrics,rest,cli,messages,han}.md
    python -m tools.reference --check    say which of them the code has left behind, and exit with 1

A page is text from the declarations that the programs themselves use: configuration models, Prometheus registries, the
OpenAPI document that the coordinator serves, the commands' parameters, the table of messages.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from protocol import wire
from protocol.wire.registry import FIELDS, READS, TABLE, sent_by

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
_MADE = "<!-- Made from the code by `make reference`; edit the code. -->\n"
_METHODS = ("get", "post", "put", "patch", "delete")


def configuration() -> str:
    """Every key of the three sections, its default and what turning it costs."""
    from stromkreis.reference import Section, reference  # noqa: PLC0415  with the models of every process

    head = (
        "One TOML file, a section for each kind of process. This is what `stromkreis config` prints: `# ` begins an\n"
        "explanation, `#` without a space a setting at its default. An environment variable sets a key too:\n"
        "`[coordinator.epoch] period_s` by `STROMKREIS_COORDINATOR__EPOCH__PERIOD_S`.\n"
    )
    return f"# Configuration\n\n{_MADE}\n{head}\n```toml\n{reference(list(Section)).rstrip()}\n```\n"


def _families() -> Iterator[tuple[str, list[Metric]]]:
    from coordinator.metrics import CoordinatorMetrics  # noqa: PLC0415
    from node.lmn.metrics import LMN_METRICS  # noqa: PLC0415
    from node.metrics import NodeMetrics  # noqa: PLC0415

    CoordinatorMetrics(registry := CollectorRegistry())
    yield "Coordinator", list(registry.collect())
    NodeMetrics(registry := CollectorRegistry())
    yield "Node", list(registry.collect())
    yield (
        "Node: meters and their links",
        [family for each in LMN_METRICS for family in each.describe()],
    )  # not what was counted


def metrics() -> str:
    """Every family with type, labels and help; label values that exist from the start are listed."""
    parts = [
        f"# Metrics\n\n{_MADE}\nPrometheus, at `/metrics` of each process.\nHistograms have `_bucket`, `_sum` and "
        "`_count`. Values in the last column exist from the start; others appear with their first event.\n"
        "[Operations](../howto/operations.md) says what to alert on.\n"
    ]
    for title, families in _families():
        rows = [
            f"| `{each.name}{'_total' if each.type == 'counter' else ''}` | {each.type} | "
            f"{each.documentation.rstrip('.')} | {_labels(each)} |"
            for each in sorted(families, key=lambda family: family.name)
        ]
        parts.append(
            f"## {title}\n\n| name | type | meaning | labels |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _labels(family: Metric) -> str:
    found: dict[str, set[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            if label != "le":
                found.setdefault(label, set()).add(value)
    return "; ".join(f"{label}: {', '.join(f'`{each}`' for each in sorted(found[label]))}" for label in found)


def openapi() -> dict[str, Any]:
    """The OpenAPI document that a coordinator in all roles serves at `/api/v1/openapi.json`."""
    from coordinator.emp.billing import Billing  # noqa: PLC0415
    from coordinator.emp.billing_service import BillingService  # noqa: PLC0415
    from coordinator.emp.inbox import DeliveryInbox  # noqa: PLC0415
    from coordinator.gwa.ca import CertificateAuthority  # noqa: PLC0415
    from coordinator.gwa.enrolment import Enrolment  # noqa: PLC0415
    from coordinator.gwa.participants import TariffSigner, administrator_keys, participant_keys  # noqa: PLC0415
    from coordinator.gwa.profiles import ProfileRollout  # noqa: PLC0415
    from coordinator.gwa.revocation import RevocationPublisher  # noqa: PLC0415
    from coordinator.metrics import CoordinatorMetrics  # noqa: PLC0415
    from coordinator.storage.store import Store  # noqa: PLC0415
    from coordinator.web.app import make_app  # noqa: PLC0415
    from protocol.dcnet.crypto.commitments import Pedersen  # noqa: PLC0415
    from protocol.dcnet.crypto.group import Edwards25519  # noqa: PLC0415
    from protocol.link.entropy import SystemEntropy  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        now, folder = datetime.now(UTC), Path(name)
        store = Store(f"sqlite:///{folder / 'coordinator.sqlite'}")
        with closing(store):
            metrics = CoordinatorMetrics(CollectorRegistry())
            authority = CertificateAuthority.create(folder / "pki", now)
            enrolment = Enrolment(
                store.gateways, authority, RevocationPublisher(folder / "pki", authority, store.certificates),
                coordinator_curve_key=bytes(32), list_key=bytes(32), log_key=bytes(32), endpoint="tcp://127.0.0.1:5555",
            )  # fmt: skip
            billing = BillingService(
                Billing(store, Pedersen(Edwards25519())), TariffSigner(folder / "pki", authority, now), metrics
            )
            profiles = ProfileRollout(
                store.gateways, store.certificates, store.profile_sets,
                administrator_keys(folder / "pki", authority, now), authority.sub_ca, SystemEntropy(),
            )  # fmt: skip
            keys = participant_keys(folder / "pki", authority, now)
            inbox = DeliveryInbox(store.deliveries, keys.encryption, None, lambda _: [], metrics.delivery)
            app = make_app(
                store,
                cast(Any, _NoRings()),
                metrics,
                enrolment=enrolment,
                billing_service=billing,
                profiles=profiles,
                inbox=inbox,
                operator_token="unused",  # noqa: S106  guards nothing: no request is served
            )
            return app.openapi()


class _NoRings:
    """A source of status for the routes of rings, which the document describes and nobody calls."""


def rest() -> str:
    """Every route of the coordinator with its parameters, body and answers, then every schema with its fields."""
    where = "The coordinator serves this document in OpenAPI 3.1 at `/api/v1/openapi.json`."
    return _routes("REST", openapi(), where)


def han() -> str:
    """The same of the HAN API."""
    from node.han.openapi import document  # noqa: PLC0415  with a web server

    return _routes("HAN API", document("v1"), "`stromkreis han openapi` prints this document in OpenAPI 3.1.")


def _routes(title: str, document: dict[str, Any], where: str) -> str:
    lines = [f"# {title}", "", _MADE, str(document["info"]["description"]), "", where, ""]
    for path, item in sorted(document["paths"].items()):
        for method in _METHODS:
            if method in item:
                lines += _route(method, path, item[method])
    lines += ["## Schemas", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _route(method: str, path: str, route: dict[str, Any]) -> list[str]:
    lines = [f"## `{method.upper()} {path}`", "", _wrapped(route.get("description") or route.get("summary", "")), ""]
    if parameters := route.get("parameters"):
        lines += ["| parameter | in | type | required | meaning |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| `{each['name']}` | {each['in']} | {_type(each['schema'])} | {'yes' if each.get('required') else ''} | "
            f"{_plain(each.get('description', ''))} |"
            for each in parameters
        ]
        lines.append("")
    if body := route.get("requestBody"):
        lines += [f"Body: {_contents(body)}.", ""]
    lines += [
        f"- {code}: {_plain(answer['description'])}{_answer(answer)}" for code, answer in route["responses"].items()
    ]
    return [*lines, ""]


def _contents(holder: dict[str, Any]) -> str:
    return ", ".join(f"`{media}` {_type(each.get('schema', {}))}".strip() for media, each in holder["content"].items())


def _answer(answer: dict[str, Any]) -> str:
    return f" ({_contents(answer)})" if answer.get("content") else ""


def _schema(name: str, schema: dict[str, Any]) -> list[str]:
    lines = [f"### {name}", "", *([_wrapped(schema["description"]), ""] if schema.get("description") else [])]
    if "enum" in schema:
        return [*lines, f"One of {', '.join(f'`{each}`' for each in schema['enum'])}.", ""]
    lines += ["| field | type | required | meaning |", "| --- | --- | --- | --- |"]
    required = set(schema.get("required", ()))
    lines += [
        f"| `{field}` | {_type(each)} | {'yes' if field in required else ''} | {_plain(each.get('description', ''))} |"
        for field, each in schema.get("properties", {}).items()
    ]
    return [*lines, ""]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(each) for each in variants)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return " ".join(filter(None, (schema.get("format", ""), str(schema.get("type", "any")))))


def cli() -> str:
    """Every command and subcommand with its arguments, options and defaults."""
    from stromkreis.__main__ import COMMANDS, build  # noqa: PLC0415

    os.environ["COLUMNS"] = "100"
    parts = [f"# Command line\n\n{_MADE}\nExit codes: 0 done, 1 it failed (the reason is on stderr), 2 wrong usage or "
             "configuration, 130 stopped by Ctrl-C.\n"]  # fmt: skip
    for each in COMMANDS:
        group = cast(Any, typer.main.get_command(build([each.name])))
        with group.make_context("stromkreis", [], resilient_parsing=True) as context:
            parts += _command(group.get_command(context, each.name), f"stromkreis {each.name}", 2, context)
    return "\n".join(parts).rstrip() + "\n"


def _command(command: Any, name: str, depth: int, parent: Any) -> list[str]:
    context = command.context_class(command, info_name=name, parent=parent, resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"{'#' * depth} `{name}`\n", f"{_paragraphs(command.help or '')}\n", f"    {name} {usage}\n"]
    rows = []
    for parameter in command.get_params(context):
        if parameter.name != "help" and (record := parameter.get_help_record(context)) is not None:
            rows.append(f"| `{record[0]}` | {_plain(record[1])} |")
    if rows:
        lines.append("| argument or option | meaning |\n| --- | --- |\n" + "\n".join(rows) + "\n")
    for below in getattr(command, "commands", {}).values():
        lines += _command(below, f"{name} {below.name}", depth + 1, context)
    return lines


def messages() -> str:
    """Every message with its code, who sends it and what each field may be."""
    senders = (
        ("gateway to coordinator", wire.Sender.GATEWAY), ("coordinator to gateway", wire.Sender.COORDINATOR),
        ("member to head", wire.Sender.MEMBER), ("head to member", wire.Sender.HEAD),
    )  # fmt: skip
    parts = [
        f"# Messages\n\n{_MADE}\nVersion {wire.VERSION} of the wire: MessagePack arrays over ZeroMQ, first the "
        "code, then the fields in this order.\nA message with another count of fields, another type or a value out of "
        "bounds is refused.\n[Protocol](../explanation/protocol.md) says what each is for.\n"
    ]
    for code, kind in sorted(TABLE.items()):
        by = [said for said, sender in senders if kind in sent_by(sender)]
        rows = [f"| `{name}` | {bound(read)} |" for name, read in zip(FIELDS[kind], READS[kind], strict=True)]
        table = "| field | value |\n| --- | --- |\n" + "\n".join(rows) + "\n" if rows else "No fields.\n"
        text = _wrapped(f"{', '.join(by).capitalize()}. {kind.__doc__ or ''}")
        parts.append(f"## {code} {kind.__name__}\n\n{text}\n\n{table}")
    return "\n".join(parts)


def bound(read: Callable[..., Any]) -> str:
    """What a field's `Read` accepts, in words, from the bounds that it closes over."""
    maker = read.__qualname__.partition(".")[0]
    bounds = inspect.getclosurevars(read).nonlocals
    match maker:
        case "integer":
            return f"integer, {bounds['low']:,} to {bounds['high']:,}"
        case "octets":
            low, high, multiple = bounds["low"], bounds["top"], bounds["multiple"]
            count = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            return f"{count} octets" + (f" in multiples of {multiple}" if multiple > 1 else "")
        case "text":
            return f"printable text of 1 to {bounds['high']:,} characters"
        case "many":
            return f"at most {bounds['high']:,} × ({bound(bounds['item'])})"
        case "record":
            return f"({'; '.join(bound(each) for each in bounds['items'])})"
        case _:
            return _plain(read.__doc__ or read.__name__)


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\[/?(?:bold|dim|italic)\]", "", text).split()).replace("|", "\\|").replace("<", "&lt;")


def _wrapped(text: str) -> str:
    return textwrap.fill(_plain(text), 120, break_long_words=False, break_on_hyphens=False)


def _paragraphs(text: str) -> str:
    return "\n\n".join(_wrapped(each) for each in re.split(r"\n\s*\n", inspect.cleandoc(text)))


PAGES: dict[str, Callable[[], str]] = {
    "configuration": configuration, "metrics": metrics, "rest": rest, "cli": cli, "messages": messages,
    "han": han,
}  # fmt: skip


def main(
    check: Annotated[bool, typer.Option("--check", help="Compare only; exit with 1 on a difference.")] = False,
) -> None:
    """Write the reference pages, or compare them with the code."""
    stale = []
    for name, make in PAGES.items():
        page, text = FOLDER / f"{name}.md", make()
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            page.write_text(text, encoding="utf-8")
    if stale:
        typer.echo(f"{'differ from the code' if check else 'written'}: {', '.join(stale)}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    typer.run(main)
