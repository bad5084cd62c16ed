"""The declaration of a route: what stands in a path for each wildcard, whatever a stranger asks for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.model.catalog import Route
from headgate.x402.bazaar import VALUE_LIMIT, RoutePath

TEXT = st.text("ab-:", min_size=1, max_size=6)
ROUTES = {
    "/{a}": ("a",),
    "/{a}-{b}": ("a", "b"),
    "/m/{a}:{b}-": ("a", "b"),
    "/{a}b{c}/a{d}": ("a", "c", "d"),
    "/f/{a}/{rest:path}": ("a", "rest"),
    "/f/{rest:path}/v/{a}-{b}": ("rest", "a", "b"),
    "/f/{rest:path}-{a}": ("rest", "a"),
}


@settings(max_examples=500, deadline=None)
@given(pattern=st.sampled_from(sorted(ROUTES)), data=st.data())
def test_values_put_into_the_pattern_give_the_path(pattern: str, data: st.DataObject) -> None:
    given_values = {
        name: data.draw(st.text("ab-:/", max_size=8) if name == "rest" else TEXT) for name in ROUTES[pattern]
    }
    bare = re.sub(r":path", "", pattern)
    path = bare.format(**given_values)
    values = RoutePath.of(Route("GET", pattern)).values(path)
    assert tuple(values) == ROUTES[pattern]
    assert bare.format(**values) == path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["/{a}-{b}-{c}-{d}-end", "/{a:path}-{b}-{c}-{d}-end"])
def test_a_path_of_separators_is_answered(pattern: str) -> None:
    assert RoutePath.of(Route("GET", pattern)).values("/" + "-" * 2000) == {}


def test_a_value_that_is_very_long_is_not_said() -> None:
    parts = RoutePath.of(Route("GET", "/{a}-end"))
    assert parts.values("/" + "v" * VALUE_LIMIT + "-end") == {"a": "v" * VALUE_LIMIT}
    assert parts.values("/" + "v" * (VALUE_LIMIT + 1) + "-end") == {}


@pytest.mark.parametrize(
    ("pattern", "template"),
    [
        ("/x{b}y", None),  # `/x:by` would be a wildcard named `by`
        ("/x{b}7", None),
        ("/x{b}_", None),
        ("/x{b}-y", "/x:b-y"),
        ("/x{b}/y", "/x:b/y"),
        ("/x/{b}", "/x/:b"),
    ],
)
def test_the_template_is_left_out_where_it_would_be_misread(pattern: str, template: str | None) -> None:
    assert RoutePath.of(Route("GET", pattern)).template == template
