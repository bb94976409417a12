"""Commands that make what [[user]] tables ask for: a password's hash, a token."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from listener.terminal import app
from listener.users import hashed, new_token

user_app = typer.Typer(help="Who may log in over HTTP.", no_args_is_help=True)
app.add_typer(user_app, name="user")


@user_app.command("hash")
def user_hash() -> None:
    """Print the `password_hash` of a password, which is asked for on a terminal, else read as the first line of standard input."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            _fail("the two differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        print(hashed(password))
    except ValueError as error:
        _fail(str(error))


@user_app.command("token")
def user_token(file: Annotated[Path, typer.Argument(help="The `token_file` of the user; it is made, or gets one more line.")]) -> None:
    """Make a token, add its hash to a file, and print the token, which is kept nowhere here."""
    token, line = new_token()
    try:
        # Readable by nobody else, although nothing in it opens a door.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as out:
            out.write(f"{line}\n")
    except OSError as error:
        _fail(f"{file} cannot be written: {error.strerror}")
    print(token)


def _fail(why: str) -> None:
    print(f"fourview: {why}", file=sys.stderr)
    raise typer.Exit(1)
