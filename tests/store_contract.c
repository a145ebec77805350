/* tests/store_contract.c: what every store keeps: the cases C1 to C78, each named, each followed by an audit of
 * leases, slices, memory and registrations. `store_contract [URI]` (local: without one) runs on any store of 64 MiB
 * and 4096 objects; what serves it is started by whoever calls. Cases with a P run once more with the other side in a
 * process of its own, which is this program again. A case that a missing capability exempts is said so, and the list
 * of these is compared with the one that is kept below for that store.
 * Environment: STORE_STOP and STORE_CONTINUE (commands) or STORE_SERVER_PID_FILE: C60; STORE_RESTART (a command): C75;
 * PACKBUF_SECRET: C76; STORE_TCP_ONLY (a URI): C78; STORE_CASES: the only ones to run ("C1 C72"); STORE_WITHOUT: not
 * these; STORE_ONE_PROCESS=1: no second process sees the store (a double that lives in this one); STORE_AT_ONCE_MS:
 * what a call may take that waits for the network alone (300; more where packets are lost). */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#include "../transport/packbuf_transport.h"
#include "tap.h"

#include "store_contract_world.h"
#include "store_contract_keys.h"
#include "store_contract_batches.h"
#include "store_contract_room.h"
#include "store_contract_threads.h"
#include "store_contract_faults.h"

#define SUPERSEDE PACKBUF_CAN_SUPERSEDE
#define NEWEST PACKBUF_CAN_NEWEST
#define RANGES PACKBUF_CAN_RANGES
#define REMOVE_NOW PACKBUF_CAN_REMOVE_NOW
#define IN_PLACE PACKBUF_CAN_IN_PLACE
#define INJECT PACKBUF_CAN_INJECT

/* When else a case runs. */
enum { ALWAYS, TWICE /* P */, APART /* P, and in no other way */, NOT_LOCAL, STOPS, VERBS, SECRET };

typedef struct one_case {
  const char *name;
  void (*run)(void);
  unsigned wants, without; /* capabilities; exempt if it has one of `without` */
  int when;
  const char *text;
} one_case;

static const one_case cases[] = {
    {"C1", c1_plain, 0, 0, ALWAYS, "put, get into memory, get with a lease"},
    {"C2", c2_sizes, 0, 0, ALWAYS, "objects of 0 bytes to 20 MiB are whole"},
    {"C3", c3_canaries, 0, 0, ALWAYS, "nothing is written beside what was asked for, at any offset"},
    {"C4", c4_never_was, 0, 0, ALWAYS, "a key that never was is NOT_FOUND, by its name"},
    {"C5", c5_capacity, 0, 0, ALWAYS, "too small a room stays untouched"},
    {"C6", c6_other_side, 0, 0, TWICE, "what one side puts the other gets"},
    {"C7", c7_keys, 0, 0, ALWAYS, "long, short and odd keys are distinct"},
    {"C8", c8_bad_keys, 0, 0, ALWAYS, "keys that are none are refused"},
    {"C9", c9_about, 0, 0, ALWAYS, "kind, head and fingerprint travel with an object"},
    {"C10", c10_remove, 0, 0, ALWAYS, "what was removed is gone, and its memory back"},
    {"C11", c11_put_again, 0, 0, ALWAYS, "put, remove, put: the second, of a larger generation"},
    {"C12", c12_newest, NEWEST, 0, TWICE, "the newest is the last of 100 puts by two sides"},
    {"C13", c13_read_only, 0, 0, ALWAYS, "a handle for reading alone"},
    {"C14", c14_no_writing, IN_PLACE, 0, NOT_LOCAL, "a lease's memory cannot be written"},
    {"C15", c15_stale, SUPERSEDE, 0, ALWAYS, "an older generation is STALE"},
    {"C16", c16_stale_later, 0, SUPERSEDE, ALWAYS, "an older generation is whole until it is STALE"},
    {"C17", c17_wrong_generation, 0, 0, ALWAYS, "a generation that is not the object's is STALE"},
    {"C18", c18_remove_old, 0, 0, ALWAYS, "removing an older generation leaves the newer one"},
    {"C19", c19_leased_old, 0, 0, TWICE, "a lease on an older generation keeps its bytes"},
    {"C20", c20_newest_in_a_loop, NEWEST, 0, TWICE, "2,000 puts read meanwhile: each whole, never an older one again"},
    {"C21", c21_key_three_times, 0, 0, ALWAYS, "a key three times in one batch: the last is the newest"},
    {"C22", c22_generations_grow, 0, 0, TWICE, "generations grow across closing and opening"},
    {"C23", c23_both_put, 0, 0, TWICE, "two sides put one key: one newest, whole"},
    {"C24", c24_many, 0, 0, ALWAYS, "256 keys in one call of each kind"},
    {"C25", c25_some_fail, 0, 0, ALWAYS, "13 of 256 fail, and no others"},
    {"C26", c26_retry, 0, 0, ALWAYS, "those 13 alone again"},
    {"C27", c27_none_and_many, 0, 0, ALWAYS, "batches of 0 and of 10,000 items"},
    {"C28", c28_ranges, 0, 0, ALWAYS, "ranges end to end, in their order"},
    {"C29", c29_out_of_range, 0, 0, ALWAYS, "ranges beyond the end are OUT_OF_RANGE, alone"},
    {"C30", c30_only_ranges_move, RANGES, 0, ALWAYS, "ranges move what they name"},
    {"C31", c31_ranges_leased, 0, 0, ALWAYS, "ranges with a lease"},
    {"C32", c32_large_and_tiny, 0, 0, ALWAYS, "small objects do not wait for a large one that fails"},
    {"C33", c33_inputs, 0, 0, ALWAYS, "what is asked is not changed"},
    {"C34", c34_slices, 0, 0, ALWAYS, "a slice that is put is taken over, its tail is free"},
    {"C35", c35_slice_stays, 0, 0, ALWAYS, "a slice whose put fails stays the caller's"},
    {"C36", c36_reserve_often, 0, 0, ALWAYS, "10,000 slices, out and back"},
    {"C37", c37_steady, 0, 0, ALWAYS, "1,000 puts and gets without a registration"},
    {"C38", c38_unregistered, 0, 0, ALWAYS, "memory that was not registered is named"},
    {"C39", c39_unions, 0, 0, ALWAYS, "registrations that touch are one"},
    {"C40", c40_remapped, 0, 0, ALWAYS, "memory that came again after unregistering"},
    {"C41", c41_remapped_unsaid, 0, 0, ALWAYS, "memory that came again without a word"},
    {"C42", c42_file_mapping, 0, 0, ALWAYS, "a file mapped for reading as the source"},
    {"C43", c43_account_quota, 0, 0, ALWAYS, "an account's quota stops that account alone"},
    {"C44", c44_full, 0, 0, ALWAYS, "a full store is FULL, and loses nothing"},
    {"C45", c45_full_to_the_deadline, 0, 0, ALWAYS, "FULL at the deadline"},
    {"C46", c46_room_later, 0, 0, TWICE, "a put waits for room that another makes"},
    {"C47", c47_larger_than_the_store, 0, 0, ALWAYS, "larger than the store is CAPACITY at once"},
    {"C48", c48_eviction, PACKBUF_CAN_EVICT, 0, ALWAYS,
     "eviction takes evictable objects alone, the oldest read first"},
    {"C49", c49_time_to_live, PACKBUF_CAN_TTL, 0, ALWAYS, "times to live"},
    {"C50", c50_handle_quota, PACKBUF_CAN_QUOTA, 0, ALWAYS, "a handle's quota"},
    {"C51", c51_list, PACKBUF_CAN_LIST, 0, TWICE, "each that stays is listed once"},
    {"C52", c52_describe, 0, 0, ALWAYS, "describe and counters say what is there"},
    {"C53", c53_remove_leased, 0, 0, TWICE, "what is leased is removed at once, its memory later"},
    {"C54", c54_remove_waits, 0, 0, TWICE, "a removal waits for a lease"},
    {"C55", c55_engine_lease, 0, REMOVE_NOW, ALWAYS, "an engine's lease delays a removal"},
    {"C56", c56_remove_all_generations, NEWEST, 0, ALWAYS, "no older generation shows after a removal"},
    {"C57", c57_two_leases, 0, 0, ALWAYS, "memory comes back with the last of two leases"},
    {"C58", c58_close_busy, 0, 0, ALWAYS, "closing with a lease, a slice or a batch out is LEASED"},
    {"C59", c59_past, 0, 0, ALWAYS, "deadlines that have passed"},
    {"C60", c60_other_side_stopped, 0, 0, STOPS, "the other side is stopped: deadlines hold"},
    {"C61", c61_goes_on, 0, 0, STOPS, "the other side goes on"},
    {"C62", c62_submit, 0, 0, ALWAYS, "batches without waiting, a descriptor"},
    {"C63", c63_cancel, 0, 0, ALWAYS, "cancelling"},
    {"C64", c64_threads, 0, 0, ALWAYS, "8 threads, 16,000 operations on 64 keys"},
    {"C65", c65_fork, 0, 0, ALWAYS, "a child after fork"},
    {"C66", c66_out_of_memory, 0, 0, ALWAYS, "each allocation fails once"},
    {"C67", c67_fail, INJECT, 0, ALWAYS, "each item of a batch fails once"},
    {"C68", c68_short_get, INJECT, 0, ALWAYS, "SHORT_READ"},
    {"C69", c69_writer_dies, INJECT, 0, ALWAYS, "a writer that dies leaves nothing"},
    {"C70", c70_flipped, INJECT, 0, ALWAYS, "flipped bytes are seen by checksums"},
    {"C71", c71_out_of_order, INJECT, 0, ALWAYS, "items that end out of order"},
    {"C72", c72_writer_killed, 0, 0, APART, "a writer is killed"},
    {"C73", c73_reader_killed, REMOVE_NOW, 0, APART, "a reader is killed"},
    {"C74", c74_reader_stopped, 0, 0, TWICE, "a reader is stopped"},
    {"C75", c75_server_restarts, 0, 0, NOT_LOCAL, "the server starts again"},
    {"C76", c76_secret, 0, 0, SECRET, "secrets"},
    {"C77", c77_bad_uris, 0, 0, ALWAYS, "URIs that are no good"},
    {"C78", c78_step_down, 0, 0, VERBS, "verbs steps down to tcp when it may"},
};

/* What is known of each store: its capabilities, and the cases that are exempt. */
typedef struct kept {
  const char *transport;
  unsigned can;
  const char *exempt;
} kept;

#define OF_SHM                                                                                          \
  (RANGES | NEWEST | SUPERSEDE | REMOVE_NOW | PACKBUF_CAN_TTL | PACKBUF_CAN_EVICT | PACKBUF_CAN_QUOTA | \
   PACKBUF_CAN_LIST | PACKBUF_CAN_OUTLIVE)

static const kept keeps[] = {
    {"local", (OF_SHM & ~(unsigned)PACKBUF_CAN_OUTLIVE) | IN_PLACE | INJECT, " C14 C16 C55 C72 C73 C75 C76 C78"},
    {"shm", OF_SHM | IN_PLACE, " C16 C55 C67 C68 C69 C70 C71 C78"},
    {"tcp", OF_SHM, " C14 C16 C55 C67 C68 C69 C70 C71 C78"},
    {"verbs", OF_SHM, " C14 C16 C55 C67 C68 C69 C70 C71"},
    {"mooncake", PACKBUF_CAN_OUTLIVE,
     " C12 C14 C15 C20 C30 C48 C49 C50 C51 C56 C67 C68 C69 C70 C71 C73 C76 C78"},
};

static const struct {
  unsigned bit;
  const char *name;
} capability_names[] = {
    {RANGES, "RANGES"},         {NEWEST, "NEWEST"},       {SUPERSEDE, "SUPERSEDE"},     {REMOVE_NOW, "REMOVE_NOW"},
    {IN_PLACE, "IN_PLACE"},     {PACKBUF_CAN_TTL, "TTL"}, {PACKBUF_CAN_EVICT, "EVICT"}, {PACKBUF_CAN_QUOTA, "QUOTA"},
    {PACKBUF_CAN_LIST, "LIST"}, {INJECT, "INJECT"}};

static char exempted[1024];

/* Why a case does not run on this store; NULL: it does. */
static const char *why_exempt(const one_case *one) {
  const unsigned missing = one->wants & ~w.can, has = one->without & w.can;
  for (size_t i = 0; i < sizeof capability_names / sizeof *capability_names; i++)
    if ((missing | has) & capability_names[i].bit) return capability_names[i].name;
  if (w.local && (one->when == APART || one->when == NOT_LOCAL || one->when == SECRET)) return "local";
  if (one->when == APART && getenv("STORE_ONE_PROCESS")) return "one process";
  if (one->when == SECRET && strcmp(w.transport, "mooncake") == 0) return "no secrets";
  if (one->when == VERBS && strcmp(w.transport, "verbs") != 0) return "verbs alone";
  return NULL;
}

static void run_one(const one_case *one, int apart) {
  char name[32];
  const uint64_t start = packbuf_now();
  snprintf(name, sizeof name, "%s%s", one->name, apart && one->when == TWICE ? " P" : "");
  if (begin_case(name, apart)) one->run();
  end_case();
  tap_ok(!w.bad, "%s %s", name, one->text);
  if (milliseconds_since(start) > 2000) tap_note("%s took %u ms", name, (unsigned)milliseconds_since(start));
}

/* Whether names with blanks between them have this one among them. */
static int is_among(const char *names, const char *name) {
  const size_t size = strlen(name);
  for (const char *at = names; at && (at = strstr(at, name)) != NULL; at++)
    if ((at == names || at[-1] == ' ') && (at[size] == 0 || at[size] == ' ')) return 1;
  return 0;
}

static int asked_for(const char *name) {
  const char *asked = getenv("STORE_CASES");
  return (!asked || !asked[0] || is_among(asked, name)) && !is_among(getenv("STORE_WITHOUT"), name);
}

static void run_cases(void) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const one_case *one = &cases[i];
    const char *why = why_exempt(one);
    if (!asked_for(one->name)) continue;
    if (why) {
      tap_note("exempt %s (%s)", one->name, why);
      snprintf(exempted + strlen(exempted), sizeof exempted - strlen(exempted), " %s", one->name);
      continue;
    }
    if (one->when != APART)
      run_one(one, one->when == NOT_LOCAL || one->when == STOPS ? strcmp(w.transport, "shm") == 0 : 0);
    if (!w.local && !getenv("STORE_ONE_PROCESS") && (one->when == TWICE || one->when == APART)) run_one(one, 1);
  }
}

static void compare_kept(void) {
  for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
    if (strcmp(keeps[i].transport, w.transport) != 0) continue;
    tap_ok(w.can == keeps[i].can, "capabilities of %s: %#x, kept %#x", w.transport, w.can, keeps[i].can);
    if (!getenv("STORE_CASES") && !getenv("STORE_WITHOUT"))
      tap_ok(strcmp(exempted, keeps[i].exempt) == 0, "exempt:%s; kept:%s", exempted, keeps[i].exempt);
    return;
  }
  tap_ok(0, "a store that is known here: %s", w.transport);
}

/* Looks at the store that is to be tested. */
static int look(void) {
  packbuf_store_options options = contract_options();
  static packbuf_store_info info;
  packbuf_store *store = NULL;
  packbuf_status status = packbuf_store_open(w.uri, &options, &store, &w.error);
  if (!status) status = packbuf_store_describe(store, &info, in_time(), &w.error);
  tap_ok(!status, "%s opens%s%s", w.uri, status ? ": " : "", status ? w.error.message : "");
  w.transport = info.transport;
  w.can = info.capabilities;
  w.local = !status && strcmp(info.transport, "local") == 0;
  (void)packbuf_store_close(store, in_time(), NULL);
  return !status;
}

int main(int argc, char **argv) {
  void *memory;
  if (argc == 4 && strcmp(argv[1], "--peer") == 0) return peer_main(argv[2], atoi(argv[3]));
  pthread_mutex_init(&w.lock, NULL);
  w.program = argv[0];
  w.uri = argc > 1 ? argv[1] : "local:";
  memory = mmap(NULL, 3 * ZONE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 2;
  w.source = (uint8_t *)memory;
  w.target = w.source + ZONE;
  w.memory = w.target + ZONE;
  if (look()) {
    run_cases();
    compare_kept();
  }
  free(w.keys);
  return tap_plan_done();
}
