"""The store that a flag names: off by default, refused with what to do, shown and emptied."""

import pytest

from app.running import lasting_weights
from comfy import model_management
from comfy.cli_args import args
from comfy.ram_model_store.folder import StoreRefused


class Models:
    """The owner of a store, or of none."""

    def __init__(self, store=None, refusal=""):
        self._store, self._refusal = store, refusal
        self.opened = 0

    def store(self):
        return self._store

    def open_store(self):
        self.opened += 1
        if self._refusal:
            raise StoreRefused(self._refusal)


class Store:
    """Notes why it was cleared."""

    cleared = ""

    def clear(self, why):
        self.cleared = why


@pytest.fixture
def use(monkeypatch):
    """Puts owners in place."""

    def put(models, flag=None):
        monkeypatch.setattr(model_management, "_models", models)
        monkeypatch.setattr(args, "ram_model_store", flag)
        return models

    return put


def test_without_the_flag_nothing_is_opened(use):
    models = use(Models())
    lasting_weights.open_store()
    lasting_weights.clear("asked")
    assert models.opened == 0 and lasting_weights.describe() == {"enabled": False}


def test_a_folder_that_is_refused_ends_the_start_with_the_reason(use):
    use(Models(refusal="chmod it"), "/somewhere")
    with pytest.raises(SystemExit, match="--ram-model-store /somewhere: chmod it"):
        lasting_weights.open_store()


def test_the_store_is_opened_shown_and_cleared(use, monkeypatch):
    store = Store()
    models = use(Models(store), "auto")
    lasting_weights.open_store()
    monkeypatch.setattr("comfy.ram_model_store.description.describe", lambda one: {"enabled": one is store})
    assert models.opened == 1 and lasting_weights.describe() == {"enabled": True}
    lasting_weights.clear("POST /free")
    assert store.cleared == "POST /free"
