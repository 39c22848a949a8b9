"""Where tokenizers of text encoders come from, in which order, and what is said when there is none."""

import logging

import pytest
import torch
from text_encoder_files import sentence_piece_model, tokenizer_json, write_tokenizer

import folder_paths
from comfy.cli_args import args
from comfy.families.model_errors import MissingTokenizerError
from comfy.text import tokenizer_files
from comfy.text.t5_tokenizer import T5Tokenizer
from comfy.text.tokenizer_files import FoundTokenizer, WantedTokenizer, find_tokenizer
from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer

WANTED = WantedTokenizer("t5xxl", "t5", "somebody/some-t5")


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    """An empty folder of text encoders; nothing is fetched."""
    own = tmp_path / "text_encoders"
    own.mkdir()
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [str(own)])
    monkeypatch.setattr(args, "tokenizer_directory", [])
    monkeypatch.setattr(args, "offline", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return own


def ids_of(text):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer_json()).encode(text).ids


def as_tensor(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def test_a_file_may_carry_it():
    found = find_tokenizer(WANTED, {"t5xxl": {"tokenizer_json": as_tensor(tokenizer_json().encode())}})
    assert found("a red apple")["input_ids"] == ids_of("a red apple")
    assert found.decode(found("a red apple")["input_ids"], skip_special_tokens=True) == "a red apple"


def test_a_sentence_piece_model_may_be_carried():
    sentencepiece = pytest.importorskip("sentencepiece")
    model = sentence_piece_model()
    found = FoundTokenizer.from_pretrained(WANTED, {"spiece_model": as_tensor(model)})
    expected = sentencepiece.SentencePieceProcessor(model_proto=model).encode("a red apple")
    assert found("a red apple")["input_ids"] == [*expected, 1] and len(found) == len(found.get_vocab())
    assert bytes(found.serialize_model().numpy()) == model and found.decode(expected) == "a red apple"


def test_special_texts_of_a_sentence_piece_model():
    pytest.importorskip("sentencepiece")
    found = SPieceTokenizer(sentence_piece_model(), special_tokens={"<turn>": 7777})
    ids = found("a<turn>b")["input_ids"]
    assert ids.count(7777) == 1 and ids[-1] != 1
    assert "turn" not in found.decode(ids, skip_special_tokens=True)
    assert found.decode([*ids, len(found), -1]) == found.decode(ids, skip_special_tokens=True), "there is no piece for them"


@pytest.mark.parametrize("name", ["t5", "t5xxl", "some-t5", "t5_fp16"])
def test_it_may_lie_in_a_folder_of_text_encoders(name, folders, caplog):
    caplog.set_level(logging.INFO)
    write_tokenizer(folders / name)
    found = find_tokenizer(WANTED, {"t5xxl": {"file": str(folders / "t5_fp16.safetensors")}})
    assert found("a red apple")["input_ids"] == ids_of("a red apple") and str(folders / name) in caplog.text


def test_the_flags_folder_comes_first(folders, monkeypatch, tmp_path):
    write_tokenizer(tmp_path / "own" / "t5")
    (folders / "t5").mkdir()
    (folders / "t5" / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path / "own")])
    assert find_tokenizer(WANTED, {})("a")["input_ids"] == ids_of("a")


def test_a_damaged_one_is_named(folders):
    (folders / "t5").mkdir()
    (folders / "t5" / "tokenizer.json").write_text("{}")
    with pytest.raises(MissingTokenizerError, match=r"t5/tokenizer\.json is no tokenizer"):
        find_tokenizer(WANTED, {})


def test_without_any_the_error_names_the_file_and_the_place(folders):
    with pytest.raises(MissingTokenizerError) as raised:
        find_tokenizer(WANTED, {"t5xxl": {"file": "/models/t5_fp16.safetensors"}})
    assert all(word in str(raised.value) for word in ("/models/t5_fp16.safetensors", str(folders), "--tokenizer-directory", "--offline"))


def test_the_hub_is_asked_once_nothing_else_has_it(monkeypatch, tmp_path, caplog):
    import huggingface_hub

    caplog.set_level(logging.INFO)
    write_tokenizer(tmp_path)
    asked = []

    def download(repository, name, local_files_only=False):
        asked.append((repository, name, local_files_only))
        if local_files_only:
            raise FileNotFoundError(name)
        return str(tmp_path / name)

    monkeypatch.setattr(args, "offline", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert find_tokenizer(WANTED, {})("a")["input_ids"] == ids_of("a")
    assert asked == [(WANTED.repository, "tokenizer.json", True), (WANTED.repository, "tokenizer.json", False)]
    assert len([record for record in caplog.records if "fetching" in record.message and WANTED.repository in record.message]) == 1
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert tokenizer_files.is_offline()
    with pytest.raises(MissingTokenizerError, match="forbidden"):
        find_tokenizer(WANTED, {})


def test_chunks_of_t5(folders):
    write_tokenizer(folders / "t5")
    tokenizer = T5Tokenizer(min_length=20)
    (chunk,) = tokenizer.tokenize_with_weights("a (red:1.5) apple")
    ids = [token for token, _ in chunk]
    pieces = [(ids_of(text)[:-1], weight) for text, weight in (("a ", 1.0), ("red", 1.5), (" apple", 1.0))]
    expected = [(token, weight) for tokens, weight in pieces for token in tokens]
    assert chunk[: len(expected)] == expected and ids[len(expected)] == 1 and set(ids[len(expected) + 1 :]) == {0} and len(chunk) == 20
    assert [len(one) for one in tokenizer.tokenize_with_weights("apple " * 300)] == [len(ids_of("apple " * 300))]
    assert len(tokenizer.tokenize_with_weights("a", tokenizer_options={"t5xxl_min_length": 33})[0]) == 33
    words = [number for *_, number in tokenizer.tokenize_with_weights("a (red:1.5)", return_word_ids=True)[0]]
    assert words[0] == 1 and 2 in words and words[-1] == 0
    short = T5Tokenizer(min_length=8, max_length=8).tokenize_with_weights("apple " * 30)
    assert {len(one) for one in short} == {8} and all(one[-1][0] in (0, 1) for one in short)
