"""Nodes that make, cut, join and filter sound, each against what it is defined to do."""

import math

import numpy
import pytest
import torch

from comfy.audio.resampling import resampled
from comfy_extras import audio_values, nodes_audio
from comfy_extras.audio_filters import equalized

RATE_HZ = 8000
GAINS = {"low_gain_dB": 0.0, "mid_gain_dB": 0.0, "high_gain_dB": 0.0}
BANDS = {"low_freq": 100, "mid_freq": 1000, "mid_q": 0.707, "high_freq": 3000, **GAINS}


def sound(*rows, rate_hz=RATE_HZ):
    """One sound with the channels *rows*."""
    return {"waveform": torch.tensor([rows], dtype=torch.float32), "sample_rate": rate_hz}


def rows(audio):
    """The channels of a sound's first."""
    return audio["waveform"][0].tolist()


def noise(channels=2, samples=4000, batch=1, rate_hz=RATE_HZ, seed=1):
    return {"waveform": torch.rand(batch, channels, samples, generator=torch.Generator().manual_seed(seed)) - 0.5, "sample_rate": rate_hz}


def done(node, *inputs, **named):
    """The only output."""
    (answer,) = node.execute(*inputs, **named).args
    return answer


def test_silence_has_the_length_asked_for():
    audio = done(nodes_audio.EmptyAudio, 1.50004, 44100, 1)
    assert audio["waveform"].shape == (1, 1, 66152) and audio["sample_rate"] == 44100 and not audio["waveform"].any()
    assert done(nodes_audio.EmptyAudio, 0.0, 44100, 2)["waveform"].shape == (1, 2, 0)
    with pytest.raises(ValueError, match="EmptyAudio: silence of .* s takes .* make it shorter"):
        done(nodes_audio.EmptyAudio, float(2**63), 192000, 2)


def test_latents_have_stable_audios_sizes():
    latent = done(nodes_audio.EmptyLatentAudio, 47.6, 3)
    assert latent["samples"].shape == (3, 64, 1024) and latent["samples"].dtype == torch.float32 and not latent["samples"].any()
    assert (latent["type"], latent["downscale_ratio_temporal"]) == ("audio", 2048)
    assert done(nodes_audio.EmptyLatentAudio, 1.0, 1)["samples"].shape[2] == 22


def test_conditioning_knows_both_times():
    given = [[torch.zeros(1, 2, 3), {"a": 1}]]
    positive, negative = nodes_audio.ConditioningStableAudio.execute(given, given, 1.5, 30.0).args
    assert positive[0][1] == negative[0][1] == {"a": 1, "seconds_start": 1.5, "seconds_total": 30.0} and given[0][1] == {"a": 1}


@pytest.mark.parametrize(
    ("start", "duration", "first", "last"),
    [(0.0, 60.0, 0, 80), (2.0, 3.0, 20, 50), (-3.0, 2.0, 50, 70), (-99.0, 1.0, 0, 10), (7.96, 9.0, 80, 80), (7.84, 9.0, 78, 80)],
)
def test_trimming_keeps_the_samples_in_between(start, duration, first, last):
    audio = sound(list(range(80)), list(range(80, 160)), rate_hz=10)
    if first == last:
        with pytest.raises(ValueError, match="TrimAudioDuration: nothing is left of 8 s"):
            done(nodes_audio.TrimAudioDuration, audio, start, duration)
        return
    trimmed = done(nodes_audio.TrimAudioDuration, audio, start, duration)
    assert rows(trimmed) == [list(range(first, last)), list(range(80 + first, 80 + last))] and trimmed["sample_rate"] == 10


def test_trimming_to_nothing_is_an_error():
    with pytest.raises(ValueError, match="last longer than 0 s"):
        done(nodes_audio.TrimAudioDuration, noise(), 0.0, 0.0)
    empty = {"waveform": torch.zeros(1, 2, 0), "sample_rate": RATE_HZ}
    assert done(nodes_audio.TrimAudioDuration, empty, 0.0, 1.0) is empty


def test_channels_are_split_and_joined_again():
    audio = noise(batch=2)
    left, right = nodes_audio.SplitAudioChannels.execute(audio).args
    assert torch.equal(left["waveform"], audio["waveform"][:, :1]) and torch.equal(right["waveform"], audio["waveform"][:, 1:])
    joined = done(nodes_audio.JoinAudioChannels, left, right)
    assert torch.equal(joined["waveform"], audio["waveform"]) and joined["sample_rate"] == RATE_HZ
    for channels in (1, 3):
        with pytest.raises(ValueError, match=f"SplitAudioChannels: .* this has {channels}"):
            nodes_audio.SplitAudioChannels.execute(noise(channels))
    with pytest.raises(ValueError, match="must be mono; they have 1 and 2 channels"):
        done(nodes_audio.JoinAudioChannels, left, audio)


def test_joined_channels_are_as_long_as_the_shorter_one():
    assert rows(done(nodes_audio.JoinAudioChannels, sound([1, 2, 3]), sound([4, 5]))) == [[1, 2], [4, 5]]
    joined = done(nodes_audio.JoinAudioChannels, noise(1, 1000), noise(1, 1500, rate_hz=2 * RATE_HZ))
    assert joined["waveform"].shape == (1, 2, 1500) and joined["sample_rate"] == 2 * RATE_HZ


def test_one_sound_follows_the_other():
    assert rows(done(nodes_audio.AudioConcat, sound([1, 2], [3, 4]), sound([5], [6]), "after")) == [[1, 2, 5], [3, 4, 6]]
    assert rows(done(nodes_audio.AudioConcat, sound([1, 2], [3, 4]), sound([5]), "before")) == [[5, 1, 2], [5, 3, 4]]
    assert rows(done(nodes_audio.AudioConcat, sound([1]), sound([2]), "after")) == [[1, 2], [1, 2]]
    both = done(nodes_audio.AudioConcat, noise(samples=100), noise(samples=150, rate_hz=2 * RATE_HZ, batch=3), "after")
    assert both["waveform"].shape == (3, 2, 350) and both["sample_rate"] == 2 * RATE_HZ


@pytest.mark.parametrize(
    ("method", "expected"),
    [("add", [0.5, -0.25, 0.25]), ("subtract", [0.0, -0.25, 0.25]), ("multiply", [0.0625, 0.0, 0.0]), ("mean", [0.25, -0.125, 0.125])],
)
def test_merging_does_to_samples_what_it_says(method, expected):
    assert rows(done(nodes_audio.AudioMerge, sound([0.25, -0.25, 0.25]), sound([0.25]), method)) == [expected]
    assert rows(done(nodes_audio.AudioMerge, sound([0.25, -0.25, 0.25]), sound([0.25, 0, 0, 0.5]), method)) == [expected]


def test_merged_sound_is_never_louder_than_full():
    assert rows(done(nodes_audio.AudioMerge, sound([1.0, -0.5]), sound([1.0, 0.25]), "add")) == [[1.0, -0.125]]
    stereo = done(nodes_audio.AudioMerge, noise(2), noise(1, seed=2), "mean")
    assert stereo["waveform"].shape == (1, 2, 4000)
    empty = {"waveform": torch.zeros(1, 1, 0), "sample_rate": RATE_HZ}
    first = noise(1)
    assert torch.equal(done(nodes_audio.AudioMerge, first, empty, "add")["waveform"], first["waveform"])


@pytest.mark.parametrize(
    ("first", "second", "told"), [(noise(2), noise(6), "2 and 6 channels"), (noise(batch=2), noise(batch=3), "2 and 3 sounds in a batch")]
)
def test_what_does_not_go_together_is_said(first, second, told):
    for node, how in ((nodes_audio.AudioConcat, "after"), (nodes_audio.AudioMerge, "add")):
        with pytest.raises(ValueError, match=f"{node.__name__}: the two inputs have {told}"):
            done(node, first, second, how)


@pytest.mark.parametrize(("volume", "factor"), [(20, 10.0), (-6, 10 ** (-6 / 20)), (100, 1e5)])
def test_volume_is_in_decibels(volume, factor):
    audio = noise()
    assert torch.allclose(done(nodes_audio.AudioAdjustVolume, audio, volume)["waveform"], audio["waveform"] * factor)
    assert done(nodes_audio.AudioAdjustVolume, audio, 0) is audio


def test_no_sound_passes_through():
    audio = noise(1)
    for node, more in ((nodes_audio.TrimAudioDuration, (0.0, 1.0)), (nodes_audio.AudioAdjustVolume, (3,))):
        assert done(node, None, *more) is None
    assert nodes_audio.SplitAudioChannels.execute(None).args == (None, None)
    for node, more in ((nodes_audio.JoinAudioChannels, ()), (nodes_audio.AudioConcat, ("after",)), (nodes_audio.AudioMerge, ("add",))):
        assert done(node, None, None, *more) is None
        assert done(node, audio, None, *more) is done(node, None, audio, *more) is audio
    assert done(nodes_audio.AudioEqualizer3Band, None, **BANDS | {"low_gain_dB": 3.0}) is None


def sine(frequency_hz, rate_hz, seconds=0.5):
    return torch.sin(torch.arange(int(rate_hz * seconds), dtype=torch.float64) * (2 * math.pi * frequency_hz / rate_hz)) * 0.1


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 44100), (44100, 48000), (48000, 16000), (44100, 44099)])
def test_a_tone_at_another_rate_is_the_same_tone(from_hz, to_hz):
    changed = resampled(sine(440, from_hz).float().view(1, 1, -1), from_hz, to_hz)
    assert changed.shape[-1] == -(-(from_hz // 2) * to_hz // from_hz) and changed.dtype == torch.float32
    expected = sine(440, to_hz)[: changed.shape[-1]]
    middle = slice(200, len(expected) - 200)
    assert (changed[0, 0, : len(expected)][middle] - expected[middle]).abs().max() < 3e-4


def test_what_the_lower_rate_does_not_have_is_gone():
    assert resampled(sine(6000, 48000).float(), 48000, 8000)[50:-50].abs().max() < 2e-3
    audio = noise()["waveform"]
    assert resampled(audio, 8000, 8000) is audio and resampled(audio[..., :0], 8000, 9000).shape == (1, 2, 0)
    with pytest.raises(ValueError, match="from 0 Hz"):
        resampled(audio, 0, 8000)


def test_raising_a_rate_beyond_memory_is_refused(monkeypatch):
    monkeypatch.setattr(audio_values, "allowed_bytes", lambda: 1_000_000)
    with pytest.raises(ValueError, match="AudioMerge: sound of 1 Hz at 192000 Hz takes"):
        done(nodes_audio.AudioMerge, noise(rate_hz=1), noise(rate_hz=192000), "add")


@pytest.mark.parametrize(
    ("shape", "gain_db", "at_hz", "elsewhere_hz"),
    [
        ("low shelf", 12.0, 20, 8000), ("low shelf", -12.0, 20, 8000), ("high shelf", 9.0, 15000, 100), ("high shelf", -20.0, 15000, 100),
        ("peak", 6.0, 1000, 20), ("peak", -24.0, 1000, 20),
    ],
)  # fmt: skip
def test_each_band_changes_its_frequencies_and_no_others(shape, gain_db, at_hz, elsewhere_hz):
    def gain_at(frequency_hz):
        tone = sine(frequency_hz, 48000, 1.0).float()
        changed = equalized(tone, 48000, shape, gain_db, 1000.0, 0.707)
        settled = slice(24000, None)
        return 20 * math.log10(changed[settled].norm() / tone[settled].norm())

    assert gain_at(at_hz) == pytest.approx(gain_db, abs=0.3) and gain_at(elsewhere_hz) == pytest.approx(0, abs=0.3)
    if "shelf" in shape:
        assert gain_at(1000) == pytest.approx(gain_db / 2, abs=0.3)


def test_the_equalizer_runs_the_bands_that_are_asked_for():
    audio = noise(rate_hz=44100)
    assert torch.equal(done(nodes_audio.AudioEqualizer3Band, audio, **BANDS)["waveform"], audio["waveform"])
    louder = done(nodes_audio.AudioEqualizer3Band, audio, **BANDS | {"low_gain_dB": 24.0, "high_gain_dB": 24.0, "mid_gain_dB": 6.0})
    assert louder["waveform"].abs().max() == 1.0 and louder["waveform"].dtype == torch.float32, "clipped"
    one = done(nodes_audio.AudioEqualizer3Band, audio, **BANDS | {"high_gain_dB": -9.0})["waveform"]
    assert torch.equal(one, equalized(audio["waveform"], 44100, "high shelf", -9.0, 3000.0, 0.707))
    assert numpy.isfinite(one.numpy()).all()
    with pytest.raises(ValueError, match="no frequencies from 4000 Hz on"):
        done(nodes_audio.AudioEqualizer3Band, noise(), **BANDS | {"high_freq": 5000, "high_gain_dB": 1.0})
