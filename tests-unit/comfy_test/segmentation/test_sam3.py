"""SAM 3: how its files are told and read, what its parts compute, and what is followed through a video."""

import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sam3_files import sam3_file, sam3_sizes, sam3_tensors
from transformers.models.sam3.modeling_sam3 import Sam3SinePositionEmbedding

import comfy.dit.models.detection
import comfy.dit.sam3
import comfy.sd
from comfy.families.model_errors import ModelFileError
from comfy.ldm.sam3 import boxes, masks, memory, sam, tracker, transformer
from comfy.ldm.sam3.detector import SAM3Model
from comfy.ldm.sam3.following import Following, Rules, Things, packed_result
from comfy.ldm.sam3.prompts import NOTHING, Prompt
from comfy.ldm.sam3.weights import parameter_name, split
from comfy.ops import disable_weight_init
from comfy.supported_models import models
from comfy.text_encoders.sam3_clip import named_things

SIDE = 48


@pytest.fixture(scope="module", params=[True, False], ids=["SAM 3.1", "SAM 3"])
def loaded(request, tmp_path_factory):
    path = sam3_file(tmp_path_factory.mktemp("sam3") / "small.safetensors", multiplex=request.param)
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(path)
    return model, clip


@pytest.fixture
def network(loaded):
    return loaded[0].model.diffusion_model


def pictures(count=1, seed=0):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def prompt_of(loaded, text="cat"):
    ((states, values),) = loaded[1].encode_from_tokens_scheduled(loaded[1].tokenize(text))
    return loaded[0].model.diffusion_model.detector.resized(states), values["attention_mask"]


@pytest.mark.parametrize("multiplex", [True, False])
def test_sizes_are_read_from_a_files_shapes(multiplex):
    shapes = {name: tuple(value.shape) for name, value in sam3_tensors(multiplex=multiplex).items()}
    config = comfy.dit.sam3.read_config(shapes)
    assert config == sam3_sizes(multiplex)
    assert next(kind for kind in models if kind.matches(config)).__name__ == ("SAM31" if multiplex else "SAM3")
    assert comfy.dit.sam3.read_config({name: shape for name, shape in shapes.items() if "trunk" not in name}) is None


def test_a_checkpoint_is_read_without_a_word_on_unused_tensors_and_saved(tmp_path, caplog):
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(sam3_file(tmp_path / "small.safetensors", seed=5))
    assert isinstance(model.model, comfy.dit.models.detection.SAM3) and vae.first_stage_model is None
    assert "not used" not in caplog.text
    comfy.sd.save_checkpoint(str(tmp_path / "saved.safetensors"), model, clip)
    again, text, *_ = comfy.sd.load_checkpoint_guess_config(str(tmp_path / "saved.safetensors"))
    for one, other in ((model.model, again.model), (clip.cond_stage_model, text.cond_stage_model)):
        values, others = one.state_dict(), other.state_dict()
        assert values.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in values.items())
    with safe_open(tmp_path / "saved.safetensors", "pt") as file:
        assert {name.partition(".")[0] for name in file.offset_keys()} == {"detector", "tracker"}


def test_missing_tensors_are_an_error_that_names_the_file(tmp_path):
    tensors = sam3_tensors()
    del tensors["detector.dot_prod_scoring.hs_proj.bias"]
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(ModelFileError, match=r"broken\.safetensors.*1 of .* missing.*hs_proj"):
        comfy.sd.load_checkpoint_guess_config(str(tmp_path / "broken.safetensors"), output_clip=False)


def test_fused_weights_become_views_of_the_files_tensors():
    fused = torch.arange(36.0).view(12, 3)
    parts = split({"a.in_proj_weight": fused, "a.out_proj.weight": fused})
    assert torch.equal(torch.cat([parts[f"a.{name}_proj.weight"] for name in "qkv"]), fused)
    assert parts["a.q_proj.weight"].data_ptr() == fused.data_ptr() and parts["a.out_proj.weight"] is fused
    assert parameter_name("tracker.model.sam_mask_decoder.transformer.layers.0.mlp.0.weight").endswith("layers.0.mlp.lin1.weight")
    assert parameter_name("detector.backbone.vision_backbone.trunk.blocks.0.attn.freqs_cis") is None


def test_texts_name_things_and_how_many():
    assert named_things("cat, (red dog:3) , bird : 0.2,") == [("cat", 1), ("red dog", 3), ("bird", 1)]
    assert named_things(" ") == []


def test_several_things_are_encoded_one_by_one(loaded):
    clip = loaded[1]
    ((_, alone),) = clip.encode_from_tokens_scheduled(clip.tokenize("dog"))
    ((states, values),) = clip.encode_from_tokens_scheduled(clip.tokenize("cat:2, dog"))
    assert "sam3_multi_cond" not in alone and states.shape == (1, 32, 64)
    first, second = values["sam3_multi_cond"]
    assert (first["max_detections"], second["max_detections"]) == (2, 1)
    assert torch.equal(first["cond"], states) and torch.equal(second["cond"], clip.encode("dog"))
    assert second["attention_mask"].sum() == 3


def test_the_trunk_keeps_windows_apart_but_for_blocks_over_the_whole_picture():
    with torch.device("meta"):
        windows = [block.window_size for block in sam.ViTDet(32, 8, 4, 48, 8, 2).blocks]
    assert windows == [2, 0, 2, 0, 2, 0, 2, 0]
    generator = torch.Generator().manual_seed(0)
    block = sam.Block(32, 4, 48, 2)
    for value in block.parameters():
        torch.nn.init.normal_(value, std=0.5, generator=generator)
    x = torch.randn(1, 5, 5, 32, generator=generator)
    changed = x.clone()
    changed[0, 0, 0, :16] += 2
    turns = sam.rope_2d(2, 2, 8)
    apart = (block(x, turns) != block(changed, turns)).any(dim=-1)[0]
    assert apart[:2, :2].all() and not apart[2:].any() and not apart[:, 2:].any()


def test_places_are_those_of_transformers():
    ours = sam.PositionEmbeddingSine(32)(torch.zeros(1, 32, 5, 7))
    theirs = Sam3SinePositionEmbedding(16, normalize=True)(torch.Size((1, 32, 5, 7)), "cpu", torch.float32)
    first = sam.PositionEmbeddingSine(32)(torch.zeros(1, 32, 5, 7))
    assert ours.shape == theirs.shape and torch.equal(ours, first)
    # transformers counts cells from 1, ComfyUI from 0: the last ones have the same place
    torch.testing.assert_close(ours[..., -1, -1], theirs[..., -1, -1], atol=1e-4, rtol=0)


def test_what_lies_in_a_box_is_its_mean():
    features = torch.arange(64.0).view(1, 8, 8)
    cut = boxes.roi_align(features, torch.tensor([[1.0, 2.0, 5.0, 6.0], [-9.0, -9.0, -5.0, -5.0]]), 2)
    assert torch.allclose(cut[0, 0], torch.tensor([[26.0, 28.0], [42.0, 44.0]]))
    assert cut[1].eq(0).all()
    assert torch.allclose(boxes.corners(torch.tensor([0.5, 0.4, 0.2, 0.6])), torch.tensor([0.4, 0.1, 0.6, 0.7]))


def test_masks_are_packed_in_bits_and_compared():
    shown = torch.randn(2, 3, 6, 16)
    assert torch.equal(masks.unpack_masks(masks.pack_masks(shown)), shown > 0)
    small, large, other = (torch.full((8, 8), -1.0) for _ in range(3))
    small[:2, :2], large[:4, :4], other[6:, 6:] = 1, 1, 1
    overlaps = masks.overlap(torch.stack([small, other]), torch.stack([large, other]))
    assert overlaps.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    kept, scores = masks.without_doubles(torch.stack([small, other, large]), torch.tensor([0.5, 0.6, 0.9]))
    assert scores.tolist() == pytest.approx([0.9, 0.6]) and torch.equal(kept, torch.stack([large, other]))


def test_specks_go_and_holes_are_filled():
    mask = torch.full((1, 1, 12, 12), -5.0)
    mask[..., 2:9, 2:9] = 5
    mask[..., 5, 5] = -5
    mask[..., 11, 11] = 5
    cleaned = masks.without_specks(mask, 4)[0, 0]
    assert cleaned[5, 5] == pytest.approx(0.1) and cleaned[11, 11] == pytest.approx(-0.1) and cleaned[0, 0] == -5


def test_remembered_tokens_have_the_places_of_their_cells_but_for_pointers():
    turns = sam.rope_2d(2, 3, 4)
    x = torch.randn(1, 15, 8)
    turned = memory.turned(x, turns, 2, last=3)
    assert torch.equal(turned[:, 12:], x[:, 12:]) and not torch.equal(turned[:, 1:6], x[:, 1:6])
    again = memory.turned(torch.cat([x[:, :6], x[:, :6]], dim=1), turns, 2)
    assert torch.equal(again[:, :6], again[:, 6:])


def test_prompts_give_masks(network):
    with torch.inference_mode():
        trunk = network.look(pictures())
        point = network.draw(trunk, Prompt(points=torch.tensor([[[10.0, 20.0]]]), labels=torch.tensor([[1]])))
        other = network.draw(trunk, Prompt(points=torch.tensor([[[40.0, 5.0]]]), labels=torch.tensor([[1]])))
        box = network.draw(trunk, Prompt(box=torch.tensor([[[4.0, 4.0], [30.0, 30.0]]])))
        again = network.draw(trunk, Prompt(mask=box))
    assert point.shape == other.shape == box.shape == again.shape == (1, 1, SIDE, SIDE)
    assert not torch.equal(point, other) and not torch.equal(box, again)
    assert point.min() > NOTHING


def test_the_detector_takes_text_and_boxes(loaded, network):
    with torch.inference_mode():
        trunk = network.look(pictures())
        text, mask = prompt_of(loaded)
        found = network.detector(trunk, text, mask)
        boxed = network.detector(trunk, text, mask, torch.tensor([[[0.5, 0.5, 0.4, 0.3]]]))
        longer = network.detector(trunk, torch.cat([text, text * 9], dim=1), torch.nn.functional.pad(mask, (0, 32)))
    assert found.boxes.shape == (1, 12, 4) and found.scores.shape == (1, 12) and found.masks.shape == (1, 12, 24, 24)
    assert not torch.equal(found.scores, boxed.scores)
    torch.testing.assert_close(found.scores, longer.scores)  # what the mask hides has no say
    assert transformer.HEADS == 8 and (found.boxes[..., 2:] > found.boxes[..., :2]).all()


def test_a_video_is_searched_and_followed(loaded, network):
    frames, shown = torch.rand(4, 3, 40, 50, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 1, 40, 50)
    shown[0, 0, :20, :20], shown[1, 0, 20:, 25:] = 1, 1
    with torch.inference_mode():
        track = network.forward_video(frames, shown)
        assert track["packed_masks"].shape == (4, 2, SIDE, SIDE // 8) and track["scores"] == [1.0, 1.0]
        first = masks.unpack_masks(track["packed_masks"][0])
        whole = torch.nn.functional.interpolate(shown, size=(SIDE, SIDE), mode="bilinear")[:, 0] > 0.5
        assert (first != whole).float().mean() < 0.02
        if not network.multiplex:
            with pytest.raises(ValueError, match="SAM 3 follows only what initial_mask shows"):
                network.forward_video(frames, None, text_prompts=[(torch.zeros(1, 32, 64), torch.ones(1, 32))])
            return
        ((states, values),) = loaded[1].encode_from_tokens_scheduled(loaded[1].tokenize("cat"))
        found = network.forward_video(frames, None, text_prompts=[(states, values["attention_mask"])], new_det_thresh=0.1, max_objects=2)
        nothing = network.forward_video(frames, None, text_prompts=[(states, values["attention_mask"])], new_det_thresh=1.0)
    assert found["packed_masks"].shape[0] == 4 and 1 <= len(found["scores"]) <= 2
    assert nothing == {"packed_masks": None, "n_frames": 4, "scores": []}


def test_things_beyond_a_bucket_are_followed_too(network):
    if not network.multiplex:
        pytest.skip("SAM 3 has no buckets")
    frames = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    shown = (torch.rand(6, 1, 40, 50, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    with torch.inference_mode():
        six = network.forward_video(frames, shown)["packed_masks"]
        four = network.forward_video(frames, shown[:4])["packed_masks"]
    assert six.shape[1] == 6
    assert torch.equal(six[:, :4], four) or (six[1, :4] != four[1]).float().mean() < 0.5


def test_what_is_new_sure_or_missing_is_told_from_what_is_followed():
    following = Following.__new__(Following)
    following.rules, following.things = Rules(most=3), Things()
    following.things.add([1.0, 0.9], 1)
    remembered = []
    following._remember = lambda number, frame, present, fresh=None: remembered.append(fresh)
    low = torch.full((2, 1, 8, 8), -1.0)
    low[0, 0, :4, :4], low[1, 0, 4:, 4:] = 1, 1
    present = type("Present", (), {"low": low, "high": low.clone(), "pointers": None})()
    found = torch.full((3, 8, 8), -2.0)
    found[0, :4, :4], found[1, :4, 5:], found[2, 5:, :3] = 7, 7, 7
    following._match(1, None, present, found, torch.tensor([0.95, 0.6, 0.55]))
    assert following.things.seen == [2, 0, 1] and len(following.things) == 3  # the last find has no room
    assert present.low[0].max() == 7 and present.low.shape[0] == 3
    assert remembered[0] is None and remembered[1].tolist() == [False, False, True]
    following._match(2, None, present, found[:0], torch.empty(0))
    assert following.things.seen == [1, -1, 0]


def test_of_confused_things_the_one_hidden_last_goes():
    following = Following.__new__(Following)
    following.things = Things()
    following.things.add([1.0, 1.0], 8)
    following.things.hidden[:] = torch.tensor([3, 5])
    low = torch.ones(2, 1, 4, 4)
    following._hide_confused(low, 9)
    assert low[0].eq(1).all() and low[1].eq(-10).all() and following.things.hidden.tolist() == [3, 9]


def test_masks_of_frames_with_fewer_things_are_filled_up():
    packed = packed_result([None, torch.ones(1, 2, 1, dtype=torch.uint8), torch.ones(2, 2, 1, dtype=torch.uint8)], [0.5, 0.6])
    assert packed["packed_masks"].sum(dim=(2, 3)).tolist() == [[0, 0], [2, 0], [2, 2]]


def test_weights_in_half_precision_compute_in_single(tmp_path):
    path = sam3_file(tmp_path / "half.safetensors", dtype=torch.float16)
    model, *_ = comfy.sd.load_checkpoint_guess_config(path, output_clip=False, model_options={"dtype": torch.float16})
    whole, *_ = comfy.sd.load_checkpoint_guess_config(path, output_clip=False, model_options={"dtype": torch.float32})
    assert model.model.get_dtype() == torch.float16 and model.model.get_dtype_inference() == torch.float32
    with torch.inference_mode():
        ours, exact = (
            one.model.diffusion_model.forward_video(torch.rand(2, 3, 40, 50).fill_(0.4), torch.ones(1, 1, 40, 50)) for one in (model, whole)
        )
    assert torch.equal(ours["packed_masks"], exact["packed_masks"])


def test_transposed_convolutions_cast_their_weights():
    layer = disable_weight_init.ConvTranspose2d(3, 5, 2, stride=2)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    expected = layer(torch.ones(1, 3, 4, 4))
    layer.half().comfy_cast_weights = True
    torch.testing.assert_close(layer(torch.ones(1, 3, 4, 4)), expected, atol=5e-3, rtol=0)


def test_trackers_remember_so_many_frames_and_pointers():
    track = tracker.Track()
    track.followed.update(dict.fromkeys(range(5)))
    track.forget_before(3)
    assert list(track.followed) == [3, 4] and tracker.POINTERS == 16 and math.isclose(tracker.CLEAR + 2 * tracker.BIAS, 0)


def test_a_network_is_made_without_values():
    network = SAM3Model(device=torch.device("meta"), **sam3_sizes())
    assert all(value.is_meta for value in network.parameters()) and network.image_size == SIDE
