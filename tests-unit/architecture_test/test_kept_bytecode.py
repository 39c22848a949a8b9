"""What tests start finds modules compiled, whatever the environment of the test run says."""

import subprocess
import sys


def test_subprocesses_of_tests_keep_compiled_modules():
    assert not sys.dont_write_bytecode
    command = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"
