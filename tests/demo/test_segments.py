"""Where words, characters, paragraphs and sentences begin and end: texts in, slices out."""

import pytest

from headgate.demo import segments

WORDS = [
    ("plain words", "The quick brown fox", "The quick brown fox"),
    ("punctuation is no word", "Stop! – (really) … »now« / 100 % & more", "Stop really now 100 more"),
    ("apostrophes join", "don't rock'n'roll l’accord O'Neill's", "don't rock'n'roll l’accord O'Neill's"),
    ("quotes do not", "'quoted' ‘words’ dogs'", "quoted words dogs"),
    ("hyphens join", "well-known e‑mail vis-à-vis", "well-known e‑mail vis-à-vis"),
    ("dashes do not", "yes—no, yes–no, yes--no, - no -", "yes no yes no yes no no"),
    ("decimals and groups", "3.14 1,000.50 1.284,60 1'000 49.00", "3.14 1,000.50 1.284,60 1'000 49.00"),
    (
        "no-break groups",
        "10\u00a0000 and 5\u202f000\u202f000 but 10 000",
        "10\u00a0000|and|5\u202f000\u202f000|but|10|000",
    ),
    ("no-break is no joint elsewhere", "M.\u00a0Dubois 5\u00a0kg 2\u00a0000x", "M|Dubois|5|kg|2\u00a0000x"),
    ("a list of numbers", "1, 2,3 and x,y", "1 2,3 and x y"),
    ("dates and times", "2026-11-01 at 10:30: done", "2026-11-01 at 10:30 done"),
    ("identifiers", "keep_for __init__ a_ v2.1 file1.txt", "keep_for init a v2.1 file1.txt"),
    ("abbreviations", "U.S.A. e.g. z. B. Ph.D.", "U.S.A e.g z B Ph.D"),
    ("umlauts and sharp s", "Straße, Größe; ÄRGER", "Straße Größe ÄRGER"),
    ("combining accents", "cafe\u0301 nai\u0308ve", "cafe\u0301 nai\u0308ve"),
    ("soft hyphens are invisible", "sea\u00adson", "sea\u00adson"),
    ("Devanagari keeps its vowel signs", "हिन्दी भाषा", "हिन्दी भाषा"),
    ("Arabic and Hebrew", "مرحبا بالعالم שלום", "مرحبا بالعالم שלום"),
    ("Persian half-space", "می\u200cروم", "می\u200cروم"),
    ("Greek and Cyrillic", "Ελλάδα Привет, мир!", "Ελλάδα Привет мир"),
    (
        "Han and hiragana one by one, katakana and Hangul in runs",
        "漢字かデータ 한국어",
        "漢 字 か データ 한국어",
    ),
    ("emoji are no words", "ship it 🚀👨‍👩‍👧 now", "ship it now"),
    ("superscripts and fractions count as numbers", "m² ½", "m² ½"),
    ("nothing", " \n\t…!?", ""),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in WORDS], ids=[row[0] for row in WORDS])
def test_words(text, expected):
    assert segments.words(text) == (expected.split("|") if "|" in expected else expected.split())


CHARACTERS = [
    ("", 0),
    ("abc", 3),
    ("a b\n", 4),
    ("a\r\nb", 3),
    ("é", 1),
    ("e\u0301", 1),
    ("🇩🇪🇫🇷", 2),
    ("👨‍👩‍👧", 1),
    ("👍🏽!", 2),
    ("❤\ufe0f", 1),
    ("漢字", 2),
    ("हि", 1),
    ("e\u200dx", 2),
]


@pytest.mark.parametrize(("text", "expected"), CHARACTERS)
def test_characters_are_those_a_reader_sees(text, expected):
    assert segments.character_count(text) == expected


PARAGRAPHS = [
    ("one line", ["one line"]),
    ("two\nlines", ["two lines"]),
    ("one\n\ntwo", ["one", "two"]),
    ("one\r\n \t\r\n\r\ntwo\r\n", ["one", "two"]),
    ("\n\n  one  \n", ["one"]),
    ("one\u2029two", ["one", "two"]),
    ("one\n\n* * *\n\ntwo", ["one", "two"]),
    ("a\t b   c", ["a b c"]),
    ("10\u00a0km", ["10\u00a0km"]),
    ("…", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), PARAGRAPHS)
def test_paragraphs(text, expected):
    assert segments.paragraphs(text) == expected


# Sentences are separated by | in the text as they must be in the answer.
SENTENCES = [
    ("en", "One.|Two!|Three?"),
    ("en", "A heading without a full stop"),
    ("en", "What?!|No way…|Well."),
    ("en", "Wait... what? he asked."),
    ("en", 'He said "Stop!" and left.|"Stop!"|She stayed.'),
    ("en", "(It rained.)|Then it stopped."),
    ("en", "It costs $3.50 in v2.1.|That is 1,000.5 cents."),
    ("en", "See example.com for more.|Or don't."),
    ("en", "Dr. Lee met Mr. and Mrs. Okafor.|They talked."),
    ("en", "J. R. R. Tolkien wrote it.|So did M. Shelley."),
    ("en", "Plan B.|We follow it."),
    ("en", "Fruit, e.g. apples, i.e. food.|Etc. etc."),
    ("en", "Acme Inc. bought it.|It is Acme Inc.|The price is open."),
    ("en", "She works at Acme Corp. Berlin."),
    ("en", "In the U.S. Senate.|He left the U.S.|They stayed."),
    ("en", "At 5 p.m. Mr. Hale left."),
    ("en", "See No. 7 and Fig. 3.|No.|Never."),
    ("en", "cf. Art. 7.|This kind of Art.|Next one."),
    ("en", "It was 2024.|In 2025 it changed."),
    ("en", "1. Do this.|2. Do that.|3. Or nothing."),
    ("en", "1.2. Scope of the work"),
    ("en", "It has 3.|4 were lost."),
    ("en", "He came.|– And left.|[Really.]|“Yes.”"),
    ("en", "No space after.This is one word by Unicode's rules."),
    ("de", "Am 3. Mai 2026 kam er.|Er blieb bis zum 15. April."),
    ("de", "Es waren 12.|Wir gingen."),
    ("de", "Das ist z. B. Miete, d. h. Geld, vgl. Anlage S. 2.|Gut."),
    ("de", "Das gilt gem. Abs. 3 Nr. 4 BGB bzw. Art. 5.|Einer dieser Art.|Danach nichts."),
    ("de", "Obst, Gemüse usw.|Das reicht.|Äpfel, Birnen usw. auf Lager."),
    ("fr", "M. Dubois et Mme Perrin, c.-à-d. deux.|Merci !|Vraiment ?|Oui."),
    ("de", "»Halt.« rief er.|»Halt.«|Er lief."),
    ("fr", "« Bonjour. »|Il partit."),
    (None, "これは文です。|次の文です！|終わり"),
    (None, "यह एक वाक्य है।|दूसरा वाक्य।"),
    (None, "هل هذا سؤال؟|نعم."),
]


@pytest.mark.parametrize(("language", "marked"), SENTENCES, ids=[row[1][:30] for row in SENTENCES])
def test_sentences(language, marked):
    separator = "" if "。" in marked else " "
    assert segments.sentences(marked.replace("|", separator), language) == marked.split("|")


def test_what_has_no_word_is_no_sentence():
    assert segments.sentences("!!! Yes. ... ?") == ["Yes."]
    assert segments.sentences("* * *") == []
    assert segments.sentences("") == []
