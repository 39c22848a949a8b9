"""RT-DETR v4: reading its files, what its parts compute, what its node makes of it."""

import math

import pytest
import torch
from rt_detr_files import SMALL, rt_detr_file, rt_detr_tensors

import comfy.sd
from comfy.dit.models.detection import RT_DETR_v4
from comfy.dit.rt_detr import read_config
from comfy.ldm.modules.batch_norm import FixedBatchNorm
from comfy.ldm.rt_detr import rtdetr_v4
from comfy.ldm.rt_detr.backbone import HGNetv2
from comfy_extras import nodes_rtdetr
from comfy_extras.nodes_rtdetr import COCO_CLASSES, RTDETR_detect


@pytest.fixture(scope="module")
def patcher(tmp_path_factory):
    return comfy.sd.load_diffusion_model(rt_detr_file(tmp_path_factory.mktemp("detr") / "rt_detr.safetensors"))


def test_sizes_are_read_from_a_files_shapes():
    shapes = {name: tuple(value.shape) for name, value in rt_detr_tensors().items()}
    assert read_config(shapes) == SMALL and read_config({"a": (1,)}) is None


def test_boxes_are_found_labelled_and_the_surest_come_first(patcher, monkeypatch, caplog):
    assert isinstance(patcher.model, RT_DETR_v4) and "not used" not in caplog.text
    monkeypatch.setattr(nodes_rtdetr, "SIDE", 64)
    monkeypatch.setattr(nodes_rtdetr, "AT_ONCE", 2)
    image = torch.rand(3, 30, 50, 3)
    with torch.inference_mode():
        (frames,) = RTDETR_detect.execute(patcher, image, 0.0, "all", 7).args
        (cats,) = RTDETR_detect.execute(patcher, image, 0.0, "cat", 100).args
        (alone,) = RTDETR_detect.execute(patcher, image[2:], 0.0, "all", 7).args
    assert [len(frame) for frame in frames] == [7, 7, 7] and all(box["label"] in COCO_CLASSES for box in frames[0])
    scores = [box["score"] for box in frames[0]]
    assert scores == sorted(scores, reverse=True) and {box["label"] for frame in cats for box in frame} <= {"cat"}
    assert frames[2][0]["x"] == pytest.approx(alone[0][0]["x"], abs=1e-3)


def test_other_models_are_refused():
    class Other:
        class model:  # noqa: N801
            diffusion_model = object()

            @staticmethod
            def said():
                return "the diffusion model flux.safetensors"

    with pytest.raises(ValueError, match=r"flux\.safetensors finds no things: load a diffusion model of RT-DETR v4"):
        RTDETR_detect.execute(Other(), torch.zeros(1, 8, 8, 3), 0.5, "all", 1)


def test_features_have_an_eighth_to_a_thirty_second_of_the_sides(patcher):
    network = patcher.model.diffusion_model
    assert isinstance(network.backbone, HGNetv2)
    with torch.inference_mode():
        features = network.backbone(torch.rand(1, 3, 64, 96))
        mixed = network.encoder(features)
    assert [tuple(feature.shape[1:]) for feature in features] == [(24, 8, 12), (32, 4, 6), (40, 2, 3)]
    assert [tuple(feature.shape[1:]) for feature in mixed] == [(48, 8, 12), (48, 4, 6), (48, 2, 3)]


def test_distances_are_finer_near_nothing_and_move_edges(patcher):
    decoder = patcher.model.diffusion_model.decoder
    distances = decoder._distances()
    steps = distances.diff()
    assert len(distances) == 33 and distances[16] == 0 and torch.allclose(distances, -distances.flip(0))
    assert distances[-1] == pytest.approx(8.0) and (steps[17:] > steps[16:-1]).all()
    box = torch.tensor([[[0.5, 0.5, 0.2, 0.4]]])
    assert torch.allclose(decoder._moved(box, torch.zeros(1, 1, 4)), box)
    moved = decoder._moved(box, torch.tensor([[[4.0, 0.0, 0.0, 0.0]]]))  # half the width to the left
    assert torch.allclose(moved, torch.tensor([[[0.45, 0.5, 0.3, 0.4]]]))


def test_anchors_at_the_rim_hold_nothing():
    anchors, inside = rtdetr_v4._anchors([(64, 64), (2, 2)], torch.zeros(1))
    assert inside[0, 0] == 0 and inside[0, 64 * 32 + 32] == 1 and math.isinf(anchors[0, 0, 0])
    boxes = anchors[0, -1].sigmoid()
    assert boxes.tolist() == pytest.approx([0.75, 0.75, 0.1, 0.1])


def test_batch_norm_uses_the_figures_of_training():
    ours, theirs = FixedBatchNorm(3), torch.nn.BatchNorm2d(3).eval()
    for name, value in theirs.state_dict().items():
        if name != "num_batches_tracked":
            drawn = torch.rand(3) + 0.5
            value.copy_(drawn)
            getattr(ours, name).data = drawn.half()
    x = torch.randn(2, 3, 4, 5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-2) and ours(x).dtype == torch.float32
