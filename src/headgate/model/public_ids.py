"""Public ids of rows: a word for the kind, an underscore and the stored number, as in `key_12`, `sub_7`."""

from __future__ import annotations

import re

from headgate.model.errors import NotFound

KEY = "key"
SUBSCRIPTION = "sub"

_NAMES = {KEY: "API key", SUBSCRIPTION: "subscription"}
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def write_id(kind: str, number: int) -> str:
    """12 → `key_12`."""
    return f"{kind}_{number}"


def read_id(kind: str, text: str) -> int:
    """`key_12` → 12.

    Raises:
        NotFound: the text is no id of this kind, so there is no such row.
    """
    word, _, number = text.strip().partition("_")
    if word != kind or not _NUMBER.fullmatch(number):
        raise NotFound(
            f"{text!r} is not the id of a {_NAMES[kind]}; it looks like {kind}_12 (see the list command)"
        )
    return int(number)
