"""The ways one request path can be read: by servers that decode once or twice, drop parameters, fold dots.

A gate and a router that read a path differently let a request past unpaid (failure case 24). So a path with
anything in it that servers treat differently is looked at in every reading there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

MAX_READINGS = 64
MAX_LENGTH = 8192

_TRICKY = re.compile(r"\A(?!/)|//|[\\;%?#\x00-\x20\x7f]|/\.{1,2}(?:/|\Z)")
_TRICKY_RAW = re.compile(rb"%2f", re.IGNORECASE)
_ENCODED_SLASH = re.compile(r"(%2f)", re.IGNORECASE)


def is_plain(path: str, raw_path: bytes | None) -> bool:
    """Whether all servers read this path alike. `raw_path` is the path as sent, still encoded, if known."""
    if _TRICKY.search(path) is not None:
        return False
    return raw_path is None or b"%" not in raw_path or _TRICKY_RAW.search(raw_path) is None


def readings(path: str, raw_path: bytes | None) -> frozenset[str] | None:
    """Every way to read a path, itself included; None if it is too long or too tangled to tell."""
    if len(path) > MAX_LENGTH:
        return None
    pending = [path]
    raw = _raw_text(raw_path)
    if raw is not None and unquote(raw) == path:
        pending.append(
            "".join(part if i % 2 else unquote(part) for i, part in enumerate(_ENCODED_SLASH.split(raw)))
        )
    seen = set(pending)
    while pending:
        current = pending.pop()
        for step in _STEPS:
            changed = step(current)
            if changed not in seen:
                seen.add(changed)
                pending.append(changed)
        if len(seen) > MAX_READINGS:
            return None
    return frozenset(seen)


def _raw_text(raw_path: bytes | None) -> str | None:
    if raw_path is None:
        return None
    return raw_path.partition(b"?")[0].decode("latin-1")


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, on segments."""
    kept: list[str] = []
    segments = path.removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" * path.startswith("/") + "/".join(kept)


def _trimmed(path: str) -> str:
    """Without control characters, and without blanks around a segment."""
    shown = re.sub(r"[\x00-\x1f\x7f]", "", path)
    return "/".join(segment.strip(" ") for segment in shown.split("/"))


_STEPS: tuple[Callable[[str], str], ...] = (
    unquote,
    lambda path: path.replace("\\", "/"),
    lambda path: re.sub(r";[^/]*", "", path),
    lambda path: re.split(r"[?#\x00]", path, maxsplit=1)[0],
    lambda path: re.sub(r"/{2,}", "/", path),
    _without_dots,
    _trimmed,
    lambda path: path if path.startswith("/") else "/" + path,
)
"""What some server or framework does to a path before it looks for a route."""
