"""Words: folding, cutting, and what a misspelt one may stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowhouse.values.words import LONGEST, MOST_IN_QUERY, Asked, asked, distance, fold, is_spelt, meant, tokens_of, variants

pytestmark = pytest.mark.no_database
WORDS = st.text("abcdefgh", min_size=4, max_size=12)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Müller", "muller"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("Søren Łukasz", "soren lukasz"),
        ("Ærø Œuvre Þór Đặng", "aero oeuvre thor dang"),
        ("İstanbul Işık", "istanbul isik"),
        ("ＡＢＣ １２", "abc 12"),
        ("ﬁne", "fine"),
        ("Ελλάς", "ελλασ"),
        ("Ё", "е"),
    ],
)
def test_text_is_folded(text: str, folded: str) -> None:
    assert fold(text) == folded


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Northwind  Traders, Inc.", ["northwind", "traders", "inc"]),
        ("Coca-Cola O'Neill", ["coca", "cola", "o", "neill"]),
        ("Anna.Smith@Mail.Example.com", ["anna", "smith", "mail", "example", "anna.smith@mail.example.com", "mail.example.com"]),
        ("https://www.Acme.example/about", ["acme", "example", "about", "acme.example"]),
        ("www.acme.example", ["acme", "example", "acme.example"]),
        ("Node.js 2", ["node", "js", "2", "node.js"]),
        ("+1 (555) 123-4567", ["15551234567", "5551234567", "1234567"]),
        ("12345", ["12345"]),
        ("1234", ["1234"]),
        ("東京 Tower", ["東", "京", "tower"]),
        ("... --- !", []),
        ("", []),
        ("x" * 100, ["x" * 64]),
    ],
)
def test_text_is_cut_into_tokens(text: str, tokens: list[str]) -> None:
    assert tokens_of(text) == tokens


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("Acme  GmbH acme", [Asked(("acme",)), Asked(("gmbh",))]),
        ("OPP-42", [Asked(("opp-42",), ("opp", "42"))]),
        ("#42", [Asked(("42",), ("42",))]),
        ("anna@acme.example", [Asked(("anna@acme.example",), ("anna", "acme"))]),
        ("anna@ac", [Asked(("anna@ac",), ("anna", "ac"))]),
        ("https://www.acme.example/", [Asked(("acme.example",), ("acme", "example"))]),
        ("(555) 123-4567", [Asked(("5551234567", "1234567"), ("555", "123", "4567"))]),
        ("?!", []),
    ],
)
def test_a_query_is_read(query: str, words: list[Asked]) -> None:
    assert asked(query) == words


def test_a_query_is_cut() -> None:
    assert len(asked(" ".join(f"w{n}" for n in range(50)))) == MOST_IN_QUERY
    assert asked("a" * 300) == [Asked(("a" * LONGEST,))]


@pytest.mark.parametrize(
    ("one", "other", "errors"),
    [
        ("northwind", "northwind", 0),
        ("northwind", "norhtwind", 1),
        ("northwind", "nortwind", 1),
        ("northwind", "northwinds", 1),
        ("northwind", "nortxwind", 1),
        ("northwind", "nrthwnd", 2),
        ("northwind", "southwest", 3),
        ("ca", "abc", 3),
        ("abcd", "abcdefgh", 3),
    ],
)
def test_errors_are_counted(one: str, other: str, errors: int) -> None:
    assert distance(one, other) == errors


@given(WORDS, WORDS)
def test_the_distance_is_the_same_both_ways(one: str, other: str) -> None:
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) == (one == other)


def misspelt(word: str) -> st.SearchStrategy[str]:
    places = st.integers(0, len(word) - 1)
    return st.one_of(
        places.map(lambda i: word[:i] + word[i + 1 :]),
        places.map(lambda i: word[:i] + "x" + word[i:]),
        places.map(lambda i: word[:i] + "x" + word[i + 1 :]),
        st.integers(0, len(word) - 2).map(lambda i: word[:i] + word[i + 1] + word[i] + word[i + 2 :]),
    )


@given(WORDS.flatmap(lambda word: st.tuples(st.just(word), misspelt(word))))
def test_a_word_is_found_from_each_of_its_misspellings(pair: tuple[str, str]) -> None:
    word, written = pair
    assert variants(word) & variants(written)
    assert distance(word, written) <= 1
    assert word in meant(written, [word, "zzzzzzzz"])


@given(st.text(max_size=300))
def test_any_text_is_cut_and_found_by_its_own_tokens(text: str) -> None:
    tokens = tokens_of(text)
    assert all(0 < len(token) <= LONGEST and fold(token) == token for token in tokens)
    assert all(len(word.whole) > 0 and all(word.whole) and all(word.words) for word in asked(text))


@given(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=30))
def test_every_word_of_a_text_is_asked_for_as_it_is_indexed(text: str) -> None:
    tokens = set(tokens_of(f"other {text}"))
    assert {part for word in asked(f"other {text}") for part in word.whole} <= tokens


@pytest.mark.parametrize(
    ("word", "can_be"), [("acme", True), ("abc", False), ("a1bcd", False), ("2024", False), ("x" * 25, False)]
)
def test_only_words_of_letters_are_spelt(word: str, can_be: bool) -> None:
    assert is_spelt(word) is can_be


def test_the_nearest_word_comes_first() -> None:
    assert meant("northwnd", ["northwand", "northwind", "southwind"]) == ["northwand", "northwind"]
    assert meant("acmee", ["acme", "acmeeee", "zone"]) == ["acme"]
    assert meant("nrthwnd", ["northwind"]) == []
    assert meant("norhtwnid", ["northwind"]) == ["northwind"]
