"""Series ``patch-reuse``: a LoRA that comes again with the same contents and strengths leaves the patched weights in place."""

from patchset.series.definition import Series, Version
from patchset.statement_transforms import ReplaceStatement
from patchset.transforms import AddImport, Transform

FLAGS, PATCHER = "comfy/cli_args.py", "comfy/model_patcher.py"
NEXT_FLAG = (
    'parser.add_argument("--force-channels-last", action="store_true", help="Force channels last format when inferencing the models.")\n'
)
NEW_FLAG = (
    'parser.add_argument("--reuse-equal-patches", action="store_true", '
    'help="Leave patched weights in place when a LoRA comes again with the same contents and strengths.")\n'
)
NEW_ID = "self.patches_uuid = uuid.uuid4()"
CONTENT_ID = "self.patches_uuid = next_patches_uuid(self, [(k, patches[k]) for k in patches if k in p])\n"

MESSAGE = """
Every call of add_patches draws a new random patches_uuid. A LoRA node that runs again with the same file and strength (another workflow, a
result that left the cache, an input above it that changed) therefore has all weights of the model restored, and patched again.

With --reuse-equal-patches the id is a hash of the id before and of the patches that were added: keys, offsets, strengths and contents
of the tensors. Patchers with equal ids find their weights in place. Anything that cannot be compared by content still gets a
random id. Without the flag every id is random, as before.
"""


def edits(version: Version) -> list[Transform]:
    """The same places in every supported version."""
    return [
        ReplaceStatement(FLAGS, "", NEXT_FLAG, NEXT_FLAG + NEW_FLAG),
        AddImport(PATCHER, "comfy.patch_reuse", "next_patches_uuid", "comfy.patcher_extension", "CallbacksMP"),
        ReplaceStatement(PATCHER, "ModelPatcher.add_patches", NEW_ID, CONTENT_ID),
    ]


SERIES = Series(
    name="patch-reuse",
    subject="Leave patched weights in place when equal patches come again",
    message=MESSAGE,
    edits=edits,
    files=(("patchset/modules/patch_reuse.py", "comfy/patch_reuse.py"),),
    tests=(("patchset/modules/patch_reuse_test.py", "tests-unit/comfy_test/patch_reuse_test.py"),),
)
