"""Gets `@x402/express` ready: its locked packages, in a cache directory that git ignores.

The lock holds versions and hashes but no addresses; npm takes the packages from wherever it is set up to.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

from benchmarks.ready import NotAvailableError
from benchmarks.sellers.thing import NETWORK, PATH, PAY_TO, PRICE, THING

_PROJECT = Path(__file__).parent / "express"


def install(cache: Path) -> Path:
    """Installs once per lock and returns the path of `server.mjs`.

    Raises:
        NotAvailableError: no node, no npm, or npm could not install.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotAvailableError("node and npm are not both on the PATH")
    lock = (_PROJECT / "package-lock.json").read_bytes()
    home = cache / f"express-{sha256(lock).hexdigest()[:12]}"
    if not (home / "installed").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_PROJECT / name, home / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise NotAvailableError(f"npm could not install it: {' / '.join(last)}")
        (home / "installed").touch()
    shutil.copy(_PROJECT / "server.mjs", home / "server.mjs")
    return home / "server.mjs"


def environment(facilitator_url: str) -> dict[str, str]:
    """What `server.mjs` reads, so that it sells exactly what the other sellers do."""
    return {
        "NODE_ENV": "production",
        "BENCH_FACILITATOR_URL": facilitator_url,
        "BENCH_NETWORK": NETWORK,
        "BENCH_PATH": PATH,
        "BENCH_PAY_TO": PAY_TO,
        "BENCH_PRICE": PRICE,
        "BENCH_THING": json.dumps(THING),
    }
