"""The command line: parse, open the store, call the service, render (contract §8).

    program.py    the tree of commands; errors → one sentence on stderr and an exit code
    options.py    options that several commands share
    opened.py     configuration and store for one command, in one event loop
    output.py     tables, JSON, notes, progress bars
    values.py     what people type: instants, months, money, NAME=VALUE

and a file for each group of commands. A command imports what it needs when it runs, so that help, usage
errors and completion are quick.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of `headgate`."""
    from headgate.cli.program import run

    run(sys.argv[1:])
