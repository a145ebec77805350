/* core/packed.c: the elements of a buffer that is packed in blocks (section 20), for the access layer: any run of them,
 * or one. A header and the place of the next say where a payload lies; both are fetched once and checked here, the
 * payload while it is unpacked.
 * May use: base, lanes, blocks, fetched, status (rules). Must not know: records, codecs, why something is read. */

/* Bits of a unit of a dtype that can be packed; 0 of others. */
static unsigned packbuf_i_unit_bits(packbuf_dtype dtype) {
  if (dtype.lanes != 1) return 0;
  switch (dtype.code) {
    case PACKBUF_DTYPE_UINT:
      if (dtype.bits == 1) return 8;
      break;
    case PACKBUF_DTYPE_INT:
    case PACKBUF_DTYPE_BOOL:
    case PACKBUF_DTYPE_FLOAT:
    case PACKBUF_DTYPE_BFLOAT:
    case PACKBUF_DTYPE_FLOAT8_E4M3FN:
    case PACKBUF_DTYPE_FLOAT8_E5M2: break;
    default: return 0;
  }
  return dtype.bits == 8 || dtype.bits == 16 || dtype.bits == 32 || dtype.bits == 64 ? dtype.bits : 0;
}

/* The units that hold `count` elements: bytes, of bits. */
static uint64_t packbuf_i_unit_count(packbuf_dtype dtype, uint64_t count) {
  return dtype.bits == 1 ? count / 8 + (count % 8 != 0) : count;
}

/* Units of a full block. */
static unsigned packbuf_i_block_units_of(unsigned bits) { return PACKBUF_I_BLOCK_BYTES * 8u / bits; }

/* A block of a buffer, ready to be unpacked. */
typedef struct packbuf_i_packed {
  packbuf_i_block block;
  unsigned bits, units;
  uint64_t at; /* of its payload in the buffer's */
  uint32_t size;
  const uint8_t *payload;
} packbuf_i_packed;

/* Where the payload of block k ends, in units of 64 bytes. */
static uint64_t packbuf_i_block_end(const packbuf_buffer *buffer, uint64_t k, uint64_t blocks) {
  uint32_t next;
  if (k + 1 == blocks) return buffer->length / 64;
  next = packbuf_i_load32(buffer->headers + (k + 1) * 16 + 8);
  PACKBUF_I_FETCHED(next);
  return next;
}

PACKBUF_API uint64_t packbuf_block_count(const packbuf_buffer *buffer) {
  const uint64_t units = packbuf_i_unit_count(buffer->dtype, buffer->count);
  const unsigned full = buffer->headers ? packbuf_i_block_units_of(packbuf_i_unit_bits(buffer->dtype)) : 0;
  return full ? packbuf_i_blocks_of(units, full) : 0;
}

/* Finds block k, which there is; its payload is NULL when that was not fetched with the others. 0 when header or place
 * are wrong. */
static int packbuf_i_find_block(const packbuf_buffer *buffer, uint64_t k, packbuf_i_packed *packed) {
  const unsigned bits = packbuf_i_unit_bits(buffer->dtype), full = packbuf_i_block_units_of(bits);
  const uint64_t units = packbuf_i_unit_count(buffer->dtype, buffer->count);
  const uint64_t end = packbuf_i_block_end(buffer, k, packbuf_i_blocks_of(units, full));
  packbuf_i_block_load(&packed->block, buffer->headers + k * 16);
  if (end > buffer->length / 64 || packed->block.place > end || end - packed->block.place > PACKBUF_I_PAYLOAD_ROOM / 64)
    return 0;
  packed->bits = bits;
  packed->units = units - k * full < full ? (unsigned)(units - k * full) : full;
  packed->at = (uint64_t)packed->block.place * 64;
  packed->size = (uint32_t)(end - packed->block.place) * 64;
  packed->payload = buffer->payload ? buffer->payload + packed->at : NULL;
  return packbuf_i_block_unsound(&packed->block, bits) < 0;
}

/* The payload of a block that was not fetched in one range with the rest: in place, or gathered in `room` of
 * PACKBUF_I_PAYLOAD_ROOM bytes. 0: not fetched. */
PACKBUF_I_RARE static int packbuf_i_fetch_payload(const packbuf_buffer *buffer, packbuf_i_packed *packed,
                                                  uint8_t *room) {
  const uint64_t at = buffer->offset + packed->at;
  packed->payload = packbuf_i_fetched_whole(buffer->partial, at, packed->size);
  if (packed->payload) return 1;
  packed->payload = room;
  return packbuf_i_gather_fetched(buffer->partial, at, packed->size, room);
}

/* Units first to first + count, which there are, in native byte order to out. 0 when some are broken or were not
 * fetched: packbuf_i_not_unpacked tells. */
static int packbuf_i_unpack_units(const packbuf_buffer *buffer, uint64_t first, uint64_t count, uint8_t *out) {
  const packbuf_i_lane_set *set = packbuf_i_lane_set_best();
  const unsigned bits = packbuf_i_unit_bits(buffer->dtype), full = packbuf_i_block_units_of(bits);
  const int stream = count >= PACKBUF_I_STREAM_FROM / (bits / 8);
  uint8_t room[PACKBUF_I_PAYLOAD_ROOM];
  while (count) {
    const unsigned skip = (unsigned)(first % full);
    const unsigned take = count < full - skip ? (unsigned)count : full - skip;
    packbuf_i_packed packed;
    if (!packbuf_i_find_block(buffer, first / full, &packed) ||
        (PACKBUF_I_UNLIKELY(!packed.payload) && !packbuf_i_fetch_payload(buffer, &packed, room)) ||
        !packbuf_i_block_units(set, &packed.block, packed.payload, packed.size, bits, packed.units, skip, take, out,
                               stream))
      return 0;
    out += (size_t)take * (bits / 8);
    first += take;
    count -= take;
  }
  if (stream) packbuf_i_crc_fence();
  return 1;
}

/* A block that was unpacked whole for one who reads pieces that follow each other in it. */
typedef struct packbuf_i_block_room {
  uint64_t here, next; /* the block whose units lie here, and the one where the last piece ended; UINT64_MAX: none */
  unsigned followed; /* pieces that began in that one: the second has it unpacked whole, which costs as much as a few */
  uint64_t units[PACKBUF_I_BLOCK_BYTES / 8];
} packbuf_i_block_room;

static void packbuf_i_empty_room(packbuf_i_block_room *room) {
  room->here = room->next = UINT64_MAX;
  room->followed = 0;
}

/* packbuf_i_unpack_units by way of a room, when the piece is short. */
static int packbuf_i_unpack_piece(const packbuf_buffer *buffer, packbuf_i_block_room *room, uint64_t first,
                                  uint64_t count, uint8_t *out) {
  const unsigned bits = packbuf_i_unit_bits(buffer->dtype), full = packbuf_i_block_units_of(bits), unit = bits / 8;
  if (count > full / 4) return packbuf_i_unpack_units(buffer, first, count, out);
  while (count) {
    const uint64_t k = first / full, skip = first % full, left = packbuf_i_unit_count(buffer->dtype, buffer->count);
    const uint64_t take = count < full - skip ? count : full - skip;
    room->followed = k == room->next ? room->followed + 1 : 0;
    if (k != room->here && room->followed > 1) {
      const uint64_t whole = left - k * full < full ? left - k * full : full;
      room->here = packbuf_i_unpack_units(buffer, k * full, whole, (uint8_t *)room->units) ? k : UINT64_MAX;
    }
    if (k == room->here) memcpy(out, (const uint8_t *)room->units + skip * unit, (size_t)take * unit);
    else if (!packbuf_i_unpack_units(buffer, first, take, out)) return 0;
    out += take * unit;
    first += take;
    count -= take;
    room->next = first / full;
  }
  return 1;
}

/* Units that were unpacked for one who reads on, unit by unit. */
typedef struct packbuf_i_unit_window {
  uint64_t first, count; /* count 0: empty */
  uint64_t units[128];   /* PACKBUF_I_WINDOW_BYTES of units in native byte order */
} packbuf_i_unit_window;

#define PACKBUF_I_WINDOW_BYTES 1024u

/* Fills the buffer's window with the units around unit i. */
PACKBUF_I_RARE static int packbuf_i_fill_window(const packbuf_buffer *buffer, unsigned bits, uint64_t i) {
  const uint64_t most = PACKBUF_I_WINDOW_BYTES * 8 / bits, first = i - i % most;
  const uint64_t left = packbuf_i_unit_count(buffer->dtype, buffer->count) - first, count = left < most ? left : most;
  packbuf_i_unit_window *window = buffer->window;
  window->first = first;
  window->count = packbuf_i_unpack_units(buffer, first, count, (uint8_t *)window->units) ? count : 0;
  return window->count != 0;
}

/* Unit i, of `bits`, by way of the buffer's window. */
static int packbuf_i_window_unit(const packbuf_buffer *buffer, unsigned bits, uint64_t i, uint64_t *unit) {
  const packbuf_i_unit_window *window = buffer->window;
  if (PACKBUF_I_UNLIKELY(i - window->first >= window->count) && !packbuf_i_fill_window(buffer, bits, i)) return 0;
  *unit = packbuf_i_unit_load(bits, (const uint8_t *)window->units + (i - window->first) * (bits / 8));
  return 1;
}

/* Bytes 8 i to 8 i + size - 1 (size at most 8), which there are, of a packed bitmap. 0: as above. */
static int packbuf_i_unpack_bits(const packbuf_buffer *buffer, uint64_t i, uint64_t size, uint8_t *out) {
  uint64_t unit;
  if (!buffer->window) return packbuf_i_unpack_units(buffer, i * 8, size, out);
  if (!packbuf_i_window_unit(buffer, 8, i * 8, &unit)) return 0;
  memcpy(out, (const uint8_t *)buffer->window->units + (i * 8 - buffer->window->first), (size_t)size);
  return 1;
}

/* Unit i, which there is, of `bits`. 0: as above. */
static int packbuf_i_unpack_unit(const packbuf_buffer *buffer, unsigned bits, uint64_t i, uint64_t *unit) {
  const unsigned full = packbuf_i_block_units_of(bits);
  packbuf_i_packed packed;
  if (buffer->window) return packbuf_i_window_unit(buffer, bits, i, unit);
  if (PACKBUF_I_UNLIKELY(!packbuf_i_find_block(buffer, i / full, &packed))) return 0;
  if (PACKBUF_I_UNLIKELY(!packed.payload)) {
    uint8_t room[PACKBUF_I_PAYLOAD_ROOM];
    return packbuf_i_fetch_payload(buffer, &packed, room) &&
           packbuf_i_block_unit(&packed.block, packed.payload, packed.size, bits, packed.units, (unsigned)(i % full),
                                unit);
  }
  return packbuf_i_block_unit(&packed.block, packed.payload, packed.size, bits, packed.units, (unsigned)(i % full),
                              unit);
}

/* Why units could not be unpacked: the rule and offset of the first block that is wrong, or (NONE) the bytes that were
 * not fetched, as *at and *size from the start of the packed buffer. */
PACKBUF_I_RARE static packbuf_rule packbuf_i_not_unpacked(const packbuf_buffer *buffer, uint64_t first, uint64_t count,
                                                          uint64_t *at, uint64_t *size) {
  const unsigned full = packbuf_i_block_units_of(packbuf_i_unit_bits(buffer->dtype));
  uint8_t room[PACKBUF_I_PAYLOAD_ROOM];
  packbuf_i_packed packed;
  uint64_t k = first / full;
  for (; count && k <= (first + count - 1) / full; k++) {
    *at = buffer->headers_at + k * 16;
    if (!packbuf_i_find_block(buffer, k, &packed)) {
      const int wrong = packbuf_i_block_unsound(&packed.block, packbuf_i_unit_bits(buffer->dtype));
      *at += wrong < 0 ? 8 : (unsigned)wrong;
      return wrong < 0 ? PACKBUF_RULE_I16 : PACKBUF_RULE_I15;
    }
    *at = buffer->offset + packed.at;
    *size = packed.size;
    if (!packed.payload && !packbuf_i_fetch_payload(buffer, &packed, room)) return PACKBUF_RULE_NONE;
    if (!packbuf_i_block_whole(&packed.block, packed.payload, packed.size, packed.bits, packed.units)) break;
  }
  return buffer->role == PACKBUF_ROLE_DATA ? PACKBUF_RULE_D10 : PACKBUF_RULE_I17;
}

PACKBUF_API const char *packbuf_block_mode_name(unsigned mode) {
  static const char *const names[] = {"plain", "line", "frame", "zero", "split", "dictionary"};
  return mode < sizeof names / sizeof *names ? names[mode] : "unknown";
}

PACKBUF_API packbuf_status packbuf_get_block(const packbuf_buffer *buffer, uint64_t index, packbuf_block *block,
                                             packbuf_error *error) {
  packbuf_i_packed packed;
  uint64_t at = 0, size = 0;
  if (index >= packbuf_block_count(buffer))
    return packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "the buffer has fewer blocks", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (!packbuf_i_find_block(buffer, index, &packed)) {
    const packbuf_rule rule = packbuf_i_not_unpacked(
        buffer, index * packbuf_i_block_units_of(packbuf_i_unit_bits(buffer->dtype)), 1, &at, &size);
    return packbuf_i_broken(error, rule == PACKBUF_RULE_NONE ? PACKBUF_RULE_I16 : rule, at, PACKBUF_NOWHERE);
  }
  block->mode = packed.block.mode & 127u;
  block->filled = packed.block.mode >> 7;
  block->width = packed.block.width;
  block->shift = packed.block.shift;
  block->extra = packed.block.extra;
  block->base = packed.block.base;
  block->offset = buffer->offset + packed.at;
  block->length = packed.size;
  block->count = packed.units;
  return PACKBUF_OK;
}
