"""The document API over HTTP, with nothing in front of it."""

import hashlib

import httpx
import pytest

from headgate.demo.documents import SAMPLES, sample
from headgate.demo.documents_api import MAX_BODY_BYTES, create_app

PROCESS, SUMMARISE = "/v1/documents/process", "/v1/documents/summarise"


@pytest.fixture
async def api():
    transport = httpx.ASGITransport(create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://documents.test") as client:
        yield client


def plain(text):
    return {"content": text.encode(), "headers": {"content-type": "text/plain"}}


async def test_process_counts_what_it_is_given(api):
    answer = await api.post(PROCESS, **plain("The cat sat. The dog ran."))
    assert answer.status_code == 200
    assert answer.json() == {
        "media_type": "text/plain",
        "bytes": 25,
        "words": 6,
        "sentences": 2,
        "paragraphs": 1,
        "characters": 25,
        "reading_time_seconds": 2,
        "language": "en",
        "keywords": [{"term": term, "count": 1, "score": 2} for term in ("cat", "sat", "dog", "ran")],
        "sha256": hashlib.sha256(b"The cat sat. The dog ran.").hexdigest(),
    }


@pytest.mark.parametrize("document", SAMPLES, ids=[document.name for document in SAMPLES])
async def test_every_sample_is_read_as_a_body_and_as_an_upload(api, document):
    content = document.read()
    as_body = await api.post(PROCESS, content=content, headers={"content-type": document.media_type})
    as_upload = await api.post(PROCESS, files={"file": (document.name, content, document.media_type)})
    by_name = await api.post(
        PROCESS, files={"document": (document.name, content, "application/octet-stream")}
    )
    assert (as_body.status_code, as_body.json()["bytes"]) == (200, len(content))
    assert as_body.json() == as_upload.json() == by_name.json()


async def test_plain_text_is_hashed_as_its_file_is(api):
    content = sample("mieterbrief.txt").read()
    answer = await api.post(PROCESS, content=content, headers={"content-type": "text/plain; charset=UTF-8"})
    assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()


async def test_the_same_text_has_the_same_measures_in_every_format(api):
    text = "Boats & gulls. They are friends."
    answers = [
        await api.post(PROCESS, **plain(text)),
        await api.post(PROCESS, json={"text": text}),
        await api.post(PROCESS, content=f"# {text}".encode(), headers={"content-type": "text/markdown"}),
        await api.post(
            PROCESS,
            content=b"<p>Boats &amp; gulls.\n They are friends.",
            headers={"content-type": "text/html"},
        ),
        await api.post(PROCESS, content=text.encode("utf-16"), headers={"content-type": "text/plain"}),
        await api.post(PROCESS, content=text.encode(), headers={"content-type": "TEXT/Plain;charset=latin1"}),
    ]
    measures = [
        {k: v for k, v in answer.json().items() if k not in {"bytes", "media_type"}} for answer in answers
    ]
    assert measures == [measures[0]] * len(answers)
    assert (measures[0]["words"], measures[0]["sentences"]) == (5, 2)


async def test_summarise_returns_sentences_of_the_document(api):
    document = sample("release_notes.txt")
    answer = await api.post(
        SUMMARISE, params={"sentences": 2}, content=document.read(), headers={"content-type": "text/plain"}
    )
    found = answer.json()
    assert answer.status_code == 200
    assert [extract["index"] for extract in found["sentences"]] == [1, 5]
    assert found["summary"] == " ".join(extract["text"] for extract in found["sentences"])
    assert found["summary"].startswith("The new release reads Word documents two to three times as fast")
    assert (found["sentences_in_document"], found["words_in_document"], found["language"]) == (11, 144, "en")


async def test_three_sentences_unless_said_otherwise(api):
    answer = await api.post(SUMMARISE, **plain("Boats float on the sea. " * 5))
    assert len(answer.json()["sentences"]) == 3


@pytest.mark.parametrize("asked", ["0", "11", "two", ""])
async def test_a_summary_has_one_to_ten_sentences(api, asked):
    answer = await api.post(f"{SUMMARISE}?sentences={asked}", **plain("A boat."))
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (422, "invalid-parameter")
    assert "query.sentences" in answer.json()["detail"]


async def test_free_routes(api):
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    known = (await api.get("/v1/documents/formats")).json()
    assert known["max_body_bytes"] == MAX_BODY_BYTES
    assert {f["media_type"] for f in known["formats"]} == {d.media_type for d in SAMPLES} | {
        "application/json"
    }


def upload(*files, boundary="b"):
    """A multipart body, written by hand: (field, file name or None, content) each."""
    parts = b""
    for field, name, content in files:
        named = f'; filename="{name}"' if name else ""
        parts += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{named}\r\n\r\n'.encode()
            + content
            + b"\r\n"
        )
    return parts + f"--{boundary}--\r\n".encode()


MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
REFUSED = [
    ("no type", b"hello", {}, 415, "unsupported-format"),
    (
        "curl's own type",
        b"hello",
        {"content-type": "application/x-www-form-urlencoded"},
        415,
        "unsupported-format",
    ),
    ("PDF", b"%PDF-1.7", {"content-type": "application/pdf"}, 415, "unsupported-format"),
    ("an uploaded PDF", upload(("file", "a.pdf", b"%PDF")), MULTIPART, 415, "unsupported-format"),
    (
        "compressed",
        b"\x1f\x8b",
        {"content-type": "text/plain", "content-encoding": "gzip"},
        415,
        "unsupported-encoding",
    ),
    ("empty", b"", {"content-type": "text/plain"}, 422, "unreadable-document"),
    ("binary", b"\0\1\2", {"content-type": "text/plain"}, 422, "unreadable-document"),
    (
        "no Word document",
        b"PK",
        {"content-type": sample("minutes.docx").media_type},
        422,
        "unreadable-document",
    ),
    ("no boundary", b"--b", {"content-type": "multipart/form-data"}, 422, "unreadable-upload"),
    ("no multipart", b"hello", MULTIPART, 422, "unreadable-upload"),
    ("no file", upload(("note", None, b"hello")), MULTIPART, 422, "no-file"),
    ("two files", upload(("a", "a.txt", b"a"), ("b", "b.txt", b"b")), MULTIPART, 422, "unreadable-upload"),
    ("an empty file", upload(("file", "a.txt", b"")), MULTIPART, 422, "unreadable-document"),
    ("too large", b"a" * (MAX_BODY_BYTES + 1), {"content-type": "text/plain"}, 413, "document-too-large"),
    (
        "too large by its own word",
        b"a",
        {"content-type": "text/plain", "content-length": "9" * 30},
        413,
        "document-too-large",
    ),
    (
        "a large upload",
        upload(("file", "a.txt", b"a" * MAX_BODY_BYTES)),
        MULTIPART,
        413,
        "document-too-large",
    ),
]


@pytest.mark.parametrize("path", [PROCESS, SUMMARISE])
@pytest.mark.parametrize(
    ("body", "headers", "status", "name"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_refusals_are_problems(api, path, body, headers, status, name):
    answer = await api.post(path, content=body, headers=headers)
    problem = answer.json()
    assert (answer.status_code, problem["type"].rpartition("/")[2]) == (status, name)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["status"], set(problem)) == (status, {"type", "title", "status", "detail"})
    assert ("text/markdown" in answer.headers.get("accept", "")) == (name == "unsupported-format")


async def test_a_body_of_exactly_the_bound_is_read(api):
    answer = await api.post(PROCESS, **plain("a" * MAX_BODY_BYTES))
    assert (answer.status_code, answer.json()["words"]) == (200, 1)


async def test_a_body_without_a_length_is_bounded_as_it_arrives():
    """The application stops asking once it has seen too much: it takes 17 of 100 pieces of 64 KiB."""
    taken = 0

    async def pieces():
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"a" * 65536

    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app()), base_url="http://t") as client:
        answer = await client.post(PROCESS, content=pieces(), headers={"content-type": "text/plain"})
    assert (answer.status_code, taken) == (413, 17)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", PROCESS, 405), ("POST", "/v1/nothing", 404)])
async def test_other_errors_are_problems_too(api, method, path, status):
    answer = await api.request(method, path)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_api_describes_itself(api):
    paths = (await api.get("/openapi.json")).json()["paths"]
    assert {(path, method) for path, item in paths.items() for method in item} == {
        ("/healthz", "get"),
        ("/v1/documents/formats", "get"),
        (PROCESS, "post"),
        (SUMMARISE, "post"),
    }
    assert "multipart/form-data" in paths[PROCESS]["post"]["requestBody"]["content"]
