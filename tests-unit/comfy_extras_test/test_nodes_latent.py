"""Arithmetic, cutting and joining of latents, and operations on them."""

import pytest
import torch

from comfy_extras import nodes_latent as nodes


def latent(value, *shape, **more):
    return {"samples": torch.full(shape or (1, 4, 8, 8), float(value)), **more}


def test_second_latent_takes_size_and_batch_of_the_first():
    first, second = latent(3, 2, 4, 8, 8, batch_index=[1, 2]), latent(1, 1, 4, 4, 6)
    for node, value in ((nodes.LatentAdd, 4), (nodes.LatentSubtract, 2)):
        (result,) = node.execute(first, second)
        assert result["samples"].shape == (2, 4, 8, 8) and result["samples"].unique().tolist() == [value]
        assert result["batch_index"] == [1, 2]
    assert nodes.LatentMultiply.execute(first, -2)[0]["samples"].unique().tolist() == [-6]


def test_interpolation_mixes_length_and_direction_per_item():
    east, north = torch.zeros(2, 2, 1, 1), torch.zeros(2, 2, 1, 1)
    east[:, 0], north[:, 1] = 2.0, 4.0
    mixed = nodes.LatentInterpolate.execute({"samples": east}, {"samples": north}, 0.5)[0]["samples"]
    assert torch.allclose(mixed.norm(dim=1), torch.full((2, 1, 1), 3.0))
    assert torch.allclose(mixed[:, 0], mixed[:, 1])
    assert not nodes.LatentInterpolate.execute(latent(0), latent(0), 0.5)[0]["samples"].any()


@pytest.mark.parametrize("dim, axis, first", [("x", 3, 1), ("-x", 3, 2), ("y", 2, 1), ("-y", 2, 2)])
def test_joining_along_an_axis(dim, axis, first):
    joined = nodes.LatentConcat.execute(latent(1), latent(2), dim)[0]["samples"]
    assert joined.shape[axis] == 16 and joined.flatten()[0] == first


@pytest.mark.parametrize("index, amount, expected", [(0, 2, [0, 1]), (-2, 9, [3, 4]), (99, 3, [4]), (-99, 1, [0])])
def test_cutting_frames(index, amount, expected):
    frames = {"samples": torch.arange(5.0).reshape(1, 1, 5, 1, 1)}
    assert nodes.LatentCut.execute(frames, "t", index, amount)[0]["samples"].flatten().tolist() == expected


def test_cutting_into_a_batch_drops_the_rest_and_needs_the_axis():
    frames = {"samples": torch.arange(5.0).reshape(1, 1, 5, 1, 1)}
    sliced = nodes.LatentCutToBatch.execute(frames, "t", 2)[0]["samples"]
    assert sliced.reshape(2, 2).tolist() == [[0, 1], [2, 3]]
    picture = latent(1)
    assert nodes.LatentCutToBatch.execute(picture, "t", 2)[0] is picture


def test_batches_are_joined_with_their_indices():
    (joined,) = nodes.LatentBatch.execute(latent(1, 2, 4, 8, 8), latent(2, 1, 4, 4, 4, batch_index=[9]))
    assert joined["samples"].shape == (3, 4, 8, 8) and joined["batch_index"] == [0, 1, 9]


def test_seed_behaviour_sets_or_drops_the_batch_index():
    batch = latent(1, 3, 4, 8, 8, batch_index=[5, 6, 7])
    assert nodes.LatentBatchSeedBehavior.execute(batch, "fixed")[0]["batch_index"] == [5, 5, 5]
    assert "batch_index" not in nodes.LatentBatchSeedBehavior.execute(batch, "random")[0]
    assert batch["batch_index"] == [5, 6, 7]


def test_operations_are_applied_to_latents_and_to_guidance():
    class Model:
        def clone(self):
            return Model()

        def set_model_sampler_pre_cfg_function(self, function):
            self.function = function

    def double(latent):
        return latent * 2

    assert nodes.LatentApplyOperation.execute(latent(3), double)[0]["samples"].unique().tolist() == [6]
    (patched,) = nodes.LatentApplyOperationCFG.execute(Model(), double)
    assert [float(value) for value in patched.function({"conds_out": [torch.tensor(5.0), torch.tensor(2.0)]})] == [8.0, 2.0]
    assert [float(value) for value in patched.function({"conds_out": [torch.tensor(5.0)]})] == [10.0]


def test_tonemapping_keeps_directions_and_lowers_peaks():
    values = torch.randn(1, 4, 16, 16)
    values[0, :, 3, 3] = 50.0
    (operation,) = nodes.LatentOperationTonemapReinhard.execute(1.0)
    mapped = operation(latent=values)
    assert mapped[0, :, 3, 3].norm() < 50
    assert torch.allclose(torch.nn.functional.normalize(mapped, dim=1), torch.nn.functional.normalize(values, dim=1), atol=1e-5)


def test_sharpening_without_strength_changes_nothing_and_small_latents_are_refused():
    values = torch.randn(1, 4, 24, 24)
    assert torch.allclose(nodes.LatentOperationSharpen.execute(2, 1.0, 0.0)[0](latent=values), values, atol=1e-5)
    with pytest.raises(ValueError, match="radius of 9"):
        nodes.LatentOperationSharpen.execute(9, 1.0, 0.1)[0](latent=torch.randn(1, 4, 8, 8))


@pytest.mark.parametrize("index, expected", [(1, [0, 7, 7, 0]), (-2, [0, 0, 7, 7]), (3, [0, 0, 0, 0]), (-9, [0, 0, 0, 0])])
def test_frames_are_replaced_where_they_fit(index, expected):
    (result,) = nodes.ReplaceVideoLatentFrames.execute(latent(0, 1, 1, 4, 1, 1), index, latent(7, 1, 1, 2, 1, 1))
    assert result["samples"].flatten().tolist() == expected
