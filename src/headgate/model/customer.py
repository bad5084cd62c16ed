"""Customers and their named users, as stored. What cannot be erased (events) knows them by number only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.model.errors import InputError

MAX_TEXT = 255
_SYSTEM = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Customer:
    """An account under contract. `ref` is the seller's own id; `references` are its ids in other systems."""

    id: int
    ref: str
    name: str | None
    email: str | None
    created_us: int
    archived_us: int | None
    references: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seat:
    """A named user of a customer; `ref` is the seller's own id of the user."""

    id: int
    customer: int
    ref: str
    name: str | None


def checked_ref(text: str, what: str) -> str:
    """An id of the seller's, as given, if it can be one: 1 to 255 printable characters, no blank at an end.

    Raises:
        InputError: it cannot; `what` (`customer`, `seat`) names it in the message.
    """
    if text and text == text.strip() and len(text) <= MAX_TEXT and text.isprintable():
        return text
    raise InputError(
        f"{text[:80]!r} cannot be a {what} id: use 1 to {MAX_TEXT} printable characters, no outer blanks"
    )


def checked_line(text: str, what: str) -> str:
    """A line of free text (a name, an email, a reference); empty where nothing is known.

    Raises:
        InputError: too long, or with control characters.
    """
    text = text.strip()
    if len(text) <= MAX_TEXT and (not text or text.isprintable()):
        return text
    raise InputError(
        f"the {what} is too long or holds control characters: use one line of at most {MAX_TEXT}"
    )


def checked_email(text: str) -> str:
    """An email address, or nothing.

    Raises:
        InputError: it has no name or no host.
    """
    text = checked_line(text, "email")
    name, _, host = text.rpartition("@")
    if text and (not name or not host or " " in text):
        raise InputError(f"{text!r} is not an email address")
    return text


def checked_system(text: str) -> str:
    """The name of another system, such as `stripe`: lower-case letters, digits, underscores.

    Raises:
        InputError: it is not such a name.
    """
    if _SYSTEM.fullmatch(text):
        return text
    raise InputError(
        f"{text!r} cannot name a system: use lower-case letters, digits and _, as in stripe=cus_123"
    )
