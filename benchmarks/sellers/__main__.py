"""Serves one application with one worker: uvicorn, uvloop, httptools, no access log.

`python -m benchmarks.sellers MODULE READY_FILE`; `MODULE` is a module of this package with an `app`.
"""

from __future__ import annotations

import importlib
import socket
import sys
from pathlib import Path

import uvicorn

from benchmarks.ready import announce


class _AnnouncingServer(uvicorn.Server):
    """uvicorn, telling the harness when lifespan start-up is over and the port is open."""

    def __init__(self, config: uvicorn.Config, ready: Path) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            announce(self._ready, self.servers[0].sockets[0].getsockname()[1])


def main(module: str, ready: Path) -> None:
    """Serves until SIGTERM."""
    application = importlib.import_module(f"benchmarks.sellers.{module}").app
    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=0,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        backlog=4096,
    )
    _AnnouncingServer(config, ready).run()


main(sys.argv[1], Path(sys.argv[2]))
