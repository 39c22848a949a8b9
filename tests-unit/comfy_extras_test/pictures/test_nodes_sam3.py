"""SAM 3's nodes: what they ask the network for, and what they make of its masks."""

import re

import av
import pytest
import torch
from sam3_files import sam3_file

import comfy.sd
import folder_paths
from comfy.ldm.sam3.masks import pack_masks
from comfy_extras.coloured_tracks import COLOURS, numbers_in, only, ordered
from comfy_extras.nodes_sam3 import SAM3_Detect, SAM3_TrackPreview, SAM3_TrackToMask, SAM3_VideoTrack
from comfy_extras.nodes_scail import SCAIL2ColoredMask
from comfy_extras.segmenting import Segmenter, texts_of
from comfy_extras.track_preview import drawn_frames


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(sam3_file(tmp_path_factory.mktemp("sam3") / "small.safetensors"))
    return model, clip.encode_from_tokens_scheduled(clip.tokenize("cat:3, dog:2"))


@pytest.fixture(autouse=True)
def without_gradients():
    torch.manual_seed(3)  # of the pictures below
    with torch.inference_mode():
        yield


def track(*frames, scores=(1.0, 0.5), size=(8, 16)):
    """A track whose frames say, per thing, (left, right, rows) or None."""
    masks = torch.full((len(frames), len(frames[0]), 8, 16), -1.0)
    for number, things in enumerate(frames):
        for thing, place in enumerate(things):
            if place is not None:
                masks[number, thing, : place[2], place[0] : place[1]] = 1
    return {"packed_masks": pack_masks(masks), "n_frames": len(frames), "scores": list(scores), "orig_size": size}


EMPTY = {"packed_masks": None, "n_frames": 3, "scores": [], "orig_size": (8, 16)}


def test_texts_find_at_most_so_many_things_each(loaded):
    model, conditioning = loaded
    image = torch.rand(2, 30, 40, 3)
    masks, boxes = SAM3_Detect.execute(model, image, conditioning, threshold=0.0, refine_iterations=1, individual_masks=True).args
    assert [len(frame) for frame in boxes] == [5, 5] and masks.shape == (10, 30, 40)
    assert boxes[0][0]["score"] >= boxes[0][1]["score"] >= boxes[0][2]["score"]
    union, _ = SAM3_Detect.execute(model, image, conditioning, threshold=0.0, refine_iterations=1).args
    assert torch.equal(union[0], masks[:5].amax(dim=0)) and set(union.unique().tolist()) <= {0.0, 1.0}
    none, boxes = SAM3_Detect.execute(model, image, conditioning, threshold=1.0, individual_masks=True).args
    assert none.shape == (0, 30, 40) and boxes == [[], []]


def test_refined_masks_only_grow(loaded):
    model, conditioning = loaded
    image = torch.rand(1, 30, 40, 3)
    found, _ = SAM3_Detect.execute(model, image, conditioning, threshold=0.0, refine_iterations=0, individual_masks=True).args
    drawn, _ = SAM3_Detect.execute(model, image, conditioning, threshold=0.0, refine_iterations=1, individual_masks=True).args
    assert (drawn >= found).all() and (drawn > found).any()


def test_boxes_of_frames_count_for_their_frames(loaded):
    model = loaded[0]
    image = torch.rand(1, 30, 40, 3).expand(3, -1, -1, -1)
    one, other = {"x": 2, "y": 3, "width": 20, "height": 15}, {"x": 15, "y": 8, "width": 20, "height": 20}
    masks, boxes = SAM3_Detect.execute(model, image, bboxes=[[one], [other]], individual_masks=True).args
    alone, _ = SAM3_Detect.execute(model, image[:1], bboxes=other, individual_masks=True).args
    assert masks.shape == (3, 30, 40) and boxes == [[], [], []]
    assert torch.equal(masks[1], alone[0]) and torch.equal(masks[2], alone[0]) and not torch.equal(masks[0], masks[1])


def test_points_mean_one_thing(loaded):
    model, image = loaded[0], torch.rand(1, 30, 40, 3)
    point, away = '[{"x": 10, "y": 5}]', '[{"x": 39, "y": 29}]'
    mask, boxes = SAM3_Detect.execute(model, image, positive_coords=point, individual_masks=True).args
    both, _ = SAM3_Detect.execute(model, image, positive_coords=point, negative_coords=away, individual_masks=True).args
    assert mask.shape == both.shape == (1, 30, 40) and boxes == [[]] and not torch.equal(mask, both)
    with pytest.raises(ValueError, match=re.escape('points as JSON [{"x": int')):
        SAM3_Detect.execute(model, image, positive_coords="10, 5")


def test_videos_are_followed_at_their_own_size(loaded):
    model, conditioning = loaded
    images = torch.rand(3, 30, 40, 3)
    shown = torch.zeros(1, 30, 40)
    shown[:, :15, :20] = 1
    (found,) = SAM3_VideoTrack.execute(images, model, shown, conditioning, detection_threshold=0.1, max_objects=2).args
    assert found["orig_size"] == (30, 40) and found["packed_masks"].shape[:2] == (3, 2) and found["scores"][0] == 1.0
    (mask,) = SAM3_TrackToMask.execute(found, "0").args
    assert mask.shape == (3, 30, 40) and (mask[0].round() != shown[0]).float().mean() < 0.1
    with pytest.raises(ValueError, match="nothing to follow"):
        SAM3_VideoTrack.execute(images, model)


def test_models_of_other_families_are_refused(loaded):
    class Other:
        class model:  # noqa: N801
            diffusion_model = object()

            @staticmethod
            def said():
                return "the diffusion model sd15.safetensors"

    with pytest.raises(ValueError, match=r"sd15\.safetensors segments nothing: load a checkpoint of SAM 3"):
        Segmenter(Other())
    assert texts_of(None, None) == []


def test_chosen_things_become_one_mask():
    two = track([(0, 4, 8), (8, 12, 4)], [(0, 4, 8), None])
    (both,), (second,), (none,) = (SAM3_TrackToMask.execute(two, which).args for which in ("", "1, 7, x", "9"))
    assert both.sum(dim=(1, 2)).tolist() == [32 + 16, 32] and second.sum(dim=(1, 2)).tolist() == [16, 0] and not none.any()
    assert SAM3_TrackToMask.execute(EMPTY).args[0].shape == (3, 8, 16)
    assert numbers_in(" ", 2) == [0, 1] and only(two, [1])["scores"] == [0.5]


def test_things_are_ordered_by_first_frame_then_place_or_size():
    three = track([None, (10, 12, 8), (4, 9, 8)], [(0, 2, 8), (10, 12, 8), (4, 9, 8)], scores=(1.0, 0.9, 0.8))
    assert ordered(three, "left_to_right")["scores"] == [0.8, 0.9, 1.0]
    assert ordered(three, "area")["scores"] == [0.8, 0.9, 1.0] and ordered(three, "none") is three
    assert ordered(EMPTY, "area") is EMPTY


def test_masks_for_scail_have_a_colour_for_each_figure():
    two = track([(8, 12, 8), (0, 4, 8)])
    video, pictures = SCAIL2ColoredMask.execute(two, "", "left_to_right", True, two).args
    assert video[0, 0, 0].tolist() == pictures[0, 0, 0].tolist() == list(COLOURS[0]) and video[0, 0, 9].tolist() == list(COLOURS[1])
    assert video[0, 0, 15].tolist() == [1, 1, 1] and pictures[0, 0, 15].tolist() == [0, 0, 0]
    video, pictures = SCAIL2ColoredMask.execute(two, "1", "none", False).args
    assert (
        video[0, 0, 0].tolist() == list(COLOURS[0])
        and not video[0, 0, 9].any()
        and pictures.shape == (1, 8, 16, 3)
        and pictures.eq(1).all()
    )
    mask = torch.zeros(8, 16)
    mask[:, :3] = 1
    _, pictures = SCAIL2ColoredMask.execute(EMPTY, "", "area", False, mask).args
    assert pictures[0, 0, 0].tolist() == list(COLOURS[0]) and pictures[0, 0, 5].tolist() == [1, 1, 1]


def test_a_preview_plays_and_shows_things_in_colours(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    two = track([(0, 8, 8), None], [(0, 8, 8), (8, 16, 4)], size=(64, 128))
    result = SAM3_TrackPreview.execute(two, torch.zeros(2, 65, 129, 3), 1.0, 12.0)
    (saved,) = result.ui.as_dict()["images"]
    with av.open(tmp_path / saved["filename"]) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert float(video.streams.video[0].average_rate) == 12.0
    assert len(frames) == 2 and frames[0].shape == (64, 128, 3)
    assert abs(frames[0][2, 2].astype(int) - (31, 119, 180)).max() < 30 and frames[0][2, 120].max() < 20 < frames[1][2, 120].max()
    assert sum(1 for _ in drawn_frames(EMPTY, None, 0.5)) == 3
