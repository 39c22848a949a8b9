"""Choosing and serving the web frontend."""

import argparse
import importlib.util
import logging
import sys
import types

import pytest
from yarl import URL

from app import frontend_management
from app.frontend_management import DEFAULT_VERSION_STRING, FrontendManager, FrontendMissing, check_comfy_packages_versions
from app.routes.frontend_static import FrontendRoutes
from app.routes.template_assets import embedded_docs_folder, find_template_assets


@pytest.fixture
def page(tmp_path):
    root = tmp_path / "page"
    (root / "scripts").mkdir(parents=True)
    (root / "index.html").write_text("<html>page</html>")
    (root / "scripts" / "app.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    return root


async def test_index_is_never_stored_by_the_browser(serve, page):
    client = await serve(FrontendRoutes(str(page)))
    answer = await client.get("/")
    assert (answer.status, await answer.text()) == (200, "<html>page</html>")
    assert "no-store" in answer.headers["Cache-Control"]
    assert answer.headers["Expires"] == "0"
    assert (await client.head("/")).status == 200


async def test_files_have_validators_and_ranges(serve, page):
    client = await serve(FrontendRoutes(str(page)))
    answer = await client.get("/scripts/app.js")
    assert "javascript" in answer.headers["Content-Type"]
    assert "ETag" in answer.headers
    assert "Last-Modified" in answer.headers
    assert (await client.get("/scripts/app.js", headers={"Range": "bytes=0-2"})).status == 206


@pytest.mark.parametrize(
    "path",
    [
        "/unknown",
        "/docs/KSampler/en.md",
        "/docs/KSampler.md",
        "/templates/index.json",
        "/scripts/none.js",
        "/scripts",
        "/scripts/",
        "/" + "x" * 300,
        "/..%2Fsecret.txt",
        "/%2e%2e/secret.txt",
        "/scripts/..%2F..%2Fsecret.txt",
        "/a%00b",
    ],
)
async def test_unknown_paths_are_not_the_page(serve, page, path):
    client = await serve(FrontendRoutes(str(page)))
    answer = await client.get(URL(path, encoded=True))
    assert answer.status in (400, 403, 404)
    assert "page" not in await answer.text()
    assert await answer.text() != "secret"


async def test_templates_and_docs_are_served_from_where_they_are(serve, page, tmp_path):
    (tmp_path / "docs" / "KSampler").mkdir(parents=True)
    (tmp_path / "docs" / "KSampler" / "en.md").write_text("# help")
    (tmp_path / "t.json").write_text("[]")
    client = await serve(FrontendRoutes(str(page), {"index.json": str(tmp_path / "t.json")}, str(tmp_path / "docs")))
    assert await (await client.get("/templates/index.json")).json() == []
    assert await (await client.get("/docs/KSampler/en.md")).text() == "# help"
    assert (await client.get("/docs/KSampler/fr.md")).status == 404
    assert (await client.get("/templates/t.json")).status == 404


async def test_missing_page_says_what_to_install(serve):
    client = await serve(FrontendRoutes(None, missing_message="pip install page"))
    answer = await client.get("/")
    assert (answer.status, await answer.text()) == (503, "pip install page")
    assert (await client.get("/x")).status == 404


def test_installed_package_is_the_default():
    assert FrontendManager.init_frontend(DEFAULT_VERSION_STRING) == FrontendManager.default_frontend_path()


@pytest.mark.parametrize("wanted", ["Comfy-Org/ComfyUI_frontend@0.0.1", "Comfy-Org/ComfyUI_frontend@prerelease", "nonsense"])
def test_other_version_falls_back_with_a_message(caplog, wanted):
    assert FrontendManager.init_frontend(wanted) == FrontendManager.default_frontend_path()
    assert "served" in caplog.text


def test_installed_version_by_number_needs_no_message(caplog):
    FrontendManager.init_frontend(f"Comfy-Org/ComfyUI_frontend@v{FrontendManager.get_installed_frontend_version()}")
    assert caplog.text == ""


def test_absent_package_is_reported_with_the_pip_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FrontendMissing, match=r"-m pip install comfyui-frontend-package==\d"):
        FrontendManager.init_frontend(DEFAULT_VERSION_STRING)


@pytest.mark.parametrize("text", ["", "x", "a/b", "a@1.0.0", "a/b@", "a/b@x", "/b@1.0.0", "a/b@1.0", "a/b@1.0.0\n", "a/b/c@1.0.0"])
def test_malformed_version_strings_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        FrontendManager.parse_version_string(text)


def test_a_version_string_is_taken_apart():
    assert FrontendManager.parse_version_string("Comfy-Org/ComfyUI_frontend@v1.2.3") == ("Comfy-Org", "ComfyUI_frontend", "v1.2.3")


def test_older_package_than_required_is_warned_about(monkeypatch, caplog):
    required = {"comfyui-frontend-package": "999.0.0", "numpy": "99.0.0"}
    monkeypatch.setattr(frontend_management, "get_required_packages_versions", lambda: required)
    monkeypatch.setattr(frontend_management, "log_startup_warning", logging.warning)
    check_comfy_packages_versions()
    assert "comfyui-frontend-package" in caplog.text
    assert "numpy" not in caplog.text
    assert FrontendManager.get_comfy_package_versions()[0]["required"] == "999.0.0"


def test_templates_of_a_package_that_lists_its_assets(monkeypatch):
    assets = [types.SimpleNamespace(filename=name) for name in ("t.json", "t-1.webp")]
    template = types.SimpleNamespace(template_id="t", assets=assets)
    package = types.SimpleNamespace(iter_templates=lambda: [template], get_asset_path=lambda template_id, name: f"/x/{template_id}/{name}")
    monkeypatch.setitem(sys.modules, "comfyui_workflow_templates", package)
    assert find_template_assets() == {"t.json": "/x/t/t.json", "t-1.webp": "/x/t/t-1.webp"}


def test_templates_of_a_package_with_a_folder(monkeypatch, tmp_path):
    folder = tmp_path / "comfyui_workflow_templates" / "templates" / "sub"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (tmp_path / "comfyui_workflow_templates" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "comfyui_workflow_templates", raising=False)
    assert find_template_assets() == {"sub/a.json": str(folder / "a.json")}
    monkeypatch.delitem(sys.modules, "comfyui_workflow_templates", raising=False)


def test_broken_template_package_is_reported_and_left_out(monkeypatch, caplog):
    def fail():
        raise RuntimeError("no manifest")

    monkeypatch.setitem(sys.modules, "comfyui_workflow_templates", types.SimpleNamespace(iter_templates=fail))
    assert find_template_assets() is None
    assert "no manifest" in caplog.text


def test_optional_packages_may_be_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfyui_workflow_templates", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert find_template_assets() is None
    assert embedded_docs_folder() is None
