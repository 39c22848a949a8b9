"""Text to picture over HTTP with small models of each image family: files that open, the same bits on a small simulated accelerator."""

import io

import pytest
import text_encoder_files
import torch
from flux3_files import flux3_tensors
from ideogram_files import ideogram_tensors
from image_family_files import (
    FLUX2_VAE,
    as_bytes,
    chroma_tensors,
    cosmos_tensors,
    ernie_config,
    flux2_tensors,
    flux_relative_config,
    hidream_tensors,
    krea2_tensors,
    llama_tensors,
    llama_tokenizer_json,
    mage_tensors,
    mage_vae_tensors,
    omnigen_tensors,
    qwen21_tensors,
    qwen21_vae_layout,
    sd3_tensors,
    tekken_json,
    vae_tensors,
)
from picture_prompts import from_parts, node
from PIL import Image
from pixeldit_files import pixeldit_tensors
from quantised_files import quantised_model
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import load_file, save_file
from text_encoder_files import GEMMA_WIDTH
from transformer_files import flux_file_name, lumina2_config, lumina_tensors, qwen3_vl_tensors, qwen_text_tensors, random_tensors
from wan_vae_files import wan_vae_tensors

from comfy.families.kl_vae_config import KlVaeConfig
from comfy.quantisation.kitchen import INSTALL

pytestmark = pytest.mark.timeout(900)

SIMULATED_MIB = "12"  # less than most of the models take
WIDTH = 32  # of text models
SIXTEEN_CHANNELS = KlVaeConfig(3, 16, (32, 32, 64, 64), 1, False)


def qwen3(layers=28):
    return qwen_text_tensors(eyes=False, normalised=True, vocabulary=VOCABULARY, width=WIDTH, layers=layers)


def flux2():
    mistral = {**llama_tensors(layers=40, width=WIDTH), "tekken_model": as_bytes(tekken_json())}
    return {
        "diffusion_models/flux2": flux2_tensors(context=3 * WIDTH),
        "text_encoders/mistral": mistral,
        "text_encoders/ministral": {**llama_tensors(layers=26, width=WIDTH), "tekken_model": mistral["tekken_model"]},
        "diffusion_models/ernie": random_tensors(ernie_config(context=WIDTH)),
        "text_encoders/qwen3": qwen3(),
        "vae/flux2": vae_tensors(FLUX2_VAE),
    }


def sd3():
    t5 = {**text_encoder_files.text_model("t5xxl"), "tokenizer_json": as_bytes(text_encoder_files.tokenizer_json())}
    pooled = 2 * text_encoder_files.CLIP_WIDTH
    return {
        "diffusion_models/sd3": sd3_tensors(context=text_encoder_files.T5_WIDTH, pooled=pooled, twice=(0,), normalised=True),
        **{f"text_encoders/{name}": text_encoder_files.text_model(name) for name in ("clip_l", "clip_g")},
        "text_encoders/t5xxl": t5,
        "vae/sixteen": vae_tensors(SIXTEEN_CHANNELS),
    }


def anima():
    tensors = qwen_text_tensors(eyes=False, normalised=True, vocabulary=VOCABULARY, width=1024, layers=1)
    return {
        "diffusion_models/anima": cosmos_tensors(adapter=1024, vocabulary=32128),
        "text_encoders/qwen3_06b": {name: value.half() for name, value in tensors.items()},
        "vae/wan": wan_vae_tensors(),
    }


def chroma():
    return {"diffusion_models/chroma": chroma_tensors(context=text_encoder_files.T5_WIDTH)}


def hidream():
    carried = {"tokenizer_json": as_bytes(llama_tokenizer_json())}
    sizes = {"text": text_encoder_files.T5_WIDTH, "llama": WIDTH, "pooled": 2 * text_encoder_files.CLIP_WIDTH}
    return {
        "diffusion_models/hidream": hidream_tensors(**sizes),
        "text_encoders/llama": {**llama_tensors(layers=4, width=WIDTH, vocabulary=128010), **carried},
    }


def krea2():
    return {
        "diffusion_models/krea2": krea2_tensors(context=WIDTH),
        "text_encoders/qwen3vl_4b": qwen3_vl_tensors(vocabulary=VOCABULARY, width=WIDTH, layers=36),
    }


def qwen21():
    return {
        "diffusion_models/qwen21": qwen21_tensors(context=WIDTH),
        "text_encoders/qwen3vl_8b": qwen3_vl_tensors(large=True, vocabulary=VOCABULARY, width=WIDTH),
        "vae/qwen21": wan_vae_tensors(layout=qwen21_vae_layout),
    }


def mage():
    return {"diffusion_models/mage": mage_tensors(context=WIDTH), "vae/mage": mage_vae_tensors()}


def omnigen():
    return {
        "diffusion_models/omnigen2": omnigen_tensors(context=WIDTH),
        "text_encoders/qwen25_3b": qwen_text_tensors(vocabulary=VOCABULARY, width=WIDTH, keys=2),
        "diffusion_models/boogu": omnigen_tensors(context=WIDTH, double=2),
    }


def ideogram():
    qwen = qwen3_vl_tensors(large=True, vocabulary=VOCABULARY, width=WIDTH, layers=36)
    return {
        "diffusion_models/ideogram4": ideogram_tensors(context=WIDTH),
        "diffusion_models/ideogram4_unconditional": ideogram_tensors(context=WIDTH, seed=1),
        "text_encoders/qwen3vl_8b_whole": qwen,
    }


def flux3():
    return {
        "diffusion_models/flux3": flux3_tensors(context=WIDTH),
        "diffusion_models/flux3_few_steps": flux3_tensors(context=WIDTH, few_steps=True),
    }


def lumina2():
    gemma = {**text_encoder_files.text_model("gemma2_2b"), "tokenizer_json": as_bytes(text_encoder_files.tokenizer_json())}
    network = lumina_tensors(lumina2_config(context=text_encoder_files.GEMMA_WIDTH))
    return {"diffusion_models/lumina2": network, "text_encoders/gemma2": gemma}


def cosmos():
    t5 = {**text_encoder_files.text_model("t5xxl_old"), "tokenizer_json": as_bytes(text_encoder_files.tokenizer_json())}
    return {"diffusion_models/cosmos": cosmos_tensors(context=text_encoder_files.T5_WIDTH), "text_encoders/old_t5": t5}


def ovis():
    tensors = qwen_text_tensors(eyes=False, normalised=True, vocabulary=VOCABULARY, width=2048, layers=1)
    network = random_tensors(flux_relative_config("ovis", context=2048), file_name=flux_file_name)
    return {"diffusion_models/ovis": network, "text_encoders/qwen3_2b": {name: value.bfloat16() for name, value in tensors.items()}}


def longcat():
    tensors = qwen_text_tensors(vocabulary=VOCABULARY, width=3584, layers=1)
    network = random_tensors(flux_relative_config("longcat"), file_name=flux_file_name)
    return {"diffusion_models/longcat": network, "text_encoders/qwen25_7b": {name: value.bfloat16() for name, value in tensors.items()}}


FILES = (ideogram, flux3, flux2, sd3, anima, chroma, hidream, krea2, qwen21, mage, omnigen, lumina2, cosmos)
# Model, text encoders, their type, autoencoder.
PICTURES = {"Flux.2 dev": ("flux2", ["mistral"], "flux2", "flux2"), "Flux.2 klein": ("flux2", ["qwen3"], "flux2", "flux2")}
PICTURES |= {
    "Stable Diffusion 3": ("sd3", ["clip_l", "clip_g", "t5xxl"], None, "sixteen"),
    "Anima": ("anima", ["qwen3_06b"], "stable_diffusion", "wan"),
    "Chroma": ("chroma", ["t5xxl"], "chroma", "sixteen"),
    "HiDream": ("hidream", ["clip_l", "clip_g", "t5xxl", "llama"], None, "sixteen"),
    "Mage-Flow": ("mage", ["qwen3vl_4b"], "mage", "mage"),
    "OmniGen2": ("omnigen2", ["qwen25_3b"], "omnigen2", "sixteen"),
    "ERNIE-Image": ("ernie", ["ministral"], "flux2", "flux2"),
    "Boogu": ("boogu", ["qwen3vl_8b"], "boogu", "sixteen"),
    "Ideogram 4": ("ideogram4", ["qwen3vl_8b_whole"], "ideogram4", "flux2"),
    "Flux.3 klein": ("flux3_few_steps", ["qwen3vl_4b"], "flux3", "flux2"),
    "Krea 2": ("krea2", ["qwen3vl_4b"], "krea2", "wan"),
    "Qwen-Image 2.1": ("qwen21", ["qwen3vl_8b"], "qwen_image", "qwen21"),
    "Lumina Image 2": ("lumina2", ["gemma2"], "lumina2", "sixteen"),
    "Cosmos-Predict2": ("cosmos", ["old_t5"], "cosmos", "wan"),
}
# Those whose text encoders are told by their widths, with words for all of which there are 600 MB and more.
WIDE_FILES, WIDE = (ovis, longcat), {"Ovis-Image": ("ovis", ["qwen3_2b"], "ovis", "sixteen")}
WIDE |= {"LongCat-Image": ("longcat", ["qwen25_7b"], "longcat_image", "sixteen")}


def text_encoder(names, kind):
    """The loader's node for as many files."""
    if len(names) == 1:
        return node("CLIPLoader", clip_name=f"{names[0]}.safetensors", type=kind, device="default")
    given = {f"clip_name{number}": f"{name}.safetensors" for number, name in enumerate(names, 1)}
    return node(
        {2: "DualCLIPLoader", 3: "TripleCLIPLoader", 4: "QuadrupleCLIPLoader"}[len(names)], **given, **({"type": kind} if kind else {})
    )


def workflow(model, encoders, kind, vae, seed=5):
    """Text to picture from separate files, as the official templates do it."""
    return from_parts(model, text_encoder(encoders, kind), vae, seed)


def with_second_network(prompt):
    """*prompt* of Ideogram 4 guided by its second network, which gets no text, on its own schedule."""
    guider = {"model": ["model", 0], "positive": ["positive", 0], "model_negative": ["second", 0], "negative": ["nothing", 0], "cfg": 4.0}
    sampled = {"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["sampler", 0], "sigmas": ["sigmas", 0]}
    return {
        **{name: own for name, own in prompt.items() if name not in ("negative", "sample")},
        "second": node("UNETLoader", unet_name="ideogram4_unconditional.safetensors", weight_dtype="default"),
        "nothing": node("ConditioningZeroOut", conditioning=["positive", 0]),
        "noise": node("RandomNoise", noise_seed=5),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("Ideogram4Scheduler", steps=2, width=256, height=256, mu=0.5, std=1.75),
        "guider": node("DualModelGuider", **guider),
        "sample": node("SamplerCustomAdvanced", **sampled, latent_image=["latent", 0]),
    }


def looking_at_pictures(prompt):
    """*prompt* of Flux.3 with two pictures to look at, at the size of the first, and a place in its text."""
    given = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["vae", 0], "resolution": "native"}
    box = {"x": 8, "y": 8, "width": 32, "height": 16, "metadata": {"type": "obj", "text": "", "desc": "a roof", "palette": []}}
    drawn = node("CreateBoundingBoxes", width=64, height=64, editor_state={"__value__": [box]})
    told = node("Flux3LayoutPrompt", element=["boxes", 2], prompt="In <ref_image_0>, make <obj_1> red")
    sampled = {"positive": ["references", 0], "negative": ["references", 1], "latent_image": ["references", 2]}
    return {
        **{name: own for name, own in prompt.items() if name != "latent"},
        "picture": node("EmptyImage", width=64, height=48, batch_size=1, color=0x336699),
        "other": node("EmptyImage", width=32, height=32, batch_size=1, color=0x993311),
        "boxes": drawn,
        "told": told,
        "positive": node("CLIPTextEncode", text=["told", 0], clip=["clip", 0]),
        "references": node("ReferenceMultiLatent", **given, **{"images.image0": ["picture", 0], "images.image1": ["other", 0]}),
        "sample": node("KSampler", **{**prompt["sample"]["inputs"], **sampled}),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models, with Qwen's tokenizer beside the text encoders."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "text_encoders/qwen25_tokenizer", "vae"):
        (folder / kind).mkdir(parents=True)
    (folder / "text_encoders" / "qwen25_tokenizer" / "tokenizer.json").write_text(qwen_tokenizer_json(), encoding="utf-8")
    text_encoder_files.write_tokenizer(folder / "text_encoders" / "t5")
    write(folder, FILES)
    return folder


def write(folder, families):
    for family in families:
        for name, tensors in family().items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")


def with_models(start_server, files, *flags, name, texts="--fp32-text-enc"):
    server = start_server(texts, "--offline", *flags, name=name, environment={"OMP_NUM_THREADS": "1"})
    for kind in ("diffusion_models", "text_encoders", "vae"):
        place = server.base / "models" / kind
        place.mkdir(parents=True, exist_ok=True)
        for file in (files / kind).iterdir():
            (place / file.name).symlink_to(file)
    return server


def pixels(server, prompt):
    run = server.run(prompt, timeout_s=400)
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    with Image.open(io.BytesIO(run.file_bytes())) as image:
        assert image.size == (64, 48)
        return image.convert("RGB").tobytes()


def test_pictures_of_every_family(start_server, files):
    server = with_models(start_server, files, name="server")
    pictures = {name: pixels(server, workflow(*parts)) for name, parts in PICTURES.items()}
    pictures["Ideogram 4, both networks"] = pixels(server, with_second_network(workflow(*PICTURES["Ideogram 4"])))
    looking = looking_at_pictures(workflow("flux3", *PICTURES["Flux.3 klein"][1:]))
    pictures["Flux.3, looking at pictures"] = pixels(server, looking)
    assert all(len(set(picture)) > 20 for picture in pictures.values())  # not flat
    assert len(set(pictures.values())) == len(pictures)


@pytest.mark.long
def test_pictures_are_the_same_bits_on_a_small_accelerator(start_server, files):
    unlimited = with_models(start_server, files, name="unlimited")
    reference = {name: pixels(unlimited, workflow(*parts)) for name, parts in PICTURES.items()}
    unlimited.stop()
    limited = with_models(start_server, files, "--simulated-vram-mb", SIMULATED_MIB, name="limited")
    for name, parts in PICTURES.items():
        assert pixels(limited, workflow(*parts)) == reference[name], name


@pytest.mark.long
def test_pixels_are_made_without_an_autoencoder(start_server, files):
    pytest.importorskip("sentencepiece")
    spiece = torch.frombuffer(bytearray(text_encoder_files.sentence_piece_model(begins=True)), dtype=torch.uint8)
    gemma = {**text_encoder_files.text_model("gemma2_2b", vocabulary=512), "spiece_model": spiece}
    for name, tensors in (("text_encoders/gemma", gemma), ("diffusion_models/pixeldit", pixeldit_tensors(context=GEMMA_WIDTH))):
        save_file(tensors, files / f"{name}.safetensors")
    server = with_models(start_server, files, name="pixels")
    prompt = workflow("pixeldit", ["gemma"], "pixeldit", "")
    prompt["vae"] = node("VAELoader", vae_name="pixel_space")
    prompt["latent"] = node("EmptyChromaRadianceLatentImage", width=64, height=48, batch_size=1)
    assert len(set(pixels(server, prompt))) > 20


@pytest.mark.long
def test_files_in_w4a8_make_pictures(start_server, files):
    pytest.importorskip("comfy_kitchen", reason=INSTALL)
    names = {"diffusion_models": ("flux3", ""), "text_encoders": ("qwen3vl_4b", "model.language_model.")}
    for folder, (name, prefix) in names.items():
        stored, _, _ = quantised_model("w4a8", load_file(files / folder / f"{name}.safetensors"), prefix)
        assert any(key.endswith(".weight_s_rel") for key in stored)
        save_file({key: value.contiguous() for key, value in stored.items()}, files / folder / f"{name}_w4a8.safetensors")
    server = with_models(start_server, files, name="codes")
    picture = pixels(server, workflow("flux3_w4a8", ["qwen3vl_4b_w4a8"], "flux3", "flux2"))
    assert len(set(picture)) > 20
    assert "asym_w4a8_int8" in server.log()


@pytest.mark.long
def test_pictures_of_families_with_wide_texts_are_the_same_bits_on_a_small_accelerator(start_server, files):
    write(files, WIDE_FILES)
    made = []
    for flags in ((), ("--simulated-vram-mb", SIMULATED_MIB)):
        server = with_models(start_server, files, *flags, name=f"wide{len(flags)}", texts="--bf16-text-enc")
        made.append({name: pixels(server, workflow(*parts)) for name, parts in WIDE.items()})
        server.stop()
    assert made[0] == made[1]
    assert all(len(set(picture)) > 20 for picture in made[0].values()) and len(set(made[0].values())) == len(WIDE)


def about_pictures(prompt):
    """*prompt* of Qwen-Image 2.1 with an instruction about two pictures in place of its text, at the size of the first."""
    encoded = node(
        "TextEncodeQwenImage21", clip=["clip", 0], prompt="<image1> like <image2>", negative_prompt="", vae=["vae", 0], resolution=0
    )
    encoded["inputs"] |= {"images.image_1": ["picture", 0], "images.image_2": ["other", 0]}
    sampled = {"model": ["cache", 0], "positive": ["encoded", 0], "negative": ["encoded", 1], "latent_image": ["encoded", 2]}
    return {
        **{name: own for name, own in prompt.items() if name not in ("positive", "negative", "latent")},
        "picture": node("EmptyImage", width=64, height=96, batch_size=1, color=0x336699),
        "other": node("EmptyImage", width=32, height=64, batch_size=1, color=0x993311),
        "encoded": encoded,
        "cache": node("QwenImage21Cache", model=["model", 0], device="cpu", dtype="int8"),
        "sample": node("KSampler", **{**prompt["sample"]["inputs"], **sampled}),
    }


def test_qwen_image_21_looks_at_pictures_and_makes_transparent_ones(start_server, files):
    server = with_models(start_server, files, name="looking")
    run = server.run(about_pictures(workflow(*PICTURES["Qwen-Image 2.1"])), timeout_s=400)
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    with Image.open(io.BytesIO(run.file_bytes())) as image:
        assert image.size == (64, 96) and image.mode == "RGBA" and len(set(image.tobytes())) > 20
