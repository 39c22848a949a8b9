"""What packs read of a tokenizer, and its padding at either end."""

import torch
from safetensors.torch import save_file

from comfy.text.clip_tokenizer import SDTokenizer


def test_attributes_that_packs_read():
    tokenizer = SDTokenizer()
    assert (tokenizer.start_token, tokenizer.end_token, tokenizer.pad_token) == (49406, 49407, 49407)
    assert (tokenizer.tokens_start, tokenizer.tokenizer_adds_end_token) == (1, True)
    assert (tokenizer.pad_with_end, tokenizer.pad_left, tokenizer.pad_to_max_length) == (True, False, True)
    assert (tokenizer.max_length, tokenizer.min_length, tokenizer.max_word_length, tokenizer.embedding_size) == (77, None, 8, 768)
    assert tokenizer.inv_vocab[tokenizer.tokenizer("cat")["input_ids"][tokenizer.tokens_start]] == "cat</w>"
    zeros = SDTokenizer(pad_with_end=False)
    assert (zeros.pad_with_end, zeros.pad_token) == (False, 0)


def test_padding_on_the_left():
    (chunk,) = SDTokenizer(pad_left=True, max_length=6).tokenize_with_weights("cat")
    assert [token for token, _ in chunk] == [49407, 49407, 49407, 49406, 2368, 49407]


def test_an_embedding_is_found_by_its_name(tmp_path):
    vectors = torch.arange(16.0).view(2, 8)
    save_file({"emb_params": vectors}, tmp_path / "style.safetensors")
    tokenizer = SDTokenizer(embedding_directory=[str(tmp_path)], embedding_size=8)
    found, rest = tokenizer._try_get_embedding("style of old")
    assert found.equal(vectors) and rest == "of old"
    assert tokenizer._try_get_embedding("nothing at all") == (None, "at all")
