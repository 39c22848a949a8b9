"""Random hostile requests against all subsystems together: no server error, nothing from outside, nothing written there."""

import os
import random
import re

import pytest
import yarl
from aiohttp import web

from app.custom_node_manager import CustomNodeManager
from app.files import body_budget
from app.model_manager import ModelFileManager
from app.routes.assets_disabled import AssetsDisabledRoutes
from app.routes.extension_list import ExtensionRoutes
from app.routes.frontend_static import FrontendRoutes
from app.routes.internal import InternalRoutes
from app.routes.models import ModelRoutes
from app.routes.upload import UploadRoutes
from app.routes.view import ViewRoutes
from app.subgraph_manager import SubgraphManager
from app.user_manager import UserManager

PIECES = (
    "..",
    "%2e%2e",
    "%2F",
    "/",
    "\\",
    "%00",
    "a",
    "x" * 300,
    "C:",
    "%5c",
    "%ff",
    "%ED%A0%80",
    "[input]",
    "secret.txt",
    "%25",
    "+",
    "%20",
    "input",
    "loras",
    "0",
    "-1",
    "9" * 30,
    "NaN",
    "{",
    "}",
    "%0d%0a",
    ";",
    "&",
    "=",
    "link",
)
PARAMETERS = ("dir", "path", "filename", "subfolder", "type", "preview", "channel", "recurse", "full_info", "overwrite")
BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"[" * 20_000,
    b'{"username": {}}',
    b'{"username": "a\\u0000b"}',
    b"\xff\xff",
    b"\x00" * 100,
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="../../e"\r\n\r\nd\r\n--x--',
    b"--x\r\nA: b\r\n\r\n--x",
)
TYPES = (
    "application/json",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "a",
    "x/y; charset=no",
)


@pytest.fixture
def site(folders):
    """(application, its path patterns) with every subsystem."""
    page = folders.root / "page"
    page.mkdir()
    (page / "index.html").write_text("page")
    for folder in (folders.input, folders.output, folders.models, page):
        os.symlink(folders.root, folder / "link")
    app, routes = web.Application(client_max_size=10_000), web.RouteTableDef()
    app[body_budget.BODIES] = body_budget.BodyBudget()
    extensions, frontend = ExtensionRoutes(str(page), {"pack": str(folders.models)}), FrontendRoutes(str(page))
    for subsystem in (
        UserManager(),
        ViewRoutes(),
        UploadRoutes("md5"),
        ModelRoutes(),
        ModelFileManager(),
        SubgraphManager(),
        extensions,
        frontend,
        AssetsDisabledRoutes(),
    ):
        subsystem.add_routes(routes)
    CustomNodeManager().add_routes(routes, app, [("pack", str(folders.models))])
    app.add_routes(routes)
    app.add_subapp("/internal", InternalRoutes(lambda *message: None, lambda client_id: False).get_app())
    extensions.add_static(app)
    frontend.add_static(app)
    patterns = sorted(
        {route.path for route in routes}
        | {
            "/internal/files/{x}",
            "/internal/logs/subscribe",
            "/extensions/{x}",
            "/extensions/pack/{x}",
            "/{x}",
            "/templates/{x}",
            "/api/workflow_templates/pack/{x}",
        }
    )
    return app, patterns


async def test_hostile_requests_are_answered_without_an_error(aiohttp_client, folders, site):
    app, patterns = site
    client, choose = await aiohttp_client(app), random.Random(0)

    def some(most):
        return "".join(choose.choices(PIECES, k=choose.randint(0, most)))

    before = sorted(os.listdir(folders.root))
    for _ in range(1000):
        path = re.sub(r"\{[^}]*\}", lambda match: some(4), choose.choice(patterns)).replace("//", "/")
        query = "&".join(f"{choose.choice(PARAMETERS)}={some(3)}" for _ in range(choose.randint(0, 4)))
        method = choose.choice(("GET", "GET", "GET", "POST", "POST", "DELETE", "PATCH"))
        body = choose.choice(BODIES) if method in ("POST", "PATCH") else None
        url, headers = yarl.URL(f"{path}?{query}", encoded=True), {"Content-Type": choose.choice(TYPES)}
        answer = await client.request(method, url, data=body, headers=headers)
        expected = answer.status < 500 or (answer.status == 503 and path.startswith(("/api/assets", "/api/tags")))
        assert expected, (answer.status, method, path, query, body)
        text = await answer.read()
        assert text != b"secret", (method, path, query)
        assert b"Traceback" not in text
    assert folders.secret.read_text() == "secret"
    assert sorted(os.listdir(folders.root)) == before
