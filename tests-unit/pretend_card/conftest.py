"""What the tests on pretend cards share: small files of models and add-ons, written once."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import shutil
from collections.abc import Iterator

import pytest
from pretend.guard import NoPretendCard, register_guard
from small_files import write_small_files

import folder_paths
import nodes

HERE = pathlib.Path(__file__).parent
KINDS = ("checkpoints", "loras", "controlnet", "embeddings", "vae_approx", "vae", "diffusion_models", "text_encoders")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where torch allows no pretend card, say so instead of failing. On a busy machine a prompt may take minutes."""
    own = [item for item in items if item.path.is_relative_to(HERE)]
    for item in own:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))
    try:
        register_guard()
    except NoPretendCard as error:
        for item in own:
            item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """What was there before is left out when garbage is collected, as each of these tests does often: late in a long session that takes
    a second each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """The folder of models that :func:`small_files.write_small_files` writes; removed at the end."""
    folder = tmp_path_factory.mktemp("small-files")
    write_small_files(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def models(small_files: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """All node classes are there, and the small files are found by name."""
    if "KSampler" not in nodes.NODE_CLASS_MAPPINGS or "SamplerCustom" not in nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False))
    for kind in KINDS:
        folders, extensions = folder_paths.folder_names_and_paths[kind]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([*folders, str(small_files / kind)], extensions))
    folder_paths.filename_list_cache.clear()
    yield small_files
    folder_paths.filename_list_cache.clear()
