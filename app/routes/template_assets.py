"""Optional packages that ship content for the page: workflow templates and the nodes' help texts."""

import importlib
import importlib.util
import logging
import os

from utils.folder_walk import walk

log = logging.getLogger(__name__)

OWN_TEMPLATES = os.path.join(os.path.dirname(os.path.realpath(__file__)), "own_templates")


def template_assets() -> dict[str, str]:
    """``{file name: absolute path}`` of the installed workflow templates or, without the package, of this server's own few."""
    return find_template_assets() or _files_below(OWN_TEMPLATES)


def find_template_assets() -> dict[str, str] | None:
    """``{file name: absolute path}`` of the installed workflow templates; None when the package is not installed.

    Understands packages that list their assets (``iter_templates``) and older ones that ship a ``templates`` folder. Blocks.
    """
    try:
        package = importlib.import_module("comfyui_workflow_templates")
        if hasattr(package, "iter_templates"):
            return {
                asset.filename: os.fspath(package.get_asset_path(template.template_id, asset.filename))
                for template in package.iter_templates()
                for asset in template.assets
            }
    except ModuleNotFoundError:
        return None
    except Exception:
        log.exception("The installed workflow templates cannot be read; the page goes without them")
        return None
    folder = _folder_in("comfyui_workflow_templates", "templates")
    return None if folder is None else _files_below(folder)


def embedded_docs_folder() -> str | None:
    """The folder of the installed node help texts, None when ``comfyui-embedded-docs`` is not installed."""
    return _folder_in("comfyui_embedded_docs", "docs")


def _folder_in(package: str, name: str) -> str | None:
    found = importlib.util.find_spec(package)
    for location in (found.submodule_search_locations or ()) if found is not None else ():
        folder = os.path.join(location, name)
        if os.path.isdir(folder):
            return folder
    return None


def _files_below(root: str) -> dict[str, str]:
    visited_folders = walk(root) if os.path.isdir(root) else ()
    return {
        os.path.join(visited.below, entry.name).replace(os.sep, "/"): entry.path for visited in visited_folders for entry in visited.files
    }
