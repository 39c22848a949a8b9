"""The table from ComfyUI's weight names to module parameters."""

import pytest
import torch

from comfy.families.weight_names import WeightNames, WeightPart

FUSED = WeightNames(
    {
        "attn.in_proj_weight": (WeightPart("q.weight", 0, 0, 2), WeightPart("k.weight", 0, 2, 2), WeightPart("v.weight", 0, 4, 2)),
        "conv.weight": (WeightPart("linear.weight", 0, 0, 3, (3, 4)),),
    },
    {"attn.in_proj_weight": (6, 5), "conv.weight": (3, 4, 1, 1)},
)


def test_split_gives_views_and_join_restores_them():
    fused = torch.arange(30.0).view(6, 5)
    pieces = FUSED.split("attn.in_proj_weight", fused)
    assert [piece.tolist() for piece in pieces.values()] == [fused[0:2].tolist(), fused[2:4].tolist(), fused[4:6].tolist()]
    assert pieces["k.weight"].untyped_storage().data_ptr() == fused.untyped_storage().data_ptr()
    assert torch.equal(FUSED.join("attn.in_proj_weight", pieces.__getitem__, torch.cat), fused)


def test_a_weight_of_another_shape_is_viewed_both_ways():
    weight = torch.randn(3, 4, 1, 1)
    piece = FUSED.split("conv.weight", weight)["linear.weight"]
    assert piece.shape == (3, 4)
    joined = FUSED.join("conv.weight", {"linear.weight": piece}.__getitem__, torch.cat)
    assert joined.shape == weight.shape and joined.data_ptr() == weight.data_ptr()


def test_weight_names_tell_shapes_and_what_is_fused():
    assert FUSED.name_of("v.weight") == "attn.in_proj_weight" and FUSED.name_of("missing") is None
    assert FUSED.is_whole("conv.weight") and not FUSED.is_whole("attn.in_proj_weight")
    assert FUSED.shape("conv.weight") == (3, 4, 1, 1)


def test_prefixes_apply_to_names_and_parameters():
    table = FUSED.prefixed("model.", "net.")
    assert [part.parameter for part in table["model.attn.in_proj_weight"]] == ["net.q.weight", "net.k.weight", "net.v.weight"]
    assert len(FUSED.merged(table)) == 4


def test_wrong_shapes_and_double_names_are_refused():
    with pytest.raises(ValueError, match="has shape"):
        FUSED.split("conv.weight", torch.zeros(3, 4))
    with pytest.raises(ValueError, match="both"):
        FUSED.merged(FUSED)
    with pytest.raises(ValueError, match="no shape"):
        WeightNames({"a": (WeightPart("b"),)}, {})
