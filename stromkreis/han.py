"""`stromkreis han`: accounts for the gateway's interface to the home."""

from __future__ import annotations

import json
import secrets
from typing import Annotated

import typer

from node.han.digest import Algorithm, make_verifier
from node.han.openapi import document
from node.han.server import PASSWORD_LENGTH
from protocol.errors import StromkreisError

app = typer.Typer(help="The interface to the home: accounts of consumers.", no_args_is_help=True)
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
