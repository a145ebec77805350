/* core/pull.c: the elements of a buffer that is to be written, as a sequence of runs: stretches of the caller's
 * memory, or pieces computed into a scratch. Measuring, choosing a storage, comparing and writing all pull the same
 * runs, so they cannot disagree. Codecs fill in the data (codecs/), this room the rest.
 * May use: columns, batch (offsets as the caller gave them). Must not know: where the bytes go. */

#define PACKBUF_I_SCRATCH 4096

/* Two words, so that it travels in registers: rows are short, and every store between two of them waits behind the
 * copy. */
typedef struct packbuf_i_run {
  const uint8_t *bytes;
  uint64_t size; /* 0: the end */
} packbuf_i_run;

/* A walk over a strided array in row-major order: the inner dimensions that lie side by side are one run, the outer
 * ones an odometer. */
typedef struct packbuf_i_walk {
  const uint8_t *at;
  uint64_t run, left; /* bytes of a run; runs to go */
  unsigned outer;
  int once; /* 1: who only asks which elements there are walks a dimension of stride 0 once */
  uint64_t shape[PACKBUF_MAX_RANK], index[PACKBUF_MAX_RANK];
  int64_t strides[PACKBUF_MAX_RANK];
} packbuf_i_walk;

typedef struct packbuf_i_pull {
  const packbuf_i_node *node;
  uint8_t role, dim;
  uint8_t walking;              /* inside a cell's array */
  uint64_t row, at;             /* next row; next element or byte inside it */
  uint64_t sum;                 /* running offset */
  packbuf_status status;        /* of a device's copy hook */
  const packbuf_device *device; /* where the last run's bytes are; NULL: host memory */
  const uint8_t *ahead;         /* where the run after it will probably be; NULL: unknown */
  packbuf_i_run taken;          /* all elements, pulled before; no bytes: not yet */
  packbuf_i_walk walk;
  uint8_t scratch[PACKBUF_I_SCRATCH];
} packbuf_i_pull;

static uint64_t packbuf_i_walk_count(const packbuf_i_walk *walk, uint64_t count, int64_t stride) {
  return walk->once && count && !stride ? 1 : count;
}

static void packbuf_i_walk_start(packbuf_i_walk *walk, const void *data, unsigned rank, const uint64_t *shape,
                                 const int64_t *strides, uint64_t element) {
  unsigned d = rank;
  walk->at = (const uint8_t *)data;
  walk->run = element;
  walk->left = 1;
  while (d > 0) {
    uint64_t count = strides ? packbuf_i_walk_count(walk, shape[d - 1], strides[d - 1]) : shape[d - 1];
    if (strides && count != 1 && (strides[d - 1] < 0 || (uint64_t)strides[d - 1] != walk->run)) break;
    walk->run *= count;
    d--;
  }
  walk->outer = d;
  for (unsigned i = 0; i < d; i++) {
    walk->shape[i] = packbuf_i_walk_count(walk, shape[i], strides[i]);
    walk->strides[i] = strides[i];
    walk->index[i] = 0;
    walk->left *= walk->shape[i];
  }
  if (walk->run == 0) walk->left = 0;
}

static const uint8_t *packbuf_i_walk_next(packbuf_i_walk *walk) {
  const uint8_t *here = walk->at;
  walk->left--;
  for (unsigned d = walk->outer; walk->left && d-- > 0;) {
    if (++walk->index[d] < walk->shape[d]) {
      walk->at += walk->strides[d];
      break;
    }
    walk->at -= walk->strides[d] * (int64_t)(walk->shape[d] - 1);
    walk->index[d] = 0;
  }
  return here;
}

/* Goes on `bytes` bytes from the start of a walk; returns how many of them lie in the next run. */
static uint64_t packbuf_i_walk_seek(packbuf_i_walk *walk, uint64_t bytes) {
  uint64_t runs = walk->run ? bytes / walk->run : 0;
  walk->left -= runs < walk->left ? runs : walk->left;
  if (!walk->left) return 0;
  bytes -= runs * walk->run;
  for (unsigned d = walk->outer; d-- > 0; runs /= walk->shape[d]) {
    walk->index[d] = runs % walk->shape[d];
    walk->at += walk->strides[d] * (int64_t)walk->index[d];
  }
  return bytes;
}

/* The next run of a walk; short runs of host memory are gathered into the scratch. */
static packbuf_i_run packbuf_i_walk_run(packbuf_i_pull *pull, const packbuf_device *device) {
  packbuf_i_walk *walk = &pull->walk;
  packbuf_i_run run;
  pull->device = device;
  if (device || walk->run > PACKBUF_I_SCRATCH / 8 || walk->left <= 1) {
    run.size = walk->left ? walk->run : 0;
    run.bytes = walk->left ? packbuf_i_walk_next(walk) : NULL;
    return run;
  }
  for (run.size = 0; walk->left && run.size + walk->run <= PACKBUF_I_SCRATCH; run.size += walk->run)
    memcpy(pull->scratch + run.size, packbuf_i_walk_next(walk), (size_t)walk->run);
  run.bytes = pull->scratch;
  return run;
}

static packbuf_i_run packbuf_i_scratch_run(packbuf_i_pull *pull, uint64_t size) {
  packbuf_i_run run;
  pull->device = NULL;
  run.bytes = pull->scratch;
  run.size = size;
  return run;
}

/* 1 value, 0 null, -1 missing. */
static int packbuf_i_state(const packbuf_i_node *node, uint64_t row) {
  if (node->bitmap && !(node->bitmap[row >> 3] >> (row & 7) & 1)) {
    const uint8_t *missing = node->source == PACKBUF_I_FROM_RAGGED ? node->ragged->missing : NULL;
    return missing ? -(missing[row >> 3] >> (row & 7) & 1) : 0;
  }
  switch (node->source) {
    case PACKBUF_I_FROM_CELLS: {
      uint8_t kind = packbuf_i_cell(&node->cells, row)->kind;
      return kind == PACKBUF_NULL ? 0 : kind == PACKBUF_MISSING ? -1 : 1;
    }
    case PACKBUF_I_FROM_TENSORS: return node->tensors[row].dtype.bits != 0;
    case PACKBUF_I_FROM_TEXT: return node->texts[row].data != NULL;
    default: return 1;
  }
}

/* The bytes of a dynamic cell or item that is stored as it lies there, none of an absent one; 0 when it is not. */
static int packbuf_i_cell_bytes(const packbuf_value *cell, packbuf_i_run *run) {
  run->bytes = NULL;
  run->size = 0;
  switch (cell->kind) {
    case PACKBUF_STRING:
    case PACKBUF_BYTES:
      run->bytes = (const uint8_t *)cell->as.text.data;
      run->size = cell->as.text.size;
      return 1;
    case PACKBUF_MEDIA:
      run->bytes = (const uint8_t *)cell->as.media->data;
      run->size = cell->as.media->size;
      return 1;
    case PACKBUF_OPAQUE:
      run->bytes = (const uint8_t *)cell->as.opaque->data;
      run->size = cell->as.opaque->size;
      return 1;
    case PACKBUF_NULL:
    case PACKBUF_MISSING: return 1;
    default: return 0;
  }
}

/* Rank and shape of a present cell of a ragged leaf. */
static unsigned packbuf_i_cell_dims(const packbuf_i_node *node, uint64_t row, uint64_t *shape) {
  const packbuf_tensor *tensor;
  if (node->source == PACKBUF_I_FROM_RAGGED) {
    const packbuf_ragged *r = node->ragged;
    shape[0] = packbuf_i_items(r, row);
    for (unsigned i = 0; i < r->item_rank; i++) shape[i + 1] = r->item_shape[i];
    return r->item_rank + 1u;
  }
  if (node->source == PACKBUF_I_FROM_CELLS) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (cell->kind == PACKBUF_LIST) return packbuf_i_list_shape(cell, shape);
    tensor = cell->as.tensor;
  } else {
    tensor = &node->tensors[row];
  }
  for (unsigned i = 0; i < tensor->rank; i++) shape[i] = tensor->shape[i];
  return tensor->rank;
}

/* Elements of one item of a ragged array. */
static uint64_t packbuf_i_item_elements(const packbuf_ragged *ragged) {
  uint64_t elements = 1;
  for (unsigned i = 0; i < ragged->item_rank; i++) elements *= ragged->item_shape[i];
  return elements;
}

/* Elements (bytes) of a cell in the data buffer of a leaf with offsets. 0 for an absent cell. */
static uint64_t packbuf_i_extent(const packbuf_i_node *node, uint64_t row) {
  uint64_t shape[PACKBUF_MAX_RANK], extent = 1;
  unsigned rank;
  if (packbuf_i_state(node, row) <= 0) return 0;
  if (node->source == PACKBUF_I_FROM_RAGGED)
    return packbuf_i_items(node->ragged, row) * packbuf_i_item_elements(node->ragged);
  if (node->sizes) return node->sizes[row];
  if (node->source == PACKBUF_I_FROM_TEXT) return node->texts[row].size;
  if (!packbuf_i_ragged_numbers(node->codec)) {
    packbuf_i_run run;
    (void)packbuf_i_cell_bytes(packbuf_i_cell(&node->cells, row), &run);
    return run.size;
  }
  rank = packbuf_i_cell_dims(node, row, shape);
  for (unsigned i = 0; i < rank; i++) extent *= shape[i];
  return extent;
}

static uint64_t packbuf_i_item_count(const packbuf_i_node *node, uint64_t row) {
  const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
  return cell->kind == PACKBUF_LIST ? cell->as.list.count : 0;
}

static uint64_t packbuf_i_item_size(const packbuf_value *item) {
  return item->kind == PACKBUF_MEDIA ? item->as.media->size : item->as.text.size;
}

/* Ragged rows that the caller's offsets alone describe. */
static int packbuf_i_offsets_only(const packbuf_i_node *node) {
  return node->source == PACKBUF_I_FROM_RAGGED && !node->bitmap && !node->ragged->lengths;
}

/* The offsets of a ragged array whose rows are all present, from byte `size` of the scratch on; returns where they
 * end. */
static uint64_t packbuf_i_pull_offsets(packbuf_i_pull *pull, uint64_t size) {
  const packbuf_ragged *ragged = pull->node->ragged;
  const uint64_t each = packbuf_i_item_elements(ragged);
  for (; size < PACKBUF_I_SCRATCH && pull->row < pull->node->rows; size += 8) {
    pull->sum += packbuf_i_items(ragged, pull->row++) * each;
    packbuf_i_store64(pull->scratch + size, pull->sum);
  }
  return size;
}

/* The caller's offsets, where they are those that are stored: from 0 on, of 64 bits, all rows present. */
static const uint8_t *packbuf_i_given_offsets(const packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  return pull->role == PACKBUF_ROLE_OFFSETS && packbuf_i_offsets_only(node) && node->ragged->offset_bits == 64 &&
                 packbuf_i_item_elements(node->ragged) == 1 && packbuf_i_first_item(node->ragged, 0) == 0
             ? (const uint8_t *)node->ragged->offsets
             : NULL;
}

/* The numbers of a role that sharing has worked out; NULL for the others. */
static const uint64_t *packbuf_i_shared_numbers(const packbuf_i_pull *pull) {
  switch (pull->role) {
    case PACKBUF_ROLE_ROW_INDEX: return pull->node->row_index;
    case PACKBUF_ROLE_PREFIX_ROW: return pull->node->prefix_row;
    case PACKBUF_ROLE_PREFIX_LENGTH: return pull->node->prefix_length;
    default: return NULL;
  }
}

/* `number` for each row from pull->row on that is known to have no value, from byte `size` of the scratch on; returns
 * where they end. */
static uint64_t packbuf_i_pull_absent(packbuf_i_pull *pull, uint64_t size, uint64_t number) {
  const uint64_t next = packbuf_i_next_cell(&pull->node->cells, pull->row);
  for (; size < PACKBUF_I_SCRATCH && pull->row < next; size += 8, pull->row++)
    packbuf_i_store64(pull->scratch + size, number);
  return size;
}

/* One u64 per row (offsets: rows + 1, the first 0): those that lie in memory as they are written all together, else as
 * many as the scratch holds. */
static packbuf_i_run packbuf_i_pull_u64(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  const uint64_t *numbers = packbuf_i_shared_numbers(pull);
  const uint8_t *given = packbuf_i_given_offsets(pull);
  int running = pull->role == PACKBUF_ROLE_OFFSETS || pull->role == PACKBUF_ROLE_ITEM_OFFSETS;
  uint64_t size = 0, shape[PACKBUF_MAX_RANK];
  if ((numbers || given) && !packbuf_i_big_endian()) {
    const uint64_t next = given ? pull->row + pull->at : pull->row;
    packbuf_i_run run;
    run.bytes = (given ? given : (const uint8_t *)numbers) + 8 * next;
    run.size = (node->rows + (given != NULL) - next) * 8;
    pull->row = node->rows;
    pull->at = 1;
    pull->device = NULL;
    return run;
  }
  if (running && pull->at == 0) {
    packbuf_i_store64(pull->scratch, 0);
    pull->at = 1;
    size = 8;
  }
  if (pull->role == PACKBUF_ROLE_OFFSETS && node->source == PACKBUF_I_FROM_RAGGED && !node->bitmap)
    size = packbuf_i_pull_offsets(pull, size);
  for (; size < PACKBUF_I_SCRATCH && pull->row < node->rows; size += 8, pull->row++) {
    uint64_t number = 0;
    if (!numbers) size = packbuf_i_pull_absent(pull, size, running ? pull->sum : 0);
    if (size == PACKBUF_I_SCRATCH || pull->row == node->rows) break;
    switch (pull->role) {
      case PACKBUF_ROLE_OFFSETS: number = pull->sum += packbuf_i_extent(node, pull->row); break;
      case PACKBUF_ROLE_ITEM_OFFSETS: number = pull->sum += packbuf_i_item_count(node, pull->row); break;
      case PACKBUF_ROLE_LENGTHS: number = packbuf_i_item_count(node, pull->row); break;
      case PACKBUF_ROLE_ROW_INDEX:
      case PACKBUF_ROLE_PREFIX_ROW:
      case PACKBUF_ROLE_PREFIX_LENGTH: number = numbers[pull->row]; break;
      default:
        if (packbuf_i_state(node, pull->row) > 0) {
          unsigned rank = packbuf_i_cell_dims(node, pull->row, shape);
          number = pull->dim < rank ? shape[pull->dim] : 0;
        }
    }
    packbuf_i_store64(pull->scratch + size, number);
  }
  return packbuf_i_scratch_run(pull, size);
}

/* The byte offsets of the items of a media list. */
static packbuf_i_run packbuf_i_pull_item_bytes(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  uint64_t size = 0;
  if (!pull->walking) {
    packbuf_i_store64(pull->scratch, 0);
    pull->walking = 1;
    size = 8;
  }
  while (size < PACKBUF_I_SCRATCH && pull->row < node->rows) {
    if (pull->at == packbuf_i_item_count(node, pull->row)) {
      pull->row++;
      pull->at = 0;
      continue;
    }
    pull->sum += packbuf_i_item_size(&packbuf_i_cell(&node->cells, pull->row)->as.list.items[pull->at++]);
    packbuf_i_store64(pull->scratch + size, pull->sum);
    size += 8;
  }
  return packbuf_i_scratch_run(pull, size);
}

static uint8_t packbuf_i_item_type(const packbuf_i_node *node, const packbuf_value *item) {
  unsigned form = item->kind == PACKBUF_MEDIA ? PACKBUF_FORM_MEDIA : PACKBUF_FORM_BYTES;
  return form == node->form ? 0 : (uint8_t)(form << 4);
}

/* One byte per row (ndims, types) or per item (types of a media list). */
static packbuf_i_run packbuf_i_pull_u8(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  uint64_t size = 0, shape[PACKBUF_MAX_RANK];
  while (size < PACKBUF_I_SCRATCH && pull->row < node->rows) {
    const packbuf_value *cell = node->source == PACKBUF_I_FROM_CELLS ? packbuf_i_cell(&node->cells, pull->row) : NULL;
    if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) {
      if (pull->at == packbuf_i_item_count(node, pull->row)) {
        pull->row++;
        pull->at = 0;
      } else {
        pull->scratch[size++] = packbuf_i_item_type(node, &cell->as.list.items[pull->at++]);
      }
      continue;
    }
    if (packbuf_i_state(node, pull->row) <= 0) pull->scratch[size] = 0;
    else if (pull->role == PACKBUF_ROLE_NDIMS)
      pull->scratch[size] = (uint8_t)packbuf_i_cell_dims(node, pull->row, shape);
    else pull->scratch[size] = packbuf_i_cell_type(node, cell);
    size++;
    pull->row++;
  }
  return packbuf_i_scratch_run(pull, size);
}

/* The same of a column that has it as bitmaps, from a multiple of 64 rows on. */
static packbuf_i_run packbuf_i_pull_sparse_bits(packbuf_i_pull *pull) {
  const packbuf_i_sparse *sparse = pull->node->cells.sparse;
  uint64_t size = 0;
  for (; size < PACKBUF_I_SCRATCH && pull->row < pull->node->rows; size += 8, pull->row += 64) {
    const uint64_t word = pull->row >> 6, left = pull->node->rows - pull->row;
    uint64_t bits = sparse->there[word];
    if (pull->role == PACKBUF_ROLE_MISSING) bits = ~(bits | (sparse->nulls ? sparse->nulls[word] : 0));
    if (left < 64) bits &= ((uint64_t)1 << left) - 1;
    packbuf_i_store64(pull->scratch + size, bits);
    if (left < 64) {
      pull->row = pull->node->rows;
      size += (left + 7) / 8;
      break;
    }
  }
  return packbuf_i_scratch_run(pull, size);
}

/* The validity or missing bitmap. */
static packbuf_i_run packbuf_i_pull_bits(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  uint64_t size = 0;
  if (node->cells.sparse) return packbuf_i_pull_sparse_bits(pull);
  for (; size < PACKBUF_I_SCRATCH && pull->row < node->rows; size++) {
    unsigned byte = 0;
    for (unsigned bit = 0; bit < 8 && pull->row < node->rows; bit++, pull->row++) {
      int state = packbuf_i_state(node, pull->row);
      byte |= (unsigned)(pull->role == PACKBUF_ROLE_VALIDITY ? state > 0 : state < 0) << bit;
    }
    pull->scratch[size] = (uint8_t)byte;
  }
  return packbuf_i_scratch_run(pull, size);
}

static void packbuf_i_pull_start(packbuf_i_pull *pull, const packbuf_i_node *node, unsigned role, unsigned dim) {
  memset(pull, 0, offsetof(packbuf_i_pull, scratch));
  pull->node = node;
  pull->role = (uint8_t)role;
  pull->dim = (uint8_t)dim;
}
