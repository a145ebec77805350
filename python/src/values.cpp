// src/values.cpp: values that were read as Python objects. Numbers in the packed buffer become arrays over it, what the
// arena holds is copied.
// May use: view.h, numpy.h. Must not know: how cells are stored.
#include "numpy.h"
#include "view.h"

#include <algorithm>
#include <cstring>

namespace packbuf_py {

static bool imported(const char *name) {
  PyObject *modules = PyImport_GetModuleDict();
  return modules && PyDict_GetItemString(modules, name);
}

Values::Values(const View &view, PyObject *owner)
    : view_(view),
      owner_(owner),
      torch_(view.manner().tensors) {}

bool Values::torch() {
  if (torch_ < 0) torch_ = imported("torch");
  return torch_ > 0;
}

Values::~Values() {
  for (const Text &text : texts_) Py_XDECREF(text.object);
}

static PyObject *plugin(const char *name) {
  const Ref module = Ref::take(must(PyImport_ImportModule("packbuf._plugin")));
  return must(PyObject_GetAttrString(module.get(), name));
}

PyObject *View::missing() const {
  if (!missing_) missing_ = Ref::take(plugin("MISSING"));
  return missing_.get();
}

static uint64_t hash_of(const char *data, size_t size) {
  uint64_t first = 0, last = 0;
  memcpy(&first, data, std::min<size_t>(size, 8));
  if (size > 8) memcpy(&last, data + size - 8, 8);
  return (first * 0xFF51AFD7ED558CCDu ^ (last + size)) * 0x9E3779B97F4A7C15u;
}

// Keys come again in every row, and texts of a few kinds do: as one object. Known by what they are, never by where they
// lie, since the arena of the next piece may lie there too. A new reference.
PyObject *Values::text(const packbuf_value &value) {
  const char *data = value.as.text.data;
  const size_t size = value.as.text.size, most = 64;
  if (size == 0 || size > most) return text_object(data, size);
  const uint64_t hash = hash_of(data, size);
  Text &known = texts_[hash >> 58];
  if (known.object && known.hash == hash) {
    Py_ssize_t length = 0;
    const char *bytes = text_of(known.object, &length);
    if (!bytes) throw PythonError{};
    if (static_cast<size_t>(length) == size && memcmp(bytes, data, size) == 0) return Py_NewRef(known.object);
  }
  PyObject *object = text_object(data, size);
  Py_XDECREF(known.object);
  known = {hash, object};
  return Py_NewRef(object);
}

static PyObject *bytes(const void *data, size_t size) {
  return must(PyBytes_FromStringAndSize(static_cast<const char *>(data), static_cast<Py_ssize_t>(size)));
}

PyObject *Values::object(const packbuf_value &value, const Shown *shown) {
  switch (value.kind) {
    case PACKBUF_BOOL: return Py_NewRef(value.as.boolean ? Py_True : Py_False);
    case PACKBUF_INT: {
      PyObject *number = must(PyLong_FromLongLong(value.as.i));
      if (!shown || shown->unit.empty()) return number;
      const Ref held = Ref::take(number), make = Ref::take(plugin("time"));
      const Ref unit = Ref::take(text_object(shown->unit.data(), shown->unit.size()));
      return must(PyObject_CallFunctionObjArgs(make.get(), number, unit.get(), nullptr));
    }
    case PACKBUF_UINT: return must(PyLong_FromUnsignedLongLong(value.as.u));
    case PACKBUF_BIGINT: {
      const Ref make = Ref::take(plugin("integer")), digits = Ref::take(text(value));
      return must(PyObject_CallFunctionObjArgs(make.get(), digits.get(), nullptr));
    }
    case PACKBUF_FLOAT: return must(PyFloat_FromDouble(value.as.f));
    case PACKBUF_STRING: return text(value);
    case PACKBUF_BYTES: return bytes(value.as.text.data, value.as.text.size);
    case PACKBUF_LIST: return list(value, shown);
    case PACKBUF_DICT: return dict(value, shown);
    case PACKBUF_TENSOR: return tensor(*value.as.tensor, shown);
    case PACKBUF_MEDIA: return media(*value.as.media);
    case PACKBUF_OPAQUE: return opaque(*value.as.opaque);
    case PACKBUF_MISSING: return Py_NewRef(view_.missing());
    default: return Py_NewRef(Py_None);
  }
}

PyObject *Values::list(const packbuf_value &value, const Shown *shown) {
  const auto count = static_cast<Py_ssize_t>(value.as.list.count);
  Ref list = Ref::take(must(PyList_New(count)));
  for (Py_ssize_t i = 0; i < count; i++) {
    const auto place = static_cast<size_t>(i);
    const Shown *child = shown && place < shown->children.size() ? &shown->children[place].second : nullptr;
    list_put(list.get(), i, object(value.as.list.items[i], child));
  }
  return list.release();
}

PyObject *Values::dict(const packbuf_value &value, const Shown *shown) {
  Ref dict = Ref::take(must(PyDict_New()));
  for (size_t i = 0; i < value.as.dict.count; i++) {
    const packbuf_entry &entry = value.as.dict.entries[i];
    const Shown *child = nullptr;
    if (shown && entry.key.kind == PACKBUF_STRING)
      for (const auto &[name, below] : shown->children)
        if (name == entry.key.as.text.data) child = &below;
    const Ref item = Ref::take(object(entry.value, child));
    const Ref key = Ref::take(object(entry.key));
    if (PyDict_SetItem(dict.get(), key.get(), item.get()) < 0) throw PythonError{};
  }
  return dict.release();
}

// An array over the elements, or of a copy of them where they do not lie in the packed buffer. Takes descr.
PyObject *Values::array(const packbuf_tensor &tensor, PyObject *descr) {
  npy_intp shape[PACKBUF_MAX_RANK], strides[PACKBUF_MAX_RANK];
  for (unsigned i = 0; i < tensor.rank; i++) {
    shape[i] = static_cast<npy_intp>(tensor.shape[i]);
    if (tensor.strides) strides[i] = static_cast<npy_intp>(tensor.strides[i]);
  }
  static const uint64_t nothing = 0; // an empty array has no data
  void *data = const_cast<void *>(tensor.data ? tensor.data : &nothing);
  Ref array = Ref::take(
      made_array(PyArray_NewFromDescr(&PyArray_Type, reinterpret_cast<PyArray_Descr *>(descr), tensor.rank, shape,
                                      tensor.strides ? strides : nullptr, data, 0, nullptr)));
  auto *fields = reinterpret_cast<PyArrayObject *>(array.get());
  PyArray_UpdateFlags(fields, NPY_ARRAY_ALIGNED);
  if (!view_.contains(data)) return must(reinterpret_cast<PyObject *>(PyArray_NewCopy(fields, NPY_CORDER)));
  PyArray_SetBaseObject(fields, Py_NewRef(owner_));
  return array.release();
}

PyObject *Values::tensor(const packbuf_tensor &tensor, const Shown *shown) {
  const bool natural_tensor = tensor.form == PACKBUF_FORM_TENSOR || tensor.form == PACKBUF_FORM_NATURAL;
  if (shown && !shown->unit.empty()) {
    const Ref make = Ref::take(plugin("time_dtype"));
    const Ref unit = Ref::take(text_object(shown->unit.data(), shown->unit.size()));
    PyObject *descr = must(PyObject_CallFunctionObjArgs(make.get(), unit.get(), nullptr));
    const Ref times = Ref::take(array(tensor, descr));
    if (tensor.form == PACKBUF_FORM_ARRAY && !shown->plain_scalar) return Py_NewRef(times.get());
    return must(PyArray_ToScalar(PyArray_DATA(reinterpret_cast<PyArrayObject *>(times.get())),
                                 reinterpret_cast<PyArrayObject *>(times.get())));
  }
  if (natural_tensor && torch()) { // torch takes the bits, and makes its own dtype of them
    packbuf_tensor bits = tensor;
    const bool own = tensor.dtype.code != PACKBUF_DTYPE_BFLOAT && tensor.dtype.code < PACKBUF_DTYPE_FLOAT8_E4M3FN;
    if (!own) bits.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, tensor.dtype.bits);
    const Ref elements = Ref::take(array(bits, descr_of(bits.dtype)));
    const Ref module = Ref::take(must(PyImport_ImportModule("packbuf._torch")));
    const bool shared = view_.manner().tensors == 2;
    if (shared) // torch has no read-only tensors, and warns of such arrays
      PyArray_ENABLEFLAGS(reinterpret_cast<PyArrayObject *>(elements.get()), NPY_ARRAY_WRITEABLE);
    return must(PyObject_CallMethod(module.get(), shared ? "in_place" : "tensor", "Os", elements.get(),
                                    packbuf_dtype_name(tensor.dtype)));
  }
  Ref made = Ref::take(array(tensor, descr_of(tensor.dtype)));
  if (tensor.form != PACKBUF_FORM_SCALAR && !(shown && shown->plain_scalar)) return made.release();
  auto *fields = reinterpret_cast<PyArrayObject *>(made.get());
  return must(PyArray_ToScalar(PyArray_DATA(fields), fields));
}

static PyObject *number_or_none(int64_t number) {
  return number < 0 ? Py_NewRef(Py_None) : must(PyLong_FromLongLong(number));
}

PyObject *Values::media(const packbuf_media &media) {
  const auto text_or_none = [](const char *data, size_t size) {
    return Ref::take(data ? text_object(data, size) : Py_NewRef(Py_None));
  };
  const Ref make = Ref::take(plugin("media"));
  const Ref mime = text_or_none(media.mime, media.mime_size), mode = text_or_none(media.mode, media.mode_size);
  return must(PyObject_CallFunction(make.get(), "NOONNNNi", bytes(media.data, media.size), mime.get(), mode.get(),
                                    number_or_none(media.height), number_or_none(media.width),
                                    number_or_none(media.channels),
                                    media.has_rate ? PyFloat_FromDouble(media.rate) : Py_NewRef(Py_None),
                                    view_.manner().images));
}

PyObject *Values::opaque(const packbuf_opaque &opaque) {
  const Ref make = Ref::take(plugin("opaque"));
  const Ref serializer = Ref::take(text_object(opaque.serializer, opaque.serializer_size));
  return must(PyObject_CallFunction(make.get(), "ONO", serializer.get(), bytes(opaque.data, opaque.size),
                                    view_.manner().allow_pickle ? Py_True : Py_False));
}

// ---- whole columns and rows ----

// Rows from `row` on that have the same value or none: of a column that few rows have, most are missing.
static uint64_t alike(const packbuf_value *values, uint64_t row, uint64_t end) {
  const unsigned kind = values[row].kind;
  uint64_t next = row + 1;
  if (kind == PACKBUF_NULL || kind == PACKBUF_MISSING)
    while (next < end && values[next].kind == kind) next++;
  return next - row;
}

// Reads in pieces, so that what is between the packed buffer and the Python objects stays small; put(i, count, object)
// takes a reference for each of `count` rows from row i on.
template <class Read, class Put>
static void read_pieces(uint64_t first, uint64_t count, Values &values, const Shown *shown, Read read, Put put) {
  const uint64_t most = 1024;
  for (uint64_t done = 0; done < count;) {
    const uint64_t now = count - done < most ? count - done : most;
    Arena arena;
    const std::unique_ptr<packbuf_value[]> piece(new packbuf_value[now]); // not zeroed: they are all written
    packbuf_error error;
    packbuf_status status;
    {
      Unlocked unlocked(now > 16);
      status = read(first + done, now, arena.get(), piece.get(), &error);
    }
    check(status, error);
    for (uint64_t i = 0, run; i < now; i += run, done += run) {
      PyObject *object = values.object(piece[i], shown);
      run = alike(piece.get(), i, now);
      add_references(object, static_cast<Py_ssize_t>(run - 1));
      put(done, run, object);
    }
  }
}

static Ref new_list(uint64_t count) {
  Ref list = Ref::take(PyList_New(static_cast<Py_ssize_t>(count)));
  if (list) return list;
  PyErr_Clear();
  fail(PACKBUF_OUT_OF_MEMORY, "no memory for a list of " + std::to_string(count) + " rows");
}

static auto put_in_list(const Ref &list) {
  return [to = list.get()](uint64_t first, uint64_t run, PyObject *object) {
    for (uint64_t i = first; i < first + run; i++) list_put(to, static_cast<Py_ssize_t>(i), object);
  };
}

PyObject *read_rows(const View &view, PyObject *owner, uint64_t first, uint64_t count) {
  Values values(view, owner);
  Ref list = new_list(count);
  read_pieces(
      first, count, values, view.shown(0),
      [&](uint64_t at, uint64_t n, packbuf_arena *arena, packbuf_value *to, packbuf_error *error) {
        return packbuf_read_rows(view.get(), at, n, arena, to, error);
      },
      put_in_list(list));
  return list.release();
}

static auto column_reader(const View &view, uint32_t node) {
  return [&view, node](uint64_t at, uint64_t n, packbuf_arena *arena, packbuf_value *to, packbuf_error *error) {
    return packbuf_read_column(view.get(), node, at, n, arena, to, error);
  };
}

PyObject *read_cells(const View &view, PyObject *owner, uint32_t node, uint64_t first, uint64_t count) {
  Values values(view, owner);
  Ref list = new_list(count);
  read_pieces(first, count, values, view.shown_node(node), column_reader(view, node), put_in_list(list));
  return list.release();
}

PyObject *read_objects(const View &view, PyObject *owner, uint32_t node, uint64_t first, uint64_t count) {
  Values values(view, owner);
  Ref array = new_objects(count);
  auto **to = static_cast<PyObject **>(PyArray_DATA(reinterpret_cast<PyArrayObject *>(array.get())));
  read_pieces(first, count, values, view.shown_node(node), column_reader(view, node),
              [to](uint64_t i, uint64_t run, PyObject *object) { std::fill_n(to + i, run, object); });
  return array.release();
}

PyObject *read_batch_values(const View &view, PyObject *owner) {
  Arena arena;
  packbuf_value value;
  packbuf_error error;
  check(packbuf_read_batch_values(view.get(), arena.get(), &value, &error), error);
  return Values(view, owner).object(value, view.shown(1));
}

} // namespace packbuf_py
