"""Values every input is made of: clean text, and moments that every client can hold."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
_YEARS = range(1000, 3001)


def clean_text(value: str) -> str:
    """Return text trimmed and in Unicode form C.

    Raises ValueError for NUL and other control characters (line breaks and tabs may stay), lone surrogates, and
    characters that reverse the reading order, which can disguise one name as another.
    """
    text = unicodedata.normalize("NFC", value).strip()
    for character in text:
        if character in _BIDI:
            raise ValueError("remove the characters that change the reading direction")
        if unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\r\t":
            raise ValueError("remove the control characters")
    return text


def _within_years(moment: datetime) -> datetime:
    # At the very ends of the calendar a change of zone leaves it, and the row could no longer be read.
    if moment.year not in _YEARS:
        raise ValueError(f"is not between the years {_YEARS[0]} and {_YEARS[-1]}")
    return moment


PointInTime = Annotated[AwareDatetime, AfterValidator(_within_years)]
