#!/usr/bin/env bash
# From an empty machine to an answer: sets up, builds, starts the demo model over two tensor-parallel
# ranks, asks it a question, and stays up until Ctrl-C. With --once it ends after the answer.
# Other options go to `quire serve` (for example --port 8001).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
question="What is tensor parallelism good for? Answer in two sentences."
once=0
grpc_port=50051
options=()
while [ $# -gt 0 ]; do
  case $1 in
    --once) once=1 ;;
    --help|-h) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    --grpc-port) [ $# -ge 2 ] || { echo "run.sh: --grpc-port needs a value" >&2; exit 64; }
                 grpc_port=$2; options+=("$1" "$2"); shift ;;
    --grpc-port=*) grpc_port=${1#*=}; options+=("$1") ;;
    *) options+=("$1") ;;
  esac
  shift
done

"$here/setup.sh"
bin=$here/../build/bin

"$bin/quire" serve smollm2 --tensor-parallel-size 2 ${options[@]+"${options[@]}"} &
server=$!
# Whatever ends this script ends the server, and waits for it.
stop() { kill -TERM "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; }
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$bin/quire" generate --server "127.0.0.1:$grpc_port" --wait 120 --max-tokens 120 --temperature 0 \
  --show-prompt "$question" &
client=$!
finished=0
wait -n "$server" "$client" || finished=$?
if ! kill -0 "$server" 2>/dev/null; then
  kill "$client" 2>/dev/null || true
  rc=0
  wait "$server" || rc=$?
  echo "run.sh: the server ended before the answer (exit code $rc); the reason is above" >&2
  trap - EXIT
  exit "$([ "$rc" = 0 ] && echo 1 || echo "$rc")"
fi
[ "$finished" = 0 ] || { echo "run.sh: the question failed" >&2; exit "$finished"; }
[ "$once" = 1 ] && exit 0
echo
echo "The server stays up. Try:"
echo "  $bin/quire chat --server 127.0.0.1:$grpc_port"
echo "Ctrl-C ends it."
wait "$server"
