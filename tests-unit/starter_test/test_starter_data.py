"""Digits, styles, prompts and the classifier that the starter models are trained and checked with."""

import random

import pytest
import torch

from starter.data import IMAGE_SIDE, Digits, enlarge, jitter, split_digits
from starter.prompts import ANY_DIGIT, DIGIT_NAMES, FIRST_SPECIAL, PromptTokens, random_prompt
from starter.reading import DigitReader
from starter.styles import STYLES


@pytest.fixture(scope="module")
def halves():
    """(digits to train on, digits held out)."""
    return split_digits()


def test_split_keeps_every_digit_once_and_all_classes_on_both_sides(halves):
    kept, held = halves
    assert len(kept.labels) + len(held.labels) == 1797
    assert set(kept.labels.tolist()) == set(held.labels.tolist()) == set(range(10))
    assert kept.ink.shape[1:] == (1, 8, 8) and kept.ink.min() >= 0 and kept.ink.max() == 1
    rows = {tuple(picture.flatten().tolist()) for picture in kept.ink}
    assert not any(tuple(picture.flatten().tolist()) in rows for picture in held.ink)


def test_digits_refuse_labels_of_another_length():
    with pytest.raises(ValueError, match="2 pictures but 1 labels"):
        Digits(torch.zeros(2, 1, 8, 8), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("style", sorted(STYLES))
def test_style_draws_coloured_pictures_in_range(style, halves):
    pictures = STYLES[style](enlarge(halves[0].ink[:6]))
    assert pictures.shape == (6, 3, IMAGE_SIDE, IMAGE_SIDE)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert pictures.std(dim=(1, 2, 3)).min() > 0.1


def test_styles_differ_in_their_ground(halves):
    ink = enlarge(halves[0].ink[:6])
    corner = {style: draw(ink)[:, :, 0, 0].mean().item() for style, draw in STYLES.items()}
    assert corner["digits"] < 0.2 and corner["outlines"] > 0.8


def test_jitter_moves_pictures_a_little_and_repeats_with_its_seed(halves):
    ink = enlarge(halves[0].ink[:6])
    once, again = (jitter(ink, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert 0 < (once - ink).abs().mean() < 0.2


def test_prompts_name_their_digit_and_only_it():
    chooser = random.Random(0)
    for digit in range(10):
        for _ in range(40):
            text = random_prompt(digit, chooser).replace("8x8", "").replace("one picture", "")
            assert DIGIT_NAMES[digit] in text or str(digit) in text
            assert not any(f" {name} " in f" {text} " for other, name in enumerate(DIGIT_NAMES) if other != digit)
    texts = {random_prompt(ANY_DIGIT, chooser) for _ in range(100)}
    assert "" in texts and len(texts) > 5


def test_token_rows_equal_the_servers_tokenizer_and_strange_words_stay_inside():
    tokens = PromptTokens()
    row = tokens.rows(["a handwritten seven"])[0].tolist()
    assert len(row) == 77 and row[0] == 49406 and row[5:] == [49407] * 72 and row.index(49407) in (4, 5)
    strange = tokens.strange_rows(["seven"] * 20, random.Random(0))
    assert strange.shape == (20, 77)
    seven = tokens.rows(["seven"])[0, 1]
    assert all(seven in one for one in strange) and any((one < FIRST_SPECIAL).sum() > 3 for one in strange)


def test_reader_reads_real_digits_it_was_not_fitted_on(halves):
    kept, held = halves
    reader = DigitReader("digits", held)
    sample = Digits(kept.ink[:200], kept.labels[:200])
    assert reader.accuracy(reader.render(sample), sample.labels.tolist()) > 0.95
    assert reader.accuracy(torch.zeros(10, 3, IMAGE_SIDE, IMAGE_SIDE), list(range(10))) <= 0.2
