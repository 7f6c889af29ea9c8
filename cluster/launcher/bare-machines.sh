#!/usr/bin/env bash
# Ray on machines of your own, without Kubernetes: this script on each of them, and the cluster stands.
#
#   ./bare-machines.sh head                         on one; prints what the others and you need
#   ./bare-machines.sh worker HEAD_ADDRESS          on each of the others, with the same token file
#   ./bare-machines.sh stop                         on each, to leave: running workers write a checkpoint first
#
# fourds_dist and its dependencies have to be installed on all of them, in the same versions (cluster/constraints.txt).
# Ports: 6379 and 8265 on the head; 8076, 8077, 52365, 8080 and 10002-19999 between all machines. Nothing of this may be
# reachable from outside: whoever has the token can run any command.
set -euo pipefail

export RAY_AUTH_MODE=token
token="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
# `stop` and a machine's shutdown leave the workers this long to write a checkpoint.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-100}"
export RAY_JOB_STOP_WAIT_TIME_S="${RAY_JOB_STOP_WAIT_TIME_S:-90}" # and `ray job stop` this long; 3 without this
export RAY_USAGE_STATS_ENABLED=0

ports=(--node-manager-port 8076 --object-manager-port 8077 --metrics-export-port 8080
    --min-worker-port 10002 --max-worker-port 19999)
ray_pid="${XDG_RUNTIME_DIR:-/tmp}/fourds-ray-$(id -u).pid"

start() { # in the background, until `stop`
    ulimit -n 65536 2>/dev/null || true
    : >"${ray_pid%.pid}.log"
    nohup ray start --block "$@" >"${ray_pid%.pid}.log" 2>&1 &
    echo $! >"$ray_pid"
    for _ in $(seq 60); do
        if ! kill -0 "$(cat "$ray_pid")" 2>/dev/null; then
            tail -n 5 "${ray_pid%.pid}.log" >&2
            exit 1
        fi
        if grep -q "Ray runtime started" "${ray_pid%.pid}.log"; then return; fi
        sleep 1
    done
    echo "Ray did not start within a minute; see ${ray_pid%.pid}.log" >&2
    exit 1
}

case "${1:-}" in
head)
    if [ ! -s "$token" ]; then # a path of your own has to hold one already
        ray get-auth-token --generate >/dev/null 2>&1
    fi
    chmod 600 "$token"
    # No training on the head: a worker that runs out of memory there would end the cluster. With few machines,
    # FOURDS_HEAD_WORKS=1 lets it train too.
    resources=(--num-cpus 0 --num-gpus 0)
    if [ "${FOURDS_HEAD_WORKS:-0}" = 1 ]; then resources=(); fi
    start --head --port 6379 --dashboard-host "${RAY_DASHBOARD_HOST:-0.0.0.0}" "${ports[@]}" ${resources[@]+"${resources[@]}"}
    address="${RAY_HEAD_ADDRESS:-$(hostname -I | cut -d' ' -f1)}"
    cat <<NEXT
The head runs. On each other machine:
  scp $address:$token $token && ./bare-machines.sh worker $address
Where you submit from, with the token file too:
  export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://$address:8265
  ray job submit --working-dir . -- python -m fourds_dist.train config.yaml
NEXT
    ;;
worker)
    [ $# -ge 2 ] || { echo "usage: $0 worker HEAD_ADDRESS" >&2; exit 2; }
    [ -s "$token" ] || { echo "no token in $token: copy the head's" >&2; exit 1; }
    start --address "$2:6379" "${ports[@]}" "${@:3}"
    echo "This machine works for $2."
    ;;
stop)
    if [ -f "$ray_pid" ] && kill -TERM "$(cat "$ray_pid")" 2>/dev/null; then
        while kill -0 "$(cat "$ray_pid")" 2>/dev/null; do sleep 1; done
    fi
    rm -f "$ray_pid"
    ;;
*)
    sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'
    exit 2
    ;;
esac
