/* core/layout.c: which buffers each node has, and how each is stored: section 19 of the spec, but for whether packing
 * pays, and how. core/plan.c runs it for a batch and decides where everything lies.
 * May use: base, batch, columns, expand (errors), checksums, pull, codecs, blocks (their size), packer (recipes). Must
 * not know: the destination. */

#define PACKBUF_I_PACK_FROM 256u /* bytes of a buffer */

/* A buffer record to be. */
typedef struct packbuf_i_planned {
  const packbuf_i_node *node;
  uint8_t role, dim, storage, device; /* device: the content cannot be looked at */
  uint8_t pushed;                     /* data are encoded cell by cell (JSON, MessagePack), not pulled */
  packbuf_dtype dtype;
  uint32_t alias_of;
  uint8_t packing;         /* 1: in blocks */
  packbuf_i_recipe recipe; /* then */
  uint64_t blocks;         /* of them */
  uint8_t *headers;        /* 16 bytes each, in the arena, filled as the blocks are packed */
  uint8_t *payload;        /* of a packed buffer of the index, in the arena */
  uint64_t headers_offset;
  uint64_t count, length, offset; /* length: stored bytes; of packed data known once they are written */
  uint64_t plain;                 /* bytes of the elements */
  uint64_t room;                  /* packed data: where they would lie if all were plain */
  uint32_t print;                 /* of the first bytes: only buffers with the same are compared */
  uint32_t whole_print;           /* of all bytes; has_whole: it is known */
  uint8_t has_whole;
  uint8_t *taken;                 /* all elements, in the arena; NULL: they are pulled each time */
  uint8_t value[16];
} packbuf_i_planned;

typedef struct packbuf_i_plan {
  packbuf_arena *arena;
  const packbuf_options *options;
  packbuf_error *error;
  packbuf_i_node **nodes;
  uint32_t node_count, field_count, value_count;
  packbuf_i_planned *buffers;
  uint32_t buffer_count, buffer_room;
  /* open-addressing table of the buffers that others may be aliases of, by fingerprint: index + 1, or 0 */
  uint32_t *prints;
  uint32_t print_mask;
  packbuf_i_pair **pairs; /* sorted as section 6 says */
  uint32_t *pair_nodes;
  uint32_t pair_count;
  uint32_t *names; /* node indexes, sorted */
  uint32_t name_count;
  uint8_t kind; /* 1 batch, 2 manifest */
  uint64_t rows, strings_length, head_length, index_length, data_length, total_length;
  uint64_t plain_length;         /* of the data section, up to the packed buffers */
  uint64_t data_bound, bound;    /* the most that the data section (its bytes plain) and the whole may take */
  uint64_t checksums;            /* number of data checksums, at most */
  int packed;                    /* some buffer is: data_length and total_length are known once the data are written */
  uint64_t turn;                 /* how often the places of packed data have been settled */
  struct packbuf_i_split *split; /* the parts it was last divided into, or NULL */
  uint64_t *scratch;             /* for the search for equal rows, leaf after leaf */
  uint64_t scratch_room;         /* 64-bit words of it */
} packbuf_i_plan;

static packbuf_status packbuf_i_plan_fail(packbuf_i_plan *plan, const packbuf_i_node *node, packbuf_status code,
                                          const char *message, uint64_t row) {
  return packbuf_i_fail_at(plan->error, node, code, message, PACKBUF_NOWHERE, row);
}

static packbuf_status packbuf_i_changed(packbuf_error *error, const packbuf_i_node *node) {
  return packbuf_i_fail_at(error, node, PACKBUF_INVALID_ARGUMENT, "the data changed while they were packed",
                           PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

static packbuf_status packbuf_i_hook_failed(packbuf_error *error, const packbuf_i_node *node, packbuf_status status) {
  return packbuf_i_fail_at(error, node, status, "the device's copy hook failed", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

static packbuf_status packbuf_i_plan_no_memory(packbuf_i_plan *plan) { return packbuf_i_no_memory(plan->error); }

static uint64_t packbuf_i_round_up(uint64_t n, unsigned exponent) {
  uint64_t mask = ((uint64_t)1 << exponent) - 1;
  return (n + mask) & ~mask;
}

/* The next run of a planned buffer's elements: native byte order for data, little-endian for the rest. */
static packbuf_i_run packbuf_i_pull_next(packbuf_i_pull *pull) {
  if (pull->taken.bytes) {
    const packbuf_i_run all = pull->taken;
    pull->taken.size = 0;
    return all;
  }
  switch (pull->role) {
    case PACKBUF_ROLE_VALIDITY:
    case PACKBUF_ROLE_MISSING: return packbuf_i_pull_bits(pull);
    case PACKBUF_ROLE_NDIMS:
    case PACKBUF_ROLE_TYPES: return packbuf_i_pull_u8(pull);
    case PACKBUF_ROLE_OFFSETS:
      return pull->node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED ? packbuf_i_pull_item_bytes(pull)
                                                                  : packbuf_i_pull_u64(pull);
    case PACKBUF_ROLE_DATA: break;
    default: return packbuf_i_pull_u64(pull);
  }
  switch (pull->node->codec) {
    case PACKBUF_CODEC_NDARRAY: return packbuf_i_pull_ndarray(pull);
    case PACKBUF_CODEC_RAGGED_TENSOR: return packbuf_i_pull_ragged_tensor(pull);
    case PACKBUF_CODEC_TYPED_RAGGED: return packbuf_i_pull_typed_ragged(pull);
    case PACKBUF_CODEC_MEDIA_LIST_RAGGED: return packbuf_i_pull_media_list(pull);
    default: return packbuf_i_pull_bytes(pull);
  }
}

/* ---- which buffers a node has ---- */

static packbuf_status packbuf_i_plan_buffer(packbuf_i_plan *plan, const packbuf_i_node *node, unsigned role,
                                            unsigned dim, packbuf_dtype dtype, uint64_t count) {
  packbuf_i_planned *buffer;
  uint64_t bits;
  if (plan->buffer_count == plan->buffer_room) {
    uint32_t room = plan->buffer_room ? plan->buffer_room * 2 : 64;
    packbuf_i_planned *grown = (packbuf_i_planned *)packbuf_arena_alloc(plan->arena, room * sizeof *grown, 16);
    if (!grown) return packbuf_i_plan_no_memory(plan);
    if (plan->buffer_count) memcpy(grown, plan->buffers, plan->buffer_count * sizeof *grown);
    plan->buffers = grown;
    plan->buffer_room = room;
  }
  if (!packbuf_i_mul(count, dtype.bits, &bits) || bits >> 62)
    return packbuf_i_plan_fail(plan, node, PACKBUF_LIMIT, "a buffer is too large", PACKBUF_NOWHERE);
  buffer = &plan->buffers[plan->buffer_count++];
  memset(buffer, 0, sizeof *buffer);
  buffer->node = node;
  buffer->role = (uint8_t)role;
  buffer->dim = (uint8_t)dim;
  buffer->dtype = dtype;
  buffer->count = count;
  buffer->length = (bits + 7) / 8;
  buffer->device = role == PACKBUF_ROLE_DATA && node->device;
  buffer->pushed = role == PACKBUF_ROLE_DATA &&
                   (node->codec == PACKBUF_CODEC_JSON_RAGGED || node->codec == PACKBUF_CODEC_MSGPACK_RAGGED);
  return PACKBUF_OK;
}

/* Offsets that descend or pass the items. Those of absent rows say nothing and are not looked at: with a bitmap no run
 * spans rows. */
static packbuf_status packbuf_i_check_offsets(packbuf_i_plan *plan, const packbuf_i_node *node) {
  const packbuf_ragged *r = node->ragged;
  for (uint64_t row = 0; row < node->rows; row++) {
    uint64_t first = packbuf_i_first_item(r, row), count = packbuf_i_items(r, row);
    if (packbuf_i_state(node, row) <= 0) continue;
    if (!r->lengths && packbuf_i_first_item(r, row + 1) < first)
      return packbuf_i_plan_fail(plan, node, PACKBUF_OUT_OF_RANGE, "an offset descends", row);
    if (first > r->items || count > r->items - first)
      return packbuf_i_plan_fail(plan, node, PACKBUF_OUT_OF_RANGE, "an offset passes the items", row);
  }
  return PACKBUF_OK;
}

/* The same where there are only offsets, and the elements of all rows. */
static packbuf_status packbuf_i_plan_offsets(packbuf_i_plan *plan, packbuf_i_node *node) {
  const packbuf_ragged *r = node->ragged;
  const uint64_t first = packbuf_i_first_item(r, 0);
  uint64_t before = first;
  for (uint64_t row = 0; row < node->rows; row++) {
    const uint64_t next = packbuf_i_first_item(r, row + 1);
    if (next < before || next > r->items)
      return packbuf_i_plan_fail(plan, node, PACKBUF_OUT_OF_RANGE,
                                 next < before ? "an offset descends" : "an offset passes the items", row);
    before = next;
  }
  node->nulls = 0;
  if (!packbuf_i_mul(before - first, packbuf_i_item_elements(r), &node->elements) || node->elements >> 60)
    return packbuf_i_plan_fail(plan, node, PACKBUF_LIMIT, "a field is too large", PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* Counts absent rows, adds up the elements, finds devices. */
static packbuf_status packbuf_i_plan_rows(packbuf_i_plan *plan, packbuf_i_node *node) {
  uint64_t row, total = 0;
  int sums = node->codec >= PACKBUF_CODEC_RAGGED_TENSOR && node->codec != PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  if (packbuf_i_offsets_only(node)) return packbuf_i_plan_offsets(plan, node);
  if (node->source == PACKBUF_I_FROM_RAGGED) {
    packbuf_status status = packbuf_i_check_offsets(plan, node);
    if (status) return status;
  }
  if (node->source != PACKBUF_I_FROM_CELLS) {
    node->nulls = node->codec == PACKBUF_CODEC_NULL ? node->rows : 0;
    node->missing = 0;
  }
  if (!sums &&
      (node->source == PACKBUF_I_FROM_CELLS ? node->codec != PACKBUF_CODEC_NDARRAY || node->form == PACKBUF_FORM_NATURAL
                                            : !node->bitmap))
    return PACKBUF_OK;
  for (row = packbuf_i_next_cell(&node->cells, 0); row < node->rows;
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    int state = packbuf_i_state(node, row);
    if (state <= 0) {
      if (node->source != PACKBUF_I_FROM_CELLS) (*(state ? &node->missing : &node->nulls))++;
      continue;
    }
    if (sums && (!packbuf_i_add(total, packbuf_i_extent(node, row), &total) || total >> 60))
      return packbuf_i_plan_fail(plan, node, PACKBUF_LIMIT, "a field is too large", row);
    if (node->source == PACKBUF_I_FROM_CELLS) {
      const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
      if (cell->kind == PACKBUF_TENSOR && cell->as.tensor->device) node->device = cell->as.tensor->device;
    }
  }
  node->elements = total;
  return PACKBUF_OK;
}

/* Texts given as arrays are checked here; dynamic ones were during inference. */
static packbuf_status packbuf_i_check_texts(packbuf_i_plan *plan, const packbuf_i_node *node) {
  for (uint64_t row = 0; row < node->rows; row++) {
    const packbuf_text *text = &node->texts[row];
    uint64_t valid = text->data ? packbuf_i_utf8_valid((const uint8_t *)text->data, text->size) : text->size;
    if (text->data && valid != text->size) {
      packbuf_i_plan_fail(plan, node, PACKBUF_BAD_UTF8, "the text is not UTF-8 (the offset is into the text)", row);
      if (plan->error) plan->error->offset = valid;
      return PACKBUF_BAD_UTF8;
    }
  }
  return PACKBUF_OK;
}

/* No codec holds the cells: names the first row that MessagePack, the last resort, does not. */
static packbuf_status packbuf_i_plan_refused(packbuf_i_plan *plan, const packbuf_i_node *node) {
  uint64_t row = 0;
  while (row < node->rows &&
         (packbuf_i_state(node, row) <= 0 || packbuf_i_msgpack_can(packbuf_i_cell(&node->cells, row), PACKBUF_I_DEPTH,
                                                                   plan->arena, NULL) != PACKBUF_UNENCODABLE))
    row++;
  return packbuf_i_plan_fail(plan, node, PACKBUF_UNENCODABLE, node->reason, row < node->rows ? row : PACKBUF_NOWHERE);
}

/* A JSON or MessagePack cell. */
static packbuf_status packbuf_i_push_cell(const packbuf_i_node *node, uint64_t row, packbuf_i_sink *sink,
                                          packbuf_error *error) {
  const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
  return node->codec == PACKBUF_CODEC_JSON_RAGGED ? packbuf_i_json_encode(cell, PACKBUF_I_DEPTH, sink, error)
                                                  : packbuf_i_msgpack_encode(cell, PACKBUF_I_DEPTH, sink, error);
}

/* Encoded cells of one leaf that are kept for when they are written: more are encoded once more then. */
#define PACKBUF_I_KEEP_ENCODED (256u << 10)

typedef struct packbuf_i_encoded {
  uint8_t *at; /* NULL: none are kept (any more) */
  uint64_t size, room;
} packbuf_i_encoded;

/* Makes room for `more` bytes behind the encoded cells, or keeps none any longer. */
static void packbuf_i_encoded_room(packbuf_i_plan *plan, packbuf_i_encoded *encoded, uint64_t more) {
  const uint8_t *before = encoded->at;
  uint64_t room = 1024;
  while (room <= PACKBUF_I_KEEP_ENCODED && room < encoded->size + more) room *= 2;
  encoded->at = room > PACKBUF_I_KEEP_ENCODED ? NULL : (uint8_t *)packbuf_arena_alloc(plan->arena, (size_t)room, 1);
  if (encoded->at && encoded->size) memcpy(encoded->at, before, (size_t)encoded->size);
  encoded->room = room;
}

/* Encodes a cell, behind the others while they are kept; *size: its bytes. */
static packbuf_status packbuf_i_encode_cell(packbuf_i_plan *plan, const packbuf_i_node *node, uint64_t row,
                                            packbuf_i_encoded *encoded, uint64_t *size) {
  packbuf_status status;
  for (;;) {
    packbuf_i_sink sink = {NULL, 0, 0, ((uint64_t)1 << 30) - 1};
    if (encoded->at) {
      sink.at = encoded->at + encoded->size;
      sink.capacity = encoded->room - encoded->size;
      sink.limit = PACKBUF_I_KEEP_ENCODED;
    }
    status = packbuf_i_push_cell(node, row, &sink, plan->error);
    *size = sink.size;
    if (!sink.at || sink.size <= sink.capacity) break;
    packbuf_i_encoded_room(plan, encoded, sink.size);
  }
  if (encoded->at) encoded->size += *size;
  return status;
}

/* Bytes that each JSON or MessagePack cell will take. */
static packbuf_status packbuf_i_plan_sizes(packbuf_i_plan *plan, packbuf_i_node *node) {
  packbuf_i_encoded encoded = {NULL, 0, 0};
  if (!node->accepted) return packbuf_i_plan_refused(plan, node);
  node->sizes = (uint64_t *)packbuf_i_array(plan->arena, node->rows, sizeof *node->sizes);
  if (!node->sizes) return packbuf_i_plan_no_memory(plan);
  memset(node->sizes, 0, (size_t)node->rows * sizeof *node->sizes);
  packbuf_i_encoded_room(plan, &encoded, 0);
  for (uint64_t row = packbuf_i_next_cell(&node->cells, 0); row < node->rows;
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    packbuf_status status = PACKBUF_OK;
    uint64_t size = 0;
    if (packbuf_i_state(node, row) > 0) status = packbuf_i_encode_cell(plan, node, row, &encoded, &size);
    if (size >> 30) return packbuf_i_plan_fail(plan, node, PACKBUF_LIMIT, "a cell takes 2^30 bytes or more", row);
    if (status) return packbuf_i_plan_fail(plan, node, status, plan->error ? plan->error->message : "", row);
    node->sizes[row] = size;
  }
  if (!encoded.at) return PACKBUF_OK;
  node->encoded = (const uint8_t *)packbuf_i_arena_trim(plan->arena, encoded.at, (size_t)encoded.room,
                                                        (size_t)encoded.size, 1);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_plan_masks(packbuf_i_plan *plan, const packbuf_i_node *node) {
  packbuf_dtype bit = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 1);
  packbuf_status status = PACKBUF_OK;
  if (node->nulls + node->missing && node->codec != PACKBUF_CODEC_NULL)
    status = packbuf_i_plan_buffer(plan, node, PACKBUF_ROLE_VALIDITY, 0, bit, node->rows);
  if (!status && node->missing) status = packbuf_i_plan_buffer(plan, node, PACKBUF_ROLE_MISSING, 0, bit, node->rows);
  return status;
}

static packbuf_status packbuf_i_plan_ragged(packbuf_i_plan *plan, const packbuf_i_node *node) {
  const packbuf_i_node *stored = node->stored;
  packbuf_dtype u64 = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64);
  int shaped = packbuf_i_ragged_numbers(node->codec);
  packbuf_status status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_DATA, 0, node->dtype, stored->elements);
  if (!status) status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_OFFSETS, 0, u64, stored->rows + 1);
  for (unsigned d = 0; !status && shaped && node->rank >= 2 && d < node->rank; d++)
    status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_SHAPE, d, u64, stored->rows);
  if (!status && shaped && node->mixed_ranks)
    status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_NDIMS, 0, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8),
                                   stored->rows);
  return status;
}

static packbuf_status packbuf_i_plan_media_list(packbuf_i_plan *plan, const packbuf_i_node *node) {
  const packbuf_i_node *stored = node->stored;
  packbuf_dtype u64 = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64), u8 = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  packbuf_status status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_DATA, 0, u8, stored->elements);
  if (!status) status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_OFFSETS, 0, u64, stored->items + 1);
  if (!status) status = packbuf_i_plan_masks(plan, node);
  if (!status && node->typed) status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_TYPES, 0, u8, stored->items);
  if (!status) status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_ITEM_OFFSETS, 0, u64, stored->rows + 1);
  return status;
}

/* The references between rows, where any are shared. */
static packbuf_status packbuf_i_plan_references(packbuf_i_plan *plan, const packbuf_i_node *node) {
  const packbuf_i_node *stored = node->stored;
  packbuf_dtype u64 = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64);
  packbuf_status status = PACKBUF_OK;
  if (node->row_index) status = packbuf_i_plan_buffer(plan, node, PACKBUF_ROLE_ROW_INDEX, 0, u64, node->rows);
  if (!status && stored->prefix_row)
    status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_PREFIX_ROW, 0, u64, stored->rows);
  if (!status && stored->prefix_row)
    status = packbuf_i_plan_buffer(plan, stored, PACKBUF_ROLE_PREFIX_LENGTH, 0, u64, stored->rows);
  return status;
}

static packbuf_status packbuf_i_share(packbuf_i_plan *plan, packbuf_i_node *node);

static packbuf_status packbuf_i_plan_leaf(packbuf_i_plan *plan, packbuf_i_node *node) {
  const int list = node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  packbuf_status status = list ? PACKBUF_OK : packbuf_i_share(plan, node); /* lists before their attributes: plan.c */
  uint64_t elements = node->stored->rows;
  if (status) return status;
  switch (node->codec) {
    case PACKBUF_CODEC_NULL: break;
    case PACKBUF_CODEC_NDARRAY:
      for (unsigned i = 0; i < node->rank; i++)
        if (!packbuf_i_mul(elements, node->shape[i], &elements))
          return packbuf_i_plan_fail(plan, node, PACKBUF_LIMIT, "a field is too large", PACKBUF_NOWHERE);
      status = packbuf_i_plan_buffer(plan, node->stored, PACKBUF_ROLE_DATA, 0, node->dtype, elements);
      break;
    case PACKBUF_CODEC_MEDIA_LIST_RAGGED: status = packbuf_i_plan_media_list(plan, node); break;
    default: status = packbuf_i_plan_ragged(plan, node);
  }
  if (!status && !list) status = packbuf_i_plan_masks(plan, node);
  if (!status && !list && node->typed && node->codec != PACKBUF_CODEC_NULL)
    status = packbuf_i_plan_buffer(plan, node->stored, PACKBUF_ROLE_TYPES, 0, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8),
                                   node->stored->rows);
  return status ? status : packbuf_i_plan_references(plan, node);
}

static packbuf_status packbuf_i_plan_node(packbuf_i_plan *plan, packbuf_i_node *node) {
  packbuf_status status;
  if (node->kind == PACKBUF_LEAF &&
      (node->codec == PACKBUF_CODEC_JSON_RAGGED || node->codec == PACKBUF_CODEC_MSGPACK_RAGGED)) {
    status = packbuf_i_plan_sizes(plan, node);
    if (status) return status;
  }
  if (node->source == PACKBUF_I_FROM_TEXT && node->codec == PACKBUF_CODEC_UTF8_RAGGED) {
    status = packbuf_i_check_texts(plan, node);
    if (status) return status;
  }
  status = node->kind == PACKBUF_LEAF ? packbuf_i_plan_rows(plan, node) : PACKBUF_OK;
  if (status) return status;
  if (node->nulls + node->missing && (node->flags & PACKBUF_REFUSE_NULL)) {
    uint64_t row = 0;
    while (packbuf_i_state(node, row) > 0) row++;
    return packbuf_i_plan_fail(plan, node, PACKBUF_NOT_NULLABLE, "the field must not have a null or missing cell", row);
  }
  if (node->kind == PACKBUF_LEAF) return packbuf_i_plan_leaf(plan, node);
  if (node->kind == PACKBUF_NODE_LIST)
    status = packbuf_i_plan_buffer(plan, node, PACKBUF_ROLE_LENGTHS, 0, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64),
                                   node->rows);
  return status ? status : packbuf_i_plan_masks(plan, node);
}

/* ---- how a buffer is stored ---- */

/* Longest buffer that is taken. */
#define PACKBUF_I_TAKE_BYTES 65536u

/* Starts a pull of a planned buffer from its start. */
static void packbuf_i_pull_planned(packbuf_i_pull *pull, const packbuf_i_planned *buffer) {
  packbuf_i_pull_start(pull, buffer->node, buffer->role, buffer->dim);
  pull->taken.bytes = buffer->taken;
  pull->taken.size = buffer->taken ? buffer->length : 0;
}

/* Elements that come cell by cell are pulled once for all that is asked about them: of columns that few rows have there
 * are hundreds, and most of their masks and offsets equal others'. Without memory it goes on without. */
static void packbuf_i_take_elements(packbuf_i_plan *plan, packbuf_i_planned *buffer) {
  packbuf_i_pull pull;
  uint64_t size = 0;
  uint8_t *bytes;
  if (buffer->node->source != PACKBUF_I_FROM_CELLS || buffer->length > PACKBUF_I_TAKE_BYTES) return;
  bytes = (uint8_t *)packbuf_arena_alloc(plan->arena, (size_t)buffer->length, 8);
  if (!bytes) return;
  packbuf_i_pull_start(&pull, buffer->node, buffer->role, buffer->dim);
  for (;;) {
    const packbuf_i_run run = packbuf_i_pull_next(&pull);
    if (run.size == 0 || run.size > buffer->length - size) break;
    memcpy(bytes + size, run.bytes, (size_t)run.size);
    size += run.size;
  }
  if (size == buffer->length) buffer->taken = bytes;
}

/* They stay for later buffers to be compared with, unless this one is an alias or lies in its record. */
static void packbuf_i_leave_elements(packbuf_i_plan *plan, packbuf_i_planned *buffer) {
  if (!buffer->taken || buffer->storage == PACKBUF_STORED) return;
  (void)packbuf_i_arena_trim(plan->arena, buffer->taken, (size_t)buffer->length, 0, 8);
  buffer->taken = NULL;
}

/* All of a buffer of at most 16 bytes, as it will be stored. */
static packbuf_status packbuf_i_take_inline(packbuf_i_plan *plan, packbuf_i_planned *buffer) {
  packbuf_i_pull pull;
  uint64_t size = 0;
  packbuf_i_pull_start(&pull, buffer->node, buffer->role, buffer->dim);
  while (size < buffer->length) {
    packbuf_i_run run = packbuf_i_pull_next(&pull);
    if (run.size == 0 || run.size > buffer->length - size)
      return packbuf_i_plan_fail(plan, buffer->node, PACKBUF_INVALID_ARGUMENT,
                                 "the data changed while they were packed", PACKBUF_NOWHERE);
    if (pull.device) {
      packbuf_status status =
          pull.device->copy(pull.device->context, buffer->value + size, run.bytes, (size_t)run.size);
      if (status)
        return packbuf_i_plan_fail(plan, buffer->node, status, "the device's copy hook failed", PACKBUF_NOWHERE);
    } else {
      memcpy(buffer->value + size, run.bytes, (size_t)run.size);
    }
    size += run.size;
  }
  if (pull.status)
    return packbuf_i_plan_fail(plan, buffer->node, pull.status, "the device's copy hook failed", PACKBUF_NOWHERE);
  if (buffer->role == PACKBUF_ROLE_DATA && packbuf_i_big_endian())
    packbuf_i_swap(buffer->value, size, packbuf_i_swap_unit(buffer->dtype));
  buffer->storage = PACKBUF_INLINE;
  return PACKBUF_OK;
}

/* Encodes the JSON or MessagePack cells of rows `row` to `end`. */
static packbuf_status packbuf_i_push_cells(const packbuf_i_node *node, packbuf_i_sink *sink, uint64_t row, uint64_t end,
                                           packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  for (row = packbuf_i_next_cell(&node->cells, row); !status && row < end;
       row = packbuf_i_next_cell(&node->cells, row + 1))
    if (packbuf_i_state(node, row) > 0) status = packbuf_i_push_cell(node, row, sink, error);
  return status;
}

/* 1 when every element has the bits of the first, which goes to buffer->value. Looks no farther than the first that
 * differs. */
static int packbuf_i_is_constant(packbuf_i_planned *buffer) {
  packbuf_i_pull pull;
  uint64_t element = buffer->dtype.bits / 8u;
  const int known =
      buffer->role == PACKBUF_ROLE_DATA && buffer->node->stored == buffer->node ? buffer->node->constant : 0;
  int first = 1;
  if (buffer->dtype.bits == 1) { /* the counts tell */
    const packbuf_i_node *node = buffer->node;
    uint64_t ones = buffer->role == PACKBUF_ROLE_MISSING ? node->missing : node->rows - node->nulls - node->missing;
    buffer->value[0] = ones != 0;
    return ones == 0 || ones == node->rows;
  }
  if (known == 1) return 0;
  packbuf_i_pull_planned(&pull, buffer);
  pull.walk.once = 1;
  for (;;) {
    packbuf_i_run run = packbuf_i_pull_next(&pull);
    if (run.size == 0) break;
    if (first) memcpy(buffer->value, run.bytes, (size_t)element);
    first = 0;
    if (known) break;
    if (memcmp(run.bytes, buffer->value, (size_t)element) != 0) return 0;
    if (memcmp(run.bytes + element, run.bytes, (size_t)(run.size - element)) != 0) return 0;
  }
  if (buffer->role == PACKBUF_ROLE_DATA && packbuf_i_big_endian())
    packbuf_i_swap(buffer->value, element, packbuf_i_swap_unit(buffer->dtype));
  return 1;
}

/* 1 when the elements (64-bit, little-endian) ascend by one step without overflow; start and step go to
 * buffer->value. */
static int packbuf_i_is_sequence(packbuf_i_planned *buffer) {
  packbuf_i_pull pull;
  uint64_t start = 0, step = 0, last = 0, seen = 0;
  packbuf_i_pull_planned(&pull, buffer);
  for (;;) {
    packbuf_i_run run = packbuf_i_pull_next(&pull);
    if (run.size == 0) break;
    for (uint64_t at = 0; at < run.size; at += 8, seen++) {
      uint64_t element = packbuf_i_load64(run.bytes + at);
      if (seen == 0) start = element;
      else if (seen == 1) step = element - start;
      /* a step up that wraps, or down that wraps, is no step of the sequence */
      if (seen && (element - last != step || (step >> 63 ? element > last : element < last))) return 0;
      last = element;
    }
  }
  packbuf_i_store64(buffer->value, start);
  packbuf_i_store64(buffer->value + 8, step);
  return 1;
}

/* Bytes that a print is made of: up to 64 KiB, since numbers, offsets and masks of columns that few rows have begin
 * alike, and many such columns would be compared with each other; of longer data the first 512. */
#define PACKBUF_I_PRINT_ALL 65536u
#define PACKBUF_I_PRINT_FIRST 512u

/* A fingerprint of the first `left` bytes: buffers with different ones differ. */
static uint32_t packbuf_i_print_of(const packbuf_i_planned *buffer, uint64_t left) {
  const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_best();
  packbuf_i_pull pull;
  uint32_t print = 0;
  packbuf_i_pull_planned(&pull, buffer);
  while (left) {
    packbuf_i_run run = packbuf_i_pull_next(&pull);
    if (run.size == 0) break;
    if (run.size > left) run.size = left;
    print = kernel->crc(print, run.bytes, (size_t)run.size);
    left -= run.size;
  }
  return print;
}

/* The same of all bytes, worked out once. */
static uint32_t packbuf_i_whole_print_of(packbuf_i_planned *buffer) {
  if (buffer->length <= PACKBUF_I_PRINT_ALL) return buffer->print;
  if (!buffer->has_whole) buffer->whole_print = packbuf_i_print_of(buffer, UINT64_MAX);
  buffer->has_whole = 1;
  return buffer->whole_print;
}

static int packbuf_i_same_elements(const packbuf_i_planned *a, const packbuf_i_planned *b) {
  packbuf_i_pull left, right;
  packbuf_i_run x = {NULL, 0}, y = {NULL, 0};
  packbuf_i_pull_planned(&left, a);
  packbuf_i_pull_planned(&right, b);
  for (;;) {
    uint64_t size;
    if (x.size == 0) x = packbuf_i_pull_next(&left);
    if (y.size == 0) y = packbuf_i_pull_next(&right);
    size = x.size < y.size ? x.size : y.size;
    if (size == 0) return x.size == y.size;
    if (x.bytes != y.bytes && memcmp(x.bytes, y.bytes, (size_t)size) != 0) return 0;
    x.bytes += size;
    x.size -= size;
    y.bytes += size;
    y.size -= size;
  }
}

/* Room for the prints of all buffers, at most half full. */
static packbuf_status packbuf_i_start_prints(packbuf_i_plan *plan) {
  uint32_t slots = 2;
  if (plan->buffer_count > (1u << 22))
    return packbuf_i_plan_fail(plan, NULL, PACKBUF_LIMIT, "more than 2^22 buffers", PACKBUF_NOWHERE);
  while (slots < 2 * plan->buffer_count) slots *= 2;
  plan->prints = (uint32_t *)packbuf_arena_alloc(plan->arena, slots * sizeof *plan->prints, sizeof *plan->prints);
  if (!plan->prints) return packbuf_i_plan_no_memory(plan);
  memset(plan->prints, 0, slots * sizeof *plan->prints);
  plan->print_mask = slots - 1;
  return PACKBUF_OK;
}

/* The number of a profile, by its packing. */
static unsigned packbuf_i_profile_number(unsigned packing) {
  return packing > PACKBUF_PACKING_NONE ? packing - PACKBUF_PACKING_NONE : 0;
}

/* The profile that a buffer is written with: its node's own, or the batch's, which is resolved. */
static unsigned packbuf_i_profile_of(const packbuf_i_plan *plan, const packbuf_i_planned *buffer) {
  unsigned packing = buffer->node->packing ? buffer->node->packing : plan->options->packing;
  if (packing == PACKBUF_PACKING_AUTO) packing = packbuf_packing_for_link(plan->options->link_gbits);
  return packbuf_i_profile_number(packing);
}

/* By request or by codec: to be read in place. */
static int packbuf_i_stays_plain(const packbuf_i_plan *plan, const packbuf_i_planned *buffer) {
  return buffer->node->flags & PACKBUF_KEEP_PLAIN || !packbuf_i_profile_of(plan, buffer) ||
         (buffer->role == PACKBUF_ROLE_DATA && !packbuf_i_numeric(buffer->node->codec));
}

/* The profile with which a buffer that is stored may be packed; 0: it stays plain in any case. */
static unsigned packbuf_i_packable_profile(const packbuf_i_plan *plan, const packbuf_i_planned *buffer) {
  if (packbuf_i_stays_plain(plan, buffer) || buffer->length < PACKBUF_I_PACK_FROM || buffer->device || buffer->pushed ||
      packbuf_i_unit_bits(buffer->dtype) == 0 ||
      packbuf_i_blocks_of(buffer->length, PACKBUF_I_BLOCK_BYTES) >> 24) /* places are u32 */
    return 0;
  return packbuf_i_profile_of(plan, buffer);
}

/* Whether a buffer may become an alias of an earlier one: what stays plain is none of what may be packed. */
static int packbuf_i_may_alias(const packbuf_i_plan *plan, const packbuf_i_planned *earlier,
                               const packbuf_i_planned *buffer) {
  return !packbuf_i_stays_plain(plan, buffer) || !packbuf_i_packable_profile(plan, earlier);
}

/* Whether all but the elements lets a buffer become an alias of an earlier one. */
static int packbuf_i_alike(const packbuf_i_plan *plan, const packbuf_i_planned *earlier,
                           const packbuf_i_planned *buffer) {
  return earlier->print == buffer->print && earlier->count == buffer->count &&
         packbuf_i_may_alias(plan, earlier, buffer) &&
         (earlier->role == PACKBUF_ROLE_DATA) == (buffer->role == PACKBUF_ROLE_DATA) &&
         packbuf_i_dtype_equal(earlier->dtype, buffer->dtype);
}

/* Buffers that are compared in vain before whole prints tell which to compare: many long ones that begin alike would
 * each be compared with all before. */
#define PACKBUF_I_COMPARE_MOST 4

/* The first earlier stored buffer of the same section with the same elements: its index, or the buffer's own (always,
 * when `alone`), which then joins the table. Equal prints share one chain of slots in ascending order, so what the
 * table holds between them changes nothing. */
static uint32_t packbuf_i_find_alias(packbuf_i_plan *plan, uint32_t index, int alone) {
  packbuf_i_planned *buffer = &plan->buffers[index];
  const int data = buffer->role == PACKBUF_ROLE_DATA;
  unsigned differed = 0;
  uint32_t slot;
  buffer->print = packbuf_i_print_of(buffer, data && buffer->length > PACKBUF_I_PRINT_ALL ? PACKBUF_I_PRINT_FIRST
                                                                                          : PACKBUF_I_PRINT_ALL);
  for (slot = buffer->print & plan->print_mask; plan->prints[slot]; slot = (slot + 1) & plan->print_mask) {
    packbuf_i_planned *earlier = &plan->buffers[plan->prints[slot] - 1];
    if (alone || !packbuf_i_alike(plan, earlier, buffer)) continue;
    if (differed >= PACKBUF_I_COMPARE_MOST && packbuf_i_whole_print_of(earlier) != packbuf_i_whole_print_of(buffer))
      continue;
    if (packbuf_i_same_elements(earlier, buffer)) return plan->prints[slot] - 1;
    differed++;
  }
  plan->prints[slot] = index + 1;
  return index;
}

/* The row of an element of a leaf's data. */
static uint64_t packbuf_i_row_of(const packbuf_i_node *node, uint64_t element) {
  uint64_t row = 0, each = 1;
  if (node->codec == PACKBUF_CODEC_NDARRAY) {
    for (unsigned d = 0; d < node->rank; d++) each *= node->shape[d];
    return node->kept ? node->kept[element / each] : element / each;
  }
  for (uint64_t end = 0; row < node->rows && (end += packbuf_i_extent(node, row)) <= element;) row++;
  return node->kept && row < node->rows ? node->kept[row] : row;
}

/* A bool byte other than 0 and 1, which no reader would take, is refused: `size` bytes from element `first` on. */
static packbuf_status packbuf_i_check_bools(packbuf_error *error, const packbuf_i_planned *buffer, const uint8_t *bytes,
                                            uint64_t size, uint64_t first) {
  uint64_t good = packbuf_i_first_not_bool(bytes, size);
  if (good == size) return PACKBUF_OK;
  return packbuf_i_fail_at(error, buffer->node, PACKBUF_BAD_BOOL, "a bool byte is neither 0 nor 1", PACKBUF_NOWHERE,
                           packbuf_i_row_of(buffer->node, first + good));
}

/* Section 19, of a buffer that is more than a record holds: the first storage that holds. */
static packbuf_status packbuf_i_choose_elements(packbuf_i_plan *plan, uint32_t index) {
  packbuf_i_planned *buffer = &plan->buffers[index];
  int data = buffer->role == PACKBUF_ROLE_DATA, keep = data && (buffer->node->flags & PACKBUF_KEEP_PLAIN);
  int text = data && buffer->node->codec >= PACKBUF_CODEC_BYTES_RAGGED;
  int bools = data && buffer->dtype.code == PACKBUF_DTYPE_BOOL; /* stored ones are checked when they are written */
  if (keep) {
    packbuf_i_find_alias(plan, index, 1); /* later fields may be its alias */
    return PACKBUF_OK;
  }
  if (!text && packbuf_i_is_constant(buffer)) {
    buffer->storage = PACKBUF_CONSTANT;
    return bools ? packbuf_i_check_bools(plan->error, buffer, buffer->value, 1, 0) : PACKBUF_OK;
  }
  if (!data && buffer->dtype.bits == 64 && packbuf_i_is_sequence(buffer)) {
    buffer->storage = PACKBUF_SEQUENCE;
    return PACKBUF_OK;
  }
  memset(buffer->value, 0, sizeof buffer->value);
  buffer->alias_of = packbuf_i_find_alias(plan, index, 0);
  if (buffer->alias_of != index) buffer->storage = PACKBUF_ALIAS;
  else buffer->alias_of = 0;
  return PACKBUF_OK;
}

/* Section 19: the storage of a buffer. */
static packbuf_status packbuf_i_choose_storage(packbuf_i_plan *plan, uint32_t index) {
  packbuf_i_planned *buffer = &plan->buffers[index];
  packbuf_status status;
  buffer->storage = PACKBUF_STORED;
  if (buffer->length <= 16) {
    packbuf_i_sink sink = {buffer->value, buffer->length, 0, 0};
    if (!buffer->pushed) {
      status = packbuf_i_take_inline(plan, buffer);
      return !status && buffer->role == PACKBUF_ROLE_DATA && buffer->dtype.code == PACKBUF_DTYPE_BOOL
                 ? packbuf_i_check_bools(plan->error, buffer, buffer->value, buffer->length, 0)
                 : status;
    }
    buffer->storage = PACKBUF_INLINE;
    return packbuf_i_push_cells(buffer->node, &sink, 0, buffer->node->rows, plan->error);
  }
  if (buffer->device || buffer->pushed) return PACKBUF_OK;
  packbuf_i_take_elements(plan, buffer);
  status = packbuf_i_choose_elements(plan, index);
  packbuf_i_leave_elements(plan, buffer);
  return status;
}
