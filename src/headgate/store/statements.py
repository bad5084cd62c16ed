"""Reading the SQL that ships with the package: named statements and numbered migrations.

A statement in a `*queries.sql` file is introduced by `-- name: snake_case` and described by the comment lines
that follow. Parameters are `?`, positional.
"""

from __future__ import annotations

import re
from importlib import resources

_NAME = re.compile(r"^-- name: ([a-z0-9_]+)\s*$", re.MULTILINE)
_MIGRATION = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


def load_statements() -> dict[str, str]:
    """Every named statement of the package, without its comments."""
    found: dict[str, str] = {}
    for entry in sorted(resources.files(__package__).iterdir(), key=lambda item: item.name):
        if entry.name.endswith("queries.sql"):
            for name, text in split_statements(entry.read_text("utf-8")).items():
                if name in found:
                    raise ValueError(f"statement {name} is written twice (second time in {entry.name})")
                found[name] = text
    return found


def split_statements(text: str) -> dict[str, str]:
    """Name → SQL of one file's text."""
    parts = _NAME.split(text)
    found: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in found:
            raise ValueError(f"statement {name} is written twice")
        lines = [line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("--")]
        found[name] = "\n".join(lines).rstrip().rstrip(";")
    return found


def load_migrations() -> list[tuple[int, str, str]]:
    """(number, name, text) of every migration, in order."""
    entries = (resources.files(__package__) / "migrations").iterdir()
    return sorted(
        (int(match[1]), match[2], entry.read_text("utf-8"))
        for entry in entries
        if (match := _MIGRATION.match(entry.name))
    )


def split_script(text: str) -> list[str]:
    """The statements of a migration. Migrations hold no `;` inside literals."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
