"""Text from language models: which token is next, when it ends, and that what is remembered changes nothing."""

import pytest
import torch
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from text_encoder_files import text_model
from transformer_files import qwen_text_tensors

import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.utils
from comfy.cli_args import args
from comfy.families.weight_source import StateDictSource
from comfy.text.gemma3 import Gemma3TextConfig, Gemma3TextModel
from comfy.text.generation import Sampling, generate, next_token
from comfy.text.kinds import recognise
from comfy.text.qwen.network import QwenTextModel
from comfy_extras import nodes_textgen

LIKELIEST = Sampling(do_sample=False)
ON = {"sampling_mode": "on", "temperature": 0.7, "top_k": 64, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.05, "seed": 3}


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(args, "offline", True)
    with torch.inference_mode():
        yield


def drawn(logits, said=(), **options):
    """How often each id is drawn of 400 times."""
    sampling = Sampling(**{"top_k": 0, "top_p": 1.0, **options})
    numbers = torch.Generator().manual_seed(5)
    counts = [0] * len(logits)
    for _ in range(400):
        counts[int(next_token(torch.tensor([logits]), sampling, said, numbers))] += 1
    return counts


def kept(logits, **options):
    return {number for number, count in enumerate(drawn(logits, **options)) if count}


def test_the_likeliest_is_taken_unless_drawn():
    logits = torch.tensor([[0.5, 3.0, 1.0]])
    assert next_token(logits, LIKELIEST, [1], None).tolist() == [[1]]
    assert next_token(logits, Sampling(temperature=0.0), [1], None).tolist() == [[1]]
    assert kept([0.5, 0.4, 0.3]) == {0, 1, 2}


def test_what_is_unlikely_is_left_out():
    logits = [float(torch.tensor(chance).log()) for chance in (0.1, 0.4, 0.2, 0.3)]
    assert kept(logits, top_k=2) == {1, 3}
    assert kept(logits, min_p=0.6) == {1, 3} and kept(logits, min_p=0.5) >= {1, 3}
    assert kept(logits, top_p=0.75) == {1, 3} and kept(logits, top_p=0.1) == {1}  # that which exceeds it is left out, but for the first
    assert kept(logits, top_k=3, top_p=0.8) == {1, 3}  # of what is left
    assert kept(logits, temperature=0.01) == {1}


def test_penalties_make_tokens_that_were_said_less_likely():
    assert drawn([2.0, 2.0], said=[1], repetition_penalty=2.0) == drawn([2.0, 1.0])
    assert drawn([-1.0, -1.0], said=[1, 1], repetition_penalty=2.0) == drawn([-1.0, -2.0])
    assert drawn([2.0, 2.0], said=[0], presence_penalty=1.5) == drawn([0.5, 2.0])


def made(kind, config, tensors):
    model = kind(config, comfy.ops.disable_weight_init)
    model.load_weights(StateDictSource(tensors), torch.float32, "a model")
    return model


def words_of(model, count):
    """Embeddings of tokens by chance: 1 x count x width."""
    ids = torch.randint(3, 300, (1, count), generator=torch.Generator().manual_seed(2))
    return model.get_input_embeddings()(ids, out_dtype=torch.float32)


def without_memory(model, embeds, count, infos=()):
    """The likeliest ids, everything read anew for each."""
    said = []
    for _ in range(count):
        last = model(embeds, [embeds.shape[1]], None, embeds_info=infos)[0]
        said.append(int(model.logits(last[:, -1:]).argmax()))
        embeds = torch.cat([embeds, model.get_input_embeddings()(torch.tensor([[said[-1]]]), out_dtype=torch.float32)], dim=1)
    return said


def test_a_window_of_the_past_is_remembered():
    tensors = text_model("gemma3_4b", vocabulary=300)
    found = recognise(StateDictSource(tensors)).config
    sizes = {name: getattr(found, name) for name in found.__slots__}
    model = made(Gemma3TextModel, Gemma3TextConfig(**{**sizes, "window": 5}), tensors)
    embeds = model.get_input_embeddings()(
        torch.randint(3, 300, (1, 9), generator=torch.Generator().manual_seed(2)), out_dtype=torch.float32
    )
    assert generate(model, embeds, LIKELIEST, 12, ()) == without_memory(model, embeds, 12)


def test_words_after_a_picture_stand_where_they_would():
    tensors = qwen_text_tensors(vocabulary=300, width=32)
    model = made(QwenTextModel, recognise(StateDictSource(tensors)).config, tensors)
    vectors, grid = model.preprocess_embed({"type": "image", "data": torch.rand(1, 84, 56, 3)}, torch.device("cpu"))
    words = words_of(model, 6)
    embeds = torch.cat([words[:, :2], vectors[None], words[:, 2:]], dim=1)
    infos = [{"type": "image", "index": 2, "size": len(vectors), "extra": grid}]
    assert generate(model, embeds, LIKELIEST, 8, (), infos) == without_memory(model, embeds, 8, infos)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """The path of a small Qwen 3 that carries its tokenizer."""
    tensors = qwen_text_tensors(vocabulary=VOCABULARY, width=32, layers=2, eyes=False, normalised=True)
    tensors["tokenizer_json"] = torch.frombuffer(bytearray(qwen_tokenizer_json(), "utf-8"), dtype=torch.uint8)
    path = tmp_path_factory.mktemp("qwen3") / "qwen3.safetensors"
    save_file(tensors, str(path))
    return str(path)


@pytest.fixture
def clip(qwen):
    return comfy.sd.load_clip([qwen], clip_type=comfy.sd.CLIPType.LUMINA2)


def test_it_ends_at_a_stop_token_and_each_token_is_progress(clip, monkeypatch):
    steps = []
    monkeypatch.setattr(comfy.utils.ProgressBar, "update", lambda bar, value: steps.append((value, bar.total)))
    tokens = clip.tokenize("rain", min_length=1)
    said = clip.generate(tokens, do_sample=False, max_length=6)
    assert len(said) == 6 and steps == [(1, 6)] * 6
    monkeypatch.setattr(QwenTextModel, "STOPS", (said[2],))
    assert clip.generate(tokens, do_sample=False, max_length=6) == said[: said.index(said[2]) + 1]


def test_a_seed_says_the_same_again(clip):
    tokens = clip.tokenize("rain", min_length=1)
    first = clip.generate(tokens, max_length=8, seed=3)
    assert first == clip.generate(tokens, max_length=8, seed=3) != clip.generate(tokens, max_length=8, seed=4)


def test_it_is_interrupted_between_tokens(clip, monkeypatch):
    calls = []

    def interrupted():
        calls.append(1)
        if len(calls) == 3:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        clip.generate(clip.tokenize("rain", min_length=1), do_sample=False, max_length=50)
    assert len(calls) == 3


def test_what_only_reads_says_so(tmp_path):
    save_file(text_model("clip_l"), str(tmp_path / "clip_l.safetensors"))
    clip = comfy.sd.load_clip([str(tmp_path / "clip_l.safetensors")])
    with pytest.raises(ValueError, match="reads only; load a language model"):
        clip.generate(clip.tokenize("rain"), max_length=2)


def test_the_node_gives_the_text_and_says_what_it_left_out(clip, caplog):
    node = nodes_textgen.TextGenerate
    text = node.execute(clip, "rain", 6, {**ON, "presence_penalty": None}).args[0]
    tokens = clip.tokenize("rain", min_length=1)
    options = {name: value for name, value in ON.items() if name != "sampling_mode"}
    assert text == clip.decode(clip.generate(tokens, max_length=6, **options)) and not caplog.records
    assert node.execute(clip, "rain", 6, ON, image=torch.rand(1, 8, 8, 3)).args[0] == text
    assert "takes no image here" in caplog.text
    assert node.execute(clip, "rain", 6, {"sampling_mode": "off"}).args[0] == clip.decode(
        clip.generate(tokens, do_sample=False, max_length=6)
    )


def test_ltx_prompts_are_asked_of_gemma_and_cleaned_of_thoughts(monkeypatch):
    asked = []

    def answer(clip, prompt, *_, **media):
        asked.append((prompt, media["image"]))
        return answers.pop(0)

    class Clip:
        class tokenizer:  # noqa: N801 - an attribute
            clip_name = "gemma3_12b"

    monkeypatch.setattr(nodes_textgen, "generated", answer)
    answers = ["<think>so</think> A walk. ", "<think>never done", "A walk."]
    run = nodes_textgen.TextGenerateLTX2Prompt.execute
    assert run(Clip, "walk", 6, ON).args[0] == "A walk." and run(Clip, "walk", 6, ON).args[0] == "walk"
    assert asked[0][0].startswith("<start_of_turn>system\n") and "Prompt: walk.<end_of_turn>\n" in asked[0][0]
    monkeypatch.setattr(Clip.tokenizer, "clip_name", "gemma4_12b")
    picture = torch.zeros(1)
    run(Clip, "walk", 6, ON, image=picture, thinking=True)
    assert "<|image><|image|><image|>" in asked[2][0] and asked[2][0].endswith("<|turn>model\n") and asked[2][1] is picture
