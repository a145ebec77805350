// src/numpy.cpp: numpy's arrays and scalars, read by numpy's C API: a dtype of section 8 of the spec, in place with its
// strides; the rest as lists, as times, or refused by name.
// May use: walk.h, numpy.h. Must not know: batches and fields.
#define PACKBUF_PY_NUMPY_HERE
#include "numpy.h"

#include "walk.h"

#include <cstring>

namespace packbuf_py {

bool import_numpy() { return PyArray_ImportNumPyAPI() == 0; }

bool is_numpy_array(PyObject *object) { return PyArray_Check(object); }

bool has_no_dtype(PyObject *array) {
  const char kind = PyArray_DESCR(reinterpret_cast<PyArrayObject *>(array))->kind;
  return kind == 'O' || kind == 'U' || kind == 'S' || kind == 'T';
}

bool is_usual_array(PyObject *object) { return PyArray_CheckExact(object) && !has_no_dtype(object); }

static packbuf_dtype no_dtype() { return packbuf_dtype{0, 0, 0}; }

// Types that other packages add to numpy (ml_dtypes) are known by their scalar type's name.
static packbuf_dtype added_dtype(PyArray_Descr *descr) {
  packbuf_dtype dtype;
  return packbuf_dtype_parse(type_name(reinterpret_cast<PyObject *>(descr->typeobj)).c_str(), &dtype) &&
                 dtype.bits == 8 * PyDataType_ELSIZE(descr)
             ? dtype
             : no_dtype();
}

packbuf_dtype dtype_of(PyArray_Descr *descr) {
  const auto bits = static_cast<unsigned>(8 * PyDataType_ELSIZE(descr));
  switch (descr->kind) {
    case 'b': return packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8);
    case 'i': return packbuf_dtype_of(PACKBUF_DTYPE_INT, bits);
    case 'u': return packbuf_dtype_of(PACKBUF_DTYPE_UINT, bits);
    case 'f':
      return bits <= 64 && descr->type_num < NPY_USERDEF ? packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, bits)
                                                         : added_dtype(descr);
    case 'c': return bits <= 128 ? packbuf_dtype_of(PACKBUF_DTYPE_COMPLEX, bits) : no_dtype();
    case 'V': return descr->type_num >= NPY_USERDEF ? added_dtype(descr) : no_dtype();
    default: return no_dtype();
  }
}

PyObject *descr_of(packbuf_dtype dtype) {
  int type = -1;
  switch (dtype.code) {
    case PACKBUF_DTYPE_BOOL: type = NPY_BOOL; break;
    case PACKBUF_DTYPE_INT:
      type = dtype.bits == 8 ? NPY_INT8 : dtype.bits == 16 ? NPY_INT16 : dtype.bits == 32 ? NPY_INT32 : NPY_INT64;
      break;
    case PACKBUF_DTYPE_UINT:
      type = dtype.bits == 8 ? NPY_UINT8 : dtype.bits == 16 ? NPY_UINT16 : dtype.bits == 32 ? NPY_UINT32 : NPY_UINT64;
      break;
    case PACKBUF_DTYPE_FLOAT: type = dtype.bits == 16 ? NPY_HALF : dtype.bits == 32 ? NPY_FLOAT : NPY_DOUBLE; break;
    case PACKBUF_DTYPE_COMPLEX: type = dtype.bits == 64 ? NPY_CFLOAT : NPY_CDOUBLE; break;
    default: break;
  }
  if (type >= 0) return must(reinterpret_cast<PyObject *>(PyArray_DescrFromType(type)));
  const Ref module = Ref::take(must(PyImport_ImportModule("packbuf._dtypes")));
  return must(PyObject_CallMethod(module.get(), "added", "s", packbuf_dtype_name(dtype)));
}

Ref new_objects(uint64_t count) {
  const auto rows = static_cast<npy_intp>(count);
  return Ref::take(must(PyArray_NewFromDescr(&PyArray_Type, PyArray_DescrFromType(NPY_OBJECT), 1, &rows, nullptr,
                                             nullptr, 0, nullptr)));
}

static std::string descr_text(PyArray_Descr *descr) {
  const Ref text = Ref::take(PyObject_Str(reinterpret_cast<PyObject *>(descr)));
  const char *data = text ? PyUnicode_AsUTF8AndSize(text.get(), nullptr) : nullptr;
  if (!data) PyErr_Clear();
  return data ? data : "?";
}

[[noreturn]] static void refuse_dtype(PyArray_Descr *descr) {
  fail(PACKBUF_UNSUPPORTED_DTYPE, "numpy's dtype " + descr_text(descr) +
                                      (PyDataType_HASFIELDS(descr) ? " is structured: pack each of its fields by itself"
                                                                   : " is not one that the format has"));
}

std::string Walk::numpy_unit(PyObject *object) {
  const Ref descr =
      Ref::take(PyArray_Check(object)
                    ? Py_NewRef(reinterpret_cast<PyObject *>(PyArray_DESCR(reinterpret_cast<PyArrayObject *>(object))))
                : PyArray_CheckScalar(object) ? reinterpret_cast<PyObject *>(PyArray_DescrFromScalar(object))
                                              : nullptr);
  if (!descr || reinterpret_cast<PyArray_Descr *>(descr.get())->kind != 'M') return {};
  const std::string text = descr_text(reinterpret_cast<PyArray_Descr *>(descr.get()));
  const size_t open = text.find('['), close = text.rfind(']');
  const std::string unit = open == std::string::npos ? "" : text.substr(open + 1, close - open - 1);
  for (const char *known : {"s", "ms", "us", "ns", "D"})
    if (unit == known) return unit;
  fail(PACKBUF_UNSUPPORTED_DTYPE, text + ": times are in s, ms, us, ns or D");
}

// A description of elements that lie in native byte order; an array in the other one is copied first.
packbuf_tensor *Walk::numpy_array(PyObject *object) {
  Ref array = Ref::borrow(object);
  const auto fields = [&] { return reinterpret_cast<PyArrayObject *>(array.get()); };
  PyArray_Descr *descr = PyArray_DESCR(fields());
  const bool time = descr->kind == 'M';
  packbuf_dtype dtype = time ? packbuf_dtype_of(PACKBUF_DTYPE_INT, 64) : dtype_of(descr);
  if (!dtype.bits) refuse_dtype(descr);
  if (descr->byteorder == NPY_OPPBYTE) {
    PyArray_Descr *native = PyArray_DescrNewByteorder(descr, NPY_NATIVE);
    array = Ref::take(must(PyArray_CastToType(fields(), native, 0)));
  }
  const int rank = PyArray_NDIM(fields());
  if (rank > PACKBUF_MAX_RANK) fail(PACKBUF_INVALID_ARGUMENT, "an array has more than 8 dimensions");
  if (!PyArray_CheckExact(array.get())) {
    const Ref mask = Ref::take(PyObject_GetAttrString(array.get(), "_mask"));
    if (mask) fail(PACKBUF_UNENCODABLE, "a masked array: fill it, or pack a list with None");
    PyErr_Clear();
  }
  auto *tensor = take<packbuf_tensor>(1);
  auto *shape = take<uint64_t>(static_cast<size_t>(rank) * 2);
  auto *strides = reinterpret_cast<int64_t *>(shape + rank);
  for (int i = 0; i < rank; i++) {
    shape[i] = static_cast<uint64_t>(PyArray_DIM(fields(), i));
    strides[i] = PyArray_STRIDE(fields(), i);
  }
  memset(tensor, 0, sizeof *tensor);
  tensor->data = PyArray_DATA(fields());
  tensor->dtype = dtype;
  tensor->rank = static_cast<uint8_t>(rank);
  tensor->form = PACKBUF_FORM_ARRAY;
  tensor->shape = shape;
  tensor->strides = PyArray_IS_C_CONTIGUOUS(fields()) ? nullptr : strides;
  held_->take(array.release());
  return tensor;
}

// A cell that is an array or a scalar of numpy's; false when it is neither.
bool Walk::put_numpy(PyObject *object, packbuf_value *out, unsigned depth) {
  const bool array = PyArray_Check(object);
  if (!array && !PyArray_CheckScalar(object)) return false;
  PyArray_Descr *descr =
      array ? PyArray_DESCR(reinterpret_cast<PyArrayObject *>(object)) : PyArray_DescrFromScalar(object);
  const Ref hold = array ? Ref() : Ref::take(reinterpret_cast<PyObject *>(descr));
  const char kind = descr->kind;
  if (array && has_no_dtype(object)) {
    if (stand_in_ && put_plugin(object, out, depth)) return true;
    if (PyArray_NDIM(reinterpret_cast<PyArrayObject *>(object)) == 0)
      fail(PACKBUF_UNENCODABLE, "a 0-d array of " + descr_text(descr));
    PyObject *list = must(PyObject_CallMethod(object, "tolist", nullptr));
    held_->take(list);
    put(list, out, depth);
    return true;
  }
  if (!array && (PyUnicode_Check(object) || PyBytes_Check(object))) return false;
  if (kind == 'M') note_time(numpy_unit(object));
  if (array) {
    *out = packbuf_tensor_value(numpy_array(object));
    return true;
  }
  auto *tensor = take<packbuf_tensor>(1);
  memset(tensor, 0, sizeof *tensor);
  tensor->dtype = kind == 'M' ? packbuf_dtype_of(PACKBUF_DTYPE_INT, 64) : dtype_of(descr);
  if (!tensor->dtype.bits) refuse_dtype(descr);
  void *data = take<uint64_t>(2);
  PyArray_ScalarAsCtype(object, data);
  tensor->data = data;
  tensor->form = PACKBUF_FORM_SCALAR;
  *out = packbuf_tensor_value(tensor);
  return true;
}

} // namespace packbuf_py
