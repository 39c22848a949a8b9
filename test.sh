#!/usr/bin/env bash
# Set up .venv with the development requirements, then run the tests: ./test.sh [pytest arguments]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/setup-venv.sh"
ensure_venv "$here" requirements.txt requirements-dev.txt
cd "$here"
exec "$venv_python" -m pytest "$@"
