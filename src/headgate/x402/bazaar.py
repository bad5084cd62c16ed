"""The Bazaar declaration of a route: what facilitators read to list a resource (x402 v2, extension `bazaar`).

It says how a route is called as far as the configuration knows: the method, which part of the path varies,
that a body is sent. What the body holds is the application's affair, so its schema is any JSON object. Buyers
send the declaration back with their payment, so it is kept small.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from headgate.model.catalog import Route
from headgate.model.path_pattern import parse_pattern, path_expression

BAZAAR = "bazaar"
QUERY_METHODS = frozenset({"GET", "HEAD", "DELETE"})
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
VALUE_LIMIT = 200

Json = dict[str, Any]
_WILD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
_RUNS_ON = re.compile(r"[A-Za-z0-9_]")  # text behind a `:name` that would be read as part of the name
_TEMPLATE = re.compile(r"/[A-Za-z0-9_/:.\-~%]+")
_TEXT = re.compile(r"text/|.*[/+](?:xml|yaml)\b")


@dataclass(frozen=True, slots=True)
class RoutePath:
    """A route's path, taken apart: `names` of its wildcards, and an expression with a group for each.

    `longer` is how many characters of a group are not the wildcard's.
    """

    names: tuple[str, ...]
    expression: re.Pattern[str]
    longer: tuple[int, ...]
    template: str | None

    @classmethod
    def of(cls, route: Route) -> RoutePath:
        """Take it apart; `template` is spelled `/files/:name`, and None where that would be misread."""
        parts = _WILD.split(route.pattern)
        literals, names = parts[::3], parts[1::3]
        expression, longer = path_expression(parse_pattern(route.pattern).parts)
        template = "".join(
            literal + (f":{name}" if name else "")
            for literal, name in zip(literals, [*names, ""], strict=True)
        )
        readable = (
            bool(names)
            and not any(":" in literal for literal in literals)
            and not any(_RUNS_ON.match(literal) for literal in literals[1:])
            and ".." not in template
            and _TEMPLATE.fullmatch(template) is not None
        )
        compiled = re.compile(expression, re.DOTALL)
        return cls(tuple(names), compiled, tuple(longer), template if readable else None)

    def values(self, path: str) -> dict[str, str]:
        """What stands in a path for each wildcard; empty where the path is no such path, or very long."""
        found = self.expression.fullmatch(path) or self.expression.fullmatch(path.removesuffix("/"))
        if found is None:
            return {}
        groups = zip(found.groups(), self.longer, strict=True)
        values = [group[: len(group) - longer] for group, longer in groups]
        if any(len(value) > VALUE_LIMIT for value in values):
            return {}
        return dict(zip(self.names, values, strict=True))


def declaration(route: Route, path: str, mime_type: str = "application/json") -> Json | None:
    """`extensions.bazaar` for a request to `path`; None for a method that Bazaar does not know."""
    method = route.method
    if method not in QUERY_METHODS | BODY_METHODS:
        return None
    parts = RoutePath.of(route)
    values = parts.values(path)
    given: Json = {"type": "http", "method": method}
    allowed: Json = {
        "type": {"type": "string", "const": "http"},
        "method": {"type": "string", "enum": [method]},
        "queryParams": {"type": "object"},
    }
    required = ["type", "method"]
    if method in BODY_METHODS:
        given |= {"bodyType": "json", "body": {}}
        allowed |= {"bodyType": {"type": "string", "enum": ["json"]}, "body": {"type": "object"}}
        required += ["bodyType", "body"]
    if parts.names:
        allowed["pathParams"] = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in parts.names},
            "required": list(dict.fromkeys(parts.names)),
        }
        if values:
            given["pathParams"] = values
    declared: Json = {
        "info": {"input": given, "output": _output(mime_type)},
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "input": {
                    "type": "object",
                    "properties": allowed,
                    "required": required,
                    "additionalProperties": False,
                },
                "output": {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string"},
                        "format": {"type": "string"},
                        "example": {},  # registries look here for the answer's schema; any value
                    },
                    "required": ["type"],
                },
            },
            "required": ["input"],
        },
    }
    if parts.template is not None:
        declared["routeTemplate"] = parts.template
    return declared


def _output(mime_type: str) -> Json:
    if re.match(r"application/(?:.+\+)?json\b", mime_type):
        return {"type": "json"}
    return {"type": "text" if _TEXT.match(mime_type) else "binary", "format": mime_type}
