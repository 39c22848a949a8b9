"""Lyrics as ACE-Step 1 was trained on: Japanese in Latin letters, English numbers, symbols and abbreviations in words. Needs no torch."""

from __future__ import annotations

import contextlib
import re
import unicodedata

KANA = re.compile(r"(HIRAGANA|KATAKANA) LETTER (SMALL )?([A-Z]+)")
# What the names of signs and their sounds in Latin letters differ in.
SOUNDS = {"SI": "shi", "TI": "chi", "TU": "tsu", "HU": "fu", "ZI": "ji", "DI": "ji", "DU": "zu"}
UNKNOWN = {"WI", "WE", "VA", "VI", "VE", "VO"}
GLIDES = ("YA", "YU", "YO")
BEFORE_GLIDES = {"KI", "SI", "TI", "NI", "HI", "MI", "RI", "GI", "ZI", "BI", "PI"}
MARKS = {"\u3000": " ", "、": ", ", "。": ". "}
DOUBLING, UNDOUBLED = "っッ", "aiueon"

SMALL_NUMBERS = (
    " one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split(" ")
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
DIGITS = ("zero", *SMALL_NUMBERS[1:10])
UNITS = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))

ABBREVIATIONS = {
    "mrs": "misess",  # so the model heard it
    "mr": "mister",
    "dr": "doctor",
    "st": "saint",
    "co": "company",
    "jr": "junior",
    "maj": "major",
    "gen": "general",
    "drs": "doctors",
    "rev": "reverend",
    "lt": "lieutenant",
    "hon": "honorable",
    "sgt": "sergeant",
    "capt": "captain",
    "esq": "esquire",
    "ltd": "limited",
    "col": "colonel",
    "ft": "fort",
}
SYMBOLS = {"&": "and", "@": "at", "%": "percent", "#": "hash", "$": "dollar", "£": "pound", "°": "degree"}
GROUPED = re.compile(r"\b\d{1,3}(,\d{3})*(\.\d+)?\b")
MONEY = tuple(re.compile(rf"{sign}[0-9.,]*[0-9]+|[0-9.,]*[0-9]+{sign}") for sign in ("£", r"\$", "€"))
DECIMAL, ORDINAL, NUMBER = re.compile(r"[0-9]+[.,][0-9]+"), re.compile(r"([0-9]+)(?:st|nd|rd|th)"), re.compile(r"[0-9]+")


def _kana(sign: str) -> tuple[str, bool, str] | None:
    """(script, whether it is a small sign, its name) of a sign that has a known sound, else None."""
    found = KANA.fullmatch(unicodedata.name(sign, ""))
    if found is None:
        return None
    script, small, name = found.groups()
    if name in UNKNOWN or (script == "HIRAGANA" and name == "VU") or (small and name not in GLIDES):
        return None
    return script, small is not None, name


def _sound(sign: str) -> str | None:
    """A sign's sound in Latin letters, or the mark that stands for it; None for other signs."""
    if sign in DOUBLING:
        return ""
    if sign in MARKS:
        return MARKS[sign]
    kana = _kana(sign)
    return None if kana is None else SOUNDS.get(kana[2], kana[2].lower())


def _joined(first: str, second: str) -> str | None:
    """The sound of a sign with a small one after it, where the two make one; else None."""
    before, after = _kana(first), _kana(second)
    if before is None or after is None or before[1] or not after[1] or before[0] != after[0] or before[2] not in BEFORE_GLIDES:
        return None
    stem, vowel = SOUNDS.get(before[2], before[2].lower())[:-1], after[2][1].lower()
    return stem + vowel if stem in ("sh", "ch", "j") else f"{stem}y{vowel}"


def japanese_to_romaji(japanese_text: str) -> str:
    """*japanese_text* with hiragana and katakana in Latin letters; everything else stays."""
    parts, place = [], 0
    while place < len(japanese_text):
        sign, following = japanese_text[place], japanese_text[place + 1 : place + 2]
        place += 1
        if sign in DOUBLING and following:
            sound = _sound(following)
            parts.append(sound[0] if sound and sound[0] not in UNDOUBLED else "")
            continue
        joined = _joined(sign, following) if following else None
        if joined is not None:
            place += 1
        sound = _sound(sign) if joined is None else joined
        parts.append(sign if sound is None else sound)
    return "".join(parts)


def number_to_text(num: float) -> str:
    """*num* in English words; what comes after the point digit by digit. Raises ``ValueError`` where it is written with an exponent."""
    if num == 0:
        return "zero"
    words = _whole(int(abs(num)))
    if isinstance(num, float):
        digits = str(abs(num)).partition(".")[2]
        if not digits.isdigit():
            raise ValueError(f"{num} is not written out in digits")
        words += " point " + " ".join(DIGITS[int(digit)] for digit in digits)
    return f"negative {words}" if num < 0 else words


def _whole(number: int) -> str:
    """A whole number in words; nothing for 0."""
    for unit, name in UNITS:
        if number >= unit:
            return " ".join(filter(None, (_whole(number // unit), name, _whole(number % unit))))
    if number < 20:
        return SMALL_NUMBERS[number]
    return " ".join(filter(None, (TENS[number // 10 - 2], SMALL_NUMBERS[number % 10])))


def _amount(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text.replace(",", ".")))


def _numbers_in_words(text: str) -> str:
    """English *text* with numbers in words. Raises ``ValueError`` for one that cannot be said."""
    text = GROUPED.sub(lambda found: found.group(0).replace(",", ""), text)
    for money in MONEY:
        try:
            text = money.sub(lambda found: number_to_text(_amount(found.group(0))), text)
        except ValueError:  # as in ComfyUI: the other currencies are not looked for then
            break
    text = DECIMAL.sub(lambda found: number_to_text(float(found.group(0).replace(",", "."))), text)
    text = ORDINAL.sub(lambda found: number_to_text(int(found.group(1))), text)
    return NUMBER.sub(lambda found: number_to_text(int(found.group(0))), text)


def multilingual_cleaners(text: str, lang: str) -> str:
    """*text* in small letters, without quotes and with single blanks; English also with numbers, titles and symbols in words."""
    text = text.replace('"', "")
    if lang == "tr":
        text = text.translate({ord("İ"): "i", ord("Ö"): "ö", ord("Ü"): "ü"})
    text = text.lower()
    if lang == "en":
        with contextlib.suppress(ValueError):  # all numbers stay as they are then
            text = _numbers_in_words(text)
        for short, long in ABBREVIATIONS.items():
            text = re.sub(rf"\b{short}\.", long, text)
        for symbol, word in SYMBOLS.items():
            text = text.replace(symbol, f" {word} ").replace("  ", " ")
        text = text.strip()
    return re.sub(r"\s+", " ", text)
