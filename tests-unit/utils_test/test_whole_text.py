"""Halves of surrogate pairs are joined or replaced; every other text stays the object it is."""

import pytest

from utils.whole_text import whole_text


@pytest.mark.parametrize("text", ["", "plain", "ä\0", "😀", "\ufffd", "\uffff\U0010ffff"])
def test_whole_texts_stay(text):
    assert whole_text(text) is text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\ud83db", "a\ufffdb"), ("\ud83d\ude00!", "😀!"), ("\ude00\ud83d", "\ufffd\ufffd"), ("😀\udc80", "😀\ufffd"), ("\ud800", "\ufffd")],
)
def test_halves_are_joined_or_replaced(text, expected):
    assert whole_text(text) == expected
