"""Videos from tensors and from files: what they report, decode, cut and write."""

import io as bytes_io
import os
import subprocess
import sys
from fractions import Fraction

import pytest
import torch

from comfy_api.input_impl.video_types import container_to_output_format, get_open_write_kwargs
from comfy_api.latest import Input, InputImpl, Types
from comfy_api.latest._input_impl.video_output import encoding_for

av = pytest.importorskip("av")
FPS = 20


def components(frames=20, width=48, height=32, audio=True):
    """A video whose frames brighten one by one, with a tone as long as twice the frames."""
    images_BHWC = torch.linspace(0.1, 0.9, frames).view(-1, 1, 1, 1).expand(frames, height, width, 3).contiguous()
    tone_BCT = torch.sin(torch.linspace(0, 2000, 2 * 16000 * frames // FPS)).repeat(1, 2, 1) * 0.3
    sound = {"waveform": tone_BCT, "sample_rate": 16000} if audio else None
    return Types.VideoComponents(images=images_BHWC, frame_rate=Fraction(FPS), audio=sound)


@pytest.fixture(scope="module")
def video_path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("video") / "source.mp4")
    InputImpl.VideoFromComponents(components()).save_to(path, metadata={"prompt": {"1": "x"}, "note": "plain"})
    return path


def write_mpeg4(path, frames=20, width=48, height=32, container="mov"):
    """A video whose codec is not the one that is encoded to, with sound in samples."""
    with av.open(path, mode="w", format=container) as output:
        stream = output.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number in range(frames):
            pixels = torch.full((height, width, 3), number * 10, dtype=torch.uint8).numpy()
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")))
        frame = av.AudioFrame.from_ndarray(torch.zeros(1, 8000 * frames // FPS, dtype=torch.int16).numpy(), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        output.mux(sound.encode(frame))
        for open_stream in (stream, sound):
            output.mux(open_stream.encode(None))


def seconds_of(path, kind):
    with av.open(path) as container:
        (stream,) = getattr(container.streams, kind)
        return float(stream.duration * stream.time_base)


def test_video_of_tensors_reports_without_encoding():
    video = InputImpl.VideoFromComponents(components(), bit_depth=10)
    assert isinstance(video, Input.Video)
    assert (video.get_dimensions(), video.get_frame_count(), video.get_frame_rate()) == ((48, 32), 20, FPS)
    assert (video.get_duration(), video.get_bit_depth(), video.get_active_trim_window()) == (1.0, 10, (0.0, 0.0))
    assert "mp4" in video.get_container_format()


def test_file_reports_what_was_written(video_path):
    video = InputImpl.VideoFromFile(video_path)
    assert (video.get_dimensions(), video.get_frame_count(), video.get_frame_rate()) == ((48, 32), 20, FPS)
    assert video.get_duration() == pytest.approx(1.0, abs=0.07) and video.get_bit_depth() == 8
    assert video.get_stream_source() == video_path


def test_decoding_gives_the_frames_sound_and_tags_back(video_path):
    decoded = InputImpl.VideoFromFile(video_path).get_components()
    original = components()
    assert decoded.images.shape == original.images.shape and decoded.frame_rate == FPS and decoded.alpha is None
    assert decoded.images.dtype == torch.float32 and (decoded.images - original.images).abs().max() < 0.03
    assert decoded.audio["sample_rate"] == 16000 and decoded.audio["waveform"].shape[:2] == (1, 2)
    assert decoded.audio["waveform"].shape[2] / 16000 == pytest.approx(1.0, abs=0.13)
    assert decoded.metadata["prompt"] == '{"1": "x"}' and decoded.metadata["note"] == "plain"


def test_decoding_a_part_gives_only_that_part(video_path):
    part = InputImpl.VideoFromFile(video_path, start_time=0.5, duration=0.25).get_components()
    assert len(part.images) == 5
    assert float(part.images[0].mean()) == pytest.approx(float(components().images[10].mean()), abs=0.03)
    assert part.audio["waveform"].shape[2] == 4000


def test_negative_start_counts_from_the_end(video_path):
    tail = InputImpl.VideoFromFile(video_path, start_time=-0.25)
    start_s, length_s = tail.get_active_trim_window()
    assert length_s == 0.0 and start_s == pytest.approx(0.75, abs=0.07)
    assert tail.get_duration() == pytest.approx(0.25, abs=0.01)


def test_trimming_refuses_what_is_too_short_only_when_strict(video_path):
    video = InputImpl.VideoFromFile(video_path)
    assert video.as_trimmed(0.5, 5.0) is None
    assert video.as_trimmed(0.5, 5.0, strict_duration=False).get_duration() == pytest.approx(0.5, abs=0.07)
    assert video.as_trimmed(0.25, 0.5).as_trimmed(0.25, 0.25).get_active_trim_window() == (0.5, 0.25)
    assert InputImpl.VideoFromComponents(components()).as_trimmed(0.5, 5.0) is None
    assert InputImpl.VideoFromComponents(components()).as_trimmed(0.5, 0.25).get_frame_count() == 5


def test_saving_as_it_is_copies_the_packets_and_adds_tags(video_path, tmp_path):
    copied = str(tmp_path / "copy.mp4")
    InputImpl.VideoFromFile(video_path).save_to(copied, metadata={"workflow": {"nodes": []}})
    packets = []
    for path in (video_path, copied):
        with av.open(path) as container:
            packets.append([bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size])
            tags = container.metadata
    assert packets[0] == packets[1]
    assert tags["workflow"] == '{"nodes": []}' and tags["note"] == "plain"


def test_tags_lie_before_the_frames_in_the_file(video_path):
    raw = open(video_path, "rb").read()  # noqa: SIM115
    assert raw.index(b"moov") < raw.index(b"mdat")


@pytest.mark.parametrize("start_s", [0.0, 0.5])
def test_part_of_a_file_is_re_encoded_with_its_sound(tmp_path, start_s):
    source, target = str(tmp_path / "source.mov"), str(tmp_path / "part.mp4")
    write_mpeg4(source)
    InputImpl.VideoFromFile(source, start_time=start_s, duration=0.4).save_to(target, format=Types.VideoContainer.MP4)
    result = InputImpl.VideoFromFile(target)
    assert result.get_frame_count() == 8
    assert seconds_of(target, "video") == pytest.approx(0.4, abs=0.01)
    assert seconds_of(target, "audio") == pytest.approx(0.4, abs=0.01)
    assert float(result.get_components().images[0].mean()) == pytest.approx(start_s * FPS * 10 / 255, abs=0.03)


def test_bit_depth_and_rate_factor_ask_for_re_encoding(video_path, tmp_path):
    deep, small = str(tmp_path / "deep.mp4"), str(tmp_path / "small.mp4")
    InputImpl.VideoFromFile(video_path).save_to(deep, bit_depth=10)
    assert InputImpl.VideoFromFile(deep).get_bit_depth() == 10
    noisy = Types.VideoComponents(images=torch.rand(6, 64, 64, 3), frame_rate=Fraction(FPS))
    InputImpl.VideoFromComponents(noisy).save_to(deep, crf=0)
    InputImpl.VideoFromFile(deep).save_to(small, crf=51)
    assert os.path.getsize(small) < os.path.getsize(deep) / 2


def test_streams_are_read_and_written_like_files(video_path):
    source, target = bytes_io.BytesIO(open(video_path, "rb").read()), bytes_io.BytesIO()  # noqa: SIM115
    video = InputImpl.VideoFromFile(source)
    assert video.get_dimensions() == (48, 32) == video.get_dimensions()
    video.save_to(target)
    assert InputImpl.VideoFromFile(target).get_frame_count() == 20


def test_frames_that_h264_cannot_hold_are_refused(tmp_path):
    target, source = str(tmp_path / "odd.mp4"), str(tmp_path / "odd.mov")
    with pytest.raises(ValueError, match="frames are 47x32"):
        InputImpl.VideoFromComponents(components(width=47)).save_to(target)
    write_mpeg4(source, width=47)
    with pytest.raises(ValueError, match="video is 47x32"):
        InputImpl.VideoFromFile(source).save_to(target, codec=Types.VideoCodec.H264)
    assert not os.path.exists(target)


def test_failure_while_re_encoding_removes_the_partial_file(video_path, tmp_path, monkeypatch):
    from comfy_api.latest._input_impl import video_transcode

    target = str(tmp_path / "partial.mp4")

    def fail(self):
        assert [path.suffix for path in tmp_path.iterdir()] == [".mp4"]
        raise OSError("disk full")

    monkeypatch.setattr(video_transcode._VideoTrack, "flush", fail)
    with pytest.raises(OSError, match="disk full"):
        InputImpl.VideoFromFile(video_path).save_to(target, crf=30)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_a_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(av.error.InvalidDataError):
        InputImpl.VideoFromFile(str(tmp_path / "text.mp4")).get_dimensions()
    sound = str(tmp_path / "sound.wav")
    with av.open(sound, mode="w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(torch.zeros(1, 800, dtype=torch.int16).numpy(), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
    for method in ("get_dimensions", "get_frame_rate", "get_components", "get_frame_count"):
        with pytest.raises(ValueError, match="No video stream found in file"):
            getattr(InputImpl.VideoFromFile(sound), method)()


def test_formats_that_are_not_offered_are_refused():
    with pytest.raises(ValueError, match="avi"):
        encoding_for("x.mp4", "avi", "auto")
    with pytest.raises(ValueError, match="vp9"):
        encoding_for("x.mp4", "auto", "vp9")
    with pytest.raises(ValueError, match="WebM file cannot hold H264"):
        encoding_for("x.webm", "auto", "h264")
    chosen = encoding_for("x.mp4", Types.VideoContainer.AUTO, Types.VideoCodec.H264)
    assert chosen.open_arguments("x.mp4")["options"]["movflags"].endswith("+faststart")
    assert encoding_for(bytes_io.BytesIO(), "auto", "auto").open_arguments(bytes_io.BytesIO()) == {
        "mode": "w", "options": {"movflags": "use_metadata_tags"}, "format": "mp4",
    }  # fmt: skip


def test_copying_chooses_one_format_for_streams_and_leaves_paths_alone():
    assert container_to_output_format("mov,mp4") == "mov" and container_to_output_format("") is None
    assert "format" not in get_open_write_kwargs("a.mkv", "matroska,webm", Types.VideoContainer.AUTO)
    assert "options" not in get_open_write_kwargs("a.mkv", "x", "auto")
    assert get_open_write_kwargs("a.mov", "x", "auto")["options"]["movflags"] == "use_metadata_tags+faststart"
    assert get_open_write_kwargs(bytes_io.BytesIO(), "avi", Types.VideoContainer.MKV)["format"] == "matroska"
    assert get_open_write_kwargs(bytes_io.BytesIO(), "MOV,mp4", Types.VideoContainer.AUTO)["format"] == "mov"
    assert get_open_write_kwargs(bytes_io.BytesIO(), "avi", Types.VideoContainer.MP4)["format"] == "mp4"


def test_names_for_combos_and_files():
    assert Types.VideoCodec.as_input() == ["auto", "h264", "av1"]
    assert Types.VideoContainer.as_input() == ["auto", "mp4", "mkv", "webm"]
    assert Types.VideoContainer.get_extension("webm") == "webm" and Types.VideoContainer.get_extension("mkv") == "mkv"
    assert Types.VideoContainer.get_extension("auto") == Types.VideoContainer.get_extension(Types.VideoContainer.MP4) == "mp4"


def test_without_pyav_the_error_names_what_to_install():
    code = (
        "import sys\nsys.modules['av'] = None\nfrom comfy_api.latest import InputImpl\n"
        "try:\n    InputImpl.VideoFromFile('x.mp4').get_dimensions()\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install av" in done.stdout, done.stderr
