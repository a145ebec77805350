/* tools/npz.c: numpy's .npz files: a zip folder of .npy members, stored (read in place) or deflated (when the build has
 * zlib), zip64 too. The directory is hostile bytes: every offset is checked, sizes must be plausible before memory is
 * taken, CRC-32 is verified.
 * May use: npy.c, memory, messages. Must not know: what becomes of the arrays. */
#include "tool.h"

#if PACKBUF_TOOL_ZLIB
#define ZLIB_CONST
#include <zlib.h>
#endif

typedef struct member {
  const uint8_t *name;
  size_t name_size;
  unsigned flags, method;
  uint32_t crc;
  uint64_t stored, size, local; /* bytes in the file, unpacked, where the local header is */
} member;

static uint64_t number(const uint8_t *p, unsigned bytes) {
  uint64_t value = 0;
  while (bytes--) value = value << 8 | p[bytes];
  return value;
}

/* CRC-32 (zip's polynomial), eight bytes at a time. */
static uint32_t crc32_of(const uint8_t *data, uint64_t size) {
  static uint32_t table[8][256];
  uint32_t crc = 0xffffffffu, i, k;
  uint64_t done = 0;
  if (!table[0][1]) {
    for (i = 0; i < 256; i++) {
      uint32_t c = i;
      for (k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
      table[0][i] = c;
    }
    for (i = 0; i < 256; i++)
      for (k = 1; k < 8; k++) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
  }
  for (; size - done >= 8; done += 8) {
    uint32_t low = crc ^ (uint32_t)number(data + done, 4);
    const uint8_t *p = data + done;
    crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^
          table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    if (!(done & 0xffffff)) progress("checking", done, size);
  }
  for (; done < size; done++) crc = crc >> 8 ^ table[0][(crc ^ data[done]) & 255];
  return crc ^ 0xffffffffu;
}

/* Where the directory lies and how many members it has, from the record at the end (and its zip64 form). */
static uint64_t find_directory(const source *from, uint64_t *count, uint64_t *end) {
  const uint8_t *data = from->data;
  uint64_t size = from->size, at, least, start, length;
  if (size < 22) fail(from->name, "is no zip file");
  least = size > 22 + 65535 ? size - 22 - 65535 : 0;
  for (at = size - 22; number(data + at, 4) != 0x06054b50 || at + 22 + number(data + at + 20, 2) != size; at--)
    if (at == least) fail(from->name, "is no zip file: no end record");
  *count = number(data + at + 10, 2);
  length = number(data + at + 12, 4);
  start = number(data + at + 16, 4);
  *end = at;
  if (at >= 20 && number(data + at - 20, 4) == 0x07064b50) { /* zip64 */
    uint64_t wide = number(data + at - 12, 8);
    if (wide > at - 20 || at - 20 - wide < 56 || number(data + wide, 4) != 0x06064b50)
      fail(from->name, "the zip64 end record is wrong");
    *count = number(data + wide + 32, 8);
    length = number(data + wide + 40, 8);
    start = number(data + wide + 48, 8);
    *end = wide;
  }
  if (start > *end || length > *end - start || *count > length / 46)
    fail(from->name, "the zip directory lies outside the file");
  *end = start + length;
  return start;
}

/* Sizes of 4 GiB and more are in the extra field with id 1, in this order, for the members that say 0xffffffff. */
static void read_zip64(member *m, const uint8_t *extra, size_t size) {
  uint64_t *values[3];
  size_t at = 0, i;
  values[0] = &m->size;
  values[1] = &m->stored;
  values[2] = &m->local;
  while (size - at >= 4) {
    size_t id = (size_t)number(extra + at, 2), length = (size_t)number(extra + at + 2, 2), p = at + 4;
    if (length > size - p) return;
    for (i = 0; id == 1 && i < 3; i++)
      if (*values[i] == 0xffffffffu && p + 8 <= at + 4 + length) {
        *values[i] = number(extra + p, 8);
        p += 8;
      }
    at += 4 + length;
  }
}

static uint64_t read_member(const source *from, uint64_t at, uint64_t end, member *m) {
  const uint8_t *p = from->data + at;
  uint64_t name, extra, comment;
  if (at > end || end - at < 46 || number(p, 4) != 0x02014b50)
    fail(from->name, "the zip directory is wrong at byte %llu", (unsigned long long)at);
  name = number(p + 28, 2);
  extra = number(p + 30, 2);
  comment = number(p + 32, 2);
  if (end - at - 46 < name + extra + comment)
    fail(from->name, "the zip directory is wrong at byte %llu", (unsigned long long)at);
  m->flags = (unsigned)number(p + 8, 2);
  m->method = (unsigned)number(p + 10, 2);
  m->crc = (uint32_t)number(p + 16, 4);
  m->stored = number(p + 20, 4);
  m->size = number(p + 24, 4);
  m->local = number(p + 42, 4);
  m->name = p + 46;
  m->name_size = (size_t)name;
  read_zip64(m, p + 46 + name, (size_t)extra);
  return at + 46 + name + extra + comment;
}

#if PACKBUF_TOOL_ZLIB
static const uint8_t *inflate_member(const char *label, const uint8_t *data, const member *m, packbuf_arena *arena) {
  uint8_t *out;
  uint64_t in_left = m->stored, out_left = m->size;
  z_stream stream;
  int status = Z_OK;
  if (m->size / 1100 > m->stored + 64)
    fail(label, "claims to unpack to %llu bytes, more than its %llu bytes can", (unsigned long long)m->size,
         (unsigned long long)m->stored);
  out = (uint8_t *)must_arena(arena, (size_t)m->size, 64);
  memset(&stream, 0, sizeof stream);
  if (inflateInit2(&stream, -15) != Z_OK) fail_memory();
  stream.next_in = data;
  stream.next_out = out;
  do {
    uInt in = in_left > 1 << 24 ? 1 << 24 : (uInt)in_left, room = out_left > 1 << 24 ? 1 << 24 : (uInt)out_left;
    stream.avail_in = in;
    stream.avail_out = room;
    status = inflate(&stream, Z_NO_FLUSH);
    if (status == Z_OK && stream.avail_in == in && stream.avail_out == room) status = Z_DATA_ERROR;
    in_left -= in - stream.avail_in;
    out_left -= room - stream.avail_out;
    progress("inflating", m->size - out_left, m->size);
  } while (status == Z_OK);
  inflateEnd(&stream);
  if (status != Z_STREAM_END || in_left || out_left) fail(label, "the deflated bytes are damaged");
  return out;
}
#endif

static const uint8_t *member_bytes(const source *from, const char *label, const member *m, packbuf_arena *arena) {
  const uint8_t *p = from->data + m->local, *data;
  uint64_t skip;
  (void)arena;
  if (m->flags & 0x2041) fail(label, "is encrypted");
  if (m->local > from->size || from->size - m->local < 30 || number(p, 4) != 0x04034b50)
    fail(label, "the zip member lies outside the file");
  skip = 30 + number(p + 26, 2) + number(p + 28, 2);
  if (from->size - m->local < skip || from->size - m->local - skip < m->stored)
    fail(label, "the zip member lies outside the file");
  data = p + skip;
  if (m->method == 0) {
    if (m->stored != m->size) fail(label, "the zip member's sizes differ");
  } else if (m->method == 8) {
#if PACKBUF_TOOL_ZLIB
    data = inflate_member(label, data, m, arena);
#else
    fail(label,
         "is deflated, and this build has no zlib: save it with numpy.savez instead of savez_compressed, or build with "
         "-DPACKBUF_TOOL_ZLIB=1 -lz");
#endif
  } else {
    fail(label, "is compressed by zip method %u: stored and deflated are known", m->method);
  }
  if (crc32_of(data, m->size) != m->crc) fail(label, "the zip member's checksum does not match");
  return data;
}

void npz_read(const source *from, arrays *list, packbuf_arena *arena) {
  uint64_t count, end, at = find_directory(from, &count, &end), i, total = 0;
  member m;
  for (i = 0; i < count; i++) {
    text label = {NULL, 0, 0};
    const uint8_t *data;
    char *copy, *name;
    array *item;
    at = read_member(from, at, end, &m);
    text_printf(&label, "%s(%.*s)", from->name, (int)m.name_size, (const char *)m.name);
    text_add(&label, "", 1);
    copy = (char *)memcpy(must_arena(arena, label.size, 1), label.data, label.size);
    text_free(&label);
    if (m.stored > from->size - total) fail(copy, "the zip members overlap");
    total += m.stored;
    if (m.name_size < 4 || memcmp(m.name + m.name_size - 4, ".npy", 4) != 0 || memchr(m.name, 0, m.name_size))
      fail(copy, "is no .npy member");
    data = member_bytes(from, copy, &m, arena);
    name = (char *)must_arena(arena, m.name_size - 3, 1);
    memcpy(name, m.name, m.name_size - 4);
    name[m.name_size - 4] = 0;
    item = arrays_add(list);
    npy_read(copy, data, m.size, item, arena);
    item->name = name;
  }
}
