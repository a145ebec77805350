/* core/seek.c: starting a pull inside a buffer. Dense arrays and rows that lie end to end are arithmetic; elsewhere a
 * mark goes over the rows once, forward, and serves all places of a buffer that ascend.
 * May use: pull, codecs (packing), layout. Must not know: where the bytes go. */

/* Where a byte of a buffer comes from. All zero: the first. */
typedef struct packbuf_i_mark {
  uint64_t row, item;   /* that holds the byte; item: of a media list */
  uint64_t before, sum; /* elements of this buffer, and of the one it points into, before that row or item */
  uint64_t skip;        /* bytes of the buffer from there to the byte */
} packbuf_i_mark;

/* To element `element` of the offsets of a ragged leaf or of the item offsets of a media list: element i > 0 is the sum
 * up to row i - 1. */
static void packbuf_i_mark_offset(const packbuf_i_planned *buffer, packbuf_i_mark *mark, uint64_t element) {
  for (; mark->row + 1 < element; mark->row++)
    mark->sum += buffer->role == PACKBUF_ROLE_OFFSETS ? packbuf_i_extent(buffer->node, mark->row)
                                                      : packbuf_i_item_count(buffer->node, mark->row);
}

/* To the item of a media list before which `items` items, or after which more than `bytes` bytes, have passed. */
static void packbuf_i_mark_item(const packbuf_i_node *node, packbuf_i_mark *mark, uint64_t items, uint64_t bytes) {
  while (mark->row < node->rows) {
    uint64_t size;
    if (mark->item == packbuf_i_item_count(node, mark->row)) {
      mark->row++;
      mark->item = 0;
      continue;
    }
    size = packbuf_i_item_size(&packbuf_i_cell(&node->cells, mark->row)->as.list.items[mark->item]);
    if (mark->before == items || bytes - mark->sum < size) break;
    mark->item++;
    mark->before++;
    mark->sum += size;
  }
}

/* To the row whose cell holds byte `byte` of the data. */
static void packbuf_i_mark_row(const packbuf_i_planned *buffer, packbuf_i_mark *mark, uint64_t byte) {
  uint64_t element = buffer->dtype.bits / 8u;
  for (; mark->row < buffer->node->rows; mark->row++) {
    uint64_t size = packbuf_i_extent(buffer->node, mark->row) * element;
    if (size > byte - mark->sum) break;
    mark->sum += size;
  }
  mark->skip = byte - mark->sum;
}

/* 1 when a place in the buffer is found row by row. */
static int packbuf_i_by_rows(const packbuf_i_planned *buffer) {
  const packbuf_i_node *node = buffer->node;
  if (buffer->role != PACKBUF_ROLE_DATA || node->codec == PACKBUF_CODEC_NDARRAY ||
      node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
    return 0;
  return node->source != PACKBUF_I_FROM_RAGGED || !packbuf_i_end_to_end(node);
}

static void packbuf_i_mark_data(const packbuf_i_planned *buffer, packbuf_i_mark *mark, uint64_t byte) {
  const packbuf_i_node *node = buffer->node;
  mark->skip = byte;
  if (packbuf_i_by_rows(buffer)) packbuf_i_mark_row(buffer, mark, byte);
  if (node->codec != PACKBUF_CODEC_MEDIA_LIST_RAGGED) return;
  packbuf_i_mark_item(node, mark, UINT64_MAX, byte);
  mark->skip = byte - mark->sum;
}

/* Moves a mark of the buffer on to byte `byte`, which is not before it; outside of data a multiple of 8. */
static void packbuf_i_mark_to(const packbuf_i_planned *buffer, packbuf_i_mark *mark, uint64_t byte) {
  int items = buffer->node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  switch (buffer->role) {
    case PACKBUF_ROLE_DATA: packbuf_i_mark_data(buffer, mark, byte); return;
    case PACKBUF_ROLE_VALIDITY:
    case PACKBUF_ROLE_MISSING: mark->row = byte * 8; return;
    case PACKBUF_ROLE_NDIMS: mark->row = byte; return;
    case PACKBUF_ROLE_TYPES:
      if (items) packbuf_i_mark_item(buffer->node, mark, byte, UINT64_MAX);
      else mark->row = byte;
      return;
    case PACKBUF_ROLE_OFFSETS:
      if (items && byte) packbuf_i_mark_item(buffer->node, mark, byte / 8 - 1, UINT64_MAX);
      else packbuf_i_mark_offset(buffer, mark, byte / 8);
      break;
    case PACKBUF_ROLE_ITEM_OFFSETS: packbuf_i_mark_offset(buffer, mark, byte / 8); break;
    default: mark->row = byte / 8; return;
  }
  mark->skip = byte; /* tells the first element, which no row has, from the others */
}

/* ---- a pull that starts at a mark ---- */

static uint64_t packbuf_i_seek_dense(packbuf_i_pull *pull, uint64_t byte) {
  const packbuf_tensor *tensor = pull->node->tensors;
  uint64_t cell = packbuf_i_dense_cell_bytes(tensor);
  if (!pull->node->bitmap && !pull->node->kept) {
    packbuf_i_walk_start(&pull->walk, tensor->data, tensor->rank, tensor->shape, tensor->strides,
                         packbuf_i_dtype_bytes(tensor->dtype));
    pull->walking = 1;
    return packbuf_i_walk_seek(&pull->walk, byte);
  }
  pull->row = byte / cell;
  if (packbuf_i_state(pull->node, pull->row) <= 0) {
    pull->at = byte % cell;
    return 0;
  }
  packbuf_i_start_dense_row(pull, pull->row++, cell);
  pull->walking = 1;
  return packbuf_i_walk_seek(&pull->walk, byte % cell);
}

/* Inside a row that is an array. */
static uint64_t packbuf_i_seek_row(packbuf_i_pull *pull, uint64_t byte) {
  const packbuf_i_node *node = pull->node;
  if (node->source == PACKBUF_I_FROM_RAGGED) {
    packbuf_i_start_offset_row(pull, pull->row++);
  } else {
    const packbuf_tensor *tensor = packbuf_i_row_tensor(node, pull->row);
    if (!tensor->strides) return byte; /* one run */
    packbuf_i_walk_start(&pull->walk, tensor->data, tensor->rank, tensor->shape, tensor->strides,
                         packbuf_i_dtype_bytes(tensor->dtype));
    pull->row++;
  }
  pull->walking = 1;
  return packbuf_i_walk_seek(&pull->walk, byte);
}

static uint64_t packbuf_i_seek_data(packbuf_i_pull *pull, const packbuf_i_planned *buffer, const packbuf_i_mark *mark) {
  const packbuf_i_node *node = pull->node;
  uint64_t element = buffer->dtype.bits / 8u;
  if (node->source == PACKBUF_I_FROM_TENSOR) return packbuf_i_seek_dense(pull, mark->skip);
  if (node->codec == PACKBUF_CODEC_NDARRAY) {
    pull->row = mark->skip / element;
    return mark->skip % element;
  }
  if (node->source == PACKBUF_I_FROM_RAGGED && packbuf_i_end_to_end(node)) return mark->skip;
  pull->row = mark->row;
  pull->at = mark->item;
  if (!packbuf_i_ragged_numbers(node->codec) || !mark->skip) return mark->skip;
  if (node->source == PACKBUF_I_FROM_CELLS && packbuf_i_cell(&node->cells, mark->row)->kind != PACKBUF_TENSOR) {
    pull->at = mark->skip / element;
    return mark->skip % element;
  }
  return packbuf_i_seek_row(pull, mark->skip);
}

/* 1 when the rows have changed since the mark was set, so that it lies outside of them. */
static int packbuf_i_mark_gone(const packbuf_i_planned *buffer, const packbuf_i_mark *mark) {
  const packbuf_i_node *node = buffer->node;
  if (mark->row >= node->rows) return mark->row > 0;
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) return mark->item > packbuf_i_item_count(node, mark->row);
  return packbuf_i_by_rows(buffer) && mark->skip &&
         mark->skip >= packbuf_i_extent(node, mark->row) * (buffer->dtype.bits / 8u);
}

/* Starts a pull at a mark that is no later than the buffer's end; returns how many bytes of its first runs come before
 * it. */
static uint64_t packbuf_i_pull_seek(packbuf_i_pull *pull, const packbuf_i_planned *buffer, const packbuf_i_mark *mark) {
  packbuf_i_pull_start(pull, buffer->node, buffer->role, buffer->dim);
  if (packbuf_i_mark_gone(buffer, mark)) {
    pull->row = buffer->node->rows;
    return 0;
  }
  if (buffer->role == PACKBUF_ROLE_DATA) return packbuf_i_seek_data(pull, buffer, mark);
  pull->row = mark->row;
  pull->at = mark->item;
  pull->sum = mark->sum;
  if (buffer->role == PACKBUF_ROLE_OFFSETS && buffer->node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
    pull->walking = mark->skip != 0;
  else if (buffer->role == PACKBUF_ROLE_OFFSETS || buffer->role == PACKBUF_ROLE_ITEM_OFFSETS)
    pull->at = mark->skip != 0;
  return 0;
}
