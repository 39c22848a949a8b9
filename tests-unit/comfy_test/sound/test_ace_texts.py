"""The text encoder of ACE-Step 1: lyrics in words and Latin letters, their tokens, and the states of tags."""

import pytest
import torch
from safetensors.torch import save_file
from sound_files import lyrics_tokenizer_json
from text_encoder_files import sentence_piece_model, text_model

import comfy.sd
from comfy.cli_args import args
from comfy.families.model_errors import MissingTokenizerError
from comfy.text.te_models import TEModel
from comfy.text_encoders import ace
from comfy.text_encoders.ace_text_cleaners import japanese_to_romaji, multilingual_cleaners, number_to_text

TOKENS = {"[SPACE]": 2, "[en]": 3, "[fr]": 4, "[ja]": 5, "[zh-cn]": 6}


@pytest.fixture
def tokenizers(tmp_path, monkeypatch):
    """A folder of tokenizers with that of lyrics."""
    folder = tmp_path / "ace_lyrics_tokenizer"
    folder.mkdir()
    (folder / "vocab.json").write_text(lyrics_tokenizer_json(), encoding="utf-8")
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path)])
    return tmp_path


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (7, "seven"),
        (13, "thirteen"),
        (40, "forty"),
        (115, "one hundred fifteen"),
        (21000, "twenty one thousand"),
        (1000001, "one million one"),
        (3 * 10**9, "three billion"),
        (2.05, "two point zero five"),
        (-3, "negative three"),
    ],
)
def test_numbers_become_words(number, words):
    assert number_to_text(number) == words


def test_a_number_with_an_exponent_is_not_said():
    with pytest.raises(ValueError, match="digits"):
        number_to_text(1e30)


@pytest.mark.parametrize(
    ("text", "lang", "cleaned"),
    [
        ('"Mr.  X" & 2 friends', "en", "mister x and two friends"),
        ("The 3rd of 1,234.5", "en", "the three of one thousand two hundred thirty four point five"),
        ("$5 or £3.50", "en", "five point zero or three point five"),
        ("50% @ 20°", "en", "fifty percent at twenty degree"),
        ("9" * 30 + ".5 and 2", "en", "9" * 30 + ".5 and 2"),
        ("Mr. X & 2", "fr", "mr. x & 2"),
        ("İÖÜ  x", "tr", "iöü x"),
    ],
)
def test_texts_are_cleaned(text, lang, cleaned):
    assert multilingual_cleaners(text, lang) == cleaned


@pytest.mark.parametrize(
    ("kana", "latin"),
    [
        ("しゃちょう", "shachou"),
        ("がっこう", "gakkou"),
        ("キャッチ", "kyacchi"),
        ("ん、。　", "n, .  "),
        ("ファン", "fuァn"),  # noqa: RUF001 - a small sign that has no sound of its own here
        ("漢字 abc", "漢字 abc"),
        ("おっ", "o"),
        ("キゃ", "kiya"),
    ],
)
def test_kana_become_latin_letters(kana, latin):
    assert japanese_to_romaji(kana) == latin


def test_lines_of_lyrics_have_a_language_and_an_end(tokenizers):
    tokenizer = ace.VoiceBpeTokenizer.from_pretrained(ace.LYRICS_TOKENIZER)

    def lines(text):
        start, *ids = tokenizer(text)["input_ids"]
        assert start == ace.START
        return ids

    plain = lines("la")
    assert plain == [TOKENS["[en]"], plain[1], ace.LINE_END]
    ids = lines("la\n\n[fr]la\n[zh] la\nら\n[verse]")
    assert ids[:3] == plain and ids[3] == ace.LINE_END and ids[4:7] == [TOKENS["[fr]"], *plain[1:]]
    assert ids[7:11] == [TOKENS["[zh-cn]"], TOKENS["[SPACE]"], *plain[1:]]
    assert ids[11] == TOKENS["[ja]"] and ids[14:16] == [ace.LINE_END, TOKENS["[en]"]]
    assert tokenizer.get_lang("[XX]la") == ("en", "[XX]la") and tokenizer.get_vocab() == {}


def test_the_text_encoder_gives_states_of_tags_and_tokens_of_lyrics(tokenizers):
    tensors = text_model("umt5xxl", vocabulary=200)
    wider = {
        name: torch.zeros(*value.shape[:-1], 768) if value.shape[-1] == 32 and value.ndim > 1 else value for name, value in tensors.items()
    }
    wider |= {name: torch.ones(768) for name in tensors if "norm" in name}
    wider |= {name: torch.zeros(768, value.shape[1]) for name, value in tensors.items() if name.endswith((".o.weight", ".wo.weight"))}
    wider["shared.weight"] = torch.randn(200, 768, generator=torch.Generator().manual_seed(1))
    wider["spiece_model"] = torch.frombuffer(bytearray(sentence_piece_model()), dtype=torch.uint8)
    path = str(tokenizers / "umt5.safetensors")
    save_file(wider, path)
    assert comfy.sd.detect_te_model(wider) is TEModel.UMT5_BASE
    clip = comfy.sd.load_clip([path], clip_type=comfy.sd.CLIPType.ACE)
    assert isinstance(clip.tokenizer, ace.AceT5Tokenizer) and isinstance(clip.cond_stage_model, ace.AceT5Model)
    tokens = clip.tokenize("a red apple", lyrics="la\nla")
    ((states, extra),) = clip.encode_from_tokens_scheduled(tokens)
    assert states.shape == (1, len(tokens["umt5base"][0]), 768) and extra["pooled_output"] is None
    assert extra["conditioning_lyrics"].tolist() == [[token for token, _ in tokens["lyrics"][0]]]
    assert tokens["lyrics"][0][0] == (ace.START, 1.0) and len(tokens["lyrics"][0]) == 7
    assert (
        "spiece_model" in clip.tokenizer.state_dict() and clip.tokenizer.untokenize(tokens["umt5base"][0])[0][0] == tokens["umt5base"][0][0]
    )


def test_without_a_tokenizer_of_lyrics_one_error_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path)])
    monkeypatch.setattr(args, "offline", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingTokenizerError, match=r"vocab\.json of coqui/XTTS-v2 into a folder named ace_lyrics_tokenizer"):
        ace.LyricsTokenizer()
