"""Errors about model files."""


class ModelFileError(ValueError):
    """A model file cannot be used; the text names the file, what was found and what to do."""


class UnknownModelError(ModelFileError):
    """The tensors do not belong to a supported family."""


class IncompleteModelError(ModelFileError):
    """Tensors that the family needs are missing or have another shape."""
