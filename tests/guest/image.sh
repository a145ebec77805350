#!/usr/bin/env bash
# Makes the initramfs of one guest: busybox, ip, rdma, tc, the kernel modules, the provider of software RoCE, and the
# programs given with every library they load. Programs go to /usr/bin, other files and the script to /guest.
# usage: image.sh IMAGE SCRIPT FILE...; a FILE without a slash is a program of the packages (ib_read_bw).
# May use: what fetch.sh unpacked. Must not know: what is tested.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../build/guest/tree
image=$1 script=$2
shift 2
libraries=usr/lib/x86_64-linux-gnu
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree" # mktemp's 0700 would be the guest's root folder

mkdir -p "$tree"/{bin,modules,guest,lib64,etc/libibverbs.d,usr/bin,$libraries/libibverbs}
ln -s usr/lib "$tree/lib"
echo 'root:x:0:0:root:/:/bin/sh' >"$tree/etc/passwd"
cp "$root/bin/busybox" "$tree/bin"
cp "$here/init" "$tree/init"
cp "$here/lib.sh" "$tree/guest/lib.sh"
cp "$script" "$tree/guest/script"
chmod 755 "$tree/init"

# in the order of their needs; crc32_generic is one that modules.dep does not tell
modules=$(echo "$root"/lib/modules/*/kernel)
for module in crypto/crc32_generic net/ipv6/ip6_udp_tunnel net/ipv4/udp_tunnel drivers/infiniband/core/ib_core \
    drivers/infiniband/core/ib_uverbs drivers/infiniband/sw/rxe/rdma_rxe drivers/net/veth net/sched/sch_netem; do
    cp "$modules/$module.ko" "$tree/modules"
    echo "${module##*/}" >>"$tree/modules/order"
done

# libibverbs and its provider are opened at run time, so no program names them
provider=$libraries/libibverbs/librxe-rdmav34.so
cp "$root/$provider" "$tree/$libraries/libibverbs"
echo 'driver rxe' >"$tree/etc/libibverbs.d/rxe.driver"
cp -L "$root/$libraries/libibverbs.so.1" "$tree/$libraries"
loaded=("$root/$provider" "$root/$libraries/libibverbs.so.1")
for file in bin/ip sbin/tc bin/rdma "$@"; do
    case $file in */*) [ -e "$file" ] || file=$root/$file ;; *) file=$root/usr/bin/$file ;; esac
    [ -e "$file" ] || file=$root/usr/bin/${file##*/}
    if [ -x "$file" ]; then cp -L "$file" "$tree/usr/bin" && loaded+=("$file"); else cp -L "$file" "$tree/guest"; fi
done
LD_LIBRARY_PATH=$root/$libraries:$root/lib/x86_64-linux-gnu ldd "${loaded[@]}" 2>/dev/null |
    awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | xargs -I{} cp -L {} "$tree/$libraries"
cp -L /lib64/ld-linux-x86-64.so.2 "$tree/lib64"

(cd "$tree" && find . | LC_ALL=C sort | "$root/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$image"
