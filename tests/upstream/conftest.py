"""The pack in an unpatched ComfyUI. Lets the tests import the modules next to them."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
