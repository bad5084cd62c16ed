"""Path patterns as regular expressions: the same paths as when written naively, and never slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headgate.model.path_pattern import RouteFault, parse_pattern, path_expression
from headgate.model.routing import RouteTable
from tests.model.test_routing import catalog, outcome

NAIVE = {"segment": "[^/]+", "rest": ".*"}
# Few letters, so that texts stand in a path more than once and a wildcard can end at several places.
LITERALS = st.sampled_from(["-", "a", "ab", "aa", "/", "/a", "a/", "/a/b", "a/b", "-a", "/-"])
WILDS = st.sampled_from(["{x}", "{x}", "{x}", "{x:path}"])


@st.composite
def patterns(draw: st.DrawFn) -> tuple[str, ...]:
    """The parts of a pattern that can be written: at most one rest, no two wildcards side by side."""
    text = "/" + draw(st.sampled_from(["", "a", "v/"]))
    for _ in range(draw(st.integers(1, 4))):
        wild = draw(WILDS)
        text += ("{x}" if ":path}" in text else wild) + draw(LITERALS)
    text = text.removesuffix("/")
    try:
        return parse_pattern(text).parts
    except RouteFault:
        return parse_pattern("/{x}").parts


def naive(parts: tuple[str, ...]) -> str:
    return "".join(NAIVE[part] if place % 2 else re.escape(part) for place, part in enumerate(parts))


PATHS = st.text("ab-/", max_size=14).map(lambda text: "/" + text)


@settings(max_examples=1500, deadline=None)
@given(parts=patterns(), path=PATHS, data=st.data())
@example(parts=("/", "segment", "a", "segment", "a"), path="/baa", data=None)
@example(parts=("/", "rest", "a", "segment", "-"), path="/a/ab-", data=None)
def test_an_expression_accepts_what_the_naive_one_does(
    parts: tuple[str, ...], path: str, data: st.DataObject | None
) -> None:
    if data is not None and data.draw(st.booleans()):  # one that fits, or nearly so
        fill = st.text("ab-", min_size=1, max_size=4)
        path = "".join(
            data.draw(st.text("ab-/", max_size=5) if part == "rest" else fill) if place % 2 else part
            for place, part in enumerate(parts)
        ) + data.draw(st.sampled_from(["", "", "", "a", "/"]))
    expected = re.fullmatch(naive(parts), path, re.DOTALL)
    expression, longer = path_expression(parts)
    found = re.fullmatch(expression, path, re.DOTALL)
    assert (found is None) is (expected is None)
    if found is None:
        return
    values = [group[: len(group) - more] for group, more in zip(found.groups(), longer, strict=True)]
    rebuilt = [part if place % 2 == 0 else values[place // 2] for place, part in enumerate(parts)]
    assert "".join(rebuilt) == path
    for kind, value in zip(parts[1::2], values, strict=True):
        assert re.fullmatch(NAIVE[kind], value, re.DOTALL)


STUBBORN = [
    ("/x/{a}-{b}-{c}-{d}-end", "/x/" + "-" * 2000),
    ("/x/{a}-{b}-{c}-{d}", "/x/" + "-" * 2000 + "/y"),
    ("/x/{a}-{b}-{c}-{d}/end", "/x/" + "-" * 2000 + "/y"),
    ("/x/{a:path}-{b}-{c}-{d}-end", "/x/" + "-" * 2000),
    ("/x/{a:path}.{b}", "/x/" + "." * 60_000 + "/y"),
    ("/x/{a:path}/{b}-{c}/{d}-end", "/x" + "/a-b" * 2000),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("pattern", "path"), STUBBORN, ids=lambda text: text[:30])
def test_a_stranger_s_path_is_answered(pattern: str, path: str) -> None:
    """Naively, each wildcard tries every place for each place of the one before it: for hours."""
    assert re.fullmatch(parse_pattern(pattern).regex, path, re.DOTALL) is None
    assert outcome(RouteTable(catalog({"x": [f"GET {pattern}"]})), "GET", path) is None
