/* core/packing.c: which planned buffers are packed in blocks, and with which recipe: profiles 1 to 3 of section 19 of
 * the spec; and the blocks of such a buffer, one after the other. Buffers of the index, which are small, are packed as
 * they are planned, so that the index has its length; data as they are written (core/write.c, core/parts.c).
 * May use: arena (scratch), layout, seek, units, blocks, packer, lanes_table. Must not know: where the bytes go. */

#define PACKBUF_I_SAMPLE 16u /* blocks at most */

/* Whether a buffer's blocks are packed as the data are written. */
static int packbuf_i_packed_data(const packbuf_i_planned *buffer) {
  return buffer->packing && buffer->storage == PACKBUF_STORED && buffer->role == PACKBUF_ROLE_DATA;
}

/* Bytes of units of block k. */
static uint64_t packbuf_i_block_bytes(const packbuf_i_planned *buffer, uint64_t k) {
  const uint64_t left = buffer->plain - k * PACKBUF_I_BLOCK_BYTES;
  return left < PACKBUF_I_BLOCK_BYTES ? left : (uint64_t)PACKBUF_I_BLOCK_BYTES;
}

/* How many blocks the sample has. */
static unsigned packbuf_i_sample_blocks(uint64_t blocks) {
  const uint64_t eighth = blocks / 8 + (blocks % 8 != 0);
  if (eighth >= PACKBUF_I_SAMPLE) return PACKBUF_I_SAMPLE;
  if (eighth >= 4) return (unsigned)eighth;
  return blocks < 4 ? (unsigned)blocks : 4;
}

/* Takes the sample, blocks in place where they lie whole, else gathered into `memory` (PACKBUF_I_SAMPLE blocks), and
 * makes the recipe; packing 0: it stays plain. */
static packbuf_status packbuf_i_take_sample(packbuf_i_plan *plan, packbuf_i_planned *buffer, unsigned profile,
                                            uint8_t *memory) {
  const packbuf_dtype dtype = buffer->dtype.bits == 1 ? packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8) : buffer->dtype;
  const uint64_t last = buffer->blocks - 1;
  const unsigned count = packbuf_i_sample_blocks(buffer->blocks), steps = count > 1 ? count - 1 : 1;
  const uint8_t *sample[PACKBUF_I_SAMPLE], *bytes, *ahead;
  unsigned units[PACKBUF_I_SAMPLE];
  packbuf_i_units source;
  packbuf_i_mark mark;
  memset(&mark, 0, sizeof mark);
  for (unsigned i = 0; i < count; i++, memory += PACKBUF_I_BLOCK_BYTES) {
    const uint64_t k = last / steps * i + last % steps * i / steps;
    const uint64_t at = k * PACKBUF_I_BLOCK_BYTES, size = packbuf_i_block_bytes(buffer, k);
    packbuf_status status;
    packbuf_i_mark_to(buffer, &mark, at);
    packbuf_i_units_begin(&source, buffer, &mark, at, plan->error);
    status = packbuf_i_units_next(&source, size, &bytes, &ahead);
    if (status) return status;
    sample[i] = bytes;
    if (packbuf_i_units_own(&source, bytes)) {
      memcpy(memory, bytes, (size_t)size);
      sample[i] = memory;
    }
    units[i] = (unsigned)(size / (dtype.bits / 8u));
  }
  buffer->packing =
      (uint8_t)packbuf_i_make_recipe(packbuf_i_lane_set_best(), dtype, profile, sample, units, count, &buffer->recipe);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_packs_small(packbuf_i_plan *plan, packbuf_i_node *node, uint64_t bytes, int *small) {
  const size_t room = PACKBUF_I_SAMPLE * PACKBUF_I_BLOCK_BYTES;
  packbuf_i_planned data;
  packbuf_status status;
  uint8_t *memory;
  unsigned profile;
  *small = 0;
  memset(&data, 0, sizeof data);
  data.node = node;
  data.role = PACKBUF_ROLE_DATA;
  data.dtype = node->dtype;
  if (node->codec == PACKBUF_CODEC_NDARRAY && !packbuf_i_mul(node->rows, packbuf_i_row_size(node, 0), &bytes))
    return PACKBUF_OK; /* refused elsewhere */
  data.length = data.plain = bytes;
  profile = packbuf_i_packable_profile(plan, &data);
  if (!profile) return PACKBUF_OK;
  memory = (uint8_t *)packbuf_i_scratch(plan->arena, NULL, 0, room);
  if (!memory) return packbuf_i_plan_no_memory(plan);
  data.blocks = packbuf_i_blocks_of(bytes, PACKBUF_I_BLOCK_BYTES);
  status = packbuf_i_take_sample(plan, &data, profile, memory);
  *small = !status && data.recipe.small;
  node->sampled = status ? 0 : 1 + data.packing;
  node->recipe = data.recipe;
  (void)packbuf_i_scratch(plan->arena, memory, room, 0);
  return status;
}

/* The blocks of a buffer, one after the other, from block `first` on, the first of a stripe, where the mark is. Of the
 * plan it changes only the headers of these blocks, so that each stripe may be another thread's. */
typedef struct packbuf_i_block_writer {
  packbuf_i_planned *buffer;
  packbuf_i_units source;
  packbuf_i_packer packer;
  uint64_t next; /* block */
} packbuf_i_block_writer;

static void packbuf_i_blocks_begin(packbuf_i_block_writer *w, packbuf_i_planned *buffer, const packbuf_i_mark *mark,
                                   uint64_t first, packbuf_error *error) {
  w->buffer = buffer;
  w->next = first;
  packbuf_i_units_begin(&w->source, buffer, mark, first * PACKBUF_I_BLOCK_BYTES, error);
  packbuf_i_packer_begin(&w->packer, packbuf_i_lane_set_best(), &buffer->recipe);
}

/* Packs the next block to `payload`, which has room for PACKBUF_I_PAYLOAD_ROOM bytes, and stores its header with
 * `place`, in units of 64 bytes. *size: bytes of payload. */
static packbuf_status packbuf_i_blocks_next(packbuf_i_block_writer *w, uint64_t place, uint8_t *payload,
                                            uint32_t *size) {
  const uint64_t bytes = packbuf_i_block_bytes(w->buffer, w->next);
  const uint8_t *units, *ahead;
  packbuf_i_block block;
  packbuf_status status = packbuf_i_units_next(&w->source, bytes, &units, &ahead);
  if (status) return status;
  if (w->next % PACKBUF_I_STRIPE == 0) packbuf_i_packer_stripe(&w->packer);
  *size = packbuf_i_pack_block(&w->packer, units, (unsigned)(bytes / (w->buffer->recipe.bits / 8u)), &block, payload,
                               ahead, 0);
  block.place = (uint32_t)place;
  packbuf_i_block_store(&block, w->buffer->headers + w->next++ * 16);
  return PACKBUF_OK;
}

/* Packs a whole buffer of the index: its payload goes to the arena. */
static packbuf_status packbuf_i_pack_index(packbuf_i_plan *plan, packbuf_i_planned *buffer) {
  const packbuf_i_mark start = {0, 0, 0, 0, 0};
  const uint64_t room = buffer->blocks * PACKBUF_I_BLOCK_BYTES + PACKBUF_I_PAYLOAD_ROOM;
  uint8_t *memory = room > SIZE_MAX ? NULL : (uint8_t *)packbuf_i_scratch(plan->arena, NULL, 0, (size_t)room);
  packbuf_status status = memory ? PACKBUF_OK : packbuf_i_plan_no_memory(plan);
  packbuf_i_block_writer w;
  uint64_t at = 0;
  if (status) return status;
  packbuf_i_blocks_begin(&w, buffer, &start, 0, plan->error);
  while (!status && w.next < buffer->blocks) {
    uint32_t size = 0;
    status = packbuf_i_blocks_next(&w, at / 64, memory + at, &size);
    at += size;
  }
  buffer->payload = status ? NULL : (uint8_t *)packbuf_arena_alloc(plan->arena, (size_t)at, 64);
  if (buffer->payload) memcpy(buffer->payload, memory, (size_t)at);
  else if (!status) status = packbuf_i_plan_no_memory(plan);
  (void)packbuf_i_scratch(plan->arena, memory, (size_t)room, 0);
  buffer->length = at;
  return status;
}

/* Decides for one buffer that may be packed with this profile; `memory` is for the sample. */
static packbuf_status packbuf_i_choose_packing(packbuf_i_plan *plan, packbuf_i_planned *buffer, unsigned profile,
                                               uint8_t *memory) {
  const packbuf_i_node *node = buffer->node;
  packbuf_status status = PACKBUF_OK;
  buffer->blocks = packbuf_i_blocks_of(buffer->length, PACKBUF_I_BLOCK_BYTES);
  if (buffer->role == PACKBUF_ROLE_DATA && node->stored == node && node->sampled) {
    buffer->packing = node->sampled == 2;
    buffer->recipe = node->recipe;
  } else status = packbuf_i_take_sample(plan, buffer, profile, memory);
  if (status || !buffer->packing) return status;
  buffer->headers = (uint8_t *)packbuf_i_array(plan->arena, buffer->blocks, 16);
  if (!buffer->headers) return packbuf_i_plan_no_memory(plan);
  return buffer->role == PACKBUF_ROLE_DATA ? PACKBUF_OK : packbuf_i_pack_index(plan, buffer);
}

static packbuf_status packbuf_i_plan_packing(packbuf_i_plan *plan) {
  const size_t room = PACKBUF_I_SAMPLE * PACKBUF_I_BLOCK_BYTES;
  packbuf_status status = PACKBUF_OK;
  uint8_t *memory = NULL;
  for (uint32_t i = 0; !status && i < plan->buffer_count; i++) {
    packbuf_i_planned *buffer = &plan->buffers[i];
    const unsigned profile = buffer->storage == PACKBUF_STORED ? packbuf_i_packable_profile(plan, buffer) : 0;
    buffer->plain = buffer->length;
    if (!profile) continue;
    if (!memory) memory = (uint8_t *)packbuf_i_scratch(plan->arena, NULL, 0, room);
    if (!memory) return packbuf_i_plan_no_memory(plan);
    status = packbuf_i_choose_packing(plan, buffer, profile, memory);
  }
  if (memory) (void)packbuf_i_scratch(plan->arena, memory, room, 0);
  return status;
}
