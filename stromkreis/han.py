"""`stromkreis han`: accounts for the gateway's interface to the home, and exports from it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Annotated

import typer

from node.han.digest import Algorithm, make_verifier
from node.han.openapi import document
from node.han.server import PASSWORD_LENGTH
from protocol.errors import StromkreisError
from stromkreis.han_export import Gateway, write

app = typer.Typer(help="The interface to the home: accounts of consumers, exports.", no_args_is_help=True)
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without what a printed letter leaves unclear


@app.command()
def openapi() -> None:
    """
    Print the HAN API as an OpenAPI 3.1 document: paths, parameters, schemas.

    Example: stromkreis han openapi > han.json
    """
    typer.echo(json.dumps(document("v1"), indent=2, ensure_ascii=False))


@app.command()
def password(
    gateway: Annotated[str, typer.Argument(help="The gateway's id, for example ESTK0100000001.")],
    user: Annotated[str, typer.Argument(help="The consumer's user name.")],
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and print it, for a letter.")] = False,
    md5: Annotated[bool, typer.Option("--md5", help="Also for clients that know MD5 only.")] = False,
) -> None:
    """
    Make what verifies a consumer's first password, for [[node.gateways.han.accounts]] or a HAN profile.

    The password is asked for, and kept nowhere.  Who has the verifier can log in with it as with the password.

    Example: stromkreis han password ESTK0100000001 anna --generate
    """
    if generate:
        text = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))
        typer.echo(f"# password: {text}")
    else:
        text = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    least, most = PASSWORD_LENGTH
    if not least <= len(text) <= most or not text.isprintable():
        raise StromkreisError(f"a password of {len(text)} characters; expected {least} to {most} printable ones")
    verifier = make_verifier(user, gateway.lower(), text)
    typer.echo(f'user = "{user}"\nha1_sha256 = "{verifier[Algorithm.SHA256]}"')
    if md5:
        typer.echo(f'ha1_md5 = "{verifier[Algorithm.MD5]}"')


@app.command()
def export(
    address: Annotated[str, typer.Argument(help="Where the gateway serves its home: https://192.168.1.200.")],
    user: Annotated[str, typer.Argument(help="The consumer's user name.")],
    name: Annotated[
        str | None, typer.Argument(help="A processing profile or a meter; without it they are listed.")
    ] = None,
    from_time: Annotated[
        str | None, typer.Option("--from", help="A date, or a date-time with its offset; included.")
    ] = None,
    to_time: Annotated[str | None, typer.Option("--to", help="The same; not included.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; without it as the gateway names it.")
    ] = None,
    gateway_sha256: Annotated[
        str, typer.Option(help="SHA-256 of the gateway's certificate, from the letter that came with it.")
    ] = "",
    password: Annotated[
        str,
        typer.Option(envvar="STROMKREIS_HAN_PASSWORD", prompt=True, hide_input=True, help="The consumer's password."),
    ] = "",
) -> None:
    """
    Write a file after VDE AR 2418-6 for display software such as the PTB's TRuDI: values, signatures, the log.

    Of a processing profile its newest closed billing period, or the one that lies between the times; of a meter the
    last 24 hours, or what lies between them.

    Example: stromkreis han export https://192.168.1.200 anna supplier --from 2026-11-01 --to 2026-12-01
    """
    gateway = Gateway(address, user, password, gateway_sha256)
    try:
        if name is None:
            typer.echo("\n".join(gateway.names()))
            return
        own_name, content = gateway.file(name, from_time, to_time)
    finally:
        gateway.close()
    path = output or Path(Path(own_name).name)
    write(path, content)
    typer.echo(f"{path}: written")
