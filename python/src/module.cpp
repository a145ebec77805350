// src/module.cpp: packbuf._core as Python sees it. The package's Python half is its only caller: arguments are what
// that checked, and names are those of the C core.
// May use: all rooms. Must not know: how they work.
#include "batch.h"
#include "bind.h"
#include "columns.h"
#include "exchange.h"
#include "infer.h"
#include "numpy.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cstring>
#include <thread>

namespace nb = nanobind;
using namespace nb::literals;
using namespace packbuf_py;

// ---- Packed: the buffer protocol ----

static int packed_buffer(PyObject *self, Py_buffer *buffer, int flags) {
  auto *packed = nb::inst_ptr<Packed>(self);
  return PyBuffer_FillInfo(buffer, self, packed->data(), static_cast<Py_ssize_t>(packed->size()), 1, flags);
}

static int view_buffer(PyObject *self, Py_buffer *buffer, int flags) {
  const packbuf_view *view = nb::inst_ptr<View>(self)->get();
  return PyBuffer_FillInfo(buffer, self, const_cast<uint8_t *>(view->base), static_cast<Py_ssize_t>(view->capacity), 1,
                           flags);
}

static PyType_Slot view_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void *>(view_buffer)}, {0, nullptr}};
static PyType_Slot packed_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void *>(packed_buffer)}, {0, nullptr}};

// ---- memory to write to ----

// A writable buffer, or a contiguous torch tensor on the CPU; what is held keeps it.
struct Target {
  void *data;
  uint64_t size;
};

static Target target(PyObject *object, Held *held) {
  if (is_torch_tensor(object)) {
    Arena arena;
    Walk walk(arena.get(), held, false);
    const packbuf_tensor *tensor = walk.torch_tensor(object);
    uint64_t size = tensor->dtype.bits / 8;
    for (unsigned i = 0; i < tensor->rank; i++) size *= tensor->shape[i];
    const Target found = {const_cast<void *>(tensor->data), size};
    const bool contiguous = !tensor->strides;
    const Ref same = Ref::take(must(PyObject_CallMethod(object, "data_ptr", nullptr)));
    if (!contiguous || PyLong_AsVoidPtr(same.get()) != found.data)
      fail(PACKBUF_READ_ONLY, "a tensor to write to is contiguous and on the CPU");
    return found;
  }
  const Py_buffer *buffer = held->buffer(object, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS);
  if (!buffer) {
    PyErr_Clear();
    fail(PACKBUF_READ_ONLY, type_name(object) + " is no writable, contiguous memory");
  }
  return {buffer->buf, static_cast<uint64_t>(buffer->len)};
}

// Writes measured batches, each into its memory, by `workers` threads. Every batch is one thread's.
static std::vector<uint64_t> write_many(const std::vector<Batch *> &batches, const std::vector<nb::object> &targets,
                                        unsigned workers) {
  const size_t count = batches.size();
  Held held;
  std::vector<Target> to;
  std::vector<uint64_t> sizes(count);
  std::vector<packbuf_error> errors(count);
  std::vector<packbuf_status> statuses(count, PACKBUF_OK);
  for (const nb::object &object : targets) to.push_back(target(object.ptr(), &held));
  if (to.size() != count)
    fail(PACKBUF_INVALID_ARGUMENT, "the allocator returned another number of buffers than was asked for");
  {
    Unlocked unlocked;
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i; (i = next++) < count;)
        statuses[i] = packbuf_write(batches[i]->measured(), to[i].data, to[i].size, &sizes[i], &errors[i]);
    };
    std::vector<std::thread> threads;
    try {
      for (unsigned i = 1; i < workers && i < count; i++) threads.emplace_back(work);
    } catch (const std::exception &) { // no thread more is to be had: those there are do it all
    }
    work();
    for (std::thread &thread : threads) thread.join();
  }
  for (size_t i = 0; i < count; i++) check(statuses[i], errors[i]);
  return sizes;
}

static packbuf_options options(int packing, int alignment, bool checksums, bool sharing, uint32_t link_gbits, int mode,
                               nb::bytes token) {
  packbuf_options options = packbuf_default_options();
  options.packing = static_cast<uint8_t>(packing);
  options.alignment_exponent = static_cast<uint8_t>(alignment);
  options.data_checksums = checksums;
  options.row_sharing = sharing;
  options.link_gbits = link_gbits;
  options.mode = static_cast<packbuf_mode>(mode);
  if (token.size() == sizeof options.row_order_token) memcpy(options.row_order_token, token.data(), token.size());
  return options;
}

static void bind_packed(nb::module_ &m) {
  nb::class_<Packed>(m, "Packed", nb::type_slots(packed_slots), nb::is_weak_referenceable(),
                     "A packed buffer in memory of its own. Anything that takes a bytes-like takes it: "
                     "``memoryview(packed)``, ``file.write(packed)``, ``packbuf.open(packed)``.")
      .def("__len__", [](const Packed &self) { return self.size(); })
      .def_prop_ro(
          "nbytes", [](const Packed &self) { return self.size(); }, "Bytes of the packed buffer.")
      .def_static(
          "copy_of",
          [](nb::handle buffer) {
            Held held;
            const Py_buffer *bytes = held.buffer(buffer.ptr(), PyBUF_SIMPLE);
            if (!bytes) throw PythonError{};
            auto packed = std::make_unique<Packed>(static_cast<uint64_t>(bytes->len));
            if (bytes->len) memcpy(packed->data(), bytes->buf, static_cast<size_t>(bytes->len));
            return packed;
          },
          nb::sig("def copy_of(buffer: object, /) -> Packed"), "A copy of a packed buffer, aligned.")
      .def("__reduce__",
           [](Packed &self) {
             return nb::make_tuple(nb::module_::import_("packbuf._values").attr("packed_of"),
                                   nb::make_tuple(nb::bytes(self.data(), self.size())));
           })
      .def(
          "detach", [](Packed &self) { return nb::bytes(self.data(), self.size()); },
          "A copy as ``bytes``, which lives on its own.")
      .def("__repr__",
           [](const Packed &self) { return "<packbuf.Packed: " + std::to_string(self.size()) + " bytes>"; });
}

static void bind_batch(nb::module_ &m) {
  nb::class_<Batch>(m, "Batch")
      .def(
          "__init__",
          [](Batch *self, std::optional<uint64_t> rows, int packing, int alignment, bool checksums, bool sharing,
             uint32_t link_gbits, int mode, nb::bytes token, bool allow_pickle, nb::handle stand_in) {
            new (self) Batch(options(packing, alignment, checksums, sharing, link_gbits, mode, token), allow_pickle,
                             stand_in.is_none() ? nullptr : stand_in.ptr(), rows);
          },
          "rows"_a.none(), "packing"_a, "alignment"_a, "checksums"_a, "sharing"_a, "link_gbits"_a, "mode"_a, "token"_a,
          "allow_pickle"_a, "stand_in"_a.none() = nb::none())
      .def("wish",
           [](Batch &self, const std::string &path, int codec, const std::string &dtype, unsigned flags,
              const std::string &timestamp, int packing, bool batch_value) {
             self.wish({path, dtype, timestamp, codec, packing, flags, batch_value});
           })
      .def(
          "add", [](Batch &self, const std::string &name, nb::handle column) { self.add(name, column.ptr()); },
          nb::arg(), nb::arg().none())
      .def("add_usual", [](Batch &self, nb::dict fields) { return self.add_usual(fields.ptr()); })
      .def(
          "add_ragged",
          [](Batch &self, const std::string &name, nb::handle items, nb::handle offsets, nb::handle lengths) {
            self.add_ragged(name, items.ptr(), offsets.ptr(), lengths.ptr());
          },
          nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
      .def("add_rows", [](Batch &self, nb::handle rows) { self.add_rows(rows.ptr()); })
      .def("add_arrow", [](Batch &self, nb::handle table) { self.add_arrow(table.ptr()); })
      .def(
          "add_batch_value",
          [](Batch &self, const std::string &name, nb::handle value) { self.add_batch_value(name, value.ptr()); },
          nb::arg(), nb::arg().none())
      .def("add_metadata", &Batch::add_metadata, nb::arg().none(), nb::arg(), nb::arg())
      .def("measure", &Batch::measure)
      .def("write_into",
           [](Batch &self, nb::handle buffer, unsigned threads) {
             Held held;
             const Target to = target(buffer.ptr(), &held);
             self.measure();
             return self.write(to.data, to.size, threads);
           })
      .def("pack", &Batch::pack);
  m.def("write_many", &write_many);
}

// ---- reading ----

static nb::object text_of_buffer(const packbuf_text &text) { return own(text_object(text.data, text.size)); }

static nb::object text_or_none(const char *text) { return text ? nb::object(nb::str(text)) : nb::none(); }

static nb::object text_of_path(const View &view, uint32_t index) {
  const std::string path = view.path(index);
  return own(text_object(path.data(), path.size()));
}

static nb::object describe_node(const View &view, const packbuf_node &node) {
  const bool leaf = node.kind == PACKBUF_LEAF;
  const char *codec = packbuf_codec_name(static_cast<packbuf_codec>(node.codec));
  nb::list shape;
  for (unsigned i = 0; leaf && node.codec == PACKBUF_CODEC_NDARRAY && i < node.rank; i++) shape.append(node.shape[i]);
  return nb::make_tuple(node.index, text_of_path(view, node.index), text_of_buffer(node.name),
                        static_cast<int>(node.kind), static_cast<int>(node.scope),
                        leaf ? text_or_none(codec ? codec : "unknown") : nb::none(),
                        leaf ? text_or_none(packbuf_dtype_name(node.dtype)) : nb::none(), static_cast<int>(node.form),
                        static_cast<int>(node.rank), nb::tuple(shape), node.rows, node.parent, node.descendants,
                        static_cast<int>(node.logical_type), text_of_buffer(node.parameter), view.is_attribute(node));
}

// The buffers of a node: (role, storage, block modes, raw bytes, stored bytes).
static nb::list node_buffers(const View &view, uint32_t index) {
  const packbuf_node node = view.node(index);
  nb::list list;
  for (uint32_t i = 0; i < node.buffer_count; i++) {
    packbuf_buffer buffer;
    packbuf_error error;
    check(packbuf_get_buffer_at(view.get(), node.first_buffer + i, &buffer, &error), error);
    const uint64_t bits = static_cast<uint64_t>(buffer.dtype.bits) * buffer.dtype.lanes;
    const uint64_t raw = buffer.count / 8 * bits + (buffer.count % 8 * bits + 7) / 8;
    const uint64_t blocks = packbuf_block_count(&buffer);
    bool seen[256] = {}, filled = false;
    for (uint64_t k = 0; k < blocks; k++) {
      packbuf_block block;
      check(packbuf_get_block(&buffer, k, &block, &error), error);
      seen[block.mode] = true;
      filled |= block.filled != 0;
    }
    nb::list modes;
    for (unsigned mode = 0; mode < 256; mode++)
      if (seen[mode]) modes.append(packbuf_block_mode_name(mode));
    if (filled) modes.append("fill");
    const bool own = buffer.storage == PACKBUF_STORED;
    list.append(nb::make_tuple(static_cast<int>(buffer.role), static_cast<int>(buffer.storage), modes, raw,
                               own ? buffer.length + 16 * blocks : 0,
                               buffer.storage == PACKBUF_ALIAS ? nb::cast(buffer.alias_of) : nb::none(), buffer.index,
                               buffer.node));
  }
  return list;
}

static nb::list metadata(const View &view) {
  nb::list list;
  for (uint32_t i = 0; i < view.get()->metadata_count; i++) {
    packbuf_metadata pair;
    packbuf_error error;
    check(packbuf_get_metadata(view.get(), i, &pair, &error), error);
    list.append(nb::make_tuple(pair.node == PACKBUF_NO_NODE ? nb::none() : nb::cast(pair.node),
                               text_of_buffer(pair.key), text_of_buffer(pair.text)));
  }
  return list;
}

static nb::str schema_text(const View &view) {
  size_t size = 0;
  packbuf_error error;
  const packbuf_status status = packbuf_schema_text(view.get(), nullptr, 0, &size, &error);
  if (status != PACKBUF_CAPACITY) check(status, error);
  std::string text(size, '\0');
  check(packbuf_schema_text(view.get(), text.data(), size, &size, &error), error);
  return nb::str(text.data(), text.size());
}

static nb::bytes fingerprint(const View &view) {
  uint8_t bytes[PACKBUF_FINGERPRINT];
  packbuf_error error;
  check(packbuf_fingerprint(view.get(), bytes, &error), error);
  return nb::bytes(bytes, sizeof bytes);
}

static void verify(const View &view, int level) {
  packbuf_error error;
  check(unlocked([&] { return packbuf_verify(view.get(), static_cast<packbuf_level>(level), &error); }), error);
}

packbuf_limits packbuf_py::limits_of(const nb::dict &wanted) {
  packbuf_limits limits = packbuf_default_limits();
  for (auto [key, value] : wanted) {
    const auto name = nb::cast<std::string>(key);
    const auto number = nb::cast<uint64_t>(value);
    const auto small = static_cast<uint32_t>(number > UINT32_MAX ? UINT32_MAX : number);
    if (name == "head_bytes") limits.head_bytes = number;
    else if (name == "rows") limits.rows = number;
    else if (name == "decoded_bytes") limits.decoded_bytes = number;
    else if (name == "cell_bytes") limits.cell_bytes = number;
    else if (name == "nodes") limits.nodes = small;
    else if (name == "buffers") limits.buffers = small;
    else if (name == "metadata") limits.metadata = small;
    else if (name == "depth") limits.depth = small;
    else if (name == "cell_depth") limits.cell_depth = small;
    else
      fail(PACKBUF_INVALID_ARGUMENT, "there is no limit " + name + ": they are head_bytes, rows, decoded_bytes, " +
                                         "cell_bytes, nodes, buffers, metadata, depth, cell_depth");
  }
  return limits;
}

static void bind_view(nb::module_ &m) {
  nb::class_<View>(m, "View", nb::type_slots(view_slots), nb::is_weak_referenceable())
      .def("__init__",
           [](View *self, nb::handle buffer, bool exact, const nb::dict &wanted, int tensors, int images,
              bool allow_pickle) {
             new (self)
                 View(buffer.ptr(), exact ? PACKBUF_OPEN_EXACT : 0, limits_of(wanted), {tensors, images, allow_pickle});
           })
      .def("reopened",
           [](const View &self, nb::handle buffer) {
             return std::make_unique<View>(buffer.ptr(), 0, self.limits(), self.manner());
           })
      .def_static("of_head",
                  [](nb::handle head, const nb::dict &wanted, int tensors, int images, bool allow_pickle) {
                    return std::make_unique<View>(head.ptr(), Py_None, std::vector<std::pair<uint64_t, uint64_t>>(),
                                                  limits_of(wanted), Manner{tensors, images, allow_pickle});
                  })
      .def(
          "fetched",
          [](const View &self, nb::handle head, nb::handle memory,
             const std::vector<std::pair<uint64_t, uint64_t>> &ranges) {
            return std::make_unique<View>(head.ptr(), memory.ptr(), ranges, self.limits(), self.manner());
          },
          nb::arg(), nb::arg().none(), nb::arg())
      .def("verify_fetched",
           [](const View &self) {
             packbuf_error error;
             uint64_t chunks = 0;
             check(unlocked([&] { return packbuf_verify_fetched(self.get(), &chunks, &error); }), error);
             return chunks;
           })
      .def_prop_ro("partial", [](const View &self) { return self.get()->capacity < self.get()->total_length; })
      .def_prop_ro("head_checksum", [](const View &self) { return self.get()->head_checksum; })
      .def_prop_ro(
          "row_order_token",
          [](const View &self) { return nb::bytes(self.get()->row_order_token, sizeof self.get()->row_order_token); })
      .def_prop_ro("rows", [](const View &self) { return self.get()->rows; })
      .def_prop_ro("nbytes", [](const View &self) { return self.get()->total_length; })
      .def_prop_ro("sizes",
                   [](const View &self) {
                     const packbuf_view *view = self.get();
                     return nb::make_tuple(view->head_length, view->index_length,
                                           view->total_length - view->head_length - view->index_length);
                   })
      .def_prop_ro("counts",
                   [](const View &self) {
                     const packbuf_view *view = self.get();
                     return nb::make_tuple(view->node_count, view->field_count, view->value_count);
                   })
      .def_prop_ro("kind", [](const View &self) { return static_cast<int>(self.get()->kind); })
      .def_prop_ro("profile", [](const View &self) { return static_cast<int>(self.get()->profile); })
      .def("node", [](const View &self, uint32_t index) { return describe_node(self, self.node(index)); })
      .def("find",
           [](const View &self, unsigned scope, nb::str path) {
             Py_ssize_t size;
             const char *text = PyUnicode_AsUTF8AndSize(path.ptr(), &size);
             PyErr_Clear();
             if (!text) fail(PACKBUF_NOT_FOUND, "no column's name has a lone surrogate");
             return describe_node(self, self.find(scope, std::string(text, static_cast<size_t>(size))));
           })
      .def("has_mask", &View::has_mask)
      .def("buffers", &node_buffers)
      .def("metadata", &metadata)
      .def("schema_text", &schema_text)
      .def("fingerprint", &fingerprint)
      .def("expect",
           [](const View &self, const std::string &text) {
             packbuf_error error;
             check(packbuf_expect_schema(self.get(), text.data(), text.size(), nullptr, &error), error);
           })
      .def("verify", &verify)
      .def("read_rows", [](ViewHandle self, uint64_t first,
                           uint64_t count) { return own(read_rows(of(self), self.ptr(), first, count)); })
      .def("read_cells", [](ViewHandle self, uint32_t node, uint64_t first,
                            uint64_t count) { return own(read_cells(of(self), self.ptr(), node, first, count)); })
      .def("read_batch_values", [](ViewHandle self) { return own(read_batch_values(of(self), self.ptr())); });
}

using SelectionHandle = nb::handle_t<Selection>;

static const packbuf_selection *chosen_of(SelectionHandle handle) { return nb::inst_ptr<Selection>(handle)->get(); }

static void bind_selection(nb::module_ &m) {
  nb::class_<Selection>(m, "Selection")
      .def(
          "__init__",
          [](Selection *self, ViewHandle view, unsigned scope, const std::vector<std::string> &patterns,
             nb::handle rows) { new (self) Selection(view.ptr(), of(view), scope, patterns, rows.ptr()); },
          nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
      .def_prop_ro("rows", &Selection::rows)
      .def("chosen", &Selection::chosen)
      .def("in_place", [](const Selection &self, uint32_t node, bool bits) { return own(self.in_place(node, bits)); })
      .def("copied", [](const Selection &self, uint32_t node, bool bits) { return own(self.copied(node, bits)); })
      .def("size",
           [](const Selection &self, uint32_t node) {
             const packbuf_selected_size size = self.size(node);
             nb::list shape;
             for (unsigned i = 0; i < size.rank && i < PACKBUF_MAX_RANK; i++) shape.append(size.shape[i]);
             return nb::make_tuple(size.rows, size.elements, size.data_bytes, size.rank, nb::tuple(shape));
           })
      .def("copy_into",
           [](const Selection &self, uint32_t node, nb::handle to, const std::string &name) {
             packbuf_dtype dtype = {0, 0, 0};
             if (!name.empty() && !packbuf_dtype_parse(name.c_str(), &dtype))
               fail(PACKBUF_UNSUPPORTED_DTYPE, "there is no dtype " + name);
             Held held;
             const Target memory = target(to.ptr(), &held);
             self.copy_into(node, memory.data, memory.size, dtype);
           })
      .def("copy_to_address",
           [](const Selection &self, uint32_t node, uintptr_t address, uint64_t capacity) {
             self.copy_into(node, reinterpret_cast<void *>(address), capacity, {0, 0, 0});
           })
      .def(
          "ragged",
          [](const Selection &self, uint32_t node, bool bits, nb::handle memory) {
            return own(self.ragged(node, bits, memory.ptr()));
          },
          nb::arg(), nb::arg(), nb::arg().none() = nb::none())
      .def("masks", [](const Selection &self, uint32_t node) { return own(self.masks(node)); })
      .def("absent", [](const Selection &self, uint32_t node) { return own(self.absent(node)); })
      .def("values",
           [](const Selection &self, uint64_t first, uint64_t count) { return own(self.values(first, count)); })
      .def("cells", [](const Selection &self, uint32_t node) { return own(self.cells(node)); })
      .def("objects", [](const Selection &self, uint32_t node) { return own(self.objects(node)); })
      .def(
          "arrow_schema",
          [](SelectionHandle self, std::optional<uint32_t> node) {
            return own(arrow_schema(self.ptr(), chosen_of(self), node.value_or(PACKBUF_NO_NODE)));
          },
          nb::arg().none())
      .def(
          "arrow_array",
          [](SelectionHandle self, std::optional<uint32_t> node) {
            return own(arrow_array(self.ptr(), chosen_of(self), node.value_or(PACKBUF_NO_NODE)));
          },
          nb::arg().none())
      .def(
          "arrow_device_array",
          [](SelectionHandle self, std::optional<uint32_t> node) {
            return own(arrow_device_array(self.ptr(), chosen_of(self), node.value_or(PACKBUF_NO_NODE)));
          },
          nb::arg().none())
      .def(
          "arrow_stream",
          [](SelectionHandle self, std::optional<uint32_t> node) {
            return own(arrow_stream(self.ptr(), chosen_of(self), node.value_or(PACKBUF_NO_NODE)));
          },
          nb::arg().none())
      .def("dlpack", [](SelectionHandle self, uint32_t node, bool copy, bool no_copy, bool versioned) {
        const unsigned flags = (copy ? PACKBUF_EXPORT_COPY : 0u) | (no_copy ? PACKBUF_EXPORT_NO_COPY : 0u);
        return own(dlpack(self.ptr(), chosen_of(self), node, flags, versioned));
      });
}

static void bind_words(nb::module_ &m) {
  nb::list statuses;
#define PACKBUF_PY_STATUS(name, number, text) statuses.append(nb::make_tuple(#name, number, text));
  PACKBUF_STATUS_LIST(PACKBUF_PY_STATUS)
#undef PACKBUF_PY_STATUS
  m.attr("statuses") = statuses;
  m.attr("format_version") = nb::make_tuple(PACKBUF_FORMAT_MAJOR, PACKBUF_FORMAT_MINOR);
  m.attr("version") = nb::make_tuple(PACKBUF_VERSION_MAJOR, PACKBUF_VERSION_MINOR, PACKBUF_VERSION_PATCH);
  m.def("codec_number", [](const std::string &name) {
    packbuf_codec codec;
    if (!packbuf_codec_parse(name.c_str(), &codec)) {
      std::string known;
      for (int one = PACKBUF_CODEC_NULL; one <= PACKBUF_CODEC_OPAQUE_RAGGED; one++)
        known += std::string(known.empty() ? "" : ", ") + packbuf_codec_name(static_cast<packbuf_codec>(one));
      fail(PACKBUF_INVALID_ARGUMENT, "there is no codec " + name + ": they are " + known);
    }
    return static_cast<int>(codec);
  });
  m.def("rule_text", [](const std::string &name) {
    const char *text = "";
#define PACKBUF_PY_RULE(id, number, status, rule, at) \
  if (name == #id) text = rule;
    PACKBUF_RULE_LIST(PACKBUF_PY_RULE)
#undef PACKBUF_PY_RULE
    return nb::str(text);
  });
  m.def("infer", [](nb::handle values, const std::string &name, int mode) {
    return own(infer_values(values.ptr(), name, mode));
  });
}

NB_MODULE(_core, m) {
  if (!import_numpy()) throw nb::python_error();
  nb::set_leak_warnings(false); // what other packages and daemon threads hold when the process ends is no leak
  nb::register_exception_translator([](const std::exception_ptr &pointer, void *) {
    try {
      std::rethrow_exception(pointer);
    } catch (const Failure &failure) {
      raise(failure);
    } catch (const PythonError &) { // set already
    }
  });
  bind_words(m);
  bind_packed(m);
  bind_batch(m);
  bind_view(m);
  bind_selection(m);
  bind_fragments(m);
  bind_store(m);
  bind_ledger(m);
}
