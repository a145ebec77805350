// src/view.h: an open packed buffer, the memory it lies in held, and how its cells are shown as Python values.
// May use: packbuf.h, held.h, memory.h, failure.h. Must not know: how a batch is built.
#pragma once

#include "failure.h"
#include "held.h"
#include "memory.h"

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace packbuf_py {

// What the record of a node says that a value of it does not: followed by node, only where there is something to say.
struct Shown {
  bool special = false;                                 // this one, or one below
  bool plain_scalar = false;                            // elements of a 1-D numpy array: numpy scalars
  std::string unit;                                     // of times
  std::vector<std::pair<const char *, Shown>> children; // of a dict by where their name lies, of a list in order
};

// How values are made.
struct Manner {
  int tensors = -1; // 2: torch, in place, 1: torch, 0: numpy, -1: torch if it is imported
  int images = -1;  // 1: PIL, 0: Media, -1: PIL if it is imported
  bool allow_pickle = false;
};

class View {
 public:
  View(PyObject *buffer, unsigned flags, const packbuf_limits &limits, Manner manner);
  // Of a packed buffer of which head and index lie in `head`, and ranges (offset, length), ascending, end to end in
  // `memory` (None: there are none).
  View(PyObject *head, PyObject *memory, const std::vector<std::pair<uint64_t, uint64_t>> &ranges,
       const packbuf_limits &limits, Manner manner);
  // One that is open already, in memory that the owner exports.
  View(PyObject *owner, const packbuf_view &opened, Manner manner);
  View(const View &) = delete;
  View &operator=(const View &) = delete;
  const packbuf_view *get() const { return &view_; }
  const Manner &manner() const { return manner_; }
  const packbuf_limits &limits() const { return view_.limits; }
  // How the fields (scope 0) or batch values (scope 1) are shown; nullptr: nothing special about them.
  const Shown *shown(unsigned scope) const { return shown_[scope].special ? &shown_[scope] : nullptr; }
  const Shown *shown_node(uint32_t index) const;
  PyObject *missing() const; // packbuf.MISSING, borrowed; throws. Needs the GIL
  bool contains(const void *data) const;

  packbuf_node node(uint32_t index) const;
  bool is_attribute(const packbuf_node &node) const; // of media
  bool has_mask(uint32_t index) const;
  packbuf_node find(unsigned scope, const std::string &path) const;
  std::string path(uint32_t index) const;

 private:
  void look_at_all();
  Shown look(uint32_t index, uint32_t *next) const;
  Exported exported_, ranges_;
  std::vector<packbuf_fetched> fetched_;
  packbuf_view view_;
  Manner manner_;
  Shown shown_[2];
  mutable Ref missing_;
};

// Turns values that were read into Python objects. Needs the GIL.
class Values {
 public:
  // owner: the Python object of the view, which arrays in place keep alive.
  Values(const View &view, PyObject *owner);
  Values(const Values &) = delete;
  Values &operator=(const Values &) = delete;
  ~Values();
  PyObject *object(const packbuf_value &value, const Shown *shown = nullptr); // a new reference; throws

 private:
  PyObject *list(const packbuf_value &value, const Shown *shown);
  PyObject *dict(const packbuf_value &value, const Shown *shown);
  PyObject *text(const packbuf_value &text);
  PyObject *tensor(const packbuf_tensor &tensor, const Shown *shown);
  PyObject *array(const packbuf_tensor &tensor, PyObject *descr);
  PyObject *media(const packbuf_media &media);
  PyObject *opaque(const packbuf_opaque &opaque);
  bool torch(); // tensors become torch's

  struct Text {
    uint64_t hash;
    PyObject *object;
  };
  const View &view_;
  PyObject *owner_;
  int torch_; // what tensors become, as in Manner
  std::array<Text, 64> texts_{};
};

// Python lists of values: rows of all fields, cells of one node, all batch values as a dict.
PyObject *read_rows(const View &view, PyObject *owner, uint64_t first, uint64_t count);
PyObject *read_cells(const View &view, PyObject *owner, uint32_t node, uint64_t first, uint64_t count);
// Cells of one node as a numpy array of objects.
PyObject *read_objects(const View &view, PyObject *owner, uint32_t node, uint64_t first, uint64_t count);
PyObject *read_batch_values(const View &view, PyObject *owner);

} // namespace packbuf_py
