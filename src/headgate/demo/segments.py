"""Where words, characters, paragraphs and sentences begin and end. Pure: text in, slices of it out.

Words follow Unicode's text segmentation (UAX #29, rules WB4 to WB13b) with changes that people who count
words expect: a hyphen inside a word joins as an apostrophe does ("well-known", "don’t"), so does a full stop
between any two letters or digits ("file1.txt"), and a colon or a no-break space between digits ("10:30", "10
000"). Languages written without spaces are counted as UAX #29 counts them where no dictionary is at hand:
each ideograph and each hiragana is a word, a run of katakana or Thai is one.

Sentences follow rules, not statistics, so the same text always gives the same answer: a terminator ends a
sentence unless it belongs to a number, an abbreviation, an initial, an enumeration, or the next word goes on
in lower case.
"""

import re
import unicodedata
from collections.abc import Iterator

from headgate.demo.lexicon import BEFORE_NUMBER, NEVER_LAST, SOMETIMES_LAST, STOP_WORDS, Language


def _ranges(categories: frozenset[str]) -> str:
    """The characters of these general categories, as the inside of a regular expression's class."""
    # No combining mark or format character is assigned between U+1F000 and U+E0000, nor after U+E01FF.
    assigned = (*range(0x1F000), *range(0xE0000, 0xE0200))
    parts: list[str] = []
    start = previous = -2
    for point in (p for p in assigned if unicodedata.category(chr(p)) in categories):
        if point != previous + 1:
            if start >= 0:
                parts.append(f"\\U{start:08x}-\\U{previous:08x}")
            start = point
        previous = point
    parts.append(f"\\U{start:08x}-\\U{previous:08x}")
    return "".join(parts)


# Marks and invisible format characters (soft hyphen, joiners) belong to the character before them. The
# invisible mathematical operators and the byte order mark come with the category and do no harm.
_EXTEND = _ranges(frozenset(("Mn", "Mc", "Me", "Cf")))
_SINGLE = r"\u3041-\u3096\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CORE = rf"[^\W_{_SINGLE}]"
_UNIT = rf"(?:{_CORE}[{_EXTEND}]*+)++"
_JOINT = (
    r"(?:['’ʼ＇.\-‐‑]|_++"
    r"|(?<=\d)(?:[,:](?=\d)|[\u00a0\u202f](?=\d{3}(?!\d))))"
)
_WORD = re.compile(rf"[{_SINGLE}][{_EXTEND}]*+|{_UNIT}(?:{_JOINT}{_UNIT})*+")

_PICTURE = r"[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff]"
_FLAG_LETTER = r"[\U0001f1e6-\U0001f1ff]"
_SKIN = r"\U0001f3fb-\U0001f3ff"
_CHARACTER = re.compile(
    rf"\r\n|{_FLAG_LETTER}{{2}}"
    rf"|{_PICTURE}[{_EXTEND}{_SKIN}]*+(?:(?<=\u200d){_PICTURE}[{_EXTEND}{_SKIN}]*+)*+"
    rf"|[\s\S][{_EXTEND}]*+"
)

_TERMINATOR = re.compile(
    r"(?<![.!?…‽؟۔।])[.!?…‽؟۔।]++"
    r"(?:[\"'’”»«)\]}›“]|[ \u00a0\u202f]»(?!\w))*+(?=\s|$)"
    r"|[。！？｡]++[」』）”’]*+"
)
_SPACES = re.compile(r"[ \t\n\r\f\v]+")
_OPENERS = " \u00a0\u202f\"'‘’“”„«‹»›([{¿¡–—-*•"
_ENUMERATOR = re.compile(r"\(?(?:\d{1,3}(?:\.\d{1,3}){0,4}|[^\W\d_]|[ivxIVX]{1,4})\)?\.")
_PIECES = re.compile(r"[^\W\d_]{1,2}(?:\.-?[^\W\d_]{1,2})+")
_NUMBER = re.compile(r"[\dIVXivx§(]")


def words(text: str) -> list[str]:
    """The words of `text` in order, as written."""
    return _WORD.findall(text)


def character_count(text: str) -> int:
    """How many characters a reader sees, spaces and line ends included: UAX #29 grapheme clusters, in short.

    "é" is one however it is encoded, and so are a family emoji, a flag, a Windows line end.
    """
    return sum(1 for _ in _CHARACTER.finditer(text))


def paragraphs(text: str) -> list[str]:
    """The blocks between blank lines that hold at least one word; white space inside them becomes single."""
    blocks: list[str] = []
    lines: list[str] = []
    for line in (*text.replace("\u2029", "\n\n").splitlines(), ""):
        if line.strip():
            lines.append(line.strip())
        elif lines:
            blocks.append(_SPACES.sub(" ", " ".join(lines)))
            lines = []
    return [block for block in blocks if _WORD.search(block)]


def sentences(paragraph: str, language: Language | None = None) -> list[str]:
    """The sentences of one paragraph (white space already single), each with at least one word.

    What follows the last terminator counts as a sentence too, so a heading is one. `language` sharpens what
    opens a sentence and turns on German ordinals ("am 3. Mai").
    """
    return [piece for piece in _pieces(paragraph, language) if _WORD.search(piece)]


def _pieces(paragraph: str, language: Language | None) -> Iterator[str]:
    start = 0
    for found in _TERMINATOR.finditer(paragraph):
        if _ends_sentence(paragraph, start, found, language):
            yield paragraph[start : found.end()].strip()
            start = found.end()
    yield paragraph[start:].strip()


def _ends_sentence(paragraph: str, start: int, found: re.Match[str], language: Language | None) -> bool:
    if found[0][0] in "。！？｡":
        return True
    after = paragraph[found.end() : found.end() + 40].lstrip(_OPENERS)
    if not after:
        return True
    if after[0].islower():
        return False
    if found[0] != ".":
        return True
    # The longest abbreviation of the tables is far shorter than this: an endless line stays cheap.
    before = paragraph[max(start, found.start() - 30) : found.start()].split()
    if not before:
        return False
    token = before[-1].lstrip(_OPENERS)
    if len(before) == 1 and _ENUMERATOR.fullmatch(before[0] + "."):
        return False
    joined = (before[-2].lstrip(_OPENERS) + token).lower() if len(before) > 1 else ""
    return _full_stop_ends(token, joined, after, language)


def _full_stop_ends(token: str, joined: str, after: str, language: Language | None) -> bool:
    """Whether "token." ends its sentence, given what follows; `joined` has the token before it too."""
    lower = token.lower()
    if lower in NEVER_LAST or joined in NEVER_LAST:
        return False
    if lower in BEFORE_NUMBER and _NUMBER.match(after):
        return False
    initial = len(token) == 1 and token.isalpha()
    # "am 2. Mai", but "S. 2. Dort": a number that an abbreviation announced is none.
    announced = joined.removesuffix(lower).rstrip(".") in BEFORE_NUMBER
    ordinal = language == "de" and token.isdecimal() and len(token) <= 2 and not announced
    if initial or ordinal or lower in SOMETIMES_LAST or joined in SOMETIMES_LAST or _PIECES.fullmatch(token):
        return _opens_sentence(after, language)
    return True


def _opens_sentence(after: str, language: Language | None) -> bool:
    """Whether what follows begins with a capitalised stop word, the surest sign of a new sentence."""
    first = _WORD.match(after)
    if first is None:
        return False
    lower = first[0].lower().replace("’", "'")
    tables = (STOP_WORDS[language],) if language else tuple(STOP_WORDS.values())
    return any(lower in table for table in tables)
