"""Wrapped loaders: what they return, keep and read again, with the real patcher and model manager on the CPU."""

import gc
import weakref

import pytest
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.ram_models.loaders import RamModels

MIB = 1024**2
CPU = torch.device("cpu")
NONE: dict = {}


class Net(torch.nn.Module):
    """One MiB of weights."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(512, 512), requires_grad=False)
        self.device = CPU
        self.model_loaded_weight_memory = 0
        self.current_weight_patches_uuid = None

    def get_dtype(self):
        return torch.float32


class Clip:
    def __init__(self, patcher):
        self.patcher = patcher

    def clone(self):
        return Clip(self.patcher.clone())


class Vae:
    """Has no ``clone`` of its own, as ComfyUI's."""

    def __init__(self, patcher):
        if patcher is not None:
            self.patcher = patcher


@pytest.fixture
def disk(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return tmp_path


class Loaders:
    """The three loaders as ComfyUI has them, wrapped; *read* says what was read."""

    def __init__(self, cap_mib=100, with_vae=True):
        self.models, self.read = RamModels(cap_mib * MIB), []

        def patcher():
            return ModelPatcher(Net(), CPU, CPU)

        def load_checkpoint_guess_config(
            ckpt_path,
            output_vae=True,
            output_clip=True,
            output_clipvision=False,
            embedding_directory=None,
            output_model=True,
            model_options=NONE,
            te_model_options=NONE,
            disable_dynamic=False,
        ):
            self.read.append((str(ckpt_path)[-1], output_model, output_clip, output_vae))
            model = patcher() if output_model else None
            if model is not None:
                model.cached_patcher_init = (self.checkpoint, (ckpt_path, False, False), 0)
            vae = Vae(patcher() if with_vae else None) if output_vae else None
            return model, Clip(patcher()) if output_clip else None, vae, None

        def load_clip(ckpt_paths, embedding_directory=None, clip_type=1, model_options=NONE, disable_dynamic=False):
            self.read.append("clip")
            return Clip(patcher())

        def load_diffusion_model(unet_path, model_options=NONE, disable_dynamic=False):
            self.read.append("model")
            return patcher()

        self.plain = load_checkpoint_guess_config, load_clip, load_diffusion_model
        wrap = self.models.checkpoint, self.models.text_encoder, self.models.diffusion_model
        self.checkpoint, self.clip, self.model = (decorate(load) for decorate, load in zip(wrap, self.plain))

    def kept_bytes(self):
        return sum(entry.size_bytes() for entry in self.models.cache.entries.values())


def test_off_means_off():
    loaders = Loaders(0)
    assert (loaders.checkpoint, loaders.clip, loaders.model) == loaders.plain


def test_a_file_is_read_once_and_its_parts_are_clones_of_what_is_kept(disk):
    loaders = Loaders()
    first, again = loaders.checkpoint(disk / "a"), loaders.checkpoint(str(disk / "a"), output_clip=True)
    assert loaders.read == [("a", True, True, True)]
    assert first[0] is not again[0] and first[0].model is again[0].model and first[0].parent is again[0].parent
    assert first[1].patcher.model is again[1].patcher.model and first[2].patcher.model is again[2].patcher.model
    assert again[3] is None and loaders.kept_bytes() == 3 * MIB


def test_only_missing_parts_are_read(disk):
    loaders = Loaders()
    assert loaders.checkpoint(disk / "a", output_vae=False, output_clip=False)[1:] == (None, None, None)
    loaders.checkpoint(disk / "a")
    assert loaders.read == [("a", True, False, False), ("a", False, True, True)]


def test_a_part_without_weights_is_not_looked_for_again(disk):
    loaders = Loaders(with_vae=False)
    assert loaders.checkpoint(disk / "a")[2] is loaders.checkpoint(disk / "a")[2] is not None
    assert len(loaders.read) == 1


def test_text_encoders_and_diffusion_models_by_their_files_and_options(disk):
    loaders = Loaders()
    for _ in range(2):
        loaders.clip([disk / "a", disk / "b"], clip_type=1)
        loaders.clip([disk / "a", disk / "b"], clip_type=2)
        loaders.model(disk / "a", model_options={"dtype": torch.float16})
        loaders.model(disk / "a")
    assert loaders.read == ["clip", "clip", "model", "model"]


def test_patches_of_one_clone_are_not_on_the_next(disk):
    loaders = Loaders()
    first = loaders.model(disk / "a")
    plain = first.model.weight.clone()
    first.add_patches({"weight": (torch.ones(512, 512),)})
    model_management.load_models_gpu([first])
    assert torch.equal(first.model.weight, plain + 1)
    second = loaders.model(disk / "a")
    assert loaders.read == ["model"]
    model_management.load_models_gpu([second])
    assert torch.equal(second.model.weight, plain)


def test_when_the_clones_are_gone_the_manager_follows_to_what_is_kept(disk):
    loaders = Loaders()
    clone = loaders.model(disk / "a")
    model_management.load_models_gpu([clone])
    kept, ended = clone.parent, weakref.ref(clone)
    del clone
    gc.collect()
    assert ended() is None and any(loaded.model is kept for loaded in model_management.current_loaded_models)
    model_management.cleanup_models_gc()
    model_management.load_models_gpu([loaders.model(disk / "a")])
    assert loaders.read == ["model"]


def test_what_is_let_go_is_freed_unless_it_is_in_use(disk):
    loaders = Loaders()
    used, unused = loaders.model(disk / "a"), weakref.ref(loaders.model(disk / "b").model)
    model_management.load_models_gpu([used])
    loaders.models.clear()
    gc.collect()
    assert unused() is None and used.parent is not None and loaders.kept_bytes() == 0
    model_management.load_models_gpu([used])
    model = weakref.ref(used.model)
    del used
    gc.collect()
    assert model() is None and all(loaded.model is not None for loaded in model_management.current_loaded_models)


def test_the_cap_holds_and_the_loaders_go_on(disk):
    loaders = Loaders(4)
    for _ in range(5):
        for name in "abc":
            assert all(part is not None for part in loaders.checkpoint(disk / name)[:3])
            assert loaders.kept_bytes() <= 4 * MIB
    assert len(loaders.read) < 15


def test_a_changed_file_is_read_again_and_the_old_weights_go(disk):
    loaders = Loaders()
    old = weakref.ref(loaders.model(disk / "a").model)
    (disk / "a").write_bytes(b"new")
    loaders.model(disk / "a")
    gc.collect()
    assert loaders.read == ["model", "model"] and old() is None and loaders.kept_bytes() == MIB


def test_weights_that_were_written_to_are_loaded_anew(disk):
    loaders = Loaders()
    loaders.model(disk / "a").model.weight.add_(1)
    loaders.model(disk / "a")
    assert loaders.read == ["model", "model"]


def test_weights_of_their_own_are_never_shared(disk):
    loaders = Loaders()
    model = loaders.checkpoint(disk / "a")[0]
    load, arguments, number = model.cached_patcher_init
    again = load(*arguments)[number]
    assert again.model is not model.model and len(loaders.read) == 2
    assert loaders.checkpoint(disk / "a", disable_dynamic=True)[0].model is not model.model


def test_options_that_cannot_be_compared_and_missing_files_are_the_loaders_matter(disk):
    loaders = Loaders()
    for _ in range(2):
        loaders.model(disk / "a", model_options={"custom_operations": torch.nn})
    loaders.model(disk / "none")
    assert len(loaders.read) == 3 and loaders.kept_bytes() == 0


def test_a_load_that_fails_leaves_nothing(disk):
    loaders = Loaders()

    def broken(unet_path, model_options=NONE, disable_dynamic=False):
        raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        loaders.models.diffusion_model(broken)(disk / "a")
    assert loaders.kept_bytes() == 0
