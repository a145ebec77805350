/* exchange/lend.c: what an export may ask for, where the elements of a chosen leaf lie in the packed buffer, for those
 * who take them in place, and the walk over chosen nodes.
 * May use: packbuf.h, select. Must not know: Arrow, DLPack. */

/* What every export wants: a selection, known flags, and a node, if any, that is chosen whole. */
static packbuf_status packbuf_i_check_export(const packbuf_export *what, const void *out, packbuf_error *error) {
  const packbuf_selection *selection = what ? what->selection : NULL;
  if (!selection || !out ||
      (what->flags &
       ~(unsigned)(PACKBUF_EXPORT_COPY | PACKBUF_EXPORT_NO_COPY | PACKBUF_EXPORT_VERIFIED | PACKBUF_EXPORT_CELL)) != 0)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "selection or out is NULL, or a flag is unknown",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (what->node != PACKBUF_NO_NODE && (what->node >= selection->view->node_count || selection->flags[what->node] != 2))
    return packbuf_i_fail(error, PACKBUF_NOT_FOUND, "the selection has not the node", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* Elements `first` to `first + count` of data are those of the chosen rows; row i ends where offsets[i + 1] says (NULL:
 * dense). */
typedef struct packbuf_i_lent {
  const uint8_t *data; /* of element 0 */
  const uint8_t *offsets;
  uint64_t first, count;
} packbuf_i_lent;

static uint64_t packbuf_i_lent_offset(const packbuf_i_lent *lent, uint64_t i) {
  uint64_t offset;
  memcpy(&offset, lent->offsets + 8 * i, 8);
  return offset;
}

/* OK, or why they have to be copied. */
static packbuf_status packbuf_i_lend(const packbuf_export *what, uint32_t node, int dense, packbuf_i_lent *lent) {
  const packbuf_selection *selection = what->selection;
  packbuf_status status = PACKBUF_NOT_STORED;
  memset(lent, 0, sizeof *lent);
  if (what->flags & PACKBUF_EXPORT_COPY) return status;
  if (dense) {
    packbuf_selected_tensor tensor;
    if (selection->step != 1 && selection->rows > 1) return status;
    status = packbuf_select_tensor(selection, node, &tensor, NULL);
    if (status != PACKBUF_OK) return status;
    lent->data = (const uint8_t *)tensor.tensor.data;
    return packbuf_i_product(tensor.shape, tensor.tensor.rank, &lent->count) ? PACKBUF_OK : PACKBUF_LIMIT;
  } else {
    packbuf_ragged ragged;
    uint64_t end;
    status = packbuf_select_ragged(selection, node, &ragged, NULL);
    if (status != PACKBUF_OK) return status;
    lent->data = (const uint8_t *)ragged.data;
    lent->offsets = (const uint8_t *)ragged.offsets;
    lent->first = packbuf_i_lent_offset(lent, 0);
    end = packbuf_i_lent_offset(lent, selection->rows);
    if (lent->first > end || end > ragged.items) return PACKBUF_BAD_OFFSETS; /* the copy will say where */
    lent->count = end - lent->first;
    return PACKBUF_OK;
  }
}

/* Whether offsets ascend. */
static int packbuf_i_lent_ascends(const packbuf_i_lent *lent, uint64_t rows) {
  uint64_t before = lent->first, falls = 0;
  for (uint64_t i = 1; i <= rows; i++) {
    const uint64_t offset = packbuf_i_lent_offset(lent, i);
    falls |= offset < before;
    before = offset;
  }
  return !falls;
}

/* The chosen nodes below `parent` (PACKBUF_NO_NODE: at the top), one after the other. */
typedef struct packbuf_i_below {
  const packbuf_selection *selection;
  uint32_t next, end; /* node indexes */
} packbuf_i_below;

static packbuf_i_below packbuf_i_chosen_below(const packbuf_selection *selection, const packbuf_node *parent) {
  packbuf_i_below below;
  below.selection = selection;
  below.next = parent ? parent->index + 1 : 0;
  below.end = parent ? parent->index + 1 + parent->descendants : selection->view->node_count;
  return below;
}

/* OK with the node; NOT_FOUND after the last. `skipped`: also those that are not chosen. */
static packbuf_status packbuf_i_next_below(packbuf_i_below *below, int skipped, packbuf_node *node,
                                           packbuf_error *error) {
  while (below->next < below->end) {
    const packbuf_status status = packbuf_get_node(below->selection->view, below->next, node, error);
    if (status != PACKBUF_OK) return status;
    below->next = node->index + 1 + node->descendants;
    if (skipped || below->selection->flags[node->index]) return PACKBUF_OK;
  }
  return PACKBUF_NOT_FOUND;
}

/* How many there are. */
static packbuf_status packbuf_i_count_below(packbuf_i_below below, int skipped, uint32_t *count, packbuf_error *error) {
  packbuf_node node;
  packbuf_status status;
  for (*count = 0; (status = packbuf_i_next_below(&below, skipped, &node, error)) == PACKBUF_OK;) (*count)++;
  return status == PACKBUF_NOT_FOUND ? PACKBUF_OK : status;
}
