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
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t some = fd >= 0 ? read(fd, secret, PACKBUF_I_SECRET) : -1;
    const int code = errno;
    if (fd >= 0) (void)close(fd);
    if (some < 0) return packbuf_i_system_fail(error, "the file of PACKBUF_SECRET_FILE cannot be read", code);
    while (some > 0 && (secret[some - 1] == '\n' || secret[some - 1] == '\r')) some--;
    if (!some) return packbuf_i_call_fail(error, PACKBUF_DENIED, "the file of PACKBUF_SECRET_FILE is empty");
    *size = (size_t)some;
  } else if (text && *text) {
    *size = packbuf_i_length(text, PACKBUF_I_SECRET);
    if (*size > PACKBUF_I_SECRET)
      return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a secret has 1 to 1024 bytes");
    memcpy(secret, text, *size);
  }
  return PACKBUF_OK;
}
