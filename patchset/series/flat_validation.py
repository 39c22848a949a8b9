"""Series ``flat-validation``: prompts of any depth are validated, by a loop over a list instead of recursion."""

from patchset.series.definition import Series, Version
from patchset.transforms import AddImport, Decorate, Transform

EXECUTION = "execution.py"

MESSAGE = """
Validation called itself once per node of a chain, so 1000 nodes in a row were refused with a recursion error.

The calls that validate_inputs makes to itself are now run by a loop over a list (comfy_execution/trampoline.py). The function itself is
unchanged: its results, errors and their order are the same.
"""


def edits(version: Version) -> list[Transform]:
    """The same places in every supported version."""
    return [
        AddImport(EXECUTION, "comfy_execution.trampoline", "without_recursion", "comfy_execution.graph_utils", "is_link"),
        Decorate(EXECUTION, "validate_inputs", "without_recursion"),
    ]


SERIES = Series(
    name="flat-validation",
    subject="Validate prompts of any depth",
    message=MESSAGE,
    edits=edits,
    files=(("patchset/modules/trampoline.py", "comfy_execution/trampoline.py"),),
    tests=(
        ("patchset/modules/trampoline_test.py", "tests-unit/execution_test/trampoline_test.py"),
        ("patchset/modules/flat_validation_test.py", "tests-unit/execution_test/flat_validation_test.py"),
    ),
)
