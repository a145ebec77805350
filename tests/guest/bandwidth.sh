# Guest script: gets over `verbs` beside ib_read_bw between the same two devices, at 1 MiB: ROUNDS (5) rounds of one after
# the other, as the machine is noisy, and the medians. Batches of 16, as ib_read_bw has many READs under way too. Then many
# small keys in one batch beside one by one.
# Needs: serve, packbuf, ib_read_bw. Run by `make bench-verbs`.
. /guest/lib.sh
export PACKBUF_SECRET=hush
uri='verbs://10.77.0.2:6000?device=rxe0'

peer() { # GB/s
    ib_read_bw -d rxe1 -x 1 -F -s 1048576 -n 200 >/dev/null 2>&1 &
    sleep 1
    ib_read_bw -d rxe0 -x 1 -F -s 1048576 -n 200 10.77.0.2 2>&1 | tee /tmp/peer | awk '$1 == 1048576 { print $4 * 1048576 / 1e9 }'
    wait $!
}

ours() { # GB/s
    packbuf bench-store "$uri" --ops get --sizes 1m --batches 16 --seconds 2 --json 2>&1 | tee /tmp/ours |
        sed -n 's/.*"operation":"get".*"gigabytes_per_second":\([0-9.e+-]*\).*/\1/p'
}

median() { sort -g | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

roce && serve_at verbs://10.77.0.2:6000 || exit 1
for round in $(seq "${ROUNDS:-5}"); do
    theirs=$(peer) && [ -n "$theirs" ] || { cat /tmp/peer; exit 1; }
    mine=$(ours) && [ -n "$mine" ] || { cat /tmp/ours; exit 1; }
    echo "round $round: ib_read_bw $theirs GB/s, packbuf $mine GB/s"
    echo "$theirs" >>/tmp/theirs
    echo "$mine" >>/tmp/mine
done
theirs=$(median </tmp/theirs)
mine=$(median </tmp/mine)
echo "medians: ib_read_bw $theirs GB/s, packbuf $mine GB/s: $(echo "$mine $theirs" | awk '{ printf "%.2f", $1 / $2 }')"
echo '256 keys of 64 bytes in one batch, beside one by one (x one):'
packbuf bench-store "$uri" --ops put,get --sizes 64 --batches 1,256 --seconds 2
