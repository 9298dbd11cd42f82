#!/usr/bin/env bash
# The Dockerfile's second stage: what the programs need of Debian 12, at run time only, and the user that
# they run as. The names hold the versions (as setup.sh's do): another release of any has another name.
set -euo pipefail
packages=(
  libgrpc++1.51 libprotobuf32 libabsl20220623
  libopenmpi3 openmpi-bin
  libyaml-cpp0.7 libspdlog1.10 libfmt9 libprometheus-cpp-core1.0
  libpcre2-8-0 libicu72 libssl3 libsqlite3-0
  openssh-client openssh-server  # by which mpirun reaches the other pods of a worker group
)
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
rm -f /etc/ssh/ssh_host_*  # the package makes keys; an image must not have any
groupadd --gid 10001 quire
useradd --uid 10001 --gid quire --home-dir /var/lib/quire --shell /bin/sh --no-create-home quire
install -d -o quire -g quire -m 700 /var/lib/quire /var/cache/quire
install -d /models
ldconfig
