"""Request ids: UUIDv7, so that they sort by time and rows of one moment lie together."""

from __future__ import annotations

import os
from collections.abc import Callable

_CHUNK = 4096


class RequestIds:
    """Makes 16-byte UUIDv7s (RFC 9562 §5.7); draws entropy in chunks, since each draw is a system call."""

    __slots__ = ("_at", "_entropy", "_pool")

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._pool = b""
        self._at = 0

    def new(self, now_us: int) -> bytes:
        at = self._at
        if at + 10 > len(self._pool):
            self._pool, at = self._entropy(_CHUNK), 0
        self._at = at + 10
        random = int.from_bytes(self._pool[at : at + 10], "big")
        value = (now_us // 1000) << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64 | 0b10 << 62
        return (value | random & (1 << 62) - 1).to_bytes(16, "big")
