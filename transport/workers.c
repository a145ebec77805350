/* transport/workers.c: batches without waiting: a queue of tasks, threads that run them, completions in the order they
 * end, and a descriptor that is readable while some wait.
 * May use: system, handle, items. Must not know: drivers. */
#include <fcntl.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

/* States of an item of a task. */
enum { PACKBUF_I_OPEN = 0, PACKBUF_I_CANCELLED = 1, PACKBUF_I_ENDED = 2, PACKBUF_I_POLLED = 3 };

/* One submitted batch. */
typedef struct packbuf_i_task {
  struct packbuf_i_task *next; /* of all, oldest first */
  struct packbuf_i_workers *workers;
  uint64_t ticket, count, deadline, left; /* left: items that were not polled */
  packbuf_operation operation;
  packbuf_item *items;
  void *context;
  int taken;      /* by a thread; 2: which is through with it */
  uint8_t *state; /* of each item, behind the task */
} packbuf_i_task;

typedef struct packbuf_i_ended {
  packbuf_i_task *task;
  uint64_t index;
} packbuf_i_ended;

typedef struct packbuf_i_workers {
  packbuf_store *store;
  packbuf_i_lock lock;
  packbuf_i_signal work, ended;
  packbuf_i_task *first, **last;
  packbuf_i_ended *ring;                            /* of completions; room for all items that are submitted */
  uint64_t room, head, waiting, submitted, tickets; /* submitted: items that were not polled */
  int fds[2];                                       /* to read, to write; the same where there is eventfd */
  int stop;
  unsigned count;
  pthread_t threads[PACKBUF_I_WORKERS];
} packbuf_i_workers;

/* ---- the descriptor ---- */

static int packbuf_i_fds_open(int fds[2]) {
#if defined(__linux__)
  fds[0] = fds[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return fds[0] >= 0;
#else
  if (pipe(fds) != 0) return 0;
  for (int i = 0; i < 2; i++)
    if (fcntl(fds[i], F_SETFL, O_NONBLOCK) != 0 || fcntl(fds[i], F_SETFD, FD_CLOEXEC) != 0) return 0;
  return 1;
#endif
}

static void packbuf_i_fds_close(int fds[2]) {
  if (fds[0] >= 0) (void)close(fds[0]);
  if (fds[1] >= 0 && fds[1] != fds[0]) (void)close(fds[1]);
}

static void packbuf_i_fds_set(const int fds[2]) {
  const uint64_t one = 1;
  const ssize_t written = write(fds[1], &one, 8);
  (void)written; /* it is readable already when there was no room */
}

static void packbuf_i_fds_clear(const int fds[2]) {
  uint64_t counts[8];
  while (read(fds[0], counts, sizeof counts) == (ssize_t)sizeof counts) continue;
}

/* ---- tasks ---- */

static void packbuf_i_task_done(packbuf_i_task *task, packbuf_item *item) {
  packbuf_i_workers *w = task->workers;
  const uint64_t index = (uint64_t)(item - task->items);
  packbuf_i_locked(&w->lock);
  task->state[index] = PACKBUF_I_ENDED;
  w->ring[(w->head + w->waiting) % w->room].task = task;
  w->ring[(w->head + w->waiting) % w->room].index = index;
  if (w->waiting++ == 0) packbuf_i_fds_set(w->fds);
  packbuf_i_signal_all(&w->ended);
  packbuf_i_unlocked(&w->lock);
}

static int packbuf_i_task_state(packbuf_i_task *task, const packbuf_item *item) {
  int state;
  packbuf_i_locked(&task->workers->lock);
  state = task->state[item - task->items];
  packbuf_i_unlocked(&task->workers->lock);
  return state;
}

static int packbuf_i_task_cancelled(packbuf_i_task *task, const packbuf_item *item) {
  return packbuf_i_task_state(task, item) == PACKBUF_I_CANCELLED;
}

static int packbuf_i_task_ended(packbuf_i_task *task, const packbuf_item *item) {
  return packbuf_i_task_state(task, item) >= PACKBUF_I_ENDED;
}

/* The oldest task that no thread has taken; with the lock held. */
static packbuf_i_task *packbuf_i_next_task(packbuf_i_workers *w) {
  packbuf_i_task *task = w->first;
  while (task && task->taken) task = task->next;
  return task;
}

static void *packbuf_i_work(void *context) {
  packbuf_i_workers *w = (packbuf_i_workers *)context;
  packbuf_i_locked(&w->lock);
  while (!w->stop) {
    packbuf_i_task *task = packbuf_i_next_task(w);
    if (!task) {
      (void)packbuf_i_wait(&w->work, &w->lock, PACKBUF_FOREVER);
      continue;
    }
    task->taken = 1;
    packbuf_i_unlocked(&w->lock);
    packbuf_i_run_items(w->store, task->operation, task->items, task->count, task->deadline, task);
    packbuf_i_locked(&w->lock);
    task->taken = 2;
    packbuf_i_signal_all(&w->ended);
  }
  packbuf_i_unlocked(&w->lock);
  return NULL;
}

/* ---- threads ---- */

static void packbuf_i_workers_stop(packbuf_i_workers *w) {
  const packbuf_allocator *heap = &w->store->allocator;
  packbuf_i_locked(&w->lock);
  w->stop = 1;
  packbuf_i_signal_all(&w->work);
  packbuf_i_unlocked(&w->lock);
  for (unsigned i = 0; i < w->count; i++) (void)pthread_join(w->threads[i], NULL);
  packbuf_i_fds_close(w->fds);
  packbuf_i_signal_end(&w->work);
  packbuf_i_signal_end(&w->ended);
  packbuf_i_lock_end(&w->lock);
  (void)packbuf_i_heap(heap, w->ring, (size_t)w->room * sizeof *w->ring, 0);
  (void)packbuf_i_heap(heap, w, sizeof *w, 0);
}

/* Starts the workers of a store, `wanted` threads, with the store's lock held. */
static packbuf_status packbuf_i_workers_start(packbuf_store *store, unsigned wanted, packbuf_error *error) {
  packbuf_i_workers *w = (packbuf_i_workers *)packbuf_i_heap(&store->allocator, NULL, 0, sizeof *w);
  int ok = w != NULL;
  if (!ok) return packbuf_i_no_memory(error);
  w->store = store;
  w->last = &w->first;
  w->fds[0] = w->fds[1] = -1;
  if (!packbuf_i_lock_start(&w->lock) || !packbuf_i_signal_start(&w->work) || !packbuf_i_signal_start(&w->ended)) {
    (void)packbuf_i_heap(&store->allocator, w, sizeof *w, 0);
    return packbuf_i_system_fail(error, "no lock", errno);
  }
  ok = packbuf_i_fds_open(w->fds);
  while (ok && w->count < wanted) {
    ok = pthread_create(&w->threads[w->count], NULL, packbuf_i_work, w) == 0;
    w->count += (unsigned)ok;
  }
  if (w->count) {
    store->workers = w;
    return PACKBUF_OK;
  }
  packbuf_i_workers_stop(w);
  return packbuf_i_system_fail(error, "no thread or descriptor for batches that are submitted", errno);
}

/* The workers, started when there are none. */
static packbuf_status packbuf_i_workers_of(packbuf_store *store, packbuf_i_workers **workers, packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  packbuf_i_locked(&store->lock);
  if (!store->workers) status = packbuf_i_workers_start(store, store->worker_count, error);
  *workers = store->workers;
  packbuf_i_unlocked(&store->lock);
  return status;
}

/* ---- the calls ---- */

/* Room in the ring for `more` items; with the lock held. */
static int packbuf_i_ring_grow(packbuf_i_workers *w, uint64_t more) {
  uint64_t room = w->room ? w->room : 64;
  packbuf_i_ended *ring;
  if (w->submitted + more <= w->room) return 1;
  while (room < w->submitted + more) room *= 2;
  if (room > SIZE_MAX / sizeof *ring) return 0;
  ring = (packbuf_i_ended *)packbuf_i_heap(&w->store->allocator, NULL, 0, (size_t)room * sizeof *ring);
  if (!ring) return 0;
  for (uint64_t i = 0; i < w->waiting; i++) ring[i] = w->ring[(w->head + i) % w->room];
  (void)packbuf_i_heap(&w->store->allocator, w->ring, (size_t)w->room * sizeof *ring, 0);
  w->ring = ring;
  w->room = room;
  w->head = 0;
  return 1;
}

PACKBUF_API packbuf_status packbuf_submit(packbuf_store *store, packbuf_operation operation, packbuf_item *items,
                                          uint64_t count, uint64_t deadline, void *context, uint64_t *ticket,
                                          packbuf_error *error) {
  packbuf_i_workers *w = NULL;
  packbuf_i_task *task;
  packbuf_status status;
  if (operation < PACKBUF_PUT || operation > PACKBUF_REMOVE || count == 0 || count > (1u << 24))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "no operation, or not 1 to 2^24 items");
  status = packbuf_i_workers_of(store, &w, error);
  if (status) return status;
  task = (packbuf_i_task *)packbuf_i_heap(&store->allocator, NULL, 0, sizeof *task + (size_t)count);
  if (!task) return packbuf_i_no_memory(error);
  task->state = (uint8_t *)(task + 1);
  task->workers = w;
  task->count = task->left = count;
  task->deadline = deadline;
  task->operation = operation;
  task->items = items;
  task->context = context;
  packbuf_i_locked(&w->lock);
  if (!packbuf_i_ring_grow(w, count)) {
    packbuf_i_unlocked(&w->lock);
    (void)packbuf_i_heap(&store->allocator, task, sizeof *task + (size_t)count, 0);
    return packbuf_i_no_memory(error);
  }
  w->submitted += count;
  *ticket = task->ticket = ++w->tickets;
  *w->last = task;
  w->last = &task->next;
  packbuf_i_signal_all(&w->work);
  packbuf_i_unlocked(&w->lock);
  return PACKBUF_OK;
}

/* Takes a task off the list whose items were all polled, once its thread is through with it; with the lock held. */
static void packbuf_i_task_end(packbuf_i_workers *w, packbuf_i_task *task) {
  packbuf_i_task **link = &w->first;
  while (task->taken != 2) (void)packbuf_i_wait(&w->ended, &w->lock, PACKBUF_FOREVER);
  while (*link != task) link = &(*link)->next;
  *link = task->next;
  if (w->last == &task->next) w->last = link;
  (void)packbuf_i_heap(&w->store->allocator, task, sizeof *task + (size_t)task->count, 0);
}

PACKBUF_API packbuf_status packbuf_poll(packbuf_store *store, packbuf_completion *completions, uint64_t capacity,
                                        uint64_t *count, uint64_t deadline, packbuf_error *error) {
  packbuf_i_workers *w = NULL;
  packbuf_status status = packbuf_i_workers_of(store, &w, error);
  *count = 0;
  if (status) return status;
  packbuf_i_locked(&w->lock);
  if (!w->submitted) {
    packbuf_i_unlocked(&w->lock);
    return packbuf_i_call_fail(error, PACKBUF_NOT_FOUND, "nothing is submitted");
  }
  while (!w->waiting && packbuf_i_wait(&w->ended, &w->lock, deadline)) continue;
  while (*count < capacity && w->waiting) {
    const packbuf_i_ended one = w->ring[w->head];
    packbuf_completion *c = &completions[(*count)++];
    w->head = (w->head + 1) % w->room;
    if (--w->waiting == 0) packbuf_i_fds_clear(w->fds);
    w->submitted--;
    one.task->state[one.index] = PACKBUF_I_POLLED;
    c->ticket = one.task->ticket;
    c->index = one.index;
    c->item = &one.task->items[one.index];
    c->context = one.task->context;
    c->left = --one.task->left;
    if (!c->left) packbuf_i_task_end(w, one.task);
  }
  packbuf_i_unlocked(&w->lock);
  if (*count || !capacity || deadline == PACKBUF_NO_WAIT) return PACKBUF_OK;
  return packbuf_i_call_fail(error, PACKBUF_TIMEOUT, "no completion came before the deadline");
}

PACKBUF_API packbuf_status packbuf_cancel(packbuf_store *store, uint64_t ticket, uint64_t index, packbuf_error *error) {
  packbuf_i_workers *w = NULL;
  packbuf_i_task *task;
  int found = 0;
  const packbuf_status status = packbuf_i_workers_of(store, &w, error);
  if (status) return status;
  packbuf_i_locked(&w->lock);
  task = w->first;
  while (task && task->ticket != ticket) task = task->next;
  for (uint64_t i = 0; task && i < task->count; i++) {
    if ((index != PACKBUF_NOWHERE && i != index) || task->state[i] == PACKBUF_I_POLLED) continue;
    found = 1;
    if (task->state[i] == PACKBUF_I_OPEN) task->state[i] = PACKBUF_I_CANCELLED;
  }
  packbuf_i_unlocked(&w->lock);
  return found ? PACKBUF_OK : packbuf_i_call_fail(error, PACKBUF_NOT_FOUND, "no such item is submitted");
}

PACKBUF_API packbuf_status packbuf_store_fd(packbuf_store *store, int *fd, packbuf_error *error) {
  packbuf_i_workers *w = NULL;
  const packbuf_status status = packbuf_i_workers_of(store, &w, error);
  if (!status) *fd = w->fds[0];
  return status;
}

/* Whether anything that was submitted has not been polled. */
static int packbuf_i_workers_busy(packbuf_i_workers *w) {
  int busy;
  packbuf_i_locked(&w->lock);
  busy = w->submitted != 0;
  packbuf_i_unlocked(&w->lock);
  return busy;
}
