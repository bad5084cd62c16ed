"""What the figures depend on: cores, versions, and how long the disk takes for one fsync."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "headgate",
    "starlette",
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "x402",
    "coincurve",
    "aiohttp",
)
_PAGE = bytes(4096)


def describe() -> dict[str, Any]:
    """Cores, system, interpreter and the versions of what is measured."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "node": _node_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "load_average": list(os.getloadavg()),
    }


def fsync_us(directory: Path, samples: int = 200) -> dict[str, float]:
    """Appends a page and fsyncs, `samples` times: `{"p50", "p99"}` in microseconds."""
    scratch = directory / "fsync.scratch"
    taken: list[int] = []
    with scratch.open("wb", buffering=0) as file:
        for _ in range(samples):
            file.write(_PAGE)
            started = time.perf_counter_ns()
            os.fsync(file.fileno())
            taken.append(time.perf_counter_ns() - started)
    scratch.unlink()
    taken.sort()
    return {"p50": taken[samples // 2] / 1000, "p99": taken[samples * 99 // 100] / 1000}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _node_version() -> str | None:
    node = shutil.which("node")
    if node is None:
        return None
    return subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
