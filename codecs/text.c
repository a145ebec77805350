/* codecs/text.c: reading and verifying the leaves whose bytes follow a grammar: utf8_ragged, json_ragged,
 * msgpack_ragged.
 * May use: utf8, the JSON and MessagePack parsers; access, cells, leaf. Must not know: media, numbers, the layout. */

static packbuf_status packbuf_i_utf8_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  const void *data = NULL;
  uint64_t first;
  size_t size, end;
  packbuf_status status = packbuf_i_cell_text(cells, row, &first, &data, &size);
  if (status == PACKBUF_OK) status = packbuf_i_may_check(cells->reader, size);
  if (status != PACKBUF_OK) return status;
  end = packbuf_i_utf8_valid((const uint8_t *)data, size);
  if (end < size)
    return packbuf_i_broken_read(cells, PACKBUF_RULE_D6,
                                 packbuf_i_element_at(cells->column->view, &cells->column->data, first + end), row);
  *value = packbuf_string_n((const char *)data, size);
  return PACKBUF_OK;
}

/* A parser's complaint about a cell as the rule it breaks. text_at: where in the packed buffer the cell lies; computed:
 * all its bytes stand at one place. */
static packbuf_status packbuf_i_parse_failed(const packbuf_column *c, packbuf_status status, uint64_t at_in_text,
                                             uint64_t first, uint64_t row, packbuf_error *error) {
  const packbuf_rule rule = c->node.codec == PACKBUF_CODEC_JSON_RAGGED ? PACKBUF_RULE_D7 : PACKBUF_RULE_D8;
  const uint64_t at = packbuf_i_element_at(c->view, &c->data, first);
  if (status == PACKBUF_DEPTH || status == PACKBUF_LIMIT)
    return packbuf_i_broken_cell(c, PACKBUF_RULE_D9, at, row, error);
  return packbuf_i_broken_cell(
      c, rule, !packbuf_i_computed(&c->data) && at_in_text != PACKBUF_NOWHERE ? at + at_in_text : at, row, error);
}

static packbuf_status packbuf_i_parsed_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  const packbuf_column *c = cells->column;
  const packbuf_limits *limits = &c->view->limits;
  packbuf_error inner;
  const void *data = NULL;
  uint64_t first = 0, count = 0;
  size_t size;
  packbuf_status status = packbuf_i_cell_run(c, row, &first, &count, cells->reader->error);
  if (status != PACKBUF_OK) return status;
  if (count > limits->cell_bytes)
    return packbuf_i_broken_read(cells, PACKBUF_RULE_D9, packbuf_i_element_at(c->view, &c->data, first), row);
  status = packbuf_i_cell_text(cells, row, &first, &data, &size);
  if (status == PACKBUF_OK) status = packbuf_i_may_check(cells->reader, size);
  if (status != PACKBUF_OK) return status;
  inner.offset = 0;
  status =
      c->node.codec == PACKBUF_CODEC_JSON_RAGGED
          ? packbuf_i_json_decode((const uint8_t *)data, size, limits->cell_depth, cells->reader->arena, value, &inner)
          : packbuf_i_msgpack_decode((const uint8_t *)data, size, limits->cell_depth, cells->reader->arena, value,
                                     &inner);
  if (status == PACKBUF_OUT_OF_MEMORY) return packbuf_i_no_room(cells->reader, size + 16); /* about what it asked for */
  if (status == PACKBUF_OK && value->kind == PACKBUF_NULL) inner.offset = 0, status = PACKBUF_BAD_JSON;
  return status == PACKBUF_OK ? status
                              : packbuf_i_parse_failed(c, status, inner.offset, first, row, cells->reader->error);
}

/* D6. Text of one repeated byte: one that is not ASCII is never UTF-8. */
static packbuf_status packbuf_i_utf8_cell(const packbuf_column *c, uint64_t row, uint64_t first, uint64_t count,
                                          packbuf_error *error) {
  uint64_t end = count;
  if (c->data.bytes) end = packbuf_i_utf8_valid(c->data.bytes + first, (size_t)count);
  else if (c->data.value[0] > 0x7F) end = 0;
  return end == count ? PACKBUF_OK
                      : packbuf_i_broken_cell(c, PACKBUF_RULE_D6, packbuf_i_element_at(c->view, &c->data, first + end),
                                              row, error);
}

/* D7 and D8 for a cell of `count` times one byte, which may be too long to be written out: JSON can only be the digits
 * of an integer, and beyond a few bytes MessagePack only a bin 16 or bin 32 whose every byte, length included, is its
 * type byte. */
static packbuf_status packbuf_i_check_repeated(int json, uint8_t byte, uint64_t count, unsigned depth,
                                               packbuf_error *inner) {
  uint8_t text[256];
  inner->offset = 0;
  if (json && count > 1) return byte >= '1' && byte <= '9' ? PACKBUF_OK : PACKBUF_BAD_JSON;
  if (count > sizeof text) {
    const int bin =
        (byte == 0xC5 && count == 3 + UINT64_C(0xC5C5)) || (byte == 0xC6 && count == 5 + UINT64_C(0xC6C6C6C6));
    return bin ? PACKBUF_OK : PACKBUF_BAD_MSGPACK;
  }
  memset(text, byte, (size_t)count);
  return json ? packbuf_i_json_check(text, count, depth, 1, inner)
              : packbuf_i_msgpack_check(text, count, depth, 1, inner);
}

/* D7, D8, and D9 for the cell. */
static packbuf_status packbuf_i_parsed_cell(const packbuf_column *c, uint64_t row, uint64_t first, uint64_t count,
                                            packbuf_error *error) {
  const packbuf_limits *limits = &c->view->limits;
  const int json = c->node.codec == PACKBUF_CODEC_JSON_RAGGED;
  packbuf_error inner;
  packbuf_status status;
  if (count > limits->cell_bytes)
    return packbuf_i_broken_cell(c, PACKBUF_RULE_D9, packbuf_i_element_at(c->view, &c->data, first), row, error);
  inner.offset = 0;
  if (c->data.bytes == NULL)
    status = packbuf_i_check_repeated(json, c->data.value[0], count, limits->cell_depth, &inner);
  else if (json) status = packbuf_i_json_check(c->data.bytes + first, count, limits->cell_depth, 1, &inner);
  else status = packbuf_i_msgpack_check(c->data.bytes + first, count, limits->cell_depth, 1, &inner);
  return status == PACKBUF_OK ? PACKBUF_OK : packbuf_i_parse_failed(c, status, inner.offset, first, row, error);
}

/* Every present cell. Where all is computed the cells are equal, and the first decides. */
static packbuf_status packbuf_i_text_data(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[3];
  packbuf_status status = PACKBUF_OK;
  uint64_t rows;
  with[0] = packbuf_i_all_equal(&c->offsets)
                ? NULL
                : &c->data; /* constant offsets: all cells are empty, whatever the data are */
  with[1] = &c->offsets, with[2] = &c->validity;
  if (!packbuf_i_readable(&c->offsets) || !packbuf_i_readable(&c->validity)) return PACKBUF_OK;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 3);
  for (uint64_t row = 0; status == PACKBUF_OK && row < rows; row++) {
    uint64_t first = 0, count = 0;
    if (!packbuf_i_present(c, row)) continue;
    status = packbuf_i_between(c, &c->offsets, row, c->data.count, row, &first, &count, error);
    if (status != PACKBUF_OK) break;
    status = c->node.codec == PACKBUF_CODEC_UTF8_RAGGED ? packbuf_i_utf8_cell(c, row, first, count, error)
                                                        : packbuf_i_parsed_cell(c, row, first, count, error);
  }
  return status;
}
