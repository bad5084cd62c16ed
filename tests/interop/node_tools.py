"""The npm packages of tests/interop/node, installed once per lock; processes that say when they are ready."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"
ROOT = Path(__file__).resolve().parents[2]


def installed() -> Path:
    """The directory of the installed packages (git ignores it); skips where they cannot be had."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on the PATH, so what is written for Node cannot be tried")
    lock = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()
    stamp = NODE / "node_modules" / f".installed-{lock[:16]}"
    if not stamp.exists():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, check=False, timeout=200)
        if done.returncode:
            pytest.skip(f"npm could not install the packages for Node: {done.stderr.strip()[-300:]}")
        stamp.touch()
    return NODE / "node_modules"


@contextmanager
def telling(command: list[str], environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """A process that prints one line when it is ready; that line. It ends with the block."""
    given = {**os.environ, **(environ or {})}
    with subprocess.Popen(command, cwd=ROOT, env=given, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line, f"{command[0]} ended before it was ready"
            yield line
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
