"""What kind of installation this is, as its installer left it in a file."""

import functools
import logging
import os

logger = logging.getLogger(__name__)

_COMFY_INSTALL_DIR = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_FILE_NAME = ".comfy_environment"
_BY_DEFAULT = "local-git"
_LONGEST_LINE = 128


@functools.cache
def get_deploy_environment() -> str:
    """The printable ASCII of the first line of ``.comfy_environment`` beside ``main.py``; ``local-git`` without one. Read once."""
    path = os.path.join(_COMFY_INSTALL_DIR, _FILE_NAME)
    try:
        with open(path, encoding="utf-8") as file:
            line = file.readline(_LONGEST_LINE)
    except FileNotFoundError:
        return _BY_DEFAULT
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("%s cannot be read (%s); taking this for a plain checkout", path, error)
        return _BY_DEFAULT
    return "".join(letter for letter in line.strip() if letter.isascii() and letter.isprintable()) or _BY_DEFAULT
