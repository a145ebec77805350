// src/exchange.cpp: capsules, who owns what is in them, and how they are asked for.
// May use: exchange.h, held.h. Must not know: batches, how a selection is made.
#include "exchange.h"

#include "held.h"

#include <cstring>
#include <memory>

namespace packbuf_py {

namespace {

constexpr const char *schema_name = "arrow_schema", *array_name = "arrow_array", *stream_name = "arrow_array_stream";
constexpr const char *device_name = "arrow_device_array";
constexpr const char *versioned_name = "dltensor_versioned", *unversioned_name = "dltensor";

// ArrowDeviceArray of Arrow's C device data interface.
struct DeviceArray {
  ArrowArray array;
  int64_t device_id;
  int32_t device_type;
  void *sync_event;
  int64_t reserved[3];
};

// A consumer may release on any thread, and long after the call.
void take_owner(void *owner) {
  const PyGILState_STATE state = PyGILState_Ensure();
  Py_INCREF(static_cast<PyObject *>(owner));
  PyGILState_Release(state);
}

void release_owner(void *owner) {
  if (have_gil()) { // also while the interpreter ends, when no other thread may have it any more
    Py_DECREF(static_cast<PyObject *>(owner));
    return;
  }
  if (!Py_IsInitialized()) return; // the process ends
  const PyGILState_STATE state = PyGILState_Ensure();
  Py_DECREF(static_cast<PyObject *>(owner));
  PyGILState_Release(state);
}

packbuf_export exported(PyObject *owner, const packbuf_selection *selection, uint32_t node, unsigned flags) {
  packbuf_export what;
  memset(&what, 0, sizeof what);
  what.selection = selection;
  what.node = node;
  what.flags = flags;
  what.hold.take = take_owner;
  what.hold.release = release_owner;
  what.hold.context = owner;
  return what;
}

// Releases what a consumer left in a capsule.
template <class Struct>
void drop(PyObject *capsule) {
  auto *held = static_cast<Struct *>(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
  if (held->release) held->release(held);
  delete held;
}

template <>
void drop<DeviceArray>(PyObject *capsule) {
  auto *held = static_cast<DeviceArray *>(PyCapsule_GetPointer(capsule, device_name));
  if (held->array.release) held->array.release(&held->array);
  delete held;
}

template <class Struct>
PyObject *capsule_of(std::unique_ptr<Struct> made, const char *name) {
  PyObject *capsule = PyCapsule_New(made.get(), name, drop<Struct>);
  if (!capsule) made->release(made.get());
  else made.release();
  return must(capsule);
}

// A consumer renames what it takes.
template <class Managed>
void drop_tensor(PyObject *capsule) {
  const char *name = PyCapsule_GetName(capsule);
  if (strcmp(name, versioned_name) != 0 && strcmp(name, unversioned_name) != 0) return;
  auto *managed = static_cast<Managed *>(PyCapsule_GetPointer(capsule, name));
  managed->deleter(managed);
}

template <class Managed, class Make>
PyObject *tensor_capsule(const packbuf_export &what, Make make, const char *name) {
  packbuf_error error;
  Managed *managed = nullptr;
  check(unlocked([&] { return make(&what, &managed, &error); }), error);
  PyObject *capsule = PyCapsule_New(managed, name, drop_tensor<Managed>);
  if (!capsule) managed->deleter(managed);
  return must(capsule);
}

// What a method without arguments returns.
Ref asked(PyObject *object, const char *method) {
  return Ref::take(must(PyObject_CallMethod(object, method, nullptr)));
}

template <class Struct>
Struct *pointer(PyObject *capsule, const char *name) {
  auto *found = static_cast<Struct *>(PyCapsule_GetPointer(capsule, name));
  if (!found) throw PythonError{};
  return found;
}

// Takes a tensor out of its capsule, as any consumer does: whoever else was given the capsule cannot free it meanwhile.
// What comes back deletes it.
constexpr const char *taken_name = "packbuf_dltensor";

template <class Managed>
void delete_tensor(PyObject *taken) {
  auto *managed = static_cast<Managed *>(PyCapsule_GetPointer(taken, taken_name));
  if (managed->deleter) managed->deleter(managed);
}

template <class Managed>
PyObject *take_tensor(PyObject *capsule, const char *name, const char *used_name, Managed **managed) {
  *managed = pointer<Managed>(capsule, name);
  Ref taken = Ref::take(must(PyCapsule_New(*managed, taken_name, nullptr)));
  if (PyCapsule_SetName(capsule, used_name) != 0) throw PythonError{};
  PyCapsule_SetDestructor(taken.get(), delete_tensor<Managed>); // from here on it is this one's
  return taken.release();
}

// Moves a struct out of the capsule or stream that had it.
template <class Struct>
Struct moved(Struct *from) {
  const Struct taken = *from;
  from->release = nullptr;
  return taken;
}

} // namespace

// ---- out ----

PyObject *arrow_schema(PyObject *owner, const packbuf_selection *selection, uint32_t node) {
  const packbuf_export what = exported(owner, selection, node, 0);
  packbuf_error error;
  auto schema = std::make_unique<ArrowSchema>();
  check(packbuf_arrow_schema(&what, schema.get(), &error), error);
  return capsule_of(std::move(schema), schema_name);
}

PyObject *arrow_array(PyObject *owner, const packbuf_selection *selection, uint32_t node) {
  const packbuf_export what = exported(owner, selection, node, 0);
  packbuf_error error;
  const Ref schema = Ref::take(arrow_schema(owner, selection, node));
  auto array = std::make_unique<ArrowArray>();
  check(unlocked([&] { return packbuf_arrow_array(&what, array.get(), &error); }), error);
  const Ref capsule = Ref::take(capsule_of(std::move(array), array_name));
  return must(PyTuple_Pack(2, schema.get(), capsule.get()));
}

PyObject *arrow_device_array(PyObject *owner, const packbuf_selection *selection, uint32_t node) {
  const packbuf_export what = exported(owner, selection, node, 0);
  packbuf_error error;
  const Ref schema = Ref::take(arrow_schema(owner, selection, node));
  auto made = std::make_unique<DeviceArray>();
  memset(made.get(), 0, sizeof *made);
  made->device_type = 1; // the processor, which has no number
  made->device_id = -1;
  check(unlocked([&] { return packbuf_arrow_array(&what, &made->array, &error); }), error);
  const Ref capsule = Ref::take(PyCapsule_New(made.get(), device_name, drop<DeviceArray>));
  if (!capsule) made->array.release(&made->array);
  else made.release();
  must(capsule.get());
  return must(PyTuple_Pack(2, schema.get(), capsule.get()));
}

PyObject *arrow_stream(PyObject *owner, const packbuf_selection *selection, uint32_t node) {
  const packbuf_export what = exported(owner, selection, node, 0);
  packbuf_error error;
  auto stream = std::make_unique<ArrowArrayStream>();
  check(packbuf_arrow_stream(&what, stream.get(), &error), error);
  return capsule_of(std::move(stream), stream_name);
}

PyObject *dlpack(PyObject *owner, const packbuf_selection *selection, uint32_t node, unsigned flags, bool versioned) {
  const packbuf_export what = exported(owner, selection, node, flags);
  return versioned ? tensor_capsule<DLManagedTensorVersioned>(what, packbuf_dlpack, versioned_name)
                   : tensor_capsule<DLManagedTensor>(what, packbuf_dlpack_unversioned, unversioned_name);
}

// ---- in ----

bool Arrow::offered(PyObject *object) {
  return PyObject_HasAttrString(object, "__arrow_c_array__") || PyObject_HasAttrString(object, "__arrow_c_stream__");
}

Arrow::Arrow(PyObject *object) {
  memset(&schema_, 0, sizeof schema_);
  if (!PyObject_HasAttrString(object, "__arrow_c_array__")) {
    const Ref capsule = asked(object, "__arrow_c_stream__");
    take_stream(capsule.get());
  } else {
    const Ref pair = asked(object, "__arrow_c_array__");
    if (!PyTuple_Check(pair.get()) || tuple_size(pair.get()) != 2)
      fail(PACKBUF_WRONG_TYPE, "__arrow_c_array__ of " + type_name(object) + " gives no pair of capsules");
    auto *schema = pointer<ArrowSchema>(tuple_item(pair.get(), 0), schema_name);
    auto *array = pointer<ArrowArray>(tuple_item(pair.get(), 1), array_name);
    chunks_.reserve(1);
    chunks_.push_back(moved(array));
    schema_ = moved(schema);
  }
  for (const ArrowArray &chunk : chunks_) pointers_.push_back(&chunk);
}

void Arrow::take_stream(PyObject *capsule) {
  auto *stream = pointer<ArrowArrayStream>(capsule, stream_name);
  int failed;
  if (!stream->release || !stream->get_schema || !stream->get_next || !stream->get_last_error)
    fail(PACKBUF_INVALID_ARGUMENT, "a stream of Arrow that is released, or lacks a part");
  {
    Unlocked unlocked;
    failed = stream->get_schema(stream, &schema_);
    if (failed) schema_.release = nullptr;
    while (!failed) {
      ArrowArray chunk;
      memset(&chunk, 0, sizeof chunk);
      failed = stream->get_next(stream, &chunk);
      if (failed || !chunk.release) break;
      chunks_.push_back(chunk);
    }
  }
  if (!failed) return;
  const char *text = stream->get_last_error(stream);
  const std::string message = text ? text : "a stream of Arrow failed";
  release(); // what came before
  fail(PACKBUF_SYSTEM, message);
}

void Arrow::release() {
  for (ArrowArray &chunk : chunks_)
    if (chunk.release) chunk.release(&chunk);
  if (schema_.release) schema_.release(&schema_);
}

uint64_t Arrow::rows() const {
  uint64_t rows = 0;
  for (const ArrowArray &chunk : chunks_) rows += chunk.length > 0 ? static_cast<uint64_t>(chunk.length) : 0;
  return rows;
}

packbuf_tensor *dlpack_tensor(PyObject *object, packbuf_arena *arena, Held *held) {
  packbuf_error error;
  if (!PyObject_HasAttrString(object, "__dlpack__")) return nullptr;
  const Ref method = Ref::take(must(PyObject_GetAttrString(object, "__dlpack__")));
  const Ref none = Ref::take(must(PyTuple_New(0)));
  const Ref wish = Ref::take(must(Py_BuildValue("{s:(ii)}", "max_version", 1, 1)));
  Ref capsule = Ref::take(PyObject_Call(method.get(), none.get(), wish.get()));
  if (!capsule && PyErr_ExceptionMatches(PyExc_TypeError)) { // of before 1.0
    PyErr_Clear();
    capsule = Ref::take(PyObject_Call(method.get(), none.get(), nullptr));
  }
  must(capsule.get());
  const DLTensor *tensor;
  if (PyCapsule_IsValid(capsule.get(), versioned_name)) {
    DLManagedTensorVersioned *managed;
    held->take(take_tensor(capsule.get(), versioned_name, "used_dltensor_versioned", &managed));
    if (managed->version.major != 1) fail(PACKBUF_UNSUPPORTED_VERSION, "a tensor of a newer DLPack than 1");
    tensor = &managed->dl_tensor;
  } else {
    DLManagedTensor *managed;
    held->take(take_tensor(capsule.get(), unversioned_name, "used_dltensor", &managed));
    tensor = &managed->dl_tensor;
  }
  auto *made = static_cast<packbuf_tensor *>(packbuf_arena_alloc(arena, sizeof(packbuf_tensor), 8));
  if (!made) fail(PACKBUF_OUT_OF_MEMORY, "no memory for a tensor");
  check(packbuf_dlpack_import(tensor, arena, made, &error), error);
  return made;
}

} // namespace packbuf_py
