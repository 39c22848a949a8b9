"""Nodes around SeedVR2: filling up, conditioning, parts of long videos, colours."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from comfy_extras import nodes_seedvr, restored_colours
from comfy_extras.nodes_seedvr import (
    SeedVR2Conditioning,
    SeedVR2PostProcessing,
    SeedVR2Preprocess,
    SeedVR2TemporalChunk,
    SeedVR2TemporalMerge,
)


def numbers(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("frames", "wanted"), [(1, 1), (2, 5), (4, 5), (5, 5), (6, 9), (9, 9)])
def test_pictures_are_filled_up(frames, wanted):
    given = numbers(frames, 20, 33, 4)
    made = SeedVR2Preprocess.execute(given).args[0]
    assert made.shape == (1, wanted, 32, 48, 3)
    assert torch.equal(made[0, :frames, :20, :33], given[..., :3]) and made[:, :, 20:].abs().max() == 0 == made[:, :, :, 33:].abs().max()
    assert all(torch.equal(frame, made[0, frames - 1]) for frame in made[0, frames:])


def test_pictures_that_cannot_be_filled_up_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        SeedVR2Preprocess.execute(numbers(1, 1, 30, 3))
    with pytest.raises(ValueError, match="at least one frame"):
        SeedVR2Preprocess.execute(numbers(0, 20, 30, 3))
    with pytest.raises(ValueError, match="frames × height"):
        SeedVR2Preprocess.execute(numbers(20, 30, 3))


def test_conditioning_holds_the_latent_and_the_files_texts():
    block = numbers(7, 8)  # as a reader gives tensors: views of what it read
    network = SimpleNamespace(positive_conditioning=block[:3], negative_conditioning=block[3:])
    model, latent = SimpleNamespace(model=SimpleNamespace(diffusion_model=network)), numbers(1, 16, 2, 4, 6)
    positive, negative = SeedVR2Conditioning.execute(model, {"samples": latent}).args
    for side, text in ((positive, network.positive_conditioning), (negative, network.negative_conditioning)):
        assert torch.equal(side[0][0], text[None])
        assert side[0][0].untyped_storage().nbytes() == text.nbytes, "what it keeps in memory is the text alone"
        assert torch.equal(side[0][1]["condition"][:, :16], latent) and side[0][1]["condition"][:, 16:].unique().tolist() == [1.0]
    with pytest.raises(ValueError, match="no SeedVR2 but SimpleNamespace"):
        SeedVR2Conditioning.execute(SimpleNamespace(model=SimpleNamespace(diffusion_model=SimpleNamespace())), {"samples": latent})
    with pytest.raises(ValueError, match="encode with SeedVR2's VAE"):
        SeedVR2Conditioning.execute(model, {"samples": numbers(1, 4, 4, 6)})


def cut(length, overlap, **mode):
    latent = {"samples": numbers(1, 16, length, 4, 6), "noise_mask": 1}
    parts, shared = SeedVR2TemporalChunk.execute(latent, overlap, mode).args
    return latent, parts, shared


@pytest.mark.parametrize(("length", "overlap", "frames", "wanted"), [(12, 2, 17, [5, 5, 5, 3]), (9, 0, 13, [4, 4, 1]), (5, 3, 17, [5])])
def test_what_was_cut_is_put_together_again(length, overlap, frames, wanted):
    latent, parts, shared = cut(length, overlap, chunking_mode="manual", frames_per_chunk=frames)
    assert [part["samples"].shape[2] for part in parts] == wanted and shared == (overlap if len(wanted) > 1 else 0)
    merged = SeedVR2TemporalMerge.execute(parts, [shared]).args[0]
    assert torch.allclose(merged["samples"], latent["samples"], atol=1e-6) and "noise_mask" not in merged


def test_what_two_parts_share_fades():
    parts = [{"samples": torch.full((1, 16, 8, 2, 2), value)} for value in (0.0, 1.0)]
    row = SeedVR2TemporalMerge.execute(parts, [7]).args[0]["samples"][0, 0, :, 0, 0]
    assert row.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0], abs=1e-6)


def test_a_last_part_shorter_than_what_it_shares_fades_into_the_part_before():
    parts = [torch.full((1, 16, 6, 2, 2), value) for value in (0.0, 1.0)] + [torch.full((1, 16, 3, 2, 2), 2.0)]
    row = SeedVR2TemporalMerge.execute([{"samples": part} for part in parts], [4]).args[0]["samples"][0, 0, :, 0, 0]
    assert row.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0, 1.5, 2.0, 1.0], abs=1e-6)


def test_merging_copies_each_part_once():
    parts, copied = [{"samples": numbers(1, 16, 6, 2, 2, seed=number)} for number in range(40)], []
    given = sum(part["samples"].numel() for part in parts)

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and not func.is_view:
                copied.append(made.numel())
            return made

    with Counting():
        merged = SeedVR2TemporalMerge.execute(parts, [2]).args[0]["samples"]
    assert merged.shape[2] == 39 * 4 + 6 and sum(copied) < 5 * given


def test_parts_are_as_long_as_free_memory_allows(monkeypatch):
    for free_gib, wanted in ((0.0, 12), (10.7, 12), (100.0, 1)):
        monkeypatch.setattr("comfy.model_management.get_free_memory", lambda device, free=free_gib: free * 1024**3)
        assert len(cut(12, 0, chunking_mode="auto")[1]) == wanted, free_gib
    monkeypatch.setattr("comfy.model_management.get_free_memory", lambda device: (10.7 + 0.55 * 0.001536 * 3.5) * 1024**3)
    assert [part["samples"].shape[2] for part in cut(7, 0, chunking_mode="auto")[1]] == [3, 3, 1]


def test_settings_and_parts_that_do_not_fit_are_refused():
    for mode, said in (({"chunking_mode": "manual", "frames_per_chunk": 6}, "1, 5, 9"), ({"chunking_mode": "half"}, "auto and manual")):
        with pytest.raises(ValueError, match=said):
            cut(9, 0, **mode)
    with pytest.raises(ValueError, match="0 or more"):
        cut(9, -1, chunking_mode="auto")

    def merge(overlap, *shapes):
        return SeedVR2TemporalMerge.execute([{"samples": numbers(1, 16, *shape)} for shape in shapes], [overlap])

    for overlap, shapes, said in (
        (-1, [(4, 2, 2)], "0 or more"),
        (0, [(4, 2, 2), (4, 2, 3)], "part 1"),
        (0, [(4, 2, 2), (3, 2, 2), (4, 2, 2)], "only the last"),
    ):
        with pytest.raises(ValueError, match=said):
            merge(overlap, *shapes)


def finish(made, originals, method="none"):
    return SeedVR2PostProcessing.execute(made, originals, method).args[0]


def test_results_have_the_originals_size_length_and_transparency():
    made, originals = numbers(1, 9, 48, 64, 3), numbers(6, 35, 51, 4, seed=1)
    found = finish(made, originals)
    assert found.shape == (1, 6, 34, 50, 4)
    assert torch.equal(found[..., :3], made[:, :6, :34, :50]) and torch.equal(found[0, ..., 3], originals[:, :34, :50, 3])
    flat = finish(made[0], originals[..., :3])
    assert flat.shape == (6, 34, 50, 3)


def test_frames_of_several_videos_are_told_apart():
    made, originals = numbers(10, 32, 32, 3), numbers(2, 3, 32, 32, 3)
    found = finish(made, originals)
    assert torch.equal(found, torch.cat((made[:3], made[5:8])))


@pytest.mark.parametrize("method", ["lab", "wavelet", "adain"])
def test_colours_come_from_the_originals(method):
    originals = 0.2 + 0.5 * numbers(1, 32, 48, 3)
    tinted = (originals * torch.tensor([1.3, 0.9, 0.6])).clamp(0, 1)
    found = finish(tinted, originals, method)
    assert found.shape == originals.shape
    assert (found.mean(dim=(0, 1, 2)) - originals.mean(dim=(0, 1, 2))).abs().max() < 0.02
    assert (tinted.mean(dim=(0, 1, 2)) - originals.mean(dim=(0, 1, 2))).abs().max() > 0.1
    assert torch.allclose(finish(originals, originals, method), originals, atol=2e-3), "its own colours change nothing"


def test_reference_pictures_of_another_size_are_scaled():
    assert finish(numbers(1, 32, 32, 3), numbers(1, 60, 80, 3, seed=2), "wavelet").shape == (1, 32, 32, 3)


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="'hue'"):
        finish(numbers(1, 8, 8, 3), numbers(1, 8, 8, 3), "hue")


def test_coarse_colours_are_blurred_ones():
    edge = torch.cat((-torch.ones(3, 32, 32), torch.ones(3, 32, 32)), dim=2)
    found = restored_colours.by_wavelets(torch.zeros(3, 32, 64), edge)
    assert torch.all(found[0, 16].diff() >= -1e-6) and found[0, 16, 0] == -1 and 0 < found[0, 16, 33] < 0.5
    assert set(nodes_seedvr.METHODS) == {*restored_colours.WAYS, "none"}
