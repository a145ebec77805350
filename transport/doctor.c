/* transport/doctor.c: looks at a machine with the eyes of a store: what it will want, what is there, what to do.
 * Changes nothing. What a system does not tell (no /proc, no /sys) is passed over.
 * May use: system, text. Must not know: how stores do what they do. */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#if defined(__linux__)
#include <sys/vfs.h>
#endif

typedef struct packbuf_i_doctor {
  packbuf_finding finding;
  void *context;
  packbuf_store_options options;
  uint64_t deadline;
  int only; /* 1: of one store, so that what it lacks is a problem; 0: of any */
  char folder[PACKBUF_MAX_URI + 1];
  char what[128], found[256];
  packbuf_i_line line; /* of `found` */
} packbuf_i_doctor;

static void packbuf_i_doctor_add(packbuf_i_doctor *d, const char *text) { packbuf_i_line_text(&d->line, text); }

static void packbuf_i_doctor_bytes(packbuf_i_doctor *d, uint64_t bytes) {
  packbuf_i_line_number(&d->line, bytes >> (bytes >> 20 ? 20 : 10));
  packbuf_i_doctor_add(d, bytes >> 20 ? " MiB" : " KiB");
}

/* Hands over what was found. */
static void packbuf_i_doctor_says(packbuf_i_doctor *d, packbuf_severity severity, const char *what,
                                  const char *advice) {
  (void)packbuf_i_line_close(&d->line);
  d->finding(d->context, severity, what, d->found, severity == PACKBUF_FINE ? "" : advice);
  d->line = packbuf_i_line_in(d->found, sizeof d->found);
}

/* Joins up to four parts to a path; 0: it is too long. */
static int packbuf_i_doctor_path(char *path, size_t capacity, const char *a, const char *b, const char *c,
                                 const char *e) {
  packbuf_i_line line = packbuf_i_line_in(path, capacity);
  packbuf_i_line_text(&line, a);
  packbuf_i_line_text(&line, b);
  packbuf_i_line_text(&line, c);
  packbuf_i_line_text(&line, e);
  return packbuf_i_line_close(&line);
}

/* The beginning of a small file, without its last newline; 0: there is nothing to read. */
static int packbuf_i_doctor_read(const char *path, char *text, size_t capacity) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t size;
  text[0] = 0;
  if (file < 0) return 0;
  size = read(file, text, capacity - 1);
  (void)close(file);
  if (size <= 0) return 0;
  text[size] = 0;
  if (text[size - 1] == '\n') text[size - 1] = 0;
  return text[0] != 0;
}

/* The number behind a name in a text of lines "NAME: NUMBER", or at the front of it (name ""). */
static int packbuf_i_doctor_number(const char *text, const char *name, uint64_t *number) {
  const char *at = strstr(text, name);
  size_t size = 0;
  if (!at) return 0;
  for (at += strlen(name); *at == ' ' || *at == ':';) at++;
  while (at[size] >= '0' && at[size] <= '9') size++;
  return packbuf_i_parse_decimal(at, size, UINT64_MAX, number);
}

/* ---- shared memory ---- */

static uint64_t packbuf_i_doctor_wanted(const packbuf_i_doctor *d) {
  return d->options.size ? d->options.size : (uint64_t)256 << 20;
}

/* The stores that lie in a folder already. */
static void packbuf_i_doctor_stores(packbuf_i_doctor *d) {
  DIR *folder = opendir(d->folder);
  uint64_t count = 0, bytes = 0;
  const struct dirent *entry;
  if (!folder) return;
  while ((entry = readdir(folder)) != NULL) {
    struct stat about;
    if (strncmp(entry->d_name, "packbuf.", 8) != 0 || fstatat(dirfd(folder), entry->d_name, &about, 0) != 0) continue;
    count++;
    bytes += (uint64_t)about.st_size;
  }
  (void)closedir(folder);
  if (!count) return;
  packbuf_i_line_number(&d->line, count);
  packbuf_i_doctor_add(d, count == 1 ? " store, " : " stores, ");
  packbuf_i_doctor_bytes(d, bytes);
  packbuf_i_doctor_says(d, PACKBUF_ADVICE, d->folder,
                        "stores outlive their processes: take away those of jobs that "
                        "have ended (packbuf store shm:NAME --free)");
}

/* `name`: of the store; NULL: of none. */
static void packbuf_i_doctor_shm(packbuf_i_doctor *d, const char *name) {
  const uint64_t wanted = packbuf_i_doctor_wanted(d);
  char path[2 * PACKBUF_MAX_URI + 16];
  struct stat about;
  struct statvfs system;
  uint64_t size, left;
  if (statvfs(d->folder, &system) != 0) {
    packbuf_i_doctor_add(d, "not there");
    packbuf_i_doctor_says(d, PACKBUF_PROBLEM, d->folder, "mount a tmpfs there, or name another folder with ?dir=");
    return;
  }
  if (name && packbuf_i_doctor_path(path, sizeof path, d->folder, "/packbuf.", name, "") && stat(path, &about) == 0) {
    packbuf_i_doctor_add(d, "exists, ");
    packbuf_i_doctor_bytes(d, (uint64_t)about.st_size);
    packbuf_i_doctor_says(d, PACKBUF_FINE, path, "");
    return;
  }
  size = (uint64_t)system.f_blocks * system.f_frsize;
  left = (uint64_t)system.f_bavail * system.f_frsize;
  packbuf_i_doctor_bytes(d, size);
  packbuf_i_doctor_add(d, ", ");
  packbuf_i_doctor_bytes(d, left);
  packbuf_i_doctor_add(d, " of it free, wanted ");
  packbuf_i_doctor_bytes(d, wanted);
  packbuf_i_doctor_add(d, " and a few in a hundred for tables");
  packbuf_i_doctor_says(
      d, left > wanted + wanted / 16 ? PACKBUF_FINE : PACKBUF_PROBLEM, d->folder,
      size > wanted + wanted / 16
          ? "take away what fills it, or ask for less with ?size="
          : "make it larger (docker run --shm-size=, in Kubernetes an emptyDir of medium Memory, else "
            "mount -o remount,size=), or ask for less with ?size=");
  if (system.f_flag & ST_RDONLY) {
    packbuf_i_doctor_add(d, "mounted for reading alone");
    packbuf_i_doctor_says(d, PACKBUF_PROBLEM, d->folder, "mount it for writing, or name another folder with ?dir=");
  }
#if defined(__linux__)
  {
    struct statfs kind;
    const unsigned long tmpfs = 0x01021994, hugetlbfs = 0x958458F6; /* of linux/magic.h */
    if (statfs(d->folder, &kind) == 0 && (unsigned long)kind.f_type != tmpfs &&
        (unsigned long)kind.f_type != hugetlbfs) {
      packbuf_i_doctor_add(d, "neither tmpfs nor hugetlbfs");
      packbuf_i_doctor_says(d, PACKBUF_ADVICE, d->folder, "on a disk's file system each page is written to the disk");
    }
  }
#endif
  packbuf_i_doctor_stores(d);
}

/* ---- memory ---- */

/* What the control group of this process may use, of which a store is charged to who makes it. */
static void packbuf_i_doctor_group(packbuf_i_doctor *d, uint64_t wanted) {
  char groups[1024], path[1100], text[64], *own;
  uint64_t limit = 0;
  int known = 0;
  if (packbuf_i_doctor_read("/proc/self/cgroup", groups, sizeof groups) && (own = strstr(groups, "0::/")) != NULL) {
    own[3 + strcspn(own + 3, "\n")] = 0;
    known = packbuf_i_doctor_path(path, sizeof path, "/sys/fs/cgroup", own + 3, "/memory.max", "") &&
            packbuf_i_doctor_read(path, text, sizeof text);
  }
  if (!known && !packbuf_i_doctor_read("/sys/fs/cgroup/memory.max", text, sizeof text) &&
      !packbuf_i_doctor_read("/sys/fs/cgroup/memory/memory.limit_in_bytes", text, sizeof text))
    return;
  if (!packbuf_i_doctor_number(text, "", &limit) || limit >> 60) return; /* "max", or as good as that */
  packbuf_i_doctor_bytes(d, limit);
  packbuf_i_doctor_add(d, ", wanted ");
  packbuf_i_doctor_bytes(d, wanted);
  packbuf_i_doctor_says(d, limit > wanted ? PACKBUF_FINE : PACKBUF_PROBLEM, "memory limit of the container",
                        "raise it: a store or pool that does not fit gets its process killed");
}

static void packbuf_i_doctor_huge_pages(packbuf_i_doctor *d, uint64_t wanted) {
  char text[4096];
  uint64_t count = 0, size = 0;
  int fits, never;
  if (!packbuf_i_doctor_read("/proc/meminfo", text, sizeof text) ||
      !packbuf_i_doctor_number(text, "HugePages_Free", &count) || !packbuf_i_doctor_number(text, "Hugepagesize", &size))
    return;
  fits = size && count >= wanted / (size * 1024);
  packbuf_i_line_number(&d->line, count);
  packbuf_i_doctor_add(d, " free, of ");
  packbuf_i_doctor_bytes(d, size * 1024);
  never = packbuf_i_doctor_read("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text) &&
          strstr(text, "[never]") != NULL;
  packbuf_i_doctor_add(d, never ? "; transparent ones off" : "; transparent ones on request");
  packbuf_i_doctor_says(d, fits || (!never && d->options.huge_pages != 2) ? PACKBUF_FINE : PACKBUF_ADVICE, "huge pages",
                        "reserve some (sysctl vm.nr_hugepages=), or let madvise have them "
                        "(/sys/kernel/mm/transparent_hugepage/enabled)");
}

static void packbuf_i_doctor_locked(packbuf_i_doctor *d, uint64_t wanted) {
#if defined(RLIMIT_MEMLOCK)
  struct rlimit limit;
  int fits;
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return;
  fits = limit.rlim_cur == RLIM_INFINITY || (uint64_t)limit.rlim_cur > wanted;
  if (limit.rlim_cur == RLIM_INFINITY) packbuf_i_doctor_add(d, "no limit");
  else packbuf_i_doctor_bytes(d, (uint64_t)limit.rlim_cur);
  packbuf_i_doctor_add(d, ", wanted ");
  packbuf_i_doctor_bytes(d, wanted);
  if (!fits && geteuid() == 0) packbuf_i_doctor_add(d, " (root with CAP_IPC_LOCK has no limit)");
  packbuf_i_doctor_says(d,
                        fits                        ? PACKBUF_FINE
                        : d->only && geteuid() != 0 ? PACKBUF_PROBLEM
                                                    : PACKBUF_ADVICE,
                        "memlock",
                        "registered memory is locked: ulimit -l unlimited, LimitMEMLOCK=infinity in a "
                        "unit, docker run --ulimit memlock=-1");
#else
  (void)d, (void)wanted;
#endif
}

/* ---- libraries and devices ---- */

static int packbuf_i_doctor_library(packbuf_i_doctor *d, const char *what, const char *file, const char *function,
                                    const char *advice) {
  void *const library = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
  const int good = library && dlsym(library, function);
  packbuf_i_doctor_add(d, file);
  packbuf_i_doctor_add(d, good ? " loads" : library ? " is another library" : " does not load");
  packbuf_i_doctor_says(d, good ? PACKBUF_FINE : d->only ? PACKBUF_PROBLEM : PACKBUF_ADVICE, what, advice);
  if (library) (void)dlclose(library);
  return good;
}

/* The interface of a RoCE port and what its packets carry. `port`: "/sys/class/infiniband/DEVICE/ports/1". */
static void packbuf_i_doctor_interface(packbuf_i_doctor *d, const char *port) {
  char path[400], name[64], text[64];
  uint64_t mtu = 0;
  if (!packbuf_i_doctor_path(path, sizeof path, port, "/gid_attrs/ndevs/0", "", "") ||
      !packbuf_i_doctor_read(path, name, sizeof name) ||
      !packbuf_i_doctor_path(path, sizeof path, "/sys/class/net/", name, "/mtu", "") ||
      !packbuf_i_doctor_read(path, text, sizeof text) || !packbuf_i_doctor_number(text, "", &mtu))
    return;
  packbuf_i_doctor_add(d, "MTU ");
  packbuf_i_line_number(&d->line, mtu);
  packbuf_i_doctor_add(d, mtu >= 4200 ? ": 4096 bytes a packet" : mtu >= 2200 ? ": 2048" : ": 1024 bytes a packet");
  packbuf_i_doctor_says(d, mtu >= 4200 ? PACKBUF_FINE : PACKBUF_ADVICE, name,
                        "jumbo frames (MTU 9000, on the switch too) carry 4096 bytes a packet");
}

/* The first port of a device. 1: it is active. */
static int packbuf_i_doctor_port(packbuf_i_doctor *d, const char *device) {
  char port[320], path[400], text[64];
  int active, version2 = 0, any = 0;
  if (!packbuf_i_doctor_path(port, sizeof port, "/sys/class/infiniband/", device, "/ports/1", "") ||
      !packbuf_i_doctor_path(path, sizeof path, port, "/state", "", "") ||
      !packbuf_i_doctor_path(d->what, sizeof d->what, device, " port 1", "", "") ||
      !packbuf_i_doctor_read(path, text, sizeof text))
    return 0;
  active = strstr(text, "ACTIVE") != NULL;
  packbuf_i_doctor_add(d, text);
  for (char index = '0'; index <= '7'; index++) {
    const char one[2] = {index, 0};
    if (!packbuf_i_doctor_path(path, sizeof path, port, "/gid_attrs/types/", one, "") ||
        !packbuf_i_doctor_read(path, text, sizeof text))
      continue;
    any = 1;
    if (strstr(text, "v2")) version2 = 1;
  }
  if (any) packbuf_i_doctor_add(d, version2 ? ", has a GID of RoCE v2" : ", has no GID of RoCE v2");
  packbuf_i_doctor_says(d, active ? PACKBUF_FINE : PACKBUF_ADVICE, d->what, "bring the link and its interface up");
  if (strncmp(device, "rxe", 3) == 0) {
    packbuf_i_doctor_add(d, "software RDMA over an interface");
    packbuf_i_doctor_says(d, PACKBUF_ADVICE, device, "right for tests; tcp:// is faster without RDMA hardware");
  }
  packbuf_i_doctor_interface(d, port);
  return active;
}

static void packbuf_i_doctor_verbs(packbuf_i_doctor *d) {
  DIR *folder;
  const struct dirent *entry;
  int active = 0;
  if (!packbuf_i_doctor_library(d, "libibverbs", "libibverbs.so.1", "ibv_get_device_list",
                                "verbs:// wants it: install libibverbs1 (rdma-core) and the provider of the card"))
    return;
  folder = opendir("/sys/class/infiniband");
  while (folder && (entry = readdir(folder)) != NULL)
    if (entry->d_name[0] != '.' && packbuf_i_doctor_port(d, entry->d_name)) active = 1;
  if (folder) (void)closedir(folder);
  if (active) return;
  packbuf_i_doctor_add(d, "no active port");
  packbuf_i_doctor_says(d, d->only ? PACKBUF_PROBLEM : PACKBUF_ADVICE, "RDMA devices",
                        "verbs:// wants one (a container: --device /dev/infiniband); else tcp://, or step_down");
}

/* ---- the other side ---- */

/* 1: something accepts connections there before the deadline. */
static int packbuf_i_doctor_connects(const struct addrinfo *to, uint64_t deadline) {
  struct pollfd wait;
  int good, failed = 0;
  socklen_t size = sizeof failed;
  const int one = socket(to->ai_family, to->ai_socktype, to->ai_protocol);
  if (one < 0) return 0;
  (void)fcntl(one, F_SETFD, FD_CLOEXEC);
  (void)fcntl(one, F_SETFL, O_NONBLOCK);
  good = connect(one, to->ai_addr, to->ai_addrlen) == 0;
  wait.fd = one;
  wait.events = POLLOUT;
  for (uint64_t now = packbuf_now(); !good && now < deadline; now = packbuf_now()) {
    const uint64_t left = (deadline - now) / 1000000u + 1;
    wait.revents = 0;
    if (poll(&wait, 1, left < 1000 ? (int)left : 1000) <= 0) continue;
    good = getsockopt(one, SOL_SOCKET, SO_ERROR, &failed, &size) == 0 && failed == 0;
    break;
  }
  (void)close(one);
  return good;
}

/* `address`: HOST:PORT, [HOST]:PORT or :PORT. */
static void packbuf_i_doctor_other_side(packbuf_i_doctor *d, const char *address) {
  const uint64_t until = packbuf_deadline_in(d->options.connect_ms ? d->options.connect_ms : 5000);
  const uint64_t deadline = d->deadline < until ? d->deadline : until;
  char host[PACKBUF_MAX_URI + 1];
  const char *const colon = strrchr(address, ':');
  const size_t size = colon ? (size_t)(colon - address) : 0;
  const int bracket = size >= 2 && address[0] == '[' && address[size - 1] == ']';
  struct addrinfo hints, *all = NULL;
  int good = 0;
  uint64_t port;
  if (!colon || size >= sizeof host || !packbuf_i_parse_decimal(colon + 1, strlen(colon + 1), 65535, &port)) {
    packbuf_i_doctor_add(d, "not HOST:PORT");
    packbuf_i_doctor_says(d, PACKBUF_PROBLEM, address, "name the other side as HOST:PORT");
    return;
  }
  memcpy(host, address + bracket, size - 2 * (size_t)bracket);
  host[size - 2 * (size_t)bracket] = 0;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &all) != 0) {
    packbuf_i_doctor_add(d, "the name is not known here");
    packbuf_i_doctor_says(d, PACKBUF_PROBLEM, address, "look at the name and at /etc/resolv.conf");
    return;
  }
  for (const struct addrinfo *one = all; one && !good; one = one->ai_next)
    good = packbuf_i_doctor_connects(one, deadline);
  freeaddrinfo(all);
  packbuf_i_doctor_add(d, good ? "answers" : "does not answer");
  packbuf_i_doctor_says(d, good ? PACKBUF_FINE : PACKBUF_PROBLEM, address,
                        "start the server (packbuf serve), look at the port and at what filters it");
}

/* ---- all of it ---- */

/* The only option of stores that matters here; the others are theirs to judge. */
static packbuf_status packbuf_i_doctor_option(void *context, const packbuf_i_uri_option *option) {
  packbuf_i_doctor *d = (packbuf_i_doctor *)context;
  if (strcmp(option->name, "dir") == 0) memcpy(d->folder, option->value, strlen(option->value) + 1);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_doctor(const char *uri, packbuf_finding finding, void *context, uint64_t deadline,
                                          packbuf_error *error) {
  enum { ALL = -1, LOCAL, SHM, TCP, VERBS, MOONCAKE, SCHEMES };
  static const char *const schemes[SCHEMES] = {"local", "shm", "tcp", "verbs", "mooncake"};
  const char *const library = getenv("MOONCAKE_STORE_LIBRARY");
  char base[PACKBUF_MAX_URI + 1];
  const char *rest = NULL;
  packbuf_i_doctor d;
  packbuf_i_uri parts;
  uint64_t pool, memory; /* memory: that of the store itself, else of its pool */
  int scheme = ALL;
  memset(&d, 0, sizeof d);
  memcpy(d.folder, "/dev/shm", 9);
  d.finding = finding;
  d.context = context;
  d.deadline = deadline;
  d.only = uri != NULL;
  d.line = packbuf_i_line_in(d.found, sizeof d.found);
  if (!finding) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a finding must go somewhere");
  if (uri) {
    const packbuf_status status =
        packbuf_i_uri_options(uri, &d.options, base, sizeof base, packbuf_i_doctor_option, &d, error);
    if (status != PACKBUF_OK) return status;
    (void)packbuf_i_uri_start(&parts, base, NULL);
    for (scheme = 0; scheme < SCHEMES && !packbuf_i_uri_has_scheme(&parts, schemes[scheme]);) scheme++;
    if (scheme == SCHEMES) return packbuf_i_uri_fail(error, "no store has this scheme", 0);
    rest = parts.rest;
  }
  pool = d.options.pool_size ? d.options.pool_size : (uint64_t)256 << 20;
  memory = scheme <= SHM ? packbuf_i_doctor_wanted(&d) : pool;
  if (scheme == ALL || scheme == SHM) packbuf_i_doctor_shm(&d, rest && *rest ? rest : NULL);
  packbuf_i_doctor_group(&d, memory);
  if (scheme != SHM) packbuf_i_doctor_huge_pages(&d, memory);
  if (scheme == ALL || scheme >= VERBS) packbuf_i_doctor_locked(&d, pool);
  if (scheme == ALL || scheme == VERBS) packbuf_i_doctor_verbs(&d);
  if (scheme == ALL || scheme == MOONCAKE)
    (void)packbuf_i_doctor_library(&d, "Mooncake", library && *library ? library : "libmooncake_store.so",
                                   "mooncake_store_create",
                                   "mooncake:// wants its C library: MOONCAKE_STORE_LIBRARY may name it");
  if (scheme >= TCP && rest) packbuf_i_doctor_other_side(&d, rest);
  return PACKBUF_OK;
}
