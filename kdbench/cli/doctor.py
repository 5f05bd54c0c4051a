"""`kdbench doctor`: what is installed, what will be used, and what is wrong."""

import sys

import click


@click.command("doctor")
def command() -> None:
    """Say what is installed, which backend and device will be used, and what is wrong."""
    from kdbench.doctor import diagnose

    findings = diagnose()
    for finding in findings:
        mark = "ok   " if finding.remedy is None else "WRONG"
        click.echo(f"{mark} {finding.what}")
        if finding.remedy is not None:
            click.echo(f"      {finding.remedy}")
    if any(finding.remedy is not None for finding in findings):
        sys.exit(1)
