#!/usr/bin/env bash
# The Dockerfile's first stage: build.sh VARIANT OUT compiles the programs on a bare Debian 12 and lays out
# under OUT, by their paths, the files that the image adds to it. VARIANT: cpu, or cuda.
set -euo pipefail
variant=$1 out=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_dir=$(cd "$here/../.." && pwd)
bin=$source_dir/build/bin
case $variant in
  cpu) options=() ;;
  cuda) options=(--cuda) ;;
  *) echo "build.sh: the variant is '$variant', but must be cpu or cuda" >&2; exit 64 ;;
esac

"$source_dir/deploy/setup.sh" --no-model ${options[@]+"${options[@]}"}
install -d "$out/usr/local/bin"
install --strip "$bin"/quire{,-supervisor,-coordinator,-worker} "$out/usr/local/bin"
install "$here"/quire-{group,health} "$out/usr/local/bin"
install -D -m 644 "$here/sshd_config" "$out/usr/local/share/quire/sshd_config"
install -D -m 644 "$here/openmpi-mca-params.conf" "$out/etc/openmpi/openmpi-mca-params.conf"
[ "$variant" = cuda ] || exit 0

# What the backend is linked to, and NCCL, which it opens, come with the compiler; the driver comes from the host.
install --strip "$bin/libquire_cuda.so" "$out/usr/local/bin"
install -d "$out/usr/local/lib/quire" "$out/etc/ld.so.conf.d"
nccl=$(sed -n 's/^QUIRE_NCCL:[A-Z]*=//p' "$source_dir/build/CMakeCache.txt")
install -T "$nccl" "$out/usr/local/lib/quire/libnccl.so.2"
ldd "$bin/libquire_cuda.so" | awk '/libcublas/ && $3 ~ /^\// {print $3}' | xargs install -t "$out/usr/local/lib/quire"
echo /usr/local/lib/quire > "$out/etc/ld.so.conf.d/quire.conf"
