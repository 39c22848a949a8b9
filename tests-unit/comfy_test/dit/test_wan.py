"""Wan: what its files are told by, the network against diffusers' own, its hooks, what it is conditioned by, quantised files, LoRA."""

import types

import pytest
import torch
from quantised_files import quantised, settings_for, text
from transformer_files import network_of
from wan_files import wan_config, wan_tensors

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import wan
from comfy.dit.diffusers_files import as_published_transformer
from comfy.dit.models.wan import WAN21
from comfy.dit.names.wan import diffusers_places
from comfy.dit.registry import family_of
from comfy.families.model_errors import ModelFileError, UnknownModelError
from comfy.families.weight_source import StateDictSource
from comfy.ldm.wan import layers
from comfy.ldm.wan.camera import WanCamAdapter
from comfy.ldm.wan.model import WanModel
from comfy.ldm.wan.model_animate2 import WanAnimate2Model
from comfy.ldm.wan.pose_cache import PoseBranchCache
from comfy.loading.lora_keys import model_lora_keys_unet

CONTEXT = 64


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(kind="t2v", **sizes):
    network = network_of(wan_config(kind, **sizes))
    network.load_weights(wan_tensors(kind, **sizes))
    return network


@pytest.fixture(scope="module")
def network():
    return made()


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def inputs(channels=16, size=(3, 6, 8)):
    return {"x": numbers(1, channels, *size, seed=1), "timestep": torch.tensor([600.0]), "context": numbers(1, 5, CONTEXT, seed=2)}


def loaded(kind="t2v", dtype=torch.float32, **sizes):
    tensors = {"model.diffusion_model." + key: value for key, value in wan_tensors(kind, **sizes).items()}
    return comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": dtype})


@pytest.mark.parametrize(
    ("kind", "sizes", "config", "model"),
    [
        ("t2v", {}, "WAN21_T2V", "WAN21"),
        ("t2v", {"channels": 36}, "WAN21_T2V", "WAN21"),
        ("i2v", {}, "WAN21_I2V", "WAN21"),
        ("flf", {}, "WAN21_I2V", "WAN21"),
        ("control", {}, "WAN21_FunControl2V", "WAN21"),
        ("vace", {}, "WAN21_Vace", "WAN21_Vace"),
        ("camera", {}, "WAN21_Camera", "WAN21_Camera"),
        ("camera_2.2", {}, "WAN22_Camera", "WAN21_Camera"),
        ("5b", {}, "WAN22_T2V", "WAN22"),
    ],
)
def test_kinds_are_told_by_their_tensors(kind, sizes, config, model):
    found = loaded(kind, **sizes).model
    assert type(found) is getattr(comfy.model_base, model) and type(found.model_config) is getattr(comfy.supported_models, config)
    assert family_of(found.model_config.unet_config) is wan.FAMILY and found.model_type.name == "FLOW"
    assert found.model_sampling.shift == 8.0 and found.latent_format.latent_dimensions == 3
    assert found.latent_format.latent_channels == (48 if kind == "5b" else 16)
    assert found.memory_usage_factor == pytest.approx((1.2 if kind == "vace" else 1.0) * 128 / 2222)


def test_the_real_sizes_give_the_published_names():
    network = network_of(wan_config(width=5120, depth=40, inner=13824, context=4096, channels=36))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(value.numel() for value in network.parameters()) > 14_000_000_000
    assert shapes["patch_embedding.weight"] == (5120, 36, 1, 2, 2) and shapes["blocks.39.ffn.2.weight"] == (5120, 13824)
    assert shapes["blocks.0.cross_attn.norm_q.weight"] == (5120,) and shapes["head.modulation"] == (1, 2, 5120)
    assert wan.read_config(shapes)["num_heads"] == 40 and list(network.patch_blocks())[-1] == ("double_block", 39)


def test_relatives_are_refused_by_name_and_others_are_none():
    shapes = {name: tuple(value.shape) for name, value in wan_tensors().items()}
    with pytest.raises(UnknownModelError, match="wandancer"):
        wan.read_config({**shapes, "patch_embedding_global.weight": (8, 16, 1, 2, 2)})
    with pytest.raises(ModelFileError, match="multiple of 128"):
        wan.read_config({**shapes, "head.modulation": (1, 2, 100)})
    assert wan.read_config({key: shape for key, shape in shapes.items() if key != "head.modulation"}) is None


def in_diffusers_names(kind, **sizes):
    """A small network as diffusers saves it."""
    published, config = wan_tensors(kind, **sizes), wan_config(kind, **sizes)
    places = diffusers_places({"blocks": config["num_layers"], "vace_blocks": config.get("vace_layers", 0)})
    found = {name: published[place.key] for name, place in places.items() if place.key in published}
    assert len(found) == len(published)
    return found


@pytest.mark.parametrize("kind", ["t2v", "i2v", "flf"])
def test_it_computes_what_diffusers_computes(kind):
    from diffusers import WanTransformer3DModel

    sizes = {"patch_size": (1, 2, 2), "num_attention_heads": 1, "attention_head_dim": 128, "text_dim": CONTEXT, "ffn_dim": 192}
    seeing = {"image_dim": 1280, "added_kv_proj_dim": 128} if kind != "t2v" else {}
    places = {"pos_embed_seq_len": 514} if kind == "flf" else {}
    channels = 16 if kind == "t2v" else 36
    twin = WanTransformer3DModel(**sizes, in_channels=channels, out_channels=16, num_layers=2, **seeing, **places).eval()
    twin.load_state_dict(in_diffusers_names(kind))
    given = inputs(channels)
    seen = {"t2v": None, "i2v": numbers(1, 257, 1280, seed=3), "flf": numbers(1, 514, 1280, seed=3)}[kind]
    as_twin = None if seen is None else seen.reshape(-1, 257, 1280)
    # diffusers takes the last 512 tokens for the text's, so the text is as long
    context = numbers(1, 512, CONTEXT, seed=2)
    expected = twin(given["x"], given["timestep"], context, as_twin, return_dict=False)[0]
    torch.testing.assert_close(made(kind)(given["x"], given["timestep"], context, seen), expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("kind", ["t2v", "flf", "vace"])
def test_diffusers_files_load_as_views(kind):
    tensors = in_diffusers_names(kind)
    source = as_published_transformer(StateDictSource(dict(tensors)))
    published = wan_tensors(kind)
    assert dict(source.shapes()) == {name: tuple(value.shape) for name, value in published.items()}
    taken = source.take(list(published), torch.float32)
    assert all(torch.equal(taken[name], value) for name, value in published.items())
    assert {value.data_ptr() for value in taken.values()} == {value.data_ptr() for value in tensors.values()}


def test_odd_sides_are_padded_and_cut_again(network):
    assert network(**inputs(size=(2, 5, 7))).shape == (1, 16, 2, 5, 7)


def test_the_first_layer_stays_in_float32_whatever_the_others_are():
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        weights = loaded("vace", dtype=dtype).model.diffusion_model
        kept = {name for name, value in weights.named_parameters() if value.dtype == torch.float32}
        assert kept == {f"{layer}.{leaf}" for layer in ("patch_embedding", "vace_patch_embedding") for leaf in ("weight", "bias")}
        assert weights.blocks[0].modulation.dtype == weights.blocks[0].ffn[0].weight.dtype == dtype


def test_what_stands_beside_the_video_changes_it_and_is_cut_off_again():
    network = made("t2v", reference=16)
    plain = network(**inputs())
    extras = (
        {"time_dim_concat": numbers(1, 16, 2, 6, 8, seed=4)},
        {"reference_latent": numbers(1, 16, 6, 8, seed=5)},
        {"context_latents": [numbers(1, 16, 1, 5, 4, seed=6), numbers(1, 16, 3, 6, 8, seed=7)]},
    )
    results = [plain, *(network(**inputs(), **extra) for extra in extras)]
    assert all(result.shape == plain.shape for result in results)
    assert not any(torch.allclose(one, other, rtol=1e-3) for number, one in enumerate(results) for other in results[:number])


def test_frames_may_have_times_of_their_own(network):
    given = inputs()
    same = network(given["x"], torch.full((1, 3), 600.0), given["context"])
    torch.testing.assert_close(same, network(**given), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(given["x"], torch.tensor([[0.0, 600.0, 600.0]]), given["context"]), same, rtol=1e-2)


@pytest.mark.parametrize(("tokens", "expected"), [(6, [0, 0, 1, 1, 2, 2]), (5, [0, 0, 1, 1, 2]), (3, [0, 1, 2])])
def test_values_of_times_are_repeated_for_their_tokens(tokens, expected):
    values = torch.arange(3.0).view(1, 3, 1)
    assert layers.repeat_e(values, torch.zeros(1, tokens, 1)).flatten().tolist() == expected
    assert layers.repeat_e(values[:, :1], torch.zeros(1, tokens, 1)).shape == (1, 1, 1)


def test_videos_to_go_by_count_by_their_strength():
    network = made("vace", depth=4, vace_depth=2)
    assert network.vace_layers_mapping == {0: 0, 2: 1}
    videos = numbers(1, 2, 96, 3, 6, 8, seed=9)
    plain = network(**inputs(), vace_context=videos, vace_strength=[0.0, 0.0])
    weights = {name: value for name, value in wan_tensors("vace", depth=4, vace_depth=2).items() if not name.startswith("vace_")}
    without = network_of(wan_config(depth=4))
    without.load_weights(weights)
    torch.testing.assert_close(plain, without(**inputs()), rtol=1e-5, atol=1e-6)
    one = network(**inputs(), vace_context=videos[:, :1], vace_strength=[0.5])
    both = network(**inputs(), vace_context=videos, vace_strength=[0.5, 0.0])
    torch.testing.assert_close(one, both, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one, plain, rtol=1e-2)


def test_a_camera_is_seen_cell_by_cell():
    adapter = WanCamAdapter(24, 32, (2, 2), (2, 2), operation_settings={"operations": torch.nn})
    assert adapter(numbers(2, 24, 3, 48, 64)).shape == (2, 32, 3, 3, 4)
    network = made("camera_2.2")
    rays = numbers(1, 24, 3, 48, 64, seed=3)
    assert not torch.allclose(network(**inputs(36), camera_conditions=rays), network(**inputs(36)), rtol=1e-2)


def test_a_replacement_of_a_block_sees_its_arguments_and_the_original(network):
    seen = []

    def replacement(args, extra):
        seen.append((sorted(args), args["transformer_options"]["block_type"], args["transformer_options"]["block_index"]))
        return extra["original_block"](args)

    replaced = network(**inputs(), transformer_options={"patches_replace": {"dit": {("double_block", 1): replacement}}})
    assert torch.equal(network(**inputs()), replaced)
    assert seen == [(["img", "pe", "transformer_options", "txt", "vec"], "double", 1)]


def test_patches_are_called_where_comfyui_calls_them(network):
    calls = []

    def attended(args):
        calls.append((tuple(args["q"].shape), tuple(args["x"].shape), args["transformer_options"]["block_index"]))
        return args["x"] * 0.5

    def after_text(args):
        calls.append(("text", tuple(args["x"].shape)))
        return args["x"]

    def after(args):
        calls.append(("after", args["block_index"], args["img_offset"], tuple(args["x"].shape)))
        return {"img": args["img"] * 2}

    options = {"patches": {"attn1_patch": [attended], "attn2_patch": [after_text], "double_block": [after]}}
    patched = network(**inputs(), transformer_options=options)
    block = [((1, 36, 1, 128), (1, 36, 128)), ("text", (1, 36, 128))]
    assert calls == [one for n in (0, 1) for one in ((*block[0], n), block[1], ("after", n, 0, (1, 16, 3, 6, 8)))]
    assert tuple(options["grid_sizes"]) == (3, 3, 4) and not torch.allclose(patched, network(**inputs()))


def test_places_are_stretched_and_moved_as_asked(network):
    moved = network.rope_encode(3, 6, 8, transformer_options={"rope_options": {"shift_t": 2.0}})
    longer = network.rope_encode(5, 6, 8)
    torch.testing.assert_close(moved, longer[:, 24:])
    halved = network.rope_encode(3, 6, 8, transformer_options={"rope_options": {"scale_t": 0.5}}, dtype=torch.float32)
    torch.testing.assert_close(halved[:, 24:], network.rope_encode(2, 6, 8)[:, 12:])
    with_id = network.rope_encode(3, 6, 8, source_id=1)
    assert with_id.shape == moved.shape and not torch.allclose(with_id, network.rope_encode(3, 6, 8))


def conds(model, **given):
    noise = numbers(1, model.latent_format.latent_channels, 3, 6, 8, seed=1)
    return model.extra_conds(noise=noise, device=torch.device("cpu"), cross_attn=numbers(1, 5, CONTEXT), **given)


def test_pictures_and_masks_become_channels():
    model = loaded(channels=36).model
    picture, mask = numbers(1, 16, 3, 6, 8), torch.ones(1, 1, 2, 6, 8)
    mask[:, :, 0] = 0.0
    found = conds(model, concat_latent_image=picture, concat_mask=mask)["c_concat"].cond
    assert found.shape == (1, 20, 3, 6, 8) and torch.equal(found[:, 4:], model.process_latent_in(picture))
    assert found[:, :4].mean(dim=(0, 1, 3, 4)).tolist() == [1.0, 0.0, 0.0]  # what the mask lacks is free
    behind = conds(model, concat_latent_image=picture, concat_mask=mask, concat_mask_index=16)["c_concat"].cond
    assert torch.equal(behind[:, :16], found[:, 4:]) and torch.equal(behind[:, 16:], found[:, :4])
    assert conds(model)["c_concat"].cond.count_nonzero() == 0
    assert "c_concat" not in conds(loaded().model)
    with pytest.raises(ValueError, match="16 channels"):
        conds(model, concat_latent_image=numbers(1, 12, 3, 6, 8))


def test_two_latents_fill_a_control_models_channels():
    model = loaded("control").model
    both = numbers(1, 32, 3, 6, 8)
    found = conds(model, concat_latent_image=both)["c_concat"].cond
    assert torch.equal(found, torch.cat([model.process_latent_in(part) for part in both.split(16, dim=1)], dim=1))
    assert torch.equal(both, numbers(1, 32, 3, 6, 8))  # the conditioning is left as it is


def test_conditioning_is_what_the_network_takes():
    model = loaded("i2v").model
    seen, latent = types.SimpleNamespace(penultimate_hidden_states=numbers(1, 257, 1280)), numbers(1, 16, 1, 6, 8)
    found = conds(model, clip_vision_output=seen, reference_latents=[latent], time_dim_concat=latent, context_latents=[latent])
    assert isinstance(model, WAN21) and found.keys() >= {"c_crossattn", "clip_fea", "reference_latent", "time_dim_concat"}
    assert found["reference_latent"].cond.shape == (1, 16, 6, 8) and isinstance(found["context_latents"], comfy.conds.CONDList)
    assert torch.equal(found["time_dim_concat"].cond, model.process_latent_in(latent))
    with pytest.raises(ValueError, match=r"takes texts encoded to 64 .* has 40"):
        model.extra_conds(noise=latent, device=torch.device("cpu"), cross_attn=numbers(1, 5, 40))


def test_the_5b_model_gives_every_frame_its_time():
    model = loaded("5b").model
    mask = torch.ones(2, 1, 3, 6, 8)
    mask[:, :, 0] = 0.0
    assert torch.equal(conds(model, denoise_mask=mask)["denoise_mask"].cond, mask)
    times = model.process_timestep(torch.tensor([1000.0, 500.0]), denoise_mask=mask)
    assert times.tolist() == [[0.0, 1000.0, 1000.0], [0.0, 500.0, 500.0]]
    assert model.process_timestep(torch.tensor([7.0])).tolist() == [7.0]
    latent = numbers(1, 48, 3, 6, 8)
    assert model.scale_latent_inpaint(torch.tensor([0.7]), noise=latent * 2, latent_image=latent) is latent


def test_vace_without_a_video_has_an_empty_one():
    model = loaded("vace").model
    empty = conds(model)
    assert empty["vace_context"].cond.shape == (1, 1, 96, 3, 6, 8) and empty["vace_strength"].cond == [1.0]
    video, mask = numbers(1, 32, 3, 6, 8), numbers(1, 64, 3, 6, 8, seed=2)
    found = conds(model, vace_frames=[video, video], vace_mask=[mask, mask], vace_strength=[0.5, 1.0])
    assert found["vace_context"].cond.shape == (1, 2, 96, 3, 6, 8) and torch.equal(found["vace_context"].cond[:, 1, 32:], mask)


def test_latents_of_the_5b_model_go_in_and_out():
    latent = numbers(1, 48, 2, 3, 4)
    kind = comfy.latent_formats.Wan22()
    torch.testing.assert_close(kind.process_out(kind.process_in(latent)), latent)
    assert len(kind.latent_rgb_factors) == 48 and len(comfy.latent_formats.Wan21().latent_rgb_factors) == 16


@pytest.mark.parametrize("kind", ["fp8", "nvfp4", "int8"])
def test_quantised_files_stay_quantised(kind):
    tensors, values = {}, {}
    for name, value in wan_tensors().items():
        if name.startswith("blocks.") and value.ndim == 2:
            parts, meant = quantised(kind, value)
            layer = name.removesuffix("weight")
            tensors |= {layer + suffix: part for suffix, part in parts.items()} | {layer + "comfy_quant": text(settings_for(kind))}
            values[name] = meant
        else:
            tensors[name] = values[name] = value
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model.diffusion_model
    assert model.blocks[0].self_attn.q.quantised is not None
    plain = network_of(wan_config())
    plain.load_weights(values)
    found, expected = model(**inputs()), plain(**inputs())
    assert ((found - expected).norm() / expected.norm()).item() < (0.05 if kind == "int8" else 1e-3)


def test_lora_files_name_weights_in_the_usual_ways():
    names = model_lora_keys_unet(loaded("i2v").model, {})
    own, theirs = "blocks.1.cross_attn.k_img", "blocks.1.attn2.add_k_proj"
    spellings = [own, f"diffusion_model.{own}", f"transformer.{own}", f"lora_unet_{own.replace('.', '_')}"]
    spellings += [theirs, f"diffusion_model.{theirs}", f"transformer.{theirs}", f"lycoris_{theirs.replace('.', '_')}"]
    assert {names[spelling] for spelling in spellings} == {f"diffusion_model.{own}.weight"}
    assert names["transformer.condition_embedder.text_embedder.linear_1"] == "diffusion_model.text_embedding.0.weight"
    assert names["transformer.blocks.0.norm2"] == "diffusion_model.blocks.0.norm3.weight"
    assert names["diffusion_model.blocks.0.modulation"] == "diffusion_model.blocks.0.modulation"


def moving(network, **given):
    """What *network* of Wan-Animate 2 makes of a picture and two latent frames."""
    options = given.pop("options", {})
    return network(numbers(1, 36, 3, 4, 6), torch.tensor([300.0]), numbers(1, 5, CONTEXT, seed=1), transformer_options=options, **given)


def test_a_picture_moves_as_a_video_does():
    network = made("animate2")
    assert type(network) is WanAnimate2Model and family_of(wan_config("animate2")).configs[0] is wan.WAN_Animate2
    pose = numbers(1, 16, 2, 4, 6, seed=4)
    with torch.inference_mode():
        still, moves = moving(network), moving(network, pose_latents=pose)
        results = [
            moving(network, pose_latents=pose, pose_strength=0.5),
            moving(network, pose_latents=pose, reference_strength=0.5),
            moving(network, pose_latents=pose, context_pose=numbers(1, 3, CONTEXT, seed=5)),
            moving(network, pose_latents=pose.flip(2)),
        ]
        assert still.shape == moves.shape == (1, 16, 3, 4, 6)
        assert not any(torch.allclose(one, moves, atol=1e-4) for one in (still, *results))
        with pytest.raises(ValueError, match="the pose video has 3 latent frames, the video that is made 2"):
            moving(network, pose_latents=numbers(1, 16, 3, 4, 6))


def test_what_is_kept_of_a_pose_changes_nothing():
    network, cache = made("animate2"), PoseBranchCache()
    pose, other = numbers(1, 16, 2, 4, 6, seed=4), numbers(1, 16, 2, 4, 6, seed=5)
    with torch.inference_mode():
        expected = moving(network, pose_latents=pose)
        for options in ({}, {}, {"context_window": object()}):
            torch.testing.assert_close(moving(network, pose_latents=pose, options={"animate2_cache": cache, **options}), expected)
        kept = cache.memory_bytes()
        moving(network, pose_latents=other, options={"animate2_cache": cache, "context_window": object()})
    assert cache.filled(2) and cache.memory_bytes() == 2 * kept > 0
    cache.free()
    assert not cache.filled(2) and cache.memory_bytes() == 0


def test_metadata_says_what_the_shapes_do_not(caplog):
    config = wan_config("i2v")
    made_of = {"config": '{"transformer": {"model_type": "animate2", "novel": 1}}'}
    assert wan.with_metadata(config, made_of) == {**config, "model_type": "animate2"} and "novel" in caplog.text
    assert wan.with_metadata(config, {}) == config


def test_the_network_has_comfyuis_arguments():
    with pytest.raises(ValueError, match="t2v or i2v"):
        WanModel(model_type="v2v", operations=torch.nn)
    with pytest.raises(ValueError, match="do not divide"):
        layers.WanSelfAttention(10, 3, operation_settings={"operations": torch.nn})
    with pytest.raises(ValueError, match="is odd"):
        layers.sinusoidal_embedding_1d(3, torch.zeros(1))
