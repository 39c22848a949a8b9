"""Prompts: weights, tokens, chunks, embeddings, and what they do to the text encoder's output."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors.torch
import torch
from small_models import small_checkpoint
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import comfy.sd
from comfy.loading.embeddings import find_embedding, load_embed
from comfy.sd1_clip import gen_empty_tokens
from comfy.sdxl_clip import SDXLTokenizer
from comfy.text.clip_tokenizer import SD1Tokenizer, SDTokenizer
from comfy.text.clip_vocabulary import clip_tokenizer, clip_vocabulary
from comfy.text.prompt_weights import escape_important, token_weights, unescape_important

START, END = 49406, 49407


@pytest.fixture(scope="module")
def tokenizer():
    return SDTokenizer()


@pytest.fixture(scope="module")
def clip():
    return comfy.sd.load_checkpoint_guess_config(small_checkpoint("sd15"), output_model=False, output_vae=False)[1]


@pytest.fixture(scope="module")
def clip_xl():
    return comfy.sd.load_checkpoint_guess_config(small_checkpoint("sdxl"), output_model=False, output_vae=False)[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [("plain", 1.0)]),
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("(b:1.5)", [("b", 1.5)]),
        ("((b))", [("b", pytest.approx(1.21))]),
        ("(a (b:0.5) c:2)", [("a ", 2.0), ("b", 0.5), (" c", 2.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(:1.5)", [(":1.5", 1.1)]),
        ("(open", [("(open", 1.0)]),
        ("", []),
        ("a) b", [("a) b", 1.0)]),
        ("(-1:-0.5)", [("-1", -0.5)]),
    ],
)
def test_weights_in_text(text, expected):
    assert token_weights(text, 1.0) == expected


def test_escaped_parentheses_are_text():
    pieces = token_weights(escape_important(r"a \(b\) (c\):2)"), 1.0)
    assert [(unescape_important(text), weight) for text, weight in pieces] == [("a (b) ", 1.0), ("c)", 2.0)]


def test_the_vocabulary_is_the_published_one():
    vocabulary, merges = clip_vocabulary()
    assert len(vocabulary) == 49408 and len(merges) == 48894
    assert (vocabulary["!"], vocabulary["in"], vocabulary["cat</w>"], vocabulary["<|endoftext|>"]) == (0, 512, 2368, END)


def test_text_models_share_a_tokenizer_until_somebody_changes_it():
    first, second = SDTokenizer(), SDTokenizer()
    assert first.tokenizer is second.tokenizer is clip_tokenizer()
    first.tokenizer.add_tokens(["<a-token-of-a-pack>"])
    third = SDTokenizer()
    assert third.tokenizer is not first.tokenizer and third.tokenizer is SDTokenizer().tokenizer
    prompt = "one <a-token-of-a-pack>"
    assert len(third.tokenizer(prompt)["input_ids"]) > len(first.tokenizer(prompt)["input_ids"])


def test_threads_may_share_a_tokenizer():
    words = [f"word {number} (and {number * 7919}:1.2)" for number in range(64)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda text: SDTokenizer().tokenize_with_weights(text), words))
    assert made == [SDTokenizer().tokenize_with_weights(text) for text in words]


def test_a_short_prompt_is_one_padded_chunk(tokenizer):
    (chunk,) = tokenizer.tokenize_with_weights("a (cat:1.5)")
    assert chunk[:4] == [(START, 1.0), (320, 1.0), (2368, 1.5), (END, 1.0)] and len(chunk) == 77 and set(chunk[4:]) == {(END, 1.0)}


def test_word_numbers_count_weighted_pieces(tokenizer):
    (chunk,) = tokenizer.tokenize_with_weights("a (cat:1.5) b", return_word_ids=True)
    assert [token[2] for token in chunk[:6]] == [0, 1, 2, 3, 0, 0]


def test_weights_can_be_switched_off(tokenizer):
    (chunk,) = tokenizer.tokenize_with_weights("(cat:1.5)", disable_weights=True)
    assert {weight for _, weight in chunk} == {1.0} and len([token for token, _ in chunk if token not in (START, END)]) > 3


def test_long_text_fills_chunks(tokenizer):
    chunks = tokenizer.tokenize_with_weights("cat " * 160)
    assert [len(chunk) for chunk in chunks] == [77] * 3
    assert all(chunk[0][0] == START and chunk[76][0] == END for chunk in chunks)
    assert sum(token == 2368 for chunk in chunks for token, _ in chunk) == 160


def test_a_short_group_moves_to_the_next_chunk_whole(tokenizer):
    first, second = tokenizer.tokenize_with_weights("cat " * 72 + "(dog dog dog dog dog:1.2)")
    assert sum(token == 2368 for token, _ in first) == 72 and [token for token, _ in first[73:]] == [END] * 4
    assert [weight for _, weight in second[1:6]] == [1.2] * 5


def test_minimum_lengths_and_paddings(tokenizer):
    assert len(tokenizer.tokenize_with_weights("cat", min_length=100)[0]) == 100
    options = {"clip_l_min_padding": 3, "clip_l_min_length": 80}
    assert len(tokenizer.tokenize_with_weights("cat", tokenizer_options=options)[0]) == 80
    loose = SDTokenizer(pad_to_max_length=False, min_padding=2)
    assert loose.tokenize_with_weights("cat") == [[(START, 1.0), (2368, 1.0), (END, 1.0), (END, 1.0), (END, 1.0)]]


def test_clip_g_pads_with_zero():
    tokens = SDXLTokenizer().tokenize_with_weights("cat")
    assert tokens["g"][0][3:] == [(0, 1.0)] * 74 and tokens["l"][0][3:] == [(END, 1.0)] * 74


def test_tokens_have_text():
    tokenizer = SD1Tokenizer()
    assert tokenizer.untokenize([(2368, 1.0)]) == [((2368, 1.0), "cat</w>")] and tokenizer.decode([2368]) == "cat"


@pytest.fixture
def embeddings(tmp_path):
    folder = tmp_path / "embeddings"
    (folder / "sub").mkdir(parents=True)
    safetensors.torch.save_file({"clip_l": torch.full((2, 64), 0.25), "clip_g": torch.ones(2, 96)}, str(folder / "both.safetensors"))
    torch.save({"string_to_param": {"*": torch.full((64,), 0.5)}}, folder / "sub" / "old.pt")
    (folder / "broken.pt").write_bytes(b"nothing")
    safetensors.torch.save_file({"emb_params": torch.ones(1, 64)}, str(tmp_path / "outside.safetensors"))
    return folder


def test_embeddings_are_found_below_their_folders_only(embeddings):
    folders = [str(embeddings)]
    assert load_embed("both", folders, 64, "clip_l").shape == (2, 64) and load_embed("both", folders, 96, "clip_g").shape == (2, 96)
    assert load_embed("old", str(embeddings), 64).shape == (64,)
    assert find_embedding("../outside", folders) is None and load_embed("absent", folders, 64) is None


def test_a_broken_embedding_is_left_out_with_its_name(embeddings, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_embed("broken", [str(embeddings)], 64) is None
    assert "broken.pt" in caplog.text


def early_parameter_dict(vectors):
    """A ``ParameterDict`` as torch wrote it before it kept a list of its keys."""
    made = torch.nn.ParameterDict.__new__(torch.nn.ParameterDict)
    made.__dict__.update(torch.nn.Module().__dict__)
    made.__dict__["_parameters"] = {"*": torch.nn.Parameter(vectors)}
    return made


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\3\4 no archive",
        5,
        [1, 2],
        [],
        {},
        {"step": 5},
        {"string_to_param": 3, "step": 1},
        {"string_to_param": {}},
        {"clip_l": "text"},
        [{"a": "text"}, {"b": torch.ones(2, 3)}],
        {"ids": torch.arange(64)},
        {"a": torch.tensor(1.0)},
        {"a": torch.ones(0, 64)},
    ],
)
@pytest.mark.parametrize("extension", [".pt", ".bin", ".safetensors"])
def test_whatever_is_wrong_with_an_embedding_it_is_left_out_with_its_name(tmp_path, caplog, content, extension):
    path = tmp_path / f"odd{extension}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif extension != ".safetensors":
        torch.save(content, path)
    else:
        tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)} if isinstance(content, dict) else {}
        safetensors.torch.save_file(tensors, path)
    tokenizer = SDTokenizer(embedding_directory=[str(tmp_path)], embedding_size=64)
    with caplog.at_level("WARNING"):
        (chunk,) = tokenizer.tokenize_with_weights("embedding:odd cat")
    assert [token for token, _ in chunk[:3]] == [49406, 2368, 49407] and f"odd{extension}" in caplog.text


@pytest.mark.parametrize(
    "wrap",
    [
        lambda vectors: {"step": 5, "*": vectors},
        lambda vectors: {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)}), "name": "early"},
        lambda vectors: {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": early_parameter_dict(vectors)},
        lambda vectors: vectors,
        lambda vectors: [{"a": vectors, "b": torch.ones(3, 96), "c": 1}],
        lambda vectors: {"other": torch.ones(2, 96), "right": vectors},
    ],
    ids=["number-first", "parameter-dict", "early-parameter-dict", "tensor", "list", "widths"],
)
def test_vectors_are_found_in_whatever_a_trainer_wrote_around_them(tmp_path, wrap):
    vectors = torch.randn(3, 64)
    torch.save(wrap(vectors), tmp_path / "odd.pt")
    assert torch.equal(load_embed("odd", str(tmp_path), 64), vectors)


def test_vectors_that_are_passed_over_are_named_unless_they_are_for_another_text_model(tmp_path, caplog):
    vectors = torch.randn(3, 64)
    torch.save({"first": vectors, "second": torch.zeros(2, 64), "wider": torch.zeros(2, 96)}, tmp_path / "two.pt")
    assert torch.equal(load_embed("two", str(tmp_path), 64), vectors)
    assert "two.pt: 1 tensors are not used (embedding), such as second" in caplog.text
    caplog.clear()
    torch.save({"clip_l": vectors, "clip_g": torch.zeros(2, 96)}, tmp_path / "both.pt")
    assert torch.equal(load_embed("both", str(tmp_path), 64, "clip_l"), vectors) and not caplog.text


def test_embeddings_take_the_place_of_their_names(embeddings, caplog):
    tokenizer = SDTokenizer(embedding_directory=[str(embeddings)], embedding_size=64)
    (chunk,) = tokenizer.tokenize_with_weights("a (embedding:both, cat:1.5)  embedding:absent")
    kinds = [torch.is_tensor(token) for token, _ in chunk[:6]]
    assert kinds == [False, False, True, True, False, False] and [weight for _, weight in chunk[2:5]] == [1.5] * 3
    assert chunk[4][0] == 267 and chunk[5][0] == 2368 and "absent" in caplog.text


def test_the_output_is_transformers_output(clip):
    model = clip.cond_stage_model.clip_l.transformer
    reference = CLIPTextModelWithProjection(CLIPTextConfig(**model.config.transformers_arguments(), attn_implementation="eager")).eval()
    reference.load_state_dict(model.state_dict(), strict=False)
    tokens = clip.tokenize("a cat on a mat")
    ids = torch.tensor([[token for token, _ in tokens["l"][0]]])
    with torch.inference_mode():
        expected = reference.text_model(ids, output_hidden_states=True)
        states, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
        torch.testing.assert_close(states, expected.last_hidden_state, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pooled, expected.pooler_output, rtol=1e-4, atol=1e-5)
        skipping = clip.clone()
        skipping.clip_layer(-2)
        normed = reference.text_model.final_layer_norm(expected.hidden_states[-2])
        torch.testing.assert_close(skipping.encode_from_tokens(tokens), normed, rtol=1e-4, atol=1e-5)
        assert torch.equal(clip.encode_from_tokens(tokens), states)


def test_token_weights_interpolate_from_the_empty_prompt(clip):
    with torch.inference_mode():
        plain, empty = clip.encode("a cat"), clip.encode("")
        weighted = clip.encode("a (cat:1.5)")
    torch.testing.assert_close(weighted[0, 2], (plain[0, 2] - empty[0, 2]) * 1.5 + empty[0, 2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weighted[0, 3:], plain[0, 3:], rtol=1e-4, atol=1e-5)


def test_chunks_are_joined_and_the_first_gives_the_pooled_output(clip):
    with torch.inference_mode():
        states, pooled = clip.encode_from_tokens(clip.tokenize("cat " * 80), return_pooled=True)
        _, first = clip.encode_from_tokens(clip.tokenize("cat " * 75), return_pooled=True)
    assert states.shape == (1, 154, 64) and pooled.shape == (1, 64)
    torch.testing.assert_close(pooled, first)


def test_embedding_vectors_enter_the_text_model(clip, caplog):
    tokens = clip.tokenize("a cat")
    table = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight
    replaced = {"l": [[(table[token].detach() if token == 2368 else token, weight) for token, weight in tokens["l"][0]]]}
    unfit = {"l": [[*tokens["l"][0][:2], (torch.ones(5), 1.0), *tokens["l"][0][2:76]]]}
    with torch.inference_mode():
        torch.testing.assert_close(clip.encode_from_tokens(replaced), clip.encode_from_tokens(tokens))
        assert clip.encode_from_tokens(unfit).shape == (1, 77, 64)
    assert "left out" in caplog.text


def test_results_as_a_dict_and_as_conditioning(clip):
    tokens = clip.tokenize("a cat")
    with torch.inference_mode():
        result = clip.encode_from_tokens(tokens, return_dict=True)
        ((states, values),) = clip.encode_from_tokens_scheduled(tokens, add_dict={"start_percent": 0.5})
    assert set(result) == {"cond", "pooled_output"} and torch.equal(states, result["cond"])
    assert values["start_percent"] == 0.5 and torch.equal(values["pooled_output"], result["pooled_output"])


def test_sdxl_joins_both_models_and_pools_the_larger(clip_xl):
    model = clip_xl.cond_stage_model
    with torch.inference_mode():
        states, pooled = clip_xl.encode_from_tokens(clip_xl.tokenize("a cat"), return_pooled=True)
        tokens = clip_xl.tokenize("a cat")
        states_g, pooled_g = model.clip_g.encode_token_weights(tokens["g"])
        _, unprojected = clip_xl.encode_from_tokens(tokens, return_pooled="unprojected")
    assert states.shape == (1, 77, 160) and torch.equal(states[..., 64:], states_g) and torch.equal(pooled, pooled_g)
    torch.testing.assert_close(unprojected @ model.clip_g.transformer.text_projection.weight.T, pooled, rtol=1e-4, atol=1e-5)


def test_an_empty_prompt_is_start_and_end():
    assert gen_empty_tokens({"start": 1, "end": 2, "pad": 0}, 4) == [1, 2, 0, 0]


def test_half_a_surrogate_counts_as_an_unknown_character(tokenizer):
    assert tokenizer.tokenize_with_weights("a \ud83d cat") == tokenizer.tokenize_with_weights("a \ufffd cat")
    assert tokenizer.tokenize_with_weights("\ud83d\ude00") == tokenizer.tokenize_with_weights("😀")
