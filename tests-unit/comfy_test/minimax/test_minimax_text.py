"""MiniMax H3's text encoder: how prompts are put together, what tokens are, and which files are of it."""

import pytest
import torch
from minimax_files import minimax_text_tensors

from comfy.families.weight_source import StateDictSource
from comfy.ops import disable_weight_init
from comfy.text.combinations import find_combination
from comfy.text.kinds import recognise
from comfy.text.qwen.half import HalfQwen3VLTextModel
from comfy.text.qwen.half_sizes import read_half_config
from comfy.text.te_models import TEModel
from comfy.text_encoders.minimax import BEGIN, END, PAD, MiniMaxH3Tokenizer, minimax_target, token_tags


class Letters:
    """Stands for Qwen's tokenizer: a token per letter."""

    @staticmethod
    def tokenize_with_weights(text, return_word_ids, disable_weights):
        return [[(ord(letter), 1.0) for letter in text]]


@pytest.fixture
def tokenizer():
    made = MiniMaxH3Tokenizer.__new__(MiniMaxH3Tokenizer)
    made.qwen3vl_32b = Letters()
    return made


def said(tokens):
    """The tokens of one prompt as text, marks as brackets, pictures by their number of frames."""
    (chunk,) = tokens["qwen3vl_32b"]
    signs = {BEGIN: "[", END: "]"}
    return "".join(f"{len(t[0]['data'])}" if isinstance(t[0], dict) else signs.get(t[0]) or chr(t[0]) for t in chunk)


def test_pictures_come_before_the_words(tokenizer):
    pictures = [torch.zeros(1, 4, 4, 3)] * 2
    assert said(tokenizer.tokenize_with_weights("hi", images=pictures)) == "<Picture 1>: [1]<Picture 2>: [1]hi"
    assert tokenizer.tokenize_with_weights("")["qwen3vl_32b"] == [[(PAD, 1.0)]]
    assert tokenizer.tokenize_with_weights("a", return_word_ids=True)["qwen3vl_32b"] == [[(97, 1.0, 0)]]


def test_what_is_shown_is_counted_by_kind(tokenizer):
    film = {"type": "video", "data": torch.zeros(3, 4, 4, 3), "timestamps": [0.0, 0.5, 1.0]}
    items = [{"type": "image", "data": torch.zeros(1, 4, 4, 3)}, {"type": "audio"}, film, {"type": "audio"}]
    assert said(tokenizer.tokenize_with_weights("hi", minimax_ref_items=items)) == (
        "<Picture 1>: [1]<Audio 1>: <Video 1>: <0.2 seconds>[2]<1.0 seconds>[2]<Audio 2>: hi"
    )


def test_marks_around_a_picture_count_as_picture():
    assert token_tags(6, [{"type": "image", "index": 2, "size": 2}]).tolist() == [1, 0, 0, 0, 0, 1]
    assert token_tags(2, [{"type": "embedding", "index": 0, "size": 1}]).tolist() == [1, 1]


def test_files_are_told_by_their_number_of_layers():
    tensors = minimax_text_tensors()
    found = recognise(StateDictSource(tensors))
    assert found.kind.model is TEModel.QWEN3VL_32B and found.config.num_layers == 50
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    assert read_half_config(shapes | {"model.layers.50.": (), "model.layers.51.": ()}).num_layers == 50
    assert read_half_config({name: shape for name, shape in shapes.items() if ".49." not in name}) is None
    for kind in ("minimax", "stable_diffusion"):
        assert find_combination([TEModel.QWEN3VL_32B], kind).make(["qwen3vl_32b"]).clip is minimax_target(["qwen3vl_32b"]).clip


def test_a_pair_of_frames_that_are_the_same_is_a_picture_that_stands_still():
    tensors = minimax_text_tensors(vocabulary=32)
    model = HalfQwen3VLTextModel(read_half_config({name: tuple(value.shape) for name, value in tensors.items()}), disable_weight_init)
    model.load_weights(StateDictSource(tensors), torch.float32, "the text encoder")
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    device = torch.device("cpu")
    with torch.inference_mode():
        alone, about = model.preprocess_embed({"type": "image", "data": picture}, device)
        pair, about_pair = model.preprocess_embed(
            {"type": "image", "data": picture.repeat(2, 1, 1, 1), "minimax_video_block": True}, device
        )
        other = picture.repeat(2, 1, 1, 1)
        other[1] = 0.0
        moving, _ = model.preprocess_embed({"type": "image", "data": other, "minimax_video_block": True}, device)
    torch.testing.assert_close(pair, alone)
    assert torch.equal(about["grid"], about_pair["grid"]) and not torch.allclose(moving, alone)
