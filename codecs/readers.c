/* codecs/readers.c: the table of the codecs' reading halves; null, which has no bytes at all, is read here.
 * May use: every reading half. Must not know: anything else. */

static packbuf_status packbuf_i_null_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  (void)cells, (void)row; /* no cell is present */
  *value = packbuf_null();
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_nothing(const packbuf_column *c, packbuf_error *error) {
  (void)c, (void)error; /* no rule of its own */
  return PACKBUF_OK;
}

static const packbuf_i_codec_reader *packbuf_i_codec_reader_of(unsigned codec) {
  static const packbuf_i_codec_reader readers[PACKBUF_I_LAST_CODEC + 1] = {
      {NULL, packbuf_i_null_read, packbuf_i_nothing, packbuf_i_nothing}, /* no codec: never asked for */
      {NULL, packbuf_i_null_read, packbuf_i_nothing, packbuf_i_nothing},
      {packbuf_i_ndarray_begin, packbuf_i_ndarray_read, packbuf_i_ndarray_index, packbuf_i_ndarray_data},
      {NULL, packbuf_i_ragged_read, packbuf_i_ragged_index, packbuf_i_ragged_data},
      {NULL, packbuf_i_ragged_read, packbuf_i_ragged_index, packbuf_i_ragged_data},
      {NULL, packbuf_i_bytes_read, packbuf_i_runs_index, packbuf_i_nothing},
      {packbuf_i_media_begin, packbuf_i_media_read, packbuf_i_runs_index, packbuf_i_nothing},
      {packbuf_i_media_begin, packbuf_i_media_list_read, packbuf_i_media_list_index, packbuf_i_nothing},
      {NULL, packbuf_i_utf8_read, packbuf_i_runs_index, packbuf_i_text_data},
      {NULL, packbuf_i_parsed_read, packbuf_i_runs_index, packbuf_i_text_data},
      {NULL, packbuf_i_parsed_read, packbuf_i_runs_index, packbuf_i_text_data},
      {NULL, packbuf_i_opaque_read, packbuf_i_runs_index, packbuf_i_nothing},
  };
  return &readers[codec <= PACKBUF_I_LAST_CODEC ? codec : 0];
}
