/* tools/packing.c: the packings by their names, a batch written to a file, and what the blocks of a packed buffer are:
 * how many of which mode, and why a buffer of a packed profile is plain.
 * May use: packbuf.h, outputs. Must not know: where a batch comes from, how tables look. */
#include "tool.h"

/* as packbuf_packing */
static const char *const packing_words[] = {"", "none", "balanced", "fastest", "smallest", "auto"};

int packing_parse(const char *word, packbuf_packing *to) {
  unsigned i;
  for (i = 1; i < sizeof packing_words / sizeof *packing_words; i++)
    if (strcmp(word, packing_words[i]) == 0) {
      *to = (packbuf_packing)i;
      return 1;
    }
  return 0;
}

/* Whole Gb/s; a slower link: 1. */
static uint32_t link_speed(const verb *command, const char *string) {
  char *end;
  const double speed = strtod(string, &end);
  if (string[strspn(string, "0123456789.")] != 0 || end == string || *end != 0 || speed <= 0)
    fail_usage(command, "--link is a speed in Gb/s above 0, not %s", string);
  return speed < 1 ? 1 : speed < 1e9 ? (uint32_t)speed : 1000000000;
}

void packing_options(const verb *command, const char *word, const char *link, packbuf_options *to) {
  packbuf_packing packing = PACKBUF_PACKING_AUTO;
  if (word && !packing_parse(word, &packing))
    fail_usage(command, "--packing is auto, none, fastest, balanced or smallest, not %s", word);
  if (link) to->link_gbits = link_speed(command, link);
  to->packing = (uint8_t)(packing == PACKBUF_PACKING_AUTO ? packbuf_packing_for_link(to->link_gbits) : packing);
}

const char *profile_word(unsigned profile) {
  if (profile == 0) return "plain";
  return profile <= 3 ? packing_words[profile + 1] : NULL;
}

/* ---- writing ---- */

packbuf_status packed_write(packed_file *to, const char *name, packbuf_batch *batch, int exact, packbuf_error *error) {
  packbuf_status status;
  memset(to, 0, sizeof *to);
  progress("measuring", 0, 0);
  status = packbuf_measure(batch, &to->size, error);
  if (status) return status;
  if (to->size > SIZE_MAX) fail(name, "too large for this machine's addresses");
  output_open(&to->out, name);
  to->memory = output_map(&to->out, to->size, exact);
  to->mapped = to->memory != NULL;
  if (!to->mapped) to->memory = must_alloc((size_t)to->size);
  progress("writing", 0, 0);
  status = packbuf_write(batch, to->memory, to->size, &to->size, error);
  if (!status && to->mapped) output_trim(&to->out, to->size);
  return status;
}

void packed_close(packed_file *from) {
  if (!from->mapped) {
    output_write(&from->out, from->memory, (size_t)from->size);
    free(from->memory);
  }
  output_close(&from->out);
  outputs_commit();
  progress_end();
}

/* ---- blocks ---- */

/* The name of entry k of block_modes.counts. */
static void mode_name(unsigned k, char *to, size_t size) {
  if (k == BLOCKS_BROKEN) snprintf(to, size, "broken");
  else snprintf(to, size, "%s%s", packbuf_block_mode_name(k / 2), k % 2 ? "+fill" : "");
}

/* The entry with the most blocks of those that `seen` has no bit of; of equal ones the first. */
static unsigned most_blocks(const block_modes *from, unsigned seen) {
  unsigned k, best = 0;
  for (k = 0; k < BLOCK_KINDS; k++)
    if (!(seen >> k & 1) && (seen >> best & 1 || from->counts[k] > from->counts[best])) best = k;
  return best;
}

void count_modes(const packbuf_buffer *buffer, block_modes *to) {
  packbuf_block block;
  uint64_t i;
  memset(to, 0, sizeof *to);
  to->blocks = packbuf_block_count(buffer);
  for (i = 0; i < to->blocks; i++) {
    unsigned k = BLOCKS_BROKEN;
    if (packbuf_get_block(buffer, i, &block, NULL) == PACKBUF_OK && block.mode <= PACKBUF_BLOCK_DICTIONARY)
      k = block.mode * 2u + (block.filled != 0);
    to->counts[k]++;
  }
}

void modes_word(const block_modes *from, text *to) {
  char name[24];
  uint64_t left = from->blocks;
  unsigned k, seen = 0, shown;
  for (shown = 0; left && shown < 3; shown++) {
    k = most_blocks(from, seen);
    seen |= 1u << k;
    left -= from->counts[k];
    mode_name(k, name, sizeof name);
    text_printf(to, "%s%s", shown ? ", " : "", name);
    if (left) { /* of the last the share goes without saying */
      const double share = 100.0 * (double)from->counts[k] / (double)from->blocks;
      text_printf(to, " %.0f%%", share < 1 ? 1.0 : share > 99 ? 99.0 : share);
    }
  }
  if (left) text_puts(to, ", ...");
}

void modes_json(const block_modes *from, text *to) {
  char name[24];
  unsigned k, seen = 0;
  text_puts(to, "{");
  for (k = most_blocks(from, seen); !(seen >> k & 1) && from->counts[k]; k = most_blocks(from, seen)) {
    mode_name(k, name, sizeof name);
    text_printf(to, "%s\"%s\":%llu", seen ? "," : "", name, (unsigned long long)from->counts[k]);
    seen |= 1u << k;
  }
  text_puts(to, "}");
}

/* Whether elements of a dtype can be packed (section 20 of the spec). */
static int packable(packbuf_dtype dtype) {
  if (dtype.lanes != 1) return 0;
  if (dtype.bits == 1) return dtype.code == PACKBUF_DTYPE_UINT;
  if (dtype.bits != 8 && dtype.bits != 16 && dtype.bits != 32 && dtype.bits != 64) return 0;
  return dtype.code == PACKBUF_DTYPE_INT || dtype.code == PACKBUF_DTYPE_UINT || dtype.code == PACKBUF_DTYPE_FLOAT ||
         dtype.code == PACKBUF_DTYPE_BFLOAT || dtype.code == PACKBUF_DTYPE_BOOL ||
         dtype.code == PACKBUF_DTYPE_FLOAT8_E4M3FN || dtype.code == PACKBUF_DTYPE_FLOAT8_E5M2;
}

plain_reason why_plain(const packbuf_view *view, const packbuf_node *node, const packbuf_buffer *buffer) {
  const int data = buffer->role == PACKBUF_ROLE_DATA;
  if (view->profile < 1 || view->profile > 3 || buffer->storage != PACKBUF_STORED || buffer->packing)
    return PLAIN_ANYWAY;
  if (data && node->codec != PACKBUF_CODEC_NDARRAY && node->codec != PACKBUF_CODEC_RAGGED_TENSOR &&
      node->codec != PACKBUF_CODEC_TYPED_RAGGED)
    return PLAIN_IN_PLACE;
  if (buffer->length < 256) return PLAIN_SHORT;
  if (!packable(buffer->dtype)) return PLAIN_DTYPE;
  return PLAIN_ASKED_OR_SAMPLED;
}

const char *plain_word(plain_reason reason) {
  static const char *const words[] = {NULL,
                                      "text and bytes are read in place",
                                      "below 256 bytes",
                                      "no packing for this dtype",
                                      "asked for, or would not save a sixteenth"};
  return words[reason];
}
