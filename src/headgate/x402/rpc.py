"""Asking an Ethereum node: JSON-RPC 2.0 over HTTP, or an embedded chain's own answers in this process.

A node's address often carries a key, so errors name its host only.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from yarl import URL

from headgate.model.errors import ChainError
from headgate.x402.answers import quoted
from headgate.x402.transport import Connections, NoAnswer, NotReached

ANSWER_BYTES = 8 * 1024 * 1024


class Node(Protocol):
    """Whoever answers JSON-RPC calls."""

    async def call(self, method: str, *params: Any) -> Any:
        """The call's `result`. Raises ChainError, also for an error the node answers."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class HttpNode:
    """A node at a URL."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_ms: int = 10_000
    ) -> None:
        self._url = URL(url)
        self.name = self._url.host or "the node"
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        self._connections = Connections(max_answer_bytes=ANSWER_BYTES)
        self._timeout = self._connections.timeout(timeout_ms)
        self._numbers = itertools.count(1)

    async def call(self, method: str, *params: Any) -> Any:
        """See Node."""
        question = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}
        try:
            reply = await self._connections.ask(
                "POST",
                self._url,
                headers=self._headers,
                timeout=self._timeout,
                body=msgspec.json.encode(question),
            )
        except (NotReached, NoAnswer) as error:
            raise ChainError(
                f"{self.name} did not answer {method} ({error}); it is asked again later"
            ) from error
        try:
            answer = msgspec.json.decode(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = f"status {reply.status}, {quoted(reply.body, 100)}"
            raise ChainError(f"{self.name} answered {method} with no JSON: {said}") from None
        return _result(self.name, method, answer, question["id"])

    async def close(self) -> None:
        """See Node."""
        await self._connections.close()


class InProcessNode:
    """An embedded chain: `answer` takes a parsed request and gives the parsed response, in a thread."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    async def call(self, method: str, *params: Any) -> Any:
        """See Node."""
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = await asyncio.to_thread(self._answer, question)
        return _result("the embedded chain", method, answer, 1)

    async def close(self) -> None:
        """Nothing to let go of."""


def _result(name: str, method: str, answer: Any, identity: Any) -> Any:
    if not isinstance(answer, dict) or answer.get("id") != identity:
        raise ChainError(f"{name} answered {method} with something that is no answer to it")
    if answer.get("error") is not None or "result" not in answer:
        said = quoted(str(answer.get("error")).encode(), 200)
        raise ChainError(f"{name} could not answer {method}: {said}")
    return answer["result"]
