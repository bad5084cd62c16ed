"""Which action a request asks for: method and path → action, declared free, unlisted, or ambiguous.

The exact paths are one dictionary, looked into first; patterns follow, the most specific first. HEAD is
matched as GET, and the trailing-slash spelling of a route as that route. A path that servers read in
different ways is matched in all of them: if they do not all lead to one action, it is ambiguous, and the web
layer refuses it (failure case 24). Letter case is significant, as it is to ASGI routers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from urllib.parse import quote

from headgate.model.catalog import Action, Catalog, Route
from headgate.model.path_pattern import PathPattern, parse_pattern
from headgate.model.spelling import is_plain, readings


@dataclass(frozen=True, slots=True)
class Match:
    """What a request asks for. All fields at their default: a route nobody listed."""

    action: Action | None = None
    route: Route | None = None
    free: bool = False
    ambiguous: bool = False

    @property
    def listed(self) -> bool:
        """Whether the configuration says anything about it."""
        return self.action is not None or self.free


UNLISTED = Match()
AMBIGUOUS = Match(ambiguous=True)
FREE = None
"""The target of a route declared free, where others have an action."""


class _Patterns:
    """One method's patterns, found by the text before their first wildcard; the narrowest that fits wins."""

    def __init__(self, listed: list[tuple[PathPattern, Match]]) -> None:
        self._depth = 0
        self._below: dict[str, list[tuple[int, re.Pattern[str], Match]]] = {}
        for rank, (pattern, match) in enumerate(sorted(listed, key=lambda entry: entry[0].specificity)):
            prefix = pattern.literal[: pattern.literal.rindex("/") + 1]
            self._depth = max(self._depth, prefix.count("/"))
            entry = (rank, re.compile(pattern.regex, re.DOTALL), match)
            self._below.setdefault(prefix, []).append(entry)

    def find(self, path: str) -> Match | None:
        """The match of a path read one way."""
        best, found, end = -1, None, 0
        for _ in range(self._depth):
            end = path.find("/", end) + 1
            if not end:
                break
            for rank, expression, match in self._below.get(path[:end], ()):
                if found is not None and rank > best:
                    break
                if expression.fullmatch(path):
                    best, found = rank, match
                    break
        return found


class RouteTable:
    """The routes of one catalog, ready to be looked up.

    Raises InputError where a route cannot be read (a loaded catalog's can).
    """

    def __init__(self, catalog: Catalog) -> None:
        self._sells = bool(catalog.actions)
        self._patterns: dict[str, _Patterns] = {}
        self._exact: dict[tuple[str, str], tuple[Match, bytes]] = {}
        static: dict[tuple[str, str], Match] = {}
        wild: dict[str, list[tuple[PathPattern, Match]]] = {}
        for route, action in routes_of(catalog):
            pattern = parse_pattern(route.pattern)
            match = Match(action=action, route=route, free=action is FREE)
            if pattern.static:
                static[route.method, pattern.literal] = match
            else:
                wild.setdefault(route.method, []).append((pattern, match))
        for method, listed in wild.items():
            self._patterns[method] = _Patterns(listed)
        self._index(static)

    def _index(self, static: dict[tuple[str, str], Match]) -> None:
        """Fill the dictionary of exact paths, with their trailing-slash and HEAD spellings."""
        for (method, path), match in static.items():
            spellings = [path]
            if path != "/" and self._find_pattern(method, path + "/") is None:
                spellings.append(path + "/")
            for spelling in spellings:
                entry = (match, quote(spelling, safe="/!$&'()*+,=:@~").encode())
                self._exact[method, spelling] = entry
                if method == "GET":
                    self._exact["HEAD", spelling] = entry

    def match(self, method: str, path: str, raw_path: bytes | None = None) -> Match:
        """What a request asks for, from the ASGI scope's `method`, `path` and `raw_path`."""
        found = self._exact.get((method, path))
        if found is not None and (raw_path is None or raw_path == found[1]):
            return found[0]
        return self._search(method, path, raw_path)

    def _search(self, method: str, path: str, raw_path: bytes | None) -> Match:
        method = method.upper()
        if method == "HEAD":
            method = "GET"
        elif method == "OPTIONS":
            return UNLISTED
        found = self._look_up(method, path)
        if is_plain(path, raw_path) or not self._sells:
            return found
        ways = readings(path, raw_path)
        if ways is None:
            return AMBIGUOUS
        actions = {id_of(self._look_up(method, way)) for way in ways}
        sold = any(action is not None for action in actions)
        return AMBIGUOUS if sold and len(actions) > 1 else found

    def _look_up(self, method: str, path: str) -> Match:
        """Match one reading of a path."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact[0]
        found = self._find_pattern(method, path)
        if found is None and len(path) > 1 and path.endswith("/"):
            found = self._find_pattern(method, path[:-1])
        return found or UNLISTED

    def _find_pattern(self, method: str, path: str) -> Match | None:
        patterns = self._patterns.get(method)
        return None if patterns is None else patterns.find(path)


def id_of(match: Match) -> str | None:
    """The name of the action a match leads to; None: nothing that is sold."""
    return None if match.action is None else match.action.name


def routes_of(catalog: Catalog) -> Iterator[tuple[Route, Action | None]]:
    """Every route of a catalog with its action (FREE: declared free)."""
    for action in catalog.actions.values():
        for route in action.routes:
            yield route, action
    for route in catalog.free:
        yield route, FREE


@dataclass(frozen=True, slots=True)
class Clash:
    """Two routes that claim the same requests; `where` names what each belongs to.

    `same`: they are one route listed twice; otherwise patterns that overlap.
    """

    first: Route
    first_where: str
    second: Route
    second_where: str
    same: bool


def clashes(routes: Iterable[tuple[Route, str]]) -> Iterator[Clash]:
    """Routes listed twice, and overlapping patterns neither of which contains the other.

    Each route comes with a name of what it belongs to. Overlaps within one action are harmless; an exact
    path beats a pattern, and a narrower pattern the wider one, so those are no clash.
    """
    seen: dict[tuple[str, str], tuple[Route, str]] = {}
    wild: dict[str, list[tuple[PathPattern, Route, str]]] = {}
    for route, where in routes:
        pattern = parse_pattern(route.pattern)
        earlier = seen.setdefault((route.method, pattern.sample), (route, where))
        if earlier[0] is not route:
            yield Clash(*earlier, route, where, same=True)
        elif not pattern.static:
            wild.setdefault(route.method, []).append((pattern, route, where))
    for listed in wild.values():
        for (one, first, first_where), (other, second, second_where) in combinations(listed, 2):
            if first_where == second_where or not one.overlaps(other):
                continue
            if not one.contains(other) and not other.contains(one):
                yield Clash(first, first_where, second, second_where, same=False)
