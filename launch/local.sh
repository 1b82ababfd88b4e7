#!/usr/bin/env bash
# N processes of one run on this machine's CPU:  launch/local.sh N -- --config ... --workdir ...
# If one fails the others are ended: asked first, killed after RTUNE_GRACE_S (20) seconds. The exit
# code is that of the first that failed. A signal to this script goes once to every process.
set -u

if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ || $2 != -- ]]; then
  echo "usage: $0 N -- ARGUMENTS OF rtune.main" >&2
  exit 2
fi
count=$1
shift 2

python=${PYTHON:-python}
free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=$("$python" -c "$free_port") || exit 2
export JAX_PLATFORMS=cpu RTUNE_COORDINATOR=127.0.0.1:$port RTUNE_NUM_PROCESSES=$count

running=()
asked=
ask() {
  asked=yes
  kill -s "$1" ${running[@]+"${running[@]}"} 2>/dev/null
}
for name in TERM INT USR1; do
  trap "ask $name" "$name"
done
trap "ask TERM" HUP

# Groups of their own: else a Ctrl-C reaches each process twice, which means "stop at once".
set -m
for ((i = 0; i < count; i++)); do
  RTUNE_PROCESS_ID=$i "$python" -m rtune.main "$@" &
  running+=($!)
done
set +m

# `wait -n` would be shorter, but macOS comes with a bash that lacks it.
code=0
deadline=
while ((${#running[@]})); do
  left=()
  for pid in "${running[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      left+=("$pid")
    else
      wait "$pid"
      status=$?
      ((code)) || code=$status
    fi
  done
  running=(${left[@]+"${left[@]}"})
  if ((code)) && [[ -z $deadline ]]; then
    deadline=$((SECONDS + ${RTUNE_GRACE_S:-20}))
    [[ -n $asked ]] || ask TERM
  fi
  if [[ -n $deadline ]] && ((SECONDS >= deadline && ${#running[@]})); then
    kill -s KILL "${running[@]}" 2>/dev/null
  fi
  sleep 0.2
done
exit "$code"
