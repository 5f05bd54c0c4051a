"""The command line: one small module a command, imported when it is called."""

import errno
import importlib
import sys
import warnings
from typing import Any

import click

from kdbench.base.errors import UserError
from kdbench.base.plain import printable
from kdbench.cli.echo import echo

COMMANDS = (
    "run",
    "plan",
    "status",
    "study",
    "report",
    "compare",
    "reproduce",
    "export",
    "publish",
    "track",
    "objectives",
    "new-objective",
    "check",
    "suites",
    "data",
    "cut",
    "doctor",
)


class _Lazy(click.Group):
    """Imports a command's module when the command is named, so that `--help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kdbench.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = printable(error.message)
            raise
        except KeyboardInterrupt:  # click would say "Aborted!" and exit with 1
            echo("Interrupted.", err=True)
            sys.exit(130)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from kdbench.base.registry import unknown

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise UserError(unknown("command", args[0], list(COMMANDS)))
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kdbench")
def group() -> None:
    """Compare knowledge-distillation objectives with everything else held fixed."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a user's mistake is one message and exit code 2, never a traceback."""
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # what libraries say to programmers is no part of the output
                warnings.simplefilter("ignore")
            group(args=arguments, prog_name="kdbench")
    except UserError as error:
        _fail(str(error))
    except UnicodeEncodeError as error:  # Python's form of bytes in a name of a file
        if not any("\udc80" <= character <= "\udcff" for character in error.object):
            raise
        _fail(f"{error.object[:200]!a}: the name of a file or folder is not UTF-8; rename it")
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror}")


def _fail(message: str) -> Any:
    echo(f"Error: {message}", err=True)
    sys.exit(2)
