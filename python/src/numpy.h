// src/numpy.h: numpy's C API for this module. The headers are those of numpy 2, and serve numpy from 1.23 on.
// May use: numpy. Must not know: what arrays are for.
#pragma once

#include "failure.h"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL packbuf_py_numpy_api
#ifndef PACKBUF_PY_NUMPY_HERE
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>

namespace packbuf_py {

// Once, before anything else of numpy's; false with an exception set.
bool import_numpy();
// The dtype of a descr; bits 0 when the format has none.
packbuf_dtype dtype_of(PyArray_Descr *descr);
// A new reference to the descr of a dtype; UNSUPPORTED_DTYPE for bfloat16 and float8 without ml_dtypes.
PyObject *descr_of(packbuf_dtype dtype);
// An array of objects, all of them null pointers, which numpy takes for None.
Ref new_objects(uint64_t count);

// The array that numpy made; OUT_OF_MEMORY where there is no room for one of that shape, which may be a stranger's.
inline PyObject *made_array(PyObject *array) {
  if (array) return array;
  if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_MemoryError)) throw PythonError{};
  PyErr_Clear();
  fail(PACKBUF_OUT_OF_MEMORY, "no memory for an array of that shape");
}

} // namespace packbuf_py
