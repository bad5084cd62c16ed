"""Running the embedded facilitator: in the foreground for people, in a thread for tests and demos."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import uvicorn

from headgate.devnet.chain import NETWORK, DevChain
from headgate.devnet.facilitator import PLAY_MONEY, EmbeddedFacilitator
from headgate.devnet.wallets import Wallet
from headgate.devnet.web import create_app, wallet_rows
from headgate.model.errors import InputError

DEFAULT_PORT = 8404
HOST = "127.0.0.1"


class PortTaken(InputError):
    """The port is in use; choose another with --port, or 0 for any free one."""


@dataclass(frozen=True, slots=True)
class RunningFacilitator:
    """A facilitator that answers at `url`; `rpc_url` is its chain's JSON-RPC."""

    url: str
    facilitator: EmbeddedFacilitator

    @property
    def chain(self) -> DevChain:
        """The chain it settles on."""
        return self.facilitator.chain

    @property
    def wallets(self) -> tuple[Wallet, ...]:
        """Who has play money there."""
        return self.facilitator.chain.wallets

    @property
    def rpc_url(self) -> str:
        """Where the chain answers JSON-RPC."""
        return f"{self.url}/rpc"


def serve(port: int = DEFAULT_PORT, json_format: bool = False) -> None:
    """Run on loopback until interrupted. Prints one line on standard output when ready; port 0 takes any.

    With `json_format` that line is `{"url", "network", "asset", "wallets": [{"address", "private_key"}]}`.
    Raises PortTaken.
    """
    with closing(_listen(port)) as listener, EmbeddedFacilitator() as facilitator:
        running = RunningFacilitator(_url(listener), facilitator)
        sys.stderr.write(PLAY_MONEY + "\n")
        server = _Server(facilitator, lambda: _print_line(ready_line(running, json_format=json_format)))
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


@contextmanager
def running_facilitator(
    *, chain: DevChain | None = None, port: int = 0, idempotent: bool = True
) -> Iterator[RunningFacilitator]:
    """A facilitator on loopback for as long as the `with` block lasts, served from a thread.

    Raises PortTaken.
    """
    with (
        closing(_listen(port)) as listener,
        EmbeddedFacilitator(chain, idempotent=idempotent) as facilitator,
    ):
        ready = threading.Event()
        server = _Server(facilitator, ready.set)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="headgate-devnet", daemon=True
        )
        thread.start()
        try:
            if not ready.wait(timeout=30):
                raise RuntimeError("the embedded facilitator did not start within 30 s; see its log")
            yield RunningFacilitator(_url(listener), facilitator)
        finally:
            server.should_exit = True
            thread.join()


def ready_line(running: RunningFacilitator, *, json_format: bool) -> str:
    """What `headgate facilitator` prints once it answers."""
    if not json_format:
        return (
            f"facilitator ready: {running.url}  network {NETWORK}  USDC {running.chain.usdc}  "
            f"{len(running.wallets)} funded wallets at {running.url}/wallets  PLAY MONEY"
        )
    return json.dumps(
        {
            "url": running.url,
            "network": NETWORK,
            "asset": running.chain.usdc,
            "wallets": wallet_rows(running.wallets),
        }
    )


class _Server(uvicorn.Server):
    """uvicorn, telling when it answers."""

    def __init__(self, facilitator: EmbeddedFacilitator, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(facilitator), log_level="warning", access_log=False, lifespan="off", ws="none"
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


def _listen(port: int) -> socket.socket:
    # With the protocol named, or asyncio leaves Nagle's algorithm on and each answer waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port in TIME_WAIT after a restart is free; one that is listened on is refused either way.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"cannot listen on {HOST}:{port} ({error.strerror}): choose another port, or 0 for any free one"
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
