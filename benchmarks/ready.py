"""How a started process tells the harness its port: a file that appears whole.

A file and not a line on standard output, so that sellers in any language may log as they like.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.02


class NotAvailableError(Exception):
    """Something cannot be measured here, and is skipped; the text says why."""


class BrokenError(Exception):
    """Something that is there does not work: said in red, exit code 1; the rest is still measured."""


class DidNotStartError(BrokenError):
    """A process ended or stayed silent before it said its port."""


def announce(ready: Path, port: int) -> None:
    """Writes the port where the harness waits for it."""
    partial = ready.with_suffix(".partial")
    partial.write_text(str(port))
    partial.rename(ready)


@dataclass(frozen=True, slots=True)
class Running:
    """A process that listens on 127.0.0.1:`port`."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def cpu_seconds(self) -> float | None:
        """CPU time used so far, or None where the system does not tell (no /proc)."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Asks it to end, and insists after ten seconds."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    name: str,
    command: Iterable[str],
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 60,
) -> Running:
    """Starts `command` with the ready file appended to it, and waits for its port.

    Raises:
        DidNotStartError: with the end of its log.
    """
    ready, log = directory / f"{name}.port", directory / f"{name}.log"
    ready.unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, str(ready)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    deadline = time.monotonic() + timeout_seconds
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise DidNotStartError(f"{name} did not start: {log.read_text(errors='replace')[-1500:].strip()}")
        time.sleep(_POLL_SECONDS)
    return Running(name, int(ready.read_text()), process, log)


def python_module(module: str, *arguments: str) -> list[str]:
    """A command line for a module of this interpreter."""
    return [sys.executable, "-m", module, *arguments]
