/* tools/output.c: files to write. Each is a temporary file beside its place until outputs_commit renames it, so nothing
 * half-written is ever seen; a failure, SIGINT, SIGTERM or SIGHUP removes the temporaries. Pipes, devices and stdout
 * are written directly.
 * May use: messages. Must not know: what is written. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is to be renamed, or removed on failure. */
typedef struct temporary {
  struct temporary *next;
  char *path, *target; /* target NULL: a folder that was made */
  volatile sig_atomic_t live;
} temporary;
static temporary *volatile temporaries; /* newest first */

void outputs_remove(void) {
  temporary *t;
  for (t = temporaries; t; t = t->next)
    if (t->live) {
      if (t->target) unlink(t->path);
      else rmdir(t->path);
      t->live = 0;
    }
}

static void on_signal(int number) {
  outputs_remove();
  signal(number, SIG_DFL);
  raise(number);
}

void catch_signals(void) {
  static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction action;
  size_t i;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    struct sigaction before;
    if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN) continue; /* nohup */
    sigaction(numbers[i], &action, NULL);
  }
  signal(SIGXFSZ, SIG_IGN); /* a file size limit becomes an error of the call */
}

/* Creates a file or folder and notes it, with no signal in between. Returns the fd (folder: 0) or -1. */
static int make_noted(const char *path, const char *target) {
  sigset_t all, before;
  temporary *t = (temporary *)must_alloc(sizeof *t);
  int fd, problem;
  t->path = strdup(path);
  t->target = target ? strdup(target) : NULL;
  if (!t->path || (target && !t->target)) fail_memory();
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &before);
  fd = target ? open(path, O_RDWR | O_CREAT | O_EXCL, 0666) : mkdir(path, 0777);
  problem = errno;
  if (fd >= 0) {
    t->live = 1;
    t->next = temporaries;
    temporaries = t;
  }
  sigprocmask(SIG_SETMASK, &before, NULL);
  if (fd < 0) {
    free(t->path);
    free(t->target);
    free(t);
  }
  errno = problem;
  return fd;
}

void make_folder(const char *name) {
  struct stat about;
  if (stat(name, &about) == 0) {
    if (!S_ISDIR(about.st_mode)) fail(name, "is no folder");
    return;
  }
  if (make_noted(name, NULL) < 0) fail_errno(name, NULL);
}

static void open_temporary(output *out, const char *name) {
  static unsigned counter;
  char *real = realpath(name, NULL);
  const char *target = real ? real : name, *slash = strrchr(target, '/');
  int attempt;
  for (attempt = 0; attempt < 100; attempt++) {
    text path = {NULL, 0, 0};
    if (slash) text_add(&path, target, (size_t)(slash - target) + 1);
    text_printf(&path, ".packbuf-%ld-%u.tmp", (long)getpid(), counter++);
    text_add(&path, "", 1);
    out->fd = make_noted(path.data, target);
    text_free(&path);
    if (out->fd >= 0 || errno != EEXIST) break;
  }
  if (out->fd < 0) fail_errno(name, "cannot write");
  out->temporary = 1;
  free(real);
}

void output_open(output *out, const char *name) {
  struct stat about;
  memset(out, 0, sizeof *out);
  out->name = name;
  if (strcmp(name, "-") == 0) {
    out->fd = 1;
    out->name = "stdout";
  } else if (stat(name, &about) == 0 && !S_ISREG(about.st_mode)) {
    if (S_ISDIR(about.st_mode)) fail(name, "is a folder");
    out->fd = open(name, O_WRONLY);
    if (out->fd < 0) fail_errno(name, NULL);
  } else {
    open_temporary(out, name);
  }
}

static void write_fd(output *out, const char *data, size_t size) {
  while (size) {
    ssize_t n = write(out->fd, data, size > (1 << 30) ? 1 << 30 : size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE) { /* SIGPIPE was ignored: end as quietly as it would */
      outputs_remove();
      _exit(TOOL_NO);
    }
    if (n < 0) fail_errno(out->name, "cannot write");
    data += n;
    size -= (size_t)n;
  }
}

void output_flush(output *out) {
  write_fd(out, out->buffer.data, out->buffer.size);
  out->buffer.size = 0;
}

void output_text(output *out) {
  if (out->buffer.size >= 1 << 16) output_flush(out);
}

void output_write(output *out, const void *data, size_t size) {
  if (size >= 1 << 16) {
    output_flush(out);
    write_fd(out, (const char *)data, size);
  } else {
    text_add(&out->buffer, (const char *)data, size);
    output_text(out);
  }
}

void *output_map(output *out, uint64_t size, int exact) {
  int problem = EINVAL;
  if (!out->temporary || !size || size > SIZE_MAX || size > INT64_MAX) return NULL;
#ifndef __APPLE__
  if (exact)
    problem = posix_fallocate(out->fd, 0, (off_t)size); /* so that a full disk is an error here, not SIGBUS later */
#endif
  (void)exact;
  if (problem == EINVAL || problem == EOPNOTSUPP) problem = ftruncate(out->fd, (off_t)size) ? errno : 0;
  if (problem) {
    errno = problem;
    fail_errno(out->name, "cannot write");
  }
  out->map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, out->fd, 0);
  if (out->map == MAP_FAILED) {
    out->map = NULL;
    return NULL;
  }
  out->map_size = (size_t)size;
  watch_mapping(out->name, out->map, out->map_size, 1);
  return out->map;
}

void output_trim(output *out, uint64_t size) {
  if (size < out->map_size && ftruncate(out->fd, (off_t)size) != 0) fail_errno(out->name, "cannot write");
}

void output_close(output *out) {
  output_flush(out);
  text_free(&out->buffer);
  if (out->map) {
    unwatch_mapping(out->map);
    if (munmap(out->map, out->map_size) != 0) fail_errno(out->name, "cannot write");
  }
  if (close(out->fd) != 0 && !(out->fd == 1 && errno == EBADF))
    fail_errno(out->name, "cannot write"); /* stdout may be closed when nothing is said */
}

void outputs_commit(void) {
  temporary *t, *reversed = NULL;
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &before);
  while (temporaries) { /* oldest first */
    t = temporaries;
    temporaries = t->next;
    t->next = reversed;
    reversed = t;
  }
  temporaries = reversed;
  for (t = temporaries; t; t = t->next) {
    if (!t->live) continue;
    if (t->target && rename(t->path, t->target) != 0) fail_errno(t->target, "cannot write");
    t->live = 0;
  }
  while (temporaries) {
    t = temporaries;
    temporaries = t->next;
    free(t->path);
    free(t->target);
    free(t);
  }
  sigprocmask(SIG_SETMASK, &before, NULL);
}
