"""Names of models that are not here: they exist, compare as they should, and say what is missing when they are used."""

import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest
import torch

import comfy.controlnet
import comfy.model_base
import comfy.supported_models
import comfy.supported_models_base
from comfy.ldm.aura.mmdit import DoubleAttention
from comfy.placeholders import MissingModelError, placeholders
from comfy.quantisation import kitchen

ROOT = pathlib.Path(__file__).resolve().parents[2]


def modules_with_placeholders() -> list[str]:
    files = [file for folder in ("comfy", "comfy_extras") for file in (ROOT / folder).rglob("*.py")]
    tables = [file for file in [*files, ROOT / "nodes.py"] if "= placeholders(" in file.read_text(encoding="utf-8")]
    return sorted(str(file.relative_to(ROOT))[:-3].replace("/", ".") for file in tables)


def placeholders_of(module) -> list:
    """What the module's table makes, and not what it or another module really holds."""
    names = [name for name in dir(module) if name not in vars(module)]
    found = [getattr(module, name) for name in names if name not in ("PROGRESS_BAR_ENABLED", "PROGRESS_BAR_HOOK")]
    return [one for one in found if one.__name__ not in vars(sys.modules[one.__module__])]


@pytest.mark.parametrize("name", modules_with_placeholders())
def test_every_name_exists_once_and_is_refused_when_used(name, monkeypatch):
    monkeypatch.setattr(kitchen, "is_installed", lambda: False)  # with it, names of quantised tensors are real
    module = importlib.import_module(name)
    for one in placeholders_of(module):
        assert getattr(module, one.__name__) is one
        assert inspect.isclass(one) or inspect.isfunction(one)
        with pytest.raises(MissingModelError, match=one.__name__):
            one()


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        ("comfy.ldm.aura.mmdit.DoubleAttention", "torch.nn.Module"),
        ("comfy.ldm.wan.model.WanT2VCrossAttention", "comfy.ldm.wan.model.WanSelfAttention"),
        ("comfy.model_base.Flux", "comfy.model_base.BaseModel"),
        ("comfy.model_base.Chroma", "comfy.model_base.Flux"),
        ("comfy.model_base.SDXL_instructpix2pix", "comfy.model_base.SDXL"),
        ("comfy.supported_models.FluxSchnell", "comfy.supported_models.Flux"),
        ("comfy.supported_models.SD20", "comfy.supported_models_base.BASE"),
        ("comfy.controlnet.T2IAdapter", "comfy.controlnet.ControlBase"),
        ("comfy.controlnet.ControlLora", "comfy.controlnet.ControlNet"),
        ("comfy.latent_formats.HunyuanVideo", "comfy.latent_formats.LatentFormat"),
        ("comfy.ldm.modules.attention.SpatialVideoTransformer", "comfy.ldm.modules.attention.SpatialTransformer"),
        ("comfy.text_encoders.flux.T5XXLTokenizer", "comfy.sd1_clip.SDTokenizer"),
    ],
)
def test_classes_derive_as_in_comfyui(child, parent):
    classes = []
    for path in (child, parent):
        module, _, name = path.rpartition(".")
        classes.append(getattr(importlib.import_module(module), name))
    assert issubclass(*classes)


def test_a_model_that_exists_here_is_not_an_instance_of_another_kind():
    config = comfy.supported_models.SD15({"in_channels": 4})
    assert isinstance(config, comfy.supported_models_base.BASE)
    assert not isinstance(config, comfy.supported_models.SDXL | comfy.supported_models.SD20 | comfy.supported_models.Flux)
    assert not issubclass(comfy.model_base.SDXL, comfy.model_base.SDXL_instructpix2pix)
    assert not isinstance(torch.zeros(1), importlib.import_module("comfy.model_patcher").QuantizedTensor)


def test_the_same_class_under_two_names_is_one():
    noise = importlib.import_module("comfy.ldm.modules.encoders.noise_aug_modules")
    assert comfy.model_base.CLIPEmbeddingNoiseAugmentation is noise.CLIPEmbeddingNoiseAugmentation


def test_a_pack_may_derive_from_it_and_use_what_it_brings():
    class Adapter(comfy.controlnet.T2IAdapter):
        def __init__(self):
            comfy.controlnet.ControlBase.__init__(self)

    assert isinstance(Adapter(), comfy.controlnet.T2IAdapter)
    assert DoubleAttention.forward is torch.nn.Module.forward


def test_the_error_names_the_packs_file_the_name_and_the_models(tmp_path):
    pack = tmp_path / "custom_nodes" / "some-pack" / "nodes.py"
    pack.parent.mkdir(parents=True)
    code = "def make():\n    from comfy.ldm.aura.mmdit import DoubleAttention\n    return DoubleAttention(16, 16, 16)\n"
    space: dict = {}
    exec(compile(code, str(pack), "exec"), space)  # noqa: S102
    with pytest.raises(MissingModelError) as caught:
        space["make"]()
    assert str(caught.value) == (
        "some-pack/nodes.py, line 3, in make(), needs comfy.ldm.aura.mmdit.DoubleAttention, which belongs to AuraFlow models; "
        "this server does not have it"
    )


def test_other_names_are_not_attributes():
    getter, listing = placeholders("comfy.gligen", "models", "One two() Three:object")
    with pytest.raises(AttributeError, match="module 'comfy.gligen' has no attribute 'Four'"):
        getter("Four")
    assert {"One", "two", "Three"} <= set(listing())
    assert not hasattr(comfy.model_base, "NoSuchModel")


def test_submodules_are_attributes_without_an_import_of_their_own():
    code = (
        "import sys, comfy\n"
        "assert [name for name in sys.modules if name.startswith('comfy.')] == ['comfy.lazy_import']\n"
        "assert comfy.sd.load_checkpoint_guess_config and comfy.ldm.models.autoencoder.AutoencoderKL\n"
        "assert comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel and comfy.k_diffusion.sampling.sample_euler\n"
        "assert comfy.ldm.lightricks.vae.pixel_norm.PixelNorm and comfy.sd1_clip and comfy.ops and comfy.float\n"
        "assert not hasattr(comfy, 'nothing_of_the_kind') and not hasattr(comfy.ldm, '__wrapped__')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=100)
