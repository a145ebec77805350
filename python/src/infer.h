// src/infer.h: what a column of values would be stored as.
// May use: walk.h. Must not know: batches and views.
#pragma once

#include "walk.h"

namespace packbuf_py {

PyObject *infer_values(PyObject *values, const std::string &name, int mode);

} // namespace packbuf_py
