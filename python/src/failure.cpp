// src/failure.cpp: failures become packbuf.Error: packbuf._errors.make knows the class of each code.
// May use: failure.h. Must not know: what was being done.
#include "failure.h"

#include <utility>

namespace packbuf_py {

void fail(packbuf_status code, std::string message, std::string path, uint64_t row) {
  Failure failure{};
  failure.error.code = code;
  failure.error.offset = failure.error.fragment = failure.error.needed = PACKBUF_NOWHERE;
  failure.error.row = row;
  failure.message = std::move(message);
  failure.path = std::move(path);
  throw failure;
}

Failure failure_of(const packbuf_error &error) {
  Failure failure{};
  failure.error = error;
  failure.message = error.message ? error.message : packbuf_status_text(error.code);
  if (error.expected[0] || error.found[0]) {
    const char *const between = error.expected[0] && error.found[0] ? ", " : "";
    failure.message += std::string(" (") + (error.expected[0] ? "expected " : "") + error.expected + between +
                       (error.found[0] ? "found " : "") + error.found + ")";
  }
  failure.path = error.path;
  return failure;
}

void fail(const packbuf_error &error) { throw failure_of(error); }

PyObject *text_object(const char *data, size_t size) {
  PyObject *text = PyUnicode_DecodeUTF8(data, static_cast<Py_ssize_t>(size), nullptr);
  if (text) return text;
  PyErr_Clear();
  fail(PACKBUF_BAD_UTF8, "text in the packed buffer is not UTF-8");
}

Failure caught() {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  const Ref module = Ref::take(PyImport_ImportModule("packbuf._errors"));
  const Ref known = Ref::take(module ? PyObject_GetAttrString(module.get(), "Error") : nullptr);
  const Ref code = Ref::take(
      known && PyObject_IsInstance(value, known.get()) == 1 ? PyObject_GetAttrString(value, "code") : nullptr);
  const Ref message = Ref::take(code ? PyObject_GetAttrString(value, "message") : nullptr);
  const char *text = message ? PyUnicode_AsUTF8AndSize(message.get(), nullptr) : nullptr;
  if (!text) {
    PyErr_Clear();
    PyErr_Restore(type, value, trace);
    throw PythonError{};
  }
  Failure failure{};
  failure.error.code = static_cast<packbuf_status>(PyLong_AsLong(code.get()));
  failure.error.offset = failure.error.row = failure.error.fragment = failure.error.needed = PACKBUF_NOWHERE;
  failure.message = text;
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
  return failure;
}

static PyObject *number_or_none(uint64_t number) {
  if (number == PACKBUF_NOWHERE) return Py_NewRef(Py_None);
  return PyLong_FromUnsignedLongLong(number);
}

// Words of others, such as a producer's of Arrow, may be no UTF-8, and long paths are cut short.
static PyObject *words(const std::string &text) {
  return PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
}

PyObject *error_of(const Failure &failure) {
  const packbuf_error &error = failure.error;
  const Ref module = Ref::take(PyImport_ImportModule("packbuf._errors"));
  if (!module) return nullptr;
  return PyObject_CallMethod(module.get(), "make", "isNNNNNN", static_cast<int>(error.code),
                             error.rule ? packbuf_rule_name(error.rule) : nullptr, words(failure.message),
                             number_or_none(error.row), number_or_none(error.offset), number_or_none(error.needed),
                             number_or_none(error.fragment), words(failure.path));
}

void raise(const Failure &failure) {
  const Ref made = Ref::take(error_of(failure));
  if (made) PyErr_SetObject(reinterpret_cast<PyObject *>(Py_TYPE(made.get())), made.get());
}

} // namespace packbuf_py
