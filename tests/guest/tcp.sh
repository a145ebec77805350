# Guest script: the store `tcp` between two network namespaces. First the contract where packets are lost and late, of
# which those cases are left out that take long because they do much, or that stop or restart the server (tests/stores.sh
# runs them all); then the cases of faults.c, with a server of their own.
# Needs: store_contract, serve, faults.
. /guest/lib.sh
export PACKBUF_SECRET=hush

contract() {
    export STORE_AT_ONCE_MS=1500
    export STORE_WITHOUT='C20 C23 C26 C27 C37 C44 C45 C46 C48 C50 C51 C60 C61 C62 C63 C64 C66 C74 C75'
    netem delay 1ms loss 1% && within there /usr/bin/store_contract tcp://10.78.0.1:6000 && netem off
}

namespaces && serve_at tcp://10.78.0.1:6000 within here || exit 1
check 'the contract, with 1 % loss and 1 ms delay' contract
check 'networks that fail' faults
finish
