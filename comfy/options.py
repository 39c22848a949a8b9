"""Whether the process's own command line may be read; off unless a program asks for it."""

from types import SimpleNamespace

_state = SimpleNamespace(args_parsing=False)


def enable_args_parsing(enable: bool = True) -> None:
    """Let ``comfy.cli_args`` read ``sys.argv`` when it is imported. Programs other than the server leave it off."""
    _state.args_parsing = enable


def args_parsing_enabled() -> bool:
    """Whether ``enable_args_parsing`` was called."""
    return _state.args_parsing
