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

void fail(const packbuf_error &error) {
  Failure failure{};
  failure.error = error;
  failure.message = error.message ? error.message : packbuf_status_text(error.code);
  failure.path = error.path;
  throw failure;
}

static PyObject *number_or_none(uint64_t number) {
  if (number == PACKBUF_NOWHERE) return Py_NewRef(Py_None);
  return PyLong_FromUnsignedLongLong(number);
}

void raise(const Failure &failure) {
  const packbuf_error &error = failure.error;
  const Ref module = Ref::take(PyImport_ImportModule("packbuf._errors"));
  if (!module) return;
  const Ref made = Ref::take(PyObject_CallMethod(
      module.get(), "make", "iss#NNNNs#", static_cast<int>(error.code),
      error.rule ? packbuf_rule_name(error.rule) : nullptr, failure.message.data(),
      static_cast<Py_ssize_t>(failure.message.size()), number_or_none(error.row), number_or_none(error.offset),
      number_or_none(error.needed), number_or_none(error.fragment), failure.path.data(),
      static_cast<Py_ssize_t>(failure.path.size())));
  if (made) PyErr_SetObject(reinterpret_cast<PyObject *>(Py_TYPE(made.get())), made.get());
}

} // namespace packbuf_py
