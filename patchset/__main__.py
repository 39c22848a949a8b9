"""``python -m patchset``: check, apply, revert, update or run a series on a ComfyUI checkout."""

import importlib
import importlib.util
import sys

MISSING = "python -m patchset needs LibCST, which this Python ({}) does not have. Install it there: pip install libcst"


def main() -> int:
    """Run the command line, if what it needs is installed; the exit status."""
    if importlib.util.find_spec("libcst") is None:
        print(MISSING.format(sys.executable), file=sys.stderr)
        return 1
    status: int = importlib.import_module("patchset.command_line").main()
    return status


if __name__ == "__main__":
    sys.exit(main())
