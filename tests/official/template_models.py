"""Small files with random weights for the names that official templates load: in the published keys, stored as their names tell."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import gemma4_files
import torch
from hunyuan_files import byt5_tensors, hunyuan_file, hunyuan_vae_file
from image_family_files import as_bytes, vae_tensors
from interpolation_files import interpolation_file
from ltx_files import (
    SOUND_WIDTH,
    WIDTH,
    diffusion_vae_metadata,
    diffusion_vae_tensors,
    ltx_checkpoint,
    ltx_file,
    ltx_sound_metadata,
    ltx_sound_tensors,
    ltx_upsampler_file,
)
from minimax_files import minimax_file, minimax_text_tensors
from minimax_vae_files import audio_vae_file, vae_file
from quantised_files import quantised_model
from qwen_tokenizer import LATER, VOCABULARY, qwen_tokenizer_json
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sam3_files import sam3_file
from seedvr_files import seedvr_file, seedvr_vae_file
from sound_files import ace15_file, ace_tensors, lyrics_tokenizer_json, music_vae_tensors, oobleck_file, stable_audio_file
from stable_audio3_files import stable_audio3_file
from t5_gemma_files import t5_gemma_tensors, with_words
from text_encoder_files import T5_WIDTH, sentence_piece_model, text_model, tokenizer_json
from transformer_files import qwen35_tensors, qwen_text_tensors
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from wan_files import talk_file, wan_file
from wan_vae_files import wan22_vae_layout, wan_vae_file

from benchmarks.make_checkpoint import UNETS
from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.published_layout import unet_layout
from scripts.coverage.published import format_of

Path = pathlib.Path
Writer = Callable[[Path], object]

TEXT, HEARD = 32, 128
TALKING = 640  # values per token of networks that InfiniteTalk's 40 heads fit, and of others that share a LoRA with them
CODES = 215670  # tokens of a model that writes codes of music
EARS: dict[str, Any] = {
    "hidden_size": HEARD,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "conv_dim": (16,) * 7,
}
WHISPER = {"d_model": 64, "encoder_ffn_dim": 32, "encoder_layers": 32, "encoder_attention_heads": 1, "num_mel_bins": 128}
SEES = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16, "image_size": 28, "patch_size": 14}
KINDS = {"float8_e4m3fn": "fp8", "int8_tensorwise": "int8 convrot", "nvfp4": "nvfp4"}  # formats, as quantised_files calls them
STORED = re.compile(r"(^|\.)(\w*blocks|layers|block)\.\d+\.")  # where a model's quantised matrices lie


def write_model(path: Path, folder: str) -> None:
    """A small model at *path* for the name that it ends in. Raises ``LookupError`` where nobody has told what that name stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for of, pattern, write in MODELS:
        if of == folder and re.search(pattern, path.name, re.IGNORECASE):
            write(path)
            if (stored := format_of(path.name)) is not None and folder != "loras":
                _quantise(path, KINDS[stored])
            return
    raise LookupError(f"no small model is known for {folder}/{path.name}")


def write_tokenizers(folder: Path) -> None:
    """The tokenizers that no file carries, into the folder of text encoders *folder*."""
    for name, file, content in (
        ("qwen25_tokenizer", "tokenizer.json", qwen_tokenizer_json()),
        ("qwen35_tokenizer", "tokenizer.json", qwen_tokenizer_json(LATER)),
        ("ace_lyrics_tokenizer", "vocab.json", lyrics_tokenizer_json()),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_text(content, encoding="utf-8")


def _quantise(path: Path, kind: str) -> None:
    """Store the matrices of the blocks in *path* as *kind*."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    network = "model.diffusion_model." if any(name.startswith("model.diffusion_model.") for name in tensors) else ""
    chosen = {name: value for name, value in tensors.items() if name.startswith(network) and STORED.search(name)}
    stored, _, _ = quantised_model(kind, chosen, network)
    assert any(name.endswith("comfy_quant") for name in stored), path.name
    rest = {name: value for name, value in tensors.items() if name not in chosen}
    save_file({name: value.contiguous() for name, value in (rest | stored).items()}, str(path), metadata)


def _saved(make: Callable[[], dict[str, torch.Tensor]]) -> Writer:
    return lambda path: save_file({name: value.contiguous() for name, value in make().items()}, str(path))


def _wan(kind: str, **sizes: int) -> Writer:
    return lambda path: wan_file(path, kind, context=T5_WIDTH, seed=int("low_noise" in path.name), **sizes)


def _t5(kind: str, vocabulary: int | None = None) -> dict[str, torch.Tensor]:
    return {**text_model(kind, vocabulary=vocabulary), "tokenizer_json": as_bytes(tokenizer_json())}


def _with_pieces(kind: str, vocabulary: int) -> dict[str, torch.Tensor]:
    """A text model with a tokenizer of SentencePiece's."""
    pieces = torch.frombuffer(bytearray(sentence_piece_model(begins=True)), dtype=torch.uint8)
    return {**text_model(kind, vocabulary=vocabulary), "spiece_model": pieces}


def _qwen3(vocabulary: int, width: int) -> dict[str, torch.Tensor]:
    tensors = qwen_text_tensors(eyes=False, normalised=True, vocabulary=vocabulary, width=width, layers=1)
    return {name: value.to(torch.bfloat16) for name, value in tensors.items()}


def _clip_h() -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    return dict(CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=1280, **SEES, projection_dim=16)).half().state_dict())


def _siglip() -> dict[str, torch.Tensor]:
    torch.manual_seed(6)
    eyes = SiglipVisionModel(SiglipVisionConfig(hidden_size=1152, **SEES)).half()
    return {f"vision_model.{key}": value for key, value in eyes.state_dict().items() if not key.endswith("position_ids")}


def _ears(**changed: object) -> Callable[[], dict[str, torch.Tensor]]:
    def make() -> dict[str, torch.Tensor]:
        torch.manual_seed(4)
        return dict(Wav2Vec2Model(Wav2Vec2Config(**EARS, **changed)).state_dict())

    return make


def _whisper() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return {f"model.encoder.{name}": value for name, value in WhisperEncoder(WhisperConfig(**WHISPER)).state_dict().items()}


def _lotus() -> dict[str, torch.Tensor]:
    sizes = dataclasses.replace(
        UNETS["sd15"], context_dim=1024, use_linear=True, adm_in_channels=4, num_heads=-1, num_head_channels=64, model_channels=64
    )
    sizes = dataclasses.replace(sizes, channel_mult=(1, 2), num_res_blocks=(1, 1), depths=(1, 1), output_depths=(1,) * 4)
    chance = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=chance) * (math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1)
        for name, shape in unet_layout(sizes).items()
    }


def _song_checkpoint() -> dict[str, torch.Tensor]:
    """ACE-Step 1 as one file: the network, UMT5 base, the autoencoder."""
    tensors = {f"model.diffusion_model.{name}": value for name, value in ace_tensors(text=768, vocabulary=7000).items()}
    tensors |= {f"vae.{name}": value for name, value in music_vae_tensors().items()}
    text = byt5_tensors(width=768, vocabulary=2100, every_bias=True)
    text["spiece_model"] = torch.frombuffer(bytearray(sentence_piece_model()), dtype=torch.uint8)
    return tensors | {f"text_encoders.umt5base.transformer.{name}": value for name, value in text.items()}


def _later_song_checkpoint(path: Path) -> None:
    """ACE-Step 1.5 as one file: the network, both text models, the autoencoder."""
    tensors = {}
    for prefix, write in (("model.diffusion_model.", _ace15), ("vae.", oobleck_file)):
        part = path.with_suffix(".part")
        write(part)
        tensors |= {prefix + name: value for name, value in load_file(part).items()}
        part.unlink()
    for name, sizes in {"qwen3_06b": (VOCABULARY, 1024), "qwen3_4b": (CODES, 64)}.items():
        tensors |= {f"text_encoders.{name}.transformer.{key}": value for key, value in _qwen3(*sizes).items()}
    save_file(tensors, str(path))


def _ace15(path: Path) -> None:
    ace15_file(path, text=1024)


def _talk(path: Path) -> None:
    talk_file(path, TALKING, EARS["num_hidden_layers"] * HEARD, blocks=2)


def _lora_for(folder: str, model: str, prefix: str, within: str = "") -> Writer:
    """A LoRA for two matrices of the blocks of the small *model*, whose names in the LoRA begin with *prefix* instead of *within*."""

    def write(path: Path) -> None:
        source = path.with_name(f"of {path.name}")
        next(write for of, pattern, write in MODELS if of == folder and re.search(pattern, model))(source)
        shapes = {name: value.shape for name, value in load_file(source).items()}
        source.unlink()
        names = [name for name, shape in shapes.items() if len(shape) == 2 and name.startswith(within) and STORED.search(name)]
        chance, tensors = torch.Generator().manual_seed(8), {}
        for name in (names[0], names[-1]):
            layer = prefix + name.removeprefix(within).removesuffix(".weight")
            outer, inner = shapes[name]
            tensors[f"{layer}.lora_down.weight"] = torch.randn(4, inner, generator=chance)
            tensors[f"{layer}.lora_up.weight"] = torch.randn(outer, 4, generator=chance) * 0.1
            tensors[f"{layer}.alpha"] = torch.tensor(4.0)
        save_file(tensors, str(path))

    return write


def _ltx(kind: str, vae: str) -> Writer:
    return lambda path: ltx_checkpoint(path, kind, vae)


def _told_ltx() -> dict[str, torch.Tensor]:
    """Gemma 4 with the projections of LTX 2.5 and a tokenizer."""
    chance, tensors = torch.Generator().manual_seed(9), gemma4_files.gemma4_tensors("12b")
    for sense, width in (("video", WIDTH), ("audio", SOUND_WIDTH)):
        name = f"text_embedding_projection.{sense}_aggregate_embed.weight"
        tensors[name] = torch.randn(width, 49 * gemma4_files.WIDTH, generator=chance) * 0.02
    return gemma4_files.with_tokenizer(tensors)


def _ltx_video_vae(path: Path) -> None:
    save_file(diffusion_vae_tensors(), str(path), diffusion_vae_metadata())


def _ltx_sound_vae(path: Path) -> None:
    tensors = {name: value.contiguous() for name, value in ltx_sound_tensors("2.3").items()}
    save_file(tensors, str(path), ltx_sound_metadata("2.3"))


OLD_VAE = KlVaeConfig(3, 4, (32, 32, 64, 64), 1, True)
NETWORK, CHECKPOINT = "diffusion_model.", "model.diffusion_model."
# The folder, a pattern of names, and what writes the model; the first that matches holds.
MODELS: tuple[tuple[str, str, Writer], ...] = (
    ("diffusion_models", r"^(hunyuanvideo1\.5|capybara)", lambda path: hunyuan_file(path, context=TEXT)),
    ("diffusion_models", r"s2v", _wan("s2v", heard=HEARD, layers=3)),
    ("diffusion_models", r"^humo", _wan("humo", width=TALKING, heard=8 * 5 * WHISPER["d_model"], channels=36)),
    ("diffusion_models", r"SCAIL_2", _wan("scail2", width=TALKING)),
    ("diffusion_models", r"^causal_forcing", _wan("causal")),
    ("diffusion_models", r"^(fastvideo_)?fasth3", lambda path: minimax_file(path, context=TEXT, curve=9, gates=True)),
    ("diffusion_models", r"^ltx-2\.5", lambda path: ltx_file(path, "2.5")),
    ("diffusion_models", r"animate_2", _wan("animate2")),
    ("diffusion_models", r"vace", _wan("vace", width=TALKING)),
    ("diffusion_models", r"2\.2_fun_camera", _wan("camera_2.2")),
    ("diffusion_models", r"fun_camera", _wan("camera")),
    ("diffusion_models", r"2\.2_fun_control_5B", _wan("5b", channels=148, reference=48)),
    ("diffusion_models", r"2\.2_fun_inpaint_5B", _wan("5b", channels=100)),
    ("diffusion_models", r"2\.2_fun_control", _wan("t2v", channels=52, reference=16)),
    ("diffusion_models", r"2\.2_(fun_inpaint|i2v)", _wan("t2v", channels=36)),
    ("diffusion_models", r"fun_control", _wan("control")),
    ("diffusion_models", r"flf2v", _wan("flf")),
    ("diffusion_models", r"ti2v_5B", _wan("5b")),
    ("diffusion_models", r"WanMove|I2V-14B", _wan("i2v", width=TALKING)),
    ("diffusion_models", r"i2v|fun_inp|chrono_edit", _wan("i2v")),
    ("diffusion_models", r"t2v|bernini", _wan("t2v")),
    ("diffusion_models", r"^minimax_h3", lambda path: minimax_file(path, context=TEXT, curve=9)),
    ("diffusion_models", r"^acestep_v1\.5", _ace15),
    ("diffusion_models", r"^lotus", _saved(_lotus)),
    ("diffusion_models", r"^seedvr2_3b", lambda path: seedvr_file(path, "3b")),
    ("diffusion_models", r"^seedvr2_7b", lambda path: seedvr_file(path, "7b")),
    ("checkpoints", r"^ace_step_1\.5", _later_song_checkpoint),
    ("checkpoints", r"^ace_step_v1", _saved(_song_checkpoint)),
    ("checkpoints", r"^stable_audio_3", stable_audio3_file),
    ("checkpoints", r"^stable-audio-open", lambda path: stable_audio_file(path, inner=128)),
    ("checkpoints", r"^sam3\.1", sam3_file),
    ("checkpoints", r"^ltx-2\.3", _ltx("2.3", "2.3")),
    ("checkpoints", r"^ltx-2-", _ltx("2", "2")),
    ("checkpoints", r"^ltx-video-2b-v0\.9\.5", _ltx("0.9.5, by a small T5", "0.9.1")),
    ("checkpoints", r"^ltx-video-2b-v0\.9\.", _ltx("0.9, by a small T5", "0.9")),
    ("text_encoders", r"^umt5_xxl", _saved(lambda: _t5("umt5xxl"))),
    ("text_encoders", r"^t5xxl", _saved(lambda: _with_pieces("t5xxl", 4000))),
    ("text_encoders", r"^t5-base", _saved(lambda: _t5("t5base"))),
    ("text_encoders", r"^t5gemma", _saved(lambda: with_words(t5_gemma_tensors()))),
    ("text_encoders", r"^qwen3\.5_2b", _saved(lambda: qwen35_tensors(eyes=False, vocabulary=VOCABULARY + LATER))),
    ("text_encoders", r"^gemma4-12b", _saved(_told_ltx)),
    ("text_encoders", r"^gemma4_e2b", _saved(lambda: gemma4_files.with_tokenizer(gemma4_files.gemma4_tensors("e2b")))),
    ("text_encoders", r"^gemma_3_12B", _saved(lambda: _with_pieces("gemma3_12b", 512))),
    ("text_encoders", r"^qwen3vl_32b", _saved(lambda: minimax_text_tensors(width=TEXT, vocabulary=VOCABULARY))),
    ("text_encoders", r"^qwen_2\.5_vl_7b", _saved(lambda: qwen_text_tensors(vocabulary=VOCABULARY, width=TEXT))),
    ("text_encoders", r"^byt5", _saved(byt5_tensors)),
    ("text_encoders", r"^qwen_0\.6b", _saved(lambda: _qwen3(VOCABULARY, 1024))),
    ("text_encoders", r"^qwen_(1\.7|4)b", _saved(lambda: _qwen3(CODES, 64))),
    ("vae", r"^ltx-2\.5-video", _ltx_video_vae),
    ("vae", r"^ltx-2\.5-audio", _ltx_sound_vae),
    ("vae", r"^wan2\.2", lambda path: wan_vae_file(path, layout=wan22_vae_layout)),
    ("vae", r"^wan", lambda path: wan_vae_file(path, seed=int("alpha_channel" in path.name))),
    ("vae", r"^hunyuanvideo15", hunyuan_vae_file),
    ("vae", r"^seedvr2", seedvr_vae_file),
    ("vae", r"^minimax_h3_video", vae_file),
    ("vae", r"^minimax_h3_audio", audio_vae_file),
    ("vae", r"^ace_1\.5", oobleck_file),
    ("vae", r"^vae-ft-mse", _saved(lambda: vae_tensors(OLD_VAE))),
    ("clip_vision", r"^clip_vision_h", _saved(_clip_h)),
    ("clip_vision", r"^sigclip", _saved(_siglip)),
    ("audio_encoders", r"^whisper", _saved(_whisper)),
    ("audio_encoders", r"^wav2vec2_large", _saved(_ears(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True))),
    ("audio_encoders", r"^wav2vec2-chinese-base", _saved(_ears())),
    ("latent_upscale_models", r"^ltx-2", ltx_upsampler_file),
    ("frame_interpolation", r"^film.*fp16", lambda path: interpolation_file(path, "film", dtype=torch.float16)),
    ("model_patches", r"infiniteTalk", _talk),
    ("loras", r"^gemma", _lora_for("text_encoders", "gemma_3_12B", "text_encoders.gemma3_12b.transformer.")),
    ("loras", r"^ltx_?-?2\.3", _lora_for("checkpoints", "ltx-2.3", NETWORK, CHECKPOINT)),
    ("loras", r"^ltx", _lora_for("checkpoints", "ltx-2-", NETWORK, CHECKPOINT)),
    ("loras", r"^minimax", _lora_for("diffusion_models", "minimax_h3", NETWORK)),
    ("loras", r"lightx2v_I2V|CausVid", _lora_for("diffusion_models", "Wan2_1-I2V-14B", NETWORK)),
    ("loras", r"", _lora_for("diffusion_models", "wan2.1_t2v", NETWORK)),
)
