/* tools/input.c: files to read: mapped when they are regular files, else read whole. A mapped file that is cut short
 * under the program raises SIGBUS: the handler here names the file, removes temporaries and exits 1.
 * May use: messages, outputs. Must not know: what the bytes mean. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Mappings that the handler knows: a list that only grows at its head; `data` NULL: no longer mapped. */
typedef struct mapping {
  struct mapping *next;
  const char *name;
  const unsigned char *volatile data;
  size_t size;
  int is_output;
} mapping;
static mapping *volatile mappings;

static void write_all(const char *string) {
  size_t size = strlen(string);
  while (size) {
    ssize_t n = write(2, string, size);
    if (n <= 0) return;
    string += n;
    size -= (size_t)n;
  }
}

static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
  const unsigned char *at = (const unsigned char *)info->si_addr;
  const mapping *m;
  (void)signal_number;
  (void)context;
  for (m = mappings; m; m = m->next)
    if (m->data && (uintptr_t)at >= (uintptr_t)m->data && (uintptr_t)at - (uintptr_t)m->data < m->size) break;
  write_all("packbuf: ");
  if (m) {
    write_all(m->name);
    write_all(": ");
  }
  write_all(m && m->is_output ? "cannot write: no space left, or the file changed meanwhile\n"
                              : "the file was cut short or cannot be read while it was in use\n");
  outputs_remove();
  _exit(TOOL_NO);
}

void watch_mapping(const char *name, const void *data, size_t size, int is_output) {
  static int installed;
  mapping *m = (mapping *)must_alloc(sizeof *m);
  if (!installed) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
    installed = 1;
  }
  m->name = name;
  m->data = (const unsigned char *)data;
  m->size = size;
  m->is_output = is_output;
  m->next = mappings;
  mappings = m;
}

void unwatch_mapping(const void *data) {
  mapping *m;
  for (m = mappings; m; m = m->next)
    if (m->data == (const unsigned char *)data) m->data = NULL;
}

/* All of a pipe or device. */
static void read_whole(source *to, int fd) {
  text all = {NULL, 0, 0};
  for (;;) {
    char *room = text_room(&all, 1 << 16);
    ssize_t n = read(fd, room, all.capacity - all.size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(to->name, NULL);
    if (n == 0) break;
    all.size += (size_t)n;
    progress("reading", all.size, 0);
  }
  to->data = (const uint8_t *)all.data;
  to->size = all.size;
}

void source_open(source *to, const char *name) {
  struct stat about;
  int fd = 0;
  memset(to, 0, sizeof *to);
  to->name = name;
  if (strcmp(name, "-") != 0) fd = open(name, O_RDONLY);
  if (fd < 0 || fstat(fd, &about) != 0) fail_errno(name, NULL);
  if (S_ISDIR(about.st_mode)) fail(name, "is a folder");
  if (S_ISREG(about.st_mode) && about.st_size > 0 && (fd != 0 || lseek(fd, 0, SEEK_CUR) == 0)) {
    void *data;
    if ((uint64_t)about.st_size > SIZE_MAX) fail(name, "too large for this machine's addresses");
    data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data != MAP_FAILED) {
      to->data = (const uint8_t *)data;
      to->size = (uint64_t)about.st_size;
      to->mapped = 1;
      watch_mapping(name, data, (size_t)about.st_size, 0);
    }
  }
  if (!to->mapped) read_whole(to, fd);
  if (fd != 0) close(fd);
}

void source_close(source *from) {
  union {
    const uint8_t *in;
    uint8_t *out;
  } data;
  data.in = from->data;
  if (from->mapped) {
    unwatch_mapping(from->data);
    munmap(data.out, (size_t)from->size);
  } else {
    free(data.out);
  }
  memset(from, 0, sizeof *from);
}

void open_packed(const verb *command, source *from, packbuf_view *view, const char *name, const char *decoded_bytes) {
  packbuf_limits limits = packbuf_default_limits();
  packbuf_error error;
  if (decoded_bytes) limits.decoded_bytes = parse_number(command, "decoded-bytes", decoded_bytes);
  source_open(from, name);
  if (packbuf_open(view, from->data, from->size, PACKBUF_OPEN_EXACT | PACKBUF_OPEN_TABLES, &limits, &error))
    fail_status(name, &error);
}
