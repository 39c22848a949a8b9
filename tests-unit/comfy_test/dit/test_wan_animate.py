"""Wan 2.2's Animate: what its files are told by, the network against diffusers' own, faces and poses, what windows cut, quantised files."""

import logging

import pytest
import torch
from quantised_files import quantised, settings_for, text
from transformer_files import network_of
from wan_files import NARROW_FACES, blur_kernels, wan_config, wan_file, wan_tensors

import comfy.lora
import comfy.sd
import comfy.supported_models
from comfy.dit import wan
from comfy.dit.diffusers_files import as_published_transformer
from comfy.dit.models.wan import WAN22_Animate
from comfy.dit.names.wan import diffusers_places
from comfy.families.weight_source import StateDictSource
from comfy.ldm.wan import expressions, model_animate
from comfy.ldm.wan.model_animate import AnimateWanModel
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.windows.window import IndexListContextWindow

CONTEXT, DEPTH, WIDTH = 64, 6, 128
SIDE, HALVINGS = 64, 4  # of pictures of faces, down to 4
SIZES = {"depth": DEPTH, "faces": SIDE}
ENCODER = "motion_encoder.enc.net_app.convs."


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def faces(frames=8, seed=6, batch=1):
    """Pictures of few large spots, which are told apart however much they are averaged."""
    spots = numbers(batch, 3 * frames, 4, 4, seed=seed)
    return torch.nn.functional.interpolate(spots, (SIDE, SIDE)).clamp(-1, 1).unflatten(1, (3, frames))


@pytest.fixture(scope="module")
def network():
    made = network_of(wan_config("animate", **SIZES))
    made.load_weights(wan_tensors("animate", **SIZES))
    return made


@pytest.fixture(scope="module")
def model():
    return loaded().model


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors=None, dtype=torch.float32):
    tensors = wan_tensors("animate", **SIZES) if tensors is None else tensors
    return comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": dtype})


def moving(network, sides=(3, 4, 6), **given):
    """What *network* makes of a picture and two latent frames."""
    options = given.pop("options", {})
    text_states = given.pop("context", numbers(1, 5, CONTEXT, seed=1))
    return network(numbers(1, 36, *sides), torch.tensor([300.0]), text_states, transformer_options=options, **given)


def test_it_is_told_by_its_tensors(model):
    assert type(model) is WAN22_Animate and type(model.diffusion_model) is AnimateWanModel
    assert type(model.model_config) is comfy.supported_models.WAN22_Animate and model.model_sampling.shift == 8.0
    assert model.memory_usage_factor == pytest.approx(WIDTH / 2222) and not model.image_to_video
    assert list(model.diffusion_model.patch_blocks()) == [("double_block", number) for number in range(DEPTH)]
    config = model.model_config.unet_config
    assert config["motion_widths"] == NARROW_FACES[: HALVINGS + 1] and (config["motion_dim"], config["face_dim"], config["face_heads"]) == (
        5,
        20,
        4,
    )


def test_the_real_sizes_give_the_published_names():
    config = wan_config("animate", width=5120, depth=40, inner=13824, context=4096)
    network = network_of(config)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert 17_000_000_000 < sum(value.numel() for value in network.parameters()) < 17_500_000_000
    assert wan.read_config(shapes) == config and config["motion_widths"] == expressions.WIDTHS
    assert shapes[f"{ENCODER}0.1.bias"] == (1, 32, 1, 1) and shapes[f"{ENCODER}7.skip.1.weight"] == (512, 512, 1, 1)
    assert shapes[f"{ENCODER}8.weight"] == (512, 512, 4, 4) and shapes["motion_encoder.enc.fc.4.bias"] == (20,)
    assert shapes["motion_encoder.dec.direction.weight"] == (512, 20) and shapes["pose_patch_embedding.weight"] == (5120, 16, 1, 2, 2)
    assert shapes["face_encoder.conv1_local.conv.weight"] == (4096, 512, 3) and shapes["face_encoder.padding_tokens"] == (1, 1, 1, 5120)
    assert shapes["face_adapter.fuser_blocks.7.linear1_kv.weight"] == (10240, 5120)
    assert shapes["face_adapter.fuser_blocks.7.q_norm.weight"] == (128,) and "face_adapter.fuser_blocks.8.q_norm.weight" not in shapes
    defaults = AnimateWanModel(num_layers=5, device="meta", operations=torch.nn)
    assert {name: shape for name, shape in shapes.items() if name.startswith("motion")} == {
        name: tuple(value.shape) for name, value in defaults.named_parameters() if name.startswith("motion")
    }


def test_published_files_hold_numbers_that_nothing_needs(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        file = wan_file(tmp_path / "animate.safetensors", "animate", **SIZES)
        found = comfy.sd.load_diffusion_model(file, {"dtype": torch.float32}).model
    assert type(found) is WAN22_Animate and "not used" not in caplog.text
    assert len(blur_kernels(wan_tensors("animate", **SIZES))) == 2 * HALVINGS


def in_diffusers_names():
    """A small network as diffusers saves it."""
    published, config = wan_tensors("animate", **SIZES), wan_config("animate", **SIZES)
    places = diffusers_places({"blocks": DEPTH, "vace_blocks": 0, "face_adapter": 1, "halvings": HALVINGS, "width": config["dim"]})
    found = {}
    for name, place in places.items():
        if place.key in published:
            value = published[place.key]
            value = value.flatten() if place.channels else value
            found[name] = value[place.start :][: place.length] if place.length else value
    assert len({places[name].key for name in found}) == len(published)
    return found


def diffusers_twin():
    from diffusers import WanAnimateTransformer3DModel

    return WanAnimateTransformer3DModel(
        num_attention_heads=1,
        text_dim=CONTEXT,
        ffn_dim=192,
        num_layers=DEPTH,
        added_kv_proj_dim=WIDTH,
        motion_encoder_channel_sizes={str(SIDE >> number): width for number, width in enumerate(NARROW_FACES)},
        motion_encoder_size=SIDE,
        motion_style_dim=16,
        motion_dim=5,
        motion_encoder_dim=24,
        face_encoder_hidden_dim=20,
    ).eval()


def test_it_computes_what_diffusers_computes(network):
    twin = diffusers_twin()
    tensors = in_diffusers_names()
    # diffusers has as many blocks that look at faces as there are whole fives
    twin.load_state_dict(tensors)
    seen, said = numbers(1, 257, 1280, seed=3), numbers(1, 512, CONTEXT, seed=2)
    pose, face = numbers(1, 16, 2, 4, 6, seed=4), faces(5)
    given = {"pose_hidden_states": pose, "face_pixel_values": face, "return_dict": False}
    x, time = numbers(1, 36, 3, 4, 6), torch.tensor([300.0])
    twin.blocks = twin.blocks[:5]  # it would look for a second block for faces after the sixth
    ours = network_of(wan_config("animate", depth=5, faces=SIDE))
    names = set(dict(ours.named_parameters()))
    ours.load_weights({name: value for name, value in wan_tensors("animate", **SIZES).items() if name in names})
    found = moving(ours, context=said, clip_fea=seen, pose_latents=pose, face_pixel_values=face)
    torch.testing.assert_close(found, twin(x, time, said, seen, **given)[0], rtol=1e-3, atol=2e-4)


def test_diffusers_files_load_under_the_published_names():
    source = as_published_transformer(StateDictSource(in_diffusers_names()))
    published = wan_tensors("animate", **SIZES)
    assert dict(source.shapes()) == {name: tuple(value.shape) for name, value in published.items()}
    taken = source.take(list(published), torch.float32)
    assert all(torch.equal(taken[name], value) for name, value in published.items())
    assert type(loaded(in_diffusers_names()).model) is WAN22_Animate


def test_poses_and_faces_count(network):
    pose, face = numbers(1, 16, 2, 4, 6, seed=4), faces()
    results = [
        moving(network),
        moving(network, pose_latents=pose),
        moving(network, pose_latents=pose.flip(2)),
        moving(network, face_pixel_values=face),
        moving(network, face_pixel_values=face.flip(2)),
        moving(network, pose_latents=pose, face_pixel_values=face),
    ]
    assert all(one.shape == (1, 16, 3, 4, 6) for one in results)
    assert not any(torch.allclose(one, other, atol=1e-4) for number, one in enumerate(results) for other in results[:number])


def test_poses_are_cut_and_padded_to_the_video(network):
    pose = numbers(1, 16, 4, 4, 6, seed=4)
    assert torch.equal(moving(network, pose_latents=pose), moving(network, pose_latents=pose[:, :, :2]))
    first = network._embedded(numbers(1, 36, 3, 4, 6), pose_latents=pose[:, :, :1])
    without = network._embedded(numbers(1, 36, 3, 4, 6))
    assert [torch.equal(first[:, :, number], without[:, :, number]) for number in range(3)] == [True, False, True]
    assert moving(network, sides=(3, 5, 7), pose_latents=numbers(1, 16, 2, 5, 7, seed=4)).shape == (1, 16, 3, 5, 7)


@pytest.mark.parametrize(("frames", "own"), [(1, 1), (5, 2), (8, 2), (9, 3), (29, 5)])
def test_a_face_has_tokens_for_its_own_frames(network, frames, own):
    """Five latent frames, the first of which is the picture's."""
    tokens = network._faces(faces(frames), 5)
    assert tokens.shape == (1, 5, 5, WIDTH)
    assert [bool(tokens[0, number].any()) for number in range(5)] == [0 < number <= own for number in range(5)]


def test_faces_of_a_batch_are_apart_and_few_are_looked_at_together(network, monkeypatch):
    both = torch.cat((faces(9), faces(9, seed=7)))
    together = network._faces(both, 4)
    torch.testing.assert_close(together[1:], network._faces(both[1:], 4), rtol=1e-4, atol=1e-5)
    seen, look = [], network.motion_encoder.get_motion
    monkeypatch.setattr(network.motion_encoder, "get_motion", lambda some: (seen.append(len(some)), look(some))[1])
    network._faces(both, 4)
    assert seen == [8, 8, 2]


def test_blocks_that_look_at_faces_stand_after_what_patches_do(network):
    told = []

    def patch(seen):
        told.append((seen["block_index"], seen["img_offset"], seen["img"].clone()))
        return seen

    moving(network, options={"patches": {"double_block": [patch]}})
    plain = list(told)
    told.clear()
    moving(network, face_pixel_values=faces(), options={"patches": {"double_block": [patch]}})
    assert [one[:2] for one in told] == [(number, 0) for number in range(DEPTH)]
    same = [torch.equal(one[2], other[2]) for one, other in zip(plain, told, strict=True)]
    assert same == [True] + [False] * (DEPTH - 1)  # the first block's result does not know of the face yet


def test_blurring_averages_neighbours_and_keeps_what_is_even():
    blur = expressions.Blur((1.0, 3.0, 3.0, 1.0), (2, 1))
    even = blur(torch.ones(1, 2, 8, 8))
    assert even.shape == (1, 2, 8, 8) and torch.allclose(even[:, :, 2:-2, 2:-2], torch.ones(1, 2, 4, 4))
    dot = torch.zeros(1, 1, 9, 9)
    dot[..., 4, 4] = 64.0
    assert sorted(blur(dot).unique().tolist()) == [0.0, 1.0, 3.0, 9.0]


def test_directions_are_orthogonal_also_of_zeros():
    for weight in (numbers(24, 5), torch.zeros(24, 5)):
        direction = expressions.Direction(5, 24)
        direction.weight = torch.nn.Parameter(weight)
        across = direction(torch.eye(5))
        torch.testing.assert_close(across @ across.T, torch.eye(5), rtol=1e-4, atol=1e-5)


def given_to(model, **values):
    return model.extra_conds(noise=numbers(1, 16, 3, 4, 6), device="cpu", **values)


def test_conditioning_is_what_the_network_takes(model):
    pose, face, picture = numbers(1, 16, 2, 4, 6), faces(5), numbers(1, 16, 3, 4, 6, seed=2)
    mask = torch.ones(1, 4, 3, 4, 6)
    mask[:, :, 0] = 0.0
    conds = given_to(model, pose_video_latent=pose, face_video_pixels=face, concat_latent_image=picture, concat_mask=mask)
    assert torch.equal(conds["pose_latents"].cond, model.process_latent_in(pose)) and conds["face_pixel_values"].cond is face
    assert conds["c_concat"].cond.shape == (1, 20, 3, 4, 6)
    assert conds["c_concat"].cond[0, :4, :, 0, 0].tolist() == [[1.0, 0.0, 0.0]] * 4
    assert not {"pose_latents", "face_pixel_values"} & given_to(model).keys()


def test_windows_cut_poses_and_faces_by_their_rates(model):
    conds = given_to(model, pose_video_latent=numbers(1, 16, 8, 4, 6), face_video_pixels=faces(29))
    window, x = IndexListContextWindow([2, 3, 4], dim=2, total_frames=9), numbers(1, 16, 9, 4, 6)
    cut = {name: model.resize_cond_for_context_window(name, cond, window, x, "cpu") for name, cond in conds.items()}
    anchored = window.has_anchor()
    first = 1 if anchored else 2
    assert torch.equal(cut["pose_latents"].cond, conds["pose_latents"].cond[:, :, first:4])
    assert torch.equal(cut["face_pixel_values"].cond, conds["face_pixel_values"].cond[:, :, first * 4 : 16])


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_quantised_files_stay_quantised(kind):
    tensors, values = {}, {}
    for name, value in wan_tensors("animate", **SIZES).items():
        if name.startswith(("blocks.", "face_adapter.", "motion_encoder.enc.fc.1.")) and value.ndim == 2:
            parts, meant = quantised(kind, value)
            layer = name.removesuffix("weight")
            tensors |= {layer + suffix: part for suffix, part in parts.items()} | {layer + "comfy_quant": text(settings_for(kind))}
            values[name] = meant
        else:
            tensors[name] = values[name] = value
    found = loaded(tensors).model.diffusion_model
    assert found.face_adapter.fuser_blocks[0].linear1_kv.quantised is not None and found.motion_encoder.enc.fc[1].quantised is not None
    given = {"face_pixel_values": faces(5), "pose_latents": numbers(1, 16, 2, 4, 6, seed=4)}
    plain = network_of(wan_config("animate", **SIZES))
    plain.load_weights(values)
    one, expected = moving(found, **given), moving(plain, **given)
    assert ((one - expected).norm() / expected.norm()).item() < (0.05 if kind == "int8" else 1e-3)


def test_weights_are_kept_in_the_dtype_asked_for():
    kept = loaded(dtype=torch.bfloat16).model.diffusion_model
    wide = {name for name, value in kept.named_parameters() if value.dtype == torch.float32}
    assert wide == {"patch_embedding.weight", "patch_embedding.bias"}
    assert (
        kept(
            numbers(1, 36, 3, 4, 6).bfloat16(),
            torch.tensor([300.0]),
            numbers(1, 5, CONTEXT).bfloat16(),
            pose_latents=numbers(1, 16, 2, 4, 6).bfloat16(),
            face_pixel_values=faces(5).bfloat16(),
        )
        .isfinite()
        .all()
    )


def test_lora_files_name_weights_in_the_usual_ways(model):
    names = model_lora_keys_unet(model, {})
    own, theirs = "face_adapter.fuser_blocks.0.linear1_q", "face_adapter.0.to_q"
    spellings = (own, f"diffusion_model.{own}", f"transformer.{own}", f"lora_unet_{own.replace('.', '_')}", theirs, f"transformer.{theirs}")
    assert {names[spelling] for spelling in spellings} == {f"diffusion_model.{own}.weight"}
    both = "diffusion_model.face_adapter.fuser_blocks.0.linear1_kv.weight"
    assert names["transformer.face_adapter.0.to_v"] == (both, (0, WIDTH, WIDTH))
    assert names["transformer.motion_encoder.res_blocks.2.conv_skip"] == f"diffusion_model.{ENCODER}3.skip.1.weight"


def test_a_lora_changes_faces_alone_where_it_names_them():
    patcher = loaded()
    up, down = numbers(WIDTH, 2, seed=8), numbers(2, WIDTH, seed=9)
    change = {"transformer.face_adapter.0.to_v.lora_B.weight": up, "transformer.face_adapter.0.to_v.lora_A.weight": down}
    patches = comfy.lora.load_lora(change, model_lora_keys_unet(patcher.model, {}))
    patcher.add_patches(patches, 1.0)
    layer = patcher.model.diffusion_model.face_adapter.fuser_blocks[0].linear1_kv
    before = layer.weight.clone()
    patcher.patch_model()
    after = layer.weight.clone()
    assert torch.equal(after[:WIDTH], before[:WIDTH])
    torch.testing.assert_close(after[WIDTH:], before[WIDTH:] + up @ down, rtol=1e-4, atol=1e-5)


def test_packs_find_comfyuis_classes():
    assert model_animate.FaceBlock is expressions.FaceBlock and model_animate.ConvLayer is expressions.ConvLayer
    assert {"Generator", "EncoderApp", "EqualLinear", "upfirdn2d"} <= set(dir(model_animate)) | set(model_animate.__all__)
