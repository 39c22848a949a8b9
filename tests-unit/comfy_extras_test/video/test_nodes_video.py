"""Nodes for videos, called by the executor: what is written, read again, cut, refused."""

import asyncio
import json
import os
import sys
from fractions import Fraction

import pytest
import torch
from executor_harness import Log, benches, make_node, node

import execution
import folder_paths
from comfy.cli_args import args
from comfy_api.latest import InputImpl, Types
from comfy_api.latest._input_impl import video_decode
from comfy_api.latest._input_impl.video_colours import SPACES, colour_space, space_of_stream
from comfy_api.latest._util.video_opening import open_video
from comfy_extras import nodes_video, webm_writing

av = pytest.importorskip("av")
NODES = {one.GET_SCHEMA().node_id: one for one in asyncio.run(asyncio.run(nodes_video.comfy_entrypoint()).get_node_list())}
FPS, FRAMES, WIDTH, HEIGHT = 8, 12, 64, 48
WORKFLOW = {"extra_pnginfo": {"workflow": {"nodes": [1]}}}


def pictures(channels=3, width=WIDTH, frames=FRAMES):
    """Frames of one level each, that grows; a fourth channel is transparent on the left."""
    images_FHWC = torch.linspace(0.1, 0.9, frames).view(-1, 1, 1, 1).repeat(1, HEIGHT, width, channels)
    if channels == 4:
        images_FHWC[..., 3] = (torch.arange(width) >= width // 2).float()
    return images_FHWC


def tone(seconds=FRAMES / FPS, rate_hz=16000):
    return {"waveform": 0.3 * torch.sin(torch.arange(int(seconds * rate_hz)) / 6.0).repeat(1, 2, 1), "sample_rate": rate_hz}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for kind in ("input", "output"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


@pytest.fixture
def bench(folders, monkeypatch):
    """A bench with the nodes, sources of images and sound, and a sink that keeps what it gets in ``seen``."""
    sources = {
        "Images": make_node(lambda self, channels: (pictures(channels),), {"channels": ("INT", {})}, returns=("IMAGE",)),
        "Tone": make_node(lambda self, seconds: (tone(seconds),), {"seconds": ("FLOAT", {})}, returns=("AUDIO",)),
    }
    maker = benches(monkeypatch, Log())
    seen = Log()
    made = next(maker)(**NODES, **sources, Keep=seen.sink())
    made.seen = seen
    yield made
    next(maker, None)


def saving(settings, channels=3, seconds=3.0, **creation):
    return {
        "1": node("Images", channels=channels),
        "2": node("Tone", seconds=seconds),
        "3": node("CreateVideo", images=("1", 0), audio=("2", 0), fps=float(FPS), **creation),
        "4": node("SaveVideo", video=("3", 0), filename_prefix="clips/take", **settings),
    }


def facts(path):
    """What PyAV says of a file: codec, pixel format, size, rate, frames, seconds of each track, tags."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        found = {
            "codec": stream.codec.canonical_name,
            "format": stream.pix_fmt,
            "size": (stream.width, stream.height),
            "rate": stream.average_rate,
            "frames": len(frames),
            "levels": [frame.to_ndarray(format="rgb24").mean() / 255 for frame in frames],
            "tags": {key.lower(): value for key, value in container.metadata.items()},
            "space": space_of_stream(stream),
        }
    with av.open(str(path)) as container:
        found["audio"] = [one.codec.canonical_name for one in container.streams.audio]
        if found["audio"]:
            found["audio_s"] = sum(frame.samples / frame.sample_rate for frame in container.decode(container.streams.audio[0]))
    return found


@pytest.mark.parametrize(
    ("settings", "file", "codec", "audio"),
    [
        ({"format": "auto", "format.codec": "auto"}, "take_00001_.mp4", "h264", "aac"),
        ({"format": "auto", "codec": "auto"}, "take_00001_.mp4", "h264", "aac"),
        ({"format": "mkv", "format.codec": "h264", "format.codec.encoding": "auto"}, "take_00001_.mkv", "h264", "aac"),
        ({"format": "webm", "format.codec": "auto"}, "take_00001_.webm", "av1", "opus"),
    ],
)
def test_a_saved_video_has_the_frames_rate_sound_and_workflow(bench, folders, settings, file, codec, audio):
    bench.run(saving(settings), **WORKFLOW)
    assert bench.outputs["4"]["images"] == [{"filename": file, "subfolder": "clips", "type": "output"}]
    assert list(bench.outputs["4"]["animated"]) == [True]
    found = facts(folders / "output" / "clips" / file)
    assert (found["codec"], found["size"], found["rate"], found["frames"]) == (codec, (WIDTH, HEIGHT), FPS, FRAMES)
    assert found["levels"] == pytest.approx(pictures()[:, 0, 0, 0].tolist(), abs=0.02)
    assert found["audio"] == [audio] and found["audio_s"] == pytest.approx(FRAMES / FPS, abs=0.1)
    assert json.loads(found["tags"]["workflow"]) == {"nodes": [1]}
    assert found["space"] == SPACES["sRGB"]


def test_file_numbers_go_on_and_the_video_is_passed_on(bench, folders):
    prompt = saving({"format": "mp4", "format.codec": "h264", "format.codec.encoding": "auto"})
    prompt["5"] = node("Keep", value=("4", 0))
    for _ in range(2):
        bench.run(prompt)
        prompt["3"]["inputs"]["fps"] += 1
    assert sorted(os.listdir(folders / "output" / "clips")) == ["take_00001_.mp4", "take_00002_.mp4"]
    assert bench.seen[0].get_frame_count() == FRAMES


@pytest.mark.parametrize("settings", [{"format": "mp4", "codec": "h264"}, {"format": "auto", "format.codec": "auto"}])
def test_prompts_of_older_and_newer_pages_are_accepted(bench, settings):
    accepted, error, outputs, _ = asyncio.run(execution.validate_prompt("x", saving(settings), None))
    assert accepted and outputs == ["4"], error


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "avi"},
        {"format": "webm", "format.codec": "h264"},
        {"format": "mp4", "format.codec": "h264", "format.codec.encoding": "x"},
    ],
)
def test_formats_and_codecs_that_are_not_offered_are_refused(bench, settings):
    accepted, _, _, errors = asyncio.run(execution.validate_prompt("x", saving(settings), None))
    assert not accepted and list(errors) == ["4"]


def test_settings_of_re_encoding_reach_the_encoder(bench, folders):
    chosen = {"format": "mp4", "format.codec": "h264", "format.codec.encoding": "re-encode"}
    values = {"format.codec.encoding.crf": 5.0, "format.codec.encoding.color_space": "HDR"}
    bench.run(saving({**chosen, **values}))
    found = facts(folders / "output" / "clips" / "take_00001_.mp4")
    assert found["space"] == SPACES["HDR"] and found["format"] == "yuv420p10le"
    bench.run(saving({"format": "auto", "format.codec": "auto"}, bit_depth=10))
    assert facts(folders / "output" / "clips" / "take_00002_.mp4")["format"] == "yuv420p10le"


@pytest.mark.parametrize(
    ("bit_depth", "space", "pixels"),
    [("auto", "sRGB", "yuv420p"), ("auto", "HDR", "yuv420p10le"), (10, "sRGB", "yuv420p10le"), (8, "HDR PQ", "yuv420p")],
)
def test_bits_and_colour_space_of_a_created_video_are_what_is_saved(bench, folders, bit_depth, space, pixels):
    prompt = saving({"format": "auto", "format.codec": "auto"}, bit_depth=bit_depth, color_space=space) | {
        "5": node("Keep", value=("3", 0))
    }
    assert asyncio.run(execution.validate_prompt("x", prompt, None))[0]
    bench.run(prompt)
    found = facts(folders / "output" / "clips" / "take_00001_.mp4")
    assert (found["format"], found["space"]) == (pixels, SPACES[space])
    assert (bench.seen[0].get_bit_depth(), bench.seen[0].get_color_space()) == (8 if pixels == "yuv420p" else 10, space)


def test_ten_bits_keep_levels_that_eight_cannot_tell_apart(bench, folders, monkeypatch):
    ramp_FHWC = torch.linspace(0.4, 0.45, WIDTH).view(1, 1, WIDTH, 1).repeat(2, HEIGHT, 1, 3)
    monkeypatch.setattr(sys.modules[__name__], "pictures", lambda channels: ramp_FHWC)
    levels = {}
    for number, bits in enumerate((8, 10), 1):
        coding = {"format.codec.encoding": "re-encode", "format.codec.encoding.crf": 0.0, "format.codec.encoding.color_space": "auto"}
        bench.run(saving({"format": "mp4", "format.codec": "h264", **coding}, bit_depth=bits))
        with av.open(str(folders / "output" / "clips" / f"take_{number:05}_.mp4")) as container:
            frame = next(container.decode(container.streams.video[0]))
            levels[bits] = len(set(frame.to_ndarray(format="gray16le")[0].tolist()))
    assert levels[10] > 2 * levels[8]


def test_bits_of_a_loaded_video_go_into_created_ones_and_into_numbers(bench, folders):
    prompt = loaded(folders, bit_depth=10) | {"2": node("GetVideoComponents", video=("1", 0))}
    prompt["3"] = node("CreateVideo", images=("2", 0), fps=8.0, bit_depth=("2", 3), color_space=("2", 4))
    prompt["4"] = node("Keep", value=("3", 0))
    prompt["5"] = node("Images", channels=("2", 3))
    prompt["6"] = node("Keep", value=("5", 0))
    accepted, error, _, _ = asyncio.run(execution.validate_prompt("x", prompt, None))
    assert accepted, error
    bench.run({key: prompt[key] for key in "1234"})
    assert bench.seen[0].get_bit_depth() == 10


def test_no_tags_are_written_where_the_user_wants_none(bench, folders, monkeypatch):
    monkeypatch.setattr(args, "disable_metadata", True)
    bench.run(saving({"format": "auto", "format.codec": "auto"}), **WORKFLOW)
    assert "workflow" not in facts(folders / "output" / "clips" / "take_00001_.mp4")["tags"]


def loaded(folders, name="clip.mp4", **more):
    """A prompt's first node, which loads a video that this has written."""
    parts = Types.VideoComponents(images=pictures(), frame_rate=Fraction(FPS), audio=tone())
    InputImpl.VideoFromComponents(parts).save_to(str(folders / "input" / name), **more)
    return {"1": node("LoadVideo", file=name)}


def test_a_loaded_video_is_taken_apart_and_a_part_of_it_saved(bench, folders):
    prompt = loaded(folders)
    prompt["2"] = node("Video Slice", video=("1", 0), start_time=0.5, duration=0.5, strict_duration=True)
    prompt["3"] = node("SaveVideo", video=("2", 0), filename_prefix="part", format="auto", **{"format.codec": "auto"})
    prompt["4"] = node("GetVideoComponents", video=("1", 0))
    prompt |= {str(5 + socket): node("Keep", value=("4", socket)) for socket in range(5)}
    bench.run(prompt)
    kept = {type(value).__name__: value for value in bench.seen}
    assert kept["Tensor"].shape == (FRAMES, HEIGHT, WIDTH, 3) and kept["Tensor"].dtype == torch.float32
    assert (kept["Tensor"] - pictures()).abs().max() < 0.02
    assert kept["dict"]["sample_rate"] == 16000 and (kept["float"], kept["int"], kept["str"]) == (FPS, 8, "sRGB")
    part = facts(folders / "output" / "part_00001_.mp4")
    assert part["frames"] == 4 and part["levels"][0] == pytest.approx(pictures()[4, 0, 0, 0].item(), abs=0.02)
    assert part["audio_s"] == pytest.approx(0.5, abs=0.1)


def test_a_loaded_video_is_saved_without_encoding_it_again(bench, folders):
    prompt = loaded(folders) | {"2": node("SaveVideo", video=("1", 0), filename_prefix="same", format="auto", **{"format.codec": "auto"})}
    bench.run(prompt, **WORKFLOW)
    packets = []
    for path in (folders / "input" / "clip.mp4", folders / "output" / "same_00001_.mp4"):
        with av.open(str(path)) as container:
            packets.append([bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size])
    assert packets[0] == packets[1]
    assert json.loads(facts(folders / "output" / "same_00001_.mp4")["tags"]["workflow"]) == {"nodes": [1]}


def test_a_loaded_video_changes_its_codec_with_its_sound(bench, folders):
    chosen = {"format": "webm", "format.codec": "av1", "format.codec.encoding": "auto"}
    bench.run(loaded(folders) | {"2": node("SaveVideo", video=("1", 0), filename_prefix="other", **chosen)})
    found = facts(folders / "output" / "other_00001_.webm")
    assert (found["codec"], found["frames"], found["audio"]) == ("av1", FRAMES, ["opus"])
    assert found["audio_s"] == pytest.approx(FRAMES / FPS, abs=0.1)
    assert found["levels"] == pytest.approx(pictures()[:, 0, 0, 0].tolist(), abs=0.02)


def test_a_video_of_another_colour_space_is_not_relabelled(folders, tmp_path):
    loaded(folders, color_space="HDR PQ")
    video = InputImpl.VideoFromFile(str(folders / "input" / "clip.mp4"))
    assert video.get_color_space() == "HDR PQ" and video.get_bit_depth() == 10
    with pytest.raises(ValueError, match="choose auto or HDR PQ"):
        video.save_to(str(tmp_path / "x.mp4"), color_space="sRGB")
    video.save_to(str(tmp_path / "again.mp4"), crf=30)
    assert facts(tmp_path / "again.mp4")["space"] == SPACES["HDR PQ"]
    with pytest.raises(ValueError, match="choose one of sRGB"):
        colour_space("P3")


def test_slices_that_cannot_be_are_errors_only_when_strict(bench, folders):
    prompt = loaded(folders)
    prompt["2"] = node("Video Slice", video=("1", 0), start_time=1.0, duration=5.0, strict_duration=True)
    prompt["3"] = node("Keep", value=("2", 0))
    bench.run(prompt)
    assert "too short for 5.000 s from 1.000 s on" in bench.error()["exception_message"]
    prompt["2"]["inputs"]["strict_duration"] = False
    bench.run(prompt)
    assert bench.seen[-1].get_duration() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("codec", "kept"), [("vp9", True), ("av1", False)])
def test_webm_keeps_transparency_where_the_codec_can(bench, folders, caplog, codec, kept):
    prompt = {
        "1": node("Images", channels=4),
        "2": node("SaveWEBM", images=("1", 0), filename_prefix="web", codec=codec, fps=12.5, crf=32.0),
    }
    bench.run(prompt, **WORKFLOW)
    assert bench.outputs["2"]["images"] == [{"filename": "web_00001_.webm", "subfolder": "", "type": "output"}]
    with av.open(str(folders / "output" / "web_00001_.webm")) as container:
        stream = container.streams.video[0]
        assert (stream.codec.canonical_name, stream.average_rate) == (codec, Fraction(25, 2))
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == ("1" if kept else None)
        assert len(list(container.decode(stream))) == FRAMES
    assert json.loads(tags["workflow"]) == {"nodes": [1]}
    assert ("transparency of the images is not saved" in caplog.text) is not kept


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.mp4", None, "No such file"),
        ("broken.mp4", b"no video at all", "could not be read as a video"),
        ("list.mp4", b"ffconcat version 1.0\nfile clip.mp4\n", "could not be read as a video"),
        ("../clip.mp4", None, "leads out of"),
        ("folder.mp4", "folder", "is not a regular file"),
    ],
)
def test_what_is_no_video_is_an_error_that_names_it(bench, folders, name, content, told):
    prompt = loaded(folders) | {"1": node("LoadVideo", file=name), "2": node("Keep", value=("1", 0))}
    if isinstance(content, bytes):
        (folders / "input" / name).write_bytes(content)
    elif content:
        (folders / "input" / name).mkdir()
    bench.run(prompt)
    message = bench.error()["exception_message"]
    assert told in message and name in message
    exists = content is not None
    assert (NODES["LoadVideo"].validate_inputs(name) is True) is exists


def test_sound_alone_is_no_video(bench, folders):
    loaded(folders)
    with av.open(str(folders / "input" / "clip.mp4")) as source, av.open(str(folders / "input" / "sound.mp4"), "w") as output:
        copy = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = copy
                output.mux(packet)
    bench.run({"1": node("LoadVideo", file="sound.mp4"), "2": node("Keep", value=("1", 0))})
    assert "sound.mp4 holds no video" in bench.error()["exception_message"]


def test_a_changed_file_is_loaded_again_and_the_same_one_is_not(bench, folders):
    prompt = loaded(folders) | {"2": node("Keep", value=("1", 0))}
    bench.run(prompt)
    bench.run(prompt)
    assert len(bench.seen) == 1
    loaded(folders, crf=40)
    bench.run(prompt)
    assert len(bench.seen) == 2


def test_the_list_holds_the_videos_of_the_input_folder(folders):
    loaded(folders)
    (folders / "input" / "picture.png").write_bytes(b"")
    (folders / "input" / "a.webm").write_bytes(b"")
    declared = NODES["LoadVideo"].INPUT_TYPES()["required"]["file"][1]
    assert declared["options"] == ["a.webm", "clip.mp4"] and declared["video_upload"] is True


def test_frames_that_do_not_fit_into_free_memory_are_refused_before_they_are_decoded(folders, monkeypatch):
    loaded(folders)
    video = InputImpl.VideoFromFile(str(folders / "input" / "clip.mp4"))
    monkeypatch.setattr(video_decode.HostMemory, "available_bytes", lambda self: FRAMES * WIDTH * HEIGHT * 3 * 4)
    with pytest.raises(ValueError, match=r"12 frames of 64x48 pixels of .*clip\.mp4.*trim the video"):
        video.get_components()
    assert len(video.as_trimmed(0.0, 0.5).get_components().images) == 4


def test_more_frames_than_the_header_says_are_taken_as_well(folders, monkeypatch):
    loaded(folders)
    monkeypatch.setattr(video_decode, "_expected_frames", lambda *arguments: 2)
    images = InputImpl.VideoFromFile(str(folders / "input" / "clip.mp4")).get_components().images
    assert (images - pictures()).abs().max() < 0.02 and images.shape[0] == FRAMES


class Endless:
    """Frames that ask the run to stop once some of them were taken."""

    shape = (1000, HEIGHT, WIDTH, 3)

    def __init__(self, flag):
        self.flag = flag

    def __iter__(self):
        for number in range(self.shape[0]):
            assert number < 10, "the encoder did not stop"
            if number == 3:
                self.flag.set()
            yield pictures(frames=1)[0]


def test_saving_stops_when_asked_and_leaves_no_file(folders):
    from comfy.interruption import InterruptProcessingException, interrupt_flag

    parts = Types.VideoComponents(images=Endless(interrupt_flag), frame_rate=Fraction(FPS))
    writers = (
        lambda: InputImpl.VideoFromComponents(parts).save_to(str(folders / "output" / "a.mp4")),
        lambda: webm_writing.write_webm(str(folders / "output" / "a.webm"), parts.images, "vp9", 8, 32, {}),
    )
    for write in writers:
        with pytest.raises(InterruptProcessingException):
            write()
    assert not os.listdir(folders / "output")


def test_playlists_are_not_followed(tmp_path):
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    parts = Types.VideoComponents(images=pictures(), frame_rate=Fraction(FPS))
    InputImpl.VideoFromComponents(parts).save_to(str(tmp_path / "other.mp4"))
    with av.open(str(tmp_path / "list.mp4")) as followed:
        assert followed.format.name == "concat"
    with pytest.raises((OSError, ValueError), match="list.mp4"):
        open_video(str(tmp_path / "list.mp4"))
