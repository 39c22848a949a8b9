#!/usr/bin/env bash
# Set up .venv on first use, then start the server: ./run.sh [flags]   (./run.sh --help lists them)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/setup-venv.sh"
ensure_venv "$here" requirements.txt
exec "$venv_python" "$here/main.py" "$@"
