"""Who is asking: the users of this server, and the folder that belongs to each."""

import asyncio
import logging
import os
import re
import uuid
from typing import Any

from aiohttp import web

import folder_paths
from app.app_settings import AppSettings
from app.files.json_body import read_json_object
from app.files.json_file import JsonFile
from app.files.off_loop import WRITE_LIMIT_S, off_loop
from app.files.path_guard import UnsafePath, contained_path
from app.files.user_folder import prepare_user_folder
from app.routes.userdata import UserDataRoutes
from comfy.cli_args import args

log = logging.getLogger(__name__)

DEFAULT_USER = "default"
SYSTEM_PREFIX = "__"
MAX_USERS, MAX_NAME_LENGTH = 1000, 200
MAX_USERS_BYTES = 1024 * 1024
_MAX_NAME_IN_ID = 64


class UserManager:
    """The users of this server; ``add_routes`` registers users, settings and user data.

    Without ``--multi-user`` everyone is ``default`` and the ``Comfy-User`` header means nothing. Reads ``users.json`` in the
    user directory when constructed and writes it when a user is added. Used from the server's event loop.
    """

    def __init__(self) -> None:
        self.settings = AppSettings(self)
        self.userdata = UserDataRoutes(self)
        self.users: dict[str, str] = _load_users(self._users_file())
        self._adding = asyncio.Lock()

    def get_users_file(self) -> str:
        """The path of ``users.json``."""
        return os.path.join(folder_paths.get_user_directory(), "users.json")

    def _users_file(self) -> JsonFile:
        return JsonFile(self.get_users_file(), "users", MAX_USERS_BYTES)

    def get_request_user_id(self, request: web.Request) -> str:
        """The id of the user who sent *request*. Raises ``KeyError`` for a reserved name or an unknown user."""
        if not args.multi_user:
            return DEFAULT_USER
        user = request.headers.get("comfy-user") or DEFAULT_USER
        if user.startswith(SYSTEM_PREFIX) or user not in self.users:
            raise KeyError(f"Unknown user: {user}")
        return user

    def get_request_user_filepath(
        self,
        request: web.Request,
        file: str | None,
        type: str = "userdata",  # noqa: A002
        create_dir: bool = True,
    ) -> str | None:
        """The path of *file* (None: the folder itself) in the folder of the user who sent *request*.

        ``create_dir`` makes the folder that will hold the file. Returns None for a name that does not stay in the folder and
        for reserved users. Raises ``KeyError`` for an unknown user or *type*.
        """
        if type != "userdata":
            raise KeyError(f"Unknown kind of user file: {type}")
        root = folder_paths.get_public_user_directory(self.get_request_user_id(request))
        if root is None:
            return None
        path = os.path.abspath(root)
        if file is not None:
            try:
                path = contained_path(root, file)
            except UnsafePath:
                return None
        if create_dir:
            os.makedirs(path if file is None else os.path.dirname(path), exist_ok=True)
        return path

    def add_user(self, name: str) -> str:
        """Add a user called *name* and return the new id. Blocks on the disk.

        Raises ``ValueError`` for an empty name, for one that begins with the reserved ``__``, and when there are too many
        users, and ``OSError``.
        """
        name = name.strip()
        if not name:
            raise ValueError("username not provided")
        if len(self.users) >= MAX_USERS:
            raise ValueError(f"There are {MAX_USERS} users already; remove some from {self.get_users_file()} and restart the server")
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:_MAX_NAME_IN_ID]
        if name.startswith(SYSTEM_PREFIX) or readable.startswith(SYSTEM_PREFIX):
            raise ValueError("System User prefix not allowed")
        user_id = f"{readable}_{uuid.uuid4()}"
        users = {**self.users, user_id: name}
        self._users_file().write(users)
        prepare_user_folder(os.path.join(folder_paths.get_user_directory(), user_id))
        self.users = users
        return user_id

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register ``/users``, ``/settings`` and ``/userdata``."""
        routes.get("/users")(self._get_users)
        routes.post("/users")(self._post_users)
        self.settings.add_routes(routes)
        self.userdata.add_routes(routes)

    async def _get_users(self, request: web.Request) -> web.Response:
        if args.multi_user:
            return web.json_response({"storage": "server", "users": self.users})
        folder = folder_paths.get_public_user_directory(DEFAULT_USER)
        return web.json_response({"storage": "server", "migrated": folder is not None and os.path.exists(folder)})

    async def _post_users(self, request: web.Request) -> web.Response:
        body = await read_json_object(request)
        username: Any = body.get("username")
        if not isinstance(username, str):
            return web.json_response({"error": "username not provided"}, status=400)
        if len(username) > MAX_NAME_LENGTH:
            return web.json_response({"error": f"The username is longer than {MAX_NAME_LENGTH} characters."}, status=400)
        async with self._adding:
            if username.strip() in self.users.values():
                return web.json_response({"error": "Duplicate username."}, status=400)
            try:
                user_id = await off_loop(self.add_user, username, limit_s=WRITE_LIMIT_S)
            except ValueError as error:
                return web.json_response({"error": str(error)}, status=400)
        return web.json_response(user_id)


def _load_users(file: JsonFile) -> dict[str, str]:
    try:
        users = file.read()
    except OSError as error:
        log.warning("The list of users %s cannot be read (%s); starting without users. Repair or remove that file.", file.path, error)
        return {}
    return {str(user): str(name) for user, name in users.items()}
