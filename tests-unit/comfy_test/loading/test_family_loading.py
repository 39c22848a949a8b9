"""From a file to a picture, what is read for it, and errors that name the file."""

import os

import pytest
import safetensors.torch
import torch
from diffusers_twins import in_diffusers_names
from small_models import small_checkpoint

import comfy.sd
from benchmarks.make_checkpoint import checkpoint_layout, family, write_checkpoint
from comfy import model_base
from comfy.families.diffusers_names import unet_names
from comfy.families.model_errors import IncompleteModelError, ModelFileError, UnknownModelError
from comfy.loading import checkpoint as checkpoint_loading
from comfy.weight_files.reader import WeightReader

FAMILIES = {"sd15": model_base.BaseModel, "sdxl": model_base.SDXL, "sdxl-refiner": model_base.SDXLRefiner}


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_a_checkpoint_encodes_denoises_and_decodes(name):
    model, clip, vae, vision = comfy.sd.load_checkpoint_guess_config(small_checkpoint(name))
    assert type(model.model) is FAMILIES[name] and vision is None
    states, pooled = clip.encode_from_tokens(clip.tokenize("a (small:1.2) test"), return_pooled=True)
    extra = {"y": model.model.encode_adm(pooled_output=pooled, device="cpu")} if model.model.adm_channels else {}
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 5
    denoised = model.model.apply_model(noisy, torch.tensor([5.0]), c_crossattn=states, **extra)
    picture = vae.decode(model.model.process_latent_out(denoised))
    assert picture.shape == (1, 64, 64, 3) and picture.isfinite().all() and picture.std() > 0.01
    again = comfy.sd.load_checkpoint_guess_config(small_checkpoint(name))[0]
    assert torch.equal(again.model.apply_model(noisy, torch.tensor([5.0]), c_crossattn=states, **extra), denoised)


@pytest.mark.parametrize("name", FAMILIES)
def test_conversion_copies_at_most_a_hundredth_of_the_file(name):
    """A file in the kept dtype: the parameters lie in one block per model, which hold the file's bytes and no others."""
    path = small_checkpoint(name, dtype="fp32")
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(path)
    held = used = 0
    for module in (model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model):
        storages = {parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes() for parameter in module.parameters()}
        assert len(storages) == (2 if hasattr(module, "clip_l") and hasattr(module, "clip_g") else 1)
        held += sum(storages.values())
        used += sum(parameter.nbytes for parameter in module.parameters())
    file_bytes = os.path.getsize(path)
    assert abs(held - used) <= 0.01 * file_bytes and abs(used - file_bytes) <= 0.02 * file_bytes


@pytest.mark.parametrize("name", FAMILIES)
def test_a_state_dict_in_the_kept_dtype_is_not_copied(name):
    tensors = safetensors.torch.load_file(small_checkpoint(name, dtype="fp32"))
    sizes = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in tensors.values()}
    total = sum(sizes.values())
    model, clip, vae, _ = comfy.sd.load_state_dict_guess_config(tensors)
    modules = (model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model)
    copied = {
        parameter.untyped_storage().data_ptr(): parameter.nbytes
        for module in modules
        for parameter in module.parameters()
        if parameter.untyped_storage().data_ptr() not in sizes
    }
    assert sum(copied.values()) <= 0.01 * total
    assert set(tensors) <= {"conditioner.embedders.0.model.logit_scale", "conditioner.embedders.1.model.logit_scale"}


def test_half_precision_files_are_cast_to_what_the_cpu_computes_in_but_for_text_encoders():
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint("sd15", dtype="fp16"))
    original = safetensors.torch.load_file(small_checkpoint("sd15", dtype="fp16"))
    network = model.model.diffusion_model
    assert model.model.get_dtype() is torch.float32 and model.model.manual_cast_dtype is None
    assert torch.equal(network.input_blocks[0][0].weight, original["model.diffusion_model.input_blocks.0.0.weight"].float())
    assert {parameter.dtype for module in (network, vae.first_stage_model) for parameter in module.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in clip.cond_stage_model.parameters()} == {torch.float16}
    exact = comfy.sd.load_checkpoint_guess_config(small_checkpoint("sd15", dtype="fp16"), te_model_options={"dtype": torch.float32})[1]
    prompt = clip.tokenize("a (small:1.2) test")
    for kept, whole in zip(clip.encode_from_tokens(prompt, return_pooled=True), exact.encode_from_tokens(prompt, return_pooled=True)):
        assert kept.dtype is torch.float32 and torch.equal(kept, whole)


@pytest.mark.parametrize(("stored", "kept"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_on_the_cpu_a_text_encoder_loses_nothing_of_its_file(stored, kept):
    path = small_checkpoint("sd15", dtype=stored)
    clip = comfy.sd.load_checkpoint_guess_config(path, output_model=False, output_vae=False)[1]
    assert {parameter.dtype for parameter in clip.cond_stage_model.parameters()} == {kept}
    weight = clip.cond_stage_model.clip_l.transformer.text_model.embeddings.token_embedding.weight
    file = safetensors.torch.load_file(path)
    assert torch.equal(weight, file["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"])


def test_weights_kept_in_another_dtype_are_cast_per_call():
    path = small_checkpoint("sd15", dtype="fp16", parts=("unet",))
    plain = comfy.sd.load_diffusion_model(path)
    kept = comfy.sd.load_diffusion_model(path, {"dtype": torch.float16})
    assert kept.model.get_dtype() is torch.float16 and kept.model.get_dtype_inference() is torch.float32
    noisy, states = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            kept.model.apply_model(noisy, torch.tensor([3.0]), c_crossattn=states),
            plain.model.apply_model(noisy, torch.tensor([3.0]), c_crossattn=states),
        )


def test_only_the_asked_components_are_read(monkeypatch):
    read = []
    original = WeightReader.read
    monkeypatch.setattr(WeightReader, "read", lambda self, keys, *rest: read.extend(keys) or original(self, keys, *rest))
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint(), output_model=False, output_clip=False)
    assert model is None and clip is None and vae is not None
    assert read and all(key.startswith("first_stage_model.") for key in read)


def test_a_new_patcher_can_be_made_from_the_file():
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint())
    for patcher in (model, clip.patcher, vae.patcher):
        function, arguments = patcher.cached_patcher_init
        other = function(*arguments)
        assert type(other) is type(patcher) and other.model is not patcher.model


def test_separate_files_give_the_same_model(tmp_path):
    tensors = safetensors.torch.load_file(small_checkpoint("sdxl"))
    settings = family("sdxl", 10).metadata()
    paths = {}
    for name, prefix in (
        ("unet", "model.diffusion_model."),
        ("clip_l", "conditioner.embedders.0.transformer."),
        ("clip_g", "conditioner.embedders.1.model."),
        ("vae", "first_stage_model."),
    ):
        paths[name] = str(tmp_path / f"{name}.safetensors")
        part = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        safetensors.torch.save_file(part, paths[name], metadata=settings)
    whole, clip, _, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint("sdxl"))
    unet = comfy.sd.load_diffusion_model(paths["unet"])
    both = comfy.sd.load_clip([paths["clip_g"], paths["clip_l"]])
    assert torch.equal(unet.model.diffusion_model.input_blocks[0][0].weight, whole.model.diffusion_model.input_blocks[0][0].weight)
    with torch.inference_mode():
        assert torch.equal(both.encode("a cat"), clip.encode("a cat"))
        assert comfy.sd.load_clip([paths["clip_l"]]).encode("a cat").shape == (1, 77, 64)
    assert comfy.sd.load_vae(paths["vae"]).latent_channels == 4
    with pytest.raises(UnknownModelError, match=r"vae\.safetensors is not a supported text model"):
        comfy.sd.load_clip([paths["vae"]])
    with pytest.raises(UnknownModelError, match="make no text encoder together.*CLIP-G . CLIP-L"):
        comfy.sd.load_clip([paths["clip_l"], paths["clip_l"]])
    with pytest.raises(RuntimeError, match="no VAE"):
        comfy.sd.load_vae(paths["unet"])


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_network_in_diffusers_names_is_the_same(name, tmp_path):
    published = comfy.sd.load_diffusion_model(small_checkpoint(name, parts=("unet",)))
    path = str(tmp_path / "diffusion_pytorch_model.safetensors")
    network = published.model.diffusion_model
    named = in_diffusers_names(network, unet_names(network.config))
    safetensors.torch.save_file(
        {key: tensor.contiguous().clone() for key, tensor in named.items()}, path, metadata=family(name, 10).metadata()
    )
    other = comfy.sd.load_diffusion_model(path)
    loaded = other.model.diffusion_model.state_dict()
    for key, tensor in network.state_dict().items():
        assert torch.equal(loaded[key], tensor)
    broken = {key: tensor.clone() for key, tensor in named.items() if key != "mid_block.resnets.0.conv1.weight"}
    safetensors.torch.save_file(broken, path, metadata=family(name, 10).metadata())
    with pytest.raises(IncompleteModelError, match=r"diffusion_pytorch_model\.safetensors: mid_block\.resnets\.0\.conv1\.weight"):
        comfy.sd.load_diffusion_model(path)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_checkpoint_is_the_one_that_was_loaded(name, tmp_path):
    path = str(tmp_path / "saved.safetensors")
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint(name))
    comfy.sd.save_checkpoint(path, model, clip, vae, metadata={"from": "test"})
    saved, original = safetensors.torch.load_file(path), safetensors.torch.load_file(small_checkpoint(name))
    expected = {key for key in original if not key.endswith("logit_scale")}
    assert set(saved) - {key for key in saved if "position_ids" in key or "model_sampling" in key} == expected
    assert all(torch.equal(saved[key], original[key]) for key in expected)


def test_older_text_encoder_names_are_understood(tmp_path):
    tensors = safetensors.torch.load_file(small_checkpoint())
    renamed = {key.replace("transformer.text_model.", "transformer."): tensor for key, tensor in tensors.items()}
    path = str(tmp_path / "old.safetensors")
    safetensors.torch.save_file(renamed, path, metadata=family("sd15", 10).metadata())
    clip = comfy.sd.load_checkpoint_guess_config(path, output_model=False, output_vae=False)[1]
    reference = comfy.sd.load_checkpoint_guess_config(small_checkpoint(), output_model=False, output_vae=False)[1]
    with torch.inference_mode():
        assert torch.equal(clip.encode("a cat"), reference.encode("a cat"))


def test_a_pickled_checkpoint_is_loaded(tmp_path):
    path = str(tmp_path / "model.ckpt")
    tensors = safetensors.torch.load_file(small_checkpoint(parts=("unet",)))
    torch.save({"state_dict": tensors}, path)
    model = comfy.sd.load_diffusion_model(path)
    assert torch.equal(model.model.diffusion_model.input_blocks[0][0].weight, tensors["model.diffusion_model.input_blocks.0.0.weight"])


def test_a_pickle_with_code_in_it_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (os.system, ("true",))

    path = str(tmp_path / "harmful.ckpt")
    torch.save({"state_dict": {"a": Harmful()}}, path)
    with pytest.raises(Exception, match=r"harmful\.ckpt"):
        comfy.sd.load_checkpoint_guess_config(path)


def test_errors_for_files_without_a_model_say_what_was_found(tmp_path):
    path = str(tmp_path / "other.safetensors")
    safetensors.torch.save_file({"layers.0.weight": torch.zeros(3)}, path)
    with pytest.raises(UnknownModelError, match=r"other\.safetensors holds no model.*1 tensors: layers\.0\.\* \(1\).*Supported: Stable"):
        comfy.sd.load_checkpoint_guess_config(path)
    assert comfy.sd.load_state_dict_guess_config({"a": torch.zeros(2)}) is None
    assert comfy.sd.load_diffusion_model_state_dict({"a": torch.zeros(2)}) is None
    with pytest.raises(FileNotFoundError):
        comfy.sd.load_checkpoint_guess_config(str(tmp_path / "absent.safetensors"))


def test_a_truncated_checkpoint_says_so(tmp_path):
    path = str(tmp_path / "short.safetensors")
    with open(small_checkpoint(), "rb") as source, open(path, "wb") as target:
        target.write(source.read()[:-1000])
    with pytest.raises(ModelFileError, match=r"short\.safetensors is cut short"):
        comfy.sd.load_checkpoint_guess_config(path)


def test_a_checkpoint_with_missing_tensors_names_the_first(tmp_path):
    path = str(tmp_path / "holes.safetensors")
    layout = checkpoint_layout(family("sd15", 10))
    layout.pop("model.diffusion_model.middle_block.0.in_layers.2.weight")
    write_checkpoint(path, layout, metadata=family("sd15", 10).metadata())
    with pytest.raises(IncompleteModelError, match=r"in .*holes\.safetensors: 1 of \d+ tensors are missing, first middle_block"):
        comfy.sd.load_checkpoint_guess_config(path)


def test_a_checkpoint_without_text_encoder_or_vae_loads_the_rest(caplog):
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint(parts=("unet",)))
    assert model is not None and clip is None and vae.first_stage_model is None
    assert "no text encoder" in caplog.text


def test_described_tensors_hold_no_weights():
    with WeightReader(small_checkpoint()) as reader:
        tensors = checkpoint_loading.described(comfy.weight_files.opening.FileSource(reader))
    assert len(tensors) == len(checkpoint_layout(family("sd15", 10))) and all(tensor.is_meta for tensor in tensors.values())
