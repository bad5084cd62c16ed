"""The readable text of an HTML page and of a Markdown document. Pure: text in, text out.

Both answer with paragraphs between blank lines: block elements, headings, list items and table rows each
become a paragraph. What is not prose for a reader is left out: scripts, styles, comments, front matter, code
blocks. Malformed markup is read as browsers would, as far as it goes; nothing here fails.
"""

import html
import re
from collections.abc import Iterator
from typing import Final


def _tags(table: str) -> frozenset[str]:
    return frozenset(table.split())


_BLOCKS: Final = _tags("""
    address article aside blockquote body caption dd details dialog div dl dt fieldset figcaption figure
    footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol option p section summary
    table tbody tfoot thead tr ul
""")
_SPACED: Final = _tags("br td th")
_RAW: Final = _tags("iframe noscript script style textarea title xmp")
"""Elements whose content is not markup: it ends at the end tag alone, whatever stands in it."""
_UNREAD: Final = _tags("head pre svg template")

_TAG_NAME = re.compile(r"/?([a-zA-Z][^\s/>]*)")
_TAG_REST = re.compile(r"""(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")
_SPACES = re.compile(r"[ \t\n\r\f]+")


def html_text(markup: str) -> str:
    """The text of an HTML page's body, entities resolved, paragraphs between blank lines."""
    paragraphs: list[str] = []
    line: list[str] = []
    unread, depth = "", 0
    for tag, text in _html_pieces(markup):
        name = tag.lstrip("/")
        if unread:
            depth += (tag == unread) - (tag == f"/{unread}")
            # A page that forgot </head> still has a body.
            if depth == 0 or (unread == "head" and (tag == "body" or tag in _BLOCKS)):
                unread = ""
            continue
        if name in _BLOCKS or name == "pre":
            paragraphs.append("".join(line))
            line.clear()
        elif tag in _SPACED:
            line.append(" ")
        if tag in _UNREAD:
            unread, depth = tag, 1
        line.append(text)
    paragraphs.append("".join(line))
    clean = (_SPACES.sub(" ", html.unescape(paragraph)).strip(" ") for paragraph in paragraphs)
    return "\n\n".join(paragraph for paragraph in clean if paragraph)


def _html_pieces(markup: str) -> Iterator[tuple[str, str]]:
    """Tags as ("p", "") or ("/p", ""), text as ("", text). Linear, whatever the markup is.

    The standard library's HTMLParser reads an unclosed comment again from each of its starts, so a megabyte
    of them takes minutes in the Python versions at hand; here whatever is not closed ends the reading, as it
    does in browsers.
    """
    at, quotes_close = 0, True
    while (start := markup.find("<", at)) >= 0:
        yield "", markup[at:start]
        name = _TAG_NAME.match(markup, start + 1)
        if name:
            whole = _TAG_REST.match(markup, name.end()) if quotes_close else None
            # Quotes that never close would be sought again by each tag that follows.
            quotes_close = quotes_close and whole is not None
            at = whole.end() if whole else markup.find(">", name.end()) + 1
            tag = name[0].lower()
            yield tag, ""
            if tag in _UNREAD and markup.endswith("/>", start, at):
                yield f"/{tag}", ""
            if tag in _RAW and at:
                close = re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE).search(markup, at)
                at = close.start() if close else 0
        elif markup.startswith("<!--", start):
            at = markup.find("-->", start + 2) + 3
            at = at if at > 2 else 0
        elif markup.startswith(("<!", "<?", "</"), start):
            at = markup.find(">", start) + 1
        else:
            yield "", "<"
            at = start + 1
        if not at:
            return
    yield "", markup[at:]


_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_FRONT_MATTER_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]+|$)")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
_RULE = re.compile(r" {0,3}(?:\*[ \t]*){3,}$| {0,3}(?:-[ \t]*){3,}$| {0,3}(?:_[ \t]*){3,}$")
_QUOTE = re.compile(r" {0,3}>[ \t]?")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?")
_DEFINITION = re.compile(r" {0,3}\[[^\]\[]{1,200}\]:[ \t]*\S")
_TABLE_RULE = re.compile(r"[ \t]*+\|?[ \t]*+:?-++:?[ \t]*+(?:\|[ \t]*+:?-*+:?[ \t]*+)++$")

_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_CODE = re.compile(r"(?<!`)(`{1,8})([^`]+)\1(?!`)")
_AUTOLINK = re.compile(r"<((?:https?|mailto):[^<>\s]{1,2000})>")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,2000}>")
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]{0,2000}\)|\[[^\[\]]{0,200}\])")
_STARS = re.compile(r"\*+|~~")
_UNDERSCORES = re.compile(r"(?<!\w)_++(?=\S)|(?<=\S)(?<!_)_++(?!\w)")

# Private-use characters stand in for escaped punctuation while emphasis is taken out, and are put back.
_HIDE = {point: 0x10FF00 + point for point in range(0x21, 0x7F)}
_SHOW = {hidden: shown for shown, hidden in _HIDE.items()}


def markdown_text(markup: str) -> str:
    """The text of a Markdown document (CommonMark, tables), paragraphs between blank lines."""
    text = _without_comments(_without_front_matter(markup))
    blocks = [_inline("\n".join(lines)) for lines in _blocks(text.splitlines())]
    return "\n\n".join(block for block in blocks if block)


def _without_front_matter(markup: str) -> str:
    """The document behind a leading `---` … `---` block of metadata, if there is one."""
    first, _, rest = markup.partition("\n")
    if first.rstrip() != "---":
        return markup
    end = _FRONT_MATTER_END.search(rest)
    return rest[end.end() :] if end else markup


def _without_comments(markup: str) -> str:
    """The document without what stands between `<!--` and `-->`; a comment that never ends is text."""
    kept: list[str] = []
    at = 0
    while (start := markup.find("<!--", at)) >= 0 and (end := markup.find("-->", start + 4)) >= 0:
        kept.append(markup[at:start])
        at = end + 3
    return "".join((*kept, markup[at:]))


def _blocks(lines: list[str]) -> list[list[str]]:
    """The document's lines in paragraphs, without what marks them up; code blocks left out."""
    blocks: list[list[str]] = [[]]
    fence: str | None = None
    for line in lines:
        line = _unquoted(line)
        opened = _FENCE.match(line)
        if fence is not None:
            if opened and opened[1].startswith(fence) and not line.strip(" `~"):
                fence = None
            continue
        if opened:
            fence = opened[1]
            blocks.append([])
        elif _is_code(line, continues=bool(blocks[-1])) or _is_mark(line):
            blocks.append([])
        elif alone := _HEADING.match(line):
            blocks += [[line[alone.end() :].rstrip().rstrip("#")], []]
        elif item := _ITEM.match(line):
            blocks.append([line[item.end() :]])
        elif line.lstrip().startswith("|"):
            blocks += [[" ".join(line.replace("\\|", "¦").split("|")).replace("¦", "|")], []]
        else:
            blocks[-1].append(line.strip().removesuffix("\\"))
    return blocks


def _unquoted(line: str) -> str:
    """The line without the `>` of the quotations it stands in."""
    for _ in range(16):
        quote = _QUOTE.match(line)
        if quote is None:
            break
        line = line[quote.end() :]
    return line


def _is_code(line: str, *, continues: bool) -> bool:
    """Whether the line is indented code; an indented line that goes on with a paragraph or a list is not."""
    return not continues and line.startswith(("    ", "\t")) and not _ITEM.match(line)


def _is_mark(line: str) -> bool:
    """Whether the line only structures: blank, a rule, an underline, a table's rule, a link definition."""
    return not line.strip() or any(mark.match(line) for mark in (_RULE, _UNDERLINE, _TABLE_RULE, _DEFINITION))


def _inline(text: str) -> str:
    """A paragraph without its inline markup: the words of links, images and code stay."""
    text = _ESCAPE.sub(lambda found: found[1].translate(_HIDE), text)
    text = _CODE.sub(lambda found: found[2].translate(_HIDE), text)
    text = _TAG.sub("", _AUTOLINK.sub(r"\1", text))
    # Twice, for an image inside a link.
    text = _LINK.sub(r"\1", _LINK.sub(r"\1", text))
    text = _UNDERSCORES.sub("", _STARS.sub("", text))
    return html.unescape(text).translate(_SHOW).strip()
