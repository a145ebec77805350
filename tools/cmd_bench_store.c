/* tools/cmd_bench_store.c: `packbuf bench-store`: what the operations of a store cost, by object size and batch size,
 * and beside them in the same run what a plain copy or a plain stream of the same bytes costs.
 * May use: packbuf_transport.h (the public part alone), tables, iperf3. Must not know: how a store does it. */
#include <unistd.h>

#include "stores.h"
#include "table.h"

enum { SAMPLES = 1 << 20, LEAST_CALLS = 5, WARM_CALLS = 3, MOST_BATCH = 4096, COPIES_FROM = 4096, STREAMS_FROM = 65536 };
#define MOST_BYTES ((uint64_t)256 << 20) /* of one batch */

/* Numbers that were measured: the first SAMPLES of them, then the newest in their places. */
typedef struct samples {
  double *values;
  size_t count, next;
} samples;

/* One line of what is printed. */
typedef struct result {
  const char *operation, *skipped; /* skipped: why there are no numbers; NULL */
  uint64_t size, batch, calls;
  int carries;           /* bytes of objects */
  double seconds;        /* of all calls */
  double p50, p99;       /* ns a call */
  double registrations;  /* for each key */
  double moved;          /* bytes for each byte asked */
  const char *peer;      /* "memcpy", "iperf3", NULL */
  double peer_rate, ratio; /* medians: GB/s of the peer, this store's speed / the peer's */
} result;

typedef struct bench {
  const verb *command;
  const char *uri;
  packbuf_store *store;
  packbuf_store_info info;
  uint64_t timeout_ms, ns; /* ns: of a row */
  int json, quick, streams; /* streams: iperf3 runs beside it */
  const char *congestion;   /* control of those; NULL: the system's */
  /* the row */
  uint64_t size, batch;
  packbuf_item *items;
  char (*keys)[64];
  uint8_t *memory;        /* the caller's own: registered, batch x size bytes */
  packbuf_slice *slices;  /* of the store, one more than the batch has items, for copies that go where puts go */
  const uint8_t **places; /* objects of the store, for copies that come from where gets come from */
  uint64_t slice;
  samples times, ratios, rates;
  /* all rows */
  result *results;
  size_t count;
} bench;

/* An operation: `prepare` is not timed, `peer` is a copy of the same bytes. */
typedef struct operation {
  const char *name;
  unsigned needs; /* PACKBUF_CAN_... */
  int carries;
  void (*begin)(bench *b);
  void (*prepare)(bench *b);
  void (*run)(bench *b);
  void (*peer)(bench *b);
  void (*end)(bench *b);
} operation;

/* ---- samples ---- */

static void samples_add(samples *to, double value) {
  if (!to->values) to->values = (double *)must_alloc(SAMPLES * sizeof *to->values);
  to->values[to->next] = value;
  to->next = (to->next + 1) % SAMPLES;
  if (to->count < SAMPLES) to->count++;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts them, and begins anew. The one below which `share` of all lie; 0 without any. */
static double samples_take(samples *from, double share) {
  const size_t at = (size_t)(share * (double)from->count);
  if (!from->count) return 0;
  qsort(from->values, from->count, sizeof *from->values, by_value);
  return from->values[at < from->count ? at : from->count - 1];
}

/* ---- calls of the store ---- */

static uint64_t bench_deadline(const bench *b) { return packbuf_deadline_in(b->timeout_ms); }

/* Puts what a call without a slice copies, or must carry. */
static void put_all(bench *b) {
  packbuf_error error;
  if (packbuf_batch_put(b->store, b->items, b->batch, bench_deadline(b), &error)) fail_call(b->uri, &error);
}

static void get_all(bench *b) {
  packbuf_error error;
  if (packbuf_batch_get(b->store, b->items, b->batch, bench_deadline(b), &error)) fail_call(b->uri, &error);
}

static void release_all(bench *b) {
  uint64_t i;
  for (i = 0; i < b->batch; i++) packbuf_lease_release(&b->items[i].lease);
}

static void get_in_place(bench *b) {
  get_all(b);
  release_all(b);
}

static void stat_all(bench *b) {
  packbuf_error error;
  if (packbuf_batch_stat(b->store, b->items, b->batch, bench_deadline(b), &error)) fail_call(b->uri, &error);
}

static void remove_all(bench *b) {
  packbuf_error error;
  if (packbuf_batch_remove(b->store, b->items, b->batch, bench_deadline(b), &error)) fail_call(b->uri, &error);
}

/* Whether a copy of the same bytes can be made beside it: then the store's memory is this process's. */
static int copies_beside(const bench *b) {
  return b->info.capabilities & PACKBUF_CAN_IN_PLACE && b->size >= COPIES_FROM;
}

static void begin_put(bench *b) {
  uint64_t *sizes = (uint64_t *)must_alloc((size_t)(b->batch + 1) * sizeof *sizes), i;
  packbuf_error error;
  for (i = 0; i <= b->batch; i++) sizes[i] = b->size;
  if (copies_beside(b) && packbuf_reserve(b->store, 0, sizes, b->batch + 1, bench_deadline(b), b->slices, &error))
    fail_call(b->uri, &error);
  free(sizes);
}

static void copy_in(bench *b) {
  uint64_t i;
  for (i = 0; i < b->batch; i++, b->slice++)
    memcpy(b->slices[b->slice % (b->batch + 1)].data, b->items[i].from, (size_t)b->size);
}

static void end_put(bench *b) {
  uint64_t i;
  for (i = 0; i <= b->batch; i++) packbuf_slice_release(&b->slices[i]);
}

static void get_into(bench *b) {
  uint64_t i;
  for (i = 0; i < b->batch; i++) {
    b->items[i].into = b->memory + i * b->size;
    b->items[i].capacity = b->size;
  }
}

static void begin_get(bench *b) {
  uint64_t i;
  if (copies_beside(b)) {
    get_all(b);
    for (i = 0; i < b->batch; i++) b->places[i] = (const uint8_t *)b->items[i].lease.data;
    release_all(b); /* nothing moves an object that stays */
  }
  get_into(b);
}

static void copy_out(bench *b) {
  uint64_t i;
  for (i = 0; i < b->batch; i++) memcpy(b->items[i].into, b->places[i], (size_t)b->size);
}

static void end_get(bench *b) {
  uint64_t i;
  for (i = 0; i < b->batch; i++) {
    b->items[i].into = NULL;
    b->items[i].capacity = 0;
  }
}

static const operation operations[] = {
    {"put", 0, 1, begin_put, NULL, put_all, copy_in, end_put},
    {"get", 0, 1, begin_get, NULL, get_all, copy_out, end_get},
    {"get-in-place", PACKBUF_CAN_IN_PLACE, 1, NULL, NULL, get_in_place, NULL, NULL},
    {"stat", 0, 0, NULL, NULL, stat_all, NULL, NULL},
    {"remove", 0, 0, NULL, put_all, remove_all, NULL, NULL}, /* last: the keys are gone behind it */
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

/* ---- one row ---- */

/* The keys of a row, put once. What is left behind by a run that is broken off goes by itself. */
static void begin_row(bench *b) {
  packbuf_error error;
  uint64_t i;
  const uint64_t bytes = b->batch * b->size;
  b->memory = (uint8_t *)must_alloc((size_t)bytes);
  for (i = 0; i < bytes; i++) b->memory[i] = (uint8_t)(i * 0x9E3779B1u >> 24);
  if (packbuf_register(b->store, b->memory, bytes, &error)) fail_call(b->uri, &error);
  memset(b->items, 0, (size_t)b->batch * sizeof *b->items);
  for (i = 0; i < b->batch; i++) {
    b->items[i].key = b->keys[i];
    b->items[i].from = b->memory + i * b->size;
    b->items[i].size = b->size;
    if (b->info.capabilities & PACKBUF_CAN_TTL) b->items[i].ttl_ms = 600000u + (uint32_t)(b->ns / 1000000u) * 16;
  }
  put_all(b);
}

static void end_row(bench *b, int removed) {
  packbuf_error error;
  if (!removed) remove_all(b);
  if (packbuf_unregister(b->store, b->memory, b->batch * b->size, &error)) fail_call(b->uri, &error);
  free(b->memory);
}

static uint64_t timed(void (*what)(bench *b), bench *b) {
  const uint64_t start = packbuf_now();
  what(b);
  return packbuf_now() - start;
}

/* Calls for `ns`, each with a copy of the same bytes beside it, before or behind it by turns. Returns what they took. */
static uint64_t run_calls(bench *b, const operation *op, uint64_t ns, uint64_t least) {
  const uint64_t until = packbuf_now() + ns;
  const int copies = op->peer && copies_beside(b);
  uint64_t calls = 0, total = 0;
  while (calls < least || packbuf_now() < until) {
    uint64_t took, copy = 0;
    if (op->prepare) op->prepare(b);
    if (copies && calls % 2) copy = timed(op->peer, b);
    took = timed(op->run, b);
    if (copies && !copy) copy = timed(op->peer, b);
    total += took;
    calls++;
    samples_add(&b->times, (double)took);
    if (copies) {
      samples_add(&b->ratios, took ? (double)copy / (double)took : 1);
      samples_add(&b->rates, copy ? (double)(b->batch * b->size) / (double)copy : 0);
    }
  }
  b->results[b->count].calls += calls;
  return total;
}

/* The same with streams of as many bytes between them, in turns of 0.2 s. */
static uint64_t run_beside_streams(bench *b, const operation *op) {
  const uint64_t turns = 3 + b->ns / 200000000u;
  const int receives = op->run == get_all;
  uint64_t total = 0, i;
  for (i = 0; i < turns; i++) {
    const uint64_t before = b->results[b->count].calls;
    const uint64_t took = run_calls(b, op, b->ns / turns, LEAST_CALLS);
    const uint64_t bytes = (b->results[b->count].calls - before) * b->batch * b->size;
    const double rate = iperf3_rate(b->uri, b->size, bytes, receives, b->congestion);
    samples_add(&b->rates, rate);
    samples_add(&b->ratios, (double)bytes / (double)(took ? took : 1) / rate);
    total += took;
  }
  return total;
}

static void measure(bench *b, const operation *op) {
  result *to = &b->results[b->count];
  const int streams = b->streams && op->peer && b->size >= STREAMS_FROM;
  packbuf_counters before, after;
  packbuf_error error;
  double keys;
  int i;
  b->times.count = b->times.next = b->ratios.count = b->ratios.next = b->rates.count = b->rates.next = 0;
  if (op->begin) op->begin(b);
  for (i = 0; i < WARM_CALLS; i++) {
    if (op->prepare) op->prepare(b);
    op->run(b);
    if (op->peer && copies_beside(b)) op->peer(b);
  }
  if (packbuf_store_counters(b->store, &before, &error)) fail_call(b->uri, &error);
  to->seconds = (double)(streams ? run_beside_streams(b, op) : run_calls(b, op, b->ns, LEAST_CALLS)) * 1e-9;
  if (packbuf_store_counters(b->store, &after, &error)) fail_call(b->uri, &error);
  if (op->end) op->end(b);
  keys = (double)to->calls * (double)b->batch;
  to->carries = op->carries;
  to->p50 = samples_take(&b->times, 0.5);
  to->p99 = samples_take(&b->times, 0.99);
  to->registrations = (double)(after.registrations - before.registrations) / keys;
  to->moved = (double)(after.bytes_moved - before.bytes_moved) / keys / (double)b->size;
  to->peer = streams ? "iperf3" : b->ratios.count ? "memcpy" : NULL;
  to->peer_rate = samples_take(&b->rates, 0.5);
  to->ratio = samples_take(&b->ratios, 0.5);
}

/* Why a batch is left out; NULL: it is not. Puts that supersede, and copies beside them, take a store three times as
 * much. */
static const char *too_large(const bench *b) {
  if (b->batch * b->size > MOST_BYTES) return "more than 256 MiB in one batch";
  if (b->info.size != UINT64_MAX && b->batch * b->size > b->info.size / 4) return "more than a quarter of the store";
  if (b->info.most_objects != UINT64_MAX && b->batch > b->info.most_objects / 4)
    return "more than a quarter of the store's objects";
  return NULL;
}

/* All operations that are wanted (a bit each), at one size and one batch size. */
static void run_row(bench *b, unsigned wanted, size_t total) {
  const char *skipped = too_large(b);
  int i, removed = 0;
  if (!skipped) begin_row(b);
  for (i = 0; i < OPERATIONS; i++) {
    result *to = &b->results[b->count];
    if (!(wanted >> i & 1)) continue;
    progress("bench-store", b->count, total);
    memset(to, 0, sizeof *to);
    to->operation = operations[i].name;
    to->skipped = skipped;
    to->size = b->size;
    to->batch = b->batch;
    if (!skipped) measure(b, &operations[i]);
    removed = operations[i].run == remove_all;
    b->count++;
  }
  if (!skipped) end_row(b, removed);
}

/* ---- what is printed ---- */

static double rate_of(const result *row) { return (double)row->calls * (double)row->batch / row->seconds; }

/* How much faster a key is done in this batch than in one of its own, by medians; 0: not known. */
static double over_one(const bench *b, const result *row) {
  size_t i;
  for (i = 0; i < b->count; i++) {
    const result *one = &b->results[i];
    if (row->batch > 1 && one->batch == 1 && !one->skipped && one->size == row->size &&
        one->operation == row->operation)
      return one->p50 * (double)row->batch / row->p50;
  }
  return 0;
}

static void real_json(text *to, const char *name, double value, int known) {
  if (known) text_printf(to, ",\"%s\":%.6g", name, value);
  else text_printf(to, ",\"%s\":null", name);
}

static void row_json(const bench *b, const result *row, text *to) {
  const double gain = row->skipped ? 0 : over_one(b, row);
  text_printf(to, "{\"operation\":\"%s\",\"size\":%llu,\"batch\":%llu", row->operation, (unsigned long long)row->size,
              (unsigned long long)row->batch);
  if (row->skipped) {
    text_printf(to, ",\"skipped\":\"%s\"}", row->skipped);
    return;
  }
  number_json(to, "calls", row->calls);
  real_json(to, "seconds", row->seconds, 1);
  real_json(to, "gigabytes_per_second", rate_of(row) * (double)row->size * 1e-9, row->carries);
  real_json(to, "operations_per_second", rate_of(row), 1);
  real_json(to, "p50_ns", row->p50, 1);
  real_json(to, "p99_ns", row->p99, 1);
  real_json(to, "registrations_per_operation", row->registrations, 1);
  real_json(to, "moved_per_byte", row->moved, row->carries);
  real_json(to, "over_one_by_one", gain, gain > 0);
  if (row->peer) text_printf(to, ",\"peer\":\"%s\"", row->peer);
  else text_puts(to, ",\"peer\":null");
  real_json(to, "peer_gigabytes_per_second", row->peer_rate, row->peer != NULL);
  real_json(to, "of_peer", row->ratio, row->peer != NULL);
  text_puts(to, "}");
}

static void print_json(const bench *b, text *to) {
  size_t i;
  text_puts(to, "{\"uri\":");
  print_string(to, b->info.uri, strlen(b->info.uri));
  text_printf(to, ",\"transport\":\"%s\",\"quick\":%s,\"seconds_each\":%.6g,\"rows\":[", b->info.transport,
              b->quick ? "true" : "false", (double)b->ns * 1e-9);
  for (i = 0; i < b->count; i++) {
    text_puts(to, i ? ",\n" : "\n");
    row_json(b, &b->results[i], to);
  }
  text_puts(to, "]}\n");
}

static void cell(table *to, const char *format, double value) {
  char word[32];
  snprintf(word, sizeof word, format, value);
  table_puts(to, word);
}

static void cell_size(table *to, uint64_t size) {
  static const char *const units[] = {"%.0f", "%.0fk", "%.0fm", "%.0fg"};
  unsigned unit = 0;
  for (; unit < 3 && size >= 1024 && size % 1024 == 0; unit++) size /= 1024;
  cell(to, units[unit], (double)size);
}

static void cell_time(table *to, double ns) {
  if (ns < 1e3) cell(to, "%.0f ns", ns);
  else if (ns < 1e6) cell(to, "%.2f us", ns / 1e3);
  else cell(to, "%.2f ms", ns / 1e6);
}

static void print_row(const bench *b, const result *row, table *lines) {
  const double gain = row->skipped ? 0 : over_one(b, row);
  char beside[64] = "";
  int i;
  table_puts(lines, row->operation);
  cell_size(lines, row->size);
  table_number(lines, row->batch);
  if (row->skipped) {
    for (i = 0; i < 7; i++) table_puts(lines, "");
    table_puts(lines, row->skipped);
    return;
  }
  if (row->carries) cell(lines, "%.3f", rate_of(row) * (double)row->size * 1e-9);
  else table_puts(lines, "");
  cell(lines, "%.0f", rate_of(row));
  if (gain > 0) cell(lines, "%.1f", gain);
  else table_puts(lines, "");
  cell_time(lines, row->p50);
  cell_time(lines, row->p99);
  cell(lines, "%.3g", row->registrations);
  if (row->carries) cell(lines, "%.3f", row->moved);
  else table_puts(lines, "");
  if (row->peer) snprintf(beside, sizeof beside, "%.2f of %s's %.2f GB/s", row->ratio, row->peer, row->peer_rate);
  table_puts(lines, beside);
}

static void print_people(const bench *b, output *out) {
  static const char *const heads[] = {"operation", "size", "batch",  "GB/s",  "keys/s", "x one",
                                      "p50",       "p99",  "reg/key", "moved", "beside"};
  table lines = {{NULL, 0}, sizeof heads / sizeof *heads, 0x3fe};
  size_t i;
  for (i = 0; i < sizeof heads / sizeof *heads; i++) table_puts(&lines, heads[i]);
  for (i = 0; i < b->count; i++) print_row(b, &b->results[i], &lines);
  table_print(&lines, out);
}

/* ---- the command line ---- */

/* The next word of a list with commas, in `word`; NULL: there is none. */
static const char *next_word(const char *list, char *word, size_t room) {
  const size_t size = strcspn(list, ",");
  if (!*list) return NULL;
  snprintf(word, room, "%.*s", (int)(size < room ? size : room - 1), list);
  return list + size + (list[size] == ',');
}

enum { LIST = 16 };
static size_t parse_list(const verb *command, const char *name, const char *list, uint64_t *to) {
  char word[32];
  size_t count = 0;
  while ((list = next_word(list, word, sizeof word)) != NULL) {
    if (count == LIST) fail_usage(command, "--%s: at most %d", name, LIST);
    to[count++] = parse_size(command, name, word);
  }
  if (!count) fail_usage(command, "--%s: nothing given", name);
  return count;
}

/* The operations of a list as bits; NULL: all that the store can do. */
static unsigned parse_operations(const bench *b, const char *list) {
  unsigned wanted = 0, i;
  char word[32];
  for (i = 0; !list && i < OPERATIONS; i++)
    if ((operations[i].needs & ~b->info.capabilities) == 0) wanted |= 1u << i;
  while (list && (list = next_word(list, word, sizeof word)) != NULL) {
    for (i = 0; i < OPERATIONS && strcmp(operations[i].name, word) != 0; i++) continue;
    if (i == OPERATIONS)
      fail_usage(b->command, "--ops: '%s' is none of put, get, get-in-place, stat and remove", word);
    if (operations[i].needs & ~b->info.capabilities) fail(b->uri, "%s: this store cannot do that", word);
    wanted |= 1u << i;
  }
  if (!wanted) fail_usage(b->command, "--ops: nothing given");
  return wanted;
}

static uint64_t parse_seconds(const verb *command, const char *word) {
  char *end;
  const double seconds = strtod(word, &end);
  if (end == word || *end || !(seconds > 0 && seconds <= 3600))
    fail_usage(command, "--seconds: '%s' is no time such as 0.1 or 5", word);
  return (uint64_t)(seconds * 1e9);
}

static void open_bench(bench *b) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_error error;
  packbuf_status status;
  char line[1024];
  if (strncmp(b->uri, "mooncake:", 9) != 0) options.pool_size = 1 << 20; /* nothing here goes through a pool */
  status = packbuf_store_open(b->uri, &options, &b->store, &error);
  if (status == PACKBUF_INVALID_ARGUMENT) {
    packbuf_error_format(&error, line, sizeof line);
    fail_usage(b->command, "%s: %s", b->uri, line);
  }
  if (status || packbuf_store_describe(b->store, &b->info, bench_deadline(b), &error)) fail_call(b->uri, &error);
  if (b->streams && strcmp(b->info.transport, "tcp") != 0) fail_usage(b->command, "--iperf3 is for tcp:// alone");
}

static void make_room(bench *b, uint64_t most, size_t rows) {
  uint64_t i;
  b->items = (packbuf_item *)must_alloc((size_t)most * sizeof *b->items);
  b->keys = (char(*)[64])must_alloc((size_t)most * sizeof *b->keys);
  b->slices = (packbuf_slice *)must_alloc((size_t)(most + 1) * sizeof *b->slices);
  b->places = (const uint8_t **)must_alloc((size_t)most * sizeof *b->places);
  b->results = (result *)must_alloc(rows * sizeof *b->results);
  memset(b->slices, 0, (size_t)(most + 1) * sizeof *b->slices);
  for (i = 0; i < most; i++)
    snprintf(b->keys[i], sizeof b->keys[i], "bench-store/%lx-%llx/%llu", (unsigned long)getpid(),
             (unsigned long long)packbuf_now(), (unsigned long long)i);
}

static void free_room(bench *b) {
  free(b->items);
  free(b->keys);
  free(b->slices);
  free(b->places);
  free(b->results);
  free(b->times.values);
  free(b->ratios.values);
  free(b->rates.values);
}

int run_bench_store(const verb *command, int argc, char **argv) {
  const char *sizes = "64,4k,64k,1m,16m", *batches = "1,16,256", *seconds = NULL, *ops = NULL, *timeout = NULL;
  uint64_t size_list[LIST], batch_list[LIST], most = 0;
  size_t size_count, batch_count, i, k, total;
  strings rest = {NULL, 0};
  packbuf_error error;
  unsigned wanted;
  output out;
  bench b;
  const option options[] = {{0, "sizes", NULL, &sizes, NULL},     {0, "batches", NULL, &batches, NULL},
                            {0, "seconds", NULL, &seconds, NULL}, {0, "ops", NULL, &ops, NULL},
                            {0, "quick", &b.quick, NULL, NULL},   {0, "iperf3", &b.streams, NULL, NULL},
                            {0, "json", &b.json, NULL, NULL},     {0, "timeout", NULL, &timeout, NULL},
                            {0, "congestion", NULL, &b.congestion, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  memset(&b, 0, sizeof b);
  b.command = command;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "one URI is needed");
  if (b.congestion && !b.streams) fail_usage(command, "--congestion goes with --iperf3");
  b.uri = rest.items[0];
  b.timeout_ms = timeout ? parse_number(command, "timeout", timeout) : 60000;
  b.ns = seconds ? parse_seconds(command, seconds) : b.quick ? 100000000u : 500000000u;
  size_count = parse_list(command, "sizes", sizes, size_list);
  batch_count = parse_list(command, "batches", batches, batch_list);
  for (i = 0; i < batch_count; i++) most = batch_list[i] > most ? batch_list[i] : most;
  if (most > MOST_BATCH) fail_usage(command, "--batches: at most %d keys", MOST_BATCH);
  open_bench(&b);
  wanted = parse_operations(&b, ops);
  total = size_count * batch_count * OPERATIONS;
  make_room(&b, most, total);
  if (b.streams) iperf3_start(b.uri);
  for (i = 0; i < size_count; i++) {
    for (k = 0; k < batch_count; k++) {
      b.size = size_list[i];
      b.batch = batch_list[k];
      run_row(&b, wanted, total);
    }
  }
  progress_end();
  if (packbuf_store_close(b.store, bench_deadline(&b), &error)) fail_call(b.uri, &error);
  output_open(&out, "-");
  if (b.json) print_json(&b, &out.buffer);
  else print_people(&b, &out);
  output_close(&out);
  free_room(&b);
  strings_free(&rest);
  return TOOL_OK;
}
