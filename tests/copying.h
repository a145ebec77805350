/* A store for tests, in the memory of one process, that answers gets with copies, as a store over a network does; of
 * whole objects alone when its URI is "copy:whole". Faults are planned as for the store `local`. Not thread-safe.
 * Include after packbuf_transport.h. Must not know: what is put into it. */
#ifndef COPYING_H
#define COPYING_H

#include <stdlib.h>
#include <string.h>

typedef struct copying_object {
  struct copying_object *next;
  char key[PACKBUF_MAX_KEY + 1];
  packbuf_stat stat;
  uint8_t *bytes;
} copying_object;

typedef struct copying {
  copying_object *first;
  int whole;
  uint64_t generation, moved, seen, answers, rooms; /* answers and rooms that are out */
  packbuf_fault faults[8];
  uint64_t fault_count;
} copying;

static packbuf_status copying_open(void **state, const char *uri, const packbuf_store_options *options,
                                   packbuf_error *error) {
  copying *c = (copying *)calloc(1, sizeof *c);
  (void)options, (void)error;
  if (!c) return PACKBUF_OUT_OF_MEMORY;
  c->whole = strcmp(uri, "copy:whole") == 0;
  c->generation = 1000;
  *state = c;
  return PACKBUF_OK;
}

static void copying_close(void *state) {
  copying *c = (copying *)state;
  while (c->first) {
    copying_object *object = c->first;
    c->first = object->next;
    free(object->bytes);
    free(object);
  }
  free(c);
}

static packbuf_status copying_describe(void *state, packbuf_store_info *info, uint64_t deadline, packbuf_error *error) {
  const copying *c = (const copying *)state;
  (void)deadline, (void)error;
  info->transport = "copy";
  strcpy(info->uri, "copy:");
  info->capabilities = PACKBUF_CAN_NEWEST | PACKBUF_CAN_SUPERSEDE | PACKBUF_CAN_REMOVE_NOW | PACKBUF_CAN_LIST |
                       PACKBUF_CAN_INJECT | (c->whole ? 0u : (unsigned)PACKBUF_CAN_RANGES);
  info->size = c->whole ? UINT64_MAX : (uint64_t)64 << 20; /* not known, as of an engine that does not tell */
  info->used = info->most_objects = UINT64_MAX;
  for (const copying_object *object = c->first; object; object = object->next) info->objects++;
  return PACKBUF_OK;
}

static packbuf_status copying_reserve(void *state, const uint64_t *sizes, uint64_t count, uint64_t deadline,
                                      void **data, uint64_t *tokens, packbuf_error *error) {
  copying *c = (copying *)state;
  uint64_t all = 0;
  (void)deadline;
  for (uint64_t i = 0; i < count; i++) all += sizes[i];
  if (all > (uint64_t)64 << 20) {
    memset(error, 0, sizeof *error);
    error->code = PACKBUF_CAPACITY;
    error->message = "too much";
    return PACKBUF_CAPACITY;
  }
  for (uint64_t i = 0; i < count; i++) {
    data[i] = malloc((size_t)sizes[i]);
    tokens[i] = (uint64_t)(uintptr_t)data[i];
    c->rooms++;
  }
  return PACKBUF_OK;
}

static void copying_give_back(void *state, uint64_t token) {
  ((copying *)state)->rooms--;
  free((void *)(uintptr_t)token);
}

static copying_object **copying_find(copying *c, const char *key) {
  copying_object **at = &c->first;
  while (*at && strcmp((*at)->key, key) != 0) at = &(*at)->next;
  return at;
}

static void copying_drop(copying_object **at) {
  copying_object *object = *at;
  *at = object->next;
  free(object->bytes);
  free(object);
}

static packbuf_status copying_put(copying *c, const packbuf_call *call, packbuf_item *item) {
  copying_object **old = copying_find(c, item->key), *object = (copying_object *)calloc(1, sizeof *object);
  object->bytes = (uint8_t *)malloc((size_t)item->size + 1);
  memcpy(object->bytes, item->from, (size_t)item->size);
  c->moved += item->size;
  if (*old) copying_drop(old);
  strcpy(object->key, item->key);
  object->stat.length = item->size;
  object->stat.generation = ++c->generation;
  object->stat.left_ms = UINT64_MAX;
  if (item->about) {
    object->stat.kind = item->about->kind;
    object->stat.head_length = item->about->head_length;
    object->stat.head_checksum = item->about->head_checksum;
    memcpy(object->stat.fingerprint, item->about->fingerprint, PACKBUF_FINGERPRINT);
  }
  object->next = c->first;
  c->first = object;
  item->stat = object->stat;
  if (item->slice && item->slice->holder == call->holder) copying_give_back(c, item->slice->token);
  return PACKBUF_OK;
}

static packbuf_status copying_get(copying *c, packbuf_item *item, const copying_object *object,
                                  const packbuf_fault *fault) {
  packbuf_range all;
  const packbuf_range *ranges = item->ranges ? item->ranges : &all;
  const uint64_t count = item->ranges ? item->range_count : 1;
  uint64_t size = 0, at = 0;
  uint8_t *to;
  all.offset = 0;
  all.length = object->stat.length;
  for (uint64_t i = 0; i < count; i++) {
    if (ranges[i].offset > all.length || ranges[i].length > all.length - ranges[i].offset) return PACKBUF_OUT_OF_RANGE;
    size += ranges[i].length;
  }
  to = (uint8_t *)malloc((size_t)size + 1);
  for (uint64_t i = 0; i < count; at += ranges[i++].length)
    memcpy(to + at, object->bytes + ranges[i].offset, (size_t)ranges[i].length);
  c->moved += c->whole ? all.length : size;
  if (fault && fault->kind == PACKBUF_FAULT_CORRUPT && size) to[fault->argument % size] ^= 0xFF;
  item->got = fault && fault->kind == PACKBUF_FAULT_SHORTEN && fault->argument < size ? fault->argument : size;
  item->lease.data = to;
  item->lease.size = item->got;
  item->lease.token = (uint64_t)(uintptr_t)to;
  c->answers++;
  return PACKBUF_OK;
}

static void copying_let_go(void *state, uint64_t token) {
  ((copying *)state)->answers--;
  free((void *)(uintptr_t)token);
}

static packbuf_status copying_one(copying *c, packbuf_call *call, packbuf_item *item) {
  const packbuf_fault *fault = NULL;
  copying_object **at;
  for (uint64_t i = 0; i < c->fault_count; i++)
    if (c->faults[i].at == c->seen) fault = &c->faults[i];
  c->seen++;
  if (fault && fault->kind == PACKBUF_FAULT_FAIL) return (packbuf_status)fault->argument;
  if (call->operation == PACKBUF_PUT) return copying_put(c, call, item);
  at = copying_find(c, item->key);
  if (!*at) return PACKBUF_NOT_FOUND;
  if (item->generation && item->generation != (*at)->stat.generation) return PACKBUF_STALE;
  item->stat = (*at)->stat;
  if (call->operation == PACKBUF_GET) return copying_get(c, item, *at, fault);
  if (call->operation == PACKBUF_REMOVE) copying_drop(at);
  return PACKBUF_OK;
}

static void copying_run(void *state, packbuf_call *call) {
  for (uint64_t i = 0; i < call->count; i++) {
    call->items[i].status = copying_one((copying *)state, call, &call->items[i]);
    call->done(call, i);
  }
}

static packbuf_status copying_list(void *state, const char *prefix, uint64_t *cursor, packbuf_listed *listed,
                                   uint64_t capacity, uint64_t *count, uint64_t deadline, packbuf_error *error) {
  const copying *c = (const copying *)state;
  uint64_t at = 0;
  (void)deadline, (void)error;
  *count = 0;
  for (const copying_object *object = c->first; object; object = object->next) {
    if (prefix && strncmp(object->key, prefix, strlen(prefix)) != 0) continue;
    if (at++ < *cursor) continue;
    if (*count == capacity) {
      *cursor = at - 1;
      return PACKBUF_OK;
    }
    strcpy(listed[*count].key, object->key);
    listed[(*count)++].stat = object->stat;
  }
  *cursor = 0;
  return PACKBUF_OK;
}

static void copying_count(void *state, packbuf_counters *counters) {
  const copying *c = (const copying *)state;
  counters->bytes_moved += c->moved;
}

static packbuf_status copying_inject(void *state, const packbuf_fault *faults, uint64_t count, packbuf_error *error) {
  copying *c = (copying *)state;
  (void)error;
  if (count > 8) return PACKBUF_INVALID_ARGUMENT;
  for (uint64_t i = 0; i < count; i++) c->faults[i] = faults[i];
  c->fault_count = count;
  c->seen = 0;
  return PACKBUF_OK;
}

static const packbuf_driver copying_driver = {sizeof(packbuf_driver),
                                              "copy",
                                              copying_open,
                                              copying_close,
                                              copying_describe,
                                              NULL,
                                              NULL,
                                              copying_reserve,
                                              copying_give_back,
                                              copying_run,
                                              copying_let_go,
                                              copying_list,
                                              NULL,
                                              copying_count,
                                              copying_inject,
                                              NULL,
                                              0,
                                              NULL};

/* The same, which is filled by way of a pool. */
static const packbuf_driver copying_pooled = {sizeof(packbuf_driver),
                                              "copy",
                                              copying_open,
                                              copying_close,
                                              copying_describe,
                                              NULL,
                                              NULL,
                                              NULL,
                                              NULL,
                                              copying_run,
                                              copying_let_go,
                                              copying_list,
                                              NULL,
                                              copying_count,
                                              copying_inject,
                                              NULL,
                                              0,
                                              NULL};

#endif
