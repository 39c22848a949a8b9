"""Where the samples of this folder are: saved workflows with what the official page makes of them."""

import pathlib

SAMPLES = pathlib.Path(__file__).parent / "samples"
