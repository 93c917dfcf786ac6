"""Words: how text is folded and cut for search, and which words a misspelt one may stand for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 64
MOST_IN_QUERY = 10
SHORTEST_SPELT, LONGEST_SPELT = 4, 24
_HEAD = 7
LONGEST_QUERY = 200
# Letters that carry a stroke or are two in one have no decomposition of their own.
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"})
_WORD = re.compile(r"[^\W_]+")
# Scripts written without spaces: each character is a word.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_WHOLE = re.compile(r"[^\W_][\w.+%'-]*@[\w-]+(?:\.[\w-]+)+|[^\W_]+(?:[.-][^\W_]+)*\.[^\W_]+")
_WEB = re.compile(r"\b(?:https?://)(?:www\.)?|\bwww\.")
_PHONE = re.compile(r"[+(]?\d[\d\s().+/-]*")
_ENDING = re.compile(r"(@[\w.-]+)\.[^\W_]+")
_NUMBER = re.compile(r"#\d{1,12}|[a-z]{2,8}-\d{1,12}")
_SHORTEST_PHONE = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """One word of a query. whole: what it may be as it stands; words: what it is made of, if it is nowhere whole."""

    whole: tuple[str, ...]
    words: tuple[str, ...] = ()


def fold(text: str) -> str:
    """Return text as it is compared: small letters, without accents, ß as ss, ø as o, full-width forms as usual ones."""
    if text.isascii():
        return text.lower()
    parted = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(character for character in parted if unicodedata.category(character)[0] != "M").translate(_LETTERS)


def tokens_of(text: str) -> list[str]:
    """Return what a text can be found by, in its order, repetitions included; each at most 64 characters.

    Its words; an e-mail address (without the "com" at its end), its domain and any other dotted name as a whole too. A
    telephone number is found by its digits, by the last ten and the last seven of them.
    """
    folded = _WEB.sub(" ", fold(text))
    digits = _phone(folded)
    if digits:
        return digits
    found = [word[:LONGEST] for word in _words(_without_ending(folded))]
    if "." in folded:
        for whole in _WHOLE.findall(folded):
            found.append(whole[:LONGEST])
            if "@" in whole:
                found.append(whole.rpartition("@")[2][:LONGEST])
    return found


def asked(text: str) -> list[Asked]:
    """Return the words of a query in their order, without repetition; at most ten, of its first 200 characters."""
    folded = _WEB.sub(" ", fold(text[:LONGEST_QUERY])).strip()
    digits = _phone(folded)
    if digits:
        return [Asked(tuple(digits), tuple(_words(folded)))]
    found = [word for part in folded.split() for word in _asked_in(part)]
    return list(dict.fromkeys(found))[:MOST_IN_QUERY]


def _asked_in(part: str) -> Iterator[Asked]:
    words = tuple(word[:LONGEST] for word in _words(_without_ending(part)))
    whole = part.strip("\"'()[]{}<>,;:!?/.")
    if _NUMBER.fullmatch(whole):
        yield Asked((whole.removeprefix("#"),), words)
    elif len(words) > 1 and ("@" in whole or _WHOLE.fullmatch(whole)):
        yield Asked((whole[:LONGEST],), words)
    else:
        yield from (Asked((word,)) for word in words)


def _without_ending(folded: str) -> str:
    # Half of all addresses end in the same two or three words; nobody looks for those.
    return _ENDING.sub(r"\1", folded) if "@" in folded else folded


def _words(folded: str) -> Iterator[str]:
    for word in _WORD.findall(folded):
        if word.isascii() or not _UNSPACED.search(word):
            yield word
        else:
            yield from _WORD.findall(_UNSPACED.sub(r" \g<0> ", word))


def _phone(folded: str) -> list[str]:
    # With the country's code and without, and without the area's.
    if not _PHONE.fullmatch(folded.strip()):
        return []
    digits = "".join(character for character in folded if character.isdigit())[:LONGEST]
    return list(dict.fromkeys([digits, digits[-10:], digits[-7:]])) if len(digits) >= _SHORTEST_PHONE else []


def is_spelt(word: str) -> bool:
    """Return whether a word can be misspelt: 4 to 24 letters, none of them a digit."""
    return SHORTEST_SPELT <= len(word) <= LONGEST_SPELT and word.isalpha()


def head(word: str) -> str:
    """Return the letters by which a word is filed: its first seven."""
    return word[:_HEAD]


def variants(word: str) -> set[str]:
    """Return the head of a word, and each form of it that lacks one letter.

    Two words one typing error apart (a letter too many, too few, another one, two swapped) have a form in common; so have
    some that are further apart.
    """
    first = head(word)
    return {first, *(first[:place] + first[place + 1 :] for place in range(len(first)))}


def distance(one: str, other: str, *, most: int = 2) -> int:
    """Return how many typing errors lie between two words, neighbours swapped being one; `most` + 1 when more than `most`."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before, above, row = row, before, [i]
        for j, against in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != against))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == against:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def meant(word: str, known: list[str]) -> list[str]:
    """Return the known words a misspelt one may stand for, the nearest first: one error away, two from 8 letters on."""
    most = 2 if len(word) >= 8 else 1
    near = sorted((distance(word, other, most=most), other) for other in set(known))
    return [other for errors, other in near if errors <= most]
