"""A running server with text encoders of several files: what prompts become, where the models came from, and wrong pairs."""

import json

import pytest
import safetensors.torch
from live_server import Client
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from text_encoder_files import CLIP_WIDTH, T5_WIDTH, text_model, write_tokenizer
from transformer_files import qwen_text_tensors

PACK = '''
import json


class ReportConditioning:
    """Shows the shapes and sums of conditioning."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "report", "test", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def report(self, conditioning):
        (states, extras), = conditioning
        pooled = extras["pooled_output"]
        return {"ui": {"text": [json.dumps([list(states.shape), list(pooled.shape), states.double().sum().item()])]}}


NODE_CLASS_MAPPINGS = {"ReportConditioning": ReportConditioning}
'''
KINDS = ("clip_l", "clip_g", "t5xxl", "umt5xxl")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of text encoders and the tokenizer of T5."""
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        safetensors.torch.save_file(text_model(kind, vocabulary=4096), folder / f"{kind}.safetensors")
    write_tokenizer(folder / "t5")
    writing = qwen_text_tensors(vocabulary=VOCABULARY, width=32, layers=2, eyes=False, normalised=True)
    writing["model.embed_tokens.weight"][256:] = 0.0  # the tokenizer knows bytes, and hardly another token that would be text
    writing["model.norm.weight"] *= 0.2  # of forty tokens none is much likelier than another
    safetensors.torch.save_file(writing, folder / "qwen3.safetensors")
    (folder / "qwen25_tokenizer").mkdir()
    (folder / "qwen25_tokenizer" / "tokenizer.json").write_text(qwen_tokenizer_json(), encoding="utf-8")
    return folder


@pytest.fixture
def start(start_server, models, tmp_path):
    """Starts servers that have them."""

    def started(*flags, name):
        base = tmp_path / name
        (base / "custom_nodes").mkdir(parents=True)
        (base / "custom_nodes" / "report.py").write_text(PACK)
        (base / "models").mkdir()
        (base / "models" / "text_encoders").symlink_to(models)
        return start_server("--offline", "--cache-none", *flags, name=name)

    return started


def prompt(text, *files, kind="flux"):
    names = {f"clip_name{number}": f"{name}.safetensors" for number, name in enumerate(files, 1)}
    return {
        "1": {"class_type": "DualCLIPLoader", "inputs": {**names, "type": kind}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 0], "text": text}},
        "3": {"class_type": "ReportConditioning", "inputs": {"conditioning": ["2", 0]}},
    }


def reported(run):
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    return json.loads(run.history["outputs"]["3"]["text"][0])


def test_flux_is_read_once_and_gives_the_same_on_an_accelerator(start):
    server = start("--ram-model-cache-mb", "1000", name="plain")
    first = server.run(prompt("a (red:1.3) apple", "clip_l", "t5xxl"), timeout_s=110)
    expected = reported(first)
    assert expected[:2] == [[1, 256, T5_WIDTH], [1, CLIP_WIDTH]]
    assert [receipt["tier"] for receipt in first.history["models"]] == ["disk"]
    assert all(f"{name}.safetensors" in json.dumps(first.history["models"]) for name in ("clip_l", "t5xxl"))
    again = server.run(prompt("a (red:1.3) apple", "clip_l", "t5xxl"), timeout_s=110)
    assert reported(again) == expected and "disk" not in [receipt["tier"] for receipt in again.history["models"]]
    accelerator = start("--simulated-vram-mb", "64", "--no-ram-model-cache", name="accelerator")
    assert reported(accelerator.run(prompt("a (red:1.3) apple", "t5xxl", "clip_l"), timeout_s=110)) == expected


def test_a_wrong_pair_is_one_error_that_names_both_files(start):
    server = start(name="wrong")
    status = server.run(prompt("a", "clip_g", "umt5xxl"), timeout_s=110).history["status"]
    assert status["status_str"] == "error"
    message = next(data["exception_message"] for kind, data in status["messages"] if kind == "execution_error")
    assert "clip_g.safetensors (CLIP-G)" in message and "umt5xxl.safetensors (UMT5)" in message and "CLIP-L + T5 v1.1" in message
    types = server.get("/object_info/DualCLIPLoader")["DualCLIPLoader"]["input"]["required"]["type"][0]
    assert "flux" in types and "hunyuan_video" in types and "newbie" not in types
    refused, answer = server.post("/prompt", {"prompt": prompt("a", "clip_l", "t5xxl", kind="newbie")})
    assert refused == 400 and "newbie" in json.dumps(answer)


def writing(length, seed=1):
    """A prompt that has Qwen 3 write *length* tokens at most."""
    options = {"temperature": 2.0, "top_k": 40, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": seed}
    sampling = {"sampling_mode": "on", **{f"sampling_mode.{name}": value for name, value in options.items()}}
    return {
        "1": {"class_type": "CLIPLoader", "inputs": {"clip_name": "qwen3.safetensors", "type": "lumina2"}},
        "2": {"class_type": "TextGenerate", "inputs": {"clip": ["1", 0], "prompt": "rain", "max_length": length, **sampling}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }


def test_a_language_model_writes_the_same_for_a_seed_and_is_interrupted(start):
    server = start(name="writing")
    runs = [server.run(writing(8, seed), timeout_s=110).history for seed in (1, 1, 2)]
    assert [run["status"]["status_str"] for run in runs] == ["success"] * 3, runs[0]["status"]["messages"][-1][1]["exception_message"]
    told = [run["outputs"]["3"]["text"] for run in runs]
    assert told[0] == told[1] != told[2]
    client = Client(server)
    status, answer = server.post("/prompt", {"prompt": writing(4000), "client_id": client.client_id})
    assert status == 200, answer
    is_asked = False
    for message in client.messages():
        if not isinstance(message, dict):
            continue
        if not is_asked and message["type"] in ("progress", "progress_state"):
            is_asked = server.post("/interrupt", {})[0] == 200
        if message["type"] == "execution_interrupted":
            break
    client.close()
    assert is_asked
