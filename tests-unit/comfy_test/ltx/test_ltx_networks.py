"""LTX's networks: what files say of them, diffusers' numbers and names, guides, tokens and their places."""

import json
import logging

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from ltx_files import KINDS, TEXT, WIDTH, ltx_config, ltx_file, ltx_tensors

import comfy.sd
from comfy.dit import ltx
from comfy.dit.models.ltx import LTXAV, LTXV
from comfy.dit.registry import family_of
from comfy.families.family_settings import part_settings
from comfy.families.model_errors import ModelFileError
from comfy.ldm.lightricks import guides, rotations
from comfy.ldm.lightricks.av_layers import CompressedTimestep
from comfy.ldm.lightricks.embeddings_connector import Embeddings1DConnector
from comfy.ldm.lightricks.layers import compute_prompt_timestep, values_of
from comfy.ldm.lightricks.symmetric_patchifier import AudioPatchifier, SymmetricPatchifier, latent_to_pixel_coords
from comfy.ops import disable_weight_init


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def loaded(path, kind, **options):
    return comfy.sd.load_diffusion_model(ltx_file(path, kind), model_options={"dtype": torch.float32, **options}).model


@pytest.mark.parametrize("kind", KINDS)
def test_files_say_what_they_are(kind, tmp_path):
    model = loaded(tmp_path / "model.safetensors", kind)
    config = model.model_config.unet_config
    assert family_of(config) is ltx.FAMILY and type(model) is (LTXAV if kind.startswith("2") else LTXV)
    assert {key: config[key] for key in KINDS[kind] if key in config} == {key: KINDS[kind][key] for key in KINDS[kind] if key in config}
    assert model.model_type.name == "FLUX" and model.model_sampling.shift == 2.37 and model.latent_format.latent_channels == 128
    assert model.model_config.memory_usage_factor == (0.077 if kind.startswith("2") else 5.5 * WIDTH / 2048)


def test_shapes_alone_say_what_they_can():
    shapes = {name: tuple(value.shape) for name, value in ltx_tensors("2.3").items()}
    config = ltx.read_config(shapes)
    assert config["apply_gated_attention"] and config["cross_attention_adaln"] and config["connector_num_layers"] == 2
    assert config["num_layers"] == 2 and config["audio_cross_attention_dim"] == 32 and "caption_channels" not in config
    assert ltx.read_config({"patchify_proj.weight": (4, 4)}) is None


def test_metadata_that_is_not_understood_is_said(caplog):
    config = ltx_config("0.9.5")
    with caplog.at_level(logging.WARNING):
        found = ltx.with_metadata(config, {"config": json.dumps({"transformer": {"num_layers": 7, "new_thing": 1, "dropout": 0.0}})})
    assert found["num_layers"] == 7 and "new_thing" in caplog.text and "dropout" not in caplog.text
    for text in ("{", "[]", '{"transformer": 3}'):
        with pytest.raises(ModelFileError, match=r"some\.safetensors: metadata config"):
            ltx.with_metadata(config, {"config": text}, "some.safetensors")
    assert part_settings(None, "vae") == {} and part_settings({"config": "{}"}, "vae") == {}


def diffusers_twin(tensors):
    """diffusers' network with the same weights."""
    twin = LTXVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=32, cross_attention_dim=WIDTH, num_layers=2, caption_channels=TEXT
    )
    renamed = {}
    for name, value in tensors.items():
        for theirs, own in {**ltx.DIFFUSERS, **ltx.IN_BLOCK}.items():
            name = name.replace(own, theirs) if name.startswith(own) or own[0] == "." else name
        renamed[name] = value
    twin.load_state_dict(renamed)
    return twin.eval(), renamed


def test_numbers_are_those_of_diffusers_and_so_are_its_names(tmp_path):
    tensors = ltx_tensors("0.9.5")
    twin, renamed = diffusers_twin(tensors)
    model = loaded(tmp_path / "model.safetensors", "0.9.5").diffusion_model
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(1, 128, 3, 4, 5, generator=generator), torch.randn(1, 7, TEXT, generator=generator)
    tokens, cells = SymmetricPatchifier(1).patchify(x)
    places = latent_to_pixel_coords(cells, (8, 32, 32), causal_fix=True).float()
    places[:, 0] /= 25
    theirs = twin(tokens, text, torch.tensor([0.7]) * 1000, torch.ones(1, 7), video_coords=places, return_dict=False)[0]
    ours = model(x, torch.tensor([0.7]), text, torch.ones(1, 7).long(), frame_rate=25)
    theirs = SymmetricPatchifier(1).unpatchify(theirs, 4, 5, 3, 128)
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()
    assert {name: place.key for name, place in ltx.diffusers_places({"names": list(renamed)}).items()} == dict(zip(renamed, tensors))


def test_patches_see_and_replace_blocks(tmp_path):
    model = loaded(tmp_path / "model.safetensors", "2").diffusion_model
    x = [torch.randn(1, 128, 2, 2, 3), torch.randn(1, 8, 4, 16)]
    text = torch.randn(1, 3, 2 * TEXT)
    seen = []

    def replace(args, extra):
        seen.append(sorted(args))
        return extra["original_block"](args)

    options = {"patches_replace": {"dit": {("double_block", 1): replace}}}
    plain = model([part.clone() for part in x], torch.tensor([0.5]), text)
    patched = model([part.clone() for part in x], torch.tensor([0.5]), text, transformer_options=options)
    assert all(torch.equal(one, other) for one, other in zip(plain, patched)) and len(seen) == 1
    assert {"img", "v_context", "a_context", "v_pe", "a_cross_pe", "transformer_options"} <= set(seen[0])
    silent = model([x[0]], torch.tensor([0.5]), text)
    assert torch.is_tensor(silent) and silent.shape == x[0].shape
    deaf = model(x, torch.tensor([0.5]), text, transformer_options={"a2v_cross_attn": False, "v2a_cross_attn": False})
    assert not torch.equal(deaf[0], plain[0]) and not torch.equal(deaf[1], plain[1])


def test_guides_of_other_sides_are_refused(tmp_path):
    model = loaded(tmp_path / "model.safetensors", "0.9.5").diffusion_model
    x, text = torch.randn(1, 128, 2, 2, 3), torch.randn(1, 3, TEXT)
    mask, places = torch.ones(1, 1, 2, 2, 3), torch.zeros(1, 3, 5, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="Crop the guides"):
        model(x, torch.tensor([0.5]), text, None, keyframe_idxs=places, denoise_mask=mask)
    entries = [{"pre_filter_count": 4, "strength": 1.0}]
    with pytest.raises(ValueError, match="4 tokens in all"):
        model(x, torch.tensor([0.5]), text, None, keyframe_idxs=places[:, :, :3].repeat(1, 1, 2, 1), denoise_mask=mask,
              guide_attention_entries=entries)  # fmt: skip


def test_masks_of_guides_weigh_each_token():
    plain = {"strength": 1.0, "surviving_count": 2}
    assert guides.guide_mask([plain], 6, 2, "cpu", torch.float32) is None and guides.guide_mask(None, 6, 2, "cpu", torch.float32) is None
    mask = guides.guide_mask([plain, {**plain, "strength": 0.5}], 10, 4, "cpu", torch.float32)
    assert mask.guide_start == 6 and mask.noisy_mask[0, 0, 0].exp().tolist() == pytest.approx([1] * 8 + [0.5] * 2)
    queries, keys = torch.randn(1, 10, 8), torch.randn(1, 10, 8)
    whole = torch.zeros(10, 10)
    whole[:6] = mask.noisy_mask[0, 0]
    whole[6:] = mask.tracked_mask[0, 0]
    expected = torch.nn.functional.scaled_dot_product_attention(queries, keys, keys, attn_mask=whole)
    assert torch.allclose(guides.attend_with_guides(queries, keys, keys, 1, mask), expected, atol=1e-6)
    shown = torch.zeros(1, 1, 9, 4, 8)
    shown[:, :, 1:5, :, :4] = 1.0
    cells = guides.mask_of_cells(shown, 3, 1, 2)
    assert cells.tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]
    assert guides.mask_of_cells(shown[:, :, 1:2], 3, 1, 2).tolist() == [[1.0, 0.0] * 3]


def test_tokens_come_back_and_know_their_places():
    video = torch.randn(2, 3, 2, 4, 6)
    tokens, cells = SymmetricPatchifier(2, start_end=True).patchify(video)
    assert tokens.shape == (2, 12, 12) and cells.shape == (2, 3, 12, 2) and cells[0, :, 4].tolist() == [[0, 1], [2, 4], [2, 4]]
    assert torch.equal(SymmetricPatchifier(2).unpatchify(tokens, 4, 6, 2, 3), video)
    sound = torch.randn(2, 8, 5, 16)
    tokens, times = AudioPatchifier(1, start_end=True).patchify(sound)
    assert times.shape == (2, 1, 5, 2) and torch.allclose(times[0, 0, :3], torch.tensor([[0.0, 0.01], [0.01, 0.05], [0.05, 0.09]]))
    assert torch.equal(AudioPatchifier(1).unpatchify(tokens, 8, 16), sound)


@pytest.mark.parametrize("halves", [True, False])
def test_rotations_turn_pairs_and_keep_lengths(halves):
    places = torch.arange(5.0)[None, None]
    frequencies = rotations.generate_freq_grid_np(10000.0, 1, 12)
    assert torch.allclose(frequencies, rotations.generate_freq_grid_pytorch(10000.0, 1, 12), rtol=1e-5)
    turns = rotations.rotations(places, frequencies, 16, 2, [10.0], torch.float32, False, halves)  # two pairs are not turned
    x = torch.randn(1, 5, 16)
    turned = rotations.apply_rotary_emb(x, turns)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5) and not torch.allclose(turned, x)
    ends = torch.stack((places, places + 2), dim=-1)
    middle = rotations.rotations(ends, frequencies, 16, 2, [10.0], torch.float32, True, halves)
    moved = rotations.rotations(places + 1, frequencies, 16, 2, [10.0], torch.float32, False, halves)
    assert torch.allclose(middle.cosines, moved.cosines)


def test_times_of_a_frame_are_kept_once():
    values = torch.randn(1, 3, 8).repeat_interleave(4, dim=1)
    kept = CompressedTimestep(values, 4)
    assert kept.data.shape == (1, 3, 8) and torch.equal(kept.expand(), values)
    table = torch.randn(4, 2)
    assert all(map(torch.equal, kept.expand_for_computation(table, 1, slice(1, 3)), values_of(table, values, slice(1, 3))))
    assert CompressedTimestep(values, None).patches_per_frame == 1 and CompressedTimestep(values[:, :1], 4).expand().shape[1] == 1
    assert compute_prompt_timestep(None, values, 1, torch.float32) is None


def test_connectors_fill_up_with_learned_tokens():
    connector = Embeddings1DConnector(8, 2, 1, operations=disable_weight_init, split_rope=True)
    for value in connector.parameters():
        torch.nn.init.normal_(value, std=0.1)
    made, mask = connector(torch.randn(2, 5, 16), torch.ones(1, 5))
    assert made.shape == (2, 1024, 16) and mask.shape == (1, 1, 1, 1024) and connector(torch.randn(1, 1030, 16))[0].shape[1] == 1152
