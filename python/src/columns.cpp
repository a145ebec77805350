// src/columns.cpp: columns as numpy arrays. What is copied is copied without the GIL, into memory that numpy has.
// May use: columns.h, numpy.h. Must not know: how a batch is built.
#include "columns.h"

#include "numpy.h"

#include <cstring>

namespace packbuf_py {

static int64_t bound(PyObject *number, int64_t open) {
  if (number == Py_None) return open;
  int overflow;
  const long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
  if (PyErr_Occurred()) throw PythonError{};
  return overflow > 0 ? INT64_MAX - 1 : overflow < 0 ? INT64_MIN + 1 : value;
}

packbuf_row_selection row_selection(PyObject *rows) {
  if (rows == Py_None) return packbuf_rows_all();
  if (PyTuple_Check(rows)) {
    const int64_t step = bound(must(tuple_item(rows, 2)), 1);
    const int64_t low = PACKBUF_ROWS_BEGIN, high = PACKBUF_ROWS_END;
    return packbuf_rows_range(bound(must(tuple_item(rows, 0)), step < 0 ? high : low),
                              bound(must(tuple_item(rows, 1)), step < 0 ? low : high), step);
  }
  auto *array = reinterpret_cast<PyArrayObject *>(rows);
  if (!PyArray_Check(rows) || PyArray_NDIM(array) != 1 || !PyArray_IS_C_CONTIGUOUS(array))
    fail(PACKBUF_INVALID_ARGUMENT, "rows are a slice, or an array of indexes or bools");
  const auto count = static_cast<uint64_t>(PyArray_DIM(array, 0));
  if (PyArray_TYPE(array) == NPY_BOOL) return packbuf_rows_mask(static_cast<uint8_t *>(PyArray_DATA(array)), count);
  return packbuf_rows_index(static_cast<int64_t *>(PyArray_DATA(array)), count);
}

const char *pattern_text(const std::string &pattern) {
  if (pattern.find('\0') != std::string::npos) fail(PACKBUF_NOT_FOUND, packbuf_status_text(PACKBUF_NOT_FOUND), pattern);
  return pattern.c_str();
}

Selection::Selection(PyObject *owner, const View &view, const packbuf_selection &chosen)
    : owner_(owner), view_(view), selection_(chosen) {
  selection_.view = view.get();
  Py_INCREF(owner_);
}

Selection::Selection(PyObject *owner, const View &view, unsigned scope, const std::vector<std::string> &patterns,
                     PyObject *rows)
    : owner_(owner), view_(view) {
  std::vector<const char *> texts;
  packbuf_error error;
  for (const std::string &pattern : patterns) texts.push_back(pattern_text(pattern));
  check(packbuf_select(view.get(), scope, texts.data(), texts.size(), row_selection(rows), arena_.get(), &selection_,
                       &error),
        error);
  Py_INCREF(owner_);
}

std::vector<uint32_t> Selection::chosen() const {
  std::vector<uint32_t> nodes;
  for (uint32_t i = 0; i < selection_.node_count; i++)
    if (selection_.flags[selection_.nodes[i]] == 2) nodes.push_back(selection_.nodes[i]);
  return nodes;
}

packbuf_selected_size Selection::size(uint32_t node) const {
  packbuf_selected_size size;
  packbuf_error error;
  check(packbuf_select_size(&selection_, node, &size, &error), error);
  return size;
}

// numpy's descr of a node's elements: times are datetime64; bits: what numpy lacks are unsigned integers.
static PyObject *node_descr(const View &view, uint32_t index, bool bits) {
  const packbuf_node node = view.node(index);
  if (bits && (node.dtype.code == PACKBUF_DTYPE_BFLOAT || node.dtype.code >= PACKBUF_DTYPE_FLOAT8_E4M3FN))
    return descr_of(packbuf_dtype_of(PACKBUF_DTYPE_UINT, node.dtype.bits));
  if (node.logical_type != 1) return descr_of(node.dtype);
  const Ref module = Ref::take(must(PyImport_ImportModule("packbuf._plugin")));
  const Ref unit = Ref::take(text_object(node.parameter.data, node.parameter.size));
  return must(PyObject_CallMethod(module.get(), "time_dtype", "O", unit.get()));
}

PyObject *Selection::in_place(uint32_t node, bool bits) const {
  packbuf_selected_tensor out;
  packbuf_error error;
  npy_intp shape[PACKBUF_MAX_RANK], strides[PACKBUF_MAX_RANK];
  const packbuf_status status = packbuf_select_tensor(&selection_, node, &out, &error);
  if (status == PACKBUF_NOT_STORED || status == PACKBUF_UNALIGNED || status == PACKBUF_NOT_FETCHED)
    return Py_NewRef(Py_None); // of what was fetched in pieces a copy can be had; of what was not, it says so
  check(status, error);
  for (unsigned i = 0; i < out.tensor.rank; i++) {
    shape[i] = static_cast<npy_intp>(out.shape[i]);
    strides[i] = static_cast<npy_intp>(out.strides[i]);
  }
  PyObject *descr = node_descr(view_, node, bits);
  Ref array = Ref::take(
      made_array(PyArray_NewFromDescr(&PyArray_Type, reinterpret_cast<PyArray_Descr *>(descr), out.tensor.rank, shape,
                                      strides, const_cast<void *>(out.tensor.data), 0, nullptr)));
  auto *fields = reinterpret_cast<PyArrayObject *>(array.get());
  PyArray_UpdateFlags(fields, NPY_ARRAY_UPDATE_ALL & ~NPY_ARRAY_WRITEABLE);
  PyArray_SetBaseObject(fields, Py_NewRef(owner_));
  return array.release();
}

static Ref new_array(PyObject *descr, int rank, const npy_intp *shape) { // takes descr
  return Ref::take(made_array(PyArray_Empty(rank, shape, reinterpret_cast<PyArray_Descr *>(descr), 0)));
}

static void *data_of(const Ref &array) { return PyArray_DATA(reinterpret_cast<PyArrayObject *>(array.get())); }

static void copy(const packbuf_selection *selection, uint32_t node, const packbuf_select_into &into, uint64_t bytes) {
  packbuf_error error;
  packbuf_status status;
  {
    Unlocked unlocked(bytes > 16384);
    status = packbuf_select_copy(selection, node, &into, nullptr, &error);
  }
  check(status, error);
}

void Selection::copy_into(uint32_t node, void *data, uint64_t capacity, packbuf_dtype dtype) const {
  packbuf_select_into into;
  memset(&into, 0, sizeof into);
  into.data = data;
  into.data_capacity = capacity;
  into.dtype = dtype;
  copy(&selection_, node, into, capacity);
}

PyObject *Selection::copied(uint32_t node, bool bits) const {
  const packbuf_selected_size measured = size(node);
  npy_intp shape[PACKBUF_MAX_RANK + 1] = {static_cast<npy_intp>(measured.rows)};
  for (unsigned i = 0; i < measured.rank; i++) shape[i + 1] = static_cast<npy_intp>(measured.shape[i]);
  const Ref array = new_array(node_descr(view_, node, bits), static_cast<int>(measured.rank) + 1, shape);
  copy_into(node, data_of(array), measured.data_bytes, packbuf_dtype{0, 0, 0});
  return Py_NewRef(array.get());
}

PyObject *Selection::ragged(uint32_t node, bool bits, PyObject *memory) const {
  const packbuf_selected_size measured = size(node);
  const npy_intp elements = static_cast<npy_intp>(measured.elements), rows = static_cast<npy_intp>(measured.rows),
                 ends = rows + 1, sizes[2] = {measured.rank > 1 ? static_cast<npy_intp>(measured.rank) : 0, rows};
  Ref data;
  if (memory == Py_None) data = new_array(node_descr(view_, node, bits), 1, &elements);
  else data = Ref::take(must(PyObject_CallMethod(memory, "view", "N", node_descr(view_, node, bits))));
  if (PyArray_SIZE(reinterpret_cast<PyArrayObject *>(data.get())) != elements)
    fail(PACKBUF_CAPACITY, "the memory is not as long as the elements");
  const Ref offsets = new_array(reinterpret_cast<PyObject *>(PyArray_DescrFromType(NPY_INT64)), 1, &ends);
  const Ref shapes = new_array(reinterpret_cast<PyObject *>(PyArray_DescrFromType(NPY_UINT64)), 2, sizes);
  const Ref ndims = new_array(reinterpret_cast<PyObject *>(PyArray_DescrFromType(NPY_UINT8)), 1, &rows);
  packbuf_select_into into;
  memset(&into, 0, sizeof into);
  into.data = data_of(data);
  into.data_capacity = measured.data_bytes;
  into.rows = measured.rows;
  into.offsets = data_of(offsets);
  for (npy_intp i = 0; i < sizes[0]; i++) into.shape[i] = static_cast<uint64_t *>(data_of(shapes)) + i * rows;
  into.ndims = static_cast<uint8_t *>(data_of(ndims));
  copy(&selection_, node, into, measured.data_bytes);
  return must(PyTuple_Pack(4, data.get(), offsets.get(), shapes.get(), ndims.get()));
}

// Bits as an array of bool, all turned over where flip is 1.
static Ref bools(const std::vector<uint8_t> &bits, uint64_t count, unsigned flip) {
  const auto rows = static_cast<npy_intp>(count);
  Ref array = new_array(reinterpret_cast<PyObject *>(PyArray_DescrFromType(NPY_BOOL)), 1, &rows);
  auto *to = static_cast<uint8_t *>(data_of(array));
  for (size_t i = 0; i < count; i++) to[i] = static_cast<uint8_t>((bits[i / 8] >> (i % 8) & 1u) ^ flip);
  return array;
}

PyObject *Selection::masks(uint32_t node) const {
  const uint64_t rows = size(node).rows;
  std::vector<uint8_t> bits[2];
  packbuf_select_into into;
  memset(&into, 0, sizeof into);
  for (auto &mask : bits) mask.resize((rows + 7) / 8 + 1);
  into.rows = rows;
  into.validity = bits[0].data();
  into.missing = bits[1].data();
  copy(&selection_, node, into, 0);
  return must(PyTuple_Pack(2, bools(bits[0], rows, 0).get(), bools(bits[1], rows, 0).get()));
}

PyObject *Selection::absent(uint32_t node) const {
  const packbuf_node at = view_.node(node);
  if (!view_.has_mask(node) && !(at.kind == PACKBUF_LEAF && at.codec == PACKBUF_CODEC_NULL)) return Py_NewRef(Py_None);
  const uint64_t rows = size(node).rows;
  std::vector<uint8_t> valid(rows / 8 + 1);
  packbuf_select_into into;
  memset(&into, 0, sizeof into);
  into.rows = rows;
  into.validity = valid.data();
  copy(&selection_, node, into, 0);
  Ref absent = bools(valid, rows, 1);
  return memchr(data_of(absent), 1, rows) ? absent.release() : Py_NewRef(Py_None);
}

PyObject *Selection::values(uint64_t first, uint64_t count) const {
  Arena arena;
  std::vector<packbuf_value> rows(count);
  packbuf_error error;
  packbuf_status status;
  {
    Unlocked unlocked(count > 16);
    status = packbuf_select_values(&selection_, first, count, arena.get(), rows.data(), &error);
  }
  check(status, error);
  Values values(view_, owner_);
  Ref list = Ref::take(must(PyList_New(static_cast<Py_ssize_t>(count))));
  for (uint64_t i = 0; i < count; i++)
    list_put(list.get(), static_cast<Py_ssize_t>(i), values.object(rows[i], view_.shown(selection_.scope)));
  return list.release();
}

PyObject *Selection::cells(uint32_t node) const {
  if (!selection_.index && selection_.step == 1) return read_cells(view_, owner_, node, selection_.first, rows());
  Values values(view_, owner_);
  const Shown *shown = view_.shown_node(node);
  Ref list = Ref::take(must(PyList_New(static_cast<Py_ssize_t>(selection_.rows))));
  for (uint64_t i = 0; i < selection_.rows; i++) {
    Arena arena;
    packbuf_value value;
    packbuf_error error;
    check(packbuf_read_cell(view_.get(), node, packbuf_selected_row(&selection_, i), arena.get(), &value, &error),
          error);
    list_put(list.get(), static_cast<Py_ssize_t>(i), values.object(value, shown));
  }
  return list.release();
}

PyObject *Selection::objects(uint32_t node) const {
  if (!selection_.index && selection_.step == 1) return read_objects(view_, owner_, node, selection_.first, rows());
  const Ref list = Ref::take(cells(node));
  Ref array = new_objects(selection_.rows);
  auto **to = static_cast<PyObject **>(data_of(array));
  for (uint64_t i = 0; i < selection_.rows; i++) to[i] = Py_NewRef(list_item(list.get(), static_cast<Py_ssize_t>(i)));
  return array.release();
}

} // namespace packbuf_py
