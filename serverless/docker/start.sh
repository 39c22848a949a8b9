#!/usr/bin/env bash
# Start the server, then the worker: start.sh runpod|http. The container ends with either of them.
set -euo pipefail
kind=${1:?runpod or http}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}
cd "$root"

tcmalloc=$( (ldconfig -p 2>/dev/null || true) | awk '/libtcmalloc.so/ { path = $NF } END { print path }')
if [ -n "$tcmalloc" ]; then
  export LD_PRELOAD=$tcmalloc
fi

if [ -n "${PUBLIC_KEY:-}" ] && [ "$kind" = runpod ]; then
  mkdir -p ~/.ssh /run/sshd
  printf '%s\n' "$PUBLIC_KEY" >> ~/.ssh/authorized_keys
  chmod 700 ~/.ssh
  chmod 600 ~/.ssh/authorized_keys
  ssh-keygen -A
  /usr/sbin/sshd
fi

# Without a card a worker would take minutes per step. CPU_ONLY=true says that this is meant.
if [ "${CPU_ONLY:-false}" = true ]; then
  device_flags=(--cpu)
else
  device_flags=()
  "$python" -c 'import sys, torch; torch.cuda.init() if torch.cuda.is_available() else sys.exit("no usable GPU; CPU_ONLY=true runs without")'
fi

listen=127.0.0.1
if [ "${SERVE_API_LOCALLY:-false}" = true ]; then
  listen=0.0.0.0
fi
read -r -a extra_flags <<< "${SERVER_FLAGS:-}"
pid_file=${COMFY_PID_FILE:-/tmp/comfyui.pid}
"$python" main.py --listen "$listen" --port "${SERVER_PORT:-8188}" --disable-auto-launch --verbose "${COMFY_LOG_LEVEL:-DEBUG}" --log-stdout \
  "${device_flags[@]}" "${extra_flags[@]}" &
server=$!
echo "$server" > "$pid_file"
export COMFY_PID_FILE=$pid_file COMFY_HOST=${COMFY_HOST:-127.0.0.1:${SERVER_PORT:-8188}}

if [ "$kind" = http ]; then
  "$python" -m serverless.http_service --host 0.0.0.0 --port "${WORKER_PORT:-8000}" &
elif [ "${SERVE_API_LOCALLY:-false}" = true ]; then
  "$python" serverless/handler.py --rp_serve_api --rp_api_host=0.0.0.0 --rp_api_port="${WORKER_PORT:-8000}" &
else
  "$python" serverless/handler.py &
fi
worker=$!

trap 'kill -TERM "$worker" "$server" 2>/dev/null || true' TERM INT
status=0
wait -n "$worker" "$server" || status=$?
kill -TERM "$worker" "$server" 2>/dev/null || true
wait || true
rm -f "$pid_file"
exit "$status"
