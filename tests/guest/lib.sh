# What guest scripts share: TAP, the two networks, faults on their links. A script begins with `. /guest/lib.sh`.
#
#   check NAME COMMAND...   one test: passes when the command exits with 0; what it prints is shown as comments
#   finish                  last line: the plan; exits
#   namespaces              namespaces `here` (10.78.0.1, device veth0) and `there` (10.78.0.2, veth1); within N COMMAND...
#   roce                    devices rxe0 (10.77.0.1, veth0) and rxe1 (10.77.0.2, veth1), both in this namespace
#   netem HOW...            both directions of either network from now on; netem off: ends it
#   link up | down          the far end of either network (veth1)
#   serve_at URI [within N] a server (tests/double/serve.c) until the guest ends
set -u -o pipefail
ip() { /usr/bin/ip "$@"; } # busybox has an ip and a tc of its own, which cannot do this
tc() { /usr/bin/tc "$@"; }
rdma() { /usr/bin/rdma "$@"; }
count=0
failed=0

check() {
    local name=$1 no=
    shift
    "$@" 2>&1 | sed 's/^/# /' || no='not '
    count=$((count + 1))
    [ -z "$no" ] || failed=$((failed + 1))
    echo "${no}ok $count - $name"
}

finish() {
    echo "1..$count"
    [ $failed = 0 ] && [ $count -gt 0 ]
    exit
}

within() {
    local space=$1
    shift
    ip netns exec "$space" "$@"
}

# COMMAND... at the near end (0) or the far end (1)
at() {
    local end=$1 space=here
    shift
    [ "$end" = 0 ] || space=there
    if [ -e /run/netns/there ]; then within $space "$@"; else "$@"; fi
}

namespaces() {
    ip netns add here && ip netns add there &&
        ip link add veth0 netns here type veth peer name veth1 netns there &&
        for end in 0 1; do
            at $end /usr/bin/ip addr add 10.78.0.$((end + 1))/24 dev veth$end &&
                at $end /usr/bin/ip link set veth$end up && at $end /usr/bin/ip link set lo up || return
        done
}

# Of rxe, traffic between namespaces fails: both devices lie in one, with accept_local so that it takes the way over the
# pair. A TCP connection between the two addresses does not: it stays within the machine, and no fault touches it.
roce() {
    ip link add veth0 type veth peer name veth1
    echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
    for end in 0 1; do
        echo 1 >/proc/sys/net/ipv4/conf/veth$end/accept_local
        echo 0 >/proc/sys/net/ipv4/conf/veth$end/rp_filter
        ip addr add 10.77.0.$((end + 1))/24 dev veth$end
        ip link set veth$end mtu 9000 up
        rdma link add rxe$end type rxe netdev veth$end || return
    done
    for end in 0 1; do # their GIDs come later
        for _ in $(seq 100); do
            grep -q ffff:0a4d /sys/class/infiniband/rxe$end/ports/1/gids/1 2>/dev/null && break
            usleep 20000
        done
        grep -q ffff:0a4d /sys/class/infiniband/rxe$end/ports/1/gids/1 || return
    done
}

netem() {
    for end in 0 1; do
        if [ "$1" = off ]; then at $end /usr/bin/tc qdisc del dev veth$end root
        else at $end /usr/bin/tc qdisc replace dev veth$end root netem "$@"; fi || return
    done
}

link() { at 1 /usr/bin/ip link set veth1 "$1"; }

serve_at() {
    local uri=$1 said=/tmp/uri.$(echo "$1" | tr -c 'a-z0-9\n' _)
    shift
    [ -e /tmp/stay ] || mkfifo /tmp/stay
    exec 8<>/tmp/stay # it ends with its standard input
    "$@" /usr/bin/serve "$uri" </tmp/stay >"$said" &
    for _ in $(seq 500); do [ ! -s "$said" ] || return 0; usleep 20000; done
    return 1
}
