/* tools/message.c: what the command says on stderr: one-line messages and the progress bar; and when colour is used.
 * Text from files is shown with its control characters escaped, so that it can neither break the line nor drive the
 * terminal.
 * May use: outputs (to remove temporaries). Must not know: where messages come from. */
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

static int progress_shown;
static double progress_start, progress_last;

int colour_on(int fd) {
  const char *off = getenv("NO_COLOR"), *terminal = getenv("TERM");
  return isatty(fd) && !(off && *off) && !(terminal && strcmp(terminal, "dumb") == 0);
}

size_t show_text(const char *string, size_t size, char *to, size_t capacity) {
  size_t i, n = 0;
  for (i = 0; i < size && n + 8 < capacity; i++) {
    unsigned char c = (unsigned char)string[i];
    if (c == 0xc2 && i + 1 < size && (unsigned char)string[i + 1] < 0xa0 && (unsigned char)string[i + 1] >= 0x80)
      n += (size_t)snprintf(to + n, capacity - n, "\\x%02x", (unsigned)(unsigned char)string[++i]);
    else if (c < 0x20 || c == 0x7f) n += (size_t)snprintf(to + n, capacity - n, "\\x%02x", (unsigned)c);
    else to[n++] = (char)c;
  }
  if (capacity) to[n] = 0;
  return n;
}

static void say_list(const char *file, const char *format, va_list arguments) {
  char line[4096], shown[8192];
  size_t n;
  int size;
  progress_end();
  n = (size_t)snprintf(line, sizeof line, "packbuf: ");
  if (file) {
    size = snprintf(line + n, sizeof line - n, "%s: ", strcmp(file, "-") == 0 ? "stdin" : file);
    n += size > 0 ? (size_t)size : 0;
    if (n > sizeof line - 1) n = sizeof line - 1;
  }
  size = vsnprintf(line + n, sizeof line - n, format, arguments);
  n += size > 0 ? (size_t)size : 0;
  if (n > sizeof line - 1) n = sizeof line - 1;
  show_text(line, n, shown, sizeof shown);
  if (colour_on(2)) fprintf(stderr, "\033[31m%.7s\033[0m%s\n", shown, shown + 7);
  else fprintf(stderr, "%s\n", shown);
  fflush(stderr);
}

void say(const char *file, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say_list(file, format, arguments);
  va_end(arguments);
}

void fail(const char *file, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say_list(file, format, arguments);
  va_end(arguments);
  outputs_remove();
  exit(TOOL_NO);
}

void fail_errno(const char *file, const char *what) {
  const char *reason = strerror(errno);
  if (what) fail(file, "%s: %s", what, reason);
  fail(file, "%s", reason);
}

void fail_usage(const verb *command, const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (command) say(NULL, "%s: %s (see packbuf %s --help)", command->name, line, command->name);
  else say(NULL, "%s (see packbuf --help)", line);
  outputs_remove();
  exit(TOOL_USAGE);
}

void fail_status(const char *file, const packbuf_error *error) {
  char line[1024];
  packbuf_error_format(error, line, sizeof line);
  fail(file, "%s", line);
}

void fail_memory(void) { fail(NULL, "out of memory"); }

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void progress(const char *label, uint64_t done, uint64_t total) {
  static int terminal = -1;
  double now;
  int i, filled;
  if (terminal < 0) terminal = isatty(2);
  if (!terminal) return;
  now = seconds();
  if (progress_start <= 0) progress_start = now;
  if (now - progress_start < 0.5 || now - progress_last < 0.1) return;
  progress_last = now;
  progress_shown = 1;
  if (!total) {
    fprintf(stderr, "\r\033[K%s ...", label);
  } else {
    filled = (int)(30.0 * (double)(done < total ? done : total) / (double)total);
    fprintf(stderr, "\r\033[K%s [", label);
    for (i = 0; i < 30; i++) fputc(i < filled ? '#' : '.', stderr);
    fprintf(stderr, "] %3d %%", (int)(100.0 * (double)(done < total ? done : total) / (double)total));
  }
  fflush(stderr);
}

void progress_end(void) {
  if (progress_shown) {
    fputs("\r\033[K", stderr);
    fflush(stderr);
  }
  progress_shown = 0;
}
