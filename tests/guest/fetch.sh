#!/usr/bin/env bash
# Gets what the guest machine is made of: Debian's kernel with its modules, and the few programs and libraries that run
# beside the tests. Downloaded and unpacked below build/guest (kept between runs), nothing is installed.
# usage: fetch.sh; afterwards build/guest/tree is the root they were unpacked in.
# May use: apt-get, apt-cache, dpkg. Must not know: what is tested.
set -eu
cd "$(dirname "$0")/../.."
libraries='libnl-3-200 libnl-route-3-200 libmnl0 libbsd0 libmd0 libcap2 libelf1 libbpf1 libxtables12 zlib1g librdmacm1
    libibumad3 libpci3 libudev1'
packages="busybox-static iproute2 libibverbs1 ibverbs-providers perftest $libraries"

fetch() { # the cloud kernel has no rdma_rxe: it must be the one for all machines
    kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
    rm -rf build/guest/debs build/guest/tree && mkdir -p build/guest/debs build/guest/tree
    # shellcheck disable=SC2086
    (cd build/guest/debs && apt-get download -qq $kernel $packages)
}

[ ! -d build/guest/tree ] || [ "$(cat build/guest/fetched 2>/dev/null)" != "$packages" ] || exit 0
mkdir -p build/guest
fetch >build/guest/fetch.log 2>&1 || { # lists that are too old name packages that are gone
    apt-get update -qq && fetch
} >>build/guest/fetch.log 2>&1 || { cat build/guest/fetch.log >&2; exit 1; }
for package in build/guest/debs/*.deb; do dpkg -x "$package" build/guest/tree; done
rm -rf build/guest/debs
printf '%s\n' "$packages" >build/guest/fetched
