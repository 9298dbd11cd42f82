#!/usr/bin/env bash
# Prints the Secrets that the manifests name, with new random contents: ./secrets.sh | kubectl apply -n quire -f -
# Run it once: a second run replaces keys. What it prints is in clear; write it nowhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ssh-keygen -q -t ed25519 -N '' -C quire -f "$folder/id"
ssh-keygen -q -t ed25519 -N '' -C quire -f "$folder/host_key"

secret() {  # secret NAME KEY=FILE...
  printf -- '---\napiVersion: v1\nkind: Secret\ntype: Opaque\nmetadata: {name: %s}\ndata:\n' "$1"
  local pair
  for pair in "${@:2}"; do printf '  %s: %s\n' "${pair%%=*}" "$(base64 -w0 < "${pair#*=}")"; done
}
head -c 32 /dev/urandom | base64 -w0 > "$folder/api"
head -c 32 /dev/urandom | base64 -w0 > "$folder/worker"
echo "* $(cut -d' ' -f1,2 "$folder/host_key.pub")" > "$folder/known_hosts"
secret quire-api "key=$folder/api"           # what clients send
secret quire-worker "secret=$folder/worker"  # what workers present to the coordinator
secret quire-ssh "id=$folder/id" "authorized_keys=$folder/id.pub" "host_key=$folder/host_key" \
  "known_hosts=$folder/known_hosts"          # by which mpirun reaches the pods of its group
