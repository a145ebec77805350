// src/infer.cpp: what a column of values would be stored as, and why.
// May use: walk.h, memory.h, infer.h. Must not know: batches and views.
#include "infer.h"

#include "memory.h"

#include <algorithm>

namespace packbuf_py {

// Whether the cells that say if a leaf is small enough for JSON lack numbers.
static bool unsure(const packbuf_inferred &leaf, const Walk &walk) {
  return std::any_of(leaf.sample, leaf.sample + leaf.sample_count,
                     [&](const packbuf_value *cell) { return walk.left_out(*cell); });
}

// A list of (path, kind, codec or None, accepted, dtype or None, rank, form, typed, rows, nulls, missing, children,
// reason). kinds_only: numbers that cannot matter are left out, and the whole is done again where they could.
static PyObject *infer_in(PyObject *values, const std::string &name, int mode, bool kinds_only) {
  Arena arena;
  Held held;
  Walk walk(arena.get(), &held, false, nullptr, kinds_only);
  const packbuf_value all = walk.value(values);
  packbuf_inference inference;
  packbuf_error error;
  packbuf_status status;
  if (all.kind != PACKBUF_LIST) fail(PACKBUF_WRONG_TYPE, "values are a list or tuple");
  {
    Unlocked unlocked(all.as.list.count > 1024);
    status = packbuf_infer(all.as.list.items, all.as.list.count, name.c_str(), static_cast<packbuf_mode>(mode),
                           arena.get(), &inference, &error);
  }
  check(status, error);
  for (uint32_t i = 0; kinds_only && i < inference.count; i++)
    if (unsure(inference.nodes[i], walk)) return infer_in(values, name, mode, false);
  Ref list = Ref::take(must(PyList_New(inference.count)));
  for (uint32_t i = 0; i < inference.count; i++) {
    const packbuf_inferred &node = inference.nodes[i];
    const bool leaf = node.kind == PACKBUF_LEAF;
    const unsigned long long rows = node.rows, nulls = node.nulls, missing = node.missing;
    list_put(
        list.get(), i,
        must(Py_BuildValue("siziziiiKKKiz", node.path, static_cast<int>(node.kind),
                           leaf ? packbuf_codec_name(node.codec) : nullptr, node.accepted,
                           leaf && node.dtype.bits ? packbuf_dtype_name(node.dtype) : nullptr, node.rank, node.form,
                           node.typed, rows, nulls, missing, static_cast<int>(node.child_count), node.reason)));
  }
  return list.release();
}

PyObject *infer_values(PyObject *values, const std::string &name, int mode) {
  return infer_in(values, name, mode, mode == PACKBUF_STRICT);
}

} // namespace packbuf_py
