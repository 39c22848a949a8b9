"""The core request of the model cache in RAM. What builds on it is in ``ram_models_more``."""

from patchset.series.definition import Series, Version
from patchset.statement_transforms import ReplaceStatement
from patchset.transforms import AddImport, Decorate, InsertAfter, Transform

FLAGS, LOADERS, EXECUTION = "comfy/cli_args.py", "comfy/sd.py", "execution.py"
MODULES, TESTS = "patchset/modules/requests", "tests-unit/comfy_test"
NEXT_FLAG = (
    'parser.add_argument("--force-channels-last", action="store_true", help="Force channels last format when inferencing the models.")\n'
)
NEW_FLAG = (
    'parser.add_argument("--ram-models-mb", type=int, default=0, metavar="MB", help="Keep models in up to this much RAM, '
    'so that they are not read from disk again. Default: 0 (off).")\n'
)

MESSAGE = """
A model whose node outputs leave the executor's cache is freed, and read from disk again when a workflow asks for it: two
checkpoints used in turn are read at every switch, however much RAM is free.

With --ram-models-mb N, load_checkpoint_guess_config, load_clip and load_diffusion_model keep what they built, by file, part and
options, in up to N MB of host RAM, and return clones of it. What stays is what is expected to save the most loading time. Without
the flag every decorator returns the function it was given.
"""


def edits(version: Version) -> list[Transform]:
    """The same places in every supported version."""
    return [
        ReplaceStatement(FLAGS, "", NEXT_FLAG, NEW_FLAG + NEXT_FLAG),
        AddImport(LOADERS, "comfy.ram_models", "ram_models", "comfy", "model_management"),
        Decorate(LOADERS, "load_checkpoint_guess_config", "ram_models.checkpoint"),
        Decorate(LOADERS, "load_clip", "ram_models.text_encoder"),
        Decorate(LOADERS, "load_diffusion_model", "ram_models.diffusion_model"),
        AddImport(EXECUTION, "comfy.ram_models", "ram_models", "comfy_execution.graph_utils", "is_link"),
        InsertAfter(EXECUTION, "PromptExecutor.reset", "self.success = True", "ram_models.clear()\n"),
    ]


CORE = Series(
    name="ram-models",
    subject="Keep models in RAM, up to a cap, by what they save",
    message=MESSAGE,
    edits=edits,
    rivals=("ram-model-cache",),
    modules=((f"{MODULES}/ram_models", "comfy/ram_models"),),
    tests=(
        (f"{MODULES}/ram_models_cache_test.py", f"{TESTS}/ram_models_cache_test.py"),
        (f"{MODULES}/ram_models_loaders_test.py", f"{TESTS}/ram_models_loaders_test.py"),
        (f"{MODULES}/ram_models_dynamic_test.py", f"{TESTS}/ram_models_dynamic_test.py"),
    ),
)
