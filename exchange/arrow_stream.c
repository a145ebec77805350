/* exchange/arrow_stream.c: a stream of one array, which is made when the consumer asks for it.
 * May use: owned, lend, arrow_schema, arrow_export. Must not know: how arrays are made. */

/* errno.h of every system that Arrow runs on has them so; C itself names neither. */
#define PACKBUF_I_EINVAL 22
#define PACKBUF_I_ENOMEM 12

typedef struct packbuf_i_stream {
  packbuf_i_export_owned *owned; /* the arena that this lies in */
  packbuf_export what;
  int done;
  char text[512]; /* of the last error */
} packbuf_i_stream;

/* A status as the stream's consumers have it, with the text kept. */
static int packbuf_i_stream_result(packbuf_i_stream *s, packbuf_status status, const packbuf_error *error) {
  if (status == PACKBUF_OK) return 0;
  packbuf_error_format(error, s->text, sizeof s->text);
  return status == PACKBUF_OUT_OF_MEMORY ? PACKBUF_I_ENOMEM : PACKBUF_I_EINVAL;
}

static int packbuf_i_stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
  packbuf_i_stream *s = (packbuf_i_stream *)stream->private_data;
  packbuf_error error;
  return packbuf_i_stream_result(s, packbuf_arrow_schema(&s->what, out, &error), &error);
}

static int packbuf_i_stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
  packbuf_i_stream *s = (packbuf_i_stream *)stream->private_data;
  packbuf_error error;
  packbuf_status status;
  memset(out, 0, sizeof *out);
  if (s->done) return 0;
  status = packbuf_arrow_array(&s->what, out, &error);
  s->done = status == PACKBUF_OK;
  return packbuf_i_stream_result(s, status, &error);
}

static const char *packbuf_i_stream_error(struct ArrowArrayStream *stream) {
  const packbuf_i_stream *s = (const packbuf_i_stream *)stream->private_data;
  return s->text[0] ? s->text : NULL;
}

static void packbuf_i_stream_release(struct ArrowArrayStream *stream) {
  packbuf_i_stream *s = (packbuf_i_stream *)stream->private_data;
  stream->release = NULL;
  packbuf_i_disown(s->owned);
}

PACKBUF_API packbuf_status packbuf_arrow_stream(const packbuf_export *what, struct ArrowArrayStream *out,
                                                packbuf_error *error) {
  packbuf_i_export_owned *owned;
  packbuf_i_stream *s;
  const packbuf_status status = packbuf_i_check_export(what, out, error);
  if (status != PACKBUF_OK) return status;
  memset(out, 0, sizeof *out);
  owned = packbuf_i_own(what);
  if (!owned) return packbuf_i_no_memory(error);
  s = (packbuf_i_stream *)packbuf_arena_alloc(&owned->arena, sizeof *s, 8);
  if (!s) {
    packbuf_i_disown(owned);
    return packbuf_i_no_memory(error);
  }
  memset(s, 0, sizeof *s);
  s->owned = owned;
  s->what = *what;
  out->get_schema = packbuf_i_stream_schema;
  out->get_next = packbuf_i_stream_next;
  out->get_last_error = packbuf_i_stream_error;
  out->release = packbuf_i_stream_release;
  out->private_data = s;
  return PACKBUF_OK;
}
