"""Reads ``requirements.txt``, for messages about packages that are missing or too old."""

import logging
import re
import sys
from pathlib import Path

log = logging.getLogger(__name__)

requirements_path = Path(__file__).parents[1] / "requirements.txt"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==|>=)\s*([^\s;#,]+)\s*")


def pip_command() -> str:
    """The command line that runs pip for this interpreter."""
    isolation = " -s" if sys.flags.no_user_site else ""
    return f"{sys.executable}{isolation} -m pip"


def get_missing_requirements_message() -> str:
    """What to tell a user whose packages do not fit: the pip line that installs the requirements."""
    return f"Install the requirements with:\n{pip_command()} install -r {requirements_path}"


def is_valid_version(version: str) -> bool:
    """Whether *version* reads ``X.Y.Z`` in digits."""
    return _VERSION.fullmatch(version) is not None


def get_required_packages_versions() -> dict[str, str] | None:
    """``{package: version}`` of the lines with ``==`` or ``>=`` and a full X.Y.Z version; None when the file cannot be read."""
    try:
        with open(requirements_path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        log.error("The list of requirements cannot be read: %s", error)
        return None
    found = [match.groups() for line in lines if (match := _REQUIREMENT.fullmatch(line.split("#", 1)[0]))]
    return {name: version for name, version in found if is_valid_version(version)}
