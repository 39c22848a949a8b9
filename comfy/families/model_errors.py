"""Errors about model files."""

from collections.abc import Iterator
from contextlib import contextmanager


class ModelFileError(ValueError):
    """A model file cannot be used; the text names the file, what was found and what to do."""


class UnknownModelError(ModelFileError):
    """The tensors do not belong to a supported family."""


class IncompleteModelError(ModelFileError):
    """Tensors that the family needs are missing or have another shape."""


class MissingTokenizerError(ModelFileError):
    """There is no tokenizer for a text encoder's file."""


class QuantisedModelError(ModelFileError):
    """The weights are stored in a form that is not supported."""


@contextmanager
def naming_file(name: str, what: str) -> Iterator[None]:
    """Around code that reads sizes off the names and shapes of tensors (no values): what damaged ones make of it is an error of the file.

    Raises ``IncompleteModelError`` naming the file *name* and the component *what*; ``ModelFileError`` passes, with the file named.
    """
    try:
        yield
    except ModelFileError as error:
        if name in str(error):
            raise
        raise type(error)(f"{what} in {name}: {error}") from error
    except KeyError as error:
        raise IncompleteModelError(f"{what} in {name}: the tensor {error.args[0] if error.args else ''} is missing") from error
    except (ArithmeticError, AssertionError, AttributeError, IndexError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        raise IncompleteModelError(f"{what} in {name}: its tensors fit no network ({type(error).__name__}: {error})") from error
