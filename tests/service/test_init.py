"""`headgate init`: whatever the API, the file it writes loads, with every operation in it or named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.config import load, parse
from headgate.model.catalog import Route
from headgate.model.errors import AlreadyExists, InputError, NotFound
from headgate.service.init import configuration, operations_of, read_openapi, write_config

API: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": 'Acme "Documents"\nAPI', "version": "1"},
    "servers": [{"url": "https://api.acme.example/v2/"}],
    "paths": {
        "/documents": {
            "post": {"operationId": "process_document", "summary": "Process a document"},
            "get": {"summary": "List documents"},
            "parameters": [],
        },
        "/documents/{id}": {"get": {"operationId": "readDocument"}, "delete": {}, "head": {}},
        "/documents/{name}": {"get": {"operationId": "again"}},
        "/models/{m}:generate/": {"post": {"operationId": "models generate"}},
        "/{kind}/latest": {"get": {"operationId": "latest"}},
        "/healthz": {"get": {}},
        "/jobs/{id}/status": {"get": {}},
        "/files/{a}{b}": {"get": {}},
    },
}


def test_without_an_api_the_file_sells_an_example_and_loads(tmp_path: Path) -> None:
    report = write_config(tmp_path / "new" / "shop")
    config = load(str(report.path), {})
    assert report.path == tmp_path / "new" / "shop" / "headgate.toml"
    assert report.actions == tuple(config.catalog.actions) == ("documents.process",)
    assert not config.live
    assert config.x402 is not None
    assert config.x402.networks[0].embedded
    assert any("headgate check" in step for step in report.next_steps)


def test_live_mode_refuses_what_was_left_as_it_was_written() -> None:
    text = (
        configuration({}, ()).replace('mode = "test"', 'mode = "live"').replace('"base-sepolia"', '"polygon"')
    )
    with pytest.raises(Exception, match="everybody has"):
        parse(text.replace('"embedded"', '"polygon"'))


def test_uncommenting_all_suggestions_loads_too() -> None:
    text = configuration({}, ())
    text = re.sub(r"^# (\[|[a-z_]+ +=)", r"\1", text, flags=re.MULTILINE)
    assert "\n# facilitator_headers" not in text
    config = parse(
        text.replace("https://…", "https://f.example").replace('"base-sepolia"', '["base", "base-sepolia"]'),
        environ={"FACILITATOR_KEY": "key"},
    )
    assert config.catalog.actions["chat.complete"].max_units == 25_000
    assert config.auth.audience == "api"
    assert config.idempotency == "replay"


def test_every_operation_of_an_api_is_a_route_or_named_with_the_reason(tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(API))
    report = write_config(tmp_path, document)
    config = load(str(report.path), {})
    catalog = config.catalog
    assert config.seller.name == 'Acme "Documents" API'
    assert config.seller.public_url == "https://api.acme.example"
    routes = {name: action.routes for name, action in catalog.actions.items()}
    assert routes == {
        "process_document": (Route("POST", "/v2/documents"),),
        "get.v2.documents": (Route("GET", "/v2/documents"),),
        "readDocument": (Route("GET", "/v2/documents/{id}"),),
        "delete.v2.documents.id": (Route("DELETE", "/v2/documents/{id}"),),
        "models.generate": (Route("POST", "/v2/models/{m}:generate"),),
        "get.v2.jobs.id.status": (Route("GET", "/v2/jobs/{id}/status"),),
    }
    assert catalog.actions["process_document"].title == "Process a document"
    assert catalog.free == (Route("GET", "/v2/healthz"),)
    assert [line.partition(":")[0] for line in report.skipped] == [
        "GET /v2/documents/{name}",
        "GET /v2/files/{a}{b}",
        "GET /v2/{kind}/latest",
    ]


def test_yaml_is_read_where_it_can_be(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    document = tmp_path / "openapi.yaml"
    document.write_text("openapi: 3.1.0\npaths:\n  /a:\n    post: {summary: A thing}\n")
    assert write_config(tmp_path, document).actions == ("post.a",)


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "headgate.toml").write_text("mine")
    with pytest.raises(AlreadyExists, match="left as it is"):
        write_config(tmp_path)
    assert (tmp_path / "headgate.toml").read_text() == "mine"


@pytest.mark.parametrize("content", ["", "[]", '{"paths": 3}', "{", "a: [", "\x00"])
def test_what_is_no_api_is_refused_and_nothing_written(tmp_path: Path, content: str) -> None:
    document = tmp_path / "api"
    document.write_text(content)
    with pytest.raises(InputError):
        write_config(tmp_path, document)
    assert not (tmp_path / "headgate.toml").exists()
    with pytest.raises(NotFound):
        read_openapi(tmp_path / "none")


texts = st.text(st.characters(codec="utf-8"), max_size=12)
operations = st.dictionaries(
    st.sampled_from(["get", "post", "head", "x-note"]),
    st.fixed_dictionaries({}, optional={"operationId": texts, "summary": texts | st.integers()}) | st.none(),
    max_size=3,
)
segments = (
    st.sampled_from(["a", "b", "{x}", "{y}", "{x}:go", "{p:path}", "", "..", "%41", "é", "{", "a b"]) | texts
)
paths = st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts))
apis = st.fixed_dictionaries(
    {"paths": st.dictionaries(paths | texts, operations, max_size=6)},
    optional={
        "info": st.fixed_dictionaries({}, optional={"title": texts}),
        "servers": st.lists(
            st.fixed_dictionaries(
                {}, optional={"url": texts | st.sampled_from(["/v1", "https://h.example/é b"])}
            ),
            max_size=1,
        ),
        "basePath": texts,
    },
)


@settings(max_examples=300, deadline=None)
@given(apis)
def test_whatever_the_api_the_file_loads_with_all_its_operations(document: dict[str, Any]) -> None:
    listed, skipped = operations_of(document)
    config = parse(configuration(document, listed))
    routes = {str(route) for action in config.catalog.actions.values() for route in action.routes}
    routes |= {str(route) for route in config.catalog.free}
    if listed:
        assert routes == {one.route for one in listed}
    count = sum(
        isinstance(item.get(method), dict)
        for item in document["paths"].values()
        for method in ("get", "post")
    )
    assert len(listed) + len(skipped) == count
