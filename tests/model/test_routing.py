"""Which action a request asks for; and that no spelling of a priced path slips past (failure case 24)."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.model.catalog import Action, Catalog, Route
from headgate.model.path_pattern import RouteFault, parse_pattern, parse_route
from headgate.model.routing import RouteTable, clashes
from headgate.model.spelling import readings


def catalog(actions: dict[str, list[str]], free: list[str] | None = None) -> Catalog:
    return Catalog(
        actions={
            name: Action(name, name, "request", 100_000, routes=tuple(map(parse_route, routes)))
            for name, routes in actions.items()
        },
        plans={},
        free=tuple(map(parse_route, free or [])),
    )


SHOP = catalog(
    {
        "process": ["POST /v1/documents/process"],
        "read": ["GET /v1/files/{id}"],
        "search": ["GET /v1/files/search"],
        "generate": ["POST /v1/models/{name}:generate"],
        "browse": ["GET /v1/tree/{rest:path}"],
        "café": ["GET /v1/café"],
    },
    ["GET /healthz", "GET /", "GET /v1/tree/public/{rest:path}"],
)
TABLE = RouteTable(SHOP)

LOOKUPS = [
    # (method, path, raw path, the action, "free", "ambiguous" or None)
    ("POST", "/v1/documents/process", None, "process"),
    ("POST", "/v1/documents/process", b"/v1/documents/process", "process"),
    ("post", "/v1/documents/process", None, "process"),
    ("POST", "/v1/documents/process/", b"/v1/documents/process/", "process"),
    ("POST", "/v1/documents/process", b"/v1/documents/%70rocess", "process"),
    ("GET", "/v1/documents/process", None, None),
    ("OPTIONS", "/v1/documents/process", None, None),
    ("POST", "/v1/Documents/process", None, None),
    ("POST", "/v1/documents/processes", None, None),
    ("POST", "/v1/documents", None, None),
    ("POST", "//v1/documents/process", None, "ambiguous"),
    ("POST", "/v1//documents/process", None, "ambiguous"),
    ("POST", "/v1/documents/process//", None, "ambiguous"),
    ("POST", "/v1/./documents/process", None, "ambiguous"),
    ("POST", "/v1/x/../documents/process", None, "ambiguous"),
    ("POST", "/../v1/documents/process", None, "ambiguous"),
    ("POST", "/v1/documents/process/.", None, "ambiguous"),
    ("POST", "/v1/documents/process/x/..", None, "ambiguous"),
    ("POST", "/v1\\documents\\process", None, "ambiguous"),
    ("POST", "\\v1/documents/process", None, "ambiguous"),
    ("POST", "/v1/documents/process", b"/v1%2Fdocuments/process", "ambiguous"),
    ("POST", "/v1/documents/process", b"/v1/documents%2fprocess", "ambiguous"),
    ("POST", "/v1%2Fdocuments/process", b"/v1%252Fdocuments/process", "ambiguous"),
    ("POST", "/v1/documents/process%20", b"/v1/documents/process%2520", "ambiguous"),
    ("POST", "/v1/documents/process;v=1", None, "ambiguous"),
    ("POST", "/v1;x/documents/process", None, "ambiguous"),
    ("POST", "/v1/documents/process\x00.html", None, "ambiguous"),
    ("POST", "/v1/documents/process?x", b"/v1/documents/process%3Fx", "ambiguous"),
    ("POST", "/v1/documents/process#x", None, "ambiguous"),
    ("POST", "/v1/documents/process ", None, "ambiguous"),
    ("POST", "v1/documents/process", None, "ambiguous"),
    ("GET", "/v1/files/7", None, "read"),
    ("GET", "/v1/files/7/", None, "read"),
    ("HEAD", "/v1/files/7", None, "read"),
    ("HEAD", "/v1/files/search", None, "search"),
    ("GET", "/v1/files/", None, None),
    ("GET", "/v1/files/7/8", None, None),
    ("GET", "/v1/files/a b;c", b"/v1/files/a%20b;c", "read"),  # every reading is the same action
    ("GET", "/v1/files/7/8", b"/v1/files/7%2F8", "ambiguous"),  # one file named 7/8 to some routers
    ("GET", "/v1/files/search", None, "search"),
    ("GET", "/v1/files/search;x", None, "ambiguous"),  # a file named so, or the search
    ("GET", "/v1/files/7/../search", None, "ambiguous"),
    ("POST", "/v1/models/m-1:generate", None, "generate"),
    ("POST", "/v1/models/m-1:delete", None, None),
    ("GET", "/v1/tree/a/b/c", None, "browse"),
    ("GET", "/v1/tree/", None, "browse"),
    ("GET", "/v1/tree/public/a", None, "free"),
    ("GET", "/v1/tree/a/../b", None, "browse"),
    ("GET", "/v1/tree/../files/7", None, "ambiguous"),
    ("GET", "/v1/tree/public/../secret", None, "ambiguous"),
    ("GET", "/v1/café", b"/v1/caf%C3%A9", "café"),
    ("GET", "/healthz", b"/healthz", "free"),
    ("HEAD", "/healthz", b"/healthz", "free"),
    ("GET", "/", b"/", "free"),
    ("GET", "/docs//x", None, None),  # nothing is sold there in any reading
    ("GET", "/proxy/http://h/x;y", None, None),
    ("GET", "/" + "%25" * 40 + "a//b", None, None),
    ("GET", "/" + "a/../" * 2000, None, "ambiguous"),  # too long to tell
]


def outcome(table: RouteTable, method: str, path: str, raw_path: bytes | None = None) -> str | None:
    match = table.match(method, path, raw_path)
    if match.ambiguous:
        return "ambiguous"
    if match.action is not None:
        return match.action.name
    return "free" if match.free else None


@pytest.mark.parametrize(
    ("method", "path", "raw_path", "expected"), LOOKUPS, ids=[f"{r[0]} {r[1][:40]!r}" for r in LOOKUPS]
)
def test_what_a_request_asks_for(
    method: str, path: str, raw_path: bytes | None, expected: str | None
) -> None:
    assert outcome(TABLE, method, path, raw_path) == expected


def test_a_match_names_the_route_and_says_whether_it_is_listed() -> None:
    match = TABLE.match("HEAD", "/v1/files/7")
    assert match.route == Route("GET", "/v1/files/{id}")
    assert match.listed
    assert TABLE.match("GET", "/healthz").listed
    assert not TABLE.match("GET", "/docs").listed


def test_a_slash_at_the_end_belongs_to_the_pattern_that_matches_it_exactly() -> None:
    table = RouteTable(catalog({"rest": ["GET /a/{rest:path}"]}, ["GET /a"]))
    assert outcome(table, "GET", "/a") == "free"
    assert outcome(table, "GET", "/a/") == "rest"


def test_where_nothing_is_sold_nothing_is_refused() -> None:
    assert outcome(RouteTable(catalog({}, ["GET /x"])), "GET", "//x/../x;y%2f") is None


# --- no spelling slips past -------------------------------------------------------------------------

SLASHES = [
    "/",
    "//",
    "/./",
    "\\",
    "/x/../",
    "%2f",
    "%2F",
    "%5c",
    "%252f",
    "/%2e/",
    "/x/%2e%2e/",
    "/;a=b/",
    "/\t/",
    "%00/",
]
ENDINGS = [
    "",
    "/",
    "//",
    "/.",
    "/x/..",
    ";a",
    ";a=b;c",
    "%3ba",
    "%20",
    " ",
    "%2f",
    "\\",
    "?",
    "%3f",
    "%23x",
    "/%2e",
    "\x00",
]


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """A path as sent: `/v1/documents/process`, with anything in it that some server overlooks."""
    sent = draw(st.sampled_from(["", "/..", "/.", "/x/.."]))
    for segment in ("v1", "documents", "process"):
        letters = [f"%{ord(c):02x}" if draw(st.integers(0, 9)) == 0 else c for c in segment]
        sent += draw(st.sampled_from(SLASHES)) + "".join(letters)
    sent += draw(st.sampled_from(ENDINGS))
    return quote(sent, safe="/%;\\?\t ") if draw(st.booleans()) else sent


@settings(max_examples=1000)
@given(spellings())
def test_no_spelling_of_a_priced_path_is_left_to_the_application(sent: str) -> None:
    path = unquote(sent.partition("?")[0])
    assert outcome(TABLE, "POST", path, sent.encode("latin-1")) in ("process", "ambiguous")
    assert outcome(TABLE, "POST", path) in ("process", "ambiguous")


@given(st.text(max_size=60), st.binary(max_size=60))
def test_any_path_has_an_answer(path: str, raw_path: bytes) -> None:
    TABLE.match("GET", path, raw_path)
    ways = readings(path, raw_path)
    assert ways is None or path in ways


# --- patterns ----------------------------------------------------------------------------------------

RELATIONS = [
    # (one, other, do they overlap, does one contain the other)
    ("/a/{x}", "/a/{y}", True, True),
    ("/a/{x}", "/b/{x}", False, False),
    ("/a/{x}", "/a/b", True, True),
    ("/a/b", "/a/{x}", True, False),
    ("/{x}/b", "/a/{y}", True, False),
    ("/{x}/b", "/{x}/c", False, False),
    ("/a/{r:path}", "/a/{x}", True, True),
    ("/a/{x}", "/a/{r:path}", True, False),
    ("/a/{r:path}", "/a/b/{s:path}", True, True),
    ("/{r:path}/z", "/a/{s:path}", True, False),
    ("/a/{x}:go", "/a/{y}", True, False),
    ("/a/{x}:go", "/a/{y}:stop", False, False),
    ("/a/x{y}", "/a/{z}x", True, False),
    ("/a/{x:int}", "/a/{y}", True, True),
    ("/a/{x}", "/a/{x}/b", False, False),
]


@pytest.mark.parametrize(("one", "other", "overlap", "contains"), RELATIONS)
def test_how_patterns_relate(one: str, other: str, overlap: bool, contains: bool) -> None:
    first, second = parse_pattern(one), parse_pattern(other)
    assert first.overlaps(second) is second.overlaps(first) is overlap
    assert first.contains(second) is contains


pieces = st.sampled_from(["a", "b", "ab", "{x}", "a{x}", "{x}b"])
patterns = st.tuples(st.lists(pieces, min_size=1, max_size=3), st.booleans()).map(
    lambda drawn: "/" + "/".join(drawn[0]) + ("/{r:path}" if drawn[1] else "")
)
paths = st.lists(st.sampled_from(["a", "b", "ab", "aab", "c"]), min_size=1, max_size=5).map(
    lambda s: "/" + "/".join(s)
)


@settings(max_examples=400)
@given(patterns, patterns, st.lists(paths, min_size=20, max_size=20))
def test_a_common_path_means_an_overlap_and_containing_means_all_of_them(
    one: str, other: str, tried: list[str]
) -> None:
    first, second = parse_pattern(one), parse_pattern(other)
    matches = [
        tuple(re.fullmatch(pattern.regex, path, re.DOTALL) is not None for pattern in (first, second))
        for path in tried
    ]
    if (True, True) in matches:
        assert first.overlaps(second)
    if first.contains(second):
        assert first.overlaps(second)
        assert first.specificity >= second.specificity
        assert (False, True) not in matches


@settings(max_examples=200)
@given(st.lists(patterns, min_size=1, max_size=6, unique_by=lambda text: parse_pattern(text).sample), paths)
def test_the_narrowest_pattern_wins_where_nothing_clashes(texts: list[str], path: str) -> None:
    actions = {text: [f"GET {text}"] for text in texts}
    if list(clashes((parse_route(f"GET {text}"), text) for text in texts)):
        return
    matching = [p for p in map(parse_pattern, texts) if re.fullmatch(p.regex, path, re.DOTALL)]
    narrowest = [p for p in matching if all(other.contains(p) for other in matching)]
    expected = next((p.text for p in narrowest if p.static), narrowest[0].text if narrowest else None)
    assert bool(matching) == bool(narrowest)
    if expected is not None:
        assert outcome(RouteTable(catalog(actions)), "GET", path) == expected


def test_clashes_are_duplicates_and_crossing_patterns() -> None:
    routes = [
        (parse_route("GET /a/{x}"), "one"),
        (parse_route("GET /a/{y}"), "two"),
        (parse_route("POST /a/{y}"), "two"),
        (parse_route("GET /{z}/b"), "three"),
        (parse_route("GET /a/b"), "four"),
        (parse_route("GET /{r:path}"), "five"),
        (parse_route("GET /a/b"), "four"),
    ]
    found = {(clash.first_where, clash.second_where, clash.same) for clash in clashes(routes)}
    assert found == {("one", "two", True), ("one", "three", False), ("four", "four", True)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET",
        "/a",
        "GET a",
        "GET /a?b",
        "GET /a#b",
        "GET /a/../b",
        "GET /a;b",
        "GET /a b",
        "GET /{}",
        "GET /{a:re}",
        "GET /}",
        "GET /{a:path}/{b:path}",
        "G@T /a",
        "GET /" + "a" * 1000,
        "GET /a\x00",
        "GET http://h/a",
    ],
)
def test_what_is_no_route(text: str) -> None:
    with pytest.raises(RouteFault):
        parse_route(text)


@given(st.text(max_size=40))
def test_any_text_is_a_route_or_a_fault(text: str) -> None:
    try:
        route = parse_route("GET " + text)
    except RouteFault:
        return
    assert str(route) == f"GET {route.pattern}"
    RouteTable(Catalog({"a": Action("a", "a", "a", 1, routes=(route,))}, {}))


@pytest.mark.parametrize(
    ("written", "meant"), [("FETCH /b", "PATCH"), ("GTE /b", "GET"), ("POTS /b", "POST")]
)
def test_a_method_that_does_not_exist_is_no_route(written: str, meant: str) -> None:
    """It would match nothing, and leave the route that was meant free."""
    with pytest.raises(RouteFault) as refused:
        parse_route(written)
    assert "is not an HTTP method" in str(refused.value)
    assert meant in refused.value.fix
