/* transport/secret.c: the secret that a store or server is protected with.
 * May use: system, text. Must not know: what it is compared with. */
#include <fcntl.h>

/* The secret that was given, else that of the environment; *size 0: there is none. */
enum { PACKBUF_I_SECRET = 1024 };
static packbuf_status packbuf_i_secret_find(const void *given, size_t given_size, uint8_t *secret, size_t *size,
                                            packbuf_error *error) {
  const char *path = given ? NULL : getenv("PACKBUF_SECRET_FILE");
  const char *text = given ? NULL : getenv("PACKBUF_SECRET");
  *size = 0;
  if (given) {
    if (given_size > PACKBUF_I_SECRET || !given_size)
      return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a secret has 1 to 1024 bytes");
    memcpy(secret, given, given_size);
    *size = given_size;
  } else if (path && *path) {
    uint8_t all[PACKBUF_I_SECRET + 3]; /* with the end of its line; more is too much */
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t some = fd >= 0 ? 1 : -1;
    int code = errno;
    while (some > 0 && have < sizeof all) { /* a pipe gives it in pieces */
      some = read(fd, all + have, sizeof all - have);
      code = errno;
      if (some > 0) have += (size_t)some;
      else if (some < 0 && code == EINTR) some = 1;
    }
    if (fd >= 0) (void)close(fd);
    if (some < 0) return packbuf_i_system_fail(error, "the file of PACKBUF_SECRET_FILE cannot be read", code);
    while (have && (all[have - 1] == '\n' || all[have - 1] == '\r')) have--;
    if (!have) return packbuf_i_call_fail(error, PACKBUF_DENIED, "the file of PACKBUF_SECRET_FILE is empty");
    if (have > PACKBUF_I_SECRET)
      return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a secret has 1 to 1024 bytes");
    memcpy(secret, all, have);
    *size = have;
  } else if (text && *text) {
    *size = packbuf_i_length(text, PACKBUF_I_SECRET);
    if (*size > PACKBUF_I_SECRET)
      return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a secret has 1 to 1024 bytes");
    memcpy(secret, text, *size);
  }
  return PACKBUF_OK;
}
