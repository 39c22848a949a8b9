"""What packs bring besides nodes: scripts, translations, example workflows, subgraphs."""

import json

import pytest
from aiohttp import web
from hostile_names import HOSTILE_NAMES, encoded, plant_links

from app.custom_node_manager import CustomNodeManager
from app.routes.extension_list import ExtensionRoutes
from app.subgraph_manager import SubgraphManager


@pytest.fixture
def pack(folders):
    pack = folders.custom_nodes / "pack one"
    pack.mkdir()
    return pack


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.fixture
async def packs_client(aiohttp_client, folders, pack):
    async def start():
        app, routes, manager = web.Application(), web.RouteTableDef(), CustomNodeManager()
        manager.add_routes(routes, app, [("pack one", str(pack))])
        app.add_routes(routes)
        return await aiohttp_client(app)

    return start


async def test_scripts_of_the_page_and_the_packs_are_listed_with_quoted_names(serve, folders, pack):
    page = folders.root / "page"
    write(page / "extensions" / "core" / "a.js", "x")
    write(pack / "web" / "sub" / "ü b.js", "x")
    write(pack / "web" / "a.css", "x")
    write(pack / "web" / ".git" / "c.js", "x")
    client = await serve(ExtensionRoutes(str(page), {"pack one": str(pack / "web"), "gone": str(pack / "none")}))
    urls = await (await client.get("/extensions")).json()
    assert urls == ["/extensions/core/a.js", "/extensions/pack%20one/sub/%C3%BC%20b.js"]
    answer = await client.get(urls[1])
    assert (answer.status, await answer.text()) == (200, "x")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_names_leave_no_pack_folder(serve, folders, pack, name):
    write(pack / "web" / "a.js", "x")
    write(pack / "secret.txt", "secret")
    plant_links(pack / "web", folders.root)
    client = await serve(ExtensionRoutes(str(folders.root), {"p": str(pack / "web")}))
    answer = await client.get(encoded("/extensions/p/{}", name))
    assert answer.status in (400, 403, 404)


async def test_packs_without_scripts_give_an_empty_list(serve, folders):
    assert await (await (await serve(ExtensionRoutes(str(folders.root), {}))).get("/extensions")).json() == []


async def test_translations_are_merged_by_language(packs_client, folders, pack):
    write(pack / "locales" / "en" / "main.json", {"title": "one", "nodeDefs": {"A": {"x": 1}}})
    write(pack / "locales" / "en" / "nodeDefs.json", {"A": {"y": 2}})
    write(pack / "locales" / "en" / "commands.json", "{broken")
    write(pack / "locales" / "fr" / "settings.json", {"s": "é"})
    write(pack / "locales" / "de" / "main.json", [1])
    write(folders.custom_nodes / "pack two" / "locales" / "en" / "main.json", {"title": "two"})
    client = await packs_client()
    assert await (await client.get("/i18n")).json() == {
        "en": {"title": "two", "nodeDefs": {"A": {"x": 1, "y": 2}}},
        "fr": {"settings": {"s": "é"}},
    }


async def test_no_translations_are_an_empty_object(packs_client):
    assert await (await (await packs_client()).get("/i18n")).json() == {}


async def test_example_workflows_are_named_and_served(packs_client, pack):
    write(pack / "example_workflows" / "a.json", {"nodes": []})
    write(pack / "workflows" / "b.json", {})
    write(pack / "example_workflows" / "a.jpg", "x")
    write(pack / "secret.txt", "secret")
    client = await packs_client()
    assert await (await client.get("/workflow_templates")).json() == {"pack one": ["a", "b"]}
    assert await (await client.get("/api/workflow_templates/pack%20one/a.json")).json() == {"nodes": []}
    assert (await client.get("/api/workflow_templates/pack%20one/b.json")).status == 200
    assert (await client.get(encoded("/api/workflow_templates/pack%20one/{}", "../secret.txt"))).status in (403, 404)


async def test_subgraphs_are_listed_without_and_fetched_with_their_content(serve, folders, pack):
    write(pack / "subgraphs" / "s.json", {"nodes": []})
    write(folders.root / "blueprints" / "b.json", {})
    client = await serve(SubgraphManager(str(folders.root / "blueprints")))
    listed = await (await client.get("/global_subgraphs")).json()
    entry = {"source": "custom_node", "name": "s", "info": {"node_pack": "custom_nodes.pack one"}}
    assert list(listed.values()) == [entry, {"source": "templates", "name": "b", "info": {"node_pack": "comfyui"}}]
    first = next(iter(listed))
    assert len(first) == 64
    assert await (await client.get(f"/global_subgraphs/{first}")).json() == {**entry, "data": '{"nodes": []}'}
    assert await (await client.get("/global_subgraphs/unknown")).json() is None
    (pack / "subgraphs" / "s.json").unlink()
    assert (await client.get(f"/global_subgraphs/{first}")).status == 404


async def test_without_a_packs_folder_the_list_is_empty(serve, folders):
    folders.custom_nodes.rmdir()
    client = await serve(SubgraphManager())
    assert await (await client.get("/global_subgraphs")).json() == {}
