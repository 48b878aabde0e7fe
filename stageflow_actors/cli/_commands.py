"""The group of all commands."""

from __future__ import annotations

import click

from ._bench import bench
from ._run_command import run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stageflow-actors", prog_name="stageflow-actors", message="%(prog)s %(version)s")
def cli() -> None:
    """Run pipelines of stage actors, and measure the runtime."""


cli.add_command(run)
cli.add_command(bench)
