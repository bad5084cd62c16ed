"""The text of a Word document (.docx, ECMA-376). Pure: bytes in, text out, nothing is written or fetched.

A .docx is a zip archive; its relationships name the main part, whose `w:p` elements are the paragraphs. The
archive comes from a stranger: how much of it is unpacked is bounded, and a document type
declaration (no .docx has one, every entity attack does) ends the reading.
"""

import io
import zipfile
import zlib
from typing import Final
from xml.parsers import expat

MAX_PART_BYTES: Final = 8 * 1024 * 1024
"""What one part may unpack to: eight times the largest body, enough for XML that is mostly tags."""

MAX_ENTRIES: Final = 2000

_WORD_NAMESPACES: Final = (
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "http://purl.oclc.org/ooxml/wordprocessingml/main",
)
_FALLBACK: Final = "http://schemas.openxmlformats.org/markup-compatibility/2006 Fallback"
_SPACING: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": "\u00ad"}


class UnreadableDocxError(ValueError):
    """The bytes are not a Word document that can be read; the message says why."""


def docx_text(body: bytes) -> str:
    """The document's paragraphs in order, between blank lines. UnreadableDocxError if it cannot be."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            if len(archive.infolist()) > MAX_ENTRIES:
                raise UnreadableDocxError(f"The archive has more than {MAX_ENTRIES} entries.")
            xml = _part(archive, _main_part(archive))
    except UnreadableDocxError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise UnreadableDocxError(
            "The file is not a whole zip archive, so it is not a .docx document."
        ) from error
    except (RuntimeError, NotImplementedError) as error:
        raise UnreadableDocxError(
            "The document is encrypted or packed in a way Word does not use."
        ) from error
    return _Paragraphs().read(xml)


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise UnreadableDocxError(f"The archive has no {name}, so it is not a .docx document.") from None
    with archive.open(info) as part:
        # The directory may lie about the size; the bytes read cannot.
        content = part.read(MAX_PART_BYTES + 1)
    if len(content) > MAX_PART_BYTES:
        raise UnreadableDocxError(f"{name} unpacks to more than {MAX_PART_BYTES} bytes.")
    return content


def _main_part(archive: zipfile.ZipFile) -> str:
    """The name of the main part, as the package's relationships give it; by custom `word/document.xml`."""
    targets: list[str] = []

    def relationship(name: str, attributes: dict[str, str]) -> None:
        if name.endswith(" Relationship") and attributes.get("Type", "").endswith("/officeDocument"):
            targets.append(attributes.get("Target", "").lstrip("/"))

    parser = _parser()
    parser.StartElementHandler = relationship
    _parse(parser, _part(archive, "_rels/.rels"))
    return targets[0] if targets else "word/document.xml"


class _Paragraphs:
    """Gathers the text runs of each `w:p`. Text boxes nest paragraphs in paragraphs, hence the stack."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._open: list[list[str]] = []
        self._in_text = False
        self._skipped = 0

    def read(self, xml: bytes) -> str:
        parser = _parser()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        _parse(parser, xml)
        return "\n\n".join(self._done)

    def _start(self, name: str, _: dict[str, str]) -> None:
        # Word writes a drawing's text twice: for readers that know the drawing, and as a fallback.
        if name == _FALLBACK or self._skipped:
            self._skipped += 1
            return
        tag = _word_tag(name)
        if tag == "p":
            self._open.append([])
        elif tag == "t":
            self._in_text = True
        elif tag in _SPACING and self._open:
            self._open[-1].append(_SPACING[tag])

    def _end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        tag = _word_tag(name)
        if tag == "t":
            self._in_text = False
        elif tag == "p":
            paragraph = "".join(self._open.pop()).strip()
            if paragraph:
                self._done.append(paragraph)

    def _characters(self, data: str) -> None:
        if self._in_text and self._open and not self._skipped:
            self._open[-1].append(data)


def _word_tag(name: str) -> str:
    """The local name of a WordprocessingML element; empty for every other element (`w:t` is text, `m:t` is
    not)."""
    namespace, _, local = name.rpartition(" ")
    return local if namespace in _WORD_NAMESPACES else ""


def _parser() -> expat.XMLParserType:
    def refuse(*_: object) -> None:
        raise UnreadableDocxError("The document's XML declares a document type, which no .docx does.")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    return parser


def _parse(parser: expat.XMLParserType, xml: bytes) -> None:
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise UnreadableDocxError(f"The document's XML is broken: {error}.") from error
