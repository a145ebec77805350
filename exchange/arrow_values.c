/* exchange/arrow_values.c: elements of checked arrays as values: what a column becomes that is no plain column of
 * numbers or text. Text and bytes stay where they are.
 * May use: arrow_words, arrow_type, arrow_check, arrow_numbers, value. Must not know: batches. */

/* Element i of an array of text or bytes, its offset added. OUT_OF_RANGE for a view that passes its block. */
static packbuf_status packbuf_i_arrow_bytes(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *array, uint64_t i, packbuf_text *bytes) {
  const uint8_t *at = (const uint8_t *)array->buffers[1];
  const uint8_t *sizes;
  int64_t begin, room;
  int32_t view[4];
  if (type->kind == PACKBUF_I_ARROW_BLOCK) {
    bytes->data = type->size ? (const char *)at + i * type->size : "";
    bytes->size = (size_t)type->size;
    return PACKBUF_OK;
  }
  if (type->kind == PACKBUF_I_ARROW_BYTES) {
    begin = packbuf_i_arrow_offset(type, array, i);
    bytes->size = (size_t)(packbuf_i_arrow_offset(type, array, i + 1) - begin);
    bytes->data = bytes->size ? (const char *)array->buffers[2] + begin : "";
    return PACKBUF_OK;
  }
  memcpy(view, at + 16 * i, 16); /* length; to 12 bytes the bytes, else a prefix, block, place */
  bytes->size = (size_t)view[0];
  bytes->data = (const char *)at + 16 * i + 4;
  if (view[0] >= 0 && view[0] <= 12) return PACKBUF_OK;
  sizes = (const uint8_t *)array->buffers[array->n_buffers - 1];
  if (view[0] < 0 || view[2] < 0 || view[2] >= array->n_buffers - 3 || view[3] < 0)
    return packbuf_i_refuse_arrow(in, type->path, PACKBUF_OUT_OF_RANGE, "a view of no block that there is",
                                  i - (uint64_t)array->offset);
  memcpy(&room, sizes + 8 * (size_t)view[2], 8);
  if ((int64_t)view[3] + view[0] > room || !array->buffers[2 + view[2]])
    return packbuf_i_refuse_arrow(in, type->path, PACKBUF_OUT_OF_RANGE, "a view that passes its block",
                                  i - (uint64_t)array->offset);
  bytes->data = (const char *)array->buffers[2 + view[2]] + view[3];
  return PACKBUF_OK;
}

/* A number below the top of a column: what a program calls an int or a float. */
static packbuf_value packbuf_i_arrow_number(packbuf_dtype dtype, const uint8_t *at) {
  packbuf_dtype raw = dtype;
  raw.code = PACKBUF_DTYPE_UINT;
  if (dtype.code == PACKBUF_DTYPE_INT) return packbuf_int((int64_t)packbuf_i_arrow_integer(at, dtype));
  if (dtype.code == PACKBUF_DTYPE_UINT) return packbuf_uint(packbuf_i_arrow_integer(at, dtype));
  return packbuf_float(packbuf_i_double(packbuf_i_widen_element(packbuf_i_arrow_integer(at, raw), dtype)));
}

static packbuf_status packbuf_i_bytes_value(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            packbuf_text bytes, packbuf_value *value) {
  packbuf_opaque *opaque;
  packbuf_media *media;
  packbuf_status status = PACKBUF_OK;
  switch (type->cell) {
    case PACKBUF_I_CELL_TEXT: *value = packbuf_string_n(bytes.data, bytes.size); break;
    case PACKBUF_I_CELL_JSON:
      status = packbuf_json_parse(bytes.data, bytes.size, 0, in->arena, value, in->error);
      break;
    case PACKBUF_I_CELL_MSGPACK:
      status = packbuf_msgpack_parse(bytes.data, bytes.size, 0, in->arena, value, in->error);
      break;
    case PACKBUF_I_CELL_OPAQUE:
      opaque = (packbuf_opaque *)packbuf_i_array(in->arena, 1, sizeof *opaque);
      if (!opaque) return packbuf_i_no_memory(in->error);
      opaque->data = bytes.data;
      opaque->size = bytes.size;
      opaque->serializer = type->serializer.data;
      opaque->serializer_size = type->serializer.size;
      *value = packbuf_opaque_value(opaque);
      break;
    case PACKBUF_I_CELL_MEDIA:
      media = (packbuf_media *)packbuf_i_array(in->arena, 1, sizeof *media);
      if (!media) return packbuf_i_no_memory(in->error);
      *media = packbuf_media_of(bytes.data, bytes.size, NULL);
      *value = packbuf_media_value(media);
      break;
    default: *value = packbuf_bytes(bytes.data, bytes.size); break;
  }
  if (status != PACKBUF_OK && in->error) packbuf_i_set_path(in->error, type->path, strlen(type->path));
  return status;
}

static packbuf_status packbuf_i_arrow_value(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *array, uint64_t i, packbuf_value *value);

/* Elements first to first + count of a child as a list. */
static packbuf_status packbuf_i_arrow_list(const packbuf_i_importer *in, const packbuf_i_arrow *item,
                                           const struct ArrowArray *child, uint64_t first, uint64_t count,
                                           packbuf_value *value) {
  packbuf_value *items = (packbuf_value *)packbuf_i_array(in->arena, count, sizeof *items);
  packbuf_status status = PACKBUF_OK;
  if (!items) return packbuf_i_no_memory(in->error);
  for (uint64_t k = 0; status == PACKBUF_OK && k < count; k++)
    status = packbuf_i_arrow_value(in, item, child, first + k, &items[k]);
  *value = packbuf_list(items, (size_t)count);
  return status;
}

/* Media that are structs of bytes and attributes. */
static packbuf_status packbuf_i_struct_media(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                             packbuf_value *value) {
  packbuf_media *media = (packbuf_media *)packbuf_i_array(in->arena, 1, sizeof *media);
  const packbuf_value *bytes = packbuf_dict_get(value, "bytes");
  if (!media) return packbuf_i_no_memory(in->error);
  if (!bytes || bytes->kind != PACKBUF_BYTES)
    return packbuf_i_refuse_type(in, type, PACKBUF_INVALID_ARGUMENT, "media without their bytes");
  *media = packbuf_media_of(bytes->as.text.data, bytes->as.text.size, NULL);
  for (size_t i = 0; i < value->as.dict.count; i++) {
    const packbuf_entry *entry = &value->as.dict.entries[i];
    const packbuf_text name = {entry->key.as.text.data, entry->key.as.text.size};
    for (unsigned attribute = 0; attribute < PACKBUF_I_ATTRIBUTES; attribute++)
      if (packbuf_i_text_is(name, packbuf_i_attribute_names[attribute]))
        packbuf_i_set_attribute(media, attribute, &entry->value);
  }
  *value = packbuf_media_value(media);
  return PACKBUF_OK;
}

/* The shape of a cell whose dimensions are elements of a list, and how many elements it has; BAD_SHAPE. */
static packbuf_status packbuf_i_given_shape(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *sizes, uint64_t i, packbuf_tensor *tensor,
                                            uint64_t *count) {
  uint64_t *shape = (uint64_t *)packbuf_i_array(in->arena, PACKBUF_MAX_RANK, sizeof *shape);
  packbuf_value list;
  packbuf_status status = packbuf_i_arrow_value(in, &type->children[1], sizes, i, &list);
  int fits = status == PACKBUF_OK && list.kind == PACKBUF_LIST && list.as.list.count <= PACKBUF_MAX_RANK;
  if (!shape) return packbuf_i_no_memory(in->error);
  *count = 1;
  for (size_t d = 0; fits && d < list.as.list.count; d++) {
    const packbuf_value *size = &list.as.list.items[d];
    fits = size->kind == PACKBUF_INT && size->as.i >= 0 && packbuf_i_mul(*count, (uint64_t)size->as.i, count);
    if (fits) shape[d] = (uint64_t)size->as.i;
  }
  if (!fits) return packbuf_i_refuse_arrow(in, type->path, PACKBUF_BAD_SHAPE, "a tensor without a shape", i);
  tensor->rank = (uint8_t)list.as.list.count;
  tensor->shape = shape;
  return PACKBUF_OK;
}

/* A struct of elements and shape as the tensor it was. */
static packbuf_status packbuf_i_shaped_value(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                             const struct ArrowArray *array, uint64_t i, packbuf_value *value) {
  const packbuf_i_arrow *lists = &type->children[0], *item = &lists->children[0];
  const struct ArrowArray *data = array->children[0];
  const uint64_t at = (uint64_t)data->offset + i, first = (uint64_t)packbuf_i_arrow_offset(lists, data, at);
  const uint64_t have = (uint64_t)packbuf_i_arrow_offset(lists, data, at + 1) - first;
  packbuf_tensor *tensor = (packbuf_tensor *)packbuf_i_array(in->arena, 1, sizeof *tensor);
  uint8_t *elements = (uint8_t *)packbuf_i_array(in->arena, have, packbuf_i_number_dtype(item).bits / 8u);
  uint64_t count;
  packbuf_status status;
  if (!tensor || !elements) return packbuf_i_no_memory(in->error);
  memset(tensor, 0, sizeof *tensor);
  status = packbuf_i_given_shape(in, type, array->children[1], i, tensor, &count);
  if (status != PACKBUF_OK) return status;
  if (count != have || !packbuf_i_none_null(data->children[0], first, have))
    return packbuf_i_refuse_arrow(in, type->path, PACKBUF_BAD_SHAPE, "a tensor of another shape than its elements", i);
  packbuf_i_copy_numbers(item, data->children[0], first, have, elements);
  tensor->data = elements;
  tensor->dtype = packbuf_i_number_dtype(item);
  tensor->form = type->form;
  *value = packbuf_tensor_value(tensor);
  return PACKBUF_OK;
}

/* A list whose items are the fields of a struct, by place, and their number the last. */
static packbuf_status packbuf_i_struct_list(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            packbuf_value *value) {
  const packbuf_value dict = *value, *length = &dict.as.dict.entries[dict.as.dict.count - 1].value;
  packbuf_value *items;
  if (length->kind != PACKBUF_INT || length->as.i < 0 || length->as.i > INT32_MAX)
    return packbuf_i_refuse_type(in, type, PACKBUF_INVALID_ARGUMENT, "a list by places without its length");
  items = (packbuf_value *)packbuf_i_array(in->arena, (uint64_t)length->as.i, sizeof *items);
  if (!items) return packbuf_i_no_memory(in->error);
  for (int64_t i = 0; i < length->as.i; i++) items[i] = packbuf_null();
  for (size_t i = 0; i + 1 < dict.as.dict.count; i++) {
    uint64_t place;
    if (packbuf_i_format_number(type->children[i].name.data, &place) && place < (uint64_t)length->as.i)
      items[place] = dict.as.dict.entries[i].value;
  }
  *value = packbuf_list(items, (size_t)length->as.i);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_arrow_struct(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                             const struct ArrowArray *array, uint64_t i, packbuf_value *value) {
  packbuf_entry *entries = (packbuf_entry *)packbuf_i_array(in->arena, (uint64_t)type->count, sizeof *entries);
  packbuf_status status = PACKBUF_OK;
  if (!entries) return packbuf_i_no_memory(in->error);
  for (int64_t k = 0; status == PACKBUF_OK && k < type->count; k++) {
    const packbuf_i_arrow *child = &type->children[k];
    entries[k].key = packbuf_string_n(child->name.data, child->name.size);
    status = packbuf_i_arrow_value(in, child, array->children[k], i, &entries[k].value);
  }
  *value = packbuf_dict(entries, (size_t)type->count);
  if (status != PACKBUF_OK || type->cell == PACKBUF_I_CELL_BYTES) return status;
  return type->cell == PACKBUF_I_CELL_PLACES ? packbuf_i_struct_list(in, type, value)
                                             : packbuf_i_struct_media(in, type, value);
}

static packbuf_status packbuf_i_complex_value(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                              const struct ArrowArray *child, uint64_t first, packbuf_value *value) {
  packbuf_tensor *tensor = (packbuf_tensor *)packbuf_i_array(in->arena, 1, sizeof *tensor);
  if (!tensor) return packbuf_i_no_memory(in->error);
  memset(tensor, 0, sizeof *tensor);
  tensor->data = (const uint8_t *)child->buffers[1] + ((uint64_t)child->offset + first) * (type->dtype.bits / 16u);
  tensor->dtype = type->dtype;
  tensor->form = PACKBUF_FORM_SCALAR;
  *value = packbuf_tensor_value(tensor);
  return PACKBUF_OK;
}

/* The value that an index names. */
static packbuf_status packbuf_i_arrow_entry(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *array, uint64_t at, packbuf_value *value) {
  const uint64_t entry =
      packbuf_i_arrow_integer((const uint8_t *)array->buffers[1] + at * (type->dtype.bits / 8u), type->dtype);
  if (entry >= (uint64_t)array->dictionary->length) /* below 0: beyond all */
    return packbuf_i_refuse_arrow(in, type->path, PACKBUF_OUT_OF_RANGE, "an index beyond its dictionary",
                                  at - (uint64_t)array->offset);
  return packbuf_i_arrow_value(in, &type->children[0], array->dictionary, entry, value);
}

/* Element i, counted from the array's offset. */
static packbuf_status packbuf_i_arrow_value(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *array, uint64_t i, packbuf_value *value) {
  const uint64_t at = (uint64_t)array->offset + i;
  packbuf_text bytes;
  int64_t begin;
  packbuf_status status;
  *value = packbuf_null();
  if (type->kind == PACKBUF_I_ARROW_NULL || !packbuf_i_arrow_valid(array, at)) return PACKBUF_OK;
  switch (type->kind) {
    case PACKBUF_I_ARROW_NUMBER:
      *value = packbuf_i_arrow_number(type->dtype, (const uint8_t *)array->buffers[1] + at * (type->dtype.bits / 8u));
      return PACKBUF_OK;
    case PACKBUF_I_ARROW_BOOL:
      *value = packbuf_bool(((const uint8_t *)array->buffers[1])[at / 8] >> at % 8 & 1);
      return PACKBUF_OK;
    case PACKBUF_I_ARROW_LIST:
      begin = packbuf_i_arrow_offset(type, array, at);
      return packbuf_i_arrow_list(in, &type->children[0], array->children[0], (uint64_t)begin,
                                  (uint64_t)(packbuf_i_arrow_offset(type, array, at + 1) - begin), value);
    case PACKBUF_I_ARROW_ROW:
      return packbuf_i_arrow_list(in, &type->children[0], array->children[0], at * type->size, type->size, value);
    case PACKBUF_I_ARROW_COMPLEX: return packbuf_i_complex_value(in, type, array->children[0], 2 * at, value);
    case PACKBUF_I_ARROW_STRUCT:
      return type->cell == PACKBUF_I_CELL_TENSOR ? packbuf_i_shaped_value(in, type, array, at, value)
                                                 : packbuf_i_arrow_struct(in, type, array, at, value);
    case PACKBUF_I_ARROW_DICTIONARY: return packbuf_i_arrow_entry(in, type, array, at, value);
    default:
      status = packbuf_i_arrow_bytes(in, type, array, at, &bytes);
      return status == PACKBUF_OK ? packbuf_i_bytes_value(in, type, bytes, value) : status;
  }
}
