"""A running server that reads, edits and writes sound: what HTTP clients get."""

import io
import json

import pytest
import torch

av = pytest.importorskip("av", reason="sound files are read and written by PyAV: pip install av")

RATE_HZ = 16000


def write_tone(path):
    """A second of stereo in a WAV file, and its samples."""
    tone = (torch.sin(torch.arange(RATE_HZ) * torch.tensor([[0.1], [0.2]])) * 8000).to(torch.int16)
    with av.open(str(path), "w", format="wav") as output:
        stream = output.add_stream("pcm_s16le", rate=RATE_HZ, layout="stereo")
        frame = av.AudioFrame.from_ndarray(tone.numpy(), format="s16p", layout="stereo")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return tone.float() / 32768


def prompt(name, **saving):
    return {
        "1": {"class_type": "LoadAudio", "inputs": {"audio": name}},
        "2": {"class_type": "TrimAudioDuration", "inputs": {"audio": ["1", 0], "start_index": 0.25, "duration": 0.5}},
        "3": {"class_type": "PreviewAudio", "inputs": {"audio": ["2", 0]}},
        "4": {"class_type": "SaveAudioAdvanced", "inputs": {"audio": ["2", 0], "filename_prefix": "audio/piece", **saving}},
    }


def read(data):
    """Samples, rate, codec and tags of a file's bytes."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        tags = {key.lower(): text for key, text in (container.metadata | stream.metadata).items()}
        resampler = av.AudioResampler(format="fltp")
        frames = [piece.to_ndarray() for frame in container.decode(stream) for piece in resampler.resample(frame)]
        return torch.cat([torch.from_numpy(frame) for frame in frames], dim=1), stream.rate, stream.codec_context.name, tags


def test_sound_goes_in_and_comes_out(server):
    tone = write_tone(server.base / "input" / "tone.wav")
    options = server.get("/object_info/LoadAudio")["LoadAudio"]["input"]["required"]["audio"][1]
    assert "tone.wav" in options["options"] and options["audio_upload"] is True
    sent = prompt("tone.wav", format="flac")
    first = server.run(sent, timeout_s=110)
    assert first.history["status"]["status_str"] == "success", first.history["status"]
    assert first.history["outputs"].keys() == {"3", "4"} and all(output.keys() == {"audio"} for output in first.history["outputs"].values())
    assert first.history["outputs"]["4"]["audio"] == [{"filename": "piece_00001.flac", "subfolder": "audio", "type": "output"}]
    for number in range(2):
        samples, rate_hz, codec, tags = read(first.file_bytes(number))
        assert (rate_hz, codec) == (RATE_HZ, "flac") and torch.equal(samples, tone[:, RATE_HZ // 4 : 3 * RATE_HZ // 4])
        assert json.loads(tags["prompt"]).keys() == sent.keys()
    assert "1" not in server.run(sent).executed, "the same file is not read twice"
    smaller = server.run(prompt("tone.wav", **{"format": "opus", "format.quality": "64k"}), timeout_s=110)
    (opus,) = smaller.history["outputs"]["4"]["audio"]
    samples, rate_hz, codec, _ = read((server.base / "output" / "audio" / opus["filename"]).read_bytes())
    assert opus["filename"].endswith(".opus") and codec.endswith("opus") and samples.shape[1] / rate_hz == pytest.approx(0.5, abs=0.05)
    write_tone(server.base / "input" / "tone.wav")
    (server.base / "input" / "tone.wav").open("ab").write(bytes(4))
    assert "1" in server.run(sent).executed, "a changed file is read again"


def test_files_that_are_damaged_or_elsewhere_are_one_error(server):
    (server.base / "input" / "bad.wav").write_bytes(b"RIFF" + bytes(100))
    status = server.run(prompt("bad.wav", format="flac"), timeout_s=110).history["status"]
    message = next(data["exception_message"] for kind, data in status["messages"] if kind == "execution_error")
    assert "bad.wav could not be read as sound" in message
    for name in ("gone.wav", "../server.log"):
        code, answer = server.post("/prompt", {"prompt": prompt(name, format="flac")})
        assert code == 400 and f"Invalid audio file: {name}" in json.dumps(answer["node_errors"]["1"])
