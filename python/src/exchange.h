// src/exchange.h: the capsules of Arrow's PyCapsule interface and of DLPack: a selection's columns out, columns of
// other packages in. None of these packages is imported.
// May use: held.h, failure.h, packbuf_exchange.h. Must not know: batches, how a selection is made.
#pragma once

#include "failure.h"
#include "exchange/packbuf_exchange.h"

#include <vector>

namespace packbuf_py {

// Capsules of a selection's node (PACKBUF_NO_NODE: of all its fields). owner: the Python object of the selection, which
// every exported struct keeps alive.
PyObject *arrow_schema(PyObject *owner, const packbuf_selection *selection, uint32_t node);
PyObject *arrow_array(PyObject *owner, const packbuf_selection *selection, uint32_t node); // a pair: schema, array
PyObject *arrow_device_array(PyObject *owner, const packbuf_selection *selection, uint32_t node); // likewise
PyObject *arrow_stream(PyObject *owner, const packbuf_selection *selection, uint32_t node);
PyObject *dlpack(PyObject *owner, const packbuf_selection *selection, uint32_t node, unsigned flags, bool versioned);

// A column or a record batch of another package, in one or more chunks, until it is destroyed. Needs the GIL.
class Arrow {
 public:
  // Asks object for its array or its stream; throws what it raises, or what its stream says.
  explicit Arrow(PyObject *object);
  Arrow(const Arrow &) = delete;
  Arrow &operator=(const Arrow &) = delete;
  ~Arrow() { release(); }
  static bool offered(PyObject *object); // whether it has one
  uint64_t rows() const;
  const ArrowSchema *schema() const { return &schema_; }
  const ArrowArray *const *chunks() const { return pointers_.data(); }
  size_t count() const { return pointers_.size(); }

 private:
  void take_stream(PyObject *capsule);
  void release();
  ArrowSchema schema_;
  std::vector<ArrowArray> chunks_;
  std::vector<const ArrowArray *> pointers_;
};

// A tensor of an object with __dlpack__, in the arena; what keeps it alive is added to held. nullptr: it has none.
class Held;
packbuf_tensor *dlpack_tensor(PyObject *object, packbuf_arena *arena, Held *held);

} // namespace packbuf_py
