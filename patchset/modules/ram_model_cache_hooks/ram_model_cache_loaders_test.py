"""Wrapped loaders over fake models: what is read when, which loads bypass the cache, and whose errors callers see."""

import functools
import json
import logging
import threading

import pytest
from ram_cache_fakes import FakeCLIP, FakeLoadedModel, FakePatcher, FakeVAE, patcher

from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.ram_model_cache.storage import base_of, patcher_of
from comfy.ram_model_cache_hooks.loaders import CachedLoaders, independently, part_sizes, release_recreation

CKPT = {
    "model.diffusion_model.w": ([10, 10], "F16", 2),
    "first_stage_model.w": ([5, 10], "F16", 2),
    "cond_stage_model.w": ([2, 10], "F16", 2),
}


def write(path, tensors=CKPT):
    header, position = {"__metadata__": {"a": "b"}}, 0
    for name, (shape, dtype, item) in tensors.items():
        size = functools.reduce(int.__mul__, shape, 1) * item
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(position))
    return str(path)


class Upstream:
    """ComfyUI's loaders by name and arguments; notes every call."""

    def __init__(self):
        self.calls, self.fails, self.without_clip, self.is_checkpoint = [], None, False, True
        self.again = self.load_checkpoint_guess_config

    def load_checkpoint_guess_config(
        self,
        ckpt_path,
        output_vae=True,
        output_clip=True,
        output_clipvision=False,
        embedding_directory=None,
        output_model=True,
        model_options={},  # noqa: B006
        te_model_options={},  # noqa: B006
        disable_dynamic=False,
    ):
        self.calls.append([name for name, wanted in (("model", output_model), ("clip", output_clip), ("vae", output_vae)) if wanted])
        if self.fails:
            raise self.fails
        open(ckpt_path, "rb").close()
        model, clip, vae = patcher(400), FakeCLIP(patcher(80)), FakeVAE(patcher(200))
        for part in (model, clip.patcher, vae.patcher):
            part.cached_patcher_init = (self.again, (ckpt_path,), 0)
        if not self.is_checkpoint:
            vae = FakeVAE(patcher(1))
            vae.patcher = vae.first_stage_model = None
            return model, None, vae, None
        return model if output_model else None, None if self.without_clip or not output_clip else clip, vae if output_vae else None, None

    def load_clip(self, ckpt_paths, embedding_directory=None, clip_type=1, model_options={}, disable_dynamic=False):  # noqa: B006
        self.calls.append(list(ckpt_paths))
        return FakeCLIP(patcher(80))

    def load_diffusion_model(self, unet_path, model_options={}, disable_dynamic=False):  # noqa: B006
        self.calls.append(unet_path)
        return patcher(400)


class Net:
    """A ControlNet: settings of its own over a wrapped model."""

    def __init__(self, wrapped):
        self.control_model_wrapped, self.strength = wrapped, 1.0

    def copy(self):
        twin = Net(self.control_model_wrapped)
        twin.strength = self.strength
        return twin


@pytest.fixture
def cache(owner):
    made = RamModelCache(CacheSettings(10_000, headroom_bytes=0), owner.hooks(), start_thread=lambda run: None)
    yield made
    assert made.check() == []


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
def loaders(cache):
    return CachedLoaders(cache, 4, lambda: False, lambda base: None)


@pytest.fixture
def checkpoint(loaders, upstream):
    loaded = loaders.checkpoint(upstream.load_checkpoint_guess_config)
    upstream.again = loaded
    return loaded


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "a.safetensors")


def test_a_second_load_reads_nothing_and_shares_the_weights(checkpoint, upstream, path, cache):
    first = checkpoint(path, output_vae=True)
    second = checkpoint(path, True, True, embedding_directory=None)
    assert upstream.calls == [["model", "clip", "vae"]]
    assert [type(part) for part in second] == [FakePatcher, FakeCLIP, FakeVAE, type(None)]
    assert second[0] is not first[0]
    assert second[0].model is first[0].model
    assert base_of(second[0]) is base_of(first[0])
    assert cache.stats().counters.read_bytes == 200 + 100 + 40


def test_only_the_part_that_was_evicted_is_read(checkpoint, upstream, path, cache):
    checkpoint(path)
    with cache._changing() as table:
        table.evict(next(entry for key, entry in table.entries.items() if key.component == "vae"), "a test", "test")
    assert checkpoint(path)[2].patcher.model is not None
    assert upstream.calls == [["model", "clip", "vae"], ["vae"]]


def test_parts_that_were_not_asked_for_are_not_loaded(checkpoint, upstream, path):
    assert checkpoint(path, output_clip=False, output_vae=False)[1:] == (None, None, None)
    assert checkpoint(path, output_model=False)[0] is None
    assert upstream.calls == [["model"], ["clip", "vae"]]


def test_everything_is_reserved_at_the_device_s_size_before_the_read(cache, upstream, path):
    seen = []
    loaders = CachedLoaders(cache, 4, lambda: False, lambda base: seen.append(cache.stats().reserved_bytes))
    loaders.checkpoint(upstream.load_checkpoint_guess_config)(path)
    assert seen == [4 * 170] * 3


def test_nothing_is_reserved_for_weights_that_stay_in_their_file(cache, upstream, path):
    seen = []
    loaders = CachedLoaders(cache, 4, lambda: True, lambda base: seen.append(cache.stats().reserved_bytes))
    loaders.checkpoint(upstream.load_checkpoint_guess_config)(path)
    assert seen == [0] * 3


def test_a_replaced_file_is_read_again(checkpoint, upstream, path, tmp_path, cache):
    checkpoint(path)
    write(tmp_path / "new", {**CKPT, "more": ([3], "F32", 4)})
    (tmp_path / "new").replace(path)
    checkpoint(path)
    assert len(upstream.calls) == 2
    assert cache.stats().kept == 3


def test_a_missing_part_is_remembered(checkpoint, upstream, path):
    upstream.without_clip = True
    assert checkpoint(path)[1] is None
    assert checkpoint(path)[1] is None
    assert len(upstream.calls) == 1


def test_a_file_that_is_not_a_checkpoint_is_read_once_and_gives_the_same_unusable_vae(checkpoint, upstream, path):
    upstream.is_checkpoint = False
    first, second = checkpoint(path), checkpoint(path)
    assert len(upstream.calls) == 1
    assert second[0].model is first[0].model
    assert second[2].first_stage_model is None


def test_text_encoders_differ_by_embedding_folder_and_options(checkpoint, upstream, path):
    checkpoint(path, embedding_directory=["x"])
    checkpoint(path, embedding_directory=["y"])
    checkpoint(path, embedding_directory=["y"], te_model_options={"dtype": 1})
    assert upstream.calls == [["model", "clip", "vae"], ["clip"], ["model", "clip", "vae"]]


def test_re_creation_gets_weights_of_its_own(checkpoint, upstream, path, cache):
    model, clip, vae, _ = checkpoint(path)
    for shared in (model, clip.patcher, vae.patcher):
        # ComfyUI copies the note from patcher to clone; the fakes do not
        load, arguments, place = base_of(shared).cached_patcher_init
        anew = load(*arguments, disable_dynamic=True)[place]
        assert anew.model is not shared.model
        other = load(*arguments)[place]
        assert other.model not in (anew.model, shared.model)
        again, arguments, place = other.cached_patcher_init
        assert again(*arguments)[place].model not in (other.model, shared.model)
    assert len(upstream.calls) == 10
    assert cache.stats().counters.bypasses == 9


def test_loads_that_cannot_be_compared_bypass_the_cache_and_say_so(checkpoint, upstream, path, cache, caplog):
    cache.begin_prompt("p")
    with caplog.at_level(logging.INFO):
        for options in ({"model_options": {"custom_operations": Net}}, {"te_model_options": {"hook": print}}, {"disable_dynamic": True}):
            checkpoint(path, **options)
    assert len(upstream.calls) == 3
    assert [receipt["tier"] for receipt in cache.end_prompt("p")] == ["bypass"] * 3
    assert "holds a class" in caplog.text
    assert "weights of its own" in caplog.text
    assert cache.stats().kept == 0


def test_re_creating_a_bypassed_load_gives_independent_weights_too(checkpoint, upstream, path):
    checkpoint(path)
    bypassed = checkpoint(path, disable_dynamic=True)[0]
    load, arguments, place = bypassed.cached_patcher_init
    load(*arguments)
    assert len(upstream.calls) == 3


def test_the_loader_s_errors_reach_the_caller_and_leave_nothing_behind(checkpoint, upstream, path, cache, tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint(str(tmp_path / "missing"))
    upstream.fails = RuntimeError("could not detect")
    with pytest.raises(RuntimeError, match="could not detect"):
        checkpoint(path)
    assert cache.stats().reserved_bytes == 0
    upstream.fails = None
    assert checkpoint(path)[0] is not None


def test_a_truncated_header_is_the_loader_s_to_complain_about(checkpoint, upstream, path):
    with open(path, "r+b") as file:
        file.truncate(30)
    upstream.fails = ValueError("incomplete")
    with pytest.raises(ValueError, match="incomplete"):
        checkpoint(path)


def test_two_threads_read_a_file_once(checkpoint, upstream, path):
    start, found = threading.Barrier(2), []

    def work():
        start.wait()
        found.append(checkpoint(path)[0].model)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]
    assert len(upstream.calls) == 1


def test_text_encoders_of_several_files_and_diffusion_models_are_cached(loaders, upstream, tmp_path):
    paths = [write(tmp_path / name) for name in ("one", "two")]
    load_clip = loaders.text_encoder(upstream.load_clip)
    assert load_clip(paths, clip_type=2).patcher.model is load_clip(ckpt_paths=paths, clip_type=2).patcher.model
    load_clip(paths, clip_type=3)
    load_clip(paths[::-1], clip_type=2)
    load_unet = loaders.diffusion_model(upstream.load_diffusion_model)
    assert load_unet(paths[0]).model is load_unet(paths[0], {}).model
    load_unet(paths[0], model_options={"dtype": "x"})
    assert upstream.calls == [paths, paths, paths[::-1], paths[0], paths[0]]


def test_one_file_through_two_loaders_is_two_models(checkpoint, loaders, upstream, path):
    load_unet = loaders.diffusion_model(upstream.load_diffusion_model)
    assert checkpoint(path)[0].model is not load_unet(path).model


def test_control_nets_share_weights_but_no_settings(loaders, path, cache):
    calls = []

    def load_controlnet(ckpt_path, model=None, model_options={}):  # noqa: B006
        calls.append(model)
        return Net(patcher(300))

    load = loaders.controlnet(load_controlnet)
    first = load(path)
    first.strength = 0.3
    second = load(path)
    assert second.strength == 1.0
    assert second.control_model_wrapped.model is first.control_model_wrapped.model
    assert second.control_model_wrapped is not first.control_model_wrapped
    model = object()
    load(path, model)
    assert calls == [None, model]
    assert cache.stats().counters.bypasses == 1


def test_control_nets_without_a_patcher_and_files_without_one_work(loaders, path):
    class Adapter:
        pass

    assert isinstance(loaders.controlnet(lambda ckpt_path, model=None, model_options={}: Adapter())(path), Adapter)  # noqa: B006
    assert loaders.controlnet(lambda ckpt_path, model=None, model_options={}: None)(path) is None  # noqa: B006


def test_vaes_of_one_file_are_cached_by_the_node(loaders, path):
    class VAELoader:
        video_taes, image_taes, loads = ["taehv"], ["taesd"], 0

        @loaders.vae_node(lambda folder, name: {("vae", "a"): path, ("vae_approx", "taehv.pth"): path}.get((folder, name)))
        def load_vae(self, vae_name):
            self.loads += 1
            return (FakeVAE(patcher(50)),)

    node = VAELoader()
    assert node.load_vae("a")[0].patcher.model is node.load_vae(vae_name="a")[0].patcher.model
    assert node.loads == 1
    node.load_vae("taehv.pth")
    assert node.loads == 1
    for name in ("taesd", "pixel_space", "nowhere", "taesd"):
        node.load_vae(name)
    assert node.loads == 5


def test_clones_end_at_the_object_the_loader_built_and_evicted_ones_go(checkpoint, path, cache, owner):
    parts = checkpoint(path)
    loaded_model = FakeLoadedModel(parts[0])
    cache.reclaim(loaded_model)
    assert base_of(parts[0]).parent is None
    del parts
    cache.clear()
    assert owner.forgotten == [loaded_model]
    assert cache.stats().kept + cache.stats().lent == 0


def test_names_in_prompts_find_the_files_they_mean(checkpoint, loaders, tmp_path):
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub" / "a.safetensors")
    checkpoint(path)
    for names in ({"a.safetensors"}, {"sub/a.safetensors", "x"}):
        assert loaders.paths_named(names) == [path]
    assert loaders.paths_named({"b/a.safetensors", "safetensors", ""}) == []


def test_sizes_by_part(tmp_path):
    path = write(tmp_path / "a")
    assert part_sizes([path], ("model", "clip", "vae")) == {"model": (200, 100), "clip": (40, 20), "vae": (100, 50)}
    assert part_sizes([path, path], ("clip",)) == {"clip": (680, 340)}
    (tmp_path / "pickle").write_bytes(bytes(1000))
    assert part_sizes([str(tmp_path / "pickle")], ("model", "vae")) == {"model": (1000, 500), "vae": (0, 0)}
    (tmp_path / "odd").write_bytes((4).to_bytes(8, "little") + b"[12]")
    assert part_sizes([str(tmp_path / "odd")], ("vae",)) == {"vae": (12, 6)}


def test_recreation_is_released_once():
    one = patcher(10)
    one.cached_patcher_init = (print, (), 1)
    release_recreation(one)
    noted = one.cached_patcher_init
    release_recreation(one)
    assert one.cached_patcher_init == noted
    assert noted[1:] == ((), 1)
    assert independently(noted[0]) is noted[0]
    release_recreation(None)
    assert patcher_of(one) is one
