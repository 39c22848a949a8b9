"""What builds on the core request of the model cache, and the reader, which stands alone."""

from patchset.requests.ram_models import EXECUTION, FLAGS, LOADERS, MODULES, TESTS
from patchset.series.definition import Series, Version
from patchset.statement_transforms import ReplaceStatement
from patchset.transforms import AddImport, Decorate, Transform

UTILS = "comfy/utils.py"
LINK = ("comfy_execution.graph_utils", "is_link")
CORE_IMPORT = ("comfy.ram_models", "ram_models")
FLAG_BEFORE = 'parser.add_argument("--disable-metadata", action="store_true", help="Disable saving prompt metadata in files.")\n'
READ_FLAG = (
    'parser.add_argument("--parallel-read", type=int, default=0, metavar="N", help="Read safetensors files by this many threads, '
    'into memory of their own. Default: 0 (map the file).")\n'
)


def pressure(version: Version) -> list[Transform]:
    """The loaders of the core make room first; nodes are followed by a look at what is free."""
    return [
        AddImport(LOADERS, "comfy.ram_models_pressure", "makes_room", *CORE_IMPORT),
        Decorate(LOADERS, "load_checkpoint_guess_config", "makes_room"),
        Decorate(LOADERS, "load_clip", "makes_room"),
        Decorate(LOADERS, "load_diffusion_model", "makes_room"),
        AddImport(EXECUTION, "comfy.ram_models_pressure", "gives_way_after", *CORE_IMPORT),
        Decorate(EXECUTION, "execute", "gives_way_after"),
    ]


def receipts(version: Version) -> list[Transform]:
    """One decorator."""
    return [
        AddImport(EXECUTION, "comfy.ram_models_receipts", "with_receipts", *CORE_IMPORT),
        Decorate(EXECUTION, "PromptExecutor.execute_async", "with_receipts"),
    ]


def reader(version: Version) -> list[Transform]:
    """A flag and one decorator."""
    return [
        ReplaceStatement(FLAGS, "", FLAG_BEFORE, FLAG_BEFORE + READ_FLAG),
        AddImport(UTILS, "comfy.parallel_read", "reads_in_parallel", "comfy.cli_args", "args"),
        Decorate(UTILS, "load_torch_file", "reads_in_parallel"),
    ]


PRESSURE = Series(
    name="ram-models-pressure",
    subject="Let models kept in RAM make way when RAM runs short",
    message="""
The cap of --ram-models-mb is a number that somebody chose; what other programs leave free is not known then.

Before a model is read, and after each node, kept models now make way until the model and a headroom (5 %, 2 GiB, or that of --cache-ram)
are free. The limit of a container counts.
""",
    edits=pressure,
    builds_on=("ram-models",),
    files=((f"{MODULES}/ram_models_pressure.py", "comfy/ram_models_pressure.py"),),
    tests=((f"{MODULES}/ram_models_pressure_test.py", f"{TESTS}/ram_models_pressure_test.py"),),
)
RECEIPTS = Series(
    name="ram-models-receipts",
    subject="Say in a prompt's history where its models came from",
    message="""
Whether a model was found in RAM, read, or let go stands in the log only.

A prompt's history now has it as a list under "models": model, event, bytes, seconds.
""",
    edits=receipts,
    builds_on=("ram-models",),
    files=((f"{MODULES}/ram_models_receipts.py", "comfy/ram_models_receipts.py"),),
    tests=((f"{MODULES}/ram_models_receipts_test.py", f"{TESTS}/ram_models_receipts_test.py"),),
)
READER = Series(
    name="parallel-read",
    subject="Read safetensors files by several threads",
    message="""
Files are mapped, so their pages come in one after the other while weights are copied out of them.

With --parallel-read N, N threads read a file in pieces into one block of memory, of which its tensors are views.
""",
    edits=reader,
    files=((f"{MODULES}/parallel_read.py", "comfy/parallel_read.py"),),
    tests=((f"{MODULES}/parallel_read_test.py", f"{TESTS}/parallel_read_test.py"),),
)
