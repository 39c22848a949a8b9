"""Which web frontend is served, and the versions of the packages that make it up.

The frontend is the installed ``comfyui-frontend-package`` or a folder that the user names; nothing is downloaded.
"""

import argparse
import importlib.util
import logging
import os
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from app.logger import log_startup_warning
from app.routes.template_assets import embedded_docs_folder, find_template_assets
from utils.install_util import get_required_packages_versions, pip_command

log = logging.getLogger(__name__)

FRONTEND_PACKAGE = "comfyui-frontend-package"
TEMPLATES_PACKAGE = "comfyui-workflow-templates"
DEFAULT_VERSION_STRING = "comfyanonymous/ComfyUI@latest"
_VERSION_STRING = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9_.-]+)@(v?\d+\.\d+\.\d+[-._a-zA-Z0-9]*|latest|prerelease)")


class FrontendMissing(RuntimeError):
    """There is no web frontend to serve; the message says how to install it."""


class FrontendManager:
    """Finds the folder of the web frontend and reports package versions. Class methods only; nothing is kept."""

    @classmethod
    def parse_version_string(cls, value: str) -> tuple[str, str, str]:
        """Split ``owner/repo@version`` (``latest`` is a version). Raises ``argparse.ArgumentTypeError``."""
        match = _VERSION_STRING.fullmatch(value)
        if match is None:
            raise argparse.ArgumentTypeError(f"{value!r} is not owner/repo@version, for example Comfy-Org/ComfyUI_frontend@latest")
        return match.group(1), match.group(2), match.group(3)

    @classmethod
    def default_frontend_path(cls) -> str:
        """The folder of the installed frontend. Raises ``FrontendMissing``."""
        found = importlib.util.find_spec("comfyui_frontend_package")
        for folder in (found.submodule_search_locations or ()) if found is not None else ():
            static = os.path.join(folder, "static")
            if os.path.isfile(os.path.join(static, "index.html")):
                return static
        wanted = cls.get_required_frontend_version()
        exact = f"=={wanted}" if wanted else ""
        raise FrontendMissing(
            f"The web page is not installed. Install it with:\n{pip_command()} install {FRONTEND_PACKAGE}{exact}\n"
            "or serve a built copy with --front-end-root FOLDER."
        )

    @classmethod
    def init_frontend(cls, version_string: str) -> str:
        """The folder to serve for ``--front-end-version``: always the installed package.

        Another version than the installed one is answered with a warning that says how to get it. Raises ``FrontendMissing``.
        """
        check_comfy_packages_versions()
        path = cls.default_frontend_path()
        try:
            _, _, wanted = cls.parse_version_string(version_string)
        except argparse.ArgumentTypeError as error:
            log.warning("--front-end-version: %s; the installed frontend is served.", error)
            return path
        installed = cls.get_installed_frontend_version()
        if wanted != "latest" and wanted.removeprefix("v") != installed:
            which = "--pre --upgrade " + FRONTEND_PACKAGE if wanted == "prerelease" else f"{FRONTEND_PACKAGE}=={wanted.removeprefix('v')}"
            log.warning(
                "--front-end-version %s is not installed and frontends are not downloaded; version %s is served. To get it:\n"
                "%s install %s\nor use --front-end-root FOLDER.",
                version_string,
                installed,
                pip_command(),
                which,
            )
        return path

    @classmethod
    def get_required_frontend_version(cls) -> str | None:
        """The frontend version that ``requirements.txt`` pins, as X.Y.Z."""
        return (get_required_packages_versions() or {}).get(FRONTEND_PACKAGE)

    @classmethod
    def get_installed_frontend_version(cls) -> str | None:
        """The version of the installed frontend package, None without one."""
        return _installed(FRONTEND_PACKAGE)

    @classmethod
    def get_required_templates_version(cls) -> str | None:
        """The version of the workflow templates that ``requirements.txt`` pins; they are optional."""
        return (get_required_packages_versions() or {}).get(TEMPLATES_PACKAGE)

    @classmethod
    def get_installed_templates_version(cls) -> str | None:
        """The version of the installed workflow templates, None without them."""
        return _installed(TEMPLATES_PACKAGE)

    @classmethod
    def get_comfy_package_versions(cls) -> list[dict[str, Any]]:
        """``[{name, installed, required}]`` of every required package whose name begins with ``comfy``."""
        required = get_required_packages_versions() or {}
        return [
            {"name": name, "installed": _installed(name), "required": wanted}
            for name, wanted in required.items()
            if name.startswith("comfy")
        ]

    @classmethod
    def template_asset_map(cls) -> dict[str, str] | None:
        """``{file name: absolute path}`` of the installed workflow templates, or None if the package is not installed. Blocks."""
        return find_template_assets()

    @classmethod
    def embedded_docs_path(cls) -> str | None:
        """The folder of the installed node help texts, or None if the package is not installed."""
        return embedded_docs_folder()


def check_comfy_packages_versions() -> None:
    """Warn about each required ``comfy…`` package that is installed in an older version than required."""
    for package in FrontendManager.get_comfy_package_versions():
        installed, required = package["installed"], package["required"]
        if installed is not None and _comparable(installed) < _comparable(required):
            log_startup_warning(
                f"{package['name']} {installed} is older than the required {required}. Update it with:\n"
                f"{pip_command()} install {package['name']}=={required}"
            )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _comparable(version_text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version_text)[:3])
