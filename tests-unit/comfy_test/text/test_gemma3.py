"""Gemma 3: transformers' numbers with both kinds of attention, pictures, which file is which, what its tokenizers make of prompts."""

import pytest
import torch
from safetensors.torch import save_file
from text_encoder_files import GEMMA_WIDTH, sentence_piece_model, text_model
from transformers import Gemma3TextConfig, Gemma3TextModel
from transformers.models.gemma3.configuration_gemma3 import Gemma3Config
from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector

import comfy.ops
import comfy.sd
from comfy.cli_args import args
from comfy.families.weight_source import StateDictSource
from comfy.text.gemma3 import GEMMA_3_12B
from comfy.text.gemma3 import Gemma3TextModel as OwnModel
from comfy.text.kinds import recognise
from comfy.text.te_models import TEModel
from comfy.text_encoders import gemma3, lt


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    pytest.importorskip("sentencepiece", reason="Gemma's tokenizer needs it")
    monkeypatch.setattr(args, "offline", True)
    with torch.inference_mode():
        yield


def own_model(tensors, **changes):
    found = recognise(StateDictSource(tensors))
    config = type(found.config)(**{name: getattr(found.config, name) for name in found.config.__slots__} | changes)
    model = OwnModel(config, comfy.ops.disable_weight_init)
    assert model.load_weights(StateDictSource(tensors), torch.float32, "gemma") == tensors.keys()
    return model


def carrying_file(path, kind):
    tensors = text_model(kind, vocabulary=512)
    tensors["spiece_model"] = torch.frombuffer(bytearray(sentence_piece_model(begins=True)), dtype=torch.uint8)
    save_file(tensors, str(path))
    return str(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return carrying_file(tmp_path_factory.mktemp("gemma3") / "small.safetensors", "gemma3_4b+eyes")


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("gemma3_12b", TEModel.GEMMA_3_12B),
        ("gemma3_12b+eyes", TEModel.GEMMA_3_12B),
        ("gemma3_4b", TEModel.GEMMA_3_4B),
        ("gemma3_4b+eyes", TEModel.GEMMA_3_4B_VISION),
    ],
)
def test_files_are_told_by_depth_and_eyes(kind, model):
    tensors = text_model(kind, vocabulary=300)
    found = recognise(StateDictSource(tensors))
    assert found.kind.model is model and (found.config.eyes is not None) is kind.endswith("eyes")
    assert recognise(StateDictSource({**tensors, "model.layers.0.layer_scalar": torch.ones(1)})) is None  # Gemma 4


def test_states_are_those_of_transformers_beyond_the_window():
    tensors = text_model("gemma3_4b", vocabulary=300)
    model = own_model(tensors, window=6)
    arguments = Gemma3TextConfig(**model.config.transformers_arguments(), attn_implementation="eager")
    reference = Gemma3TextModel(arguments).eval()
    reference.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    ids = torch.randint(3, 300, (1, 20), generator=torch.Generator().manual_seed(1))
    last, chosen, *_ = model(model.get_input_embeddings()(ids, out_dtype=torch.float32), [20], None, "all", False)
    expected = reference(input_ids=ids, output_hidden_states=True)
    assert chosen.shape == (1, 8, 20, GEMMA_WIDTH)
    assert torch.allclose(last, expected.last_hidden_state, atol=2e-4)
    assert torch.allclose(chosen[:, 3], expected.hidden_states[3], atol=2e-4)


def test_pictures_become_tokens_as_in_transformers():
    tensors = text_model("gemma3_4b+eyes", vocabulary=300)
    model = own_model(tensors)
    eyes = model.config.eyes
    config = Gemma3Config(
        text_config={"hidden_size": GEMMA_WIDTH},
        vision_config={"hidden_size": eyes.hidden_size, "image_size": eyes.image_size, "patch_size": eyes.patch_size},
    )
    reference = Gemma3MultiModalProjector(config)
    prefix = "multi_modal_projector."
    reference.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)})
    picture = torch.rand(1, 500, 448, 3)
    vectors, _ = model.preprocess_embed({"type": "image", "data": picture}, torch.device("cpu"))
    pixels = (picture[:, 26:474].movedim(-1, 1) * 255).round() / 255 * 2 - 1
    assert vectors.shape == (1, 256, GEMMA_WIDTH)
    assert torch.allclose(vectors, reference(model._look[0](pixels)[0]), atol=1e-5)


def test_a_file_without_eyes_says_so():
    model = own_model(text_model("gemma3_4b", vocabulary=300))
    with pytest.raises(ValueError, match="use a Gemma 3 file with vision_model"):
        model.preprocess_embed({"type": "image", "data": torch.rand(1, 8, 8, 3)}, torch.device("cpu"))


def test_published_sizes():
    model = OwnModel(GEMMA_3_12B, comfy.ops.disable_weight_init)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(11.77e9, rel=0.01)


def test_prompts_are_filled_up_at_the_left_and_masked(tmp_path):
    clip = comfy.sd.load_clip([carrying_file(tmp_path / "large.safetensors", "gemma3_12b")], clip_type=comfy.sd.CLIPType.LTXV)
    tokens = clip.tokenize("a (red:1.3) apple")
    ((chunk,),) = tokens.values()
    assert len(chunk) == 1024 and chunk[0] == (0, 1.0) and all(weight == 1.0 for _, weight in chunk)
    short = clip.tokenize("a (red:1.3) apple", min_length=1)["gemma3_12b"]
    states = clip.encode_from_tokens(short_tokens := {"gemma3_12b": short}, return_dict=True)
    padded = clip.encode_from_tokens({"gemma3_12b": [[(0, 1.0)] * 3 + short[0]]}, return_dict=True)
    assert states["cond"].shape == (1, 49, len(short_tokens["gemma3_12b"][0]), GEMMA_WIDTH)
    assert padded["attention_mask"].tolist() == [[0] * 3 + [1] * len(short[0])]


def test_a_picture_takes_the_place_of_its_mark(small):
    clip = comfy.sd.load_clip([small], clip_type=comfy.sd.CLIPType.LUMINA2)
    tokenizer = clip.tokenizer.gemma3_4b
    ((chunk,),) = clip.tokenize("rain", image=torch.rand(2, 20, 10, 3), skip_template=False).values()
    ((told,),) = clip.tokenize("rain", skip_template=False).values()
    pictures = [token for token, _ in chunk if isinstance(token, dict)]
    assert [token["data"].shape for token in pictures] == [(2, 1267, 634, 3)]
    assert gemma3.END_OF_TURN in [token for token, _ in told] and len(tokenizer.tokenize_with_weights("rain")[0]) < len(told)
    assert tokenizer.tokenize_with_weights("<start_of_turn>x", skip_template=False) == tokenizer.tokenize_with_weights("<start_of_turn>x")
    states = clip.encode_from_tokens({"gemma3_4b": [chunk]})
    assert states.shape == (1, len(chunk) - 1 + 2 * 256, GEMMA_WIDTH)


def test_packs_find_the_names_where_comfyui_has_them():
    assert lt.Gemma3_12BModel is gemma3.Gemma3_12BModel and lt.Gemma3_12BTokenizer is gemma3.Gemma3_12BTokenizer
