"""From the history of prompts to a preload config: what counts as used, in which order, and what fits."""

import json
import threading
from types import SimpleNamespace

import pytest

from custom_nodes.keepwarm.preload.config import parse_config
from custom_nodes.keepwarm.preload.saved_config import SavedConfig
from custom_nodes.keepwarm.preload.usage import UsageLog, as_document


def loader(**inputs):
    """A stand-in for a loader node."""
    return type("Loader", (), {"INPUT_TYPES": classmethod(lambda cls: {"required": inputs})})


CLASSES = {
    "CheckpointLoaderSimple": loader(ckpt_name=(["a", "b", "gone"],)),
    "DualCLIPLoader": loader(clip_name1=(["l", "g"],), clip_name2=(["l", "g"],), type=(["sdxl", "flux"],)),
    "VAELoader": loader(vae_name=(["v", "pixel_space"],)),
    "UNETLoader": loader(unet_name=(["u"],), weight_dtype=(["default", "fp8_e4m3fn"],)),
}
SIZES = {"a": 100, "b": 300, "l": 10, "g": 20, "v": 5, "u": 50}


class Queue:
    """The part of a prompt queue that is looked at."""

    def __init__(self):
        self.mutex, self.history = threading.RLock(), {}

    def ran(self, *nodes, receipts=None):
        """A prompt of (class, inputs) pairs has ended."""
        prompt = {str(number): {"class_type": name, "inputs": inputs} for number, (name, inputs) in enumerate(nodes)}
        entry = {"prompt": (0, "id", prompt, {}, [])}
        if receipts is not None:
            entry["models"] = [{"model": model, "seconds": seconds} for model, seconds in receipts]
        self.history[f"id{len(self.history)}"] = entry


@pytest.fixture
def queue():
    return Queue()


@pytest.fixture
def usage(queue, tmp_path):
    for name, size in SIZES.items():
        (tmp_path / name).write_bytes(bytes(size))
    folders = SimpleNamespace(get_full_path=lambda kind, name: str(tmp_path / name) if name != "pixel_space" else None)
    preloaded = parse_config({"models": {"vaes": [{"vae_name": "v", "cache_key": "my vae"}]}}).models[0]
    return UsageLog(queue, CLASSES, folders, lambda key: preloaded if key == "my vae" else None)


def named(usage):
    return [(use.wanted.files, use.times, round(use.seconds, 3)) for use in usage.uses()]


def test_receipts_tell_the_time_and_each_prompt_counts_once(queue, usage):
    checkpoint = ("CheckpointLoaderSimple", {"ckpt_name": "a"})
    queue.ran(checkpoint, checkpoint, receipts=[("model of a", 2.0), ("clip of a", 1.0), ("model of other", 9.0)])
    queue.ran(("DualCLIPLoader", {"clip_name2": "g", "clip_name1": "l", "type": "sdxl"}), receipts=[("clip of l + g", 4.0)])
    assert usage.look() and not usage.look()
    queue.ran(checkpoint, receipts=[])
    assert usage.look()
    assert named(usage) == [(("l", "g"), 1, 4.0), (("a",), 2, 3.0)]


def test_without_receipts_sizes_stand_in_for_time(queue, usage):
    queue.ran(("CheckpointLoaderSimple", {"ckpt_name": "a"}), ("KeepwarmCheckpointLoader", {"name": "b"}))
    usage.look()
    assert [files for files, *_ in named(usage)] == [("b",), ("a",)]


def test_what_is_no_file_no_literal_or_not_known_does_not_count(queue, usage):
    queue.ran(
        ("VAELoader", {"vae_name": "pixel_space"}),
        ("VAELoader", {"vae_name": ["7", 0]}),
        ("DualCLIPLoader", {"clip_name1": "l", "clip_name2": ["7", 0], "type": "sdxl"}),
        ("UNETLoader", {"unet_name": "u", "weight_dtype": ["7", 0]}),
        ("CheckpointLoaderSimple", {"ckpt_name": "gone"}),
        ("KSampler", {"name": "a"}),
        ("KeepwarmPreloadedVAE", {"cache_key": "of another start"}),
    )
    usage.look()
    assert named(usage) == []


def test_the_document_is_a_config_and_says_what_does_not_fit(queue, usage):
    queue.ran(("CheckpointLoaderSimple", {"ckpt_name": "b"}), receipts=[("model of b", 5.0)])
    queue.ran(("UNETLoader", {"unet_name": "u", "weight_dtype": "fp8_e4m3fn"}), receipts=[("model of u", 1.0)])
    queue.ran(("CheckpointLoaderSimple", {"ckpt_name": "a"}), receipts=[("model of a", 3.0)])
    queue.ran(("KeepwarmPreloadedVAE", {"cache_key": "my vae"}), receipts=[("vae of v", 0.5)])
    queue.ran(("DualCLIPLoader", {"clip_name1": "l", "clip_name2": "g", "type": "flux"}), receipts=[])
    usage.look()
    document = as_document(usage.uses(), 360, {"auto_gpu_load": True, "verbose": False})
    assert [entry["name"] for entry in document["models"]["checkpoints"]] == ["b", "a"]
    assert document["models"]["checkpoints"][1]["enabled"] is False
    config = parse_config(document)
    assert config.problems == () and config.auto_gpu_load
    assert [(one.files, dict(one.options)) for one in config.models] == [
        (("b",), {}),
        (("u",), {"weight_dtype": "fp8_e4m3fn"}),
        (("v",), {}),
    ]
    assert config.models[2].cache_key == "my vae"
    assert len(parse_config(as_document(usage.uses(), None, {})).models) == 5


def test_the_file_is_written_after_use_only(queue, usage, tmp_path):
    path = tmp_path / "saved.json"
    path.write_text("as it was")
    saved = SavedConfig(str(path), usage, lambda: None, {"auto_gpu_load": False, "verbose": True})
    assert not saved.save() and path.read_text() == "as it was"
    queue.ran(("CheckpointLoaderSimple", {"ckpt_name": "a"}))
    assert saved.save() and not saved.save()
    assert parse_config(json.loads(path.read_text())).verbose
    assert [child.name for child in tmp_path.glob("*.part")] == []


def test_a_place_that_cannot_be_written_is_said(queue, usage, tmp_path, caplog):
    queue.ran(("CheckpointLoaderSimple", {"ckpt_name": "a"}))
    assert not SavedConfig(str(tmp_path / "no" / "saved.json"), usage, lambda: None, {}).save()
    assert "--save-preload-config" in caplog.text and "saved.json cannot be written" in caplog.text
