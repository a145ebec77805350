/* tests/double/mooncake.c: a shared library with the 19 functions of Mooncake's store_c.h, as its documentation says
 * they behave, for tests: one master in this process, whose lease clock, faults, delays and room the test turns by the
 * functions double_... at the end. A get and a question whether something exists grant a lease; a removal under one is
 * refused; a put on an existing key says 0 and writes nothing; a get's size is a capacity; size 0 stores nothing; of a
 * key twice in a batch the last buffer wins; memory must be registered, ranges apart from each other.
 * May use: the C library, POSIX threads. Must not know: packbuf. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))

struct mooncake_replicate_config {
    size_t replica_num;
    int with_soft_pin, with_hard_pin;
    const char **preferred_segments;
    size_t preferred_segments_count;
};
typedef struct mooncake_replicate_config config_type;

enum {
    OK = 0,
    INTERNAL_ERROR = -1,
    NO_AVAILABLE_HANDLE = -200,
    INVALID_PARAMS = -600,
    OBJECT_NOT_FOUND = -704,
    OBJECT_HAS_LEASE = -706
};

/* In the order of store_c.h; also the numbers of the functions for double_fail and the like. */
enum {
    CREATE,
    DESTROY,
    SETUP,
    INIT_ALL,
    HEALTH_CHECK,
    PUT,
    PUT_FROM,
    BATCH_PUT_FROM,
    GET_INTO,
    BATCH_GET_INTO,
    IS_EXIST,
    BATCH_IS_EXIST,
    GET_SIZE,
    GET_HOSTNAME,
    REMOVE,
    REMOVE_BY_REGEX,
    REMOVE_ALL,
    REGISTER_BUFFER,
    UNREGISTER_BUFFER,
    FUNCTIONS
};

typedef struct object {
    struct object *next;
    char *key;
    uint8_t *bytes;
    size_t size;
    uint64_t leased_until; /* of the lease clock, ms */
    int pinned;
} object;

typedef struct range {
    struct range *next;
    const uint8_t *from;
    size_t size;
} range;

/* What happens at some call of a function, or at every call for a name. */
typedef struct plan {
    struct plan *next;
    int function, code, ended; /* code: the answer; 0: none but its own */
    uint64_t at, milliseconds; /* at which call; how long that takes */
    int lie;                   /* the call is made all the same */
    char *part;                /* NULL, or only for keys that this is a part of */
} plan;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    object *objects;
    range *ranges;
    plan *plans;
    uint64_t calls[FUNCTIONS], clock, lease, capacity, used, waiting;
    int clients, unhealthy, gate; /* gate: the function whose calls wait; -1: none */
    int lie;                      /* what the call just made says in the end */
} all = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, NULL, NULL, {0}, 0, 10000, UINT64_MAX, 0, 0,
         0, 0, -1, 0};

static void lock(void) { pthread_mutex_lock(&all.mutex); }
static void unlock(void) { pthread_mutex_unlock(&all.mutex); }

/* Counts a call, with the lock held, and does what is planned for it; 0 or the planned answer. */
static int counted(int function, const char *key)
{
    const uint64_t number = all.calls[function]++;
    int code = 0;
    for (plan *p = all.plans; p; p = p->next) {
        if (p->ended || p->function != function || (p->part && !(key && strstr(key, p->part)))) continue;
        if (!p->part && p->at != number) continue;
        p->ended = 1;
        code = p->lie ? 0 : p->code;
        all.lie = p->lie ? p->code : 0;
        if (p->milliseconds) {
            struct timespec some;
            some.tv_sec = (time_t)(p->milliseconds / 1000);
            some.tv_nsec = (long)(p->milliseconds % 1000) * 1000000;
            unlock();
            nanosleep(&some, NULL);
            lock();
        }
        break;
    }
    all.waiting++;
    pthread_cond_broadcast(&all.changed);
    while (all.gate == function) pthread_cond_wait(&all.changed, &all.mutex);
    all.waiting--;
    return code;
}

static object **find(const char *key)
{
    object **at = &all.objects;
    while (*at && strcmp((*at)->key, key) != 0) at = &(*at)->next;
    return at;
}

static void drop(object **at)
{
    object *gone = *at;
    *at = gone->next;
    all.used -= gone->size;
    free(gone->key);
    free(gone->bytes);
    free(gone);
}

static int registered(const void *buffer, size_t size)
{
    const uint8_t *from = (const uint8_t *)buffer;
    for (const range *r = all.ranges; r; r = r->next)
        if (from >= r->from && from + size <= r->from + r->size) return 1;
    return 0;
}

static int stored(const char *key, const void *value, size_t size, const config_type *config)
{
    object *made;
    if (!key || (!value && size)) return INTERNAL_ERROR;
    if (config && config->replica_num == 0) return INVALID_PARAMS;
    if (size == 0) return OK; /* and nothing is there */
    if (*find(key)) return OK; /* already there: what it was it stays */
    if (size > all.capacity || all.used > all.capacity - size) return NO_AVAILABLE_HANDLE;
    made = (object *)calloc(1, sizeof *made);
    made->key = (char *)malloc(strlen(key) + 1);
    strcpy(made->key, key);
    made->bytes = (uint8_t *)malloc(size);
    memcpy(made->bytes, value, size);
    made->size = size;
    made->pinned = config && config->with_hard_pin;
    made->next = all.objects;
    all.objects = made;
    all.used += size;
    return OK;
}

static int64_t fetched(const char *key, void *buffer, size_t capacity)
{
    object *there;
    if (!key || !buffer) return INTERNAL_ERROR;
    there = *find(key);
    if (!there) return OBJECT_NOT_FOUND;
    there->leased_until = all.clock + all.lease;
    if (there->size > capacity || !registered(buffer, there->size)) return INVALID_PARAMS;
    memcpy(buffer, there->bytes, there->size);
    return (int64_t)there->size;
}

static int exists(const char *key)
{
    object *there;
    if (!key) return INTERNAL_ERROR;
    there = *find(key);
    if (there) there->leased_until = all.clock + all.lease;
    return there != NULL;
}

API void *mooncake_store_create(void)
{
    lock();
    const int code = counted(CREATE, NULL);
    if (!code) all.clients++;
    unlock();
    return code ? NULL : malloc(1);
}

API void mooncake_store_destroy(void *store)
{
    if (!store) return;
    lock();
    (void)counted(DESTROY, NULL);
    all.clients--;
    unlock();
    free(store);
}

API int mooncake_store_setup(void *store, const char *host, const char *metadata, uint64_t segment, uint64_t buffer,
                             const char *protocol, const char *device, const char *master)
{
    int code;
    (void)buffer, (void)protocol, (void)device, (void)master;
    if (!store || !host || !metadata) return INTERNAL_ERROR;
    lock();
    code = counted(SETUP, NULL);
    if (!code && all.capacity == UINT64_MAX) all.capacity = segment;
    unlock();
    return code;
}

API int mooncake_store_init_all(void *store, const char *protocol, const char *device, uint64_t segment)
{
    return mooncake_store_setup(store, "localhost:12345", "127.0.0.1:2379", segment, 0, protocol, device, NULL);
}

API int mooncake_store_health_check(void *store)
{
    int code;
    lock();
    code = counted(HEALTH_CHECK, NULL);
    if (!code) code = !store ? 1 : all.unhealthy;
    unlock();
    return code;
}

API int mooncake_store_put(void *store, const char *key, const void *value, size_t size, const config_type *config)
{
    int code;
    if (!store) return INTERNAL_ERROR;
    lock();
    code = counted(PUT, key);
    if (!code) code = stored(key, value, size, config);
    unlock();
    return code;
}

API int mooncake_store_put_from(void *store, const char *key, void *buffer, size_t size, const config_type *config)
{
    int code;
    if (!store) return INTERNAL_ERROR;
    lock();
    code = counted(PUT_FROM, key);
    if (!code) code = !size || registered(buffer, size) ? stored(key, buffer, size, config) : INVALID_PARAMS;
    unlock();
    return code;
}

API int mooncake_store_batch_put_from(void *store, const char **keys, void **buffers, const size_t *sizes,
                                      size_t count, const config_type *config, int *results)
{
    int code;
    if (!store || !keys || !buffers || !sizes || !results) return INTERNAL_ERROR;
    lock();
    code = counted(BATCH_PUT_FROM, NULL);
    for (size_t i = 0; i < count && !code; i++) {
        size_t last = i;
        for (size_t j = i + 1; j < count; j++)
            if (strcmp(keys[i], keys[j]) == 0) last = j;
        results[i] = counted(PUT_FROM, keys[i]);
        if (results[i]) continue;
        results[i] = !sizes[last] || registered(buffers[last], sizes[last])
                         ? stored(keys[i], buffers[last], sizes[last], config)
                         : INVALID_PARAMS;
        if (all.lie) results[i] = all.lie;
        all.lie = 0;
    }
    unlock();
    return code;
}

API int64_t mooncake_store_get_into(void *store, const char *key, void *buffer, size_t capacity)
{
    int64_t code;
    if (!store) return INTERNAL_ERROR;
    lock();
    code = counted(GET_INTO, key);
    if (!code) code = fetched(key, buffer, capacity);
    unlock();
    return code;
}

API int mooncake_store_batch_get_into(void *store, const char **keys, void **buffers, const size_t *sizes,
                                      size_t count, int64_t *results)
{
    int code;
    if (!store || !keys || !buffers || !sizes || !results) return INTERNAL_ERROR;
    lock();
    code = counted(BATCH_GET_INTO, NULL);
    for (size_t i = 0; i < count && !code; i++) {
        results[i] = counted(GET_INTO, keys[i]);
        if (!results[i]) results[i] = fetched(keys[i], buffers[i], sizes[i]);
    }
    unlock();
    return code;
}

API int mooncake_store_is_exist(void *store, const char *key)
{
    int code;
    if (!store) return INTERNAL_ERROR;
    lock();
    code = counted(IS_EXIST, key);
    if (!code) code = exists(key);
    unlock();
    return code;
}

API int mooncake_store_batch_is_exist(void *store, const char **keys, size_t count, int *results)
{
    int code;
    if (!store || !keys || !results) return INTERNAL_ERROR;
    lock();
    code = counted(BATCH_IS_EXIST, NULL);
    for (size_t i = 0; i < count && !code; i++) results[i] = exists(keys[i]);
    unlock();
    return code;
}

API int64_t mooncake_store_get_size(void *store, const char *key)
{
    int64_t code;
    if (!store || !key) return INTERNAL_ERROR;
    lock();
    code = counted(GET_SIZE, key);
    if (!code) code = *find(key) ? (int64_t)(*find(key))->size : OBJECT_NOT_FOUND;
    unlock();
    return code;
}

API int mooncake_store_get_hostname(void *store, char *name, size_t size)
{
    if (!store || !name || size < 10) return INTERNAL_ERROR;
    memcpy(name, "localhost", 10);
    return OK;
}

API int mooncake_store_remove(void *store, const char *key, int force)
{
    int code;
    object **at;
    if (!store || !key) return INTERNAL_ERROR;
    lock();
    code = counted(REMOVE, key);
    if (!code) {
        at = find(key);
        if (!*at) code = OBJECT_NOT_FOUND;
        else if (!force && (*at)->leased_until > all.clock) code = OBJECT_HAS_LEASE;
        else drop(at);
    }
    unlock();
    return code;
}

API int64_t mooncake_store_remove_by_regex(void *store, const char *pattern, int force)
{
    (void)store, (void)pattern, (void)force;
    return INTERNAL_ERROR;
}

API int64_t mooncake_store_remove_all(void *store, int force)
{
    int64_t count = 0;
    if (!store) return INTERNAL_ERROR;
    lock();
    for (object **at = &all.objects; *at;) {
        if (!force && (*at)->leased_until > all.clock) {
            at = &(*at)->next;
            continue;
        }
        drop(at);
        count++;
    }
    unlock();
    return count;
}

API int mooncake_store_register_buffer(void *store, void *buffer, size_t size)
{
    const uint8_t *from = (const uint8_t *)buffer;
    int code;
    range *made;
    if (!store || !buffer || !size) return INTERNAL_ERROR;
    lock();
    code = counted(REGISTER_BUFFER, NULL);
    for (const range *r = all.ranges; r && !code; r = r->next)
        if (from < r->from + r->size && r->from < from + size) code = INVALID_PARAMS;
    if (!code) {
        made = (range *)calloc(1, sizeof *made);
        made->from = from;
        made->size = size;
        made->next = all.ranges;
        all.ranges = made;
    }
    unlock();
    return code;
}

API int mooncake_store_unregister_buffer(void *store, void *buffer)
{
    int code;
    if (!store) return INTERNAL_ERROR;
    lock();
    code = counted(UNREGISTER_BUFFER, NULL);
    if (!code) {
        range **at = &all.ranges, *gone;
        while (*at && (*at)->from != (const uint8_t *)buffer) at = &(*at)->next;
        gone = *at;
        if (gone) *at = gone->next;
        else code = INVALID_PARAMS;
        free(gone);
    }
    unlock();
    return code;
}

/* ---- what the test turns ---- */

/* Empties everything and forgets all plans. */
API void double_reset(void)
{
    lock();
    while (all.objects) drop(&all.objects);
    while (all.plans) {
        plan *gone = all.plans;
        all.plans = gone->next;
        free(gone->part);
        free(gone);
    }
    memset(all.calls, 0, sizeof all.calls);
    all.clock = 0;
    all.lease = 10000;
    all.capacity = UINT64_MAX;
    all.unhealthy = 0;
    all.gate = -1;
    pthread_cond_broadcast(&all.changed);
    unlock();
}

/* The lease clock goes on. */
API void double_clock(uint64_t milliseconds)
{
    lock();
    all.clock += milliseconds;
    unlock();
}

API void double_capacity(uint64_t bytes)
{
    lock();
    all.capacity = bytes;
    unlock();
}

/* The call of a function that comes `after` so many others takes so long and answers `code`; part: the first one for a
 * key that this is a part of instead. */
API void double_fail(int function, uint64_t after, const char *part, int code, uint64_t milliseconds)
{
    plan *made = (plan *)calloc(1, sizeof *made);
    lock();
    made->function = function;
    made->at = all.calls[function] + after;
    made->code = code;
    made->milliseconds = milliseconds;
    if (part) {
        made->part = (char *)malloc(strlen(part) + 1);
        strcpy(made->part, part);
    }
    made->next = all.plans;
    all.plans = made;
    unlock();
}

/* The call of put_from that comes next puts, but says that it failed. */
API void double_lie(int function, int code)
{
    double_fail(function, 0, NULL, code, 0);
    lock();
    all.plans->lie = 1;
    unlock();
}

/* Calls of this function wait until another gate is set; -1: none. */
API void double_gate(int function)
{
    lock();
    all.gate = function;
    pthread_cond_broadcast(&all.changed);
    unlock();
}

/* Waits until a call stands at the gate. */
API void double_await(void)
{
    lock();
    while (!all.waiting) pthread_cond_wait(&all.changed, &all.mutex);
    unlock();
}

API uint64_t double_calls(int function)
{
    uint64_t calls;
    lock();
    calls = all.calls[function];
    unlock();
    return calls;
}

API void double_health(int code)
{
    lock();
    all.unhealthy = code;
    unlock();
}

/* What there is: 0: objects, 1: their bytes, 2: clients, 3: registered ranges, 4: objects without a hard pin. */
API uint64_t double_state(int which)
{
    uint64_t count = 0;
    lock();
    if (which == 1) count = all.used;
    else if (which == 2) count = (uint64_t)all.clients;
    else if (which == 3)
        for (const range *r = all.ranges; r; r = r->next) count++;
    else
        for (const object *o = all.objects; o; o = o->next) count += which == 0 || !o->pinned;
    unlock();
    return count;
}

/* The bytes and size of an object; NULL: there is none. resize: it gets the size `to`. */
API uint8_t *double_object(const char *key, size_t *size, int resize, size_t to)
{
    object *o;
    uint8_t *bytes = NULL;
    lock();
    o = *find(key);
    if (o && resize) {
        uint8_t *fresh = (uint8_t *)calloc(1, to ? to : 1);
        memcpy(fresh, o->bytes, to < o->size ? to : o->size);
        free(o->bytes);
        o->bytes = fresh;
        all.used += to;
        all.used -= o->size;
        o->size = to;
    }
    if (o) {
        bytes = o->bytes;
        if (size) *size = o->size;
    }
    unlock();
    return bytes;
}

/* Takes an object away, whatever holds it. */
API int double_lose(const char *key)
{
    object **at;
    int there;
    lock();
    at = find(key);
    there = *at != NULL;
    if (there) drop(at);
    unlock();
    return there;
}
