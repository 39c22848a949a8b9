"""MiniMax H3's network: what files are of it, the same numbers as diffusers' network gives, and latents of a video with its sound."""

import pytest
import torch
from minimax_files import minimax_config, minimax_file, minimax_tensors

import comfy.sample
import comfy.sd
from comfy.dit.minimax import MiniMaxH3, read_config
from comfy.dit.models.minimax import MiniMaxH3 as Model
from comfy.families.model_errors import ModelFileError
from comfy.latent_formats import MiniMaxH3AV
from comfy.ldm.minimax.layers import rotated
from comfy.ldm.minimax.layout import PackedLayout, frame_spans
from comfy.ldm.minimax.model import MiniMaxH3Model, Times
from comfy.ldm.minimax.rows import mask_row_values, pack_audio, patchify_video, time_shift_sigma, unpack_audio, unpatchify_video
from comfy.model_sampling import CONST, ModelSamplingAV
from comfy.nested_tensor import NestedTensor
from comfy.ops import disable_weight_init

CONTEXT, TEXT, SIDES, TIMES = 40, 5, (2, 4, 6), 3


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(**sizes):
    built = MiniMaxH3Model(**minimax_config(**sizes), dtype=torch.float32, device="cpu", operations=disable_weight_init)
    built.load_weights(minimax_tensors(**sizes))
    return built


def test_files_are_told_by_their_names():
    config = minimax_config()
    assert config["num_attention_heads"] == 2 and config["num_layers"] == 2 and config["text_dim"] == CONTEXT
    assert MiniMaxH3.matches(config) and MiniMaxH3(config).get_model({}).__class__ is Model
    assert minimax_config(curve=9)["adaln_curve_grid"] == 9
    assert read_config({"video_patch_proj.weight": (4, 4)}) is None


def test_a_damaged_file_is_named(tmp_path):
    tensors = minimax_tensors()
    del tensors["blocks.1.attn.out_proj.weight"]
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(ModelFileError, match=r"half\.safetensors.*blocks\.1\.attn\.out_proj\.weight"):
        comfy.sd.load_diffusion_model(str(tmp_path / "half.safetensors"))


def diffusers_network(tensors):
    """diffusers' network with the same weights."""
    from diffusers.models.transformers.transformer_minimax_h3 import MiniMaxH3Transformer3DModel

    built = MiniMaxH3Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        hidden_size=48,
        num_layers=2,
        num_refiner_layers=2,
        ffn_dim=64,
        text_dim=CONTEXT,
        freq_dim=16,
        time_embed_hidden_dim=20,
        time_embed_dim=24,
        rope_freq_dim=4,
    ).eval()
    names = {"video_patch_proj": "proj_in", "audio_patch_proj": "audio_proj_in", "condition_proj": "context_embedder"}
    names |= {"time_embedder.proj_in": "time_embedder.linear_1", "time_embedder.proj_out": "time_embedder.linear_2"}
    names |= {"final_layer.norm": "norm_out.norm", "final_layer.adaln_proj.linear": "norm_out.linear"}
    names |= {"final_layer.video_out": "proj_out", "final_layer.audio_out": "audio_proj_out"}
    inner = (("token_refiner.blocks", "token_refiner.refiner_blocks"), ("mlp.fc1", "ff.net.0.proj"), ("mlp.fc2", "ff.net.2"))
    inner += (("attn.q_norm", "attn.norm_q"), ("attn.k_norm", "attn.norm_k"), ("attn.out_proj", "attn.to_out.0"))
    state = {}
    for name, value in tensors.items():
        layer, _, leaf = name.rpartition(".")
        layer = names.get(layer, layer)
        for ours, theirs in inner:
            layer = layer.replace(ours, theirs)
        layer = layer.replace("blocks.", "transformer_blocks.") if layer.startswith("blocks.") else layer
        if layer.endswith("qkv_proj"):
            state |= {f"{layer.replace('qkv_proj', f'to_{letter}')}.{leaf}": part for letter, part in zip("qkv", value.chunk(3))}
        elif layer.endswith("ff.net.0.proj"):
            state[f"{layer}.{leaf}"] = torch.cat(value.chunk(2)[::-1])  # gates come last there
        elif name != "rope.inv_freq":
            state[f"{layer}.{leaf}"] = value
    built.load_state_dict(state)
    return built


def test_numbers_are_diffusers():
    video, audio, text = numbers(1, 24, *SIDES), numbers(1, 32, 2, TIMES, seed=4), numbers(1, TEXT, CONTEXT, seed=5)
    picture, level = numbers(1, 24, 1, 4, 6, seed=6), torch.tensor([600.0])
    keyframes = [{"resolved_frame_index": 4, "latent": picture}]
    layout = PackedLayout(TEXT, *SIDES, TIMES, keyframes=keyframes)
    payload = {"keyframes": keyframes, "cond_video_latents": [picture], "visual_cond_noise_aug": 1.0, "layout": layout}
    with torch.inference_mode():
        own = network()([video, audio], level, text, minimax_payload=payload)
        of_kind = {"text": 0.4, "cond": 1.0, "audio": 1.0 - time_shift_sigma(0.6, 12.0, 3.0), "video": 0.4}
        tags = {"text": 1, "cond": 0, "audio": 2, "video": 0}
        rows = [(kind, row) for start, stop, kind in layout.segments for row in range(start, stop)]
        times = sorted(set(of_kind.values()))
        made, sound = diffusers_network(minimax_tensors())(
            torch.cat((patchify_video(picture), patchify_video(video)))[None],
            pack_audio(audio)[None],
            text,
            torch.tensor(times),
            torch.tensor([times.index(of_kind[kind]) for kind, _ in rows]),
            torch.tensor([tags[kind] for kind, _ in rows]),
            layout.position_ids,
            torch.tensor([row for kind, row in rows if kind in ("cond", "video")]),
            torch.tensor([row for kind, row in rows if kind == "audio"]),
            torch.tensor([row for kind, row in rows if kind == "text"]),
            return_dict=False,
        )
    free = len(patchify_video(picture))
    torch.testing.assert_close(own[0], -unpatchify_video(made[0, free:], 2, 2, 3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own[1], -unpack_audio(sound[0]), rtol=1e-4, atol=1e-5)


def test_several_videos_at_once_are_one_clear_error():
    with pytest.raises(ValueError, match="one video at a time"):
        network()([numbers(2, 24, *SIDES), numbers(2, 32, 2, TIMES)], torch.tensor([600.0]), numbers(1, TEXT, CONTEXT))


def test_rows_come_back_as_latents():
    video, audio = numbers(1, 24, *SIDES), numbers(1, 32, 2, TIMES)
    assert torch.equal(unpatchify_video(patchify_video(video), 2, 2, 3), video) and torch.equal(unpack_audio(pack_audio(audio)), audio)
    assert pack_audio(audio)[1].equal(audio[0, :, 0, 1])
    assert mask_row_values(torch.ones(2, 4, 5), 2, 4, 6) is None
    mask = torch.zeros(2, 4, 6)
    mask[1, 3, 2] = 0.5
    assert mask_row_values(mask, 2, 4, 6).nonzero().flatten().tolist() == [10]
    assert time_shift_sigma(0.6, 12.0, 12.0) == pytest.approx(0.6)


def test_places_follow_each_other():
    shown = [{"kind": "image", "latent_h": 4, "latent_w": 4}, {"kind": "audio", "ref_audio_t": 2}]
    layout = PackedLayout(TEXT, *SIDES, TIMES, refs=shown)
    assert [(kind, stop - start) for start, stop, kind in layout.segments] == [
        ("text", TEXT), ("ref_img", 4), ("ref_audio", 4), ("audio", 2 * TIMES), ("video", 12)
    ]  # fmt: skip
    start, _ = layout.span("video")
    assert layout.position_ids[start, 0] == TEXT + 1 + 2 and layout.seq_len == len(layout.position_ids)
    assert sum(frame_spans(7)) == pytest.approx(22 * 5 / 3)
    assert layout.position_ids[layout.span("audio")[0], 2] < layout.position_ids[layout.span("audio")[1] - 1, 2]


def test_rows_of_different_times_have_rows_of_the_tables_of_their_own():
    layout = PackedLayout(2, 1, 2, 4, 1)
    free = torch.tensor([0.25, 0.5])
    times = Times(layout, {"text": 0.1, "audio": 0.7, "video": 0.1}, {"video": free}, (0.1, 0.7))
    assert times.different == pytest.approx([0.1, 0.25, 0.5, 0.7]) and times.of("video").tolist() == [1, 2]
    runs = times.runs(torch.tensor([1, 0]))
    assert [(start, stop) for start, stop, _ in runs] == [(0, 1), (1, 2), (2, 4), (4, 6)]
    assert [runs[0][2], runs[1][2], runs[2][2], runs[3][2].tolist()] == [1, 0, 11, [3, 6]]


def test_a_turn_keeps_what_it_does_not_turn():
    x = numbers(3, 2, 8)
    angles = torch.tensor([0.0, 1.0, 2.0])[:, None].expand(3, 2)
    turned = rotated(x, (angles.cos(), angles.sin()))
    assert torch.equal(turned[0], x[0]) and torch.equal(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_an_empty_latent_gets_its_sound():
    made = MiniMaxH3AV().fix_empty_latent(torch.zeros(1, 32, 7, 2, 4))
    assert [tuple(part.shape) for part in made.unbind()] == [(1, 24, 7, 2, 4), (1, 32, 2, 37)]


def test_the_sound_is_carried_larger():
    sampling = type("Sampling", (ModelSamplingAV, CONST), {})(MiniMaxH3(minimax_config()))
    assert sampling.audio_scale == 4.0
    sampling.set_parameters(shift=6.0)
    assert sampling.audio_scale == 1.0


def test_a_mask_keeps_what_it_hides(tmp_path):
    model = comfy.sd.load_diffusion_model(minimax_file(tmp_path / "h3.safetensors"))
    latents = [numbers(1, 24, *SIDES), numbers(1, 32, 2, TIMES)]
    mask = NestedTensor([torch.zeros(1, 1, *SIDES), torch.ones(1, 1, 2, TIMES)])
    text = [[numbers(1, TEXT, CONTEXT), {"minimax_token_tags": torch.tensor([1, 0, 0, 1, 1])}]]
    noise = comfy.sample.prepare_noise(NestedTensor(latents), 1)
    reported = []
    made = comfy.sample.sample(
        model, noise, 2, 1.0, "euler", "simple", text, text, NestedTensor(latents), noise_mask=mask, seed=1, disable_pbar=True,
        callback=lambda step, x0, x, total: reported.append(x0.is_nested),
    )  # fmt: skip
    video, audio = made.unbind()
    torch.testing.assert_close(video, latents[0], rtol=1e-4, atol=1e-4)
    assert audio.shape == latents[1].shape and (audio - latents[1]).norm() > 0.1 * audio.norm() and reported == [True, True]
