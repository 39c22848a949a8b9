"""Models of sound give upstream's latents and sounds: same files, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_sound_models_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from sound_files import (
    BLOCK_KERNELS,
    DCAE_WIDTHS,
    VOCODER_WIDTHS,
    ace15_config,
    ace15_file,
    ace_config,
    ace_file,
    lyrics_tokenizer_json,
    music_vae_tensors,
    oobleck_tensors,
    stable_audio_file,
)
from transformer_files import qwen_text_tensors
from wan_files import wan_file

BOUND = 1e-3
QUIET = 1e-3  # 60 dB below the sound

pytestmark = against_upstream(900)


class Numbers:
    """Random tensors, one after the other."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator)


def both(folder, cases) -> tuple:
    """What both trees make of *cases*."""
    torch.save(cases, folder / "cases.pt")
    return results_of_both("sound_model_runs.py", folder, [folder / "cases.pt"])


def assert_alike(ours, theirs) -> None:
    """Latents within the bound, none of them like the first where their cases differ."""
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:28} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    first, *others = ours
    assert not [name for name in others if ours[name].shape == ours[first].shape and torch.equal(ours[name], ours[first])]


def ace15_cases(folder) -> dict:
    """Codes, a reference, neither, no text at all, several at once, and a longer latent than codes or window reach."""
    numbers = Numbers()
    sizes = {"hidden": 64, "encoder": 48, "text": 40}
    model, config = ace15_file(folder / "ace15.safetensors", **sizes), ace15_config(**sizes)
    kept = {name: value for name, value in config.items() if name not in ("audio_model", "num_detokenizer_layers")}

    def case(options=None, places=20, batch=1, negative=None, **more):
        texts = {"pooled_output": None, "conditioning_lyrics": numbers(1, 9, 40), **(options or {})}
        sides = {"positive": [[numbers(1, 7, 40), texts]], "negative": [[numbers(1, 5, 40) if negative is None else negative, texts]]}
        empty = torch.zeros(batch, 64, places)
        told = {
            "comfy.ldm.ace.ace_step15:AceStepConditionGenerationModel": kept,
            "comfy.ldm.ace.ace_step15:AudioTokenDetokenizer": {"num_layers": 1},
        }
        return {"model": model, **sides, "noise": numbers(batch, 64, places), "latent": empty, "cfg": 2.0, "sizes": told, **more}

    codes = {"audio_codes": [[17, 63999, 5, 41234]]}
    return {
        "plain": case(),
        "codes": case(codes),
        "few codes": case(codes, places=33),
        "reference": case({"reference_audio_timbre_latents": [numbers(1, 64, 12)]}),
        "long reference": case({"reference_audio_timbre_latents": [numbers(1, 64, 40)], **codes}),
        "nothing asked for": case(codes, negative=torch.zeros(1, 5, 40)),
        "several": case(codes, batch=2),
        "long": case(places=301, cfg=1.0, steps=1),
    }


def test_ace_step_15_gives_upstreams_latents(tmp_path):
    assert_alike(*both(tmp_path, ace15_cases(tmp_path)))


def ace_cases(folder) -> dict:
    """Tags and lyrics, lyrics that count less, several at once, another length."""
    numbers = Numbers()
    sizes = {"width": 256, "text": 768, "lyrics": 64, "inner": 2048}
    model, config = ace_file(folder / "ace.safetensors", **sizes), ace_config(**sizes)
    of_lyrics = {"output_size": 64, "attention_heads": 4, "linear_units": 96, "num_blocks": 2}
    unknown = ("audio_model", "patch_channels", "lyric_heads", "lyric_units", "lyric_blocks")
    network = {name: value for name, value in config.items() if name not in unknown} | {"ssl_latent_dims": [4], "ssl_names": ["x"]}
    told = {"comfy.ldm.ace.model:LyricEncoder": of_lyrics, "comfy.ldm.ace.model:ACEStepTransformer2DModel": network}

    def case(options=None, places=9, batch=1, lyrics=11):
        tokens = torch.randint(3, 390, (1, lyrics), generator=numbers.generator)
        texts = {"pooled_output": None, "conditioning_lyrics": tokens, **(options or {})}
        sides = {side: [[numbers(1, 7, 768), texts]] for side in ("positive", "negative")}
        shape = (batch, 8, 16, places)
        return {"model": model, **sides, "noise": numbers(*shape), "latent": torch.zeros(shape), "cfg": 3.0, "sizes": told}

    return {"plain": case(), "less lyrics": case({"lyrics_strength": 0.4}), "several": case(batch=2), "long": case(places=70, lyrics=1)}


def test_ace_step_1_gives_upstreams_latents(tmp_path):
    assert_alike(*both(tmp_path, ace_cases(tmp_path)))


def test_ace_step_1s_sounds_are_upstreams(tmp_path):
    numbers, blocks = Numbers(), (1, 1, 1, 1)
    halves = {f"{half}_block_out_channels": DCAE_WIDTHS for half in ("encoder", "decoder")}
    halves |= {f"{half}_layers_per_block": blocks for half in ("encoder", "decoder")}
    vocoder = {"depths": [1, 1, 2, 1], "dims": list(VOCODER_WIDTHS), "num_mels": VOCODER_WIDTHS[-1], "upsample_initial_channel": 128}
    vocoder |= {"resblock_kernel_sizes": BLOCK_KERNELS, "resblock_dilation_sizes": ((1, 3, 5),) * len(BLOCK_KERNELS)}
    told = {"comfy.ldm.ace.vae.music_dcae_pipeline:MusicDCAE": {"dcae_config": halves, "vocoder_config": vocoder}}
    case = {"vae": music_vae_tensors(), "sounds": [0.2 * numbers(1, 30000, 2), 0.2 * numbers(2, 9000, 1)], "sizes": told}
    case["latents"] = [numbers(1, 8, 16, 20), numbers(2, 8, 16, 5)]
    ours, theirs = (results["vae"] for results in both(tmp_path, {"vae": case}))
    compare(ours, theirs)


def test_lyrics_are_upstreams_tokens(tmp_path):
    folder = tmp_path / "ace_lyrics_tokenizer"
    folder.mkdir()
    (folder / "vocab.json").write_text(lyrics_tokenizer_json(), encoding="utf-8")
    lines = [
        "[verse]",
        "La la, the 2nd of 3 (loud:1.2) nights!",
        "",
        "[fr]Été à 5$",
        "[DE]  Über 10% Öl",
        "きゃっち la",
        "[zh]你好 7",
        "[xx] Mr. X & co.",
    ]
    case = {"encoder": "lyrics", "folder": str(folder), "texts": ["\n".join(lines), *lines, "[chorus] 1,234.5 apples\n"]}
    ours, theirs = (results["lyrics"] for results in both(tmp_path, {"lyrics": case}))
    assert ours == theirs and len(ours[0]) > 60


def stable_audio_cases(folder) -> dict:
    """Two lengths of sound with and without words about them, tokens of its own, and queries and keys that are normalised."""
    numbers = Numbers()

    def case(options=None, batch=1, places=12, **sizes):
        file = folder / f"stable-{len(sizes)}.safetensors"
        file = str(file) if file.exists() else stable_audio_file(file, width=768, text=768, **sizes)
        sides = {side: [[numbers(1, 7, 768), {"pooled_output": None, **(options or {})}]] for side in ("positive", "negative")}
        told = {"comfy.ldm.audio.dit:AudioDiffusionTransformer": {"num_heads": 12}}
        empty = {"noise": numbers(batch, 64, places), "latent": torch.zeros(batch, 64, places)}
        return {"model": file, "checkpoint": True, **sides, **empty, "cfg": 3.0, "sizes": told, "sampler": "dpmpp_2m"}

    return {
        "plain": case(),
        "times": case({"seconds_start": 3.5, "seconds_total": 11.0}),
        "several": case({"seconds_total": 600.0}, batch=2, places=25),
        "tokens of its own": case(memory=3),
        "normalised": case(memory=3, normed=True),
    }


def test_stable_audio_gives_upstreams_latents(tmp_path):
    assert_alike(*both(tmp_path, stable_audio_cases(tmp_path)))


def sounds_of(folder, tensors, rate_hz, places, sizes) -> None:
    """Assert that both trees encode and decode alike with an autoencoder, whose rate they know."""
    numbers = Numbers()
    latent = numbers(1, 64, places)
    sounds = [0.2 * numbers(1, 30000, 2), 0.2 * numbers(2, 24000, 1)]
    case = {"vae": tensors, "sounds": sounds, "latents": [latent, numbers(2, 64, 5)], "sizes": sizes}
    ours, theirs = (results["vae"] for results in both(folder, {"vae": case}))
    assert int(ours[-1][0, 0]) == rate_hz
    compare(ours, theirs)


def compare(ours, theirs) -> None:
    """Assert that sounds and latents are alike."""
    for number, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        difference = ((own - other).norm() / other.norm()).item()
        print(f"{number} {tuple(own.shape)} {difference:.1e}")
        assert own.shape == other.shape and difference <= QUIET and other.std() > 0.01


def test_ace_step_15s_sounds_are_upstreams(tmp_path):
    sounds_of(tmp_path, oobleck_tensors(), 48000, 20, {"comfy.sd:AudioOobleckVAE": {"channels": 8}})


def test_stable_audios_sounds_are_upstreams(tmp_path):
    tensors = oobleck_tensors(rate_hz=44100, old_names=False)
    sounds_of(tmp_path, tensors, 44100, 20, {"comfy.sd:AudioOobleckVAE": {"channels": 8}})


def test_ace_step_15s_texts_and_codes_are_upstreams(tmp_path):
    sizes = {"intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    small = qwen_text_tensors(1, eyes=False, normalised=True, vocabulary=2000, width=1024, layers=2)
    writer = qwen_text_tensors(2, eyes=False, normalised=True, vocabulary=215670, width=64, layers=2)
    ids = torch.randint(5, 1990, (40,), generator=torch.Generator().manual_seed(5)).tolist()
    usual = {"min_tokens": 12, "max_tokens": 12, "seed": 3, "generate_audio_codes": True}
    choices = [
        {"cfg_scale": 2.0, "temperature": 0.85, "top_p": 0.9, "top_k": 0, "min_p": 0.0},
        {"cfg_scale": 1.0, "temperature": 1.2, "top_p": 1.0, "top_k": 30, "min_p": 0.0},
        {"cfg_scale": 3.0, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.01},
        {"cfg_scale": 1.5, "temperature": 2.0, "top_p": 0.95, "top_k": 100, "min_p": 0.2},
    ]
    texts = {"qwen3_06b": ids[:12], "lyrics": [*ids[12:20], 151643, 151643], "lm_prompt": ids[20:32], "lm_prompt_negative": ids[32:40]}
    texts["lyrics"] = [token for token in texts["lyrics"] if token < 2000]
    case = {
        "encoder": "ace15",
        "settings": {
            "qwen3_06b": {**sizes, "hidden_size": 1024, "vocab_size": 2000},
            "qwen3_4b": {**sizes, "hidden_size": 64, "vocab_size": 215670},
        },
        "qwen3_06b": small,
        "qwen3_4b": writer,
        "tokens": [{**texts, "lm_metadata": {**usual, **choice}} for choice in choices],
    }
    ours, theirs = (results["texts"] for results in both(tmp_path, {"texts": case}))
    for number, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        assert own.shape == other.shape, number
        if number % 3 == 2:
            assert own.tolist() == other.tolist() and len(set(own.flatten().tolist())) > 3
        else:
            assert (own - other).norm() <= BOUND * other.norm()


def wan_cases(folder) -> dict:
    """S2V with sound, a picture, frames before, a control video, and a long sound; both sizes of HuMo, with and without a picture."""
    numbers, frames, side = Numbers(), 3, 8
    s2v = wan_file(folder / "s2v.safetensors", "s2v", width=256, context=4096, heard=1024, layers=25)
    humo = {"width": 256, "context": 4096, "heard": 51200, "sound": 1536}
    small = wan_file(folder / "humo.safetensors", "humo", **humo)
    large = wan_file(folder / "humo-large.safetensors", "humo", **humo, channels=36)

    def latent(count=frames):
        return numbers(1, 16, count, side, side)

    def case(model, options):
        sides = {name: [[numbers(1, 7, 4096), {"pooled_output": None, **options}]] for name in ("positive", "negative")}
        return {"model": model, **sides, "noise": latent(), "latent": torch.zeros(1, 16, frames, side, side), "cfg": 2.0}

    sound, picture = {"audio_embed": numbers(1, 25, 1024, 4 * frames)}, {"reference_latents": [latent(1)]}
    heard = {"audio_embed": numbers(1, frames, 8, 5, 1280)}
    return {
        "s2v": case(s2v, sound),
        "s2v, silent": case(s2v, picture),
        "s2v, picture": case(s2v, {**sound, **picture}),
        "s2v, going on": case(s2v, {**sound, **picture, "reference_motion": latent(7), "control_video": latent()}),
        "humo": case(small, heard),
        "humo, picture": case(small, {**heard, **picture}),
        "humo, large": case(large, heard),
        "humo, large, picture": case(large, {**heard, **picture}),
    }


def test_wan_hears_what_upstream_does(tmp_path):
    assert_alike(*both(tmp_path, wan_cases(tmp_path)))


def test_wans_nodes_for_sound_are_upstreams(tmp_path):
    numbers = Numbers()
    sizes = {"width": 48, "height": 32, "length": 13, "batch_size": 2}
    short = {"encoded_audio_all_layers": tuple(numbers(1, 61, 6) for _ in range(3)), "audio_samples": 19520}
    whisper = {"encoded_audio_all_layers": tuple(numbers(1, 100, 1280) for _ in range(33)), "audio_samples": 16000}
    picture, video = {"ref_image": numbers(1, 40, 40, 3).sigmoid()}, numbers(20, 32, 48, 3).sigmoid()
    before = {"length": 9, "video_latent": {"samples": numbers(1, 16, 4, 4, 6)}}
    given = {
        "s2v": ("WanSoundImageToVideo", {**sizes, "audio_encoder_output": short, **picture}),
        "s2v, all": ("WanSoundImageToVideo", {**sizes, "audio_encoder_output": short, "control_video": video, "ref_motion": video}),
        "going on": ("WanSoundImageToVideoExtend", {**before, "audio_encoder_output": short}),
        "behind the end": (
            "WanSoundImageToVideoExtend",
            {**before, "video_latent": {"samples": numbers(1, 16, 30, 4, 6)}, "audio_encoder_output": short},
        ),
        "humo": ("WanHuMoImageToVideo", {**sizes, "audio_encoder_output": whisper, **picture}),
        "humo, long": ("WanHuMoImageToVideo", {**sizes, "length": 81, "audio_encoder_output": whisper}),
        "humo, silent": ("WanHuMoImageToVideo", sizes),
    }
    cases = {name: {"encoder": "nodes", "node": node, "given": values} for name, (node, values) in given.items()}
    ours, theirs = both(tmp_path, cases)
    for name, expected in theirs.items():
        assert [one.shape for one in ours[name]] == [one.shape for one in expected], name
        for own, other in zip(ours[name], expected, strict=True):
            assert torch.allclose(own, other, atol=1e-5), name
