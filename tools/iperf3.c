/* tools/iperf3.c: iperf3 as something to compare with: a server of it on this machine, and one stream at a time.
 * May use: messages, memory, stores.h. Must not know: what is measured beside it. */
#include "stores.h" /* first: it says which functions of the system are wanted */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static pid_t server;
static char port[8];

static void end_server(void) {
  if (server > 0) (void)kill(server, SIGTERM);
  server = 0;
}

/* A port that is free just now. */
static void find_port(void) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  if (fd < 0 || bind(fd, (const struct sockaddr *)(const void *)&address, sizeof address) != 0 ||
      getsockname(fd, (struct sockaddr *)(void *)&address, &size) != 0)
    fail_errno("iperf3", "no free port");
  snprintf(port, sizeof port, "%u", (unsigned)ntohs(address.sin_port));
  (void)close(fd);
}

/* Starts it; *from: where its stdout is read. */
static pid_t start(const char *const *words, int *from) {
  posix_spawn_file_actions_t actions;
  union {
    const char *const *in;
    char *const *out;
  } arguments;
  int ends[2], code;
  pid_t child;
  arguments.in = words;
  if (pipe(ends) != 0 || fcntl(ends[0], F_SETFD, FD_CLOEXEC) != 0) fail_errno("iperf3", NULL);
  (void)posix_spawn_file_actions_init(&actions);
  (void)posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  (void)posix_spawn_file_actions_addclose(&actions, ends[1]);
  (void)posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  code = posix_spawnp(&child, words[0], &actions, NULL, arguments.out, environ);
  (void)posix_spawn_file_actions_destroy(&actions);
  (void)close(ends[1]);
  if (code) fail("iperf3", "cannot be run: %s", strerror(code));
  *from = ends[0];
  return child;
}

/* Reads until `word` was there (NULL: to the end). */
static void read_until(int fd, const char *word, text *to) {
  for (;;) {
    const ssize_t came = read(fd, text_room(to, 4096), 4095);
    if (came < 0 && errno == EINTR) continue;
    if (came > 0) to->size += (size_t)came;
    to->data[to->size] = 0;
    if (came <= 0 || (word && strstr(to->data, word))) return;
  }
}

void iperf3_start(const char *uri) {
  const char *const words[] = {"iperf3", "-s", "--forceflush", "-p", port, NULL};
  text said = {NULL, 0, 0};
  int from;
  find_port();
  server = start(words, &from);
  (void)atexit(end_server);
  read_until(from, "istening", &said);
  if (!strstr(said.data, "istening")) fail(uri, "iperf3 does not start");
  text_free(&said); /* `from` stays open, or what it says later would end it */
}

/* The host of tcp://HOST:PORT. */
static void host_of(const char *uri, char *host, size_t room) {
  const char *from = uri + strlen("tcp://"), *end = from + strcspn(from, "?/");
  while (end > from && *end != ':') end--;
  if (end - from >= 2 && *from == '[') from++, end--;
  snprintf(host, room, "%.*s", (int)(end - from), from);
  if (!*host) snprintf(host, room, "127.0.0.1");
}

double iperf3_rate(const char *uri, uint64_t size, uint64_t bytes, int receives, const char *congestion) {
  enum { MOST = 1 << 20 }; /* that iperf3 sends at once */
  char host[256], length[16], amount[24];
  const char *words[] = {"iperf3", "-J", "-i", "0", "-c", host, "-p", port, "-l", length, "-n", amount, NULL, NULL, NULL, NULL};
  text said = {NULL, 0, 0};
  const char *at;
  double bits = 0;
  int from, code;
  pid_t child;
  int more = 12;
  host_of(uri, host, sizeof host);
  snprintf(length, sizeof length, "%lu", (unsigned long)(size < MOST ? size : MOST));
  snprintf(amount, sizeof amount, "%llu", (unsigned long long)bytes);
  if (receives) words[more++] = "-R";
  if (congestion) words[more++] = "-C", words[more] = congestion;
  child = start(words, &from);
  read_until(from, NULL, &said);
  (void)close(from);
  while (waitpid(child, &code, 0) < 0 && errno == EINTR) continue;
  at = strstr(said.data, "\"sum_received\"");
  if (at) at = strstr(at, "\"bits_per_second\":");
  if (at) bits = strtod(at + strlen("\"bits_per_second\":"), NULL);
  if (!(bits > 0)) fail(uri, "iperf3 measures nothing (it runs on this machine: the server must, too)");
  text_free(&said);
  return bits / 8e9;
}
