"""PhotoMaker: reading its file, the place of the word, and what the person changes."""

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from comfy.families.model_errors import ModelFileError
from comfy.image_encoders.photomaker import PhotoMakerIDEncoder, build_photomaker, load_photomaker
from comfy_extras import nodes_photomaker

SIZES = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 224, "patch_size": 56}
FIRST, SECOND = 24, 40
WIDTH = FIRST + SECOND


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(3)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES, projection_dim=FIRST, hidden_act="quick_gelu")).eval()


@pytest.fixture(scope="module")
def tensors(reference):
    numbers = torch.Generator().manual_seed(5)
    own = {key: value.detach() for key, value in reference.state_dict().items() if not key.endswith("position_ids")}
    shapes = {
        "visual_projection_2.weight": (SECOND, 128),
        "fuse_module.layer_norm.weight": (WIDTH,),
        "fuse_module.layer_norm.bias": (WIDTH,),
    }
    for name, inner in (("mlp1", 2 * WIDTH), ("mlp2", WIDTH)):
        shapes |= {f"fuse_module.{name}.layernorm.{leaf}": (inner,) for leaf in ("weight", "bias")}
        shapes |= {f"fuse_module.{name}.fc1.weight": (WIDTH, inner), f"fuse_module.{name}.fc2.weight": (WIDTH, WIDTH)}
        shapes |= {f"fuse_module.{name}.{layer}.bias": (WIDTH,) for layer in ("fc1", "fc2")}
    return own | {name: torch.randn(shape, generator=numbers) * 0.2 for name, shape in shapes.items()}


def fused(tensors, word, person):
    """The definition, written out."""

    def mlp(name, x):
        own = {key.removeprefix(f"fuse_module.{name}."): value for key, value in tensors.items() if key.startswith(f"fuse_module.{name}.")}
        x = torch.nn.functional.layer_norm(x, x.shape[-1:], own["layernorm.weight"], own["layernorm.bias"])
        x = torch.nn.functional.gelu(x @ own["fc1.weight"].T + own["fc1.bias"])
        return x @ own["fc2.weight"].T + own["fc2.bias"]

    x = mlp("mlp1", torch.cat([word, person])) + word
    x = mlp("mlp2", x) + x
    return torch.nn.functional.layer_norm(x, x.shape, tensors["fuse_module.layer_norm.weight"], tensors["fuse_module.layer_norm.bias"])


def test_one_state_becomes_the_person(reference, tensors):
    model = build_photomaker(tensors)
    pixels, states = torch.rand(1, 2, 3, 224, 224), torch.rand(1, 77, WIDTH)
    seen = reference.vision_model(pixels[0]).pooler_output[0]
    person = torch.cat([tensors["visual_projection.weight"] @ seen, tensors["visual_projection_2.weight"] @ seen])
    made = model(pixels, states, (torch.arange(77) == 4)[None])
    assert torch.allclose(made[0, 4], fused(tensors, states[0, 4], person), atol=1e-4)
    assert torch.equal(made[0, :4], states[0, :4]) and torch.equal(made[0, 5:], states[0, 5:])


def test_other_texts_and_too_few_pictures_are_refused(tensors):
    model = build_photomaker(tensors)
    with pytest.raises(ValueError, match=f"encoded to {WIDTH} values, as SDXL's, not 7"):
        model(torch.rand(1, 1, 3, 224, 224), torch.rand(1, 77, 7), torch.zeros(1, 77, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 places for people in the text, but 1 pictures"):
        model(torch.rand(1, 1, 3, 224, 224), torch.rand(1, 77, WIDTH), (torch.arange(77) < 2)[None])


class Clip:
    """A text encoder whose states tell the tokens."""

    def tokenize(self, text, return_word_ids):
        assert return_word_ids
        words = [(ord(word[0]), 1.0, number) for number, word in enumerate(text.split(" "), 1)]
        return {"l": [[(1, 1.0, 0), *words, (2, 1.0, 0)]]}

    def encode_from_tokens(self, tokens, return_pooled):
        self.seen = [token for token, *_ in tokens["l"][0]]
        return torch.full((1, 77, WIDTH), 0.5), torch.zeros(1, 8)


def test_the_nodes_put_the_person_in_the_place_before_the_word(tensors, tmp_path, monkeypatch):
    torch.save({"id_encoder": dict(tensors), "lora_weights": {}}, tmp_path / "photomaker.bin")
    monkeypatch.setattr(nodes_photomaker.folder_paths, "get_full_path_or_raise", lambda _, name: str(tmp_path / name))
    model = nodes_photomaker.PhotoMakerLoader.execute("photomaker.bin").args[0]
    assert isinstance(model.model, PhotoMakerIDEncoder)
    clip, picture = Clip(), torch.rand(1, 250, 230, 3)
    ((states, values),) = nodes_photomaker.PhotoMakerEncode.execute(model, picture, clip, "a man photomaker sits").args[0]
    assert clip.seen == [1, ord("a"), ord("m"), ord("s"), 2, 2] and values["pooled_output"].shape == (1, 8)
    changed = (states != 0.5).any(dim=-1)[0].nonzero().flatten().tolist()
    assert changed == [2]
    ((plain, _),) = nodes_photomaker.PhotoMakerEncode.execute(model, picture, clip, "a man sits").args[0]
    assert (plain == 0.5).all()


@pytest.mark.parametrize(("before", "place"), [(0, 0), (1, 1), (75, 75), (76, 78), (150, 152), (151, 155)])
def test_long_prompts_have_the_person_behind_the_begin_of_its_chunk(tensors, monkeypatch, before, place):
    model = SimpleNamespace(load_device=torch.device("cpu"), model=build_photomaker(tensors))
    monkeypatch.setattr(nodes_photomaker.model_management, "load_models_gpu", lambda models: None)
    clip = Clip()
    monkeypatch.setattr(clip, "encode_from_tokens", lambda tokens, return_pooled: (torch.full((1, 231, WIDTH), 0.5), torch.zeros(1, 8)))
    text = " ".join([*["word"] * before, "photomaker", *["more"] * 20])
    ((states, _),) = nodes_photomaker.PhotoMakerEncode.execute(model, torch.rand(1, 250, 230, 3), clip, text).args[0]
    assert states.shape == (1, 231, WIDTH)
    assert (states != 0.5).any(dim=-1)[0].nonzero().flatten().tolist() == [place]


def test_another_file_names_itself(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "odd.bin")
    with pytest.raises(ModelFileError, match=r"odd\.bin.*use photomaker-v1\.bin"):
        load_photomaker(str(tmp_path / "odd.bin"))
