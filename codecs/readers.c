/* codecs/readers.c: the table of the codecs' read halves.
 * May use: every read half. Must not know: anything else. */

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
