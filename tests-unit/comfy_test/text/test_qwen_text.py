"""Qwen's text models as text encoders: telling their files, tokens and templates, pictures among the tokens, what is kept of the states."""

import pytest
import torch
from qwen_tokenizer import MARKS, USER, VOCABULARY, byte_names, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import lumina_tensors, qwen_image_tensors, qwen_text_tensors, z_image_config
from wan_vae_files import wan_vae_tensors

import comfy.sd
from comfy import made_by
from comfy.families.model_errors import UnknownModelError
from comfy.families.weight_source import StateDictSource
from comfy.ops import disable_weight_init
from comfy.text.kinds import recognise
from comfy.text.qwen import conversations
from comfy.text.qwen.network import QwenTextModel
from comfy.text.qwen.pictures import fitting_size, picture_patches, token_positions
from comfy.text.qwen.sizes import read_qwen_config
from comfy.text.te_models import TEModel
from comfy.text_encoders import qwen_image, z_image


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def tokenizer_data():
    return {"tokenizer_json": torch.frombuffer(bytearray(qwen_tokenizer_json(), "utf-8"), dtype=torch.uint8)}


def text_encoder(path, kind, **sizes):
    """The text encoder of a file that carries its tokenizer."""
    tensors = qwen_text_tensors(vocabulary=VOCABULARY, width=32, **sizes)
    tensors["tokenizer_json"] = torch.frombuffer(bytearray(qwen_tokenizer_json(), "utf-8"), dtype=torch.uint8)
    save_file(tensors, str(path))
    return comfy.sd.load_clip([str(path)], clip_type=kind)


@pytest.fixture(scope="module")
def qwen25(tmp_path_factory):
    return text_encoder(tmp_path_factory.mktemp("qwen25") / "qwen25.safetensors", comfy.sd.CLIPType.QWEN_IMAGE)


def spelled(text):
    names = byte_names()
    numbers = {sign: number for number, sign in enumerate(names.values())}
    return [numbers[names[byte]] for byte in text.encode()]


def tokens_of(result):
    ((chunk,),) = result.values()
    return [token for token, _ in chunk]


@pytest.mark.parametrize(
    ("sizes", "model"),
    [({}, TEModel.QWEN25_7B), ({"eyes": False}, TEModel.QWEN25_7B), ({"eyes": False, "normalised": True}, TEModel.QWEN3_4B)],
)
def test_files_are_told_by_their_tensors(sizes, model):
    tensors = qwen_text_tensors(**sizes)
    prefix = f"text_encoders.{'qwen3_4b' if 'normalised' in sizes else 'qwen25_7b'}.transformer."
    found = recognise(StateDictSource({prefix + name: value for name, value in tensors.items()}))
    assert found.kind.model is model and found.config.hidden_size == 64 and found.config.num_layers == 3
    assert (found.config.num_heads, found.config.num_key_heads, found.config.head_width) == (2, 1, 128)
    assert (found.config.eyes is not None) is sizes.get("eyes", True)


def test_relatives_are_not_taken():
    shapes = {name: tuple(value.shape) for name, value in qwen_text_tensors(eyes=False, normalised=True).items()}
    first = "model.layers.0."
    assert read_qwen_config({**shapes, f"{first}post_feedforward_layernorm.weight": (64,)}) is None  # Gemma
    assert read_qwen_config({key: shape for key, shape in shapes.items() if "_norm." not in key}) is None  # Llama, Mistral


@pytest.mark.parametrize(("width", "model"), [(1024, TEModel.QWEN3_06B), (2048, TEModel.QWEN3_2B)])
def test_smaller_ones_are_told_by_their_width(width, model):
    found = recognise(StateDictSource(qwen_text_tensors(eyes=False, normalised=True, width=width, layers=1)))
    assert found.kind.model is model


def test_a_prompt_is_put_into_the_conversation(tokenizer_data):
    tokens = tokens_of(qwen_image.QwenImageTokenizer(tokenizer_data=tokenizer_data).tokenize_with_weights("(a:1.5) user"))
    assert tokens[0] == MARKS["<|im_start|>"] and tokens.count(MARKS["<|im_start|>"]) == 3 and MARKS["<|image_pad|>"] not in tokens
    said = tokens.index(USER) + 2
    assert tokens[said : said + 9] == [*spelled("(a:1.5) "), USER][:9]
    z_tokens = tokens_of(z_image.ZImageTokenizer(tokenizer_data=tokenizer_data).tokenize_with_weights("user"))
    assert z_tokens == [MARKS["<|im_start|>"], USER, 198, USER, MARKS["<|im_end|>"], 198, MARKS["<|im_start|>"], *spelled("assistant\n")]


def test_texts_that_need_no_conversation_and_templates(tokenizer_data):
    tokenizer = qwen_image.QwenImageTokenizer(tokenizer_data=tokenizer_data)
    assert tokens_of(tokenizer.tokenize_with_weights("<|im_start|>b")) == [MARKS["<|im_start|>"], *spelled("b")]
    assert tokens_of(tokenizer.tokenize_with_weights("b", llama_template="a{}c")) == spelled("abc")
    assert tokens_of(tokenizer.tokenize_with_weights("", llama_template="{}", prevent_empty_text=True)) == spelled(" ")
    assert tokens_of(tokenizer.tokenize_with_weights("", llama_template="{}")) == [MARKS["<|endoftext|>"]]


def test_pictures_take_the_places_of_their_marks(tokenizer_data):
    tokenizer, pictures = qwen_image.QwenImageTokenizer(tokenizer_data=tokenizer_data), [torch.rand(1, 4, 4, 3), torch.rand(1, 8, 8, 3)]
    tokens = tokens_of(tokenizer.tokenize_with_weights("x", images=pictures[:1]))
    assert [token["data"] is pictures[0] for token in tokens if isinstance(token, dict)] == [True]
    two = conversations.ONE_PICTURE * 2
    tokens = tokens_of(tokenizer.tokenize_with_weights(two, images=pictures, llama_template=conversations.ABOUT_PICTURES))
    assert [token["data"].shape for token in tokens if isinstance(token, dict)] == [(1, 4, 4, 3), (1, 8, 8, 3)]


def test_states_begin_with_what_the_user_says(qwen25):
    tokens = qwen25.tokenize("rain")
    states, values = qwen25.encode_from_tokens_scheduled(tokens)[0]
    ids = tokens_of(tokens)
    assert states.shape == (1, len(ids) - ids.index(USER) - 2, 32) and "attention_mask" not in values
    assert qwen_image.template_end_of([5, 6]) == -1 and qwen_image.template_end_of([MARKS["<|im_start|>"], 5]) == 0


def test_a_picture_changes_the_states_and_lengthens_them(qwen25):
    picture = torch.rand(1, 84, 56, 3)
    plain = qwen25.encode_from_tokens(qwen25.tokenize("x", images=[torch.zeros(1, 84, 56, 3)]))
    seen = qwen25.encode_from_tokens(qwen25.tokenize("x", images=[picture]))
    assert seen.shape == plain.shape and not torch.allclose(seen, plain)
    tokens = tokens_of(qwen25.tokenize("x", images=[picture]))
    said = [place for place, token in enumerate(tokens) if token == MARKS["<|im_start|>"]][1] + 3
    assert seen.shape[1] == len(tokens) - said - 1 + 3 * 2  # 28 x 28 pixels are one token


def test_states_know_their_file(qwen25):
    states = qwen25.encode_from_tokens(qwen25.tokenize("x"))
    with pytest.raises(ValueError, match=r"model.safetensors takes texts encoded to 64 .*qwen25\.safetensors"):
        made_by.check_context(states, 64, "model.safetensors")
    made_by.check_context(states, 32, "model.safetensors")


@pytest.mark.parametrize("z_image", [False, True])
def test_a_checkpoint_holds_model_text_encoder_and_autoencoder(z_image, tmp_path):
    part = "qwen3_4b" if z_image else "qwen25_7b"
    text_model = qwen_text_tensors(vocabulary=VOCABULARY, width=32, eyes=not z_image, normalised=z_image)
    network = lumina_tensors(z_image_config(context=32)) if z_image else qwen_image_tensors(context=32)
    tensors = {
        **{f"model.diffusion_model.{name}": value for name, value in network.items()},
        **{f"text_encoders.{part}.transformer.{name}": value for name, value in text_model.items()},
        **{f"vae.{name}": value for name, value in wan_vae_tensors().items()},
        "text_encoders.tokenizer_json": torch.frombuffer(bytearray(qwen_tokenizer_json(), "utf-8"), dtype=torch.uint8),
    }
    path = tmp_path / "whole.safetensors"
    save_file(tensors, str(path))
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path))
    assert type(model.model).__name__ == ("Lumina2" if z_image else "QwenImage") and vae.latent_dim == 3
    states = clip.encode_from_tokens(clip.tokenize("x"))
    assert states.shape[-1] == 32
    assert str(path) in made_by.said(states)


def test_the_type_of_another_family_is_refused_with_what_would_load(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(qwen_text_tensors(eyes=False), str(path))
    with pytest.raises(UnknownModelError, match=r"a\.safetensors.*Qwen2\.5-VL 7B"):
        comfy.sd.load_clip([str(path), str(path)], clip_type=comfy.sd.CLIPType.QWEN_IMAGE)


def test_a_model_without_eyes_says_so(tokenizer_data):
    config = read_qwen_config({name: tuple(value.shape) for name, value in qwen_text_tensors(eyes=False).items()})
    with pytest.raises(ValueError, match="no part that looks at pictures"):
        QwenTextModel(config, disable_weight_init).preprocess_embed({"type": "image", "data": None}, torch.device("cpu"))


def test_layers_can_be_chosen():
    tensors = qwen_text_tensors(eyes=False, normalised=True)
    model = QwenTextModel(read_qwen_config({name: tuple(value.shape) for name, value in tensors.items()}), disable_weight_init)
    model.load_weights(StateDictSource(tensors), torch.float32, "a text model")
    embeds = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(1))
    last, second, *_ = model(embeds, [6], intermediate_output=-2, final_layer_norm_intermediate=False)
    _, every, *_ = model(embeds, [6], intermediate_output="all", final_layer_norm_intermediate=False)
    _, some, *_ = model(embeds, [6], intermediate_output=[2, 3], final_layer_norm_intermediate=False)
    assert every.shape == (1, 4, 6, 64) and torch.equal(every[:, 0], embeds) and torch.equal(every[:, 3], last)
    assert torch.equal(every[:, 2], second) and torch.equal(some, every[:, 2:])
    masked, *_ = model(torch.cat([embeds, embeds], dim=1), [6], torch.tensor([[1] * 6 + [0] * 6]))
    torch.testing.assert_close(masked[:, :6], last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "expected"), [((84, 56), (84, 56)), ((100, 50), (112, 56)), ((20, 20), (56, 56)), ((5000, 4000), (4004, 3192))]
)
def test_pictures_are_brought_to_whole_tokens(size, expected):
    assert fitting_size(*size, 14) == expected


def test_patches_of_one_token_follow_each_other():
    picture = torch.arange(56 * 56.0).reshape(1, 56, 56, 1).expand(-1, -1, -1, 3) / (56 * 56)
    patches, grid = picture_patches(picture, 14, 2)
    assert patches.shape == (16, 3 * 2 * 14 * 14) and grid.tolist() == [[1, 4, 4]]
    corners = patches[:, 0].argsort().tolist()  # the upper left pixel tells where a patch lies
    assert corners == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    values = patches[0].reshape(3, 2, 14, 14)
    assert torch.equal(values[:, 0], values[:, 1])


def test_positions_of_text_and_pictures():
    picture = {"index": 2, "size": 6, "extra": torch.tensor([[1, 4, 6]])}
    frames, rows, columns = token_positions([picture], 10, torch.device("cpu")).tolist()
    assert frames == [0, 1, 2, 2, 2, 2, 2, 2, 5, 6]
    assert rows == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6]
    assert columns == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]
