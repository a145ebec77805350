// src/bind_store.h: what the bindings of stores and of ledgers share.
// May use: bind.h, store.h. Must not know: what either does.
#pragma once

#include "bind.h"
#include "store.h"

#include <string>
#include <vector>

namespace packbuf_py {

// The handle of a Store; DISCONNECTED when it was closed.
const SharedHandle &handle_of(nanobind::handle store);
// A key, or what else is text, as the C core takes it, kept by the str; INVALID_ARGUMENT for what cannot be one.
const char *key_text(nanobind::handle key, const char *what = "a key");
// A ref as it is, or by its text; a key as the ref of whatever is newest.
packbuf_ref ref_of(nanobind::handle key);
// limits, fingerprint: as long as the options are used.
packbuf_get_options get_options(const packbuf_limits *limits, int level, const nanobind::object &fingerprint,
                                double seconds);
// What is wanted of a batch: None, all of it, or (patterns, rows, gap, values), which is kept by the caller.
class Wanted {
 public:
  explicit Wanted(const nanobind::object &parts);
  Wanted(const Wanted &) = delete;
  Wanted &operator=(const Wanted &) = delete;
  const packbuf_wanted *get() const { return some_ ? &what_ : nullptr; }

 private:
  packbuf_wanted what_;
  std::vector<std::string> texts_;
  std::vector<const char *> patterns_;
  bool some_ = false;
};

int leased_buffer(PyObject *self, Py_buffer *buffer, int flags);
void leased_release(PyObject *self, Py_buffer *buffer);

} // namespace packbuf_py
