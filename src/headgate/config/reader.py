"""Reading TOML tables key by key, collecting everything that is wrong instead of stopping at the first.

A `Section` hands out typed values; what has the wrong type becomes a problem and reads as absent, so that
reading goes on. Keys nobody asked for are unknown, and `finish` says which known key was perhaps meant.
Messages quote no value that could be a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from headgate.model.errors import ConfigProblem, InputError

T = TypeVar("T")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+(?:\[[0-9]+\])?")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_SECRET_NAME = re.compile(r"secret|passw|private|mnemonic|seed|token|api_?key|credential", re.IGNORECASE)
_TYPE_NAMES: Sequence[tuple[type, str]] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (str, "a text"),
    (list, "a list"),
    (dict, "a table"),
)


class Problems:
    """What is wrong with one file, in the order it was found."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[ConfigProblem] = []

    def add(self, where: str, what: str, fix: str) -> None:
        """Note a problem once."""
        problem = ConfigProblem(self.file, where, what, fix)
        if problem not in self.found:
            self.found.append(problem)


def path_of(*keys: str) -> str:
    """The keys as TOML writes them: `actions."documents.process".price`."""
    return ".".join(key if _BARE_KEY.fullmatch(key) else f'"{key}"' for key in keys)


def did_you_mean(word: str, known: Sequence[str]) -> str | None:
    """The known word closest to a mistyped one, if one is close."""
    close = difflib.get_close_matches(word[:100].lower(), known, n=1, cutoff=0.6)
    return close[0] if close else None


def type_name(value: object) -> str:
    """What a TOML value is, in words."""
    return next((name for kind, name in _TYPE_NAMES if isinstance(value, kind)), "a date or time")


class Section:
    """One table. `keys` lead to it; `present` tells an empty table from a missing one."""

    def __init__(
        self,
        table: Mapping[str, object],
        keys: tuple[str, ...],
        problems: Problems,
        environ: Mapping[str, str],
        *,
        present: bool = True,
    ) -> None:
        self._table = dict(table)
        self._keys = keys
        self._asked: list[str] = []
        self._from_environment: dict[str, str] = {}
        self.problems = problems
        self.environ = environ
        self.present = present

    def at(self, key: str) -> str:
        """Where a key is, for a message."""
        if key in self._from_environment:
            return f"{self._from_environment[key]} (environment)"
        return path_of(*self._keys, key)

    def problem(self, key: str, what: str, fix: str) -> None:
        """Note what is wrong with a key."""
        self.problems.add(self.at(key), what, fix)

    def override(self, key: str, variable: str) -> None:
        """Let a non-empty environment variable stand in for a key."""
        if self.environ.get(variable):
            self._table[key] = self.environ[variable]
            self._from_environment[key] = variable

    def overridden(self, key: str) -> bool:
        """Whether the environment gave this key."""
        return key in self._from_environment

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return key in self._table

    def raw(self, key: str) -> object:
        """The value as TOML has it; None: not given."""
        if key not in self._asked:
            self._asked.append(key)
        return self._table.get(key)

    def text(self, key: str) -> str | None:
        """A text that says something, without blanks around it."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.problem(key, f"is {type_name(value)}, not a text", f'write {key} = "…", in quotes')
            return None
        stripped = value.strip()
        if not stripped or not stripped.isprintable():
            self.problem(
                key, "is empty or has control characters", "write it on one line, or leave the key out"
            )
            return None
        return stripped

    def parsed(self, key: str, parse: Callable[[str], T], default: T) -> T:
        """A text read by `parse`, whose InputError becomes a problem (`what; fix`)."""
        text = self.text(key)
        if text is None:
            return default
        try:
            return parse(text)
        except InputError as error:
            what, _, fix = str(error).partition("; ")
            self.problem(key, what, fix or "correct it")
            return default

    def choice(self, key: str, options: Sequence[str], default: str) -> str:
        """One of a few words."""
        text = self.text(key)
        if text is None:
            return default
        if text not in options:
            meant = did_you_mean(text, options)
            listed = ", ".join(f'"{option}"' for option in options)
            self.problem(
                key,
                f'"{text[:60]}" is not one of {listed}',
                f'did you mean "{meant}"?' if meant else f"write one of {listed}",
            )
            return default
        return text

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(
                key, f"is {type_name(value)}, not true or false", f"write {key} = true, without quotes"
            )
            return default
        return value

    def whole(self, key: str, default: T, *, low: int, high: int) -> int | T:
        """A whole number within bounds."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(
                key,
                f"is {type_name(value)}, not a whole number",
                f"write {key} = {low}, or another whole number",
            )
            return default
        if not low <= value <= high:
            self.problem(key, "is out of bounds", f"write a whole number from {low:_} to {high:_}")
            return default
        return value

    def texts(self, key: str, example: str) -> tuple[tuple[int, str], ...]:
        """A list of texts, each with its index; a single text counts as a list of one."""
        value = self.raw(key)
        if value is None:
            return ()
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list):
            self.problem(key, f"is {type_name(value)}, not a list of texts", f'write {key} = ["{example}"]')
            return ()
        good = [
            (index, item.strip())
            for index, item in enumerate(items)
            if isinstance(item, str) and item.strip()
        ]
        if len(good) != len(items):
            self.problem(key, "has an entry that is no text, or empty", f'write {key} = ["{example}"]')
        return tuple(good)

    def table(self, key: str) -> Section:
        """A table inside this one; an absent or mistyped one reads as empty."""
        value = self.raw(key)
        if isinstance(value, dict):
            return self._inner(value, (key,))
        if value is not None:
            self.problem(
                key,
                f"is {type_name(value)}, not a table",
                f"write [{path_of(*self._keys, key)}] and its keys",
            )
        return self._inner({}, (key,), present=False)

    def tables(self, key: str) -> tuple[Section, ...]:
        """A list of tables, or one table on its own."""
        value = self.raw(key)
        if value is None:
            return ()
        items = [value] if isinstance(value, dict) else value
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            self.problem(
                key,
                "is not a list of tables",
                f"write [[{path_of(*self._keys, key)}]] and its keys, once per entry",
            )
            return ()
        return tuple(self._inner(item, (f"{key}[{index}]",)) for index, item in enumerate(items))

    def names(self) -> tuple[str, ...]:
        """The keys of a table whose keys are the seller's own names."""
        return tuple(self._table)

    def expanded(self, key: str) -> str | None:
        """A text whose `${NAME}` are replaced from the environment; an unset one is a problem."""
        text = self.text(key)
        if text is None or "${" not in text:
            return text
        missing = [name for name in _REFERENCE.findall(text) if not self.environ.get(name)]
        if missing or "${" in _REFERENCE.sub("", text):
            named = ", ".join(missing) or "a name"
            self.problem(
                key, f"refers to {named}, which the environment does not have", f"set {named} and start again"
            )
            return None
        return _REFERENCE.sub(lambda found: self.environ[found[1]], text)

    def is_reference(self, key: str) -> bool:
        """Whether the value comes from the environment, at least in part."""
        value = self._table.get(key)
        return key in self._from_environment or (isinstance(value, str) and "${" in value)

    def finish(self) -> None:
        """Report the keys nobody asked for."""
        for key in self._table:
            if key in self._asked:
                continue
            meant = did_you_mean(key, self._asked)
            if meant:
                self.problem(key, "is not a key Headgate knows", f"did you mean `{meant}`?")
            elif _SECRET_NAME.search(key):
                self.problem(
                    key,
                    "looks like a secret, and secrets are not read from this file",
                    "remove it here (and from the file's history) and set it in the environment",
                )
            else:
                known = ", ".join(f"`{name}`" for name in self._asked)
                self.problem(
                    key, "is not a key Headgate knows", f"remove it; known here: {known or 'nothing'}"
                )

    def _inner(self, table: Mapping[str, object], keys: tuple[str, ...], *, present: bool = True) -> Section:
        return Section(table, (*self._keys, *keys), self.problems, self.environ, present=present)
