"""SDPose: told from Lotus by its head, and where that says that points are."""

import numpy as np
import pytest
import torch
from sdpose_files import POINTS, sdpose_tensors

import comfy.sd
from comfy import model_detection, supported_models
from comfy.cli_args import args
from comfy.families.model_errors import IncompleteModelError
from comfy.ldm.modules.sdpose import HeatmapHead, middles
from comfy_extras.nodes_sdpose import SDPoseKeypointExtractor


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(args, "cpu", True)


class Averages:
    """Stands for an autoencoder: a cell holds the mean of its pixels."""

    def encode(self, pictures):
        self.seen = pictures
        return torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8).mean(dim=1, keepdim=True).expand(-1, 4, -1, -1).clone()


def bump(height, width, x, y, top=1.0):
    rows, columns = np.mgrid[:height, :width]
    return (top * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)).astype(np.float32)


def test_it_is_told_by_its_head():
    tensors = sdpose_tensors()
    config = model_detection.model_config_from_unet(tensors, "")
    assert type(config) is supported_models.SDPose and config.unet_config["heatmap_head"] == POINTS
    plain = {name: value for name, value in tensors.items() if "heatmap" not in name}
    assert type(model_detection.model_config_from_unet(plain, "")) is supported_models.LotusD
    del tensors["heatmap_head.deconv_layers.0.weight"]
    with pytest.raises(IncompleteModelError, match=r"heatmap_head\.deconv_layers\.0\.weight"):
        comfy.sd.load_diffusion_model_state_dict(tensors)


def test_points_are_at_the_middles_of_bumps_between_cells():
    maps = np.stack([bump(40, 30, 12.3, 25.8), bump(40, 30, 5.0, 7.5, 0.4), np.full((40, 30), -1.0, dtype=np.float32)])
    places, scores = middles(maps)
    assert places[0] == pytest.approx([12.3, 25.8], abs=0.05) and places[1] == pytest.approx([5.0, 7.5], abs=0.05)
    assert scores == pytest.approx([1.0 * np.exp(-(0.09 + 0.04) / 8), 0.4 * np.exp(-0.25 / 8), -1.0], abs=1e-3)


def test_the_heads_places_are_pixels_of_its_pictures(monkeypatch):
    head = HeatmapHead(8, 2)
    maps = torch.from_numpy(np.stack([bump(256, 192, 100.0, 60.0), np.full((256, 192), -1.0, dtype=np.float32)]))[None]
    monkeypatch.setattr(head, "heatmaps", lambda features: maps)
    (places,), (scores,) = head(torch.zeros(1))
    assert places[0] == pytest.approx([100 * 767 / 191, 60 * 1023 / 255], abs=0.1) and places[1].tolist() == [-1, -1]
    assert scores[0] == pytest.approx(1.0)


def test_the_extractor_finds_someone_in_each_picture_or_box(monkeypatch):
    patcher = comfy.sd.load_diffusion_model_state_dict(sdpose_tensors())
    head = patcher.model.diffusion_model.heatmap_head
    monkeypatch.setattr(head, "heatmap_size", (16, 24))
    asked = []

    def found(features):
        asked.append(features.shape)
        places = np.full((POINTS, 2), 32.0, dtype=np.float32)
        places[3] = -1
        return [places] * len(features), [np.linspace(0.01, 1, POINTS, dtype=np.float32)] * len(features)

    monkeypatch.setattr(head, "forward", found)
    vae, pictures = Averages(), torch.rand(3, 48, 128, 3)
    with torch.inference_mode():
        (frames,) = SDPoseKeypointExtractor.execute(patcher, vae, pictures, 2).args
        boxes = [
            {"x": 10, "y": 6, "width": 32, "height": 24},
            {"x": 100, "y": 0, "width": 90, "height": 48},
            {"x": 200, "y": 0, "width": 5, "height": 5},
        ]
        (boxed,) = SDPoseKeypointExtractor.execute(patcher, vae, pictures[:1], 2, [boxes]).args
    assert vae.seen.shape == (1, 96, 64, 3) and asked[0] == (2, 128, 12, 8) and len(frames) == 3
    (someone,) = frames[0]["people"]
    assert (frames[0]["canvas_width"], frames[0]["canvas_height"]) == (128, 48)
    body = np.array(someone["pose_keypoints_2d"]).reshape(18, 3)
    assert body[0].tolist() == pytest.approx([64.0, 16.0, 0.01]) and body[17, :2].tolist() == [-1, -1]
    corners = [np.array(one["pose_keypoints_2d"]).reshape(18, 3)[0, :2].tolist() for one in boxed[0]["people"]]
    assert corners == [pytest.approx([10 + 16, 6 + 8]), pytest.approx([100 + 14, 16])]
    with pytest.raises(ValueError, match="finds no points of people: load a checkpoint of SDPose"):
        monkeypatch.delattr(type(patcher.model.diffusion_model), "heatmap_head", raising=False)
        del patcher.model.diffusion_model._modules["heatmap_head"]
        SDPoseKeypointExtractor.execute(patcher, vae, pictures, 2)
