"""Folders of their own for the tests of HTTP subsystems, and a client for one subsystem."""

from types import SimpleNamespace

import pytest
from aiohttp import web

import folder_paths
from app.files.body_budget import BODIES, BodyBudget


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """input, output, temp, user and custom_nodes below tmp_path, and a file beside them that no route may touch."""
    made = {name: tmp_path / name for name in ("input", "output", "temp", "user", "custom_nodes", "models")}
    for name, folder in made.items():
        folder.mkdir()
        if name in ("input", "output", "temp", "user"):
            monkeypatch.setattr(folder_paths, f"{name}_directory", str(folder))
    monkeypatch.setattr(
        folder_paths,
        "folder_names_and_paths",
        {
            "loras": ([str(made["models"])], {".safetensors"}),
            "embeddings": ([str(made["models"])], {".safetensors"}),
            "custom_nodes": ([str(made["custom_nodes"])], set()),
            "configs": ([str(made["models"])], {".yaml"}),
        },
    )
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    return SimpleNamespace(**made, root=tmp_path, secret=secret)


@pytest.fixture
def serve(aiohttp_client):
    """``await serve(subsystem)``: a client of an application that has only that subsystem's routes and mounts."""

    async def start(*subsystems):
        app = web.Application(client_max_size=1024 * 1024)
        app[BODIES] = BodyBudget()
        for subsystem in subsystems:
            routes = web.RouteTableDef()
            subsystem.add_routes(routes)
            app.add_routes(routes)
            if hasattr(subsystem, "add_static"):
                subsystem.add_static(app)
        return await aiohttp_client(app)

    return start
