"""Frames between others: which models files hold, what their networks do with frames, and the node over a video."""

import pytest
import torch
from interpolation_files import interpolation_file, interpolation_tensors
from safetensors.torch import save_file

import comfy.model_management
import folder_paths
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy.loading.frame_interpolation import in_network_names
from comfy_extras.frame_interpolation_models import film_net, ifnet
from comfy_extras.nodes_frame_interpolation import FrameInterpolate, FrameInterpolationModelLoader

FOLDER = "frame_interpolation"


def film(frames=3, height=70, width=90, seed=1):
    """Frames of large spots."""
    spots = torch.rand((frames, 3, 6, 6), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(spots, (height, width), mode="bilinear").movedim(1, -1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    return tmp_path


def loaded(folder, kind, **settings):
    interpolation_file(folder / f"{kind}.safetensors", kind, **settings)
    return FrameInterpolationModelLoader.execute(f"{kind}.safetensors").args[0]


def between(patcher, images, multiplier=2):
    with torch.inference_mode():
        return FrameInterpolate.execute(patcher, images, multiplier).args[0]


@pytest.mark.parametrize(("kind", "network"), [("rife", ifnet.IFNet), ("film", film_net.FILMNet)])
def test_files_are_told_by_their_tensors(folder, kind, network):
    model = loaded(folder, kind, dtype=torch.float16)
    assert type(model.model) is network and model.model_dtype() == torch.float32 and not model.model.training
    wanted = interpolation_tensors(kind)
    kept = dict(model.model.named_parameters())
    assert kept.keys() == wanted.keys()
    assert all(torch.equal(kept[name], value.half().float()) for name, value in wanted.items())


def test_files_of_training_are_the_same_model(folder):
    images, plain = film(), loaded(folder, "rife")
    expected = between(plain, images)
    assert torch.equal(between(loaded(folder, "rife", training=True), images), expected)
    assert in_network_names("module.flownet.block3.conv0.0.0.weight") == "blocks.3.conv0.0.0.weight"
    assert in_network_names("flownet.caltime.0.weight") is None and in_network_names("encode.cnn0.bias") == "encode.cnn0.bias"


def test_other_files_are_refused_with_what_they_lack(folder):
    save_file({"weight": torch.zeros(2)}, folder / "other.safetensors")
    with pytest.raises(UnknownModelError, match="supported: RIFE 4 and FILM"):
        FrameInterpolationModelLoader.execute("other.safetensors")
    tensors = interpolation_tensors("rife")
    save_file({name: value for name, value in tensors.items() if not name.startswith("blocks.4.")}, folder / "few.safetensors")
    with pytest.raises(UnknownModelError, match="4 of the 5 blocks"):
        FrameInterpolationModelLoader.execute("few.safetensors")
    del tensors["encode.cnn1.bias"]
    save_file(tensors, folder / "damaged.safetensors")
    with pytest.raises(IncompleteModelError, match=r"encode\.cnn1\.bias"):
        FrameInterpolationModelLoader.execute("damaged.safetensors")


@pytest.mark.parametrize("kind", ["rife", "film"])
def test_each_two_frames_get_others_between(folder, kind):
    images = film()
    made = between(loaded(folder, kind), images, 4)
    assert made.shape == (9, 70, 90, 3) and made.min() >= 0 and made.max() <= 1
    assert torch.equal(made[::4], images)
    assert not any(torch.allclose(one, other, atol=1e-3) for one, other in zip(made, made[1:]))


@pytest.mark.parametrize("kind", ["rife", "film"])
def test_a_frame_is_looked_at_once(folder, kind, monkeypatch):
    model, images, seen = loaded(folder, kind), film(4), []
    look = model.model.extract_features
    monkeypatch.setattr(model.model, "extract_features", lambda frame: (seen.append(frame), look(frame))[1])
    made = between(model, images)
    assert len(seen) == 4
    with torch.inference_mode():
        for number in range(3):
            pair = between(model, images[number : number + 2])
            torch.testing.assert_close(pair[1], made[2 * number + 1])


@pytest.mark.parametrize("kind", ["rife", "film"])
def test_fewer_are_made_together_where_memory_is_short(folder, kind, monkeypatch):
    model, images, asked = loaded(folder, kind), film(), []
    expected, make = between(model, images, 6), model.model.between

    def short(first, second, times, seen):
        asked.append(len(times))
        if len(times) > 1:
            raise torch.OutOfMemoryError("no room")
        return make(first, second, times, seen)

    monkeypatch.setattr(model.model, "between", short)
    torch.testing.assert_close(between(model, images, 6), expected, rtol=1e-4, atol=1e-5)
    assert asked == [5, 2] + [1] * 10
    monkeypatch.setattr(model.model, "between", lambda *given: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(torch.OutOfMemoryError, match="none at all"):
        between(model, images, 6)


def test_other_errors_are_not_taken_for_a_lack_of_memory(folder, monkeypatch):
    model = loaded(folder, "rife")
    monkeypatch.setattr(model.model, "between", lambda *given: (_ for _ in ()).throw(RuntimeError("sizes differ")))
    with pytest.raises(RuntimeError, match="sizes differ"):
        between(model, film())


def test_a_stopped_prompt_stops_between_two_frames(folder):
    model = loaded(folder, "rife")
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        between(model, film())
    assert between(model, film()).shape == (5, 70, 90, 3)


def test_small_frames_are_padded_or_refused(folder):
    small = film(2, 20, 24)
    assert between(loaded(folder, "rife"), small).shape == (3, 20, 24, 3)
    with pytest.raises(ValueError, match=r"64 pixels or more on each side, not 24 x 20"):
        between(loaded(folder, "film"), small)


def test_a_single_frame_stays_alone_and_transparency_is_left_out(folder):
    model, one = loaded(folder, "rife"), film(1)
    assert between(model, one) is one
    with_alpha = torch.cat((film(), torch.ones(3, 70, 90, 1)), dim=-1)
    assert torch.equal(between(model, with_alpha), between(model, film()))


def test_motion_that_is_told_moves_pixels():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 10, 20] = 1.0
    flow = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 64, 64)
    for moved in (ifnet._moved(image, flow), film_net._moved(image, flow)):
        assert divmod(int(moved.argmax()), 64) == (12, 17) and moved.max() == pytest.approx(1.0, abs=1e-3)


def test_one_time_may_be_a_number_or_a_tensor():
    frames = film(2, 64, 64).movedim(-1, 1)
    network = film_net.FILMNet(filters=4, flow_filters=(4, 6, 8, 8))
    network.load_state_dict(interpolation_tensors("film"))
    rife = ifnet.IFNet(channels=(16, 12, 8, 8, 8))
    rife.load_state_dict(interpolation_tensors("rife"))
    with torch.inference_mode():
        for one in (network, rife):
            first = one(frames[:1], frames[1:], 0.25)
            assert torch.equal(first, one(frames[:1], frames[1:], torch.full((1, 1, 64, 64), 0.25)))
            torch.testing.assert_close(first, one.between(frames[:1], frames[1:], [0.25, 0.5])[:1], rtol=1e-4, atol=1e-5)
