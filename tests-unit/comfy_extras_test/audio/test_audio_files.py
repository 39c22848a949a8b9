"""Nodes that read and write sound: what comes back, and what is refused."""

import json
import types

import numpy
import pytest
import torch

import folder_paths
from comfy.cli_args import args
from comfy.interruption import InterruptProcessingException, interrupt_flag
from comfy_extras import audio_reading, audio_values, nodes_audio

av = pytest.importorskip("av", reason="sound files are read by PyAV: pip install av")

HIDDEN = types.SimpleNamespace(prompt={"1": "é"}, extra_pnginfo={"workflow": [1]})
RATE_HZ = 44100


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """The folder that holds those for input, output and temporary files."""
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def tone(channels=2, samples=30000, batch=1):
    """Another pitch per channel, on the grid of 16-bit samples."""
    angles = torch.arange(samples) * torch.linspace(0.02, 0.05, batch * channels).view(batch, channels, 1)
    return (torch.sin(angles) * 16000).round() / 32768


def run(node, *inputs):
    """The answer of *node* where a prompt and a workflow are running."""
    return type(node.__name__, (node,), {"hidden": HIDDEN}).execute(*inputs)


def paths(answer, folders):
    """The files that the page is told of."""
    shown = answer.ui if isinstance(answer.ui, dict) else answer.ui.as_dict()
    return [folders / one["type"] / one["subfolder"] / one["filename"] for one in shown["audio"]]


def wave(path, samples, codec="pcm_s16le", sample_format="s16", rate_hz=8000):
    """Write integer or float *samples* (a list, mono) as a WAV file."""
    kind = {"s16": numpy.int16, "s32": numpy.int32, "u8": numpy.uint8, "flt": numpy.float32, "dbl": numpy.float64}[sample_format]
    with av.open(str(path), "w", format="wav") as output:
        stream = output.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(numpy.array([samples], dtype=kind), format=sample_format, layout="mono")
        frame.sample_rate, frame.pts = rate_hz, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


@pytest.mark.parametrize("channels", [1, 2])
def test_flac_comes_back_sample_for_sample(folders, channels):
    audio = {"waveform": tone(channels, samples=100_001, batch=2), "sample_rate": RATE_HZ}
    answer = run(nodes_audio.SaveAudio, audio, "audio/%batch_num%x")
    assert answer.args[0] is audio
    files = paths(answer, folders)
    assert [path.relative_to(folders).as_posix() for path in files] == ["output/audio/0x_00001.flac", "output/audio/1x_00002.flac"]
    for path, expected in zip(files, audio["waveform"]):
        waveform, rate_hz = nodes_audio.load(str(path))
        assert rate_hz == RATE_HZ and waveform.dtype == torch.float32 and torch.equal(waveform, expected)


@pytest.mark.parametrize(
    ("format", "quality", "rate_hz", "read_hz"),
    [
        ("mp3", "V0", 44100, 44100), ("mp3", "320k", 96000, 48000), ("mp3", "128k", 22050, 22050),
        ("opus", "64k", 44100, 48000), ("opus", "320k", 96000, 48000), ("opus", "128k", 16000, 48000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats_keep_length_channels_and_sound(folders, format, quality, rate_hz, read_hz, channels):
    waveform = tone(channels, samples=2 * rate_hz + 77)
    chosen = {"format": format, "quality": quality}
    (path,) = paths(run(nodes_audio.SaveAudioAdvanced, {"waveform": waveform, "sample_rate": rate_hz}, "a", chosen), folders)
    found, found_hz = nodes_audio.load(str(path))
    assert (path.name, found_hz, len(found)) == (f"a_00001.{format}", read_hz, channels)
    assert found.shape[1] / found_hz == pytest.approx(2 + 77 / rate_hz, abs=0.06)
    # The pitch of each channel is where it was.
    for sound, expected in zip(found, waveform[0]):
        peaks = [torch.fft.rfft(one).abs().argmax().item() * hz / len(one) for one, hz in ((sound, found_hz), (expected, rate_hz))]
        assert peaks[0] == pytest.approx(peaks[1], rel=0.01)


@pytest.mark.parametrize(
    ("node", "format", "quality"), [(nodes_audio.SaveAudioMP3, "mp3", "320k"), (nodes_audio.SaveAudioOpus, "opus", "192k")]
)
def test_quality_is_the_bit_rate(folders, node, format, quality):
    noise = {"waveform": torch.rand(1, 2, 3 * 48000, generator=torch.Generator().manual_seed(1)) - 0.5, "sample_rate": 48000}
    large, small = (paths(run(node, noise, "a", format, one), folders)[0].stat().st_size for one in (quality, "128k"))
    assert large > 1.3 * small and large * 8 / 3 == pytest.approx(int(quality[:-1]) * 1000, rel=0.15)


@pytest.mark.parametrize("chosen", [{"format": "flac"}, {"format": "mp3", "quality": "V0"}, {"format": "opus", "quality": "96k"}])
def test_prompt_and_workflow_are_in_the_file_unless_switched_off(folders, chosen, monkeypatch):
    def tags():
        audio = {"waveform": tone(), "sample_rate": RATE_HZ}
        (path,) = paths(run(nodes_audio.SaveAudioAdvanced, audio, "x", chosen), folders)
        with av.open(str(path)) as container:
            both = container.metadata | container.streams.audio[0].metadata
        return {key.lower(): json.loads(text) for key, text in both.items() if key.lower() in ("prompt", "workflow")}

    assert tags() == {"prompt": {"1": "é"}, "workflow": [1]}
    monkeypatch.setattr(args, "disable_metadata", True)
    assert tags() == {}


def test_previews_are_flac_in_the_temp_folder(folders):
    audio = {"waveform": tone(), "sample_rate": RATE_HZ}
    answer = run(nodes_audio.PreviewAudio, audio)
    (path,) = paths(answer, folders)
    assert answer.args[0] is audio and path.parent == folders / "temp" and torch.equal(nodes_audio.load(str(path))[0], tone()[0])


@pytest.mark.parametrize(
    ("samples", "codec", "sample_format", "expected"),
    [
        ([-32768, 0, 16384, 32767], "pcm_s16le", "s16", [-1, 0, 0.5, 32767 / 32768]),
        ([-(2**31), 0, 2**30], "pcm_s32le", "s32", [-1, 0, 0.5]),
        ([0, 128, 192], "pcm_u8", "u8", [-1, 0, 0.5]),
        ([-1.5, 0.25], "pcm_f32le", "flt", [-1.5, 0.25]),
        ([-0.125, 0.75], "pcm_f64le", "dbl", [-0.125, 0.75]),
    ],
)
def test_samples_of_every_kind_become_floats(folders, samples, codec, sample_format, expected):
    wave(folders / "input" / "a.wav", samples, codec, sample_format)
    audio = nodes_audio.LoadAudio.execute("a.wav").args[0]
    assert audio["sample_rate"] == 8000 and audio["waveform"].dtype == torch.float32
    assert audio["waveform"].tolist() == [[expected]]


def test_the_sound_of_a_video_is_read_as_well(folders):
    with av.open(str(folders / "input" / "a.mp4"), "w") as output:
        pictures = output.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 32
        sound = output.add_stream("aac", rate=48000, layout="mono")
        for _ in range(10):
            output.mux(pictures.encode(av.VideoFrame.from_ndarray(numpy.zeros((32, 32, 3), numpy.uint8), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(tone(1, 48000)[0].numpy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        output.mux(sound.encode(frame))
        output.mux([*pictures.encode(None), *sound.encode(None)])
    audio = nodes_audio.LoadAudio.execute("a.mp4").args[0]
    assert audio["sample_rate"] == 48000 and audio["waveform"].shape[:2] == (1, 1)
    assert audio["waveform"].shape[2] / 48000 == pytest.approx(1, abs=0.05) and audio["waveform"].abs().max() > 0.4


def test_the_list_holds_sound_and_videos_of_the_input_folder(folders):
    for name in ("b.mp3", "a.wav", "c.mp4", "d.png", "e.txt"):
        (folders / "input" / name).touch()
    (folders / "input" / "folder.wav").mkdir()
    kind, options = nodes_audio.LoadAudio.INPUT_TYPES()["required"]["audio"]
    assert kind == "COMBO" and options["options"] == ["a.wav", "b.mp3", "c.mp4"] and options["audio_upload"] is True
    (folders / "input" / "f.flac").touch()
    assert "f.flac" in nodes_audio.LoadAudio.INPUT_TYPES()["required"]["audio"][1]["options"]


@pytest.mark.parametrize("node", [nodes_audio.LoadAudio, nodes_audio.RecordAudio])
def test_files_are_known_by_their_contents(folders, node):
    wave(folders / "input" / "a.wav", [1, 2])
    before = node.fingerprint_inputs("a.wav")
    wave(folders / "temp" / "b.wav", [1, 2])
    assert node.fingerprint_inputs(audio="b.wav [temp]") == before
    wave(folders / "input" / "a.wav", [1, 3])
    assert node.fingerprint_inputs("a.wav") != before
    assert node.validate_inputs("a.wav") is node.validate_inputs("b.wav [temp]") is True


@pytest.mark.parametrize("name", ["gone.wav", "../outside.wav", "", "/etc/hostname"])
def test_only_files_inside_the_folders_are_there(folders, name):
    wave(folders / "outside.wav", [1, 2])
    assert nodes_audio.LoadAudio.validate_inputs(name) == nodes_audio.RecordAudio.validate_inputs(name) == f"Invalid audio file: {name}"
    with pytest.raises((ValueError, FileNotFoundError)):
        nodes_audio.LoadAudio.execute(name)


def test_a_playlist_leads_to_no_other_file(folders):
    with av.open(str(folders / "secret.ts"), "w", format="mpegts") as output:
        stream = output.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1, 48000)[0].numpy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    playlist = folders / "input" / "a.wav"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nfile://{folders}/secret.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match=r"a\.wav could not be read as sound"):
        nodes_audio.LoadAudio.execute("a.wav")


@pytest.mark.parametrize(
    "content", [b"", b"no sound at all " * 100, b"RIFF\xff\xff\xff\xffWAVEfmt ", b"fLaC" + bytes(200), b"ID3" + bytes(99)]
)
def test_damaged_files_are_one_error_that_names_them(folders, content):
    (folders / "input" / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.wav could not be read as sound: .+upload it again"):
        nodes_audio.LoadAudio.execute("a.wav")


def test_what_is_no_sound_file_is_said(folders):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav\. Choose another"):
        nodes_audio.load(str(folders / "gone.wav"))
    with pytest.raises(ValueError, match="not a regular file"):
        nodes_audio.load(str(folders))
    with av.open(str(folders / "silent.mp4"), "w") as output:
        pictures = output.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 32
        frame = av.VideoFrame.from_ndarray(numpy.zeros((32, 32, 3), numpy.uint8), format="rgb24")
        output.mux([*pictures.encode(frame), *pictures.encode(None)])
    with pytest.raises(ValueError, match=r"silent\.mp4 could not be read as sound: it has no sound track"):
        nodes_audio.load(str(folders / "silent.mp4"))


def test_sound_that_does_not_fit_into_memory_is_refused_while_it_is_decoded(folders, monkeypatch):
    wave(folders / "long.wav", [5] * 200_000)
    monkeypatch.setattr(audio_values, "allowed_bytes", lambda: 1_000_000)
    decoded = []
    keep = audio_reading._Frames.add
    monkeypatch.setattr(audio_reading._Frames, "add", lambda self, frame: (decoded.append(frame.samples), keep(self, frame)))
    with pytest.raises(ValueError, match=r"long\.wav could not be read as sound: its sound takes more than"):
        nodes_audio.load(str(folders / "long.wav"))
    assert sum(decoded) < 130_000


def test_reading_and_writing_stop_when_asked(folders):
    wave(folders / "a.wav", [5] * 20_000)
    for work in (
        lambda: nodes_audio.load(str(folders / "a.wav")),
        lambda: run(nodes_audio.SaveAudio, {"waveform": tone(), "sample_rate": 100}, "x"),
    ):
        interrupt_flag.set()
        with pytest.raises(InterruptProcessingException):
            work()
    assert not list((folders / "output").iterdir()), "no half of a file stays behind"


@pytest.mark.parametrize(
    "node", [nodes_audio.SaveAudio, nodes_audio.SaveAudioMP3, nodes_audio.SaveAudioOpus, nodes_audio.SaveAudioAdvanced]
)
def test_no_sound_is_one_error(folders, node):
    more = ({"format": "flac"},) if node is nodes_audio.SaveAudioAdvanced else ()
    with pytest.raises(ValueError, match=f"{node.__name__}: there is no sound"):
        run(node, None, "x", *more)
    with pytest.raises(ValueError, match="without samples"):
        run(node, {"waveform": torch.zeros(1, 2, 0), "sample_rate": 8000}, "x", *more)
    with pytest.raises(ValueError, match="outside the output folder"):
        run(node, {"waveform": tone(), "sample_rate": 8000}, "../x", *more)
    assert not list((folders / "output").iterdir())


def test_six_channels_are_kept_where_a_format_has_them(folders):
    audio = {"waveform": tone(6), "sample_rate": RATE_HZ}
    (path,) = paths(run(nodes_audio.SaveAudio, audio, "x"), folders)
    assert torch.equal(nodes_audio.load(str(path))[0], audio["waveform"][0])
    with pytest.raises(ValueError, match="6 channels cannot be saved as mp3; mix it down to 1 or 2"):
        run(nodes_audio.SaveAudioMP3, audio, "x")
