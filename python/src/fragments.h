// src/fragments.h: packed buffers that are read in parts, and batches that are kept in several of them.
// May use: nanobind. Must not know: where they are stored.
#pragma once

#include <nanobind/nanobind.h>

namespace packbuf_py {

void bind_fragments(nanobind::module_ &m);

} // namespace packbuf_py
