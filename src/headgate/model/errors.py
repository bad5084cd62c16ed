"""Every error Headgate raises on purpose, drawn as one tree.

    HeadgateError
    ├── ConfigError            headgate.toml is wrong; carries every problem at once
    ├── InputError             a caller of a command or function asked for something impossible
    │   ├── NotFound
    │   ├── AlreadyExists
    │   ├── UnknownAction      a use of an action the catalog does not have: refused at the door
    │   └── IdConflict         the same id with other content
    ├── AllowanceExhausted     a recorded use does not fit the plan, and the plan says stop
    ├── PaymentError           a payment header that cannot be read at all (answered 400)
    ├── FacilitatorError       the facilitator did not give a usable answer
    │   ├── FacilitatorUnreachable   nothing was delivered: safe to try again
    │   └── FacilitatorUncertain     the request may have been acted on: ask, do not repeat blindly
    ├── ChainError             a chain could not be asked, or its answer settles nothing; ask again later
    └── StoreError             the ledger could not be read or written
        ├── WrongMode          a test store opened in live mode, or the other way round
        ├── StoreTooNew / StoreTooOld
        ├── StoreFull          the disk is full: nothing was written
        ├── StoreUnavailable   cannot be reached, or stayed busy too long
        └── Fenced             this process lost its slot; its work was not written

An error's docstring is its default message. Messages say what happened, to what, and what to do next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/\S*")


def described(error: BaseException) -> str:
    """Somebody else's error in a few words, without addresses: their paths and queries often carry keys."""
    said = str(getattr(error, "message", None) or error)
    text = _ADDRESS.sub("…", said.partition("\n")[0])[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class HeadgateError(Exception):
    """Headgate could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__class__.__doc__ or "").strip())


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong in a configuration: `where` is the key (`actions."x".price`), `fix` what to write."""

    file: str
    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: {self.what}. Fix: {self.fix}"


class ConfigError(HeadgateError):
    """The configuration is wrong."""

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class InputError(HeadgateError):
    """The request cannot be carried out as given."""


class NotFound(InputError):
    """There is no such thing in this store."""


class AlreadyExists(InputError):
    """It exists already."""


class UnknownAction(InputError):
    """The published catalog has no such action."""


class IdConflict(InputError):
    """This id was used before with other content; use a new id for a new use."""


class AllowanceExhausted(HeadgateError):
    """The allowance of this billing period is used up and the plan allows nothing beyond it."""

    def __init__(self, message: str | None = None, *, resets_at_us: int | None = None) -> None:
        self.resets_at_us = resets_at_us
        super().__init__(message)


class PaymentError(HeadgateError):
    """The payment header cannot be read.

    `code` is stable and machine-readable; it becomes the problem's type.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class FacilitatorError(HeadgateError):
    """The facilitator gave no usable answer."""


class FacilitatorUnreachable(FacilitatorError):
    """The facilitator was not reached; nothing was broadcast."""


class FacilitatorUnusable(FacilitatorUnreachable):
    """The facilitator was reached and gave no usable answer, to a question that changes nothing."""


class FacilitatorUncertain(FacilitatorError):
    """The facilitator may have acted, but its answer was lost; ask it or the chain what became of it."""


class ChainError(HeadgateError):
    """The chain could not be asked, or its answer does not tell; nothing was changed. Ask again later."""


class StoreError(HeadgateError):
    """The store could not be read or written."""


class WrongMode(StoreError):
    """The store was created in the other mode (test or live)."""


class StoreTooNew(StoreError):
    """The store was written by a newer Headgate; upgrade this process."""


class StoreTooOld(StoreError):
    """The store needs `headgate migrate` before this version can use it."""


class StoreFull(StoreError):
    """The disk that holds the store is full; nothing was written. Free space and try again."""


class StoreUnavailable(StoreError):
    """The store is out of reach or stayed busy; nothing was written. Try again."""


class Fenced(StoreError):
    """Another process took over this process's slot; nothing was written."""
