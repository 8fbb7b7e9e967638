"""The command line: one file per subcommand, each thin."""

from sepnet.cli.app import main

__all__ = ["main"]
