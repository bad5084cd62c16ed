"""Path patterns: `/v1/files/{id}`, `/v1/models/{name}:generate`, `/static/{rest:path}`.

A `{name}` stands for one or more characters other than `/`, a `{name:path}` for any rest of the path.
Converters of frameworks (`{id:int}`) are read as `{id}`: a gate that is wider than the router is safe.
Patterns are compared as languages: do two have a path in common, does one contain the other?
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from headgate.model.catalog import Route
from headgate.model.errors import InputError

_WILD = re.compile(r"\{([^{}]*)\}")
_WILD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?::(?P<kind>[a-z]+))?")
SEGMENT_KINDS = frozenset({
    "str", "int", "float", "uuid", "decimal", "date", "datetime", "time", "timedelta",
})  # fmt: skip
"""Wildcards of Starlette and Litestar that stand for one segment."""
_METHOD = re.compile(r"[A-Z][A-Z-]{0,30}")
_METHODS = frozenset(
    [
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "QUERY",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "LOCK",
        "UNLOCK",
        "REPORT",
        "SEARCH",
        "PURGE",
        "LINK",
        "UNLINK",
    ]
)
_SAMPLE_SEGMENT = "\N{MIDDLE DOT}"
_SAMPLE_REST = "\N{BULLET}"


class RouteFault(InputError):
    """A route that cannot be read; `what` is wrong and the `fix`."""

    def __init__(self, what: str, fix: str) -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what}; {fix}")


@dataclass(frozen=True)
class PathPattern:
    """`parts` alternate: literal text at even places, at odd ones `segment` or `rest` for a wildcard."""

    text: str
    parts: tuple[str, ...]

    @property
    def static(self) -> bool:
        """Whether it is one path and nothing else."""
        return len(self.parts) == 1

    @property
    def literal(self) -> str:
        """The path of a static pattern; the text up to the first wildcard otherwise."""
        return self.parts[0]

    @property
    def specificity(self) -> tuple[int, int]:
        """Sorts a pattern that another contains before that other."""
        return -sum(map(len, self.parts[::2])), self.parts[1::2].count("rest")

    @cached_property
    def regex(self) -> str:
        """A regular expression that the whole path has to match, in time that grows with its length only."""
        return path_expression(self.parts)[0]

    @cached_property
    def sample(self) -> str:
        """The pattern as one path, its wildcards filled with characters no literal uses."""
        return self._spelled(str, _SAMPLE_SEGMENT, _SAMPLE_REST)

    def contains(self, other: PathPattern) -> bool:
        """Whether every path `other` matches is matched by this pattern too."""
        mine = self._spelled(re.escape, f"[^/{_SAMPLE_REST}]+", ".*")
        return re.fullmatch(mine, other.sample, re.DOTALL) is not None

    def overlaps(self, other: PathPattern) -> bool:
        """Whether some path is matched by both."""
        shared = min(len(self.literal), len(other.literal))
        if self.literal[:shared] != other.literal[:shared]:
            return False
        if not self._has_rest and not other._has_rest and _differ_in_a_segment(self.sample, other.sample):
            return False
        return _have_common_text(self._steps(), other._steps())

    @property
    def _has_rest(self) -> bool:
        return "rest" in self.parts[1::2]

    def _spelled(self, literal: Callable[[str], str], segment: str, rest: str) -> str:
        wild = {"segment": segment, "rest": rest}
        return "".join(
            literal(part) if index % 2 == 0 else wild[part] for index, part in enumerate(self.parts)
        )

    def _steps(self) -> list[tuple[str, bool]]:
        """One step per character: it, "segment" or "rest"; and whether it may repeat or be left out."""
        steps: list[tuple[str, bool]] = []
        for index, part in enumerate(self.parts):
            if index % 2 == 0:
                steps += [(character, False) for character in part]
            elif part == "segment":
                steps += [("segment", False), ("segment", True)]
            else:
                steps.append(("rest", True))
        return steps


def path_expression(parts: Sequence[str]) -> tuple[str, list[int]]:
    """A regular expression for a pattern; how much longer each wildcard's group is than what it stands for.

    `parts` are as a PathPattern has them. A stranger's path cannot make it slow: in a segment no step is ever
    taken back. A wildcard ends at the first place where the text behind it stands, and the last one of a
    segment takes the rest of the segment, of which the end is then compared. Only a rest of the path, which
    reaches over `/`, tries one segment after the other as its last, because the text behind it says how many
    segments follow. So nothing that the pattern matches is missed.
    """
    expression = re.escape(parts[0])
    longer: list[int] = []
    for kind, behind in zip(parts[1::2], parts[2::2], strict=True):
        ending, slash, further = behind.partition("/")
        last = bool(slash) or (len(longer) == len(parts) // 2 - 1)
        before, least = ("(?:[^/]*+/)*", 0) if kind == "rest" else ("", 1)
        if kind == "rest" and not behind:
            expression += "(.*)"
        elif last:
            look_back = f"(?<={re.escape(ending)})" if ending else ""
            expression += f"({before}[^/]{{{len(ending) + least},}}+){look_back}" + re.escape(slash + further)
        else:
            up_to = f"(?>[^/]{{{least},}}?(?={re.escape(behind)}))"
            expression += f"({before}{up_to})" + re.escape(behind)
        longer.append(len(ending) if last else 0)
    return expression, longer


def _differ_in_a_segment(one: str, other: str) -> bool:
    """Whether two samples without a rest cannot meet; the cheap answer for most pairs."""
    ours, theirs = one.split("/"), other.split("/")
    return len(ours) != len(theirs) or any(
        mine != yours and _SAMPLE_SEGMENT not in mine and _SAMPLE_SEGMENT not in yours
        for mine, yours in zip(ours, theirs, strict=True)
    )


def _have_common_text(ours: list[tuple[str, bool]], theirs: list[tuple[str, bool]]) -> bool:
    """Walk two patterns side by side over all texts at once; is there one that ends both?"""
    seen: set[tuple[int, int]] = set()
    pending = [(0, 0)]
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        i, j = place
        if i == len(ours) and j == len(theirs):
            return True
        if i < len(ours) and ours[i][1]:
            pending.append((i + 1, j))
        if j < len(theirs) and theirs[j][1]:
            pending.append((i, j + 1))
        if i < len(ours) and j < len(theirs) and _share_a_character(ours[i][0], theirs[j][0]):
            pending.append((i if ours[i][1] else i + 1, j if theirs[j][1] else j + 1))
    return False


def _share_a_character(one: str, other: str) -> bool:
    if "rest" in (one, other):
        return True
    if "segment" in (one, other):
        return "/" not in (one, other)
    return one == other


def parse_pattern(text: str) -> PathPattern:
    """Read a path pattern.

    Raises:
        RouteFault: not a canonical path, or wildcards that cannot be told apart.
    """
    _check_path(text)
    parts = _WILD.split(text)
    for index in range(1, len(parts), 2):
        found = _WILD_NAME.fullmatch(parts[index])
        kind = found["kind"] if found else None
        if found is None or (kind is not None and kind != "path" and kind not in SEGMENT_KINDS):
            raise RouteFault(f"`{{{parts[index]}}}` is no wildcard", "write {name} or {name:path}")
        parts[index] = "rest" if kind == "path" else "segment"
    if any("{" in part or "}" in part for part in parts[::2]):
        raise RouteFault(f"`{text}` has a brace without its partner", "write wildcards as {name}")
    if "" in parts[2:-1:2]:
        raise RouteFault(f"`{text}` has two wildcards side by side", "put a `/` or other text between them")
    if parts.count("rest") > 1:
        raise RouteFault(f"`{text}` has two `:path` wildcards", "keep the last one; make the other {name}")
    return PathPattern(text, tuple(parts))


def _check_path(text: str) -> None:
    bare = _WILD.sub("x", text)
    if not text.startswith("/"):
        raise RouteFault(f"`{text}` is no path", "begin it with `/`; the host is seller.public_url")
    if "?" in bare or "#" in bare:
        raise RouteFault(
            f"`{text}` has a query or fragment", "write the path alone; every query of it is gated"
        )
    if "%" in bare or "\\" in bare or ";" in bare:
        raise RouteFault(
            f"`{text}` has an encoded character, `\\` or `;`", "write the decoded path, without them"
        )
    if len(bare) > 1 and bare.endswith("/"):
        raise RouteFault(f"`{text}` ends with `/`", "leave it out: both spellings are gated")
    if any(segment in ("", ".", "..") for segment in bare[1:].split("/")) and bare != "/":
        raise RouteFault(
            f"`{text}` has an empty, `.` or `..` segment", "write the path as the router knows it"
        )
    if not bare.isprintable() or " " in bare or _SAMPLE_SEGMENT in bare or _SAMPLE_REST in bare:
        raise RouteFault(
            f"{text!r} has blanks, `·`, `•` or control characters", "write the path without them"
        )
    if len(text) > 1000:
        raise RouteFault("the path is longer than 1000 characters", "shorten it")


def parse_route(text: str) -> Route:
    """Read `METHOD /path`.

    Raises:
        RouteFault: not that, or a method that is not priced on its own.
    """
    method, blank, path = text.strip().partition(" ")
    path = path.strip()
    if not blank or method.startswith("/"):
        raise RouteFault(f"`{text}` is not a method and a path", 'write it like "POST /v1/documents"')
    if method == "HEAD":
        raise RouteFault("HEAD is gated as the GET of its path", f'write "GET {path}"')
    if method == "OPTIONS":
        raise RouteFault("OPTIONS is never gated, so that CORS preflights pass", "remove this route")
    if not _METHOD.fullmatch(method):
        upper = method.upper()
        fix = f'write "{upper} {path}"' if _METHOD.fullmatch(upper) else 'write it like "POST /v1/documents"'
        raise RouteFault(f"`{method}` is not a method", fix)
    if method not in _METHODS:  # a slip of the pen would leave the route free
        known = get_close_matches(method, sorted(_METHODS), 1) or ["POST"]
        raise RouteFault(f"`{method}` is not an HTTP method", f'write "{known[0]} {path}"')
    parse_pattern(path)
    return Route(method, path)
