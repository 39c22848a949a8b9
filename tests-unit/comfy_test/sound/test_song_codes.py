"""The text encoder of ACE-Step 1.5: texts for its models, and the codes of music that one of them writes."""

import pytest
import torch
from qwen_tokenizer import qwen_tokenizer_json
from transformer_files import qwen_text_tensors

from comfy.families.weight_source import StateDictSource
from comfy.ops import disable_weight_init
from comfy.text import song_codes
from comfy.text.combinations import find_combination
from comfy.text.drawing import Choice
from comfy.text.qwen.continuation import Continuation
from comfy.text.qwen.network import QwenTextModel
from comfy.text.qwen.sizes import read_qwen_config
from comfy.text.te_models import TEModel
from comfy.text_encoders import ace15

USUAL = {"tags": "piano", "lyrics": "la la", "bpm": 90, "duration": 1.2, "timesignature": 4, "keyscale": "C major", "language": "en"}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def tokenizer():
    data = {"tokenizer_json": torch.frombuffer(bytearray(qwen_tokenizer_json(), "utf-8"), dtype=torch.uint8)}
    return ace15.ACE15Tokenizer(tokenizer_data=data)


def spoken(tokenizer, **changed):
    """The texts that stand for a song, by what they are for."""
    about = {**USUAL, **changed}
    tokens = tokenizer.tokenize_with_weights(about.pop("tags"), **about)
    asked = [name for name in tokens if name != "lm_metadata"]
    ids = {name: [token for token, _ in tokens[name][0]] for name in asked}
    return tokens, {name: tokenizer.qwen3_06b.decode(ids[name], skip_special_tokens=False) for name in asked}


def test_texts_tell_what_the_song_is_about(tokenizer):
    tokens, texts = spoken(tokenizer)
    assert texts["qwen3_06b"].endswith(
        "# Caption\npiano\n\n# Metas\n"
        "- bpm: 90\n- timesignature: 4\n- keyscale: C major\n- duration: 2 seconds\n<|endoftext|>\n<|endoftext|>"
    )
    assert texts["lyrics"] == "# Languages\nen\n\n# Lyric\nla la<|endoftext|><|endoftext|>"
    thoughts = "<think>\nbpm: 90\nduration: 2\nkeyscale: C major\ntimesignature: 4\n</think>"
    assert texts["lm_prompt"].endswith(f"# Caption\npiano\n\n# Lyric\nla la\n<|im_end|>\n<|im_start|>assistant\n{thoughts}\n\n<|im_end|>\n")
    assert texts["lm_prompt_negative"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n<|im_end|>\n")
    usual = {"seed": 0, "generate_audio_codes": True, "cfg_scale": 2.0, "temperature": 0.85, "top_p": 0.9, "top_k": 0, "min_p": 0.0}
    assert tokens["lm_metadata"] == {"min_tokens": 10, "max_tokens": 10, **usual}


def test_what_is_given_counts(tokenizer):
    tokens, texts = spoken(
        tokenizer, timesignature="3/4", duration="90 seconds", seed=7, top_k=5, min_tokens="4", bpm_negative=60, language=None
    )
    assert tokens["lm_metadata"] | {"seed": 7, "top_k": 5, "min_tokens": 4, "max_tokens": 450} == tokens["lm_metadata"]
    assert (
        "timesignature: 3\n" in texts["lm_prompt"] and "- timesignature: 3\n" in texts["qwen3_06b"] and "90 seconds" in texts["qwen3_06b"]
    )
    assert "<think>\nbpm: 60\n</think>" in texts["lm_prompt_negative"] and texts["lyrics"].startswith("# Languages\n\n")
    assert ace15.listed({}) == "- bpm: N/A\n- timesignature: N/A\n- keyscale: N/A\n- duration: 30 seconds"
    assert ace15.thought({"bpm": "unspecified", "keyscale": None}) == "<think>\n\n</think>"
    with pytest.raises(TypeError, match="number of seconds"):
        ace15.listed({"duration": [3]})


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        (Choice(top_p=1.0), {0, 1, 2, 3}),
        (Choice(top_p=1.0, top_k=2), {0, 3}),
        (Choice(top_p=1.0, min_p=0.3), {0, 3}),
        (Choice(top_p=0.6), {0, 3}),
        (Choice(top_p=0.4), {3}),
    ],
)
def test_unlikely_tokens_are_left_out(choice, left):
    scores = torch.tensor([[0.3, 0.12, 0.05, 0.53]]).log()
    restricted = choice.restricted(scores)
    assert {number for number in range(4) if restricted[0, number] > -1e30} == left
    assert torch.equal(scores, torch.tensor([[0.3, 0.12, 0.05, 0.53]]).log()), "a new tensor"


def small_writer(vocabulary=215670, width=32, seed=0):
    tensors = qwen_text_tensors(seed, eyes=False, normalised=True, vocabulary=vocabulary, width=width, layers=2)
    config = read_qwen_config({name: tuple(value.shape) for name, value in tensors.items()})
    model = QwenTextModel(config, disable_weight_init)
    model.load_weights(StateDictSource(tensors), torch.float32, "the writer")
    return model


def test_going_on_is_like_reading_the_whole():
    model = small_writer(vocabulary=50)
    table = model.get_input_embeddings().weight
    texts = torch.tensor([[0, 0, 7, 9, 11], [3, 4, 5, 6, 8]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    song = Continuation(model, mask)
    state = song.follow(table[texts])
    further = [torch.tensor([[13], [14]]), torch.tensor([[15], [16]])]
    states = [state, *(song.follow(table[token]) for token in further)]
    for number, found in enumerate(states):
        whole = torch.cat((texts, *further[:number]), dim=1)
        known = torch.nn.functional.pad(mask, (0, number), value=1)
        expected = model(table[whole], [], attention_mask=known)[0][:, -1:]
        assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(song.rows(3, 6, state), table[3:6])


class Writer:
    """A language model as text encoders have it."""

    def __init__(self, network):
        self.transformer, self.execution_device, self.special_tokens = network, torch.device("cpu"), {"pad": 151643}

    def process_tokens(self, tokens, device):
        self.asked = tokens
        ids = torch.tensor(tokens)
        return self.transformer.get_input_embeddings().weight[ids], (ids != 151643).long(), [], []


def written(writer, seed=1, cfg_scale=2.0, least=6, most=6, **choice):
    settings = song_codes.SongSettings(most, least, seed, cfg_scale, Choice(**choice))
    return song_codes.write_codes(writer, [5, 6, 7], [8], settings)


def test_codes_are_drawn_by_the_seed():
    writer = Writer(small_writer())
    codes = written(writer)
    assert writer.asked == [[5, 6, 7], [151643, 151643, 8]] and len(codes) == 6 and all(0 <= code < 64000 for code in codes)
    assert written(writer) == codes != written(writer, seed=2)
    likeliest = written(writer, temperature=0.0)
    assert likeliest == written(writer, seed=2, temperature=0.0)
    assert written(writer, temperature=0.0, cfg_scale=1.0) != likeliest and writer.asked == [[5, 6, 7]]


def test_a_song_ends_where_the_model_says_so_and_it_may():
    network = small_writer()
    table = network.get_input_embeddings().weight
    network.model.norm.weight.fill_(1.0)
    table[song_codes.FIRST_CODE : song_codes.CODES_END] = 0.0
    writer = Writer(network)
    state = Continuation(network, torch.ones(1, 3)).follow(table[torch.tensor([[5, 6, 7]])])
    table[song_codes.END] = 100 * state[0, 0]
    assert len(written(writer, cfg_scale=1.0, temperature=0.0, least=2, most=9)) == 3, "two at least are written"
    assert len(written(writer, cfg_scale=1.0, temperature=0.0, least=9, most=9)) == 9


@pytest.mark.parametrize("writer", [TEModel.QWEN3_2B, TEModel.QWEN3_4B])
def test_the_loaders_type_makes_it_of_two_models(writer):
    assert find_combination([TEModel.QWEN3_06B, writer], "ace").target == "comfy.text_encoders.ace15:ace15_target"
    assert find_combination([TEModel.QWEN3_06B, writer], "flux") is None


def test_the_larger_writer_needs_more_memory():
    sizes = read_qwen_config({name: tuple(value.shape) for name, value in qwen_text_tensors(eyes=False, normalised=True, layers=1).items()})
    options = {f"{part}_model_config": sizes for part in ("qwen3_06b", "qwen3_2b", "qwen3_4b")}
    tokens = {"lm_prompt": [[(1, 1.0)] * 30], "lm_metadata": {"min_tokens": 10}}
    needs = {}
    for parts in (("qwen3_06b", "qwen3_2b"), ("qwen3_06b", "qwen3_4b")):
        model = ace15.ace15_target(parts).clip(dtype=torch.float32, model_options=options)
        assert set(model.parts()) == set(parts) and model.dtypes == {torch.float32}
        needs[parts[1]] = model.memory_estimation_function(tokens, torch.device("cpu"))
    assert needs == {"qwen3_2b": 40 * 0.4375 * 2**20, "qwen3_4b": 40 * 0.5625 * 2**20}
