"""Qwen3-VL: telling its files, its conversations, pictures among the tokens, its states against transformers' own."""

import pytest
import torch
from image_family_files import as_bytes
from qwen_tokenizer import MARKS, VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import qwen3_vl_tensors

import comfy.sd
from comfy.families.weight_source import StateDictSource
from comfy.text.kinds import recognise
from comfy.text.qwen.sizes import read_qwen3_vl_config, read_qwen_config
from comfy.text.te_models import TEModel


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "qwen3vl.safetensors"
    tensors = qwen3_vl_tensors(vocabulary=VOCABULARY, width=48)
    save_file(tensors | {"tokenizer_json": as_bytes(qwen_tokenizer_json()), "lm_head.weight": torch.zeros(2, 2)}, path)
    return comfy.sd.load_clip([str(path)])


def tokens_of(clip, *arguments, **options):
    ((chunk,),) = clip.tokenize(*arguments, **options).values()
    return [token for token, _ in chunk]


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize(("large", "model"), [(False, TEModel.QWEN3VL_4B), (True, TEModel.QWEN3VL_8B)])
def test_files_are_told_by_their_eyes(large, model, published):
    tensors = qwen3_vl_tensors(large=large, published=published)
    found = recognise(StateDictSource(tensors))
    assert found.kind.model is model and found.config.rope_theta == 5e6 and found.config.eyes.told == ((8, 16, 24) if large else (0, 1, 2))
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    assert read_qwen_config(shapes) is None
    assert read_qwen3_vl_config({name: shape for name, shape in shapes.items() if "deepstack" not in name}) is None


def test_published_sizes_are_told():
    def config(width, depth, seen):
        tensors = {name: tuple(value.shape) for name, value in qwen3_vl_tensors(layers=1).items()}
        tensors["model.language_model.embed_tokens.weight"] = (151936, width)
        tensors |= {f"model.visual.blocks.{number}.": () for number in range(depth)}
        return read_qwen3_vl_config({**tensors, "model.visual.patch_embed.proj.weight": (seen, 3, 2, 16, 16)}).eyes

    small, large = config(2560, 24, 1024), config(4096, 27, 1152)
    assert small.told == (5, 11, 17) and large.told == (8, 16, 24) and small.transformers_arguments()["num_heads"] == 16


def test_prompts_are_put_into_a_conversation(clip):
    tokens = tokens_of(clip, "user")
    assert tokens[0] == MARKS["<|im_start|>"] and tokens.count(MARKS["<|im_end|>"]) == 1
    assert len(tokens_of(clip, "user", thinking=True)) < len(tokens)
    assert tokens_of(clip, "<|im_start|>") == [MARKS["<|im_start|>"]]
    assert len(tokens_of(clip, "user", skip_template=True)) == 1
    batch = torch.rand(2, 64, 32, 3, generator=torch.Generator().manual_seed(1))
    seen = [token["data"] for token in tokens_of(clip, "user", image=batch) if isinstance(token, dict)]
    assert [one.shape for one in seen] == [(1, 64, 32, 3)] * 2 and torch.equal(seen[1], batch[1:])


def test_states_with_pictures_are_those_of_transformers(clip):
    from transformers import Qwen3VLConfig, Qwen3VLModel

    turns = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    text = {"vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "head_dim": 128, "rope_parameters": turns}
    eyes = {"depth": 4, "hidden_size": 64, "intermediate_size": 48, "out_hidden_size": 48, "num_position_embeddings": 16}
    eyes |= {"deepstack_visual_indexes": [0, 1, 2]}
    twin = Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=eyes)).eval()
    named = {name.removeprefix("model."): value for name, value in qwen3_vl_tensors(vocabulary=VOCABULARY, width=48).items()}
    twin.load_state_dict(named)
    picture = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(2))
    model = clip.cond_stage_model.qwen3vl_4b
    tokens = [5, 6, {"type": "image", "data": picture}, 7, 8]
    states, *_ = model([tokens])
    ids = torch.tensor([[5, 6, *[MARKS["<|image_pad|>"]] * 6, 7, 8]])
    from comfy.text.qwen.pictures import picture_patches

    patches, grid = picture_patches(picture, 16, 2, [0.5] * 3, [0.5] * 3)
    kinds = (ids == MARKS["<|image_pad|>"]).int()
    twin.language_model.norm = torch.nn.Identity()
    out = twin(input_ids=ids, pixel_values=patches, image_grid_thw=grid, mm_token_type_ids=kinds).last_hidden_state
    torch.testing.assert_close(states, out, rtol=1e-4, atol=1e-4)


def test_other_kinds_among_the_tokens_are_refused(clip):
    with pytest.raises(ValueError, match="'audio'.*pictures only"):
        clip.cond_stage_model.qwen3vl_4b.transformer.preprocess_embed({"type": "audio", "data": None}, torch.device("cpu"))
