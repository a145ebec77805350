# Guest script: the store `verbs` over software RoCE. First the contract, between two devices on one pair, of which those
# cases are left out that take long because they do much, or that stop or restart the server; then the cases of verbs.c,
# with a server of their own, where the way between the devices fails.
# Needs: store_contract, serve, store_verbs, verbs, rollout.
. /guest/lib.sh
export PACKBUF_SECRET=hush

contract() {
    export STORE_AT_ONCE_MS=1500 STORE_TCP_ONLY="verbs://127.0.0.1:6001?device=rxe0"
    export STORE_WITHOUT='C20 C23 C26 C27 C37 C44 C45 C46 C48 C50 C51 C60 C61 C62 C63 C64 C66 C74 C75'
    /usr/bin/store_contract 'verbs://10.77.0.2:6000?device=rxe0'
}

roce && serve_at verbs://10.77.0.2:6000 && serve_at tcp://127.0.0.1:6001 || exit 1
beyond() { STORE_SERVER_URI=verbs://127.0.0.1:0 STORE_SERVER_DEVICE=rxe1 STORE_CLIENT_DEVICE=rxe0 store_verbs; }
check 'the contract' contract
check 'what verbs promises beyond it' beyond
check 'a worker and a learner' rollout 'verbs://10.77.0.2:6000?device=rxe0'
check 'networks that fail, bad keys, clients that are killed' verbs
finish
