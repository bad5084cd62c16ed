"""What a check found: how bad, where, what, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad. The order is that of a report."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """`where` is a key of the file, a URL or a route; `fix` says what to do next."""

    level: Level
    where: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.message}" + (f". Fix: {self.fix}" if self.fix else "")

    @classmethod
    def error(cls, where: str, message: str, fix: str) -> Finding:
        """It does not work like this."""
        return cls(Level.ERROR, where, message, fix)

    @classmethod
    def warning(cls, where: str, message: str, fix: str) -> Finding:
        """It works, and somebody will be surprised."""
        return cls(Level.WARNING, where, message, fix)

    @classmethod
    def info(cls, where: str, message: str, fix: str = "") -> Finding:
        """Good to know."""
        return cls(Level.INFO, where, message, fix)
