"""An example of a cache provider: a node pack that keeps node results in one SQLite file.

Copy this folder into ``custom_nodes``. A server that is started again then finds what it computed before. The file is
``sqlite_results.db`` in the user directory; the environment variable ``SQLITE_RESULTS`` names another. The pack has no nodes.
It works in any ComfyUI that has cache providers.
"""

import os

import folder_paths
from comfy_api.latest import Caching

from .provider import SqliteProvider

NODE_CLASS_MAPPINGS = {}

_path = os.environ.get("SQLITE_RESULTS") or os.path.join(folder_paths.get_user_directory(), "sqlite_results.db")
Caching.register_provider(SqliteProvider(_path))
