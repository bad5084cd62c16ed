"""Texts in, numbers out."""

import hashlib

import pytest

from headgate.demo import analysis, reading
from headgate.demo.documents import SAMPLES, sample


def test_one_small_text_in_full():
    text = "The cat sat.\n\nThe cat ran; the dog sat. Well-known cats don’t.\n"
    assert analysis.analyse(text) == analysis.Analysis(
        words=12,
        sentences=3,
        paragraphs=2,
        characters=63,
        reading_time_seconds=4,  # 12 words at 228 a minute are 3.2 seconds
        language="en",
        keywords=(
            analysis.Keyword("cat", 2, 4),
            analysis.Keyword("sat", 2, 4),
            analysis.Keyword("ran", 1, 2),
            analysis.Keyword("dog", 1, 2),
            analysis.Keyword("well-known", 1, 2),
            analysis.Keyword("cats", 1, 2),
        ),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


# words, sentences, paragraphs, characters, seconds, language, best keywords. Words and characters of the
# plain texts are those of `wc -wm`, less the five "€" that `wc` takes for words.
SAMPLE_ROWS = [
    ("services_agreement.txt", 234, 17, 6, 1417, 62, "en", "document service supplier"),
    ("release_notes.txt", 144, 11, 5, 849, 38, "en", "document new footnotes"),
    ("mieterbrief.txt", 115, 10, 5, 746, 39, "de", "abrechnung geehrte frau"),
    ("note_de_service.txt", 65, 6, 3, 396, 20, "fr", "accueil lecteur note"),
    ("readme.md", 122, 15, 12, 712, 33, "en", "copy document copies"),
    ("opening_hours.html", 61, 11, 9, 367, 17, "en", "museum hour harbour"),
    ("minutes.docx", 83, 11, 9, 477, 22, "en", "society lindqvist ortega"),
]


@pytest.mark.parametrize("row", SAMPLE_ROWS, ids=[row[0] for row in SAMPLE_ROWS])
def test_the_sample_documents(row):
    name, *expected = row
    document = sample(name)
    found = analysis.analyse(reading.text_of(document.read(), reading.format_of(document.media_type)))
    assert [
        found.words,
        found.sentences,
        found.paragraphs,
        found.characters,
        found.reading_time_seconds,
        found.language,
        " ".join(keyword.term for keyword in found.keywords[:3]),
    ] == expected


def test_every_sample_is_in_the_table_and_an_unknown_one_is_named():
    assert [document.name for document in SAMPLES] == [row[0] for row in SAMPLE_ROWS]
    with pytest.raises(KeyError, match=r"nowhere\.txt"):
        sample("nowhere.txt")


LANGUAGES = [
    ("The contract is with the customer.", "en"),
    ("Der Vertrag ist mit dem Kunden geschlossen.", "de"),
    ("Le contrat est conclu avec le client.", "fr"),
    ("L'accord d'aujourd'hui.", "fr"),
    ("It's a dog's life, isn't it?", "en"),
    ("DIE RECHNUNG WURDE NICHT BEZAHLT", "de"),
    ("Hello world", None),
    ("the", None),
    ("the and der und", None),
    ("Ελλάδα και Κύπρος", None),
    ("42", None),
]


@pytest.mark.parametrize(("text", "expected"), LANGUAGES)
def test_language(text, expected):
    assert analysis.analyse(text).language == expected


READING_TIMES = [
    (0, "en", 0),
    (1, "en", 1),
    (228, "en", 60),
    (229, "en", 61),
    (179, "de", 60),
    (195, "fr", 60),
    (184, None, 60),
]


@pytest.mark.parametrize(("words", "language", "seconds"), READING_TIMES)
def test_reading_time_is_rounded_up(words, language, seconds):
    assert analysis.reading_time_seconds(words, language) == seconds


KEYWORDS = [
    ("data is no word", "a" * 60 + " " + "b" * 61, "a" * 60 + ":1:2"),
    ("spread beats repetition", "Ship ship ship. Tug a! Tug b! Tug c!", "tug:3:6 ship:3:4"),
    ("ties keep the text's order", "zebra apple mango", "zebra:1:2 apple:1:2 mango:1:2"),
    ("case and accents fold", "Été ÉTÉ e\u0301te\u0301", ""),
    ("a word in two encodings is one", "Café CAFÉ cafe\u0301", "café:3:4"),
    ("soft hyphens vanish", "sea\u00adson season", "season:2:3"),
    ("possessives", "Anna's boat, Anna’s oar", "anna:2:3 boat:1:2 oar:1:2"),
    ("elisions", "l'accord de l’accueil d'accord", "accord:2:3 accueil:1:2"),
    ("numbers and short words are none", "42 1,000 ab 3rd xyz", "3rd:1:2 xyz:1:2"),
    (
        "plurals where the singular occurs",
        "documents document boats news new",
        "document:2:3 boats:1:2 news:1:2 new:1:2",
    ),
    ("German plurals stay", "der die das Auto ist Autos und Hotels", "auto:1:2 autos:1:2 hotels:1:2"),
]


@pytest.mark.parametrize(
    ("text", "expected"), [row[1:] for row in KEYWORDS], ids=[row[0] for row in KEYWORDS]
)
def test_keywords(text, expected):
    found = " ".join(f"{k.term}:{k.count}:{k.score}" for k in analysis.analyse(text).keywords)
    assert found == expected


def test_ten_keywords_at_most():
    text = " ".join(f"word{letter}" for letter in "abcdefghijklmnop")
    assert [k.term for k in analysis.analyse(text).keywords] == [f"word{letter}" for letter in "abcdefghij"]


STORY = (
    "Harbour news\n\n"
    "The ferry carries cars and passengers over the bay. "
    "A gull was seen. "
    "The ferry company will replace the old ferry in May. "
    "Passengers pay less for the crossing on Sundays."
)
SUMMARIES = [
    # ferry 3, passengers 2, carries, cars, bay 1: 8000 over 5 + 3 words.
    (1, [(1, 1000)]),
    # ferry, once told, 1.5; company, replace, old 1: 4500 over 4 + 3 words.
    (2, [(1, 1000), (3, 642)]),
    # passengers, once told, 1; pay, less, crossing, sundays 1: 5000 over 5 + 3. The gull's is too short.
    (3, [(1, 1000), (3, 642), (4, 625)]),
    (10, [(1, 1000), (3, 642), (4, 625)]),
]


@pytest.mark.parametrize(("count", "expected"), SUMMARIES)
def test_a_summary_takes_the_best_sentences_in_the_texts_order(count, expected):
    found = analysis.summarise(STORY, count)
    assert [(extract.index, extract.score) for extract in found.sentences] == expected
    assert (found.sentences_in_document, found.words_in_document, found.language) == (5, 33, "en")
    assert all(extract.text in STORY for extract in found.sentences)


def test_short_sentences_stand_in_where_there_are_no_others():
    assert [e.text for e in analysis.summarise("Yes. Boats sink. No.", 2).sentences] == [
        "Yes.",
        "Boats sink.",
    ]


def test_a_text_without_words_has_measures_too():
    found = analysis.analyse("…")
    assert (found.words, found.sentences, found.paragraphs, found.keywords) == (0, 0, 0, ())
    assert analysis.summarise("…", 3).sentences == ()


def test_a_lone_surrogate_is_refused():
    with pytest.raises(ValueError, match="surrogate"):
        analysis.analyse("\ud800")
