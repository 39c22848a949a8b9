"""What the preloader makes of loaders that fail, files that vanish and models that do not fit; and what it says of each."""

import logging
from types import SimpleNamespace

import pytest

from custom_nodes.keepwarm.preload.config import parse_config
from custom_nodes.keepwarm.preload.preloader import Preloader, make_plan, plan_text
from custom_nodes.keepwarm.preload.rest import missing_models


class Loader:
    """Stands in for the server's VAE loader."""

    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"vae_name": (["small", "large", "broken"],)}}

    def load(self, vae_name):
        return (vae_name,)


class Keeper:
    """Holds up to 100 bytes."""

    at_once = 2

    def __init__(self):
        self.held = set()

    def load(self, call):
        name = call.inputs["vae_name"]
        if name == "broken":
            raise ValueError("damaged")
        if name == "small":
            self.held.add(name)
        return "" if name in self.held else "no room for it"

    def holds(self, call):
        return call.inputs["vae_name"] in self.held

    def let_go(self, call):
        was_held = self.holds(call)
        self.held.discard(call.inputs["vae_name"])
        return was_held

    def capacity_bytes(self):
        return 100

    def room_bytes(self):
        return 100


@pytest.fixture
def folders(tmp_path):
    for name, size in (("small", 10), ("large", 200), ("broken", 5)):
        (tmp_path / name).write_bytes(bytes(size))
    return SimpleNamespace(get_full_path=lambda kind, name: str(tmp_path / name))


def planned(folders, *names, node_class=Loader):
    config = parse_config({"models": {"vaes": [{"vae_name": name, "cache_key": name} for name in names]}})
    return make_plan(config, {"VAELoader": node_class}, folders)


def test_a_failing_loader_and_a_model_that_does_not_fit_leave_the_rest(folders, caplog):
    preloader = Preloader(planned(folders, "small", "large", "broken"), Keeper())
    with caplog.at_level(logging.INFO):
        preloader.run()
    assert {model["cache_key"]: model["state"] for model in preloader.described()["models"]} == {
        "small": "held",
        "large": "not held",
        "broken": "failed",
    }
    assert not preloader.is_complete()
    assert "there is no room in 0.0 MB for VAE large (models.vaes[1])" in caplog.text and "(models.vaes[1]): no room for it" in caplog.text
    assert "Preloaded 1 of 3 models" in caplog.text and "models.vaes[2]): ValueError: damaged" in caplog.text


def test_files_that_vanish_later_disturb_nothing(folders, tmp_path):
    preloader = Preloader(planned(folders, "small"), Keeper())
    (tmp_path / "small").unlink()
    preloader.run()
    assert preloader.described()["models"][0]["file_bytes"] == 10
    assert "together 0.0 MB" in plan_text(preloader.plan, 100)


def test_what_cannot_be_loaded_is_a_problem_with_its_place(folders):
    class Odd(Loader):
        @classmethod
        def INPUT_TYPES(cls):
            raise RuntimeError("no inputs")

    assert [str(problem) for problem in planned(folders, "gone").problems] == [
        "models.vaes[0]: there is no file 'gone' in the folder vae; found: small, large, broken"
    ]
    (problem,) = planned(folders, "small", node_class=Odd).problems
    assert problem.path == "models.vaes[0]" and "RuntimeError: no inputs" in problem.text


def test_a_plan_that_does_not_fit_says_so(folders):
    text = plan_text(planned(folders, "small", "large"), 100)
    assert (
        "does not fit" in text
        and "not held will be VAE large (models.vaes[1])" in text
        and "does not fit" not in plan_text(planned(folders, "small"), 100)
    )


def test_what_was_let_go_is_loaded_and_held_again(folders):
    preloader = Preloader(planned(folders, "small"), Keeper())
    preloader.run()
    entry = preloader.find("small")
    assert preloader.is_complete()
    assert preloader.let_go(entry) and not preloader.is_complete() and preloader.described_entry(entry)["state"] == "let go"
    preloader.load(entry)
    assert preloader.described_entry(entry)["state"] == "held"
    preloader.keeper.held.clear()
    described = preloader.described_entry(entry)
    assert described["state"] == "not held" and "dropped" in described["why"]


def test_what_is_missing_of_the_config_is_what_was_dropped_and_nobody_let_go(folders, tmp_path):
    preloader = Preloader(planned(folders, "small", "large", "broken"), Keeper())
    preloader.run()
    assert [one.name for one in missing_models(preloader)] == ["VAE large"]
    preloader.keeper.held.clear()
    small, large = missing_models(preloader)
    assert (small.name, large.name) == ("VAE small", "VAE large") and small.key != large.key
    before = small.states()
    small.run()
    assert not preloader.keeper.held
    small.settle()
    assert preloader.keeper.held == {"small"} and [one.name for one in missing_models(preloader)] == ["VAE large"]
    (tmp_path / "small").write_bytes(bytes(11))
    assert small.states() != before
    preloader.let_go(preloader.find("large"))
    assert not missing_models(preloader)
