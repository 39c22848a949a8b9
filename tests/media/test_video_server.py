"""A running server that takes a video in, cuts it, and gives one back that plays."""

import io
from fractions import Fraction

import pytest
import torch

from comfy_api.latest import InputImpl, Types

av = pytest.importorskip("av")
FPS, FRAMES = 10, 20


@pytest.fixture(scope="module")
def clip(server):
    images_FHWC = torch.linspace(0.1, 0.9, FRAMES).view(-1, 1, 1, 1).repeat(1, 48, 64, 3)
    audio = {"waveform": 0.3 * torch.sin(torch.arange(32000) / 6.0).repeat(1, 2, 1), "sample_rate": 16000}
    parts = Types.VideoComponents(images=images_FHWC, frame_rate=Fraction(FPS), audio=audio)
    InputImpl.VideoFromComponents(parts).save_to(str(server.base / "input" / "clip.mp4"))
    return images_FHWC


def test_a_video_is_taken_apart_put_together_and_cut(server, clip):
    prompt = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": ["2", 2], "audio": ["2", 1]}},
        "4": {"class_type": "Video Slice", "inputs": {"video": ["3", 0], "start_time": 1.0, "duration": 0.5, "strict_duration": False}},
        "5": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["4", 0], "filename_prefix": "video/cut", "format": "auto", "format.codec": "auto"},
        },
    }
    run = server.run(prompt, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    assert run.history["status"]["status_str"] == "success"
    assert run.files == [{"filename": "cut_00001_.mp4", "subfolder": "video", "type": "output"}]
    with av.open(io.BytesIO(run.file_bytes())) as container:
        stream = container.streams.video[0]
        levels = [frame.to_ndarray(format="rgb24").mean() / 255 for frame in container.decode(stream)]
        assert stream.average_rate == FPS and float(stream.duration * stream.time_base) == pytest.approx(0.5, abs=0.01)
        assert len(container.streams.audio) == 1 and container.metadata["workflow"] == '{"id": "w"}'
        assert '"Video Slice"' in container.metadata["prompt"]
    assert levels == pytest.approx(clip[10:15, 0, 0, 0].tolist(), abs=0.02)


def test_what_is_no_video_is_told_by_its_name(server, clip):
    (server.base / "input" / "broken.mp4").write_bytes(b"no video")
    prompt = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "broken.mp4"}},
        "2": {"class_type": "SaveVideo", "inputs": {"video": ["1", 0], "filename_prefix": "x", "format": "auto", "format.codec": "auto"}},
    }
    (error,) = server.run(prompt).of_type("execution_error")
    assert error["node_id"] == "1" and "broken.mp4 could not be read as a video" in error["exception_message"]
