/* tools/cmd_rm.c: `packbuf rm`: objects of a store by name, or what a job left behind: by prefix and age, and fragments
 * that an append put and no manifest came to list.
 * May use: packbuf_transport.h (the public part alone). Must not know: how a store does it. */
#include "stores.h"

/* Removes what manifests list; they themselves go with all the others. A stat where it does no harm: the lease that an
 * engine grants for one would keep the object. */
static void remove_listed(opened *in, packbuf_item *items, named *names, size_t count) {
  packbuf_error error;
  size_t i;
  if (in->info.capabilities & PACKBUF_CAN_REMOVE_NOW)
    (void)packbuf_batch_stat(in->store, items, count, deadline_of(in), &error);
  for (i = 0; i < count; i++) {
    const int known = items[i].status == PACKBUF_OK && items[i].stat.generation;
    packbuf_ref ref = names[i].ref;
    if (known) ref.kind = items[i].stat.kind;
    if (ref.kind != PACKBUF_OBJECT_MANIFEST || items[i].status) continue;
    if (known) ref.generation = items[i].stat.generation;
    if (packbuf_remove(in->store, &ref, deadline_of(in), &error)) fail_call(ref.key, &error);
    items[i].key = NULL;
  }
}

/* Removes them; says which failed. */
static int remove_items(opened *in, packbuf_item *items, named *names, size_t count, uint32_t flags) {
  packbuf_error error;
  size_t i, left = 0;
  int result = TOOL_OK;
  remove_listed(in, items, names, count);
  for (i = 0; i < count; i++) {
    if (!items[i].key) continue;
    items[left] = items[i];
    items[left++].flags = flags;
  }
  if (left && packbuf_batch_remove(in->store, items, left, deadline_of(in), &error)) result = TOOL_NO;
  for (i = 0; i < left; i++)
    if (items[i].status) say_item(&items[i]);
  return result;
}

/* ---- what a job left behind ---- */

/* The names of fragments, as manifests have them. */
typedef struct name_list {
  char (*names)[PACKBUF_MAX_KEY + 18];
  size_t count, room;
} name_list;

static int by_name(const void *a, const void *b) { return strcmp((const char *)a, (const char *)b); }

/* Adds what a manifest lists; one that is gone meanwhile lists nothing any more. */
static void names_of_manifest(opened *in, const packbuf_listed *of, name_list *to) {
  packbuf_item item;
  packbuf_error error;
  packbuf_view view;
  packbuf_arena arena;
  const packbuf_fragment *list = NULL;
  uint64_t count = 0, i;
  memset(&item, 0, sizeof item);
  item.key = of->key;
  item.generation = of->stat.generation;
  if (packbuf_batch_get(in->store, &item, 1, deadline_of(in), &error)) {
    if (item.status == PACKBUF_NOT_FOUND || item.status == PACKBUF_STALE) return;
    fail_call(of->key, &error);
  }
  packbuf_arena_init(&arena, NULL);
  if (packbuf_open(&view, item.lease.data, item.lease.size, PACKBUF_OPEN_EXACT, NULL, &error) ||
      packbuf_manifest_read(&view, &arena, &list, &count, NULL, &error))
    fail_call(of->key, &error);
  for (i = 0; i < count; i++) {
    if (list[i].key.size >= sizeof *to->names) continue; /* of another kind than append makes */
    if (to->count == to->room) {
      to->room = to->room * 2 + 64;
      to->names = (char(*)[PACKBUF_MAX_KEY + 18])must_resize(to->names, to->room * sizeof *to->names);
    }
    memcpy(to->names[to->count], list[i].key.data, list[i].key.size);
    to->names[to->count++][list[i].key.size] = 0;
  }
  packbuf_arena_free(&arena);
  packbuf_lease_release(&item.lease);
}

/* Keeps of a listing the fragments that no manifest in it lists: an append that was killed half-way leaves one. */
static size_t keep_orphans(opened *in, packbuf_listed *all, size_t count) {
  name_list listed = {NULL, 0, 0};
  char name[PACKBUF_MAX_KEY + 18];
  size_t i, kept = 0;
  for (i = 0; i < count; i++)
    if (all[i].stat.kind == PACKBUF_OBJECT_MANIFEST) names_of_manifest(in, &all[i], &listed);
  if (listed.count) qsort(listed.names, listed.count, sizeof *listed.names, by_name);
  for (i = 0; i < count; i++) {
    if (!strstr(all[i].key, "#f")) continue;
    snprintf(name, sizeof name, "%s@%016llx", all[i].key, (unsigned long long)all[i].stat.generation);
    if (!listed.count || !bsearch(name, listed.names, listed.count, sizeof *listed.names, by_name)) all[kept++] = all[i];
  }
  free(listed.names);
  return kept;
}

/* What is asked for beside keys. */
typedef struct asked {
  const char *prefix, *older;
  int orphans, dry;
} asked;

/* Objects by prefix and age, each of the generation that was listed; what is gone by then is no error. */
static int remove_left(const verb *command, opened *in, const char *uri, const asked *what) {
  const uint64_t age = what->older ? parse_age(command, "older-than", what->older) : what->orphans ? 600000 : 0;
  size_t count, i;
  packbuf_listed *all = list_all(in, uri, what->prefix, &count);
  output out;
  int result = TOOL_OK;
  if (what->orphans) count = keep_orphans(in, all, count);
  output_open(&out, "-");
  for (i = 0; i < count; i++) {
    packbuf_ref ref = packbuf_ref_newest(all[i].key);
    packbuf_error error;
    if (all[i].stat.age_ms < age) continue;
    ref.generation = all[i].stat.generation;
    ref.kind = all[i].stat.kind;
    if (what->dry) {
      text_printf(&out.buffer, "%s\n", ref.key);
    } else if (packbuf_remove(in->store, &ref, deadline_of(in), &error)) {
      say(ref.key, "%s: %s", packbuf_status_name(error.code), error.message);
      result = TOOL_NO;
    }
  }
  output_close(&out);
  free(all);
  return result;
}

int run_rm(const verb *command, int argc, char **argv) {
  const char *timeout = NULL;
  asked what = {NULL, NULL, 0, 0};
  int force = 0, result, listed;
  strings rest = {NULL, 0};
  const option options[] = {{0, "force", &force, NULL, NULL},
                            {0, "prefix", NULL, &what.prefix, NULL},
                            {0, "older-than", NULL, &what.older, NULL},
                            {0, "orphans", &what.orphans, NULL, NULL},
                            {0, "dry-run", &what.dry, NULL, NULL},
                            {0, "timeout", NULL, &timeout, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  opened in;
  parse_options(command, argc, argv, options, &rest);
  listed = what.prefix || what.orphans;
  if (listed ? rest.count != 1 : rest.count < 2)
    fail_usage(command, listed ? "URI alone is needed with --prefix or --orphans" : "URI and KEY or REF are needed");
  if (!listed && (what.older || what.dry)) fail_usage(command, "--older-than and --dry-run go with --prefix or --orphans");
  if (listed && force) fail_usage(command, "--force goes with keys and refs");
  if (what.older) (void)parse_age(command, "older-than", what.older);
  /* manifests would not be among what is listed, and all fragments seem to be nobody's */
  if (what.orphans && what.prefix && strchr(what.prefix, '#')) fail_usage(command, "--prefix of --orphans has no '#'");
  store_open(command, rest.items[0], timeout, 0, 0, &in);
  if (listed) {
    result = remove_left(command, &in, rest.items[0], &what);
  } else {
    named *names;
    packbuf_item *items = name_items(&rest, 1, &names);
    result = remove_items(&in, items, names, rest.count - 1, force ? PACKBUF_REMOVE_FORCE : 0);
    free(items);
    free(names);
  }
  store_close(&in, rest.items[0]);
  strings_free(&rest);
  return result;
}
