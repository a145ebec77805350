/* tests/double/mooncake_wheel.c: the functions of Mooncake's store_c.h over the Python module `mooncake.store`, for who
 * has the engine as a wheel, which brings its master and this module but no library with the C ABI: so that the
 * store `mooncake` can be tried against the real engine. Both are thin layers over the same client.
 * May use: Python's C API (of the Python that the wheel is for), POSIX. Must not know: packbuf. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <pthread.h>

#define API __attribute__((visibility("default")))

struct mooncake_replicate_config {
  size_t replica_num;
  int with_soft_pin, with_hard_pin;
  const char **preferred_segments;
  size_t preferred_segments_count;
};
typedef struct mooncake_replicate_config config_type;

static PyObject *module;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Modules of Python find its symbols only where they are everybody's, and this library may have been loaded for one. */
static void start_python(void) {
  Dl_info python;
  if (dladdr((void *)(uintptr_t)&Py_IsInitialized, &python)) (void)dlopen(python.dli_fname, RTLD_NOW | RTLD_GLOBAL);
  Py_InitializeEx(0);
  module = PyImport_ImportModule("mooncake.store");
  if (!module) PyErr_Print();
  (void)PyEval_SaveThread();
}

/* What a method answered; -1: an exception, which is told. */
static int64_t number_of(PyObject *answer) {
  int64_t number = answer ? (int64_t)PyLong_AsLongLong(answer) : -1;
  if (PyErr_Occurred()) {
    PyErr_Print();
    number = -1;
  }
  Py_XDECREF(answer);
  return number;
}

/* Calls a method with the arguments of `format`, as PyObject_CallMethod does. */
#define CALL(result, store, ...)                                                          \
  do {                                                                                    \
    const PyGILState_STATE held = PyGILState_Ensure();                                    \
    (result) = number_of(PyObject_CallMethod((PyObject *)(store), __VA_ARGS__));          \
    PyGILState_Release(held);                                                             \
  } while (0)

static PyObject *config_of(const config_type *config) {
  PyObject *made = PyObject_CallMethod(module, "ReplicateConfig", NULL), *value;
  if (!made || !config) return made;
  value = PyLong_FromSize_t(config->replica_num);
  (void)PyObject_SetAttrString(made, "replica_num", value);
  Py_XDECREF(value);
  if (config->with_soft_pin) (void)PyObject_SetAttrString(made, "with_soft_pin", Py_True);
  (void)PyObject_SetAttrString(made, "with_hard_pin", config->with_hard_pin ? Py_True : Py_False);
  return made;
}

API void *mooncake_store_create(void) {
  PyGILState_STATE held;
  PyObject *made = NULL;
  (void)pthread_once(&once, start_python);
  if (!module) return NULL;
  held = PyGILState_Ensure();
  made = PyObject_CallMethod(module, "MooncakeDistributedStore", NULL);
  if (!made) PyErr_Print();
  PyGILState_Release(held);
  return made;
}

API void mooncake_store_destroy(void *store) {
  PyGILState_STATE held;
  if (!store) return;
  held = PyGILState_Ensure();
  (void)number_of(PyObject_CallMethod((PyObject *)store, "close", NULL));
  Py_DECREF((PyObject *)store);
  PyGILState_Release(held);
}

API int mooncake_store_setup(void *store, const char *host, const char *metadata, uint64_t segment, uint64_t buffer,
                             const char *protocol, const char *device, const char *master) {
  int64_t code;
  if (!store || !host || !metadata) return -1;
  CALL(code, store, "setup", "ssKKsss", host, metadata, (unsigned long long)segment, (unsigned long long)buffer,
       protocol ? protocol : "tcp", device ? device : "", master ? master : "127.0.0.1:50051");
  return (int)code;
}

API int mooncake_store_init_all(void *store, const char *protocol, const char *device, uint64_t segment) {
  return mooncake_store_setup(store, "localhost:12345", "127.0.0.1:2379", segment, (uint64_t)16 << 20, protocol, device,
                              NULL);
}

API int mooncake_store_health_check(void *store) {
  int64_t code;
  if (!store) return 1;
  CALL(code, store, "health_check", NULL);
  return (int)code;
}

API int mooncake_store_put(void *store, const char *key, const void *value, size_t size, const config_type *config) {
  int64_t code = -1;
  PyGILState_STATE held;
  if (!store || !key || (!value && size)) return -1;
  held = PyGILState_Ensure();
  code = number_of(PyObject_CallMethod((PyObject *)store, "put", "sy#N", key, (const char *)value, (Py_ssize_t)size,
                                       config_of(config)));
  PyGILState_Release(held);
  return (int)code;
}

API int mooncake_store_put_from(void *store, const char *key, void *buffer, size_t size, const config_type *config) {
  int64_t code;
  PyGILState_STATE held;
  if (!store || !key || !buffer) return -1;
  held = PyGILState_Ensure();
  code = number_of(PyObject_CallMethod((PyObject *)store, "put_from", "sKnN", key,
                                       (unsigned long long)(uintptr_t)buffer, (Py_ssize_t)size, config_of(config)));
  PyGILState_Release(held);
  return (int)code;
}

/* Keys, addresses and sizes as lists; with the interpreter's lock held. */
static void lists_of(const char **keys, void **buffers, const size_t *sizes, size_t count, PyObject *lists[3]) {
  for (int i = 0; i < 3; i++) lists[i] = PyList_New((Py_ssize_t)count);
  for (size_t i = 0; i < count; i++) {
    PyList_SET_ITEM(lists[0], (Py_ssize_t)i, PyUnicode_FromString(keys[i]));
    PyList_SET_ITEM(lists[1], (Py_ssize_t)i, PyLong_FromVoidPtr(buffers[i]));
    PyList_SET_ITEM(lists[2], (Py_ssize_t)i, PyLong_FromSize_t(sizes[i]));
  }
}

/* The i-th of the numbers that a batch answered. */
static int64_t number_at(PyObject *answer, size_t i) {
  PyObject *number = answer ? PySequence_GetItem(answer, (Py_ssize_t)i) : NULL;
  return number_of(number);
}

API int mooncake_store_batch_put_from(void *store, const char **keys, void **buffers, const size_t *sizes,
                                      size_t count, const config_type *config, int *results) {
  PyObject *lists[3], *answer;
  PyGILState_STATE held;
  int code = 0;
  if (!store || !keys || !buffers || !sizes || !results) return -1;
  held = PyGILState_Ensure();
  lists_of(keys, buffers, sizes, count, lists);
  answer = PyObject_CallMethod((PyObject *)store, "batch_put_from", "NNNN", lists[0], lists[1], lists[2],
                               config_of(config));
  if (!answer) code = -1;
  for (size_t i = 0; i < count; i++) results[i] = (int)number_at(answer, i);
  Py_XDECREF(answer);
  PyGILState_Release(held);
  return code;
}

API int64_t mooncake_store_get_into(void *store, const char *key, void *buffer, size_t capacity) {
  int64_t got;
  if (!store || !key || !buffer) return -1;
  CALL(got, store, "get_into", "sKn", key, (unsigned long long)(uintptr_t)buffer, (Py_ssize_t)capacity);
  return got;
}

API int mooncake_store_batch_get_into(void *store, const char **keys, void **buffers, const size_t *sizes,
                                      size_t count, int64_t *results) {
  PyObject *lists[3], *answer;
  PyGILState_STATE held;
  int code = 0;
  if (!store || !keys || !buffers || !sizes || !results) return -1;
  held = PyGILState_Ensure();
  lists_of(keys, buffers, sizes, count, lists);
  answer = PyObject_CallMethod((PyObject *)store, "batch_get_into", "NNN", lists[0], lists[1], lists[2]);
  if (!answer) code = -1;
  for (size_t i = 0; i < count; i++) results[i] = number_at(answer, i);
  Py_XDECREF(answer);
  PyGILState_Release(held);
  return code;
}

API int mooncake_store_is_exist(void *store, const char *key) {
  int64_t code;
  if (!store || !key) return -1;
  CALL(code, store, "is_exist", "s", key);
  return (int)code;
}

API int mooncake_store_batch_is_exist(void *store, const char **keys, size_t count, int *results) {
  if (!store || !keys || !results) return -1;
  for (size_t i = 0; i < count; i++) results[i] = mooncake_store_is_exist(store, keys[i]);
  return 0;
}

API int64_t mooncake_store_get_size(void *store, const char *key) {
  int64_t size;
  if (!store || !key) return -1;
  CALL(size, store, "get_size", "s", key);
  return size;
}

API int mooncake_store_get_hostname(void *store, char *name, size_t size) {
  (void)store, (void)name, (void)size;
  return -1;
}

API int mooncake_store_remove(void *store, const char *key, int force) {
  int64_t code;
  if (!store || !key) return -1;
  CALL(code, store, "remove", "sO", key, force ? Py_True : Py_False);
  return (int)code;
}

API int64_t mooncake_store_remove_by_regex(void *store, const char *pattern, int force) {
  int64_t count;
  if (!store || !pattern) return -1;
  CALL(count, store, "remove_by_regex", "sO", pattern, force ? Py_True : Py_False);
  return count;
}

API int64_t mooncake_store_remove_all(void *store, int force) {
  int64_t count;
  if (!store) return -1;
  CALL(count, store, "remove_all", "O", force ? Py_True : Py_False);
  return count;
}

API int mooncake_store_register_buffer(void *store, void *buffer, size_t size) {
  int64_t code;
  if (!store || !buffer || !size) return -1;
  CALL(code, store, "register_buffer", "Kn", (unsigned long long)(uintptr_t)buffer, (Py_ssize_t)size);
  return (int)code;
}

API int mooncake_store_unregister_buffer(void *store, void *buffer) {
  int64_t code;
  if (!store) return -1;
  CALL(code, store, "unregister_buffer", "K", (unsigned long long)(uintptr_t)buffer);
  return (int)code;
}
