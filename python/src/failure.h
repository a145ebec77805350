// src/failure.h: what goes wrong on the way between Python and the C core, as a C++ exception that becomes a
// packbuf.Error.
// May use: packbuf.h, Python.h. Must not know: what was being done.
#pragma once

#include "objects.h"
#include "packbuf_threads.h"

#include <string>
#include <unistd.h>

namespace packbuf_py {

// A str of bytes that should be UTF-8, as a new reference; BAD_UTF8 where they are not.
PyObject *text_object(const char *data, size_t size);

// Becomes packbuf.Error, or the subclass that its code has.
struct Failure {
  packbuf_error error; // its message and path are not used
  std::string message, path;
};

// A Python exception is set already.
struct PythonError {};

[[noreturn]] void fail(packbuf_status code, std::string message, std::string path = {}, uint64_t row = PACKBUF_NOWHERE);
[[noreturn]] void fail(const packbuf_error &error);

inline void check(packbuf_status status, const packbuf_error &error) {
  if (status != PACKBUF_OK) fail(error);
}

// The object, or PythonError where a call of Python returned none.
inline PyObject *must(PyObject *object) {
  if (!object) throw PythonError{};
  return object;
}

// What the C core says of a failure.
Failure failure_of(const packbuf_error &error);

// The packbuf.Error of a Failure, as a new reference; NULL with another exception set. And raised.
PyObject *error_of(const Failure &failure);
void raise(const Failure &failure);

// The packbuf.Error that Python code raised, as a Failure again, so that its place can be added; any other exception
// goes on as PythonError.
Failure caught();

// Lets other threads run Python while the C core works.
class Unlocked {
 public:
  explicit Unlocked(bool really = true) : state_(really ? PyEval_SaveThread() : nullptr) {}
  Unlocked(const Unlocked &) = delete;
  Unlocked &operator=(const Unlocked &) = delete;
  ~Unlocked() {
    if (state_) lock();
  }

 private:
  // While the interpreter ends, Python before 3.14 unwinds a daemon thread that wants the GIL, which would end the
  // process here: such a thread waits for the end, as newer Python has it.
  void lock() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) pause();
    }
  }

  PyThreadState *state_;
};

// What a call of the C core says, made while other threads may run Python.
template <class Call>
auto unlocked(const Call &call) {
  const Unlocked others;
  return call();
}

} // namespace packbuf_py
