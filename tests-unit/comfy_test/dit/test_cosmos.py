"""Cosmos-Predict2 and Anima: what their files are told by, diffusers' network and names, hooks, times per frame, the adapter."""

import pytest
import text_encoder_files
import torch
from image_family_files import as_bytes, cosmos_config, cosmos_tensors, numbers
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import network_of, qwen_text_tensors

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.cli_args import args
from comfy.dit import cosmos
from comfy.dit.models.cosmos import Anima, CosmosPredict2
from comfy.dit.registry import family_of, read_transformer_config
from comfy.ldm.anima import model as anima
from comfy.ldm.cosmos.embedders import PatchEmbed
from comfy.ldm.cosmos.position_embedding import VideoRopePosition3DEmb
from comfy.ldm.cosmos.predict2 import MiniTrainDIT, rotated_halves
from comfy.loading.lora_keys import model_lora_keys_clip, model_lora_keys_unet
from comfy.model_sampling import COSMOS_RFLOW
from comfy.ops import disable_weight_init
from comfy.text_encoders import anima as text

FP32 = {"dtype": torch.float32}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options=FP32)


def inputs(size=(6, 8), frames=1, channels=16):
    given = {"x": numbers(1, channels, frames, *size, seed=1), "timesteps": torch.tensor([0.6])}
    return {**given, "context": numbers(1, 5, 32, seed=2)}


@pytest.fixture(scope="module")
def network():
    return loaded(cosmos_tensors()).model.diffusion_model


@pytest.mark.parametrize(
    ("sizes", "kind", "flow"),
    [({}, "CosmosT2IPredict2", "FLOW_COSMOS"), ({"channels": 17}, "CosmosI2VPredict2", "FLOW_COSMOS"), ({"adapter": 40}, "Anima", "FLOW")],
)
def test_variants_are_told_by_their_tensors(sizes, kind, flow):
    model = loaded({"model.diffusion_model." + name: value for name, value in cosmos_tensors(**sizes).items()}).model
    assert type(model) is (Anima if kind == "Anima" else CosmosPredict2)
    assert type(model) in (comfy.model_base.Anima, comfy.model_base.CosmosPredict2) and model.model_type.name == flow
    assert type(model.model_config) is getattr(comfy.supported_models, kind)
    assert family_of(model.model_config.unet_config) is cosmos.FAMILY and model.latent_format.latent_dimensions == 3
    assert model.model_config.memory_usage_factor == pytest.approx(256 / 2048 * 0.95)
    assert model.concat_keys == (("mask_inverted",) if kind == "CosmosI2VPredict2" else ())


def test_the_real_sizes_give_the_published_names():
    network = network_of(
        cosmos_config(width=2048, depth=28, context=1024, lora=256, adapter=1024, vocabulary=32128) | {"llm_adapter_config": {}}
    )
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(value.numel() for value in network.parameters()) > 2_000_000_000
    assert shapes["blocks.27.adaln_modulation_cross_attn.2.weight"] == (6144, 256) and shapes["t_embedder.1.linear_2.weight"] == (
        6144,
        2048,
    )
    assert shapes["llm_adapter.blocks.5.mlp.0.bias"] == (4096,) and shapes["x_embedder.proj.1.weight"] == (2048, 68)
    real = read_transformer_config(shapes)
    assert real["image_model"] == "anima" and real["num_heads"] == 16 and "llm_adapter_config" not in real
    wide = {**{name: shape for name, shape in shapes.items() if not name.startswith("llm_")}, "x_embedder.proj.1.weight": (5120, 72)}
    assert cosmos.read_config(wide)["rope_t_extrapolation_ratio"] == 0.8333333333333334
    assert cosmos.read_config({"blocks.0.mlp.layer1.weight": (4, 4)}) is None


def test_it_computes_what_diffusers_computes_from_a_file_in_its_names():
    from diffusers import CosmosTransformer3DModel

    twin = CosmosTransformer3DModel(
        in_channels=17,  # the last marks padding; diffusers adds it by itself only with torchvision
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=128,
        num_layers=2,
        text_embed_dim=32,
        adaln_lora_dim=16,
        patch_size=(1, 2, 2),
        rope_scale=(1.0, 4.0, 4.0),
        extra_pos_embed_type=None,
        concat_padding_mask=False,
    ).eval()
    model = loaded(twin.state_dict()).model
    assert model.model_config.unet_config["adaln_lora_dim"] == 16
    for frames in (1, 2):
        given = inputs(frames=frames)
        marked = torch.cat((given["x"], torch.zeros(1, 1, frames, 6, 8)), dim=1)
        expected = twin(marked, given["timesteps"], given["context"], fps=None, return_dict=False)[0]
        torch.testing.assert_close(model.diffusion_model(**given), expected, rtol=1e-3, atol=2e-4)


def test_odd_sides_are_padded_and_cut_and_a_mask_marks_padding(network):
    assert network(**inputs((7, 5))).shape == (1, 16, 1, 7, 5)
    masked = network(**inputs(), padding_mask=torch.ones(1, 1, 3, 4))
    assert not torch.allclose(masked, network(**inputs()))


def test_cells_hold_channels_then_rows_and_columns():
    embed = PatchEmbed(2, 1, 3, 12, operations=disable_weight_init)
    x = torch.arange(48.0).reshape(1, 3, 1, 4, 4)
    assert embed.proj[0](x)[0, 0, 1, 0].tolist() == [8, 9, 12, 13, 24, 25, 28, 29, 40, 41, 44, 45]


def test_positions_turn_halves_and_frames_count_by_time():
    embedder = VideoRopePosition3DEmb(head_dim=12, h_extrapolation_ratio=2.0)
    turns = embedder.generate_embeddings((1, 2, 3, 4))
    assert turns.shape == (24, 6, 2, 2)
    slower = embedder.generate_embeddings((1, 2, 3, 4), fps=12)
    assert torch.equal(slower[12:, 2:], turns[12:, 2:]) and slower[12, 0, 1, 0] == pytest.approx(torch.tensor(2.0).sin().item())
    x = numbers(1, 24, 2, 12)
    turned = rotated_halves(x, turns)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 0], x[:, 0])


def test_half_precision_keeps_the_sums_in_single():
    kept = comfy.supported_models.Anima(cosmos_config(adapter=40))
    kept.set_inference_dtype(torch.float16, None)
    assert kept.memory_usage_factor == pytest.approx(256 / 2048 * 0.95 * 1.4)
    network = MiniTrainDIT(**cosmos_config(), dtype=torch.float16, device="cpu")
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.02)
    seen = []
    network.blocks[1].register_forward_pre_hook(lambda block, args: seen.append((args[0].dtype, args[1].dtype)))
    half = {name: value.half() for name, value in inputs().items()}
    assert network(**half).dtype == torch.float16 and seen == [(torch.float32, torch.float16)]


def test_patches_are_called_where_comfyui_calls_them(network):
    calls = []

    def attention(name):
        def patch(q, k, v, pe, attn_mask, extra_options):
            calls.append((name, extra_options["block_index"], tuple(q.shape), tuple(k.shape), extra_options["n_heads"]))
            return {"q": q * 0.5}

        return patch

    def fed(args):
        calls.append(("mlp", args["transformer_options"]["block_index"], tuple(args["x"].shape)))
        return {**args, "x": args["x"] * 2}

    def first(args):
        calls.append(("first", tuple(args["img"].shape), args["transformer_options"]["model_patch_data"]))
        return {"img": args["img"]}

    patches = {"attn1_patch": [attention("own")], "attn2_patch": [attention("text")], "mlp_patch": [fed], "post_input": [first]}
    patched = network(**inputs(), transformer_options={"patches": patches})
    cells = (1, 12, 256)
    expected = [("first", (1, 1, 3, 4, 256), {})]
    for number in (0, 1):
        expected += [("own", number, cells, cells, 2), ("text", number, cells, (1, 5, 32), 2), ("mlp", number, (1, 1, 3, 4, 256))]
    assert calls == expected and not torch.allclose(patched, network(**inputs()))


def test_given_frames_are_at_time_zero_and_noise_stands_beside_the_picture():
    model = loaded(cosmos_tensors(channels=17)).model
    mask = torch.ones(1, 1, 3, 4, 4)
    mask[:, :, 0] = 0
    assert model.process_timestep(torch.tensor([0.5]), denoise_mask=mask).tolist() == [[0.0, 0.5, 0.5]]
    assert model.process_timestep(torch.tensor([0.5]), denoise_mask=mask[:, :, 0]).tolist() == [0.5]
    latent = numbers(1, 16, 3, 4, 4)
    assert torch.equal(model.scale_latent_inpaint(torch.tensor([3.0]), latent, latent), latent * 4)
    given = {"noise": latent, "device": CPU, "cross_attn": numbers(1, 5, 32), "denoise_mask": mask, "frame_rate": 16}
    conds = model.extra_conds(**given)
    assert conds["c_concat"].cond.shape == (1, 1, 3, 4, 4) and conds["c_concat"].cond[0, 0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert conds["fps"].cond == 16 and torch.equal(conds["denoise_mask"].cond, mask)
    flow, sigma = COSMOS_RFLOW(), torch.tensor([1.0])
    assert torch.equal(flow.calculate_input(sigma, latent), latent / 2)
    torch.testing.assert_close(flow.calculate_denoised(sigma, latent, 3 * latent), latent)
    assert torch.equal(flow.noise_scaling(sigma, latent, latent), 2 * latent)
    assert (
        model.model_sampling.sigma(torch.tensor(0.5)) == 1.0
        and model.model_sampling.sigma(torch.tensor(1.0)) == model.model_sampling.sigma_max
    )


def test_the_adapter_reads_states_with_the_tokens_of_t5():
    model = loaded(cosmos_tensors(adapter=40)).model
    states, ids = numbers(1, 6, 40), torch.tensor([5, 9, 1])
    given = {"noise": numbers(1, 16, 1, 4, 4), "device": CPU, "cross_attn": states}
    made = model.extra_conds(**given, t5xxl_ids=ids, t5xxl_weights=torch.tensor([1.0, 0.5, 1.0]))["c_crossattn"].cond
    plain = model.diffusion_model.preprocess_text_embeds(states, ids[None])
    assert made.shape == (1, 512, 32) and not made[:, 3:].any()
    assert torch.equal(made[:, 1], plain[:, 1] / 2) and torch.equal(made[:, 0], plain[:, 0])
    network = model.diffusion_model
    direct = network(given["noise"], torch.tensor([0.5]), states, t5xxl_ids=ids[None])
    torch.testing.assert_close(direct, network(given["noise"], torch.tensor([0.5]), plain))
    with pytest.raises(ValueError, match=r"no tokens of T5.*Qwen3 0\.6B"):
        model.extra_conds(**given)
    with pytest.raises(ValueError, match="encoded to 40 values"):
        model.extra_conds(**{**given, "cross_attn": numbers(1, 6, 32)}, t5xxl_ids=ids)
    with torch.inference_mode(False):
        training = model.extra_conds(**given, t5xxl_ids=ids, t5xxl_weights=torch.ones(3))
    assert training["t5xxl_ids"].cond.shape == (1, 3) and training["t5xxl_weights"].cond.shape == (1, 3, 1)


def test_the_adapter_heeds_masks():
    adapter = anima.LLMAdapter(8, 16, 16, 1, 2, operations=disable_weight_init, vocabulary=20)
    for value in adapter.parameters():
        torch.nn.init.normal_(value, std=0.2)
    states, ids = numbers(1, 4, 8), torch.tensor([[3, 4, 5]])
    changed = states.clone()
    changed[:, 3] = 9.0
    mask = torch.tensor([[1, 1, 1, 0]])
    masked = [adapter(one, ids, torch.ones(1, 3), mask) for one in (states, changed)]
    torch.testing.assert_close(*masked)
    assert not torch.allclose(adapter(states, ids), adapter(changed, ids))
    wider = anima.LLMAdapter(8, 12, 16, 1, 2, layer_norm=True, operations=disable_weight_init, vocabulary=20)
    for value in wider.parameters():
        torch.nn.init.normal_(value, std=0.2)
    assert wider(states, ids).shape == (1, 3, 12)


def test_the_text_encoder_gives_states_and_tokens(tmp_path):
    tensors = qwen_text_tensors(eyes=False, normalised=True, vocabulary=VOCABULARY, width=32, layers=2)
    carried = {"tokenizer_json": as_bytes(qwen_tokenizer_json())}
    t5 = {"t5xxl": {"tokenizer_json": as_bytes(text_encoder_files.tokenizer_json())}}
    tokens = text.AnimaTokenizer(tokenizer_data={"qwen3_06b": carried, **t5}).tokenize_with_weights("(user:1.5) apple")
    assert {weight for _, weight in tokens["qwen3_06b"][0]} == {1.0} and 1.5 in {weight for _, weight in tokens["t5xxl"][0]}
    config = comfy.text.kinds.read_qwen_config({name: tuple(value.shape) for name, value in tensors.items()})
    model = text.te()(model_options={"qwen3_06b_model_config": config})
    model.load_sd(tensors)
    states, _, extras = model.encode_token_weights(tokens)
    assert states.shape == (1, len(tokens["qwen3_06b"][0]), 32) and extras["t5xxl_ids"].tolist() == [
        token for token, _ in tokens["t5xxl"][0]
    ]
    assert extras["t5xxl_weights"].max() == 1.5
    names = model_lora_keys_clip(model, {})
    assert names["lora_te_layers_1_self_attn_q_proj"] == "qwen3_06b.transformer.model.layers.1.self_attn.q_proj.weight"


def test_a_file_of_its_width_is_qwen3_with_six_hundred_million(tmp_path, monkeypatch):
    path = tmp_path / "qwen.safetensors"
    tensors = qwen_text_tensors(eyes=False, normalised=True, width=1024, layers=1)
    save_file({**tensors, "tokenizer_json": as_bytes(qwen_tokenizer_json())}, path)
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path)])
    text_encoder_files.write_tokenizer(tmp_path / "t5")
    clip = comfy.sd.load_clip([str(path)])
    assert type(clip.cond_stage_model) is text.AnimaTEModel and clip.tokenize("x")["t5xxl"]


def test_lora_files_name_weights_by_their_published_names():
    names = model_lora_keys_unet(loaded(cosmos_tensors(adapter=40)).model, {})
    weight = "diffusion_model.blocks.1.mlp.layer2.weight"
    assert names["lora_unet_blocks_1_mlp_layer2"] == names["diffusion_model.blocks.1.mlp.layer2"] == weight
    assert names["lora_unet_llm_adapter_blocks_0_cross_attn_o_proj"].startswith("diffusion_model.llm_adapter.")
