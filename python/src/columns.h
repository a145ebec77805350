// src/columns.h: selections: columns as numpy arrays in place or copied out, and rows as values.
// May use: view.h. Must not know: how a batch is built.
#pragma once

#include "view.h"

namespace packbuf_py {

// Rows as Selection takes them; the array must stay. A pattern as the C core takes it, kept by the string.
packbuf_row_selection row_selection(PyObject *rows);
const char *pattern_text(const std::string &pattern);

class Selection {
 public:
  // rows: None, a slice as (first, stop, step) with None at open ends, or a contiguous array: bool mask or int64
  // indexes.
  Selection(PyObject *owner, const View &view, unsigned scope, const std::vector<std::string> &patterns,
            PyObject *rows);
  // One that was chosen, kept by what the view holds.
  Selection(PyObject *owner, const View &view, const packbuf_selection &chosen);
  Selection(const Selection &) = delete;
  Selection &operator=(const Selection &) = delete;
  ~Selection() { Py_DECREF(owner_); }

  const packbuf_selection *get() const { return &selection_; }
  uint64_t rows() const { return selection_.rows; }
  std::vector<uint32_t> chosen() const; // nodes that were chosen, those above them not
  packbuf_selected_size size(uint32_t node) const;
  // An array over the packed buffer; None when the elements do not lie there so. bits: what numpy lacks as integers.
  PyObject *in_place(uint32_t node, bool bits) const;
  // A new array [rows, cell...] of a dense column.
  PyObject *copied(uint32_t node, bool bits) const;
  // Into contiguous memory of the caller, which has room for `capacity` bytes.
  void copy_into(uint32_t node, void *data, uint64_t capacity, packbuf_dtype dtype) const;
  // (elements, offsets, shapes, ndims) of a ragged column; the elements in `memory`, bytes as a numpy array, or None.
  PyObject *ragged(uint32_t node, bool bits, PyObject *memory) const;
  // (validity, missing) as arrays of bool.
  PyObject *masks(uint32_t node) const;
  // Which cells are null or missing, as an array of bool; None: none.
  PyObject *absent(uint32_t node) const;
  PyObject *values(uint64_t first, uint64_t count) const; // rows as dicts
  PyObject *cells(uint32_t node) const;                   // of one node
  PyObject *objects(uint32_t node) const;                 // the same as an array

 private:
  PyObject *owner_; // the Python object of the view
  const View &view_;
  Arena arena_;
  packbuf_selection selection_;
};

} // namespace packbuf_py
