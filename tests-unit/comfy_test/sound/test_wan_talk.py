"""InfiniteTalk: who is heard when, where tokens are placed, and what the node refuses."""

import pytest
import torch
from wan_files import talk_file, wan_tensors

import comfy.sd
from comfy.control.infinite_talk import FirstFramesKept, FirstFramesSeen
from comfy.ldm.wan.model_multitalk import BETWEEN, heard_around, likeness, places
from comfy.loading.model_patch import load_model_patch
from comfy_extras.wan_talk_nodes import WanInfiniteTalkToVideo, people, said

WIDTH, LAYERS, CHANNELS = 640, 2, 4


class Autoencoder:
    """Makes latents of zeros."""

    def encode(self, pixels):
        return torch.zeros(1, 16, (len(pixels) - 1) // 4 + 1, pixels.shape[1] // 8, pixels.shape[2] // 8)


def heard(times=20, channels=CHANNELS):
    return {"encoded_audio_all_layers": [torch.full((1, times, channels), number + 1.0) for number in range(LAYERS + 1)]}


@pytest.fixture(scope="module")
def patch(tmp_path_factory):
    return load_model_patch(talk_file(tmp_path_factory.mktemp("patches") / "talk.safetensors", WIDTH, LAYERS * CHANNELS, blocks=2))


def model(width=WIDTH, depth=2):
    tensors = wan_tensors("i2v", width=width, depth=depth)
    return comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32})


def run(model, patch, mode=None, sound=None, **given):
    sides = {name: [[torch.zeros(1, 2, 64), {}]] for name in ("positive", "negative")}
    sizes = {"width": 32, "height": 32, "length": 5, "motion_frame_count": 5}
    mode, sound = mode or {"mode": "single_speaker"}, sound or heard()
    with torch.inference_mode():
        return WanInfiniteTalkToVideo.execute(
            mode, model, patch, vae=Autoencoder(), audio_encoder_output_1=sound, **sides, **sizes, **given
        ).args


def test_people_speak_one_after_the_other():
    first, second = said([heard(20), heard(8)])
    assert first.shape == second.shape == (14, LAYERS, CHANNELS)
    assert [bool(one.any()) for one in first] == [True] * 10 + [False] * 4
    assert [bool(one.any()) for one in second] == [False] * 10 + [True] * 4


def test_the_first_time_stands_for_those_behind_the_last():
    states = torch.arange(6.0)[:, None, None]
    around = heard_around(states, 4, 7)[..., 0, 0]
    assert around.tolist() == [[2, 3, 4, 5, 0], [3, 4, 5, 0, 0], [4, 5, 0, 0, 0]]
    assert heard_around(states, 0, 1)[..., 0, 0].tolist() == [[0, 0, 0, 1, 2]]


def test_tokens_are_placed_by_the_person_they_look_at():
    masks = torch.tensor([[True, True, False, False], [False, False, True, False], [False, False, False, True]])
    key = torch.eye(4)[None, :, None].repeat(2, 1, 2, 1) * 40
    found = likeness(key, key, 4, masks)
    assert found.shape == (3, 2, 4)
    assert found.argmax(dim=0).tolist() == [[0, 0, 1, 2]] * 2
    placed = places(found)
    assert (placed[:, :2] > 3.5).all() and (placed[:, 2] > 23.5).all() and (placed[:, 3] == BETWEEN).all()


@pytest.mark.parametrize("kind", [FirstFramesSeen, FirstFramesKept])
def test_first_frames_are_held_and_nothing_is_changed_in_place(kind):
    frames, latent = torch.ones(1, 16, 1, 2, 2), torch.zeros(2, 16, 3, 2, 2)
    found = kind(frames)(lambda x: x, latent)
    assert found[0, 0, :, 0, 0].tolist() == found[1, 0, :, 0, 0].tolist() == [1, 0, 0]
    assert not latent.any()


def test_going_on_trims_the_frames_before(patch):
    wan = model()
    _, positive, _, latent, trim = run(wan, patch, start_image=torch.ones(1, 32, 32, 3))
    assert (trim, tuple(latent["samples"].shape)) == (0, (1, 16, 2, 4, 4))
    assert positive[0][1]["concat_mask"][0, 0, :, 0, 0].tolist() == [0, 1]
    patched, _, _, _, trim = run(wan, patch, previous_frames=torch.ones(7, 32, 32, 3))
    assert trim == 5 and "audio_embeds" not in wan.model_options["transformer_options"]
    assert patched.model_options["transformer_options"]["audio_embeds"].shape == (1, 2, 32, 24)


def test_what_does_not_go_together_is_refused(patch):
    wan, picture = model(), {"start_image": torch.ones(1, 32, 32, 3)}
    with pytest.raises(ValueError, match="connect start_image"):
        run(wan, patch)
    with pytest.raises(ValueError, match="3 previous frames are fewer than motion_frame_count, 5"):
        run(wan, patch, previous_frames=torch.ones(3, 32, 32, 3))
    with pytest.raises(ValueError, match="hears 8 values at a time; the audio encoder gives 2 layers of 6"):
        run(wan, patch, sound=heard(channels=6), **picture)
    with pytest.raises(ValueError, match="is for 2 blocks; the model has more"):
        run(model(depth=3), patch, **picture)
    with pytest.raises(ValueError, match="talk.safetensors changes a WAN21 of {'dim': 640}"):
        run(model(width=128), patch, **picture)
    with pytest.raises(ValueError, match="connect mask_1 and mask_2"):
        people({"mode": "two_speakers", "audio_encoder_output_2": heard()}, heard())
    with pytest.raises(ValueError, match="connect audio_encoder_output_2"):
        people({"mode": "two_speakers", "mask_1": torch.ones(1, 2, 2), "mask_2": torch.ones(1, 2, 2)}, heard())
