// src/fragments.cpp: what to fetch of a packed buffer that lies elsewhere, manifests, and how fragments fit together.
// May use: batch.h (Packed), bind.h, columns.h. Must not know: where packed buffers are stored.
#include "batch.h"
#include "bind.h"
#include "columns.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <tuple>

namespace nb = nanobind;

namespace packbuf_py {

// A fragment as Python has it: key, length, head_length, first_row, rows, head_checksum, appends.
using Listed = std::tuple<std::string, uint64_t, uint64_t, uint64_t, uint64_t, uint32_t, uint8_t>;
using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;

static std::vector<packbuf_fragment> fragments_of(const std::vector<Listed> &list) {
  std::vector<packbuf_fragment> fragments;
  for (const auto &[key, length, head_length, first_row, rows, head_checksum, appends] : list)
    fragments.push_back({{key.data(), key.size()}, length, head_length, first_row, rows, head_checksum, appends});
  return fragments;
}

static std::pair<uint64_t, uint64_t> peek(nb::handle buffer) {
  Exported bytes;
  uint64_t head_and_index, total;
  packbuf_error error;
  if (!bytes.open(buffer.ptr(), PyBUF_SIMPLE)) throw PythonError{};
  const auto size = static_cast<uint64_t>(bytes.view().len);
  check(packbuf_peek(bytes.view().buf, size, &head_and_index, &total, &error), error);
  return {head_and_index, total};
}

// The ranges of the data that selections of one view need together.
static Ranges select_ranges(const std::vector<Selection *> &chosen, uint64_t gap, bool chunks) {
  Arena arena;
  std::vector<packbuf_selection> selections;
  packbuf_range *ranges = nullptr;
  uint64_t count = 0;
  packbuf_error error;
  for (const Selection *selection : chosen) {
    if (selection->get()->view != chosen[0]->get()->view) fail(PACKBUF_INVALID_ARGUMENT, "selections of two views");
    selections.push_back(*selection->get());
  }
  if (selections.empty()) return {};
  check(packbuf_select_ranges(selections.data(), selections.size(), gap, chunks ? PACKBUF_RANGES_CHUNKS : 0,
                              arena.get(), &ranges, &count, &error),
        error);
  Ranges out;
  for (uint64_t i = 0; i < count; i++) out.emplace_back(ranges[i].offset, ranges[i].length);
  return out;
}

static std::unique_ptr<Packed> manifest(const std::vector<Listed> &list,
                                        const std::vector<std::pair<std::string, std::string>> &metadata) {
  Arena arena;
  const std::vector<packbuf_fragment> fragments = fragments_of(list);
  packbuf_batch batch;
  packbuf_error error;
  uint64_t size = 0;
  check(packbuf_manifest_init(&batch, nullptr, fragments.data(), fragments.size(), arena.get(), nullptr, &error),
        error);
  for (const auto &[key, text] : metadata) {
    if ((key + text).find('\0') != std::string::npos) fail(PACKBUF_INVALID_ARGUMENT, "metadata has a NUL character");
    check(packbuf_add_metadata(&batch, nullptr, key.c_str(), text.c_str(), &error), error);
  }
  check(packbuf_measure(&batch, &size, &error), error);
  auto packed = std::make_unique<Packed>(size);
  check(packbuf_write(&batch, packed->data(), size, &size, &error), error);
  packed->shrink(size);
  return packed;
}

static nb::object text_of_key(const packbuf_text &text) { return own(text_object(text.data, text.size)); }

// What a manifest lists.
static nb::list listed(const View &view) {
  Arena arena;
  const packbuf_fragment *list = nullptr;
  uint64_t count = 0;
  packbuf_error error;
  check(packbuf_manifest_read(view.get(), arena.get(), &list, &count, nullptr, &error), error);
  nb::list out;
  for (uint64_t i = 0; i < count; i++)
    out.append(nb::make_tuple(text_of_key(list[i].key), list[i].length, list[i].head_length, list[i].first_row,
                              list[i].rows, list[i].head_checksum, list[i].appends));
  return out;
}

// (name, [(fragment, node, first_row, rows)]) of the fields that fragments have together, once they are known to fit.
static nb::list join(const std::vector<Listed> &list, const std::vector<View *> &open, bool widen, bool first_value) {
  Arena arena;
  const std::vector<packbuf_fragment> fragments = fragments_of(list);
  std::vector<packbuf_view> views;
  packbuf_join join;
  packbuf_error error;
  if (open.size() != list.size()) fail(PACKBUF_INVALID_ARGUMENT, "a view for each fragment must be given");
  for (const View *view : open) views.push_back(*view->get());
  const unsigned flags = (widen ? PACKBUF_WIDEN : 0u) | (first_value ? PACKBUF_FIRST_VALUE : 0u);
  check(packbuf_join_init(&join, fragments.data(), views.data(), views.size(), flags, arena.get(), &error), error);
  nb::list out;
  for (uint32_t i = 0; i < join.field_count; i++) {
    const packbuf_join_field &field = join.fields[i];
    nb::list parts;
    for (uint32_t k = 0; k < field.part_count; k++) {
      const packbuf_join_part &part = field.parts[k];
      parts.append(nb::make_tuple(part.fragment, part.node == PACKBUF_NO_NODE ? nb::none() : nb::cast(part.node),
                                  part.first_row, part.rows));
    }
    out.append(nb::make_tuple(text_of_key(field.name), parts));
  }
  return out;
}

void bind_fragments(nb::module_ &m) {
  m.def("peek", &peek);
  m.def("select_ranges", &select_ranges);
  m.def("manifest", &manifest);
  m.def("listed", &listed);
  m.def("join", &join);
}

} // namespace packbuf_py
