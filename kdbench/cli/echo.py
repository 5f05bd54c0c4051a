"""What commands print: names, paths and messages of others reach no terminal as they are."""

import click

from kdbench.base.plain import printable


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Prints a text, on stdout or stderr, with its control characters as escapes."""
    click.echo(printable(text), err=err, nl=nl)
