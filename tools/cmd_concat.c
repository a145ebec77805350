/* tools/cmd_concat.c: `packbuf concat`: the rows of many packed buffers as one; with a manifest, its fragments.
 * May use: packbuf.h. Must not know: how columns are joined. */
#include "tool.h"

typedef struct inputs {
  source *files;
  packbuf_view *views; /* the fragments; files[i + manifest] is that of views[i] */
  size_t count;
  source list; /* the manifest, when there is one */
  packbuf_view list_view;
} inputs;

/* A failure of joining or writing: the line says which file the fragment is, and which option joins what differs. */
static void fail_fragment(const inputs *from, const char *name, const packbuf_error *error) {
  char line[1024];
  packbuf_error_format(error, line, sizeof line);
  fail(error->fragment < from->count ? from->files[error->fragment].name : name, "%s%s", line,
       error->code == PACKBUF_SCHEMA_MISMATCH
           ? " (--widen joins columns that differ, --first-value takes batch values and metadata of the first file)"
           : "");
}

/* Opens and verifies all: what is copied without being looked at must be valid. */
static void open_inputs(const verb *command, const strings *names, const char *manifest, const char *decoded,
                        inputs *to) {
  packbuf_error error;
  size_t i;
  memset(to, 0, sizeof *to);
  to->count = names->count;
  to->files = (source *)must_alloc((names->count + 1) * sizeof *to->files);
  to->views = (packbuf_view *)must_alloc((names->count + 1) * sizeof *to->views);
  if (manifest) {
    open_packed(command, &to->list, &to->list_view, manifest, decoded);
    if (packbuf_verify(&to->list_view, PACKBUF_LEVEL_FULL, &error)) fail_status(manifest, &error);
  }
  for (i = 0; i < names->count; i++) {
    open_packed(command, &to->files[i], &to->views[i], names->items[i], decoded);
    progress("verifying", i, names->count);
    if (packbuf_verify(&to->views[i], PACKBUF_LEVEL_FULL, &error)) fail_status(names->items[i], &error);
  }
}

int run_concat(const verb *command, int argc, char **argv) {
  const char *name = NULL, *manifest = NULL, *decoded = NULL, *packing = NULL, *link = NULL;
  int widen = 0, first = 0;
  strings rest = {NULL, 0};
  const option options[] = {{'o', "output", NULL, &name, NULL},    {0, "manifest", NULL, &manifest, NULL},
                            {0, "widen", &widen, NULL, NULL},      {0, "first-value", &first, NULL, NULL},
                            {0, "packing", NULL, &packing, NULL},  {0, "link", NULL, &link, NULL},
                            {0, "decoded-bytes", NULL, &decoded, NULL}, {0, NULL, NULL, NULL, NULL}};
  packbuf_options how = packbuf_default_options();
  const packbuf_fragment *list = NULL;
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_join join;
  packed_file written;
  uint64_t count;
  inputs from;
  size_t i;
  parse_options(command, argc, argv, options, &rest);
  if (!rest.count) fail_usage(command, "a FILE.pbuf is needed");
  if (!name) fail_usage(command, "-o OUT.pbuf is needed");
  packing_options(command, packing, link, &how);
  open_inputs(command, &rest, manifest, decoded, &from);
  count = rest.count;
  packbuf_arena_init(&arena, NULL);
  if (manifest) {
    if (packbuf_manifest_read(&from.list_view, &arena, &list, &count, NULL, &error)) fail_status(manifest, &error);
    if (count != rest.count)
      fail(manifest, "lists %llu fragments, but %llu files are given", (unsigned long long)count,
           (unsigned long long)rest.count);
  }
  if (packbuf_join_init(&join, list, from.views, count,
                        (widen ? PACKBUF_WIDEN : 0u) | (first ? PACKBUF_FIRST_VALUE : 0u), &arena, &error) ||
      packbuf_join_batch(&join, &arena, &how, &batch, &error) ||
      packed_write(&written, name, &batch, how.packing == PACKBUF_PACKING_NONE, &error))
    fail_fragment(&from, name, &error);
  packed_close(&written);
  packbuf_arena_free(&arena);
  for (i = 0; i < from.count; i++) source_close(&from.files[i]);
  if (manifest) source_close(&from.list);
  free(from.files);
  free(from.views);
  strings_free(&rest);
  return TOOL_OK;
}
