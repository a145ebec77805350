// src/torch.cpp: torch's tensors, without torch: by the table of functions that torch 2.10 and later have for it
// (__dlpack_c_exchange_api__ of DLPack 1.2), else by attributes. packbuf._torch sees to tensors that are unusual.
// May use: walk.h. Must not know: batches and fields.
#include "walk.h"

#include <cstring>

namespace packbuf_py {

namespace {

// DLPack, as far as it is read here (dlpack.h of DLPack 1.2).
struct DlTensor {
  void *data;
  struct {
    int32_t type, id;
  } device;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct DlExchange {
  struct {
    uint32_t major, minor;
  } version;
  void *previous;
  void *allocate, *from_object, *to_object;
  int (*describe)(void *object, DlTensor *out); // may be NULL
  void *stream;
};

struct Torch {
  PyObject *tensor = nullptr, *parameter = nullptr; // types; never given back: they live as long as the process
  const DlExchange *exchange = nullptr;
  PyObject *describe = nullptr;                   // packbuf._torch.describe
  PyObject *is_conj = nullptr, *is_neg = nullptr; // names of methods
};

// nullptr while torch is not imported. The GIL guards it.
const Torch *torch() {
  static Torch found;
  if (found.tensor) return &found;
  PyObject *modules = PyImport_GetModuleDict(); // borrowed
  PyObject *module = modules ? PyDict_GetItemString(modules, "torch") : nullptr;
  if (!module) return nullptr;
  Ref tensor = Ref::take(PyObject_GetAttrString(module, "Tensor"));
  const Ref nn = Ref::take(PyObject_GetAttrString(module, "nn"));
  Ref parameter = Ref::take(nn ? PyObject_GetAttrString(nn.get(), "Parameter") : nullptr);
  if (!tensor || !parameter) { // torch is being imported
    PyErr_Clear();
    return nullptr;
  }
  const Ref ours = Ref::take(must(PyImport_ImportModule("packbuf._torch")));
  Ref describe = Ref::take(must(PyObject_GetAttrString(ours.get(), "describe")));
  const Ref capsule = Ref::take(PyObject_GetAttrString(tensor.get(), "__dlpack_c_exchange_api__"));
  const auto *exchange =
      capsule ? static_cast<const DlExchange *>(PyCapsule_GetPointer(capsule.get(), "dlpack_exchange_api")) : nullptr;
  PyErr_Clear();
  if (exchange && exchange->version.major == 1 && exchange->describe) found.exchange = exchange;
  found.is_conj = must(PyUnicode_InternFromString("is_conj"));
  found.is_neg = must(PyUnicode_InternFromString("is_neg"));
  found.parameter = parameter.release();
  found.describe = describe.release();
  found.tensor = tensor.release();
  return &found;
}

} // namespace

bool is_torch_tensor(PyObject *object) {
  const Torch *found = torch();
  return found && PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject *>(found->tensor));
}

static packbuf_tensor *tensor_of(Walk &walk, const void *data, packbuf_dtype dtype, int rank) {
  if (rank > PACKBUF_MAX_RANK) fail(PACKBUF_INVALID_ARGUMENT, "a tensor has more than 8 dimensions");
  auto *tensor = walk.take<packbuf_tensor>(1);
  memset(tensor, 0, sizeof *tensor);
  tensor->data = data;
  tensor->dtype = dtype;
  tensor->rank = static_cast<uint8_t>(rank);
  tensor->form = PACKBUF_FORM_TENSOR;
  return tensor;
}

// Strides in bytes; none where the elements are contiguous, for then the tensor is memory like any.
static void lay_out(packbuf_tensor *tensor, const uint64_t *shape, const int64_t *strides) {
  int64_t next = tensor->dtype.bits / 8;
  bool contiguous = true;
  for (unsigned i = tensor->rank; i-- > 0;) {
    if (strides[i] != next && shape[i] != 1) contiguous = false;
    next *= static_cast<int64_t>(shape[i]);
  }
  tensor->shape = shape;
  tensor->strides = contiguous ? nullptr : strides;
}

// packbuf._torch.describe(tensor) -> (tensor to hold, address, dtype's name, shape, strides in bytes), or it raises.
static packbuf_tensor *described(Walk &walk, PyObject *describe, PyObject *object) {
  PyObject *told = must(PyObject_CallFunctionObjArgs(describe, object, nullptr));
  walk.held().take(told);
  packbuf_dtype dtype;
  const char *name = PyUnicode_AsUTF8AndSize(must(tuple_item(told, 2)), nullptr);
  if (!name || !packbuf_dtype_parse(name, &dtype))
    fail(PACKBUF_UNSUPPORTED_DTYPE,
         std::string("torch's dtype ") + (name ? name : "?") + " is not one that the format has");
  PyObject *shape = tuple_item(told, 3), *strides = tuple_item(told, 4);
  const auto rank = static_cast<int>(tuple_size(shape));
  packbuf_tensor *tensor = tensor_of(walk, PyLong_AsVoidPtr(tuple_item(told, 1)), dtype, rank);
  auto *sizes = walk.take<uint64_t>(static_cast<size_t>(rank) * 2);
  auto *steps = reinterpret_cast<int64_t *>(sizes + rank);
  for (int i = 0; i < rank; i++) {
    sizes[i] = PyLong_AsUnsignedLongLong(tuple_item(shape, i));
    steps[i] = PyLong_AsLongLong(tuple_item(strides, i));
  }
  if (PyErr_Occurred()) throw PythonError{};
  lay_out(tensor, sizes, steps);
  return tensor;
}

// A conjugated or negated view, whose elements are not what lies there: the table of functions does not tell.
static bool is_lazy(const Torch &found, PyObject *object, packbuf_dtype dtype) {
  if (dtype.code != PACKBUF_DTYPE_COMPLEX && dtype.code != PACKBUF_DTYPE_FLOAT) return false;
  PyObject *name = dtype.code == PACKBUF_DTYPE_COMPLEX ? found.is_conj : found.is_neg;
  const Ref told = Ref::take(must(PyObject_CallMethodObjArgs(object, name, nullptr)));
  return told.get() != Py_False;
}

packbuf_tensor *Walk::usual_tensor(PyObject *object) {
  const Torch *found = torch();
  DlTensor told;
  PyObject *type = reinterpret_cast<PyObject *>(Py_TYPE(object));
  if (!found || !found->exchange || (type != found->tensor && type != found->parameter)) return nullptr;
  if (found->exchange->describe(object, &told) != 0) { // sparse, nested, conjugated
    PyErr_Clear();
    return nullptr;
  }
  const packbuf_dtype dtype = {told.dtype.code, told.dtype.bits, told.dtype.lanes};
  if (told.device.type != 1 || !packbuf_dtype_name(dtype) || is_lazy(*found, object, dtype)) return nullptr;
  packbuf_tensor *tensor = tensor_of(*this, static_cast<const char *>(told.data) + told.byte_offset, dtype, told.ndim);
  const auto rank = static_cast<size_t>(told.ndim);
  auto *shape = take<uint64_t>(rank * 2);
  auto *strides = reinterpret_cast<int64_t *>(shape + rank);
  for (size_t i = 0; i < rank; i++) {
    shape[i] = static_cast<uint64_t>(told.shape[i]);
    if (told.strides) strides[i] = told.strides[i] * (dtype.bits / 8);
  }
  if (told.strides) lay_out(tensor, shape, strides);
  else tensor->shape = shape;
  held_->add(object);
  return tensor;
}

packbuf_tensor *Walk::torch_tensor(PyObject *object) {
  packbuf_tensor *tensor = usual_tensor(object);
  return tensor ? tensor : described(*this, torch()->describe, object);
}

} // namespace packbuf_py
