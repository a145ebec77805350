# Guest script: processes of the store `verbs`, and its server, killed and stopped at random over software RoCE, ROUNDS (100)
# times. Both ends are the one device of the server's address: nothing here is about the way between devices.
# Needs: kills. Run by `make kills-verbs`.
. /guest/lib.sh
export PACKBUF_SECRET=hush
roce || exit 1
check 'killed and stopped at random' kills verbs://10.77.0.2:0 "${ROUNDS:-100}"
finish
