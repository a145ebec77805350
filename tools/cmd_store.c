/* tools/cmd_store.c: `packbuf put`, `get`, `ls`, `stat` and `store`: objects of stores from the command line.
 * May use: packbuf_transport.h (the public part alone), tables. Must not know: how a store does it. */
#include "stores.h"
#include "table.h"

void fail_call(const char *what, packbuf_error *error) {
  const int code = (error->code == PACKBUF_SYSTEM || error->code == PACKBUF_DISCONNECTED) && error->offset &&
                           error->offset < 4096
                       ? (int)error->offset
                       : 0;
  char line[1024];
  error->row = PACKBUF_NOWHERE;
  error->path[0] = 0;
  if (code) error->offset = PACKBUF_NOWHERE;
  packbuf_error_format(error, line, sizeof line);
  if (code) fail(what, "%s (%s)", line, strerror(code));
  fail(what, "%s", line);
}

uint64_t deadline_of(const opened *from) { return packbuf_deadline_in(from->timeout_ms); }

/* `pool`: what goes through memory that a client receives in. */
static void store_open_with(const verb *command, const char *uri, const char *timeout, int makes, int reads,
                            uint64_t pool, opened *to) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_error error;
  packbuf_status status;
  char line[1024];
  memset(to, 0, sizeof *to);
  to->timeout_ms = timeout ? parse_number(command, "timeout", timeout) : 60000;
  options.must_exist = (uint8_t)!makes;
  options.read_only = (uint8_t)reads;
  if (strncmp(uri, "mooncake:", 9) != 0) options.pool_size = (1 << 20) + pool;
  status = packbuf_store_open(uri, &options, &to->store, &error);
  if (status == PACKBUF_INVALID_ARGUMENT) {
    packbuf_error_format(&error, line, sizeof line);
    fail_usage(command, "%s: %s", uri, line);
  }
  if (status || packbuf_store_describe(to->store, &to->info, deadline_of(to), &error)) fail_call(uri, &error);
  if (!(to->info.capabilities & PACKBUF_CAN_OUTLIVE) && (makes || strcmp(to->info.transport, "local") == 0))
    fail_usage(command, "%s: its objects would go with this command (mooncake: without ?segment=0)", uri);
}

void store_open(const verb *command, const char *uri, const char *timeout, int makes, int reads, opened *to) {
  store_open_with(command, uri, timeout, makes, reads, 0, to);
}

void store_close(opened *from, const char *uri) {
  packbuf_error error;
  if (packbuf_store_close(from->store, deadline_of(from), &error)) fail_call(uri, &error);
}

static void name_read(const char *word, named *to) {
  packbuf_error error;
  to->exact = strncmp(word, "pbref1:", 7) == 0;
  if (!to->exact) {
    if (strlen(word) > PACKBUF_MAX_KEY) fail(word, "a key has at most %u bytes", PACKBUF_MAX_KEY);
    to->ref = packbuf_ref_newest(word);
  } else if (packbuf_ref_parse(word, strlen(word), &to->ref, &error)) {
    fail_status(word, &error);
  }
}

packbuf_item *name_items(const strings *words, size_t first, named **names) {
  size_t count = words->count - first, i;
  packbuf_item *items = (packbuf_item *)must_alloc(count * sizeof *items);
  *names = (named *)must_alloc(count * sizeof **names);
  memset(items, 0, count * sizeof *items);
  for (i = 0; i < count; i++) {
    name_read(words->items[first + i], &(*names)[i]);
    items[i].key = (*names)[i].ref.key;
    items[i].generation = (*names)[i].ref.generation;
  }
  return items;
}

void say_item(const packbuf_item *item) {
  say(item->key, "%s: %s", packbuf_status_name(item->status),
      item->status == PACKBUF_NOT_FOUND ? "there is no such object" : packbuf_status_text(item->status));
}

/* ---- what a store knows of an object ---- */

static const char *kind_word(unsigned kind) {
  return kind == PACKBUF_OBJECT_BYTES ? "bytes" : kind == PACKBUF_OBJECT_BATCH ? "batch" : "manifest";
}

static void ref_of(const opened *in, const char *key, const packbuf_stat *stat, char *to) {
  packbuf_ref ref = packbuf_ref_newest(key);
  packbuf_error error;
  size_t size;
  memcpy(ref.uri, in->info.uri, sizeof ref.uri);
  ref.generation = stat->generation;
  ref.head_length = stat->head_length;
  ref.length = stat->length;
  ref.head_checksum = stat->head_checksum;
  ref.kind = stat->kind;
  memcpy(ref.fingerprint, stat->fingerprint, sizeof ref.fingerprint);
  if (packbuf_ref_write(&ref, to, PACKBUF_REF_TEXT, &size, &error)) fail_status(key, &error);
}

static void hex_text(text *to, const uint8_t *bytes, size_t size) {
  size_t i;
  for (i = 0; i < size; i++) text_printf(to, "%02x", (unsigned)bytes[i]);
}

void number_json(text *to, const char *name, uint64_t number) {
  if (number == UINT64_MAX) text_printf(to, ",\"%s\":null", name);
  else text_printf(to, ",\"%s\":%llu", name, (unsigned long long)number);
}

static void stat_json(text *to, const opened *in, const char *key, const packbuf_stat *stat) {
  char ref[PACKBUF_REF_TEXT];
  ref_of(in, key, stat, ref);
  text_puts(to, "{\"key\":");
  print_string(to, key, strlen(key));
  text_printf(to, ",\"kind\":\"%s\"", kind_word(stat->kind));
  number_json(to, "length", stat->length);
  text_printf(to, ",\"generation\":\"%llx\"", (unsigned long long)stat->generation); /* beyond 2^53: no number */
  number_json(to, "head_length", stat->head_length);
  number_json(to, "head_checksum", stat->head_checksum);
  text_puts(to, ",\"fingerprint\":\"");
  hex_text(to, stat->fingerprint, sizeof stat->fingerprint);
  text_puts(to, "\"");
  number_json(to, "age_ms", stat->age_ms);
  number_json(to, "left_ms", stat->left_ms);
  number_json(to, "leases", stat->leases);
  text_printf(to, ",\"evictable\":%s,\"ref\":", stat->flags & PACKBUF_PUT_EVICTABLE ? "true" : "false");
  print_string(to, ref, strlen(ref));
  text_puts(to, "}\n");
}

static void stat_people(text *to, const opened *in, const char *key, const packbuf_stat *stat) {
  char ref[PACKBUF_REF_TEXT];
  ref_of(in, key, stat, ref);
  text_printf(to, "key          %s\nkind         %s%s\nlength       %llu\ngeneration   %llx\n", key,
              kind_word(stat->kind), stat->flags & PACKBUF_PUT_EVICTABLE ? ", evictable" : "",
              (unsigned long long)stat->length, (unsigned long long)stat->generation);
  if (stat->kind != PACKBUF_OBJECT_BYTES) {
    text_printf(to, "head, index  %llu\nfingerprint  ", (unsigned long long)stat->head_length);
    hex_text(to, stat->fingerprint, sizeof stat->fingerprint);
    text_puts(to, "\n");
  }
  text_printf(to, "age          %llu ms\n", (unsigned long long)stat->age_ms);
  if (stat->left_ms != UINT64_MAX) text_printf(to, "left         %llu ms\n", (unsigned long long)stat->left_ms);
  text_printf(to, "leases       %lu\nref          %s\n", (unsigned long)stat->leases, ref);
}

/* ---- put and get ---- */

static void check_packed(const char *name, const void *data, uint64_t size, int verify, packbuf_view *view) {
  packbuf_error error;
  if (packbuf_open(view, data, size, PACKBUF_OPEN_EXACT, NULL, &error) ||
      (verify && packbuf_verify(view, PACKBUF_LEVEL_FULL, &error)))
    fail_status(name, &error);
}

static int is_packed(const source *from) {
  static const char magic[] = "\x89PBUF";
  return from->size >= 5 && memcmp(from->data, magic, 5) == 0;
}

/* What a store is to keep with a packed buffer. */
static void describe_packed(const source *from, int verify, packbuf_ref *to) {
  packbuf_error error;
  packbuf_view view;
  check_packed(from->name, from->data, from->size, verify, &view);
  to->kind = (uint8_t)(view.kind == 2 ? PACKBUF_OBJECT_MANIFEST : PACKBUF_OBJECT_BATCH);
  to->length = view.total_length;
  to->head_length = view.head_length + view.index_length;
  to->head_checksum = view.head_checksum;
  if (view.kind != 2 && packbuf_fingerprint(&view, to->fingerprint, &error)) fail_status(from->name, &error);
}

int run_put(const verb *command, int argc, char **argv) {
  const char *ttl = NULL, *timeout = NULL;
  int bytes = 0, evictable = 0, no_verify = 0, json = 0;
  strings rest = {NULL, 0};
  const option options[] = {{0, "bytes", &bytes, NULL, NULL},         {0, "ttl", NULL, &ttl, NULL},
                            {0, "evictable", &evictable, NULL, NULL}, {0, "no-verify", &no_verify, NULL, NULL},
                            {0, "timeout", NULL, &timeout, NULL},     {0, "json", &json, NULL, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  char ref[PACKBUF_REF_TEXT];
  packbuf_ref about;
  packbuf_error error;
  packbuf_item item;
  uint64_t ttl_ms;
  opened in;
  source from;
  output out;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 3) fail_usage(command, "URI, KEY and FILE are needed");
  memset(&item, 0, sizeof item);
  memset(&about, 0, sizeof about);
  ttl_ms = ttl ? parse_number(command, "ttl", ttl) : 0;
  if (ttl_ms > UINT32_MAX) fail_usage(command, "--ttl: at most 4294967295 ms");
  source_open(&from, rest.items[2]);
  if (!bytes && is_packed(&from)) {
    if (strchr(rest.items[1], '#') || strlen(rest.items[1]) > PACKBUF_MAX_BATCH_KEY)
      fail_usage(command, "%s: the key of a batch has at most %u bytes and no '#', as appends add to it", rest.items[1],
                 PACKBUF_MAX_BATCH_KEY);
    describe_packed(&from, !no_verify, &about);
    item.about = &about;
  }
  store_open(command, rest.items[0], timeout, 1, 0, &in);
  item.key = rest.items[1];
  item.from = from.data;
  item.size = from.size;
  item.ttl_ms = (uint32_t)ttl_ms;
  item.flags = evictable ? PACKBUF_PUT_EVICTABLE : 0;
  if (packbuf_batch_put(in.store, &item, 1, deadline_of(&in), &error)) fail_call(item.key, &error);
  output_open(&out, "-");
  if (json) {
    stat_json(&out.buffer, &in, item.key, &item.stat);
  } else {
    ref_of(&in, item.key, &item.stat, ref);
    text_printf(&out.buffer, "%s\n", ref);
  }
  store_close(&in, rest.items[0]);
  output_close(&out);
  source_close(&from);
  strings_free(&rest);
  return TOOL_OK;
}

/* An object in place, or in memory of its own (*memory): a pool would bound its size. */
static void fetch(opened *in, packbuf_item *item, void **memory, source *to) {
  const int in_place = (in->info.capabilities & PACKBUF_CAN_IN_PLACE) != 0;
  const uint64_t deadline = deadline_of(in);
  packbuf_status status = PACKBUF_CAPACITY;
  packbuf_error error;
  *memory = NULL;
  while (status == PACKBUF_CAPACITY) { /* once more when a larger one has come between */
    if (!in_place) {
      if (packbuf_batch_stat(in->store, item, 1, deadline, &error)) fail_call(item->key, &error);
      if (item->stat.length > SIZE_MAX) fail(item->key, "too large for this machine's addresses");
      *memory = must_resize(*memory, (size_t)item->stat.length);
      item->into = *memory;
      item->capacity = item->stat.length;
    }
    status = packbuf_batch_get(in->store, item, 1, deadline, &error);
    if (status && (in_place || status != PACKBUF_CAPACITY)) fail_call(item->key, &error);
  }
  to->name = item->key;
  to->data = (const uint8_t *)(in_place ? item->lease.data : *memory);
  to->size = in_place ? item->lease.size : item->got;
}

/* Against the ref that was asked for, else against what the store says itself. */
static void check_object(const named *name, const packbuf_item *item, const source *got, int verify) {
  const uint32_t head = name->exact ? name->ref.head_checksum : item->stat.head_checksum;
  const unsigned kind = name->exact ? name->ref.kind : item->stat.kind;
  packbuf_view view;
  if (name->exact && name->ref.length != got->size)
    fail(item->key, "the object has %llu bytes, but the ref says %llu", (unsigned long long)got->size,
         (unsigned long long)name->ref.length);
  if (kind == PACKBUF_OBJECT_BYTES) return;
  check_packed(item->key, got->data, got->size, verify, &view);
  if (view.head_checksum != head)
    fail(item->key, "its head is another than the %s says", name->exact ? "ref" : "store");
}

/* How the fragments of a manifest become one batch. */
typedef struct joining {
  const char *uri, *timeout, *name;
  int no_verify;
  unsigned flags;
} joining;

/* The bytes of all that a manifest lists. */
static uint64_t listed_bytes(const char *key, const source *manifest) {
  const packbuf_fragment *list = NULL;
  packbuf_arena arena;
  packbuf_error error;
  packbuf_view view;
  uint64_t count = 0, bytes = 0, i;
  packbuf_arena_init(&arena, NULL);
  check_packed(key, manifest->data, manifest->size, 0, &view);
  if (packbuf_manifest_read(&view, &arena, &list, &count, NULL, &error)) fail_status(key, &error);
  for (i = 0; i < count; i++) {
    if (list[i].length > (uint64_t)INT64_MAX - bytes) fail(key, "lists more bytes than there can be");
    bytes += list[i].length;
  }
  packbuf_arena_free(&arena);
  return bytes;
}

static void fail_whole(const char *key, packbuf_error *error) {
  const int fragment = error->code == PACKBUF_NOT_FOUND || error->code == PACKBUF_STALE; /* then the path is its key */
  char line[1024], path[PACKBUF_ERROR_PATH + 16] = "";
  if (fragment) snprintf(path, sizeof path, "its fragment %s: ", error->path);
  if (fragment) error->path[0] = 0;
  error->row = PACKBUF_NOWHERE;
  packbuf_error_format(error, line, sizeof line);
  fail(key, "%s%s (%s--manifest gets the list of its fragments)", path, line,
       error->code == PACKBUF_SCHEMA_MISMATCH ? "--widen joins columns that differ, --first-value batch values and metadata; " : "");
}

/* What a manifest lists, as one packed buffer. A client receives it in memory of its own, which was not made for that:
 * the store is opened once more. */
static void get_whole(const verb *command, const joining *how, const packbuf_ref *ref, const source *manifest,
                      opened *in) {
  packbuf_options packing = packbuf_default_options();
  packbuf_get_options options;
  packbuf_object object;
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packed_file written;
  if (!(in->info.capabilities & PACKBUF_CAN_IN_PLACE)) {
    const uint64_t bytes = listed_bytes(ref->key, manifest) + manifest->size;
    store_close(in, how->uri);
    store_open_with(command, how->uri, how->timeout, 0, 1, bytes < UINT64_MAX / 4 ? 2 * bytes : bytes, in);
  }
  memset(&options, 0, sizeof options);
  options.deadline = deadline_of(in);
  options.level = how->no_verify ? 0 : PACKBUF_LEVEL_FULL;
  options.join_flags = (uint8_t)how->flags;
  packing_options(command, NULL, NULL, &packing);
  packbuf_arena_init(&arena, NULL);
  if (packbuf_get(in->store, ref, &options, &object, &error) ||
      packbuf_join_batch(object.join, &arena, &packing, &batch, &error) ||
      packed_write(&written, how->name, &batch, 0, &error))
    fail_whole(ref->key, &error);
  packbuf_object_release(&object);
  packed_close(&written);
  packbuf_arena_free(&arena);
}

int run_get(const verb *command, int argc, char **argv) {
  const char *name = NULL, *timeout = NULL;
  int no_verify = 0, list = 0, widen = 0, first = 0;
  strings rest = {NULL, 0};
  const option options[] = {{'o', "output", NULL, &name, NULL},       {0, "manifest", &list, NULL, NULL},
                            {0, "widen", &widen, NULL, NULL},         {0, "first-value", &first, NULL, NULL},
                            {0, "no-verify", &no_verify, NULL, NULL}, {0, "timeout", NULL, &timeout, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  joining how;
  packbuf_item item;
  void *memory;
  named wanted;
  source got;
  opened in;
  output out;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 2) fail_usage(command, "URI and KEY or REF are needed");
  if (!name) fail_usage(command, "-o FILE is needed (- is stdout)");
  name_read(rest.items[1], &wanted);
  store_open(command, rest.items[0], timeout, 0, 1, &in);
  memset(&item, 0, sizeof item);
  item.key = wanted.ref.key;
  item.generation = wanted.ref.generation;
  fetch(&in, &item, &memory, &got);
  check_object(&wanted, &item, &got, !no_verify);
  if (!list && (wanted.exact ? wanted.ref.kind : item.stat.kind) == PACKBUF_OBJECT_MANIFEST) {
    how.uri = rest.items[0];
    how.timeout = timeout;
    how.name = name;
    how.no_verify = no_verify;
    how.flags = (widen ? PACKBUF_WIDEN : 0u) | (first ? PACKBUF_FIRST_VALUE : 0u);
    get_whole(command, &how, &wanted.ref, &got, &in);
  } else {
    output_open(&out, name);
    output_write(&out, got.data, (size_t)got.size);
    output_close(&out);
    outputs_commit();
  }
  packbuf_lease_release(&item.lease);
  store_close(&in, rest.items[0]);
  free(memory);
  strings_free(&rest);
  return TOOL_OK;
}

/* ---- ls, stat ---- */

static int by_key(const void *a, const void *b) {
  const packbuf_listed *x = (const packbuf_listed *)a, *y = (const packbuf_listed *)b;
  const int order = strcmp(x->key, y->key);
  return order ? order : (x->stat.generation > y->stat.generation) - (x->stat.generation < y->stat.generation);
}

packbuf_listed *list_all(opened *in, const char *uri, const char *prefix, size_t *count) {
  enum { PAGE = 256 };
  packbuf_listed *all = NULL;
  packbuf_error error;
  uint64_t cursor = 0, some;
  size_t size = 0, room = 0, i, kept = 0;
  do {
    if (room - size < PAGE) {
      room = room * 2 + PAGE;
      all = (packbuf_listed *)must_resize(all, room * sizeof *all);
    }
    if (packbuf_store_list(in->store, prefix, &cursor, all + size, PAGE, &some, deadline_of(in), &error))
      fail_call(uri, &error);
    size += (size_t)some;
  } while (cursor);
  if (size) qsort(all, size, sizeof *all, by_key);
  for (i = 0; i < size; i++)
    if (!kept || by_key(&all[kept - 1], &all[i]) != 0) all[kept++] = all[i];
  *count = kept;
  return all;
}

int run_ls(const verb *command, int argc, char **argv) {
  const char *timeout = NULL;
  int json = 0;
  strings rest = {NULL, 0};
  const option options[] = {
      {0, "json", &json, NULL, NULL}, {0, "timeout", NULL, &timeout, NULL}, {0, NULL, NULL, NULL, NULL}};
  table lines = {{NULL, 0}, 5, 1u << 1 | 1u << 2 | 1u << 3};
  packbuf_listed *all;
  size_t count, i;
  opened in;
  output out;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1 && rest.count != 2) fail_usage(command, "a URI is needed, and at most one PREFIX");
  store_open(command, rest.items[0], timeout, 0, 1, &in);
  all = list_all(&in, rest.items[0], rest.count == 2 ? rest.items[1] : NULL, &count);
  output_open(&out, "-");
  if (!json) {
    table_puts(&lines, "kind");
    table_puts(&lines, "length");
    table_puts(&lines, "age s");
    table_puts(&lines, "leases");
    table_puts(&lines, "key");
  }
  for (i = 0; i < count; i++) {
    if (json) {
      stat_json(&out.buffer, &in, all[i].key, &all[i].stat);
      output_text(&out);
      continue;
    }
    table_puts(&lines, kind_word(all[i].stat.kind));
    table_number(&lines, all[i].stat.length);
    table_number(&lines, all[i].stat.age_ms / 1000);
    table_number(&lines, all[i].stat.leases);
    table_puts(&lines, all[i].key);
  }
  if (!json) table_print(&lines, &out);
  store_close(&in, rest.items[0]);
  output_close(&out);
  free(all);
  strings_free(&rest);
  return TOOL_OK;
}

int run_stat(const verb *command, int argc, char **argv) {
  const char *timeout = NULL;
  int json = 0, result = TOOL_OK;
  strings rest = {NULL, 0};
  const option options[] = {
      {0, "json", &json, NULL, NULL}, {0, "timeout", NULL, &timeout, NULL}, {0, NULL, NULL, NULL, NULL}};
  packbuf_item *items;
  packbuf_error error;
  named *names;
  size_t i;
  opened in;
  output out;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count < 2) fail_usage(command, "URI and KEY or REF are needed");
  items = name_items(&rest, 1, &names);
  store_open(command, rest.items[0], timeout, 0, 1, &in);
  if (packbuf_batch_stat(in.store, items, rest.count - 1, deadline_of(&in), &error)) result = TOOL_NO;
  output_open(&out, "-");
  for (i = 0; i + 1 < rest.count; i++) {
    if (items[i].status) {
      say_item(&items[i]);
    } else if (json) {
      stat_json(&out.buffer, &in, items[i].key, &items[i].stat);
    } else {
      text_puts(&out.buffer, i ? "\n" : "");
      stat_people(&out.buffer, &in, items[i].key, &items[i].stat);
    }
    output_text(&out);
  }
  store_close(&in, rest.items[0]);
  output_close(&out);
  free(items);
  free(names);
  strings_free(&rest);
  return result;
}

/* ---- who has it open: of stores that know ---- */

/* What a store knows of those who use it; nothing of it where it knows no other processes. */
typedef struct kept {
  packbuf_session *sessions;
  packbuf_held *held;
  size_t session_count, held_count;
  packbuf_audit audit;
  int known;
} kept;

static void kept_read(const opened *in, const char *uri, kept *to) {
  enum { PAGE = 64 };
  packbuf_error error;
  packbuf_status status;
  uint64_t cursor = 0, some;
  memset(to, 0, sizeof *to);
  status = packbuf_store_audit(in->store, &to->audit, &error);
  if (status == PACKBUF_UNSUPPORTED_OPERATION) return;
  to->known = 1;
  do {
    to->sessions = (packbuf_session *)must_resize(to->sessions, (to->session_count + PAGE) * sizeof *to->sessions);
    if (!status) status = packbuf_store_sessions(in->store, &cursor, to->sessions + to->session_count, PAGE, &some, &error);
    if (status) fail_call(uri, &error);
    to->session_count += (size_t)some;
  } while (cursor);
  do {
    to->held = (packbuf_held *)must_resize(to->held, (to->held_count + PAGE) * sizeof *to->held);
    if (packbuf_store_held(in->store, &cursor, to->held + to->held_count, PAGE, &some, &error)) fail_call(uri, &error);
    to->held_count += (size_t)some;
  } while (cursor);
}

static void kept_free(kept *from) {
  free(from->sessions);
  free(from->held);
}

static const char *held_word(packbuf_held_kind kind) {
  return kind == PACKBUF_HELD_LEASE ? "lease" : kind == PACKBUF_HELD_REMOVED ? "lease of what is removed" : "slice";
}

static void kept_json(const kept *from, text *to) {
  const packbuf_audit *const a = &from->audit;
  const char *before = "";
  size_t i;
  text_puts(to, ",\"sessions\":[");
  for (i = 0; i < from->session_count; i++, before = ",") {
    const packbuf_session *const s = &from->sessions[i];
    text_printf(to, "%s{\"session\":%lu,\"name\":", before, (unsigned long)s->number);
    print_string(to, s->name, strlen(s->name));
    text_printf(to, ",\"alive\":%s,\"own\":%s", s->alive ? "true" : "false", s->own ? "true" : "false");
    number_json(to, "process", s->process);
    number_json(to, "age_ms", s->age_ms);
    number_json(to, "idle_ms", s->idle_ms);
    number_json(to, "leases", s->leases);
    number_json(to, "leased_bytes", s->leased_bytes);
    number_json(to, "slices", s->slices);
    number_json(to, "slice_bytes", s->slice_bytes);
    text_puts(to, "}");
  }
  text_puts(to, "],\"held\":[");
  before = "";
  for (i = 0; i < from->held_count; i++, before = ",") {
    const packbuf_held *const h = &from->held[i];
    text_printf(to, "%s{\"session\":%lu,\"what\":\"%s\",\"key\":", before, (unsigned long)h->session,
                h->kind == PACKBUF_HELD_SLICE ? "slice" : h->kind == PACKBUF_HELD_LEASE ? "lease" : "removed");
    print_string(to, h->object.key, strlen(h->object.key));
    text_printf(to, ",\"generation\":\"%llx\"", (unsigned long long)h->object.stat.generation);
    number_json(to, "length", h->object.stat.length);
    number_json(to, "age_ms", h->object.stat.age_ms);
    text_puts(to, "}");
  }
  text_printf(to, "],\"memory\":{\"object_bytes\":%llu", (unsigned long long)a->object_bytes);
  number_json(to, "removed_bytes", a->removed_bytes);
  number_json(to, "slice_bytes", a->filling_bytes);
  number_json(to, "free_bytes", a->free_bytes);
  number_json(to, "free_runs", a->free_runs);
  number_json(to, "largest_free", a->largest_free);
  text_puts(to, "}");
}

static void sessions_people(const kept *from, output *out) {
  table lines = {{NULL, 0}, 9, 1u << 0 | 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6};
  static const char *const heads[] = {"session", "process", "age s", "idle s", "leases", "leased", "slices", "", "name"};
  size_t i;
  text_puts(&out->buffer, "\n");
  for (i = 0; i < sizeof heads / sizeof *heads; i++) table_puts(&lines, heads[i]);
  for (i = 0; i < from->session_count; i++) {
    const packbuf_session *const s = &from->sessions[i];
    table_number(&lines, s->number);
    table_number(&lines, s->process);
    table_number(&lines, s->age_ms / 1000);
    table_number(&lines, s->idle_ms / 1000);
    table_number(&lines, s->leases);
    table_number(&lines, s->leased_bytes);
    table_number(&lines, s->slice_bytes);
    table_puts(&lines, s->own ? "this one" : s->alive ? "" : "dead");
    table_puts(&lines, s->name);
  }
  table_print(&lines, out);
}

static void kept_people(const kept *from, output *out) {
  table lines = {{NULL, 0}, 5, 1u << 0 | 1u << 2 | 1u << 3};
  const packbuf_audit *const a = &from->audit;
  size_t i;
  sessions_people(from, out);
  if (from->held_count) {
    text_puts(&out->buffer, "\n");
    table_puts(&lines, "session");
    table_puts(&lines, "holds");
    table_puts(&lines, "bytes");
    table_puts(&lines, "put s ago");
    table_puts(&lines, "key");
  }
  for (i = 0; i < from->held_count; i++) {
    table_number(&lines, from->held[i].session);
    table_puts(&lines, held_word(from->held[i].kind));
    table_number(&lines, from->held[i].object.stat.length);
    table_number(&lines, from->held[i].object.stat.age_ms / 1000);
    table_puts(&lines, from->held[i].object.key);
  }
  if (from->held_count) table_print(&lines, out);
  text_printf(&out->buffer, "\nfree       %llu bytes in %llu runs, the largest of %llu\n",
              (unsigned long long)a->free_bytes, (unsigned long long)a->free_runs, (unsigned long long)a->largest_free);
}

/* Whether all is accounted for; a line for each thing that is not. */
static int check_store(const char *uri, const kept *from) {
  const packbuf_audit *const a = &from->audit;
  const struct {
    uint64_t count;
    const char *what;
  } lost[] = {{a->lost_bytes, "bytes in use for nothing"},
              {a->shared_bytes, "bytes of objects that are not their own"},
              {a->lost_slots, "slots that nobody holds"},
              {a->lost_cells, "entries of the directory that name nothing"},
              {a->lost_pins, "leases of no session"},
              {a->hidden, "objects that no key leads to"}};
  int good = 1;
  size_t i;
  if (!from->known) fail(uri, "--check is for stores that processes of a machine share (shm:NAME)");
  for (i = 0; i < sizeof lost / sizeof *lost; i++) {
    if (!lost[i].count) continue;
    say(uri, "%llu %s", (unsigned long long)lost[i].count, lost[i].what);
    good = 0;
  }
  return good;
}

static void take_away(const opened *in, const char *uri, int force) {
  packbuf_error error;
  const packbuf_status status = packbuf_store_free(in->store, force, &error);
  if (status == PACKBUF_LEASED) fail(uri, "others have the store open: packbuf store %s lists them, --force takes it away all the same", uri);
  if (status) fail_call(uri, &error);
}

/* ---- store ---- */

typedef struct counted {
  const char *name, *about;
  uint64_t value;
} counted;

static size_t count_store(const packbuf_counters *from, counted *to) {
  size_t n = 0;
#define COUNTED(word, gauge, text) to[n].name = #word, to[n].about = (text), to[n].value = from->word, n++;
  PACKBUF_COUNTER_LIST(COUNTED)
#undef COUNTED
  return n;
}

static void capability_words(unsigned capabilities, const char *separator, const char *quote, text *to) {
  static const char *const words[] = {"ranges", "newest", "supersede", "remove_now", "in_place", "ttl",
                                      "evict",  "quota",  "list",      "outlive",    "inject"};
  const char *before = "";
  unsigned i;
  for (i = 0; i < sizeof words / sizeof *words; i++) {
    if (!(capabilities >> i & 1)) continue;
    text_printf(to, "%s%s%s%s", before, quote, words[i], quote);
    before = separator;
  }
}

static void store_json(const packbuf_store_info *info, const counted *counts, size_t count, const kept *who, text *to) {
  size_t i;
  text_puts(to, "{\"uri\":");
  print_string(to, info->uri, strlen(info->uri));
  text_printf(to, ",\"transport\":\"%s\",\"stepped_down\":", info->transport);
  if (info->stepped_down) print_string(to, info->stepped_down, strlen(info->stepped_down));
  else text_puts(to, "null");
  number_json(to, "size", info->size);
  number_json(to, "used", info->used);
  number_json(to, "objects", info->objects);
  number_json(to, "most_objects", info->most_objects);
  text_puts(to, ",\"capabilities\":[");
  capability_words(info->capabilities, ",", "\"", to);
  text_puts(to, "],\"counters\":{");
  for (i = 0; i < count; i++)
    text_printf(to, "%s\"%s\":%llu", i ? "," : "", counts[i].name, (unsigned long long)counts[i].value);
  text_puts(to, "}");
  if (who->known) kept_json(who, to);
  text_puts(to, "}\n");
}

static void known_number(text *to, const char *name, uint64_t number, uint64_t most) {
  text_puts(to, name);
  if (number == UINT64_MAX) text_puts(to, "not known");
  else text_printf(to, "%llu", (unsigned long long)number);
  if (most != UINT64_MAX) text_printf(to, " of %llu", (unsigned long long)most);
  text_puts(to, "\n");
}

/* Counters begin with this command's handle, so that most are 0 and say nothing of the store: those are left out. */
static void store_people(const packbuf_store_info *info, const counted *counts, size_t count, output *out) {
  table lines = {{NULL, 0}, 3, 1u << 1};
  text *to = &out->buffer;
  int shown = 0;
  size_t i;
  text_printf(to, "store      %s\ntransport  %s%s%s\n", info->uri, info->transport, info->stepped_down ? ": " : "",
              info->stepped_down ? info->stepped_down : "");
  known_number(to, "bytes      ", info->used, info->size);
  known_number(to, "objects    ", info->objects, info->most_objects);
  text_puts(to, "can        ");
  capability_words(info->capabilities, ", ", "", to);
  text_puts(to, "\n\n");
  table_puts(&lines, "counter");
  table_puts(&lines, "value");
  table_puts(&lines, "");
  for (i = 0; i < count; i++) {
    if (!counts[i].value) continue;
    shown = 1;
    table_puts(&lines, counts[i].name);
    table_number(&lines, counts[i].value);
    table_puts(&lines, counts[i].about);
  }
  if (shown) table_print(&lines, out);
}

int run_store(const verb *command, int argc, char **argv) {
  const char *timeout = NULL;
  int json = 0, collect = 0, check = 0, takes = 0, force = 0, good = 1;
  strings rest = {NULL, 0};
  const option options[] = {{0, "collect", &collect, NULL, NULL}, {0, "check", &check, NULL, NULL},
                            {0, "free", &takes, NULL, NULL},      {0, "force", &force, NULL, NULL},
                            {0, "json", &json, NULL, NULL},       {0, "timeout", NULL, &timeout, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  counted counts[sizeof(packbuf_counters) / sizeof(uint64_t)];
  packbuf_counters counters;
  packbuf_error error;
  uint64_t left = 0;
  size_t count;
  opened in;
  output out;
  kept who;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "a URI is needed");
  if (force && !takes) fail_usage(command, "--force goes with --free");
  store_open(command, rest.items[0], timeout, 0, !collect && !takes, &in);
  if ((collect && packbuf_store_collect(in.store, deadline_of(&in), &left, &error)) ||
      packbuf_store_describe(in.store, &in.info, deadline_of(&in), &error) ||
      packbuf_store_counters(in.store, &counters, &error))
    fail_call(rest.items[0], &error);
  if (left) say(rest.items[0], "%llu removals still wait for leases", (unsigned long long)left);
  count = count_store(&counters, counts);
  kept_read(&in, rest.items[0], &who);
  if (check) good = check_store(rest.items[0], &who);
  output_open(&out, "-");
  if (takes) take_away(&in, rest.items[0], force);
  else if (json) store_json(&in.info, counts, count, &who, &out.buffer);
  else store_people(&in.info, counts, count, &out);
  if (!takes && !json && who.known) kept_people(&who, &out);
  store_close(&in, rest.items[0]);
  output_close(&out);
  kept_free(&who);
  strings_free(&rest);
  return good ? TOOL_OK : TOOL_NO;
}
