/* exchange/arrow_gather.c: one array made of stretches of elements of others of its type: the items of lists that
 * expansion took apart. The sources are arrays of arrow_export.c, with offset 0 and 64-bit offsets.
 * May use: owned, arrow_words. Must not know: packed buffers. */

/* A stretch: elements first to first + count of source `from`, one after the other. */
typedef struct packbuf_i_array_stretch {
  uint32_t from;
  uint64_t first, count;
} packbuf_i_array_stretch;

/* What is gathered: a source that is NULL has null for every element. */
typedef struct packbuf_i_gathering {
  const packbuf_export *what;
  const struct ArrowArray *const *sources;
  uint32_t source_count;
  const packbuf_i_array_stretch *stretches;
  uint64_t stretch_count, total; /* total: elements */
  packbuf_arena *arena;          /* of what lasts as long as the call */
  packbuf_error *error;
} packbuf_i_gathering;

static void packbuf_i_array_release(struct ArrowArray *array) {
  packbuf_i_export_owned *owned = (packbuf_i_export_owned *)array->private_data;
  for (int64_t i = 0; i < array->n_children; i++) {
    struct ArrowArray *child = array->children[i];
    if (child->release) child->release(child);
  }
  array->release = NULL;
  packbuf_i_disown(owned);
}

/* An array of `length` elements with no buffers yet, and children that are released ones yet. */
static packbuf_status packbuf_i_make_array(const packbuf_export *what, uint64_t length, int64_t buffers,
                                           int64_t children, struct ArrowArray *out, packbuf_error *error) {
  packbuf_i_export_owned *owned = packbuf_i_own(what);
  struct ArrowArray *below;
  if (!owned) return packbuf_i_no_memory(error);
  memset(out, 0, sizeof *out);
  out->private_data = owned;
  out->release = packbuf_i_array_release;
  if (length > INT64_MAX)
    return packbuf_i_fail(error, PACKBUF_LIMIT, "more elements than Arrow counts", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  out->length = (int64_t)length;
  out->buffers = (const void **)packbuf_i_array(&owned->arena, (uint64_t)buffers, sizeof *out->buffers);
  out->children = (struct ArrowArray **)packbuf_i_array(&owned->arena, (uint64_t)children, sizeof *out->children);
  below = (struct ArrowArray *)packbuf_i_array(&owned->arena, (uint64_t)children, sizeof *below);
  if (!out->buffers || !out->children || !below) return packbuf_i_no_memory(error);
  for (int64_t i = 0; i < buffers; i++) out->buffers[i] = NULL;
  memset(below, 0, (size_t)children * sizeof *below);
  for (int64_t i = 0; i < children; i++) out->children[i] = &below[i];
  out->n_buffers = buffers;
  out->n_children = children;
  return PACKBUF_OK;
}

/* A buffer of an array, which owns it. */
static void *packbuf_i_array_buffer(const packbuf_export *what, struct ArrowArray *array, int at, uint64_t count,
                                    size_t size, packbuf_error *error) {
  void *buffer = packbuf_i_own_buffer(what, (packbuf_i_export_owned *)array->private_data, count, size);
  array->buffers[at] = buffer;
  if (!buffer) packbuf_i_no_memory(error);
  return buffer;
}

/* Bits `from` to `from + count` of a bitmap (NULL: ones), or'ed to `out` from bit `at` on, which is zero so far. */
static void packbuf_i_join_bits(const uint8_t *bits, uint64_t from, uint64_t count, uint8_t *out, uint64_t at) {
  for (uint64_t i = 0; i < count; i++, from++, at++) {
    if (at % 8 == 0 && from % 8 == 0 && count - i >= 8) {
      out[at / 8] = bits ? bits[from / 8] : 0xFF;
      i += 7, from += 7, at += 7;
    } else if (!bits || (bits[from / 8] >> from % 8 & 1)) {
      out[at / 8] = (uint8_t)(out[at / 8] | 1u << at % 8);
    }
  }
}

/* A bitmap of the sources as buffer `at`; ones: where a source has none its bits are 1. */
static packbuf_status packbuf_i_gather_bits(const packbuf_i_gathering *g, struct ArrowArray *out, int at, int ones) {
  uint8_t *bits = (uint8_t *)packbuf_i_array_buffer(g->what, out, at, (g->total + 7) / 8, 1, g->error);
  uint64_t done = 0;
  if (!bits) return PACKBUF_OUT_OF_MEMORY;
  memset(bits, 0, (size_t)((g->total + 7) / 8));
  for (uint64_t i = 0; i < g->stretch_count; done += g->stretches[i++].count) {
    const packbuf_i_array_stretch *s = &g->stretches[i];
    const struct ArrowArray *from = g->sources[s->from];
    if (!from || from->n_buffers <= at || (!from->buffers[at] && !ones)) continue;
    packbuf_i_join_bits((const uint8_t *)from->buffers[at], s->first, s->count, bits, done);
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_gather_fixed(const packbuf_i_gathering *g, size_t size, struct ArrowArray *out) {
  uint8_t *data = (uint8_t *)packbuf_i_array_buffer(g->what, out, 1, g->total, size, g->error);
  if (!data) return PACKBUF_OUT_OF_MEMORY;
  for (uint64_t i = 0; i < g->stretch_count; i++) {
    const packbuf_i_array_stretch *s = &g->stretches[i];
    const struct ArrowArray *from = g->sources[s->from];
    const size_t bytes = (size_t)s->count * size;
    if (from && bytes) memcpy(data, (const uint8_t *)from->buffers[1] + (size_t)s->first * size, bytes);
    else if (bytes) memset(data, 0, bytes);
    data += bytes;
  }
  return PACKBUF_OK;
}

static int64_t packbuf_i_array_offset(const struct ArrowArray *array, uint64_t i) {
  int64_t offset;
  memcpy(&offset, (const uint8_t *)array->buffers[1] + 8 * i, 8);
  return offset;
}

/* Offsets of text or lists; `below` gets, for each stretch, the stretch of what they delimit. *total: of all. */
static packbuf_status packbuf_i_gather_offsets(const packbuf_i_gathering *g, struct ArrowArray *out,
                                               packbuf_i_array_stretch *below, uint64_t *total) {
  int64_t *offsets = (int64_t *)packbuf_i_array_buffer(g->what, out, 1, g->total + 1, 8, g->error);
  uint64_t row = 0;
  int64_t end = 0;
  if (!offsets) return PACKBUF_OUT_OF_MEMORY;
  offsets[0] = 0;
  for (uint64_t i = 0; i < g->stretch_count; i++) {
    const packbuf_i_array_stretch *s = &g->stretches[i];
    const struct ArrowArray *from = g->sources[s->from];
    const int64_t begin = from ? packbuf_i_array_offset(from, s->first) : 0, base = end;
    for (uint64_t k = 1; k <= s->count; k++) {
      if (from) end = base + (packbuf_i_array_offset(from, s->first + k) - begin);
      offsets[++row] = end;
    }
    below[i].from = s->from;
    below[i].first = (uint64_t)begin;
    below[i].count = (uint64_t)(end - base);
  }
  *total = (uint64_t)end;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_gather_arrow(const packbuf_i_gathering *g, const struct ArrowSchema *type,
                                             struct ArrowArray *out);

/* Child `at` of the sources, by stretches of its own. */
static packbuf_status packbuf_i_gather_child(const packbuf_i_gathering *g, const struct ArrowSchema *type, int64_t at,
                                             const packbuf_i_array_stretch *stretches, uint64_t total,
                                             struct ArrowArray *out) {
  packbuf_i_gathering child = *g;
  const struct ArrowArray **sources =
      (const struct ArrowArray **)packbuf_i_array(g->arena, g->source_count, sizeof *sources);
  if (!sources) return packbuf_i_no_memory(g->error);
  for (uint32_t i = 0; i < g->source_count; i++) sources[i] = g->sources[i] ? g->sources[i]->children[at] : NULL;
  child.sources = sources;
  child.stretches = stretches;
  child.total = total;
  return packbuf_i_gather_arrow(&child, type->children[at], out->children[at]);
}

static packbuf_status packbuf_i_gather_varied(const packbuf_i_gathering *g, const struct ArrowSchema *type,
                                              struct ArrowArray *out) {
  packbuf_i_array_stretch *below =
      (packbuf_i_array_stretch *)packbuf_i_array(g->arena, g->stretch_count, sizeof *below);
  uint64_t total = 0;
  uint8_t *data;
  packbuf_status status;
  if (!below) return packbuf_i_no_memory(g->error);
  status = packbuf_i_gather_offsets(g, out, below, &total);
  if (status != PACKBUF_OK) return status;
  if (type->n_children) return packbuf_i_gather_child(g, type, 0, below, total, out);
  data = (uint8_t *)packbuf_i_array_buffer(g->what, out, 2, total, 1, g->error);
  if (!data) return PACKBUF_OUT_OF_MEMORY;
  for (uint64_t i = 0; i < g->stretch_count; data += below[i++].count) {
    if (below[i].count)
      memcpy(data, (const uint8_t *)g->sources[below[i].from]->buffers[2] + below[i].first, (size_t)below[i].count);
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_gather_lists(const packbuf_i_gathering *g, const struct ArrowSchema *type,
                                             struct ArrowArray *out) {
  packbuf_i_array_stretch *below =
      (packbuf_i_array_stretch *)packbuf_i_array(g->arena, g->stretch_count, sizeof *below);
  uint64_t size = 0, total;
  if (!below) return packbuf_i_no_memory(g->error);
  (void)packbuf_i_format_number(type->format + 3, &size); /* a format of ours: "+w:" and a number */
  if (!packbuf_i_mul(g->total, size, &total))
    return packbuf_i_fail(g->error, PACKBUF_LIMIT, "more elements than Arrow counts", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  for (uint64_t i = 0; i < g->stretch_count; i++) {
    below[i].from = g->stretches[i].from;
    below[i].first = g->stretches[i].first * size; /* within the source's child, or not looked at */
    below[i].count = g->stretches[i].count * size;
  }
  return packbuf_i_gather_child(g, type, 0, below, total, out);
}

/* Bytes of an element of a format of ours with two buffers. */
static size_t packbuf_i_format_size(const char *format) {
  switch (format[0]) {
    case 'c':
    case 'C': return 1;
    case 's':
    case 'S':
    case 'e': return 2;
    case 'i':
    case 'I':
    case 'f': return 4;
    case 't': return format[1] == 'd' ? 4 : 8;
    default: return 8;
  }
}

static packbuf_status packbuf_i_gather_arrow(const packbuf_i_gathering *g, const struct ArrowSchema *type,
                                             struct ArrowArray *out) {
  const char kind = type->format[0], below = kind == '+' ? type->format[1] : 0;
  const int64_t buffers = kind == 'n' ? 0 : below == 's' || below == 'w' ? 1 : kind == 'U' || kind == 'Z' ? 3 : 2;
  packbuf_status status = packbuf_i_make_array(g->what, g->total, buffers, type->n_children, out, g->error);
  if (status != PACKBUF_OK) return status;
  out->null_count = kind == 'n' ? out->length : type->flags & ARROW_FLAG_NULLABLE ? -1 : 0;
  if (kind == 'n') return PACKBUF_OK;
  if (type->flags & ARROW_FLAG_NULLABLE) status = packbuf_i_gather_bits(g, out, 0, 1);
  if (status != PACKBUF_OK) return status;
  if (kind == 'b') return packbuf_i_gather_bits(g, out, 1, 0);
  if (kind == 'U' || kind == 'Z' || below == 'L') return packbuf_i_gather_varied(g, type, out);
  if (below == 'w') return packbuf_i_gather_lists(g, type, out);
  if (below != 's') return packbuf_i_gather_fixed(g, packbuf_i_format_size(type->format), out);
  for (int64_t i = 0; status == PACKBUF_OK && i < type->n_children; i++)
    status = packbuf_i_gather_child(g, type, i, g->stretches, g->total, out);
  return status;
}
