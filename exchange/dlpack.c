/* exchange/dlpack.c: a column of numbers as a tensor of DLPack, and tensors of DLPack for batches.
 * May use: owned, lend. Must not know: Arrow. */

/* ---- out ---- */

/* A tensor, either struct of it, and its shape: all in the arena of `owned`. */
typedef struct packbuf_i_dlpack {
  packbuf_i_export_owned *owned;
  DLManagedTensorVersioned versioned;
  DLManagedTensor unversioned;
  int64_t shape[PACKBUF_MAX_RANK], strides[PACKBUF_MAX_RANK];
} packbuf_i_dlpack;

static void packbuf_i_delete_versioned(DLManagedTensorVersioned *self) {
  packbuf_i_disown(((packbuf_i_dlpack *)self->manager_ctx)->owned);
}

static void packbuf_i_delete_unversioned(DLManagedTensor *self) {
  packbuf_i_disown(((packbuf_i_dlpack *)self->manager_ctx)->owned);
}

/* Refuses the first chosen row that is null or missing. */
static packbuf_status packbuf_i_all_present(const packbuf_export *what, packbuf_column *column, packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  if (!packbuf_i_there(&column->validity)) return status;
  for (uint64_t i = 0; status == PACKBUF_OK && i < what->selection->rows; i++) {
    const uint64_t row = packbuf_selected_row(what->selection, i);
    int state = 0;
    status = packbuf_cell_state(column, row, &state, error);
    if (status == PACKBUF_OK && state != 1)
      status = packbuf_i_fail_node(what->selection->view, what->node, PACKBUF_NOT_NULLABLE,
                                   "a null or missing cell, which a tensor cannot say", row, error);
  }
  return status;
}

/* The shape that the elements get; strides are those of elements side by side. */
static packbuf_status packbuf_i_tensor_shape(const packbuf_export *what, const packbuf_column *column,
                                             const packbuf_selected_size *size, packbuf_i_dlpack *made, int32_t *rank,
                                             packbuf_error *error) {
  const packbuf_view *view = what->selection->view;
  uint64_t shape[PACKBUF_MAX_RANK + 1], step = 1;
  unsigned dims = 1;
  packbuf_status status = PACKBUF_OK;
  shape[0] = size->elements;
  if (what->flags & PACKBUF_EXPORT_CELL) {
    status = packbuf_cell_shape(column, packbuf_selected_row(what->selection, 0), &dims, shape, error);
  } else if (column->node.codec == PACKBUF_CODEC_NDARRAY) {
    dims = column->node.rank + 1u;
    shape[0] = size->rows;
    memcpy(shape + 1, column->node.shape, column->node.rank * sizeof *shape);
  }
  if (status != PACKBUF_OK) return status;
  if (dims > PACKBUF_MAX_RANK)
    return packbuf_i_fail_node(view, what->node, PACKBUF_WRONG_TYPE, "a tensor of 9 dimensions", PACKBUF_NOWHERE,
                               error);
  for (unsigned d = dims; d-- > 0;) {
    if (shape[d] > INT64_MAX || step > INT64_MAX)
      return packbuf_i_fail_node(view, what->node, PACKBUF_LIMIT, "a tensor of 2^63 elements or more", PACKBUF_NOWHERE,
                                 error);
    made->shape[d] = (int64_t)shape[d];
    made->strides[d] = (int64_t)step;
    if (!packbuf_i_mul(step, shape[d] ? shape[d] : 1, &step)) step = UINT64_MAX;
  }
  *rank = (int32_t)dims;
  return PACKBUF_OK;
}

/* Where the elements lie, a step of any size between rows; NULL: they have to be copied. */
static const uint8_t *packbuf_i_lend_tensor(const packbuf_export *what, const packbuf_column *column,
                                            packbuf_i_dlpack *made) {
  const packbuf_selection *selection = what->selection;
  const size_t element = column->node.dtype.bits / 8u;
  packbuf_i_lent lent;
  packbuf_selected_tensor tensor;
  if (what->flags & PACKBUF_EXPORT_COPY) return NULL;
  if (column->node.codec != PACKBUF_CODEC_NDARRAY)
    return packbuf_i_lend(what, what->node, 0, &lent) == PACKBUF_OK ? lent.data + lent.first * element : NULL;
  if (packbuf_select_tensor(selection, what->node, &tensor, NULL) != PACKBUF_OK) return NULL;
  if (!(what->flags & PACKBUF_EXPORT_CELL) && tensor.strides[0] != 0)
    made->strides[0] = tensor.strides[0] / (int64_t)element;
  return (const uint8_t *)tensor.tensor.data;
}

static packbuf_status packbuf_i_fill_tensor(const packbuf_export *what, packbuf_i_dlpack *made, packbuf_error *error) {
  DLTensor *tensor = &made->versioned.dl_tensor;
  const packbuf_view *view = what->selection->view;
  packbuf_column column;
  packbuf_selected_size size;
  packbuf_select_into into;
  packbuf_status status = packbuf_open_column(view, what->node, &column, error);
  if (status != PACKBUF_OK) return status;
  if (column.node.kind != PACKBUF_LEAF || !packbuf_i_numeric(column.node.codec))
    return packbuf_i_fail_node(view, what->node, PACKBUF_WRONG_TYPE, "not a column of numbers", PACKBUF_NOWHERE, error);
  if ((what->flags & PACKBUF_EXPORT_CELL) && what->selection->rows != 1)
    return packbuf_i_fail_node(view, what->node, PACKBUF_ROW_COUNT, "a cell is exported of one row", PACKBUF_NOWHERE,
                               error);
  status = packbuf_i_all_present(what, &column, error);
  if (status == PACKBUF_OK) status = packbuf_select_size(what->selection, what->node, &size, error);
  if (status == PACKBUF_OK) status = packbuf_i_tensor_shape(what, &column, &size, made, &tensor->ndim, error);
  if (status != PACKBUF_OK) return status;
  tensor->device.device_type = kDLCPU;
  tensor->dtype.code = column.node.dtype.code;
  tensor->dtype.bits = column.node.dtype.bits;
  tensor->dtype.lanes = 1;
  tensor->shape = made->shape;
  tensor->strides = made->strides;
  tensor->data = (void *)(uintptr_t)packbuf_i_lend_tensor(what, &column, made); /* READ_ONLY says what const said */
  made->versioned.flags = tensor->data ? DLPACK_FLAG_BITMASK_READ_ONLY : DLPACK_FLAG_BITMASK_IS_COPIED;
  if (tensor->data) return PACKBUF_OK;
  if (what->flags & PACKBUF_EXPORT_NO_COPY)
    return packbuf_i_fail_node(view, what->node, PACKBUF_NOT_STORED, packbuf_status_text(PACKBUF_NOT_STORED),
                               PACKBUF_NOWHERE, error);
  memset(&into, 0, sizeof into);
  into.data = packbuf_i_own_buffer(what, made->owned, size.data_bytes, 1);
  into.data_capacity = size.data_bytes;
  tensor->data = into.data;
  return into.data ? packbuf_select_copy(what->selection, what->node, &into, NULL, error) : packbuf_i_no_memory(error);
}

static packbuf_status packbuf_i_make_tensor(const packbuf_export *what, packbuf_i_dlpack **out, packbuf_error *error) {
  packbuf_i_dlpack *made;
  packbuf_i_export_owned *owned;
  packbuf_status status = packbuf_i_check_export(what, out, error);
  if (status != PACKBUF_OK) return status;
  if (what->node == PACKBUF_NO_NODE || (what->flags & PACKBUF_EXPORT_COPY && what->flags & PACKBUF_EXPORT_NO_COPY))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a tensor is one node, and copied or not", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  owned = packbuf_i_own(what);
  if (!owned) return packbuf_i_no_memory(error);
  made = (packbuf_i_dlpack *)packbuf_arena_alloc(&owned->arena, sizeof *made, 8);
  if (made) {
    memset(made, 0, sizeof *made);
    made->owned = owned;
    status = packbuf_i_fill_tensor(what, made, error);
  } else {
    status = packbuf_i_no_memory(error);
  }
  if (status != PACKBUF_OK) packbuf_i_disown(owned);
  *out = status == PACKBUF_OK ? made : NULL;
  return status;
}

PACKBUF_API packbuf_status packbuf_dlpack(const packbuf_export *what, DLManagedTensorVersioned **out,
                                          packbuf_error *error) {
  packbuf_i_dlpack *made = NULL;
  const packbuf_status status = packbuf_i_make_tensor(what, out ? &made : NULL, error);
  if (status != PACKBUF_OK) return status;
  made->versioned.version.major = 1; /* what is filled here is of 1.1, whatever dlpack.h came first */
  made->versioned.version.minor = 1;
  made->versioned.manager_ctx = made;
  made->versioned.deleter = packbuf_i_delete_versioned;
  *out = &made->versioned;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_dlpack_unversioned(const packbuf_export *what, DLManagedTensor **out,
                                                      packbuf_error *error) {
  packbuf_i_dlpack *made = NULL;
  packbuf_export as;
  packbuf_status status = packbuf_i_check_export(what, out, error);
  if (status != PACKBUF_OK) return status;
  as = *what;
  if (!(as.flags & PACKBUF_EXPORT_NO_COPY)) as.flags |= PACKBUF_EXPORT_COPY;
  status = packbuf_i_make_tensor(&as, &made, error);
  if (status != PACKBUF_OK) return status;
  made->unversioned.dl_tensor = made->versioned.dl_tensor;
  made->unversioned.manager_ctx = made;
  made->unversioned.deleter = packbuf_i_delete_unversioned;
  *out = &made->unversioned;
  return PACKBUF_OK;
}

/* ---- in ---- */

static packbuf_status packbuf_i_bad_tensor(packbuf_error *error, packbuf_status code, const char *message) {
  return packbuf_i_fail(error, code, message, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

/* Shape and strides, which are given in elements, checked: the memory between the first and the last byte of the tensor
 * is less than 2^62 bytes. */
static packbuf_status packbuf_i_take_shape(const DLTensor *from, size_t element, uint64_t *shape, int64_t *strides,
                                           int *empty, packbuf_error *error) {
  uint64_t reach = element, step = 1;
  *empty = 0;
  for (int32_t d = 0; d < from->ndim; d++) *empty |= from->shape[d] == 0;
  for (int32_t d = from->ndim; d-- > 0;) {
    const int64_t size = from->shape[d];
    const int64_t stride = from->strides ? from->strides[d] : step <= INT64_MAX ? (int64_t)step : INT64_MAX;
    const uint64_t distance = stride < 0 ? 0 - (uint64_t)stride : (uint64_t)stride;
    uint64_t span = 0;
    if (size < 0) return packbuf_i_bad_tensor(error, PACKBUF_INVALID_ARGUMENT, "a dimension below 0");
    shape[d] = (uint64_t)size;
    if (*empty || size == 1) { /* nothing is stepped over: the stride may be anything */
      strides[d] = 0;
      continue;
    }
    if (!packbuf_i_mul(distance, element, &span) || !packbuf_i_mul(span, (uint64_t)size - 1, &span) ||
        !packbuf_i_add(reach, span, &reach) || reach >> 62)
      return packbuf_i_bad_tensor(error, PACKBUF_INVALID_ARGUMENT, "strides that reach 2^62 bytes or more");
    strides[d] = stride * (int64_t)element;
    if (!packbuf_i_mul(step, (uint64_t)size, &step)) step = UINT64_MAX;
  }
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_dlpack_import(const DLTensor *from, packbuf_arena *arena, packbuf_tensor *tensor,
                                                 packbuf_error *error) {
  packbuf_dtype dtype;
  uint64_t *shape;
  int64_t *strides;
  int empty;
  packbuf_status status;
  if (!from || !arena || !tensor)
    return packbuf_i_bad_tensor(error, PACKBUF_INVALID_ARGUMENT, "a tensor and an arena must be given");
  dtype.code = from->dtype.code;
  dtype.bits = from->dtype.bits;
  dtype.lanes = from->dtype.lanes;
  if (from->device.device_type != kDLCPU && from->device.device_type != kDLCUDAHost &&
      from->device.device_type != kDLROCMHost)
    return packbuf_i_bad_tensor(error, PACKBUF_UNSUPPORTED_DEVICE, "a tensor of a device: copy it to the CPU first");
  if (!packbuf_dtype_name(dtype) || dtype.bits % 8)
    return packbuf_i_bad_tensor(error, PACKBUF_UNSUPPORTED_DTYPE, packbuf_status_text(PACKBUF_UNSUPPORTED_DTYPE));
  if (from->ndim < 0 || from->ndim > PACKBUF_MAX_RANK || (from->ndim > 0 && !from->shape))
    return packbuf_i_bad_tensor(error, PACKBUF_INVALID_ARGUMENT, "a tensor has 0 to 8 dimensions, and a shape");
  shape = (uint64_t *)packbuf_i_array(arena, PACKBUF_MAX_RANK, sizeof *shape);
  strides = (int64_t *)packbuf_i_array(arena, PACKBUF_MAX_RANK, sizeof *strides);
  if (!shape || !strides) return packbuf_i_no_memory(error);
  status = packbuf_i_take_shape(from, dtype.bits / 8u, shape, strides, &empty, error);
  if (status != PACKBUF_OK) return status;
  if (!empty && !from->data) return packbuf_i_bad_tensor(error, PACKBUF_INVALID_ARGUMENT, "data is NULL");
  memset(tensor, 0, sizeof *tensor);
  tensor->data = empty ? (const void *)"" : (const uint8_t *)from->data + from->byte_offset;
  tensor->dtype = dtype;
  tensor->rank = (uint8_t)from->ndim;
  tensor->form = PACKBUF_FORM_TENSOR;
  tensor->shape = shape;
  tensor->strides = strides;
  return PACKBUF_OK;
}
