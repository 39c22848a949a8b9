"""The text encoders of HunyuanVideo 1 and Kandinsky 5: which words are around prompts, which states are given."""

import pytest
import torch
from image_family_files import llama_tensors
from qwen_tokenizer import LLAMA_VOCABULARY, VOCABULARY, llama_tokenizer_json, qwen_tokenizer_json
from text_encoder_files import CLIP_WIDTH, text_model
from transformer_files import qwen_text_tensors

import comfy.sd
from comfy.cli_args import args
from comfy.text_encoders import hunyuan_video
from comfy.text_encoders.kandinsky5 import Kandinsky5Tokenizer, Kandinsky5TokenizerImage

WIDTH = 32


@pytest.fixture(autouse=True)
def tokenizers(monkeypatch, tmp_path):
    for folder, text in (("qwen25_tokenizer", qwen_tokenizer_json()), ("llama_tokenizer", llama_tokenizer_json())):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tokenizer.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path)])
    monkeypatch.setattr(args, "offline", True)
    with torch.inference_mode():
        yield


def encoder(kind):
    """The text encoder of the loaders' type *kind*, made of small models."""
    if kind == "HUNYUAN_VIDEO":
        other = llama_tensors(vocabulary=LLAMA_VOCABULARY, width=WIDTH, layers=4)
    else:
        other = qwen_text_tensors(vocabulary=VOCABULARY, width=WIDTH, eyes=False, layers=4)
    return comfy.sd.load_text_encoder_state_dicts([other, text_model("clip_l")], clip_type=comfy.sd.CLIPType[kind])


def encoded(clip, tokens):
    ((states, extras),) = clip.encode_from_tokens_scheduled(tokens)
    return states, extras


def test_llama_hears_the_conversation_and_the_model_the_users_words():
    clip = encoder("HUNYUAN_VIDEO")
    tokens = clip.tokenize("ab")
    (chunk,) = tokens["llama"]
    ids = [token for token, _ in chunk]
    assert ids[:2] == [128000, 128006] and ids.count(128006) == 2 and ids[-1] == 128009 and len(tokens["l"][0]) == 77
    states, extras = encoded(clip, tokens)
    assert states.shape == (1, 3, WIDTH) and extras["pooled_output"].shape == (1, CLIP_WIDTH) and "attention_mask" not in extras
    longer, _ = encoded(clip, clip.tokenize("abcd"))
    torch.testing.assert_close(longer[:, :2], states[:, :2], rtol=1e-4, atol=1e-5)  # nothing sees what comes later


def test_a_picture_stands_where_its_mark_is_and_gives_a_share_of_its_places():
    clip, seen = encoder("HUNYUAN_VIDEO"), torch.randn(1, 6, WIDTH, generator=torch.Generator().manual_seed(1))
    about = {"llama_template": hunyuan_video.ABOUT_PICTURE, "image_embeds": seen}
    tokens = clip.tokenize("ab", **about, image_interleave=2)
    marks = [token for token, _ in tokens["llama"][0] if not isinstance(token, int)]
    assert [mark["image_interleave"] for mark in marks] == [2] and torch.equal(marks[0]["data"], seen[0])
    assert [encoded(clip, clip.tokenize("ab", **about, image_interleave=step))[0].shape[1] for step in (1, 2, 6)] == [9, 6, 4]
    without = clip.tokenize("ab", llama_template=hunyuan_video.ABOUT_PICTURE)
    assert sum(token == 128257 for token, _ in without["llama"][0]) == 1


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([1, 2, 3], slice(0, None)),
        ([1, 128006, 882, 128007, 271, 7, 8, 128009, 9], slice(5, 8)),
        ([1, 128006, 882, 128007, 7, 8], slice(3, None)),
        ([1, 128009, 128006, 882, 128007, 271], slice(4, None)),
    ],
)
def test_where_the_users_words_are(tokens, said):
    assert hunyuan_video.places_of(tokens) == (said, [])


def test_kandinsky_hears_the_conversation_about_videos_or_pictures():
    clip, flat = encoder("KANDINSKY5"), encoder("KANDINSKY5_IMAGE")
    assert type(clip.tokenizer) is Kandinsky5Tokenizer and type(flat.tokenizer) is Kandinsky5TokenizerImage
    for one, word in ((clip, "zoom"), (flat, "promt")):
        assert word in one.tokenizer.llama_template and not one.tokenizer.llama_template.endswith("assistant\n")
        states, extras = encoded(one, one.tokenize("ab"))
        assert states.shape == (1, 3, WIDTH) and extras["pooled_output"].shape == (1, CLIP_WIDTH) and "attention_mask" not in extras
    assert not torch.equal(encoded(clip, clip.tokenize("ab"))[0], encoded(flat, flat.tokenize("ab"))[0])


def test_weights_are_told_by_their_file():
    tensors = llama_tensors(vocabulary=300)
    assert hunyuan_video.llama_detect(tensors) == {"dtype_llama": torch.float32} and hunyuan_video.llama_detect({}) == {}
    assert hunyuan_video.llama_detect({f"x.{name}": value.half() for name, value in tensors.items()}, "x.") == {
        "dtype_llama": torch.float16
    }
