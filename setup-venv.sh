# Sourced by run.sh and test.sh: ensure_venv ROOT REQUIREMENTS… makes ROOT/.venv hold them, and sets venv_python.

ensure_venv() {
  local root=$1; shift
  venv_python=$root/.venv/bin/python
  local wanted stamp="$root/.venv/keepwarm-installed-$(printf '%s+' "$@")"
  wanted=$(cd "$root" && cat "$@" constraints.txt)
  if [ -x "$venv_python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi
  if [ ! -x "$venv_python" ]; then
    local python; python=$(find_python)
    echo "Making $root/.venv with $("$python" --version) …"
    if ! "$python" -m venv "$root/.venv"; then
      rm -rf "$root/.venv"
      echo "This Python cannot make virtual environments. On Debian or Ubuntu:  sudo apt install python3-venv" >&2
      exit 1
    fi
  fi
  echo "Installing $* (the first time takes a few minutes) …"
  local file arguments=()
  for file in "$@"; do arguments+=(-r "$root/$file"); done
  "$venv_python" -m pip install --disable-pip-version-check --progress-bar "${KEEPWARM_PIP_BAR:-on}" \
    -c "$root/constraints.txt" "${arguments[@]}"
  printf '%s' "$wanted" > "$stamp"
}

# The first of Python 3.11, 3.12, 3.13 that is on the PATH and starts.
find_python() {
  local name
  for name in "${KEEPWARM_PYTHON:-python3.11}" python3.11 python3.12 python3.13 python3 python; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  echo "Python 3.11, 3.12 or 3.13 is needed. On Debian 12 or Ubuntu 24.04:  sudo apt install python3 python3-venv" >&2
  exit 1
}
