// src/held.h: what must stay as long as descriptions point to it: references and exported buffers. Needs the GIL.
// May use: objects.h. Must not know: what is described.
#pragma once

#include "objects.h"

#include <memory>
#include <vector>

namespace packbuf_py {

// A Py_buffer that is given back at the end.
class Exported {
 public:
  Exported() { view_.obj = nullptr; }
  Exported(const Exported &) = delete;
  Exported &operator=(const Exported &) = delete;
  ~Exported() { PyBuffer_Release(&view_); }
  bool open(PyObject *object, int flags) { return PyObject_GetBuffer(object, &view_, flags) == 0; }
  const Py_buffer &view() const { return view_; }

 private:
  Py_buffer view_;
};

class Held {
 public:
  Held() = default;
  Held(const Held &) = delete;
  Held &operator=(const Held &) = delete;
  ~Held() { clear(); }

  void add(PyObject *object) {
    Py_INCREF(object);
    objects_.push_back(object);
  }
  void take(PyObject *object) { objects_.push_back(object); }
  // The buffer of a bytes-like, contiguous; nullptr with an exception set.
  const Py_buffer *buffer(PyObject *object, int flags) {
    auto exported = std::make_unique<Exported>();
    if (!exported->open(object, flags)) return nullptr;
    buffers_.push_back(std::move(exported));
    return &buffers_.back()->view();
  }
  void clear() {
    for (PyObject *object : objects_) Py_DECREF(object);
    objects_.clear();
    buffers_.clear();
  }

 private:
  std::vector<PyObject *> objects_;
  std::vector<std::unique_ptr<Exported>> buffers_;
};

} // namespace packbuf_py
