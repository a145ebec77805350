// src/bind.h: what the rooms that show things to Python share.
// May use: nanobind, view.h. Must not know: what is shown.
#pragma once

#include "view.h"

#include <nanobind/nanobind.h>

namespace packbuf_py {

// A new reference as an object.
inline nanobind::object own(PyObject *object) { return nanobind::steal(must(object)); }

using ViewHandle = nanobind::handle_t<View>;
inline View &of(ViewHandle handle) { return *nanobind::inst_ptr<View>(handle); }

// Limits by name; the others are the defaults.
packbuf_limits limits_of(const nanobind::dict &wanted);

void bind_store(nanobind::module_ &m);
void bind_ledger(nanobind::module_ &m);

} // namespace packbuf_py
