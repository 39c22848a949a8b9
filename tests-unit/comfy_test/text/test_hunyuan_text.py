"""HunyuanVideo 1.5's text encoder: the conversation, texts in quotes, and what is made of both."""

import pytest
import torch
from hunyuan_files import WRITTEN, byt5_tensors
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from transformer_files import qwen_text_tensors

import comfy.sd
from comfy.cli_args import args
from comfy.text.te_models import TEModel
from comfy.text_encoders.hunyuan_image import ByT5SmallTokenizer, Bytes, HunyuanImageTokenizer
from comfy.text_encoders.hunyuan_video import HunyuanVideo15Tokenizer, hunyuan_video_15_target

WIDTH = 32


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def tokenizers(monkeypatch, tmp_path):
    folder = tmp_path / "qwen25_tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(qwen_tokenizer_json(), encoding="utf-8")
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path)])
    monkeypatch.setattr(args, "offline", True)


def loaded(*parts):
    files = {"qwen": lambda: qwen_text_tensors(vocabulary=VOCABULARY, width=WIDTH, eyes=False, layers=4), "byt5": byt5_tensors}
    kind = comfy.sd.CLIPType.HUNYUAN_VIDEO_15
    return comfy.sd.load_text_encoder_state_dicts([files[part]() for part in parts], clip_type=kind)


def test_byt5_is_a_kind_of_its_own_and_needs_no_file():
    assert comfy.sd.detect_te_model(byt5_tensors()) is TEModel.BYT5_SMALL_GLYPH
    (tokens,) = ByT5SmallTokenizer().tokenize_with_weights("aß")
    assert [token for token, _ in tokens] == [ord("a") + 3, 0xC3 + 3, 0x9F + 3, 1]
    assert Bytes.from_pretrained()("")["input_ids"] == [1]


def test_a_prompt_is_put_into_the_conversation_about_videos():
    tokenizer = HunyuanVideo15Tokenizer()
    said = tokenizer.tokenize_with_weights("user")["qwen25_7b"][0]
    assert len(said) > 300 and "camera angles" in tokenizer.llama_template  # single bytes in so small a vocabulary
    blank, empty = (tokenizer.tokenize_with_weights(text)["qwen25_7b"][0] for text in (" ", ""))
    assert blank == empty and "aspects" not in HunyuanImageTokenizer().llama_template


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('a sign "Open" and “Zu”', 'Text "Open". Text "Zu". '),
        ("a sign ‘Open’", 'Text "Open". '),
        ("no sign", None),
        ('it says ""', 'Text "". '),
    ],
)
def test_texts_in_quotes_are_written(text, written):
    tokens = HunyuanVideo15Tokenizer().tokenize_with_weights(text)
    if written is None:
        assert "byt5" not in tokens
    else:
        assert [token - 3 for token, _ in tokens["byt5"][0][:-1]] == list(written.encode())


def encoded(clip, text):
    ((states, extras),) = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return states, extras


def test_only_what_the_user_says_is_given_and_what_is_written_beside_it():
    clip = loaded("byt5", "qwen")
    states, extras = encoded(clip, "user")
    assert states.shape[2] == WIDTH and states.shape[1] < 30 and "conditioning_byt5small" not in extras and "attention_mask" not in extras
    longer, extras = encoded(clip, 'user "ok"')
    assert longer.shape[1] > states.shape[1] and extras["conditioning_byt5small"].shape == (1, len('Text "ok". ') + 1, WRITTEN)


def test_without_byt5_texts_in_quotes_are_words_alone():
    states, extras = encoded(loaded("qwen"), 'user "ok"')
    both, _ = encoded(loaded("qwen", "byt5"), 'user "ok"')
    assert "conditioning_byt5small" not in extras and torch.equal(states, both)
    assert hunyuan_video_15_target(("qwen25_7b",)).tokenizer is HunyuanVideo15Tokenizer
