"""From a document's bytes to its text: what is read, what is left out, what is refused and in which words."""

import contextlib
import io
import json
import zipfile

import pytest

from headgate.demo import docx, markup, reading
from headgate.demo.documents import sample
from headgate.demo.reading import DOCX, UnreadableError, UnsupportedError, format_of, text_of

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATIONSHIPS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"'
    ' Target="{}"/></Relationships>'
)


def zipped(**parts):
    """A zip archive of the parts; `__` stands for `/` in their names."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/"), content)
    return packed.getvalue()


def word_document(body, *, prolog="", target="word/document.xml", namespace=WORD):
    xml = f'{prolog}<w:document xmlns:w="{namespace}"><w:body>{body}</w:body></w:document>'
    return zipped(**{"_rels/.rels": RELATIONSHIPS.format(target), target.lstrip("/"): xml})


def runs(*texts):
    return "<w:p>" + "".join(f"<w:r><w:t>{text}</w:t></w:r>" for text in texts) + "</w:p>"


FORMATS = [
    ("text/plain", "", "text/plain"),
    ("text/markdown", "x.txt", "text/markdown"),
    ("text/x-markdown", "", "text/markdown"),
    ("application/xhtml+xml", "", "text/html"),
    ("", "README.MD", "text/markdown"),
    ("application/octet-stream", "minutes.docx", DOCX),
    ("application/octet-stream", "page.htm", "text/html"),
]


@pytest.mark.parametrize(("media_type", "filename", "expected"), FORMATS)
def test_the_format_is_told_by_type_then_by_name(media_type, filename, expected):
    assert format_of(media_type, filename).media_type == expected


@pytest.mark.parametrize(
    ("media_type", "filename"),
    [("", ""), ("application/pdf", "x.txt"), ("application/octet-stream", "x.pdf"), ("text/plain2", "")],
)
def test_other_formats_are_unsupported_and_the_known_ones_are_named(media_type, filename):
    with pytest.raises(UnsupportedError, match="text/markdown"):
        format_of(media_type, filename)


PLAIN = [
    ("UTF-8", "Größe".encode(), "", "Größe"),
    ("UTF-8 with its mark", b"\xef\xbb\xbfabc", "", "abc"),
    ("UTF-16 by its mark", b"\xff\xfe" + "Größe".encode("utf-16-le"), "", "Größe"),
    ("the mark wins", b"\xfe\xff" + "Größe".encode("utf-16-be"), "utf-8", "Größe"),
    ("a stated charset", "Größe".encode("latin-1"), "ISO-8859-1", "Größe"),
    ("quotes browsers call Latin-1", b"\x93a\x94", "iso-8859-1", "“a”"),
    ("the euro sign", b"\xa4", "iso-8859-15", "€"),
    ("a quoted charset", b"abc", ' "UTF-8" ', "abc"),
    ("line ends stay as they are", b"a\r\nb\n", "", "a\r\nb\n"),
]


@pytest.mark.parametrize(
    ("body", "charset", "expected"), [row[1:] for row in PLAIN], ids=[r[0] for r in PLAIN]
)
def test_plain_text(body, charset, expected):
    assert text_of(body, format_of("text/plain"), charset) == expected


HTML = [
    ("paragraphs and entities", "<p>One &amp; <b>t</b>wo</p><p>&eacute;&#8364;&#x21;", "One & two\n\né€!"),
    ("white space is one space", "<p> a\n\t b<br>c </p>", "a b c"),
    ("cells are apart, rows are paragraphs", "<table><tr><td>a<td>b<tr><td>c", "a b\n\nc"),
    (
        "head, scripts, styles, templates",
        "<head><title>t</title><script>s</script></head>a<style>x</style>b<template>y</template>",
        "ab",
    ),
    ("script is not markup", "a<script>if (1 < 2) '</p><p>no'</script>b", "ab"),
    ("script that never ends", "a<script>b</p>c", "a"),
    ("only its own end tag", "a<script></scripty></SCRIPT >b", "ab"),
    ("comments", "a<!-- <p>no</p> -- > -->b<!-->c<!--->d", "abcd"),
    ("a comment that never ends", "a<!-- b", "a"),
    ("code blocks", "<p>a<pre>x = 1 <b>y</b></pre>b", "a\n\nb"),
    ("nested drawings", "a<svg><svg><text>x</text></svg>y</svg>b<svg/>c", "abc"),
    ("quotes hide brackets", "<p title=\"a > b\">c</p><p title='>'>d</p>", "c\n\nd"),
    ("quotes that never close", '<p>a<p title="b>c<p>d', "a\n\nc\n\nd"),
    ("a lone bracket is text", "1 < 2 <3 & 4 > 3", "1 < 2 <3 & 4 > 3"),
    ("a tag that never ends", "a<p b", "a"),
    ("declarations", "<?xml version='1.0'?><!DOCTYPE html><html><body>a</body></html>", "a"),
    ("a head that never ends", "<head><title>t</title><body>a", "a"),
    ("a head without a body", "<head><title>t</title><p>a", "a"),
    ("upper case", "<P>a</P><BR><SCRIPT>x</SCRIPT>b", "a\n\nb"),
    ("escaped markup is text", "&lt;p&gt;a", "<p>a"),
    ("nothing", "", ""),
]


@pytest.mark.parametrize(("page", "expected"), [row[1:] for row in HTML], ids=[row[0] for row in HTML])
def test_html(page, expected):
    assert markup.html_text(page) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (b'<meta charset="iso-8859-1"><p>\xe9', "é"),
        (b"<META http-equiv=Content-Type content='text/html; charset=windows-1252'><p>\x80", "€"),
        (b"<meta charset=utf-16><p>\xc3\xa9", "é"),
        (b"<p>\xc3\xa9", "é"),
    ],
)
def test_a_page_may_state_its_own_charset(page, expected):
    assert text_of(page, format_of("text/html")) == expected


MARKDOWN = [
    ("paragraphs", "a\nb\n\nc", "a\nb\n\nc"),
    ("headings", "# A #\ntext\n## B\nC\n===\nd", "A\n\ntext\n\nB\n\nC\n\nd"),
    ("emphasis", "**a** _b_ ***c*** ~~d~~ snake_case __e__ f__g", "a b c d snake_case e f__g"),
    ("escapes", r"\*a\* \_b\_ 1\. \\", "*a* _b_ 1. \\"),
    ("code spans keep their marks", "`a_b*` and ``c ` d``", "a_b* and ``c ` d``"),
    ("code blocks go", "a\n```py\nx = 1\n```\nb\n\n    y = 2\n\nc", "a\n\nb\n\nc"),
    ("a fence within a longer fence", "````\n```\nx\n```\n````\na", "a"),
    ("tildes", "~~~\nx\n```\n~~~\na", "a"),
    ("a fence that never ends", "a\n```\nb", "a"),
    ("links and images", "[a](http://x/y_z) ![b](c.png) [d][e] [f]", "a b d [f]"),
    ("an image in a link", "[![a](b)](c)", "a"),
    ("definitions go", "a\n\n[e]: http://x\n\nb", "a\n\nb"),
    ("autolinks and tags", "<https://x.example/a> <b>c</b> 1 < 2", "https://x.example/a c 1 < 2"),
    ("lists", "- a\n- [x] b\n  c\n1. d\n2) e", "a\n\nb\nc\n\nd\n\ne"),
    ("quotations", "> a\n> > b\n\nc", "a\nb\n\nc"),
    ("tables", "| a | b |\n|---|:-:|\n| c\\|d | e |", "a   b\n\nc|d   e"),
    ("rules", "a\n\n---\n\n* * *\n\nb", "a\n\nb"),
    ("front matter", "---\ntitle: x\n---\na", "a"),
    ("front matter that never ends", "---\na", "a"),
    ("comments", "a <!-- b\nc --> d <!-- e", "a  d <!-- e"),
    ("entities", "a &amp; b &copy; `&amp;`", "a & b © &amp;"),
    ("a numbered year is no list", "2026 was\n2026.", "2026 was\n2026."),
]


@pytest.mark.parametrize(
    ("text", "expected"), [row[1:] for row in MARKDOWN], ids=[row[0] for row in MARKDOWN]
)
def test_markdown(text, expected):
    assert markup.markdown_text(text) == expected


FALLBACK = '<m:Fallback xmlns:m="http://schemas.openxmlformats.org/markup-compatibility/2006">{}</m:Fallback>'
A = "<w:r><w:t>a</w:t></w:r>"
DOCUMENTS = [
    ("runs join", runs("Sea", "son"), "Season"),
    ("paragraphs", runs("a") + runs("b"), "a\n\nb"),
    (
        "breaks and hyphens",
        "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t></w:r></w:p>",
        "a\tb\nc-d",
    ),
    ("deleted text goes", f"<w:p><w:del><w:r><w:delText>x</w:delText></w:r></w:del>{A}</w:p>", "a"),
    ("field codes go", f"<w:p><w:r><w:instrText>PAGE</w:instrText></w:r>{A}</w:p>", "a"),
    ("tab stops are no text", f"<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr>{A}</w:p>", "a"),
    (
        "a text box stands before the paragraph it is in",
        f"<w:p>{A}<w:r><w:txbxContent>{runs('b')}</w:txbxContent></w:r></w:p>",
        "b\n\na",
    ),
    ("fallbacks say it twice", f"<w:p>{FALLBACK.format(A)}{A}</w:p>", "a"),
    ("other vocabularies' t is not text", f'<w:p><m:t xmlns:m="urn:math">x</m:t>{A}</w:p>', "a"),
    ("entities", runs("a &amp; &#233;"), "a & é"),
]


@pytest.mark.parametrize(
    ("body", "expected"), [row[1:] for row in DOCUMENTS], ids=[row[0] for row in DOCUMENTS]
)
def test_docx(body, expected):
    assert docx.docx_text(word_document(body)) == expected


def test_docx_strict_namespace_and_a_main_part_of_another_name():
    strict = "http://purl.oclc.org/ooxml/wordprocessingml/main"
    assert docx.docx_text(word_document(runs("a"), namespace=strict, target="/word/document2.xml")) == "a"


BILLION_LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
MINUTES = sample("minutes.docx").read()


def encrypted():
    """The minutes with the "encrypted" flag set in both headers of every entry."""
    packed = bytearray(MINUTES)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = packed.find(signature)
        while at >= 0:
            packed[at + offset] |= 1
            at = packed.find(signature, at + 4)
    return bytes(packed)


BROKEN_DOCUMENTS = [
    ("no zip", b"hello", "not a whole zip"),
    ("cut off", MINUTES[:900], "not a whole zip"),
    ("damaged", MINUTES[:700] + b"\0" * 40 + MINUTES[740:], "."),
    ("another zip", zipped(**{"a.txt": "a"}), "no _rels/.rels"),
    ("no main part", zipped(**{"_rels/.rels": RELATIONSHIPS.format("word/x.xml")}), "no word/x.xml"),
    ("broken XML", word_document("<w:p>"), "XML is broken"),
    ("a document type", word_document(runs("&b;"), prolog=BILLION_LAUGHS), "declares a document type"),
    ("a bomb", word_document(runs(" " * (docx.MAX_PART_BYTES + 1))), "unpacks to more than"),
    ("encrypted", encrypted(), "encrypted"),
    (
        "too many entries",
        zipped(**{f"{n}": "" for n in range(docx.MAX_ENTRIES + 1)}),
        "more than 2000 entries",
    ),
]


@pytest.mark.parametrize(
    ("body", "why"), [row[1:] for row in BROKEN_DOCUMENTS], ids=[r[0] for r in BROKEN_DOCUMENTS]
)
def test_a_docx_that_cannot_be_read_says_why(body, why):
    with pytest.raises(UnreadableError, match=rf"^The Word document cannot be read\. .*{why}"):
        text_of(body, format_of(DOCX))


UNREADABLE = [
    ("empty", "text/plain", b"", "", "is empty"),
    ("blank", "text/plain", b" \n\t", "", "no text"),
    ("blank page", "text/html", b"<p>&nbsp;</p><script>x</script>", "", "no text"),
    ("not UTF-8", "text/plain", b"ab\xff", "", "not utf-8: byte 2"),
    ("not the charset", "text/plain", b"ab\xff", "us-ascii", "not ascii: byte 2"),
    ("an unknown charset", "text/plain", b"ab", "x-klingon", "'x-klingon' is not known"),
    ("a slow charset", "text/plain", b"ab", "punycode", "'punycode' is not known"),
    ("half a UTF-16 unit", "text/plain", b"\xff\xfea", "", "not utf-16-le"),
    ("binary", "text/plain", b"a\0b", "", "NUL"),
    ("no JSON", "application/json", b"{", "", "not JSON"),
    ("JSON without text", "application/json", b'{"txt": "a"}', "", "has no text"),
    ("JSON of another shape", "application/json", b'["a"]', "", "has no text"),
    ("a text that is none", "application/json", b'{"text": 1}', "", "has no text"),
    ("a lone surrogate", "application/json", b'{"text": "\\ud800"}', "", "lone surrogate"),
    ("too deep", "application/json", b"[" * 100_000, "", "not JSON"),
    ("too many digits", "application/json", b"1" * 10_000, "", "not JSON"),
]


@pytest.mark.parametrize(
    ("media_type", "body", "charset", "why"),
    [row[1:] for row in UNREADABLE],
    ids=[row[0] for row in UNREADABLE],
)
def test_what_cannot_be_read_says_why(media_type, body, charset, why):
    with pytest.raises(UnreadableError, match=why):
        text_of(body, format_of(media_type), charset)


def test_json_text_is_taken_as_it_is():
    text = 'A "quote" and a \U0001f680.\n'
    assert text_of(json.dumps({"text": text, "id": 7}).encode(), format_of("application/json")) == text


MEGABYTE = 1024 * 1024
HOSTILE = [
    ("text/html", "<!--"),
    ("text/html", '<a">"'),
    ("text/html", "<script></script>"),
    ("text/html", "</"),
    ("text/markdown", "--><!--"),
    ("text/markdown", "[a]("),
    ("text/markdown", "-|" + " " * 1000),
    ("text/markdown", "_"),
    ("text/plain", "." * 1000 + "x"),
]


@pytest.mark.parametrize(("media_type", "piece"), HOSTILE, ids=[f"{m} {p[:9]!r}" for m, p in HOSTILE])
def test_a_hostile_megabyte_is_read_in_linear_time(media_type, piece):
    """Quadratic reading would take hours here, and the suite's own time limit would end it."""
    body = (piece * (MEGABYTE // len(piece))).encode()
    with contextlib.suppress(UnreadableError):
        reading.text_of(body, format_of(media_type))
