// src/objects.h: Python objects at the speed of their structs, or by the calls of the stable ABI where Py_LIMITED_API
// is defined: the one room that knows the difference. All pointers are borrowed unless a name says otherwise; all calls
// need the GIL.
// May use: Python.h. Must not know: packbuf.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace packbuf_py {

// A counted reference.
class Ref {
 public:
  Ref() = default;
  static Ref take(PyObject *object) { // owns it from now on
    Ref ref;
    ref.object_ = object;
    return ref;
  }
  static Ref borrow(PyObject *object) {
    Py_XINCREF(object);
    return take(object);
  }
  Ref(Ref &&other) noexcept : object_(other.release()) {}
  Ref &operator=(Ref &&other) noexcept {
    PyObject *old = object_;
    object_ = other.release();
    Py_XDECREF(old);
    return *this;
  }
  Ref(const Ref &) = delete;
  Ref &operator=(const Ref &) = delete;
  ~Ref() { Py_XDECREF(object_); }
  PyObject *get() const { return object_; }
  PyObject *release() {
    PyObject *object = object_;
    object_ = nullptr;
    return object;
  }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject *object_ = nullptr;
};

// The name of an object's type, or of a type, for words.
inline std::string type_name(PyObject *object) {
  PyObject *type = PyType_Check(object) ? object : reinterpret_cast<PyObject *>(Py_TYPE(object));
  const Ref name = Ref::take(PyObject_GetAttrString(type, "__name__"));
  const char *text = name ? PyUnicode_AsUTF8AndSize(name.get(), nullptr) : nullptr;
  if (!text) PyErr_Clear();
  return text ? text : "?";
}

#ifdef Py_LIMITED_API

inline Py_ssize_t list_size(PyObject *list) { return PyList_Size(list); }
inline PyObject *list_item(PyObject *list, Py_ssize_t i) { return PyList_GetItem(list, i); }
inline Py_ssize_t tuple_size(PyObject *tuple) { return PyTuple_Size(tuple); }
inline Py_ssize_t dict_size(PyObject *dict) { return PyDict_Size(dict); }
inline PyObject *tuple_item(PyObject *tuple, Py_ssize_t i) { return PyTuple_GetItem(tuple, i); }
inline double float_value(PyObject *number) { return PyFloat_AsDouble(number); }
inline const char *text_of(PyObject *text, Py_ssize_t *size) { return PyUnicode_AsUTF8AndSize(text, size); }
inline bool has_utf8(PyObject *) { return false; } // it is not told
inline Py_hash_t text_hash(PyObject *text) { return PyObject_Hash(text); }
inline bool small_int(PyObject *, int64_t *) { return false; }
inline void list_put(PyObject *list, Py_ssize_t i, PyObject *stolen) { PyList_SetItem(list, i, stolen); }
inline void add_references(PyObject *object, Py_ssize_t count) {
  for (; count > 0; count--) Py_INCREF(object);
}
inline bool have_gil() { return false; } // it is not told
inline const char *bytes_data(PyObject *bytes) { return PyBytes_AsString(bytes); }
inline Py_ssize_t bytes_size(PyObject *bytes) { return PyBytes_Size(bytes); }
inline void load_ahead(PyObject *, Py_ssize_t, Py_ssize_t) {}
inline void load_eight_ahead(PyObject *, Py_ssize_t, Py_ssize_t) {}
inline int64_t small_int_sign(PyObject *, bool *small) { return *small = false; }
inline PyObject *const *list_items(PyObject *list, Py_ssize_t i, Py_ssize_t count, PyObject **room) {
  for (Py_ssize_t k = 0; k < count; k++) room[k] = PyList_GetItem(list, i + k);
  return room;
}

#else

inline Py_ssize_t list_size(PyObject *list) { return PyList_GET_SIZE(list); }
inline PyObject *list_item(PyObject *list, Py_ssize_t i) { return PyList_GET_ITEM(list, i); }
inline Py_ssize_t tuple_size(PyObject *tuple) { return PyTuple_GET_SIZE(tuple); }
inline Py_ssize_t dict_size(PyObject *dict) { return PyDict_GET_SIZE(dict); }
inline PyObject *tuple_item(PyObject *tuple, Py_ssize_t i) { return PyTuple_GET_ITEM(tuple, i); }
inline double float_value(PyObject *number) { return PyFloat_AS_DOUBLE(number); }
inline void list_put(PyObject *list, Py_ssize_t i, PyObject *stolen) { PyList_SET_ITEM(list, i, stolen); }
inline bool have_gil() { return PyGILState_Check(); }

// `count` references more to one object: one by one, each would wait for the one before.
inline void add_references(PyObject *object, Py_ssize_t count) {
#if PY_VERSION_HEX >= 0x030C0000 || defined(Py_REF_DEBUG)
  for (; count > 0; count--) Py_INCREF(object);
#else
  Py_SET_REFCNT(object, Py_REFCNT(object) + count);
#endif
}

inline const char *bytes_data(PyObject *bytes) { return PyBytes_AS_STRING(bytes); }
inline Py_ssize_t bytes_size(PyObject *bytes) { return PyBytes_GET_SIZE(bytes); }

// `count` items from item i on. room: for as many, where they have to be copied.
inline PyObject *const *list_items(PyObject *list, Py_ssize_t i, Py_ssize_t, PyObject **) {
  return reinterpret_cast<PyListObject *>(list)->ob_item + i;
}

// Begins to load an item that is looked at some items after item i of `count`. The numbers of a list are objects of
// their own, and in a process that has lived for a while they lie anywhere: without this each is waited for.
constexpr Py_ssize_t loaded_ahead = 64;
inline void load_ahead(PyObject *list, Py_ssize_t i, Py_ssize_t count) {
  if (i + loaded_ahead < count) __builtin_prefetch(PyList_GET_ITEM(list, i + loaded_ahead));
}

// The same for eight items from item i on. Where neighbours lie close together the machine foresees them itself, and
// asking for them only costs.
inline void load_eight_ahead(PyObject *list, Py_ssize_t i, Py_ssize_t count) {
  if (i + loaded_ahead + 8 > count) return;
  PyObject *const *items = reinterpret_cast<PyListObject *>(list)->ob_item + i + loaded_ahead;
  const auto close = [&](size_t k) {
    return reinterpret_cast<uintptr_t>(items[k + 1]) - reinterpret_cast<uintptr_t>(items[k]) + 256 <= 512;
  };
  if (close(0) || close(3) || close(6)) return;
  for (size_t k = 0; k < 8; k++) __builtin_prefetch(items[k]);
}

// UTF-8 of a str, kept by the str itself; NULL with an exception set for a lone surrogate.
inline const char *text_of(PyObject *text, Py_ssize_t *size) {
  if (PyUnicode_IS_COMPACT_ASCII(text)) {
    *size = PyUnicode_GET_LENGTH(text);
    return static_cast<const char *>(PyUnicode_DATA(text));
  }
  return PyUnicode_AsUTF8AndSize(text, size);
}

template <class Unit>
bool has_surrogates(const Unit *units, Py_ssize_t count) {
  Unit found = 0;
  for (Py_ssize_t i = 0; i < count; i++) found |= static_cast<Unit>((units[i] & ~Unit{0x7FF}) == 0xD800);
  return found != 0;
}

// Whether a str has UTF-8, which text_of would make.
inline bool has_utf8(PyObject *text) {
  switch (PyUnicode_KIND(text)) {
    case PyUnicode_1BYTE_KIND: return true;
    case PyUnicode_2BYTE_KIND: return !has_surrogates(PyUnicode_2BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
    case PyUnicode_4BYTE_KIND: return !has_surrogates(PyUnicode_4BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
    default: return false; // of Python before 3.12, and not laid out yet
  }
}

// The hash of a str, which one that is a key has already.
inline Py_hash_t text_hash(PyObject *text) { return reinterpret_cast<PyASCIIObject *>(text)->hash; }

// An int of one digit, which most are.
inline bool small_int(PyObject *number, int64_t *value) {
#if PY_VERSION_HEX >= 0x030C0000
  const auto *digits = reinterpret_cast<PyLongObject *>(number);
  if (!PyUnstable_Long_IsCompact(digits)) return false;
  *value = PyUnstable_Long_CompactValue(digits);
#else
  const Py_ssize_t size = Py_SIZE(number);
  if (size < -1 || size > 1) return false;
  *value = size * static_cast<int64_t>(reinterpret_cast<PyLongObject *>(number)->ob_digit[0]);
  if (size == 0) *value = 0;
#endif
  return true;
}

// Below zero when an int of one digit is; clears *small when it has more. Without a branch.
inline int64_t small_int_sign(PyObject *number, bool *small) {
#if PY_VERSION_HEX >= 0x030C0000
  const auto *digits = reinterpret_cast<PyLongObject *>(number);
  *small &= PyUnstable_Long_IsCompact(digits) != 0;
  return PyUnstable_Long_CompactValue(digits);
#else
  const Py_ssize_t size = Py_SIZE(number);
  *small &= static_cast<size_t>(size + 1) <= 2;
  return size;
#endif
}

#endif

} // namespace packbuf_py
