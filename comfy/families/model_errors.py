"""What can be wrong with a model file."""


class ModelFileError(ValueError):
    """A model file cannot be used; the text names the file, what was found and what to do."""


class UnknownModelError(ModelFileError):
    """The tensors belong to no family that is supported."""


class IncompleteModelError(ModelFileError):
    """Tensors that the family needs are missing or have another shape."""
