"""Runs the nodes for sound of the ``comfy_extras`` that Python finds, and saves their results.

    python audio_node_runs.py RESULTS_FILE

It uses only what ComfyUI has, so that it runs with a checkout of it as well. The file holds a dict of tensors by case, or the error's type.
"""

import asyncio
import json
import sys
import tempfile
import types

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import folder_paths  # noqa: E402
from comfy_extras import nodes_audio  # noqa: E402


def sound(channels, samples, rate_hz, seed, batch=1):
    """Noise on the grid of 16-bit samples."""
    numbers = torch.rand(batch, channels, samples, generator=torch.Generator().manual_seed(seed)) - 0.5
    return {"waveform": (numbers * 32768).round() / 32768, "sample_rate": rate_hz}


def flat(audio):
    """The rate, the shape and the samples, as one tensor."""
    waveform = audio["waveform"]
    return torch.cat([torch.tensor([float(audio["sample_rate"]), *waveform.shape]), waveform.float().flatten()])


def saved(node, audio, *more):
    """What *node* writes, read again, with the file's name and what the page is told."""
    node = type("Saving", (node,), {"hidden": types.SimpleNamespace(prompt={"1": "x"}, extra_pnginfo={"workflow": [1, 2]})})
    with tempfile.TemporaryDirectory() as folder:
        folder_paths.output_directory = folder_paths.input_directory = folder
        shown = node.execute(audio, "audio/x", *more).ui.as_dict()
        name = f"{shown['audio'][0]['subfolder']}/{shown['audio'][0]['filename']}"
        return flat(nodes_audio.LoadAudio.execute(name).args[0]), json.dumps(shown)


def cases():
    """(name, function) of every case."""
    one, two, mono = sound(2, 3000, 44100, 1), sound(2, 2000, 44100, 2), sound(1, 2500, 44100, 3)
    for rates in ((8000, 44100), (44100, 48000), (48000, 16000), (22050, 44100), (11025, 12345), (192000, 8000)):
        for channels in (1, 2):

            def raised(rates=rates, channels=channels):
                first, second = sound(channels, 1500, rates[0], 1), sound(channels, 1234, rates[1], 2)
                return flat(nodes_audio.AudioConcat.execute(first, second, "after").args[0])

            yield f"rates {rates} {channels}", raised
    for direction in ("after", "before"):
        yield f"concat {direction}", lambda direction=direction: flat(nodes_audio.AudioConcat.execute(one, mono, direction).args[0])
    for method in ("add", "mean", "subtract", "multiply"):
        for which, first, second in (("shorter", one, two), ("longer", two, one), ("mono", one, mono)):
            yield (
                f"merge {method} {which}",
                lambda first=first, second=second, method=method: flat(nodes_audio.AudioMerge.execute(first, second, method).args[0]),
            )
    for start, duration in ((0.0, 0.01), (-0.02, 0.005), (0.01, 99.0), (-9.0, 0.03), (5.0, 1.0)):
        yield (
            f"trim {start} {duration}",
            lambda start=start, duration=duration: flat(nodes_audio.TrimAudioDuration.execute(one, start, duration).args[0]),
        )
    yield "volume", lambda: flat(nodes_audio.AudioAdjustVolume.execute(one, -7).args[0])
    yield "empty", lambda: flat(nodes_audio.EmptyAudio.execute(0.123, 22050, 2).args[0])
    yield "left", lambda: flat(nodes_audio.SplitAudioChannels.execute(one).args[0])
    yield "joined", lambda: flat(nodes_audio.JoinAudioChannels.execute(mono, sound(1, 999, 44100, 4)).args[0])
    for rate_hz in (32000, 44100, 96000):
        for low, mid, high, quality in ((6.0, 0.0, 0.0, 1.0), (0.0, -12.0, 0.0, 5.0), (0.0, 0.0, 9.0, 1.0), (-24.0, 3.0, 24.0, 0.1)):

            def filtered(rate_hz=rate_hz, low=low, mid=mid, high=high, quality=quality):
                bands = {"low_freq": 100, "mid_freq": 1200, "high_freq": 6000, "mid_q": quality}
                gains = {"low_gain_dB": low, "mid_gain_dB": mid, "high_gain_dB": high}
                return flat(nodes_audio.AudioEqualizer3Band.execute(sound(2, 2000, rate_hz, 5), **bands, **gains).args[0])

            yield f"bands {rate_hz} {low} {mid} {high}", filtered
    for seconds in (1.0, 47.6, 123.4):
        yield f"latent {seconds}", lambda seconds=seconds: nodes_audio.EmptyLatentAudio.execute(seconds, 1).args[0]["samples"]
    long = sound(2, 60000, 44100, 6)
    for chosen in ({"format": "flac"}, {"format": "mp3", "quality": "V0"}, {"format": "mp3", "quality": "320k"}):
        name = f"saved {' '.join(chosen.values())}"
        yield name, lambda chosen=chosen: saved(nodes_audio.SaveAudioAdvanced, long, chosen)[0]
        yield f"{name}, told", lambda chosen=chosen: saved(nodes_audio.SaveAudioAdvanced, long, chosen)[1]
    opus = {"format": "opus", "quality": "96k"}
    yield "saved opus", lambda: saved(nodes_audio.SaveAudioAdvanced, sound(2, 48000, 48000, 7), opus)[0]
    yield "description", lambda: json.dumps(descriptions(), sort_keys=True)


def descriptions():
    """What the page is told of every node but those for autoencoders, without texts of our own wording."""
    entry = nodes_audio.comfy_entrypoint()
    extension = asyncio.run(entry) if asyncio.iscoroutine(entry) else entry
    told = {}
    for node in asyncio.run(extension.get_node_list()):
        info = node.GET_NODE_INFO_V1()
        info["display_name"] = info["display_name"] or info["name"]
        if not info["name"].startswith("VAE"):
            told[info["name"]] = {key: without_texts(value) for key, value in info.items() if key not in ("description", "python_module")}
    return told


def without_texts(value):
    """*value* without the explanations of inputs."""
    if isinstance(value, dict):
        return {key: without_texts(item) for key, item in value.items() if key != "tooltip"}
    return [without_texts(item) for item in value] if isinstance(value, list | tuple) else value


def main():
    """Run all cases."""
    folder_paths.input_directory = tempfile.gettempdir()
    results = {}
    for name, run in cases():
        try:
            results[name] = run()
        except Exception as error:
            results[name] = type(error).__name__
    torch.save(results, sys.argv[1])


if __name__ == "__main__":
    with torch.inference_mode():
        main()
