/* bench/packing.c: how fast columns of a batch are packed and unpacked, and how small they get, beside memcpy, a
 * non-temporal copy and the codecs that Debian packages; then whole batches. bench/README.md says how it is measured.
 * packing [--quick] [--json FILE] [--only TEXT]: of the columns only those with TEXT in their name or kind, and no
 * batches; "whole": the batches alone.
 * May use: packbuf.h and its internal functions. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* madvise, scandir */
#endif
#define PACKBUF_IMPLEMENTATION
#include "packbuf.h"

#include "columns.h"
#include "generate.h"
#include "timing.h"
#include "codecs.h"
#include "ours.h"
#include "peers.h"
#include "messages.h"
#include "batches.h"
#include "gather.h"
#include "rows.h"
#include "row_messages.h"

typedef struct bench_arguments {
  int quick;
  const char *json, *only;
} bench_arguments;

static const size_t bench_small = (size_t)512 << 10, bench_large = (size_t)256 << 20;

static void bench_copies(const bench_plan *plan, const bench_column *column, bench_results *results) {
  static bench_turns turns;
  bench_codec none;
  bench_job jobs[BENCH_THREADS];
  bench_result result;
  memset(&none, 0, sizeof none);
  memset(&turns, 0, sizeof turns);
  memset(&result, 0, sizeof result);
  bench_jobs(plan, &none, column, plan->size, jobs);
  turns.threads = plan->threads, turns.rounds = plan->rounds, turns.operations = 2;
  turns.repeat = plan->size < bench_large ? 32 : 1;
  turns.run[0] = bench_run_memcpy;
  turns.run[1] = bench_run_nt_copy;
  for (unsigned i = 0; i < plan->threads; i++) turns.context[i][0] = turns.context[i][1] = &jobs[i];
  bench_take_turns(&turns);
  result.column = column->name, result.what = column->what, result.dtype = packbuf_dtype_name(column->dtype);
  result.op = "copy", result.kernels = "", result.bytes = plan->size, result.threads = plan->threads;
  result.ratio = 1, result.narrow_ratio = (double)column->narrow / column->unit;
  for (unsigned i = 0; i < 2; i++) {
    result.name = i ? "non-temporal copy" : "memcpy";
    result.seconds = bench_seconds(&turns, i);
    result.x_memcpy = bench_times(&turns, i, 0);
    result.x_nt_copy = bench_times(&turns, i, 1);
    bench_put(results, &result);
  }
}

/* Whether a codec is timed on this column: the columns that have no name of their own get few codecs, those of a quick
 * run but the tokens too. */
static int bench_wanted(const bench_plan *plan, const bench_codec *codec, const bench_column *column) {
  const int tokens = column->what && strcmp(column->what, "tokens") == 0;
  if (plan->quick) return codec->main || (tokens && plan->threads == 1 && strcmp(codec->kernels, "plain") != 0);
  return codec->main || (column->what && (codec->fast || plan->threads == 1));
}

/* One column at one size: tiled, then every codec; with two threads the fast ones. */
static void bench_column_at(bench_plan *plan, const bench_column *column, const bench_codec *ours, unsigned ours_count,
                            bench_results *results) {
  bench_tile(column, plan->space.raw, plan->size);
  for (plan->threads = 1; plan->threads <= (column->what ? BENCH_THREADS : 1); plan->threads++) {
    if (plan->threads > 1 && plan->quick && strcmp(column->what, "tokens") && strcmp(column->what, "mask")) break;
    bench_copies(plan, column, results);
    for (unsigned i = 0; i < ours_count; i++) {
      if (bench_wanted(plan, &ours[i], column) && (plan->threads == 1 || ours[i].fast))
        bench_case(plan, &ours[i], column, results);
    }
    for (unsigned i = 0; plan->threads == 1 && bench_peers[i].name; i++) {
      if (bench_wanted(plan, &bench_peers[i], column)) bench_case(plan, &bench_peers[i], column, results);
    }
  }
}

/* --only: columns with the text in their name, or in what they are. */
static int bench_named(const bench_column *column, const char *text) {
  return strstr(column->name, text) != NULL || (column->what && strstr(column->what, text) != NULL);
}

static void bench_all_columns(const bench_arguments *arguments, bench_columns *columns, bench_results *results) {
  bench_codec ours[BENCH_OURS];
  const unsigned ours_count = bench_ours(ours);
  bench_plan plan;
  memset(&plan, 0, sizeof plan);
  plan.rounds = arguments->quick ? 5 : 15;
  plan.quick = arguments->quick;
  plan.space.raw = bench_memory(bench_large);
  plan.space.out = bench_memory(bench_large);
  plan.space.stored = bench_memory(BENCH_THREADS * bench_room(bench_large / 2) + bench_room(1));
  printf(
      "| op | column | bytes | threads | codec | GB/s | x memcpy (above 1: faster than memcpy) | x non-temporal copy | "
      "ratio | against narrowest |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (unsigned i = 0; i < columns->count; i++) {
    const bench_column *column = &columns->all[i];
    if (arguments->only ? !bench_named(column, arguments->only) : arguments->quick && !column->quick) continue;
    plan.budget = plan.quick ? 0.04 : column->what ? 1.5 : 0.7;
    plan.size = bench_small;
    if (!arguments->quick) bench_column_at(&plan, column, ours, ours_count, results);
    plan.size = bench_large;
    bench_column_at(&plan, column, ours, ours_count, results);
  }
  free(plan.space.raw);
  free(plan.space.out);
  free(plan.space.stored);
}

/* Through the public calls: rows that are gathered, whole batches. */
static void bench_whole(const bench_arguments *arguments, const bench_columns *columns, bench_results *results) {
  static const char *const batches[] = {"dense/gsm8k", "dense/agent", "ragged/gsm8k", "ragged/agent"};
  const unsigned rounds = arguments->quick ? 5 : 15;
  printf(
      "\n| op | batch | bytes | threads | how | GB/s | x memcpy (above 1: faster than memcpy) | | ratio | |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  bench_gather(columns, rounds, results);
  bench_mixed_rows(rounds, results);
  for (unsigned i = 0; !columns->made && i < sizeof batches / sizeof batches[0]; i++) {
    if (arguments->quick && strcmp(batches[i], "dense/agent") == 0) continue;
    bench_one_batch(getenv("PACKBUF_DATA"), batches[i], arguments->quick, results);
  }
}

static bench_arguments bench_read_arguments(int argc, char **argv) {
  bench_arguments arguments;
  memset(&arguments, 0, sizeof arguments);
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--quick") == 0) {
      arguments.quick = 1;
    } else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc) {
      arguments.json = argv[++i];
    } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      arguments.only = argv[++i];
    } else {
      fprintf(stderr, "packing [--quick] [--json FILE] [--only TEXT]\n");
      exit(2);
    }
  }
  return arguments;
}

int main(int argc, char **argv) {
  const bench_arguments arguments = bench_read_arguments(argc, argv);
  static bench_columns columns;
  bench_results results;
  memset(&results, 0, sizeof results);
  if (arguments.json) {
    results.json = (FILE *)bench_must(fopen(arguments.json, "w"));
    fprintf(results.json, "[");
  }
  bench_columns_get(&columns, getenv("PACKBUF_DATA"));
  printf("packbuf %d.%d.%d, %s, lane set %s, CRC %s, medians of %d interleaved rounds, thread CPU time\n\n",
         PACKBUF_VERSION_MAJOR, PACKBUF_VERSION_MINOR, PACKBUF_VERSION_PATCH,
         columns.made ? "columns made (PACKBUF_DATA is not set)" : "columns of $PACKBUF_DATA",
         packbuf_i_lane_set_best()->name, packbuf_checksum_kernel(), arguments.quick ? 5 : 15);
  bench_all_columns(&arguments, &columns, &results);
  if (!arguments.only || strcmp(arguments.only, "whole") == 0) bench_whole(&arguments, &columns, &results);
  for (unsigned i = 0; i < columns.count; i++) free(columns.all[i].data);
  if (results.json) {
    fprintf(results.json, "\n]\n");
    fclose(results.json);
  }
  return 0;
}
