"""Acme Documents: an HTTP API that reads documents. The stranger's application of the demo.

It knows nothing of Headgate, prices or payments: two actions that do work (`process`, `summarise`), a list
of the formats it reads, and a health check. Errors are problem documents (RFC 9457). Run it bare with
`uvicorn --factory headgate.demo.documents_api:create_app`.
"""

from collections.abc import AsyncGenerator
from dataclasses import asdict
from email.message import Message
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from headgate.demo import analysis
from headgate.demo.reading import FORMATS, Format, UnreadableError, UnsupportedError, format_of, text_of

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_SUMMARY_SENTENCES: Final = 10


class Keyword(BaseModel):
    """A word, how often it occurs, and its score (occurrences + sentences it occurs in)."""

    term: str
    count: int
    score: int


class Measures(BaseModel):
    """What `process` answers."""

    media_type: str
    bytes: int
    words: int
    sentences: int
    paragraphs: int
    characters: int
    reading_time_seconds: int
    language: str | None
    keywords: list[Keyword]
    sha256: str


class Extract(BaseModel):
    """A sentence of the document, by its place in it."""

    index: int
    text: str
    score: int


class Summary(BaseModel):
    """What `summarise` answers."""

    media_type: str
    bytes: int
    language: str | None
    summary: str
    sentences: list[Extract]
    sentences_in_document: int
    words_in_document: int
    sha256: str


class FormatRead(BaseModel):
    """A format the API reads."""

    media_type: str
    extensions: list[str]
    title: str


class Formats(BaseModel):
    """What `formats` answers."""

    formats: list[FormatRead]
    max_body_bytes: int


class ProblemError(Exception):
    """An answer other than 2xx: a status, a stable name and a sentence for people."""

    def __init__(self, status: int, name: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.name, self.detail, self.headers = status, name, detail, headers or {}


_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD: Final = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}
_TEXT_OBJECT: Final = {
    "schema": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
}
_REQUEST_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {form.media_type: _BINARY for form in FORMATS}
        | {"application/json": _TEXT_OBJECT, "multipart/form-data": _UPLOAD},
    }
}
_PROBLEM_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": {}}}
    for status in (400, 413, 415, 422)
}


def create_app() -> FastAPI:
    """A new instance of the application; it keeps no state."""
    app = FastAPI(
        title="Acme Documents",
        version="1.0.0",
        description="Send a document, get its measures or its most telling sentences.",
    )
    app.add_api_route("/healthz", healthz, methods=["GET"])
    app.add_api_route("/v1/documents/formats", formats, methods=["GET"], response_model=Formats)
    app.add_api_route(
        "/v1/documents/process",
        process,
        methods=["POST"],
        response_model=Measures,
        responses=_PROBLEM_ANSWERS,
        openapi_extra=_REQUEST_BODY,
    )
    app.add_api_route(
        "/v1/documents/summarise",
        summarise,
        methods=["POST"],
        response_model=Summary,
        responses=_PROBLEM_ANSWERS,
        openapi_extra=_REQUEST_BODY,
    )
    app.add_exception_handler(ProblemError, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    return app


async def healthz() -> dict[str, str]:
    """That the process answers."""
    return {"status": "ok"}


async def formats() -> Formats:
    """The formats the API reads and the largest body it takes."""
    known = [
        FormatRead(media_type=f.media_type, extensions=list(f.extensions), title=f.title) for f in FORMATS
    ]
    return Formats(formats=known, max_body_bytes=MAX_BODY_BYTES)


async def process(request: Request) -> Measures:
    """Count a document's words, sentences, paragraphs and characters; tell language and keywords."""
    body, form, charset = await _document(request)

    def work() -> Measures:
        found = analysis.analyse(_text(body, form, charset))
        return Measures(media_type=form.media_type, bytes=len(body), **asdict(found))

    # A megabyte takes about a second: off the event loop, so that others are served meanwhile.
    return await run_in_threadpool(work)


async def summarise(
    request: Request, sentences: Annotated[int, Query(ge=1, le=MAX_SUMMARY_SENTENCES)] = 3
) -> Summary:
    """The few sentences of a document that say most of it, in the document's own words and order."""
    body, form, charset = await _document(request)

    def work() -> Summary:
        found = analysis.summarise(_text(body, form, charset), sentences)
        joined = " ".join(extract.text for extract in found.sentences)
        return Summary(media_type=form.media_type, bytes=len(body), summary=joined, **asdict(found))

    return await run_in_threadpool(work)


def _text(body: bytes, form: Format, charset: str) -> str:
    try:
        return text_of(body, form, charset)
    except UnreadableError as error:
        raise ProblemError(422, "unreadable-document", str(error)) from error


async def _document(request: Request) -> tuple[bytes, Format, str]:
    """The request's document as (bytes, format, charset): the body itself, or the one file in it."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ProblemError(
            415, "unsupported-encoding", f"Content-Encoding {encoding[:40]!r} is not supported."
        )
    media_type, charset = _content_type(request.headers.get("content-type", ""))
    try:
        if media_type != "multipart/form-data":
            form = format_of(media_type)
            return await _bounded_body(request), form, charset
        content, content_type, filename = await _uploaded_file(request, await _bounded_body(request))
        media_type, charset = _content_type(content_type)
        return content, format_of(media_type, filename), charset
    except UnsupportedError as error:
        accepted = ", ".join((*(form.media_type for form in FORMATS), "multipart/form-data"))
        raise ProblemError(415, "unsupported-format", str(error), {"accept": accepted}) from error


def _content_type(value: str) -> tuple[str, str]:
    """A Content-Type header as (media type in lower case, charset), either empty if not stated."""
    if not value.strip():
        return "", ""
    message = Message()
    message["content-type"] = value
    return value.partition(";")[0].strip().lower(), message.get_content_charset("")


async def _bounded_body(request: Request) -> bytes:
    """The whole body; a 413 as soon as it is known to be too large, before it is read if it says so."""
    too_large = ProblemError(
        413, "document-too-large", f"A request body may have {MAX_BODY_BYTES} bytes at most."
    )
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


async def _uploaded_file(request: Request, body: bytes) -> tuple[bytes, str, str]:
    """The only file of a multipart/form-data body, whatever its field is called: (bytes, type, name)."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = MultiPartParser(
        request.headers, stream(), max_files=1, max_fields=16, max_part_size=MAX_BODY_BYTES
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        reason = getattr(error, "message", "") or "it states no boundary"
        raise ProblemError(
            422, "unreadable-upload", f"The multipart body cannot be read: {reason.rstrip('.')}."
        ) from error
    try:
        for value in form.values():
            if isinstance(value, UploadFile):
                return await value.read(), value.content_type or "", value.filename or ""
    finally:
        await form.close()
    raise ProblemError(
        422, "no-file", "The multipart body has no file. Send one, as curl -F file=@NAME does."
    )


def _problem(status: int, name: str, detail: str, headers: dict[str, str]) -> JSONResponse:
    content = {
        "type": f"https://docs.acme-documents.example/problems/{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return JSONResponse(content, status, headers, media_type="application/problem+json")


async def _answer_problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return _problem(error.status, error.name, error.detail, error.headers)


async def _answer_http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return _problem(error.status_code, name, error.detail, dict(error.headers or {}))


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return _problem(422, "invalid-parameter", found, {})
