"""The one error of this package."""


class WorkflowFormatError(ValueError):
    """The file is neither a saved workflow nor a prompt, or the workflow cannot be run; the message says where and what is wrong."""
