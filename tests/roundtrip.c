/* Random nested values, there and back: as fields and as rows of one batch, packed, opened, verified, and read by
 * column, by row and by cell. A failing case prints its seed: `roundtrip SEED` runs that case alone. */
#include "../packbuf.h"
#include "tap.h"
#include "matrix_values.h"

enum { CASES = 3000, DEPTH = 5 };

/* ---- random values ---- */

static int64_t random_int(void)
{
  static const int64_t edges[] = {0,
                                  1,
                                  -1,
                                  127,
                                  128,
                                  -128,
                                  255,
                                  256,
                                  65535,
                                  65536,
                                  INT32_MAX,
                                  INT32_MIN,
                                  INT64_MAX,
                                  INT64_MIN,
                                  (int64_t)1 << 53,
                                  ((int64_t)1 << 53) + 1,
                                  -((int64_t)1 << 53) - 1};
  if (mv_below(3) == 0) return edges[mv_below(sizeof edges / sizeof *edges)];
  return (int64_t)(mv_random() >> mv_below(64)) * (mv_below(2) ? 1 : -1);
}

static packbuf_value random_float(int payloads)
{
  static const uint64_t edges[] = {0,
                                   0x8000000000000000u,
                                   0x3ff0000000000000u,
                                   0x7ff0000000000000u,
                                   0xfff0000000000000u,
                                   0x7ff8000000000000u,
                                   1,
                                   0x7fefffffffffffffu,
                                   0x0010000000000000u,
                                   0x4340000000000000u,
                                   0x7ff8000000000001u,
                                   0xfff8000000000000u,
                                   0x7ff0000000000001u};
  uint64_t bits = mv_below(3) == 0 ? edges[mv_below(payloads ? 13 : 10)] : mv_random();
  double f = (double)mv_below(1000) / 8;
  if (mv_below(2)) memcpy(&f, &bits, 8);
  if (!payloads && f != f) f = 0.1;
  return packbuf_float(f);
}

static packbuf_value random_text(void)
{
  static const char *const pieces[] = {
      "a", "bc",   "\"", "\\",  "\n", "\x01", "/", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xef\xbf\xbf",
      "0", "$key", " ",  "\x7f"};
  char text[200];
  size_t size = 0;
  unsigned n = mv_below(4) ? mv_below(6) : mv_below(30);
  for (unsigned i = 0; i < n; i++) {
    const char *piece = pieces[mv_below(sizeof pieces / sizeof *pieces)];
    memcpy(text + size, piece, strlen(piece));
    size += strlen(piece);
    }
    if (mv_below(20) == 0) text[size++] = 0;
    return packbuf_string_n((char *)mv_copy(text, size), size);
}

static void *random_data(size_t size)
{
    uint8_t *data = (uint8_t *)mv_alloc(size + 1);
    for (size_t i = 0; i < size; i++) data[i] = (uint8_t)(mv_random() >> 32);
    return data;
}

static packbuf_value random_bytes(void)
{
    size_t size = mv_below(3) ? mv_below(20) : mv_below(200);
    return packbuf_bytes(random_data(size), size);
}

/* A tensor, array or scalar over random memory, in any layout. */
static packbuf_value random_tensor(unsigned form, packbuf_dtype dtype, unsigned most_rank)
{
    packbuf_tensor *t = (packbuf_tensor *)mv_alloc(sizeof *t);
    uint64_t *shape = (uint64_t *)mv_alloc(8 * 8);
    int64_t *strides = (int64_t *)mv_alloc(8 * 8), step = dtype.bits / 8;
    uint8_t *data;
    unsigned rank = form == PACKBUF_FORM_SCALAR ? 0 : mv_below(most_rank + 1), layout = mv_below(4);
    memset(t, 0, sizeof *t);
    for (unsigned d = 0; d < rank; d++) shape[d] = mv_below(8) ? 1 + mv_below(rank > 3 ? 2 : 5) : 0;
    for (unsigned i = 0; i < rank; i++) {
        unsigned d = layout == 1 ? i : rank - 1 - i;
        strides[d] = step;
        step *= (int64_t)(shape[d] ? shape[d] : 1) + (layout == 2);
    }
    data = (uint8_t *)random_data((size_t)step + 1) + mv_below(2);
    for (int64_t i = 0; dtype.code == PACKBUF_DTYPE_BOOL && i < step; i++) data[i] &= 1;
    for (unsigned d = 0; d < rank; d++)
        if (layout == 3) {
            if (mv_below(3) == 0) strides[d] = 0;
            else if (shape[d] && mv_below(2)) {
                data += strides[d] * (int64_t)(shape[d] - 1);
                strides[d] = -strides[d];
            }
        }
    t->data = data;
    t->dtype = dtype;
    t->rank = (uint8_t)rank;
    t->form = (uint8_t)form;
    t->shape = shape;
    t->strides = layout ? strides : NULL;
    return packbuf_tensor_value(t);
}

static packbuf_value random_media(void)
{
    packbuf_media *m = (packbuf_media *)mv_alloc(sizeof *m);
    packbuf_value bytes = random_bytes();
    *m = packbuf_media_of(bytes.as.text.data, bytes.as.text.size, mv_below(2) ? "image/png" : NULL);
    if (mv_below(3) == 0)
      m->height = mv_below(100), m->width = random_int() & INT64_MAX, m->channels = 3, m->mode = "RGB",
      m->mode_size = 3;
    if (mv_below(4) == 0) m->mode = "", m->mode_size = 0;
    if (mv_below(4) == 0) m->rate = random_float(1).as.f, m->has_rate = 1;
    return packbuf_media_value(m);
}

static packbuf_value random_opaque(unsigned serializer)
{
    packbuf_opaque *o = (packbuf_opaque *)mv_alloc(sizeof *o);
    packbuf_value bytes = random_bytes();
    o->data = bytes.as.text.data;
    o->size = bytes.as.text.size;
    o->serializer = serializer ? "cloudpickle" : "";
    o->serializer_size = strlen(o->serializer);
    return packbuf_opaque_value(o);
}

static packbuf_value random_bigint(void)
{
    char digits[64] = "-";
    unsigned n = 20 + mv_below(40), at = mv_below(2);
    digits[at] = (char)('2' + mv_below(8)); /* 20 digits from 2... on are beyond 2^64 */
    for (unsigned i = 1; i < n; i++) digits[at + i] = (char)('0' + mv_below(10));
    digits[at + n] = 0;
    return packbuf_bigint((char *)mv_copy(digits, at + n));
}

static packbuf_value random_number(unsigned types)
{
    for (;;) {
        unsigned kind = mv_below(3);
        if (!(types >> kind & 1)) continue;
        if (kind == 0) return packbuf_bool((int)mv_below(2));
        if (kind == 2) return random_float(1);
        return mv_below(8) ? packbuf_int(mv_below(4) ? (int64_t)mv_below(1000) - 300 : random_int())
                           : packbuf_uint(mv_random());
    }
}

static packbuf_value random_value(unsigned depth);

static packbuf_value random_list(unsigned depth, unsigned most)
{
    size_t count = mv_below(most + 1);
    packbuf_value *items = (packbuf_value *)mv_alloc(count * sizeof *items + 1);
    for (size_t i = 0; i < count; i++) items[i] = random_value(depth);
    return packbuf_list(items, count);
}

/* keys: 0 strings, 1 any. No two are equal. */
static packbuf_value random_dict(unsigned depth, int keys)
{
    static const char *const names[] = {"a", "b", "", "a.b", "a[0]", "a\\b", "\xc3\xa9", "k]", "long name of a key"};
    size_t count = mv_below(5), first = mv_below(9);
    packbuf_entry *entries = (packbuf_entry *)mv_alloc(count * sizeof *entries + 1);
    for (size_t i = 0; i < count; i++) {
        const char *name = names[(first + i) % 9];
        entries[i].key = packbuf_string(name);
        if (keys)
            switch (mv_below(6)) {
            case 0: entries[i].key = packbuf_int((int64_t)i - 2); break;
            case 1: entries[i].key = packbuf_bytes(name, strlen(name)); break;
            case 2: entries[i].key = packbuf_float((double)i + 0.5); break;
            case 3: if (i == 0) entries[i].key = mv_below(2) ? packbuf_null() : packbuf_bool(1); break;
            default: break;
            }
        entries[i].value = random_value(depth);
    }
    return packbuf_dict(entries, count);
}

static packbuf_value random_value(unsigned depth)
{
    unsigned kind = mv_below(depth ? 18 : 13);
    packbuf_dtype dtype = mv_dtype_at(mv_below(MV_DTYPES));
    switch (kind) {
    case 0: return packbuf_null();
    case 1: return random_number(1);
    case 2:
    case 3: return random_number(2);
    case 4: return random_float(0);
    case 5: return random_number(4);
    case 6:
    case 7: return random_text();
    case 8: return random_bytes();
    case 9: return mv_below(2) ? random_media() : random_opaque(mv_below(2));
    case 10: return random_bigint();
    case 11: return random_tensor(mv_below(2) ? PACKBUF_FORM_TENSOR : PACKBUF_FORM_ARRAY, dtype, 4);
    case 12: return random_tensor(PACKBUF_FORM_SCALAR, dtype, 0);
    case 13:
    case 14: return random_list(depth - 1, 4);
    case 15: return random_list(depth - 1, 12);
    case 16: return random_dict(depth - 1, 1);
    default: return random_dict(depth - 1, 0);
    }
}

/* ---- random columns: each style is one that a codec or node is for ---- */

enum { STYLES = 27 };

typedef struct style {
    unsigned which, types, form;
    packbuf_dtype dtype;
    uint64_t shape[3];
} style;

static packbuf_value random_nest(const style *s, unsigned rank, unsigned types)
{
    size_t count = s->shape[rank] ? (size_t)s->shape[rank] : mv_below(5);
    packbuf_value *items = (packbuf_value *)mv_alloc(count * sizeof *items + 1);
    for (size_t i = 0; i < count; i++) items[i] = rank ? random_nest(s, rank - 1, types) : random_number(types);
    return packbuf_list(items, count);
}

static packbuf_value number_list(const style *s)
{
    size_t count = mv_below(6), per;
    packbuf_value *items = (packbuf_value *)mv_alloc(count * sizeof *items + 1);
    per = 1u << mv_below(3);
    while (!(s->types & per)) per = per == 4 ? 1 : per * 2;
    for (size_t i = 0; i < count; i++) items[i] = random_number((unsigned)per);
    return packbuf_list(items, count);
}

static packbuf_value list_like_array(const style *s)
{
    size_t count = mv_below(6);
    packbuf_value *items = (packbuf_value *)mv_alloc(count * sizeof *items + 1);
    for (size_t i = 0; i < count; i++)
      items[i] = s->dtype.code == PACKBUF_DTYPE_BOOL    ? packbuf_bool((int)mv_below(2))
                 : s->dtype.code == PACKBUF_DTYPE_FLOAT ? random_float(1)
                                                        : packbuf_int((int64_t)mv_below(100));
    return packbuf_list(items, count);
}

static packbuf_value styled(const style *s)
{
    static const unsigned deep[] = {0, 1, 2};
    size_t count;
    packbuf_value *items;
    switch (s->which) {
    case 0: return random_value(DEPTH);
    case 1: return random_number(1);
    case 2: return packbuf_int(random_int());
    case 3: return packbuf_float((double)mv_below(9) / 4);
    case 4: return random_number(s->types);
    case 5:
      return mv_below(2)   ? packbuf_bool(1)
             : mv_below(2) ? packbuf_int((int64_t)mv_below(1000))
                           : packbuf_float(0.5); /* a types buffer */
    case 6: return packbuf_uint(mv_random());
    case 7: return random_text();
    case 8: return random_bytes();
    case 9: return random_tensor(PACKBUF_FORM_TENSOR, s->dtype, 4);
    case 10: return random_tensor(PACKBUF_FORM_ARRAY, s->dtype, 1);
    case 11: return random_tensor(PACKBUF_FORM_SCALAR, s->dtype, 0);
    case 12: return number_list(s);
    case 13: return random_nest(s, deep[mv_below(3)], s->types & 1 ? 1u : s->types & 2 ? 2u : 4u);
    case 14: return mv_below(2) ? random_tensor(PACKBUF_FORM_ARRAY, s->dtype, 2) : list_like_array(s);
    case 15: return random_media();
    case 16: return random_opaque(1);
    case 17: return random_opaque(mv_below(2));
    case 18:
    case 19:
        count = mv_below(5);
        items = (packbuf_value *)mv_alloc(count * sizeof *items + 1);
        for (size_t i = 0; i < count; i++) items[i] = s->which == 18 || mv_below(2) ? random_media() : random_bytes();
        return packbuf_list(items, count);
    case 20: return random_dict(DEPTH - 1, 0);
    case 21: return random_list(DEPTH - 1, 8);
    case 22: return random_dict(2, 1);
    case 23:
        count = mv_below(9);
        items = (packbuf_value *)mv_alloc(count * sizeof *items + 1);
        for (size_t i = 0; i < count; i++) items[i] = mv_below(4) ? random_dict(3, 0) : packbuf_null();
        return packbuf_list(items, count);
    case 24: return mv_below(2) ? random_text() : packbuf_int(random_int()); /* JSON */
    case 25: return packbuf_int(7);
    default: return packbuf_null();
    }
}

static void random_column(packbuf_value *column, size_t rows)
{
    style s;
    unsigned absent = mv_below(3);
    memset(&s, 0, sizeof s);
    s.which = mv_below(STYLES);
    s.types = 1 + mv_below(7);
    s.dtype = mv_dtype_at(mv_below(MV_DTYPES));
    for (unsigned d = 0; d < 3; d++) s.shape[d] = mv_below(3); /* 0: each row its own */
    s.shape[1] += s.shape[1] == 0;
    s.shape[0] += s.shape[0] == 0 && mv_below(2);
    for (size_t i = 0; i < rows; i++) {
        column[i] = styled(&s);
        if (absent && mv_below(4) == 0) column[i] = absent == 1 || mv_below(2) ? packbuf_null() : packbuf_missing();
    }
}

/* ---- one case ---- */

enum { MOST_FIELDS = 5, MOST_ROWS = 14 };

typedef struct batch_of {
    size_t rows, fields;
    packbuf_value columns[MOST_FIELDS][MOST_ROWS];
} batch_of;

static const char *const field_names[MOST_FIELDS] = {"x", "y.z", "", "w[1]", "\xe2\x82\xac"};

static packbuf_value row_of(const batch_of *b, size_t row)
{
    packbuf_entry *entries = (packbuf_entry *)mv_alloc(b->fields * sizeof *entries + 1);
    size_t count = 0;
    for (size_t f = 0; f < b->fields; f++) {
        if (b->columns[f][row].kind == PACKBUF_MISSING) continue;
        entries[count].key = packbuf_string(field_names[f]);
        entries[count++].value = b->columns[f][row];
    }
    return packbuf_dict(entries, count);
}

static char complaint[500];

static const char *complain(const char *what, const packbuf_error *error)
{
    snprintf(complaint, sizeof complaint, "%s: %s", what, error && error->code ? mv_error(error) : "");
    return complaint;
}

static int both_equal(const packbuf_value *a, const packbuf_value *b)
{
    return mv_same(a, b) && packbuf_equal(a, b) && packbuf_equal(b, a);
}

/* Every way of reading the field, against the column. */
static const char *read_field(mv_trip *trip, const batch_of *b, size_t f)
{
    packbuf_value back[MOST_ROWS], one;
    packbuf_node node;
    char path[64], *to = path;
    size_t from, count;
    for (const char *c = field_names[f]; *c; c++) {
        if (*c == '.' || *c == '[') *to++ = '\\';
        *to++ = *c;
    }
    *to = 0;
    if (packbuf_find(&trip->view, 0, path, &node, &trip->error)) return complain("find", &trip->error);
    if (packbuf_read_column(&trip->view, node.index, 0, b->rows, &trip->back, back, &trip->error))
      return complain("read_column", &trip->error);
    for (size_t i = 0; i < b->rows; i++) {
        if (!both_equal(&b->columns[f][i], &back[i])) return complain("a column came back different", NULL);
        if (packbuf_read_cell(&trip->view, node.index, i, &trip->back, &one, &trip->error))
          return complain("read_cell", &trip->error);
        if (!both_equal(&one, &back[i])) return complain("a cell differs from the column", NULL);
    }
    from = mv_below((unsigned)b->rows + 1);
    count = mv_below((unsigned)(b->rows - from) + 1);
    if (packbuf_read_column(&trip->view, node.index, from, count, &trip->back, back, &trip->error))
      return complain("read_column, a part", &trip->error);
    for (size_t i = 0; i < count; i++)
      if (!both_equal(&b->columns[f][from + i], &back[i]))
        return complain("a part of a column came back different", NULL);
    if (packbuf_read_column(&trip->view, node.index, from, b->rows - from + 1, &trip->back, back, NULL) !=
        PACKBUF_OUT_OF_RANGE)
      return complain("a row too many was read", NULL);
    return NULL;
}

static const char *read_rows(mv_trip *trip, const batch_of *b)
{
    packbuf_value back[MOST_ROWS], one;
    if (packbuf_read_rows(&trip->view, 0, b->rows, &trip->back, back, &trip->error))
      return complain("read_rows", &trip->error);
    for (size_t i = 0; i < b->rows; i++) {
        packbuf_value want = row_of(b, i);
        if (!both_equal(&want, &back[i])) return complain("a row came back different", NULL);
        if (packbuf_read_row(&trip->view, i, &trip->back, &one, &trip->error))
          return complain("read_row", &trip->error);
        if (!both_equal(&one, &back[i])) return complain("one row differs from all rows", NULL);
    }
    return NULL;
}

static const char *trip_of(const batch_of *b, int by_rows, uint64_t codecs[12])
{
    packbuf_value rows[MOST_ROWS];
    packbuf_value values[2], back;
    const char *wrong = NULL;
    packbuf_options options = packbuf_default_options();
    mv_trip trip;
    options.data_checksums = mv_below(4) != 0;
    options.alignment_exponent = (uint8_t)(6 + (mv_below(4) == 0));
    mv_trip_begin(&trip, b->rows, &options);
    for (size_t i = 0; i < b->rows; i++) rows[i] = row_of(b, i);
    if (by_rows && packbuf_add_rows(&trip.batch, rows, &trip.error)) wrong = complain("add_rows", &trip.error);
    for (size_t f = 0; !by_rows && f < b->fields; f++)
      if (packbuf_add_values(&trip.batch, field_names[f], b->columns[f], &trip.error))
        wrong = complain("add_values", &trip.error);
    for (size_t i = 0; !by_rows && i < 2; i++) {
        values[i] = random_value(3);
        if (packbuf_add_batch_value(&trip.batch, i ? "v.1" : "x", &values[i], &trip.error))
          wrong = complain("add_batch_value", &trip.error);
    }
    if (!wrong && mv_trip_pack(&trip)) wrong = complain(trip.step, &trip.error);
    for (uint32_t i = 0; !wrong && i < trip.view.node_count; i++) {
        packbuf_node node;
        if (packbuf_get_node(&trip.view, i, &node, &trip.error)) wrong = complain("get_node", &trip.error);
        else codecs[node.codec]++;
    }
    for (size_t f = 0; !by_rows && !wrong && f < b->fields; f++) wrong = read_field(&trip, b, f);
    if (!wrong) wrong = read_rows(&trip, b);
    if (!wrong && !by_rows) {
        packbuf_entry entries[2];
        packbuf_value want;
        for (size_t i = 0; i < 2; i++) {
            entries[i].key = packbuf_string(i ? "v.1" : "x");
            entries[i].value = values[i];
        }
        want = packbuf_dict(entries, 2);
        if (packbuf_read_batch_values(&trip.view, &trip.back, &back, &trip.error))
          wrong = complain("read_batch_values", &trip.error);
        else if (!both_equal(&want, &back)) wrong = complain("batch values came back different", NULL);
    }
    mv_trip_end(&trip);
    return wrong;
}

static const char *one_case(uint64_t seed, uint64_t codecs[12])
{
    batch_of b;
    const char *wrong;
    mv_seed = seed * 0x9e3779b97f4a7c15u | 1;
    for (unsigned i = 0; i < 8; i++) mv_random();
    memset(&b, 0, sizeof b);
    b.rows = mv_below(20) ? 1 + mv_below(MOST_ROWS) : 0;
    b.fields = mv_below(MOST_FIELDS + 1);
    for (size_t f = 0; f < b.fields; f++) random_column(b.columns[f], b.rows);
    wrong = trip_of(&b, 0, codecs);
    if (!wrong) wrong = trip_of(&b, 1, codecs);
    mv_free();
    return wrong;
}

int main(int argc, char **argv)
{
    uint64_t codecs[12] = {0}, first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, cases = argc > 1 ? 1 : CASES;
    unsigned failed = 0;
    for (uint64_t seed = first; seed < first + cases; seed++) {
        const char *wrong = one_case(seed, codecs);
        if (wrong && failed++ < 10) tap_note("seed %llu: %s", (unsigned long long)seed, wrong);
    }
    tap_ok(failed == 0, "%llu random batches as fields and as rows come back the same, however they are read",
           (unsigned long long)cases);
    for (unsigned i = 0; argc < 2 && i < 12; i++)
      tap_ok(codecs[i] > 100, "%s: %llu columns", i ? packbuf_codec_name((packbuf_codec)i) : "dict and list",
             (unsigned long long)codecs[i]);
    return tap_plan_done();
}
