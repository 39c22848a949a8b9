"""Models in memory as rows: of a cache that names them, of the server's list of loaded models, and of what the pack holds itself."""

import sys
from types import SimpleNamespace

import pytest
from panel_fakes import CPU, Loaded, indexed, preloader_of, with_torch

from comfy.ram_model_cache.named import ModelFacts
from custom_nodes.keepwarm.panel.memory import MemoryModels

FACTS = ModelFacts("k1", "model of a.safetensors", "model", (), "kept", 40, 0, 2, False, 5.0, 1.5)


@pytest.fixture
def files(tmp_path, monkeypatch):
    with_torch(monkeypatch)
    return indexed(tmp_path, checkpoints__a=40, vae__v=7, vae__broken=3)


def memory(files, loaded=(), facts=None, known=None, preloader=None, can_move=True):
    """The models of a server whose cache has *facts* (None: it has no cache) and knows the loaded models *known* by name."""
    named = SimpleNamespace(facts=lambda: facts, name_of=lambda one: (known or {}).get(one))
    cache = None if facts is None else SimpleNamespace(named=named)
    management = SimpleNamespace(current_loaded_models=list(loaded))
    return MemoryModels(management, cache, files, lambda: preloader, can_move, lambda: 1000.0)


def changed(**more):
    return ModelFacts(**{**{name: getattr(FACTS, name) for name in FACTS.__slots__}, **more})


def test_a_kept_model_is_a_row_with_its_file_users_and_what_can_be_done(files, tmp_path):
    (row,) = memory(files, facts=[changed(paths=(str(tmp_path / "a.safetensors"),))]).rows()
    assert (row.id, row.name, row.kind, row.files) == ("cache:k1", "a.safetensors", "model", (("checkpoints", "a.safetensors"),))
    assert (row.tier, row.ram_bytes, row.vram_bytes, row.users, row.used_at, row.reload_s) == ("ram", 40, 0, 2, 995.0, 1.5)
    assert list(row.actions) == ["hold", "drop"] and row.in_memory


def test_the_tier_and_the_actions_follow_where_it_is(files):
    models = memory(files, facts=[changed(device_bytes=30, held=True), changed(state="lent"), changed(state="doomed")])
    on_device, lent, doomed = models.rows()
    assert (on_device.tier, list(on_device.actions)) == ("vram", ["let-go", "to-ram", "drop"])
    assert (lent.tier, lent.actions, doomed.tier) == ("in use", (), "in use")
    (still,) = memory(files, facts=[changed(device_bytes=30)], can_move=False).rows()
    assert list(still.actions) == ["hold", "drop"]


def test_loaded_models_that_no_cache_knows_are_rows_of_their_own(files, tmp_path):
    path = str(tmp_path / "a.safetensors")
    whole, part, host, dead = Loaded(path=path), Loaded(on_device=30, used=False), Loaded(CPU), Loaded()
    dead.model = None
    found = memory(files, [whole, part, host, dead], facts=[changed(device_bytes=100)], known={}).rows()
    assert [row.tier for row in found] == ["vram", "vram", "vram", "ram"]
    assert [(row.name, row.vram_bytes, row.ram_bytes, row.users) for row in found[1:]] == [
        ("a.safetensors", 100, 0, 1),
        ("UNet", 30, 70, 0),
        ("UNet", 0, 100, 1),
    ]
    assert all(row.actions == () for row in found[1:]) and len({row.id for row in found}) == 4


def test_loaded_models_of_the_cache_are_not_listed_twice_and_found_by_their_row(files):
    loaded = Loaded()
    models = memory(files, [loaded], facts=[changed(device_bytes=100)], known={loaded: "k1"})
    assert [row.id for row in models.rows()] == ["cache:k1"]
    assert models.loaded("cache:k1") == [loaded] and models.loaded("cache:other") == []


def test_what_the_pack_holds_itself_is_listed_once_also_when_it_is_loaded(files, tmp_path):
    preloader = preloader_of("v.safetensors", "broken.safetensors", root=tmp_path)
    models = memory(files, preloader=preloader)
    (held,) = models.rows()
    assert (held.id, held.name, held.kind, held.tier, held.held) == ("held:v.safetensors", "v.safetensors", "VAE", "ram", True)
    assert (held.ram_bytes, list(held.actions), held.files) == (7, ["let-go"], (("vae", "v.safetensors"),))
    assert models.held_entry(held.id).wanted.files == ("v.safetensors",) and models.held_entry("held:x") is None
    (loaded,) = memory(files, [Loaded(path=str(tmp_path / "v.safetensors"))], preloader=preloader).rows()
    assert (loaded.id, loaded.tier, loaded.held, list(loaded.actions)) == (held.id, "vram", True, ["let-go"])
    assert memory(files).rows() == []


def test_the_list_of_loaded_models_is_not_asked_for_before_torch_is_there(files, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert memory(files, [Loaded()]).rows() == []
