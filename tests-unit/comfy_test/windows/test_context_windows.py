"""Sampling in context windows: where windows lie, how results are put together, and conditioning cut to them."""

from types import SimpleNamespace

import pytest
import torch
from wan_files import wan_file

import comfy.conds
import comfy.sample
import comfy.sd
from comfy import context_windows
from comfy.windows.handler import IndexListContextHandler
from comfy.windows.schedules import (
    apply_freenoise,
    create_weights_overlap_linear,
    create_weights_pyramid,
    get_matching_context_schedule,
    get_matching_fuse_method,
    get_missing_indexes,
    ordered_halving,
)
from comfy.windows.state import WindowingState
from comfy.windows.window import IndexListContextWindow, compute_guide_overlap, slice_cond
from comfy_extras.nodes_context_windows import ContextWindowsManual, LTXVContextWindows, WanContextWindowsManual

SCHEDULES = ("standard_static", "standard_uniform", "looped_uniform", "batched")


def handler(schedule="standard_static", fuse="pyramid", length=4, overlap=2, **settings):
    found = get_matching_context_schedule(schedule), get_matching_fuse_method(fuse)
    return IndexListContextHandler(*found, context_length=length, context_overlap=overlap, **{"dim": 2, **settings})


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("frames", [3, 4, 5, 9, 16, 33])
def test_windows_leave_no_frame_out(schedule, frames):
    made = handler(schedule, context_stride=2, closed_loop=True)
    for made._step in range(5):
        windows = made.context_schedule.func(frames, made, {})
        assert not get_missing_indexes(windows, frames) and all(0 <= frame < frames for window in windows for frame in window)
        assert all(len(window) == min(4, frames) for window in windows if schedule != "batched")
        assert schedule != "standard_uniform" or all(window == sorted(window) for window in windows)


def test_windows_lie_as_their_schedule_says():
    assert handler().context_schedule.func(7, handler(), {}) == [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert handler("batched").context_schedule.func(6, handler(), {}) == [[0, 1, 2, 3], [4, 5]]
    assert [ordered_halving(step) for step in range(5)] == [0.0, 0.5, 0.25, 0.75, 0.125]


def test_what_is_unknown_or_cannot_be_is_one_clear_error():
    with pytest.raises(ValueError, match="unknown context schedule 'x'; known: standard_static"):
        get_matching_context_schedule("x")
    with pytest.raises(ValueError, match="unknown way to fuse"):
        get_matching_fuse_method("x")
    with pytest.raises(ValueError, match="cannot share 4"):
        handler(length=4, overlap=4)


def test_weights_are_least_at_the_edges():
    assert create_weights_pyramid(4) == [1, 2, 2, 1] and create_weights_pyramid(5) == [1, 2, 3, 2, 1]
    first = create_weights_overlap_linear(4, full_length=9, idxs=[0, 1, 2, 3], context_overlap=2)
    assert first[:3].tolist() == [1.0, 1.0, 1.0] and first[3] < 1e-30
    assert create_weights_overlap_linear(4, full_length=9, idxs=[5, 6, 7, 8], context_overlap=2)[3] == 1.0


def test_later_noise_is_earlier_noise_shuffled():
    noise = torch.arange(10.0).view(1, 1, 10, 1, 1).clone()
    apply_freenoise(noise, 2, 4, 2, seed=3)
    frames = noise.flatten().tolist()
    assert frames[:4] == [0, 1, 2, 3] and sorted(frames[4:6]) == [0, 1] and sorted(frames[6:8]) == [2, 3]


def state_of(*latents, **more):
    none = [None] * len(latents)
    return WindowingState(
        list(latents), **{"guide_latents": none, "guide_entries": none, "keyframe_idxs": none, "latent_shapes": None, "dim": 2, **more}
    )


def run(made, x, value, conds=1, steps=2):
    """What *made* puts together where the model gives *value* of each window's latent."""
    options = {"transformer_options": {"sample_sigmas": torch.tensor([1.0, 0.5, 0.0])}}
    entries = [[{"model_conds": {}}] for _ in range(conds)]
    model = SimpleNamespace(
        latent_format=SimpleNamespace(temporal_downscale_ratio=4), resize_cond_for_context_window=lambda *given, **named: None
    )

    def calc(model, conds, part, timestep, options):
        return [value(part, options["transformer_options"]["context_window"]) for _ in conds]

    assert made.should_use_context(model, entries, x, torch.tensor([0.5]), options)
    return made.execute(calc, model, entries, x, torch.tensor([0.5]), options)


@pytest.mark.parametrize("fuse", ["pyramid", "relative", "flat", "overlap-linear"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_every_window_agrees_on_comes_out(schedule, fuse):
    x = torch.randn(1, 2, 9, 3, 3, generator=torch.Generator().manual_seed(1))
    overlap = 0 if schedule == "batched" and fuse == "overlap-linear" else 2
    made = handler(schedule, fuse, overlap=overlap)
    for out in run(made, x, lambda part, window: part * 2, conds=2):
        torch.testing.assert_close(out, x * 2)
    assert made._step == 1


def test_the_frame_before_a_window_is_sampled_with_it_and_thrown_away():
    lengths = []
    x = torch.zeros(1, 1, 7, 1, 1)
    run(handler(), x, lambda part, window: lengths.append((part.shape[2], window.has_anchor())) or part)
    assert lengths == [(4, False), (5, True), (5, True)]
    lengths.clear()
    run(handler(causal_window_fix=False), x, lambda part, window: lengths.append(part.shape[2]) or part)
    assert lengths == [4, 4, 4]


def test_conditioning_is_cut_to_the_window():
    made = handler(cond_retain_index_list="0")
    window = IndexListContextWindow([3, 4], dim=2, total_frames=6)
    frames = torch.arange(6.0).view(1, 1, 6, 1, 1)
    entry = {
        "model_conds": {
            "c_concat": comfy.conds.CONDNoiseShape(frames),
            "vace_context": comfy.conds.CONDRegular(frames[None]),
            "audio_embed": comfy.conds.CONDRegular(torch.arange(6.0).view(1, 6, 1)),
            "other": comfy.conds.CONDRegular(torch.zeros(1, 3)),
            "num_video_frames": comfy.conds.CONDConstant(6),
        },
        "mask": frames,
        "strength": 1.0,
    }
    (cut,) = made.get_resized_cond([entry], frames, window)
    told = {name: value.cond for name, value in cut["model_conds"].items()}
    assert told["c_concat"].flatten().tolist() == [0.0, 4.0] and told["vace_context"].flatten().tolist() == [0.0, 4.0]
    assert told["audio_embed"].flatten().tolist() == [0.0, 4.0] and told["num_video_frames"] == 2 and told["other"].shape == (1, 3)
    assert cut["mask"].flatten().tolist() == [3.0, 4.0] and cut["strength"] == 1.0 and made.get_resized_cond(None, frames, window) is None
    split = handler(split_conds_to_windows=True)
    assert split.get_resized_cond([{"n": 0}, {"n": 1}], frames, window) == [{"n": 1}]


def test_conditioning_with_other_frames_is_cut_by_its_scale():
    window = IndexListContextWindow([0, 1, 2], dim=2, total_frames=5)
    x, faces = torch.zeros(1, 1, 5, 1, 1), comfy.conds.CONDRegular(torch.arange(16.0).view(1, 1, 16))
    assert slice_cond(faces, window, x, None, 2, temporal_scale=4, temporal_offset=1).cond.flatten().tolist() == list(range(8))
    poses = comfy.conds.CONDRegular(torch.arange(4.0).view(1, 1, 4))
    assert slice_cond(poses, window, x, None, 2, temporal_offset=1).cond.flatten().tolist() == [0, 1]
    window.causal_anchor_index = 0
    assert slice_cond(poses, window, x, None, 2, temporal_offset=1).cond.flatten().tolist() == [0, 1]
    assert slice_cond(comfy.conds.CONDConstant(3), window, x, None, 2) is None


def test_guides_go_with_the_frames_they_are_of():
    entries = [{"latent_shape": [1, 2, 2], "pre_filter_count": 4}, {"latent_shape": [2, 2, 2], "pre_filter_count": 8}]
    begins = torch.zeros(1, 3, 12, 2)
    begins[0, 0, 4:] = 17  # frame 17 in pixels: the fourth latent frame and the next
    assert compute_guide_overlap(entries, begins, 8, [2, 3, 4]) == ([1, 2], [(1, 2)], [1, 2], 2)
    guides = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 2)
    state = state_of(
        torch.zeros(1, 1, 6, 2, 2), guide_latents=[guides], guide_entries=[entries], keyframe_idxs=[begins], temporal_downscale_ratio=8
    )
    window = IndexListContextWindow([2, 3, 4], dim=2, total_frames=6)
    (part,), counts = state.slice_for_window(window, [])
    assert part[0, 0, :, 0, 0].tolist() == [0, 0, 0, 1, 2] and counts == [2] and window.guide_downscale_factors == [1]
    results = [[part]]
    state.strip_guide_frames(results, counts, window)
    assert results[0][0].shape[2] == 3


def test_sound_has_windows_of_its_own():
    video, sound = torch.zeros(1, 1, 4, 1, 1), torch.zeros(1, 1, 12, 1)
    state = state_of(video, sound, latent_shapes=[video.shape, sound.shape], is_multimodal=True)
    model = SimpleNamespace(map_context_window_to_modalities=lambda frames, shapes, dim: [frames, list(range(3, 9))])
    window = state.prepare_window(IndexListContextWindow([1, 2], dim=2, total_frames=4, context_overlap=1), model)
    parts, _ = state.slice_for_window(window, [])
    assert [part.shape[2] for part in parts] == [2, 6] and window.get_window_for_modality(1).context_overlap == 3
    conds = [[{"model_conds": {"latent_shapes": comfy.conds.CONDConstant([])}}], None]
    state.patch_latent_shapes(conds, [1, 2])
    assert conds[0][0]["model_conds"]["latent_shapes"].cond == [1, 2]
    with pytest.raises(NotImplementedError, match="cannot be sampled in windows"):
        state.prepare_window(IndexListContextWindow([1, 2], dim=2, total_frames=4), SimpleNamespace())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return comfy.sd.load_diffusion_model(wan_file(tmp_path_factory.mktemp("wan") / "wan.safetensors"))


def sampled(model, frames=9):
    text = [[torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(2)), {}]]
    latent = torch.zeros(1, 16, frames, 4, 4)
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample(model, noise, 2, 1.0, "euler", "simple", text, text, latent, seed=1, disable_pbar=True)


def test_a_video_that_fits_is_sampled_whole_and_a_longer_one_in_windows(model):
    (windowed,) = ContextWindowsManual.execute(model, 4, 2, "standard_static", 1, False, "pyramid", 2, False).args
    assert torch.equal(sampled(windowed, 4), sampled(model, 4))
    assert not torch.allclose(sampled(windowed), sampled(model), atol=1e-3)
    (shared,) = WanContextWindowsManual.execute(model, 13, 8, "standard_static", 1, False, "pyramid", True).args
    made = shared.model_options["context_handler"]
    assert (made.context_length, made.context_overlap, made.dim) == (4, 2, 2) and not torch.equal(sampled(shared), sampled(windowed))
    assert "context_handler" not in model.model_options


def test_windows_of_ltx_have_eight_frames_for_each_latent_one_and_keep_the_first_in_the_latent(model):
    (plain,), (kept,) = (
        LTXVContextWindows.execute(model, 25, 16, "standard_static", 1, False, "pyramid", False, retain_first_frame=kept).args
        for kept in (False, True)
    )
    found = [one.model_options["context_handler"] for one in (plain, kept)]
    assert [(one.context_length, one.context_overlap, one.dim) for one in found] == [(4, 2, 2)] * 2
    assert [(one.cond_retain_index_list, one.latent_retain_index_list) for one in found] == [([], []), ([0], [0])]
    (of_wan,) = WanContextWindowsManual.execute(model, 13, 8, "standard_static", 1, False, "pyramid", False, True).args
    other = of_wan.model_options["context_handler"]
    assert (other.cond_retain_index_list, other.latent_retain_index_list) == ([0], [])
    assert not torch.equal(sampled(plain), sampled(kept))


def test_memory_is_that_of_a_window(model):
    (windowed,) = ContextWindowsManual.execute(model, 4, 2, "standard_static", 1, False, "pyramid", 2, False).args
    (wrapper,) = windowed.wrappers["prepare_sampling"]["ContextWindows_prepare_sampling"]
    asked = []
    wrapper(lambda model, shape, conds, **named: asked.append(shape), None, (1, 16, 9, 4, 4), None, model_options=windowed.model_options)
    wrapper(lambda model, shape, conds, **named: asked.append(shape), None, (1, 1, 999), None, model_options=windowed.model_options)
    assert asked == [[1, 16, 4, 4, 4], [1, 1, 999]] and context_windows.IndexListContextHandler is IndexListContextHandler
