/* transport/shm_layout.c: the file of a shm store: its records, where they lie, how it is made so that it appears whole
 * or not at all, and how it is opened: every number in it is checked against what the file should be, and a checked
 * copy is used from then on, so that a damaged or hostile file is PROTOCOL, never an access outside of the mapping.
 * May use: system, text, hash; sha256 and crc32c of the core. Must not know: sessions, what slots and units are for. */
#if defined(__linux__) && defined(__LP64__)
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#endif

/* 64 bits: the data are mapped whole. Linux: OFD locks, which say who is dead. */
#if defined(__linux__) && defined(__LP64__) && defined(F_OFD_SETLK)
#define PACKBUF_I_SHM 1
#else
#define PACKBUF_I_SHM 0
#endif

#if PACKBUF_I_SHM

enum {
  PACKBUF_I_SHM_UNIT = 4096,   /* what objects are made of */
  PACKBUF_I_SHM_HEADER = 4096, /* bytes */
  PACKBUF_I_SHM_VERSION = 1,
  PACKBUF_I_SHM_ORDER = 0x01020304, /* as the machine that made it stores it */
  PACKBUF_I_SHM_SESSIONS = 512,     /* at most */
  PACKBUF_I_SHM_BUCKET = 8,         /* cells of a bucket: a line of the cache */
  PACKBUF_I_SHM_FREED = 16,         /* slots that a handle remembers */
  PACKBUF_I_SHM_TRIES = 64          /* how often opening begins anew when others make or take away the file */
};
#define PACKBUF_I_SHM_MAGIC "PBUFSHM" /* with its NUL: 8 bytes */
#define PACKBUF_I_SHM_MOST_SLOTS (1u << 24)
#define PACKBUF_I_SHM_MOST_UNITS 0xFFFFFFF0u    /* a unit's number fits into half of an extent */
#define PACKBUF_I_SHM_DATA_ALIGNMENT (2u << 20) /* that of a huge page */
#define PACKBUF_I_SHM_LOCKS ((off_t)1 << 60)    /* session i holds the lock of byte LOCKS + i, far behind the data */
#define PACKBUF_I_SHM_PROBE ((off_t)1 << 59)    /* a byte to find out whether locks are what they should be */

/* What is said once, when the store is made. */
typedef struct packbuf_i_shm_facts {
  char magic[8];
  uint32_t version, order;
  uint32_t slots, sessions;
  uint64_t units;
  uint64_t sessions_at, words_at, pins_at, cells_at, slots_at, owners_at, data_at, file_size; /* bytes */
  uint64_t made_at;                                                                           /* ns, the root's clock */
  uint8_t id[16];     /* random; the key of the directory's hash */
  uint8_t secret[32]; /* HMAC-SHA-256 of the id under the secret */
  uint32_t zero, crc; /* CRC-32C of all before it */
} packbuf_i_shm_facts;

/* The first 4096 bytes. What changes lies on lines of its own. */
typedef struct packbuf_i_shm_header {
  packbuf_i_shm_facts facts;
  uint8_t space0[1024 - sizeof(packbuf_i_shm_facts)];
  uint64_t generation; /* the next object's */
  uint8_t space1[56];
  uint32_t freed, waiting; /* futex: grows when a slot becomes free; not 0: somebody waits for that */
  uint8_t space2[56];
  uint32_t closed; /* not 0: the store was taken away */
  uint8_t space3[60];
  uint64_t evicted, expired, recovered; /* counters of all sessions together */
} packbuf_i_shm_header;

/* For people and lists; only `used` decides anything. */
typedef struct packbuf_i_shm_session {
  uint32_t used, incarnation;
  uint64_t opened_at; /* ns, the root's clock */
  uint32_t process;   /* as its own namespace calls it */
  char name[44];
  uint64_t called_at; /* when its last batch began */
  uint8_t space[56];
} packbuf_i_shm_session;

/* An object, but for its state, which is in a word of another table. */
typedef struct packbuf_i_shm_slot {
  uint64_t extent; /* first unit << 32 | units; while CLAIMED also: what may have been claimed */
  uint64_t length, generation, hash;
  uint64_t put_at, ends_at, read_at; /* ns, the root's clock; ends_at 0: never */
  uint64_t head_length;
  uint64_t putter; /* session << 32 | its incarnation: whose quota it is */
  uint32_t head_checksum, flags;
  uint8_t kind, key_size, space0[6];
  uint8_t fingerprint[PACKBUF_FINGERPRINT];
  char key[PACKBUF_MAX_KEY + 1];
  uint8_t space1[16];
} packbuf_i_shm_slot;

/* What is asked of the file, from URI and options. */
typedef struct packbuf_i_shm_plan {
  char folder[PACKBUF_MAX_URI + 1], path[2 * PACKBUF_MAX_URI + 16], draft[2 * PACKBUF_MAX_URI + 32];
  uint64_t size;
  uint32_t slots, sessions, mode;
  int must_exist, mode_given, by_name; /* by_name: as where O_TMPFILE is missing */
  uint8_t secret[PACKBUF_I_SECRET];
  size_t secret_size;
  uint64_t now, generation; /* the root's clock; where generations begin */
} packbuf_i_shm_plan;

/* A store as one handle sees it. */
typedef struct packbuf_i_shm {
  packbuf_allocator allocator;
  int fd, read_only;
  packbuf_i_shm_facts facts; /* the checked copy */
  packbuf_i_shm_header *header;
  packbuf_i_shm_session *sessions;
  uint64_t *words, *pins, *cells;
  packbuf_i_shm_slot *slots;
  uint32_t *owners;
  const uint8_t *data; /* for reading alone */
  uint8_t *writable;   /* the same bytes; NULL until something is put */
  uint64_t data_size;
  uint32_t session, incarnation, pin_words, buckets;
  uint32_t *local;               /* for each slot: how often this handle has it pinned */
  packbuf_i_lock stripes[64];    /* of `local` */
  packbuf_i_lock sweeping;       /* who looks for the dead: locks are the handle's, not the thread's */
  packbuf_i_lock lock;           /* of `writable` and the quota */
  uint64_t next_unit, next_slot; /* where to look first */
  uint32_t freed[PACKBUF_I_SHM_FREED], freed_count; /* slots that this handle freed last, + 1, a ring: hints */
  uint64_t quota, charged, pending;
  uint64_t clock_offset;                /* of this time namespace */
  uint64_t evicted, expired, recovered; /* the store's counters at open */
  uint64_t waits, copied;
  packbuf_log log; /* one call at a time: `telling` */
  void *log_context;
  packbuf_i_lock telling;
  uint32_t *here; /* 0 in a child after fork; may be NULL */
  char uri[PACKBUF_MAX_URI + 1], path[2 * PACKBUF_MAX_URI + 16];
} packbuf_i_shm;

/* ---- where things lie ---- */

static uint64_t packbuf_i_shm_up(uint64_t size, uint64_t to) { return (size + to - 1) / to * to; }

static uint32_t packbuf_i_shm_pin_words(uint32_t sessions) { return (sessions + 63) / 64; }

/* Fills in the offsets for these numbers, which are within their limits. Nothing here overflows: 2^32 units of 4096
 * bytes and 2^24 slots stay far below 2^63. */
static void packbuf_i_shm_place(packbuf_i_shm_facts *facts, uint64_t page) {
  const uint64_t slots = facts->slots;
  uint64_t at = PACKBUF_I_SHM_HEADER;
  facts->sessions_at = at;
  at = packbuf_i_shm_up(at + facts->sessions * sizeof(packbuf_i_shm_session), PACKBUF_I_SHM_UNIT);
  facts->words_at = at;
  at = packbuf_i_shm_up(at + slots * 8, PACKBUF_I_SHM_UNIT);
  facts->pins_at = at;
  at = packbuf_i_shm_up(at + slots * 8 * packbuf_i_shm_pin_words(facts->sessions), PACKBUF_I_SHM_UNIT);
  facts->cells_at = at;
  at = packbuf_i_shm_up(at + slots * 4 * 8, PACKBUF_I_SHM_UNIT);
  facts->slots_at = at;
  at = packbuf_i_shm_up(at + slots * sizeof(packbuf_i_shm_slot), PACKBUF_I_SHM_UNIT);
  facts->owners_at = at;
  at = packbuf_i_shm_up(at + facts->units * 4, PACKBUF_I_SHM_DATA_ALIGNMENT);
  facts->data_at = at;
  facts->file_size = packbuf_i_shm_up(at + facts->units * PACKBUF_I_SHM_UNIT, page);
}

static uint32_t packbuf_i_shm_crc(const packbuf_i_shm_facts *facts) {
  return packbuf_checksum(0, facts, offsetof(packbuf_i_shm_facts, crc));
}

static void packbuf_i_shm_seal(const uint8_t id[16], const void *secret, size_t size, uint8_t digest[32]) {
  packbuf_i_hmac hmac;
  packbuf_i_hmac_start(&hmac, secret, size);
  packbuf_i_hmac_add(&hmac, id, 16);
  packbuf_i_hmac_end(&hmac, digest);
}

/* ---- making it ---- */

/* "/proc/self/fd/N", at most 24 bytes. */
static void packbuf_i_shm_descriptor_path(int fd, char *path) {
  char digits[12];
  unsigned count = 0, rest = (unsigned)fd;
  memcpy(path, "/proc/self/fd/", 14);
  do digits[count++] = (char)('0' + rest % 10);
  while (rest /= 10);
  for (unsigned i = 0; i < count; i++) path[14 + i] = digits[count - 1 - i];
  path[14 + count] = 0;
}

static int packbuf_i_shm_lock(int fd, off_t byte, int kind) {
  struct flock lock;
  memset(&lock, 0, sizeof lock);
  lock.l_type = (short)kind;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

static packbuf_status packbuf_i_shm_no_room(packbuf_error *error, uint64_t size) {
  packbuf_i_call_fail(error, PACKBUF_FULL,
                      "the file system has no room for a store of this size (containers: docker run --shm-size)");
  if (error) error->needed = size;
  return PACKBUF_FULL;
}

/* All of the file's memory now, in pieces that a timer's signals do not keep from ending: no write can fail later. What
 * cannot fit is refused before the machine's memory is filled to find that out. */
static packbuf_status packbuf_i_shm_allocate(int fd, uint64_t size, packbuf_error *error) {
  struct statvfs room;
  if (fstatvfs(fd, &room) == 0 && room.f_blocks && room.f_frsize &&
      size / (uint64_t)room.f_frsize > (uint64_t)room.f_bavail)
    return packbuf_i_shm_no_room(error, size);
  for (uint64_t at = 0, some; at < size; at += some) {
    int code;
    some = size - at < (64u << 20) ? size - at : 64u << 20;
    do code = posix_fallocate(fd, (off_t)at, (off_t)some);
    while (code == EINTR);
    if (code == ENOSPC || code == EDQUOT || code == EFBIG || code == ENOMEM) return packbuf_i_shm_no_room(error, size);
    if (code) return packbuf_i_system_fail(error, "the store's file cannot be allocated", code);
  }
  return PACKBUF_OK;
}

/* Allocates and fills the file that nobody else has a name for yet. The tables begin as zeros. */
static packbuf_status packbuf_i_shm_fill(const packbuf_i_shm_plan *plan, int fd, packbuf_error *error) {
  packbuf_i_shm_facts facts;
  packbuf_status status;
  struct stat info;
  uint64_t page;
  void *map;
  memset(&facts, 0, sizeof facts);
  if (fchmod(fd, (mode_t)plan->mode) != 0 || fstat(fd, &info) != 0)
    return packbuf_i_system_fail(error, "the store's file cannot be given its mode", errno);
  memcpy(facts.magic, PACKBUF_I_SHM_MAGIC, sizeof facts.magic);
  facts.version = PACKBUF_I_SHM_VERSION;
  facts.order = PACKBUF_I_SHM_ORDER;
  facts.slots = plan->slots;
  facts.sessions = plan->sessions;
  facts.units = plan->size / PACKBUF_I_SHM_UNIT;
  facts.made_at = plan->now;
  page = info.st_blksize > PACKBUF_I_SHM_UNIT ? (uint64_t)info.st_blksize : (uint64_t)PACKBUF_I_SHM_UNIT;
  packbuf_i_shm_place(&facts, page);
  if (!packbuf_i_random(facts.id, sizeof facts.id)) return packbuf_i_system_fail(error, "no random bytes", errno);
  packbuf_i_shm_seal(facts.id, plan->secret, plan->secret_size, facts.secret);
  facts.crc = packbuf_i_shm_crc(&facts);
  status = packbuf_i_shm_allocate(fd, facts.file_size, error);
  if (status != PACKBUF_OK) return status;
  /* by mapping: a hugetlbfs cannot be written to */
  map = mmap(NULL, PACKBUF_I_SHM_DATA_ALIGNMENT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return packbuf_i_system_fail(error, "the store's file cannot be mapped", errno);
  memcpy(map, &facts, sizeof facts);
  ((packbuf_i_shm_header *)map)->generation = plan->generation;
  (void)munmap(map, PACKBUF_I_SHM_DATA_ALIGNMENT);
  return PACKBUF_OK;
}

/* Without O_TMPFILE: a draft beside it, under a lock. One that nobody locks was left by a maker who died, perhaps after
 * it had become the store: it is taken away, not used. LEASED: somebody else is at it, or was; try again. */
static packbuf_status packbuf_i_shm_make_by_name(const packbuf_i_shm_plan *plan, packbuf_error *error) {
  struct stat ours, there;
  packbuf_status status;
  const int fd = open(plan->draft, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return packbuf_i_system_fail(error, "the store's file cannot be made", errno);
  if (!packbuf_i_shm_lock(fd, PACKBUF_I_SHM_PROBE, F_WRLCK) || fstat(fd, &ours) != 0 ||
      stat(plan->draft, &there) != 0 || ours.st_ino != there.st_ino || ours.st_dev != there.st_dev) {
    (void)close(fd);
    return PACKBUF_LEASED;
  }
  if (ours.st_uid != geteuid()) {
    (void)close(fd);
    return packbuf_i_call_fail(error, PACKBUF_DENIED, "the draft of the store's file is somebody else's");
  }
  status = ours.st_size ? PACKBUF_LEASED : packbuf_i_shm_fill(plan, fd, error);
  if (status == PACKBUF_OK && link(plan->draft, plan->path) != 0 && errno != EEXIST)
    status = packbuf_i_system_fail(error, "the store's file cannot be given its name", errno);
  (void)unlink(plan->draft); /* before the lock goes: who gets it next would otherwise go on with a file in use */
  (void)close(fd);
  return status;
}

/* Makes the file, which then has its name, or somebody else's has. It never has the name before it is complete. */
static packbuf_status packbuf_i_shm_make(packbuf_i_shm_plan *plan, packbuf_error *error) {
  char source[32];
  packbuf_status status;
  int fd = -1;
  if (!plan->by_name) {
    fd = open(plan->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
      return errno == EACCES || errno == EPERM || errno == EROFS
                 ? packbuf_i_fail(error, PACKBUF_DENIED, "no right to make files in the store's folder",
                                  (uint64_t)errno, PACKBUF_NOWHERE)
                 : packbuf_i_system_fail(error, "the store's file cannot be made", errno);
  }
  if (fd < 0) return packbuf_i_shm_make_by_name(plan, error);
  status = packbuf_i_shm_fill(plan, fd, error);
  packbuf_i_shm_descriptor_path(fd, source);
  if (status == PACKBUF_OK && linkat(AT_FDCWD, source, AT_FDCWD, plan->path, AT_SYMLINK_FOLLOW) != 0 &&
      errno != EEXIST) {
    plan->by_name = 1; /* no /proc here, most likely */
    status = PACKBUF_LEASED;
  }
  (void)close(fd);
  return status;
}

/* ---- opening it ---- */

/* Whether these are the facts of a file of that size that can be worked with. */
static packbuf_status packbuf_i_shm_check(const packbuf_i_shm_facts *facts, uint64_t size, packbuf_error *error) {
  packbuf_i_shm_facts again;
  if (memcmp(facts->magic, PACKBUF_I_SHM_MAGIC, sizeof facts->magic) != 0)
    return packbuf_i_fail(error, PACKBUF_PROTOCOL, "the file is not a store", 0, PACKBUF_NOWHERE);
  if (facts->order != PACKBUF_I_SHM_ORDER)
    return packbuf_i_fail(error, PACKBUF_UNSUPPORTED_VERSION, "the store has another byte order", 12, PACKBUF_NOWHERE);
  if (facts->version != PACKBUF_I_SHM_VERSION)
    return packbuf_i_fail(error, PACKBUF_UNSUPPORTED_VERSION, "the store has a layout of another version", 8,
                          PACKBUF_NOWHERE);
  if (facts->crc != packbuf_i_shm_crc(facts))
    return packbuf_i_fail(error, PACKBUF_PROTOCOL, "the checksum of the store's header is wrong",
                          offsetof(packbuf_i_shm_facts, crc), PACKBUF_NOWHERE);
  again = *facts;
  if (facts->slots < 64 || facts->slots > PACKBUF_I_SHM_MOST_SLOTS || facts->slots % 64 || facts->sessions < 1 ||
      facts->sessions > PACKBUF_I_SHM_SESSIONS || facts->units < 1 || facts->units > PACKBUF_I_SHM_MOST_UNITS ||
      size < PACKBUF_I_SHM_DATA_ALIGNMENT)
    return packbuf_i_call_fail(error, PACKBUF_PROTOCOL, "a number in the store's header is out of its range");
  packbuf_i_shm_place(&again, PACKBUF_I_SHM_UNIT);
  again.file_size = facts->file_size; /* rounded up to the file system's pages */
  if (memcmp(&again, facts, sizeof again) != 0 || facts->file_size != size ||
      facts->file_size < facts->data_at + facts->units * PACKBUF_I_SHM_UNIT)
    return packbuf_i_call_fail(error, PACKBUF_PROTOCOL, "the parts of the store's file are not where they should be");
  return PACKBUF_OK;
}

/* Locks of two descriptors must exclude each other: all recovery rests on it. */
static packbuf_status packbuf_i_shm_probe(const packbuf_i_shm_plan *plan, int fd, packbuf_error *error) {
  struct stat ours, there;
  int other, exclude;
  if (!packbuf_i_shm_lock(fd, PACKBUF_I_SHM_PROBE, F_WRLCK)) {
    if (errno == EAGAIN || errno == EACCES) return PACKBUF_OK; /* somebody else tries just now, and it works */
    return packbuf_i_fail(error, PACKBUF_UNAVAILABLE, "the file system has no OFD locks", (uint64_t)errno,
                          PACKBUF_NOWHERE);
  }
  other = open(plan->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  exclude = other < 0 || fstat(fd, &ours) != 0 || fstat(other, &there) != 0 || ours.st_ino != there.st_ino ||
            ours.st_dev != there.st_dev || !packbuf_i_shm_lock(other, PACKBUF_I_SHM_PROBE, F_WRLCK);
  if (other >= 0) (void)close(other);
  (void)packbuf_i_shm_lock(fd, PACKBUF_I_SHM_PROBE, F_UNLCK);
  if (exclude) return PACKBUF_OK;
  return packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE, "OFD locks of this file system exclude nobody");
}

/* Whose file it is, what is in it, and whether the secret is the right one. */
static packbuf_status packbuf_i_shm_admit(const packbuf_i_shm_plan *plan, int fd, packbuf_i_shm_facts *facts,
                                          packbuf_error *error) {
  uint8_t seal[32];
  struct stat info;
  packbuf_status status;
  if (fstat(fd, &info) != 0) return packbuf_i_system_fail(error, "the store's file cannot be looked at", errno);
  if (!S_ISREG(info.st_mode)) return packbuf_i_call_fail(error, PACKBUF_DENIED, "the store's path is not a file");
  if (info.st_uid != geteuid() && !plan->mode_given)
    return packbuf_i_call_fail(error, PACKBUF_DENIED, "the store is another user's (if that is meant: ?mode=)");
  if (info.st_size < PACKBUF_I_SHM_HEADER || pread(fd, facts, sizeof *facts, 0) != (ssize_t)sizeof *facts)
    return packbuf_i_call_fail(error, PACKBUF_PROTOCOL, "the file is too short for a store");
  status = packbuf_i_shm_check(facts, (uint64_t)info.st_size, error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_shm_seal(facts->id, plan->secret, plan->secret_size, seal);
  if (!packbuf_i_secret_equal(seal, facts->secret, sizeof seal))
    return packbuf_i_call_fail(error, PACKBUF_DENIED, "the secret is not the store's");
  return packbuf_i_shm_probe(plan, fd, error);
}

/* Opens the file, makes it where there is none, and checks it. */
static packbuf_status packbuf_i_shm_open_file(packbuf_i_shm_plan *plan, int *fd, packbuf_i_shm_facts *facts,
                                              packbuf_error *error) {
  for (int i = 0; i < PACKBUF_I_SHM_TRIES; i++) {
    packbuf_status status;
    *fd = open(plan->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (*fd >= 0) {
      status = packbuf_i_shm_admit(plan, *fd, facts, error);
      if (status == PACKBUF_OK) return PACKBUF_OK;
      (void)close(*fd);
      *fd = -1;
      return status;
    }
    if (errno == EACCES || errno == EPERM || errno == ELOOP)
      return packbuf_i_fail(error, PACKBUF_DENIED, "no right to open the store's file, or it is a link",
                            (uint64_t)errno, PACKBUF_NOWHERE);
    if (errno != ENOENT) return packbuf_i_system_fail(error, "the store's file cannot be opened", errno);
    if (plan->must_exist) return packbuf_i_call_fail(error, PACKBUF_NOT_FOUND,
                                 "there is no such store: who makes it gives its size, as in shm:NAME?size=8g");
    status = packbuf_i_shm_make(plan, error);
    if (status == PACKBUF_LEASED) packbuf_i_sleep_until(packbuf_now() + 50000000u);
    else if (status != PACKBUF_OK) return status;
  }
  return packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE,
                             "the store's file comes and goes, or is made by one who is stopped");
}

/* Maps tables for everyone, data for reading. */
static packbuf_status packbuf_i_shm_map(packbuf_i_shm *shm, packbuf_error *error) {
  const packbuf_i_shm_facts *const f = &shm->facts;
  uint8_t *tables;
  void *data;
  shm->data_size = f->file_size - f->data_at;
  tables = (uint8_t *)mmap(NULL, (size_t)f->data_at, PROT_READ | PROT_WRITE, MAP_SHARED, shm->fd, 0);
  if (tables == MAP_FAILED) return packbuf_i_system_fail(error, "the store's tables cannot be mapped", errno);
  data = mmap(NULL, (size_t)shm->data_size, PROT_READ, MAP_SHARED, shm->fd, (off_t)f->data_at);
  if (data == MAP_FAILED) {
    const int code = errno;
    (void)munmap(tables, (size_t)f->data_at);
    return packbuf_i_system_fail(error, "the store's data cannot be mapped", code);
  }
  shm->header = (packbuf_i_shm_header *)(void *)tables;
  shm->sessions = (packbuf_i_shm_session *)(void *)(tables + f->sessions_at);
  shm->words = (uint64_t *)(void *)(tables + f->words_at);
  shm->pins = (uint64_t *)(void *)(tables + f->pins_at);
  shm->cells = (uint64_t *)(void *)(tables + f->cells_at);
  shm->slots = (packbuf_i_shm_slot *)(void *)(tables + f->slots_at);
  shm->owners = (uint32_t *)(void *)(tables + f->owners_at);
  shm->data = (const uint8_t *)data;
  shm->pin_words = packbuf_i_shm_pin_words(f->sessions);
  shm->buckets = f->slots / 2; /* 4 cells a slot: a load of a quarter */
  return PACKBUF_OK;
}

static void packbuf_i_shm_unmap(packbuf_i_shm *shm) {
  if (!shm->header) return;
  if (shm->writable) (void)munmap(shm->writable, (size_t)shm->data_size);
  (void)munmap((void *)(uintptr_t)shm->data, (size_t)shm->data_size);
  (void)munmap(shm->header, (size_t)shm->facts.data_at);
  shm->header = NULL;
}

/* The data for writing: mapped when something is put for the first time, so that who only reads cannot write. NULL: the
 * system refused. */
static uint8_t *packbuf_i_shm_writable(packbuf_i_shm *shm) {
  uint8_t *map = PACKBUF_I_LOAD(&shm->writable);
  if (map) return map;
  packbuf_i_locked(&shm->lock);
  map = shm->writable;
  if (!map) {
    void *const made =
        mmap(NULL, (size_t)shm->data_size, PROT_READ | PROT_WRITE, MAP_SHARED, shm->fd, (off_t)shm->facts.data_at);
    if (made != MAP_FAILED) map = (uint8_t *)made;
#if defined(MADV_POPULATE_WRITE)
    if (map) (void)madvise(map, (size_t)shm->data_size, MADV_POPULATE_WRITE); /* else puts pay for the page tables */
#endif
    PACKBUF_I_STORE(&shm->writable, map);
  }
  packbuf_i_unlocked(&shm->lock);
  return map;
}

#endif /* PACKBUF_I_SHM */
