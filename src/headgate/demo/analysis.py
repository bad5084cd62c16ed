"""What the document API tells about a text: measures, language, keywords, a summary. Pure: no I/O, no float.

Keywords are scored by how often a word occurs and in how many sentences it does (score = occurrences +
sentences): a word spread over a document says more about it than one repeated in a single sentence.
Summaries are extractive and follow SumBasic (Nenkova and Vanderwende 2005) with integers: the best sentence
is the one whose content words weigh most on average (three weightless ones added, or short sentences would
always win), and the words it has said weigh half from then on. Ties go to what comes first in the text, so
the same text always gives the same answer.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from headgate.demo import segments
from headgate.demo.lexicon import (
    ELISIONS,
    STOP_WORDS,
    WORDS_PER_MINUTE,
    WORDS_PER_MINUTE_UNKNOWN,
    Language,
)

MAX_KEYWORDS: Final = 10
MIN_CONTENT_LETTERS: Final = 3
MAX_CONTENT_LETTERS: Final = 60
"""A longer run of letters is data (a key, a picture in base 64), not a word of the document's."""

MIN_LANGUAGE_HITS: Final = 2
MIN_PLURAL: Final = 5
MIN_SUMMARY_WORDS: Final = 5
"""A shorter sentence (a heading, "Yes.") stands in a summary only if the text has no longer one."""

_ALL_STOP_WORDS: Final = frozenset().union(*STOP_WORDS.values())


@dataclass(frozen=True, slots=True)
class Keyword:
    """A word in lower case, how often it occurs, and its score."""

    term: str
    count: int
    score: int


@dataclass(frozen=True, slots=True)
class Analysis:
    """The measures of one text. `sha256` is of the text's UTF-8 bytes, in hex."""

    words: int
    sentences: int
    paragraphs: int
    characters: int
    reading_time_seconds: int
    language: Language | None
    keywords: tuple[Keyword, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class Extract:
    """A sentence taken over into a summary: its place in the document from 0, its score when taken."""

    index: int
    text: str
    score: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The best sentences of a text in the text's own order."""

    language: Language | None
    sentences: tuple[Extract, ...]
    sentences_in_document: int
    words_in_document: int
    sha256: str


def analyse(text: str) -> Analysis:
    """Every measure of `text`. ValueError where it holds what no UTF-8 can carry (a lone surrogate)."""
    digest = sha256(text)
    all_words = segments.words(text)
    language = guess_language(all_words)
    blocks = segments.paragraphs(text)
    sentences = _sentences(blocks, language)
    return Analysis(
        words=len(all_words),
        sentences=len(sentences),
        paragraphs=len(blocks),
        characters=segments.character_count(text),
        reading_time_seconds=reading_time_seconds(len(all_words), language),
        language=language,
        keywords=keywords(content_terms(sentences, language)),
        sha256=digest,
    )


def summarise(text: str, count: int) -> Summary:
    """The `count` sentences (at least one) that say most of what `text` says. ValueError as `analyse`."""
    digest = sha256(text)
    all_words = segments.words(text)
    language = guess_language(all_words)
    sentences = _sentences(segments.paragraphs(text), language)
    return Summary(
        language=language,
        sentences=_best(sentences, count, language),
        sentences_in_document=len(sentences),
        words_in_document=len(all_words),
        sha256=digest,
    )


def sha256(text: str) -> str:
    """The hex SHA-256 of the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def reading_time_seconds(words: int, language: Language | None) -> int:
    """How long an adult reads `words` words silently, rounded up to a second."""
    per_minute = WORDS_PER_MINUTE[language] if language else WORDS_PER_MINUTE_UNKNOWN
    return -(-words * 60 // per_minute)


def guess_language(words: Iterable[str]) -> Language | None:
    """The language whose stop words occur most; None with fewer than two, or where two tie."""
    counts: Counter[str] = Counter()
    for word in words:
        prefix, apostrophe, rest = _plain(word).partition("'")
        if apostrophe and prefix in ELISIONS:
            counts["'"] += 1
            counts[rest] += 1
        else:
            counts[prefix + apostrophe + rest] += 1
    hits = {
        language: sum(n for word, n in counts.items() if word in table)
        + (counts["'"] if language == "fr" else 0)
        for language, table in STOP_WORDS.items()
    }
    best = max(hits.values())
    leaders: list[Language] = [language for language in ("en", "de", "fr") if hits[language] == best]
    return leaders[0] if best >= MIN_LANGUAGE_HITS and len(leaders) == 1 else None


def keywords(terms: Iterable[list[str]], limit: int = MAX_KEYWORDS) -> tuple[Keyword, ...]:
    """The best `limit` terms of the sentences, best first; ties in order of first occurrence."""
    occurrences: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    for sentence_terms in terms:
        occurrences.update(sentence_terms)
        spread.update(set(sentence_terms))
    # Counter keeps first-seen order and sorted() is stable: that is the tie-break.
    ranked = sorted(occurrences, key=lambda term: -(occurrences[term] + spread[term]))
    return tuple(Keyword(t, occurrences[t], occurrences[t] + spread[t]) for t in ranked[:limit])


def content_terms(sentences: Iterable[str], language: Language | None) -> list[list[str]]:
    """The content words of each sentence, an English or French plural in -s counted as its singular where the
    text has that too ("documents" where "document" occurs; "news" stays)."""
    terms = [content_words(sentence, language) for sentence in sentences]
    if language == "de":
        return terms
    known = {term for sentence_terms in terms for term in sentence_terms}
    singular = {t: t[:-1] for t in known if t.endswith("s") and len(t) >= MIN_PLURAL and t[:-1] in known}
    return [[singular.get(term, term) for term in sentence_terms] for sentence_terms in terms]


def content_words(sentence: str, language: Language | None) -> list[str]:
    """The words that carry meaning, in lower case: no stop words, no numbers, nothing very short or long,
    without "'s" and without an elided article."""
    stop_words = STOP_WORDS[language] if language else _ALL_STOP_WORDS
    found: list[str] = []
    for word in segments.words(sentence):
        term = _plain(word)
        if term in stop_words:
            continue
        prefix, _, rest = term.partition("'")
        if rest and prefix in ELISIONS:
            term = rest
        term = term.removesuffix("'s")
        if (
            not MIN_CONTENT_LETTERS <= len(term) <= MAX_CONTENT_LETTERS
            or term in stop_words
            or not any(map(str.isalpha, term))
        ):
            continue
        found.append(term)
    return found


def _plain(word: str) -> str:
    """A word as it is compared: composed, lower case, one kind of apostrophe, no soft hyphens."""
    composed = unicodedata.normalize("NFC", word.replace("\u00ad", "")).lower()
    return composed.replace("’", "'").replace("ʼ", "'").replace("＇", "'")


def _sentences(blocks: list[str], language: Language | None) -> list[str]:
    return [sentence for block in blocks for sentence in segments.sentences(block, language)]


def _best(sentences: list[str], count: int, language: Language | None) -> tuple[Extract, ...]:
    """The `count` best sentences, in the document's order."""
    terms = content_terms(sentences, language)
    counts = Counter(term for sentence_terms in terms for term in sentence_terms)
    weights = {term: 1000 * n for term, n in counts.items()}
    lengths = [len(segments.words(sentence)) for sentence in sentences]
    long_enough = [i for i, length in enumerate(lengths) if length >= MIN_SUMMARY_WORDS]
    left = long_enough or list(range(len(sentences)))

    def score(index: int) -> int:
        distinct = set(terms[index])
        return sum(weights[term] for term in distinct) // (len(distinct) + 3)

    taken: list[Extract] = []
    while left and len(taken) < count:
        index = max(left, key=lambda i: (score(i), -i))
        taken.append(Extract(index, sentences[index], score(index)))
        left.remove(index)
        for term in set(terms[index]):
            weights[term] //= 2
    return tuple(sorted(taken, key=lambda extract: extract.index))
