"""Several latents in one: arithmetic, sampling as one flat tensor, masks, previews, and models that take them."""

import pytest
import torch
from ltx_files import TEXT, ltx_file

import comfy.sample
import comfy.sd
from comfy.dit.models import ltx as models
from comfy.ldm.lightricks import av_model, model
from comfy.nested_tensor import NestedTensor, PackedLatents, cat_nested


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def pair():
    return NestedTensor((torch.arange(12.0).view(1, 2, 6), torch.ones(1, 3)))


def test_arithmetic_goes_part_by_part():
    both = pair()
    twice = both + both
    assert torch.equal(twice.unbind()[0], both.unbind()[0] * 2) and torch.equal((twice - both).unbind()[1], both.unbind()[1])
    assert torch.equal((both * 3.0 / 3.0).unbind()[0], both.unbind()[0]) and both[:, :1].unbind()[0].shape == (1, 1, 6)
    assert both.shape == both.size() == (1, 2, 6) and both.ndim == 3 and both.is_nested and both.new_ones(2).tolist() == [1, 1]
    assert both.to(torch.float16).dtype == torch.float16 and both.to(torch.float16).float().dtype == torch.float32
    assert [part.shape[0] for part in cat_nested([both, both]).unbind()] == [2, 2] and both.cpu().device.type == "cpu"
    assert both.nbytes == 60 and len(both.chunk(1)[0].unbind()) == 2 and "NestedTensor" in repr(both) and both.layout == torch.strided
    with pytest.raises(ValueError, match="argument 2"):
        _ = both + NestedTensor([torch.ones(1)])


def test_parts_are_packed_and_come_apart():
    both, calls = pair(), []
    packed = PackedLatents(both)
    flat = packed.packed(both)
    assert flat.shape == (1, 1, 15) and [part.shape for part in packed.apart(flat).unbind()] == [(1, 2, 6), (1, 3)]
    packed.callback(lambda *given: calls.append(given))(0, flat, flat * 2, 5)
    assert calls[0][0] == 0 and calls[0][3] == 5 and torch.equal(calls[0][2].unbind()[1], both.unbind()[1] * 2)
    alone = PackedLatents(torch.ones(1, 2))
    assert alone.callback(None) is None and alone.apart(flat) is flat and alone.packed(flat) is flat


def test_masks_cover_all_parts():
    video, sound = torch.zeros(1, 4, 2, 2, 2), torch.zeros(1, 3, 5, 2)
    packed = PackedLatents(NestedTensor((video, sound)))
    mask = packed.mask(torch.zeros(1, 1, 2, 1, 1), "cpu")
    assert mask.shape == (1, 1, 62) and mask[..., :32].sum() == 0 and bool((mask[..., 32:] == 1).all())
    half = packed.mask(NestedTensor((torch.ones(1, 1, 2, 1, 1), torch.full((1, 1, 1, 1), 0.5))), "cpu")
    assert bool((half[..., :32] == 1).all()) and torch.allclose(half[..., 32:], torch.tensor(0.5))


def test_noise_is_drawn_part_after_part():
    both = NestedTensor((torch.zeros(1, 4, 3), torch.zeros(1, 2)))
    noise = comfy.sample.prepare_noise(both, 3).unbind()
    generator = torch.manual_seed(3)
    assert all(torch.equal(part, torch.randn(part.shape, generator=generator)) for part in noise)
    assert all(not part.any() for part in comfy.sample.prepare_empty_noise(both).unbind())
    assert not comfy.sample.prepare_empty_noise(torch.ones(2)).any() and comfy.sample.fix_empty_latent_channels(None, both) is both


def test_a_model_samples_video_and_sound_as_one(tmp_path):
    patcher = comfy.sd.load_diffusion_model(ltx_file(tmp_path / "two.safetensors", "2"), model_options={"dtype": torch.float32})
    assert isinstance(patcher.model, models.LTXAV) and isinstance(patcher.model.diffusion_model, model.LTXVModel | av_model.LTXAVModel)
    latent = NestedTensor((torch.zeros(1, 128, 2, 2, 2), torch.randn(1, 8, 5, 16)))
    text = [[torch.randn(1, 3, TEXT), {"pooled_output": None}]]
    shown = []
    keeps_sound = NestedTensor((torch.ones(1, 1, 2, 1, 1), torch.zeros(1, 1, 1, 1)))
    made = comfy.sample.sample(
        *(patcher, comfy.sample.prepare_noise(latent, 1), 2, 2.0, "euler", "simple", text, text, latent),
        noise_mask=keeps_sound,
        callback=lambda step, x0, x, total: shown.append([part.shape for part in x0.unbind()]),
        disable_pbar=True,
        seed=1,
    )
    video, sound = made.unbind()
    assert video.shape == (1, 128, 2, 2, 2) and video.std() > 0.1 and torch.allclose(sound, latent.unbind()[1], atol=1e-5)
    assert shown == [[(1, 128, 2, 2, 2), (1, 8, 5, 16)]] * 2
    with pytest.raises(ValueError, match="128 channels, but was given one of 16"):
        patcher.model.process_latent_in(torch.ones(1, 16, 2, 2, 2))
