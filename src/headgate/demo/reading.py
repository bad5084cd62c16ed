"""From the bytes of a document and what was said about them to its text. Pure; every refusal is an exception
here.

`UnsupportedError` means another format would do (415), `UnreadableError` that these bytes will not (422).
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from headgate.demo.docx import UnreadableDocxError, docx_text
from headgate.demo.markup import html_text, markdown_text

DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@dataclass(frozen=True, slots=True)
class Format:
    """A format the API reads: its media type, the file names it goes by, and a word for people."""

    media_type: str
    extensions: tuple[str, ...]
    title: str


FORMATS: Final = (
    Format("text/plain", (".txt", ".text"), "Plain text"),
    Format("text/markdown", (".md", ".markdown"), "Markdown"),
    Format("text/html", (".html", ".htm"), "HTML"),
    Format("application/json", (".json",), 'JSON with the text under "text"'),
    Format(DOCX, (".docx",), "Word document"),
)
_BY_TYPE: Final = {form.media_type: form for form in FORMATS} | {
    "text/x-markdown": FORMATS[1],
    "application/xhtml+xml": FORMATS[2],
}

# A list of our own: Python's registry also holds codecs that take quadratic time (punycode, idna).
_CHARSETS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "iso-8859-1": "cp1252",  # as browsers do: WHATWG's Encoding Standard reads both labels as windows-1252
    "latin1": "cp1252",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "iso-8859-15": "iso8859-15",
}
_BYTE_ORDER_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_META_CHARSET: Final = re.compile(
    rb"<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{1,40})", re.IGNORECASE
)


class UnsupportedError(Exception):
    """The format is not one the API reads; the message names those it does."""


class UnreadableError(Exception):
    """The bytes are not a readable document of their format; the message says why and what to send."""


def format_of(media_type: str, filename: str = "") -> Format:
    """The format of a body: by its media type, or by its file name where the type says nothing.

    Browsers and curl send uploads as application/octet-stream when they do not know better. Raises
    UnsupportedError.
    """
    if form := _BY_TYPE.get(media_type):
        return form
    if media_type in {"", "application/octet-stream"}:
        for form in FORMATS:
            if filename.lower().endswith(form.extensions):
                return form
    known = ", ".join(form.media_type for form in FORMATS)
    said = f"Documents of type {media_type!r} are" if media_type else "A document without a Content-Type is"
    raise UnsupportedError(f"{said} not supported. Send one of {known}, or a file as multipart/form-data.")


def text_of(body: bytes, form: Format, charset: str = "") -> str:
    """The text of a document. Raises UnreadableError, also where there is no text in it."""
    if not body:
        raise UnreadableError("The document is empty. Send its bytes as the request body.")
    text = _read(body, form, charset)
    if "\0" in text:
        raise UnreadableError(
            "The document holds NUL characters: it is binary, or its charset is not the one stated."
        )
    if not text.strip():
        raise UnreadableError("There is no text in the document.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnreadableError(
            "The text holds a lone surrogate, half of a character that is not there."
        ) from None
    return text


def _read(body: bytes, form: Format, charset: str) -> str:
    match form.media_type:
        case "text/plain":
            return _decoded(body, charset)
        case "text/markdown":
            return markdown_text(_decoded(body, charset))
        case "text/html":
            return html_text(_decoded(body, charset or _declared_charset(body)))
        case "application/json":
            return _json_text(_decoded(body, charset))
        case _:
            try:
                return docx_text(body)
            except UnreadableDocxError as error:
                raise UnreadableError(f"The Word document cannot be read. {error}") from error


def _decoded(body: bytes, charset: str) -> str:
    """The body as text: by its byte order mark, else the charset stated, else UTF-8."""
    marked = next((entry for entry in _BYTE_ORDER_MARKS if body.startswith(entry[0])), None)
    if marked is not None:
        mark, encoding = marked
        body = body[len(mark) :]
    else:
        stated = _CHARSETS.get(charset.strip("\"' ").lower() or "utf-8")
        if stated is None:
            raise UnreadableError(
                f"The charset {charset[:40]!r} is not known here. Send the document as UTF-8."
            )
        encoding = stated
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"The document is not {encoding}: byte {error.start} does not decode. "
            "Send UTF-8, or state the charset in the Content-Type."
        ) from None


def _declared_charset(page: bytes) -> str:
    """What an HTML page's own <meta> says; browsers look at the first 1,024 bytes too."""
    found = _META_CHARSET.search(page[:1024])
    charset = found[1].decode("ascii", "replace").lower() if found else ""
    # It was read as ASCII to be found at all, so it cannot be UTF-16, whatever it says.
    return "utf-8" if charset.startswith("utf-16") else charset


def _json_text(text: str) -> str:
    """The "text" of a JSON object."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"The body is not JSON that can be read: {error}.") from None
    if not isinstance(document, dict) or not isinstance(document.get("text"), str):
        raise UnreadableError('The JSON has no text. Send an object like {"text": "Dear reader, …"}.')
    found: str = document["text"]
    return found
