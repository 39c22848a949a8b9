"""The autoencoder: pictures in [0, 1], cropping, tiles, names, memory."""

import pytest
import safetensors.torch
import torch
from diffusers_twins import vae_twin
from small_models import small_checkpoint

import comfy.model_management
import comfy.sd
from benchmarks.make_checkpoint import family
from comfy.families.published_layout import vae_layout

SIZES = family("sd15", 10).vae


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.load_checkpoint_guess_config(small_checkpoint(), output_model=False, output_clip=False)[2]


@pytest.fixture(scope="module")
def reference(vae):
    return vae_twin(vae.first_stage_model)


def latents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def test_decoding_is_diffusers_decoding_in_zero_to_one(vae, reference):
    latent = latents(2, 4, 8, 6)
    with torch.inference_mode():
        picture = vae.decode(latent)
        expected = (reference.decode(latent).sample.movedim(1, -1) + 1) / 2
    assert picture.shape == (2, 64, 48, 3) and picture.min() >= 0 and picture.max() <= 1
    torch.testing.assert_close(picture, expected.clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_encoding_is_the_mean_of_diffusers_distribution(vae, reference):
    picture = torch.rand(1, 64, 48, 3)
    with torch.inference_mode():
        expected = reference.encode(picture.movedim(-1, 1) * 2 - 1).latent_dist.mean
        torch.testing.assert_close(vae.encode(picture), expected, rtol=1e-4, atol=1e-5)


def test_pictures_are_cropped_to_the_grid_around_their_middle(vae):
    picture = torch.rand(1, 70, 53, 4)
    cropped = vae.vae_encode_crop_pixels(picture)
    assert torch.equal(cropped, picture[:, 3:67, 2:50, :3])
    with torch.inference_mode():
        assert vae.encode(picture).shape == (1, 4, 8, 6)


def test_a_batch_is_cut_to_what_memory_allows(vae, monkeypatch):
    latent = latents(3, 4, 8, 8)
    with torch.inference_mode():
        whole = vae.decode(latent)
        memory = vae.memory_used_decode(latent.shape, torch.float32)
        monkeypatch.setattr(vae.patcher, "get_free_memory", lambda device: memory * 2.5)
        calls = []
        original = vae.first_stage_model.decode
        monkeypatch.setattr(vae.first_stage_model, "decode", lambda z: calls.append(len(z)) or original(z))
        torch.testing.assert_close(vae.decode(latent), whole)
    assert calls == [2, 1]


def test_running_out_of_memory_falls_back_to_tiles(vae, monkeypatch, caplog):
    latent = latents(1, 4, 8, 8)
    original = vae.first_stage_model.decode
    failures = iter([True])

    def short_of_memory(z):
        if next(failures, False):
            raise comfy.model_management.OOM_EXCEPTION("no memory")
        return original(z)

    with torch.inference_mode():
        expected = vae.decode(latent)
        monkeypatch.setattr(vae.first_stage_model, "decode", short_of_memory)
        torch.testing.assert_close(vae.decode(latent), expected, rtol=1e-3, atol=1e-3)
    assert "tiles" in caplog.text


def test_one_tile_is_the_whole_picture(vae):
    latent, picture = latents(1, 4, 8, 8), torch.rand(1, 64, 64, 3)
    with torch.inference_mode():
        tiled = vae.decode_tiled(latent, tile_x=64, tile_y=64, overlap=16)
        torch.testing.assert_close(tiled, vae.decode(latent), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(vae.encode_tiled(picture, tile_x=512, tile_y=512, overlap=64), vae.encode(picture), rtol=1e-4, atol=1e-5)


def test_many_tiles_cover_the_picture(vae):
    latent = latents(1, 4, 24, 20)
    with torch.inference_mode():
        picture = vae.decode_tiled(latent, tile_x=16, tile_y=16, overlap=4)
        encoded = vae.encode_tiled(picture, tile_x=128, tile_y=128, overlap=32)
        assert picture.shape == (1, 192, 160, 3) and encoded.shape == latent.shape
        assert (picture - vae.decode(latent)).abs().mean() < 0.1


@pytest.mark.parametrize(("tile", "overlap"), [(64, 32), (64, 64), (64, 256), (128, 96), (1, 0)])
def test_tiles_that_do_not_advance_are_refused_in_both_directions(vae, tile, overlap):
    with torch.inference_mode():
        with pytest.raises(ValueError, match="overlap below half of the tile size"):
            vae.encode_tiled(torch.rand(1, 192, 160, 3), tile_x=tile, tile_y=tile, overlap=overlap)
        with pytest.raises(ValueError, match="overlap below half of the tile size"):
            vae.decode_tiled(latents(1, 4, 192, 160), tile_x=tile, tile_y=tile, overlap=overlap)


def test_any_overlap_will_do_when_the_picture_fits_each_tile(vae):
    picture = torch.rand(1, 32, 32, 3)
    with torch.inference_mode():
        encoded = vae.encode_tiled(picture, tile_x=64, tile_y=64, overlap=4096, tile_t=8, overlap_t=4096)
        torch.testing.assert_close(encoded, vae.encode(picture), rtol=1e-4, atol=1e-5)
        decoded = vae.decode_tiled(encoded, tile_x=4096, tile_y=4096, overlap=4096, tile_t=8, overlap_t=4096)
        torch.testing.assert_close(decoded, vae.decode(encoded), rtol=1e-4, atol=1e-5)


def test_the_largest_overlap_that_advances_covers_the_picture(vae):
    with torch.inference_mode():
        encoded = vae.encode_tiled(torch.rand(1, 72, 64, 3), tile_x=64, tile_y=64, overlap=24)
    assert encoded.shape == (1, 4, 9, 8) and encoded.isfinite().all()


@pytest.mark.parametrize(("tile", "overlap", "message"), [(100, 0, "leave gaps"), (84, 0, "multiples of 8")])
def test_tiles_off_the_latent_grid_are_refused_rather_than_leaving_gaps(vae, tile, overlap, message):
    with torch.inference_mode(), pytest.raises(ValueError, match=message):
        vae.encode_tiled(torch.rand(1, 216, 88, 3), tile_x=tile, tile_y=tile, overlap=overlap)


def test_weights_go_by_their_published_names(vae):
    saved = vae.get_sd()
    assert {key: tuple(tensor.shape) for key, tensor in saved.items()} == vae_layout(SIZES)
    original = safetensors.torch.load_file(small_checkpoint())
    assert all(torch.equal(tensor, original["first_stage_model." + key]) for key, tensor in saved.items())


def test_a_file_in_diffusers_names_is_the_same_model(vae, reference, tmp_path):
    earlier = {}
    for key, tensor in reference.state_dict().items():
        for new, old in ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")):
            key = key.replace(new, old)
        earlier[key] = tensor.contiguous()
    path = str(tmp_path / "vae.safetensors")
    safetensors.torch.save_file(earlier, path)
    other = comfy.sd.load_vae(path)
    latent = latents(1, 4, 6, 6)
    with torch.inference_mode():
        assert torch.equal(other.decode(latent), vae.decode(latent))
    assert other.get_sd().keys() == vae.get_sd().keys()


def test_a_state_dict_is_used_without_copying(vae):
    tensors = {key: tensor.detach().clone() for key, tensor in vae.get_sd().items()}
    other = comfy.sd.VAE(tensors)
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    assert {parameter.untyped_storage().data_ptr() for parameter in other.first_stage_model.parameters()} <= storages


def test_a_file_without_vae_weights_gives_a_vae_that_refuses_to_be_used():
    empty = comfy.sd.VAE({})
    assert empty.first_stage_model is None and not hasattr(empty, "patcher") and not empty.is_dynamic()
    with pytest.raises(RuntimeError, match="no VAE"):
        empty.decode(latents(1, 4, 8, 8))


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("names", ["published", "diffusers"])
def test_half_a_vae_does_what_its_half_can(vae, half, names, tmp_path, caplog):
    whole = vae.get_sd() if names == "published" else vae.first_stage_model.state_dict()
    prefixes = ("encoder.", "quant_conv.") if half == "encoder" else ("decoder.", "post_quant_conv.")
    part = {key: tensor.clone() for key, tensor in whole.items() if key.startswith(prefixes)}
    path = str(tmp_path / "half.safetensors")
    safetensors.torch.save_file(part, path)
    loaded = comfy.sd.load_vae(path)
    assert f"half.safetensors holds only the {half} of a VAE" in caplog.text and loaded.downscale_ratio == vae.downscale_ratio
    assert loaded.latent_channels == 4 and loaded.output_channels == 3
    picture, latent = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(1)), latents(1, 4, 4, 4)
    with torch.inference_mode():
        if half == "encoder":
            assert torch.equal(loaded.encode(picture), vae.encode(picture))
        else:
            assert torch.equal(loaded.decode(latent), vae.decode(latent))
        with pytest.raises(RuntimeError, match=r"half\.safetensors holds no .*load a VAE with both halves"):
            loaded.decode(latent) if half == "encoder" else loaded.encode(picture)
    published = vae.get_sd()
    assert loaded.get_sd().keys() == {key for key in published if key.startswith(prefixes)}


def test_memory_estimates_grow_with_the_area(vae):
    assert vae.memory_used_decode((1, 4, 64, 64), torch.float32) == 4 * vae.memory_used_decode((1, 4, 32, 32), torch.float32)
    assert vae.memory_used_encode((1, 3, 512, 512), torch.float32) == 2 * vae.memory_used_encode((1, 3, 512, 512), torch.bfloat16)
    assert vae.model_size() == sum(parameter.nbytes for parameter in vae.first_stage_model.parameters())


def test_a_file_without_an_autoencoder_is_named_with_what_it_holds(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"lora.up.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(RuntimeError, match=r"no VAE.*weights.safetensors holds 1 tensors: lora.up.*Supported:.*SDXL"):
        comfy.sd.load_vae(str(path))
