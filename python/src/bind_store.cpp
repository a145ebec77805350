// src/bind_store.cpp: stores, refs and servers as packbuf._store, their only caller, sees them.
// May use: store.h, columns.h, nanobind. Must not know: how stores work.
#include "bind_store.h"
#include "columns.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>

namespace nb = nanobind;
using namespace nb::literals;

namespace packbuf_py {

// ---- refs ----

// UTF-8 of a str, kept by it; INVALID_ARGUMENT for a lone surrogate, which the words place.
static const char *utf8_of(nb::handle str, const char *what, Py_ssize_t *size) {
  const char *text = PyUnicode_AsUTF8AndSize(str.ptr(), size);
  if (text) return text;
  PyObject *type, *value, *trace;
  Py_ssize_t at = 0;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  const Ref held[] = {Ref::take(type), Ref::take(value), Ref::take(trace)};
  if (!PyErr_GivenExceptionMatches(value, PyExc_UnicodeEncodeError)) {
    PyErr_Restore(Py_NewRef(type), Py_NewRef(value), Py_XNewRef(trace));
    throw PythonError{};
  }
  (void)PyUnicodeEncodeError_GetStart(value, &at);
  fail(PACKBUF_INVALID_ARGUMENT,
       std::string(what) + " has a lone surrogate, which is no text, at character " + std::to_string(at));
}

const char *key_text(nb::handle key, const char *what) {
  Py_ssize_t size;
  if (!PyUnicode_Check(key.ptr()))
    fail(PACKBUF_INVALID_ARGUMENT, std::string(what) + " is a str, not " + type_name(key.ptr()));
  const char *text = utf8_of(key, what, &size);
  const size_t length = strlen(text);
  if (length != static_cast<size_t>(size))
    fail(PACKBUF_INVALID_ARGUMENT, std::string(what) + " has a NUL character, at byte " + std::to_string(length));
  return text;
}

packbuf_ref ref_of(nb::handle key) {
  if (nb::isinstance<packbuf_ref>(key)) return *nb::inst_ptr<packbuf_ref>(key);
  const char *text = key_text(key);
  packbuf_ref ref;
  return packbuf_ref_parse(text, strlen(text), &ref, nullptr) ? packbuf_ref_newest(text) : ref;
}

static std::vector<packbuf_ref> refs_of(const nb::list &keys) {
  std::vector<packbuf_ref> refs;
  for (nb::handle key : keys) refs.push_back(ref_of(key));
  return refs;
}

static nb::object error_object(const Failure &failure) { return own(error_of(failure)); }

static std::string ref_text(const packbuf_ref &ref) {
  char text[PACKBUF_REF_TEXT];
  size_t size = 0;
  packbuf_error error;
  check(packbuf_ref_write(&ref, text, sizeof text, &size, &error), error);
  return {text, size};
}

static packbuf_ref parse_ref(nb::handle str) {
  packbuf_ref ref;
  packbuf_error error;
  Py_ssize_t size;
  if (!PyUnicode_Check(str.ptr())) fail(PACKBUF_WRONG_TYPE, "the text of a ref is a str, not " + type_name(str.ptr()));
  const char *text = utf8_of(str, "the text of a ref", &size);
  check(packbuf_ref_parse(text, static_cast<size_t>(size), &ref, &error), error);
  return ref;
}

static nb::str fingerprint_text(const uint8_t *bytes) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  bool known = false;
  for (unsigned i = 0; i < PACKBUF_FINGERPRINT; i++) {
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
    known |= bytes[i] != 0;
  }
  return nb::str(known ? text.c_str() : "");
}

static const char *kind_name(uint8_t kind) {
  return kind == PACKBUF_OBJECT_BATCH ? "batch" : kind == PACKBUF_OBJECT_MANIFEST ? "manifest" : "bytes";
}

static packbuf_ref stat_ref(const Handle &handle, const char *key, const packbuf_stat &stat) {
  packbuf_ref ref = packbuf_ref_newest(key);
  memcpy(ref.uri, handle.uri().c_str(), handle.uri().size() + 1);
  ref.generation = stat.generation;
  ref.length = stat.length;
  ref.head_length = stat.head_length;
  ref.head_checksum = stat.head_checksum;
  ref.kind = stat.kind;
  memcpy(ref.fingerprint, stat.fingerprint, sizeof ref.fingerprint);
  return ref;
}

// (ref, age, time left, leases, evictable)
static nb::object stat_object(const Handle &handle, const char *key, const packbuf_stat &stat) {
  const auto seconds = [](uint64_t ms) { return static_cast<double>(ms) / 1e3; };
  return nb::make_tuple(stat_ref(handle, key, stat), seconds(stat.age_ms),
                        stat.left_ms == UINT64_MAX ? nb::none() : nb::cast(seconds(stat.left_ms)), stat.leases,
                        (stat.flags & PACKBUF_PUT_EVICTABLE) != 0);
}

static void bind_ref(nb::module_ &m) {
  nb::class_<packbuf_ref>(m, "Ref", "Names one immutable stored object. Plain data: send it as text, JSON or pickle.")
      .def_prop_ro(
          "uri", [](const packbuf_ref &self) { return nb::str(self.uri); }, "Where it was put; no store looks at it.")
      .def_prop_ro(
          "key", [](const packbuf_ref &self) { return nb::str(self.key); }, "Under which it was put.")
      .def_prop_ro(
          "generation", [](const packbuf_ref &self) { return self.generation; }, "Which object of that key.")
      .def_prop_ro(
          "nbytes", [](const packbuf_ref &self) { return self.length; }, "Bytes of the object.")
      .def_prop_ro(
          "head_nbytes", [](const packbuf_ref &self) { return self.head_length; }, "Bytes of its head and index.")
      .def_prop_ro(
          "head_checksum", [](const packbuf_ref &self) { return self.head_checksum; }, "CRC-32C of its head.")
      .def_prop_ro(
          "kind", [](const packbuf_ref &self) { return kind_name(self.kind); }, "``batch``, ``manifest`` or ``bytes``.")
      .def_prop_ro(
          "fingerprint", [](const packbuf_ref &self) { return fingerprint_text(self.fingerprint); },
          "Of the schema, as `Schema.fingerprint`; empty: not known.")
      .def_static("parse", &parse_ref, "text"_a.none(), nb::sig("def parse(text: str) -> Ref"),
                  "A ref of its text, ``str(ref)``.")
      .def("__str__", &ref_text)
      .def("__repr__", [](const packbuf_ref &self) { return "<packbuf.Ref " + ref_text(self) + ">"; })
      .def(
          "__eq__",
          [](const packbuf_ref &self, nb::handle other) {
            return nb::isinstance<packbuf_ref>(other) && ref_text(self) == ref_text(*nb::inst_ptr<packbuf_ref>(other));
          },
          nb::arg().none())
      .def("__hash__", [](const packbuf_ref &self) { return nb::hash(nb::str(ref_text(self).c_str())); })
      .def("__reduce__", [](const packbuf_ref &self) {
        return nb::make_tuple(nb::module_::import_("packbuf._values").attr("ref_of"), nb::make_tuple(ref_text(self)));
      });
}

// ---- options ----

static uint64_t number_of(nb::handle value, const std::string &what) {
  uint64_t number = 0;
  if (!nb::try_cast(value, number)) fail(PACKBUF_INVALID_ARGUMENT, what + " is a whole number, 0 or more");
  return number;
}

static uint32_t small(uint64_t number) { return static_cast<uint32_t>(number > UINT32_MAX ? UINT32_MAX : number); }

static packbuf_store_options store_options(const nb::dict &wanted) {
  packbuf_store_options options = packbuf_default_store_options();
  for (auto [key, value] : wanted) {
    const auto name = nb::cast<std::string>(key);
    if (name == "secret") {
      options.secret = bytes_data(value.ptr());
      options.secret_size = static_cast<size_t>(bytes_size(value.ptr()));
    } else if (name == "name") options.name = key_text(value, "a name");
    else {
      const uint64_t number = number_of(value, name);
      if (name == "size") options.size = number;
      else if (name == "objects") options.objects = small(number);
      else if (name == "sessions") options.sessions = small(number);
      else if (name == "quota") options.quota = number;
      else if (name == "pool_size") options.pool_size = number;
      else if (name == "connect_ms") options.connect_ms = small(number);
      else if (name == "connections") options.connections = small(number);
      else if (name == "must_exist") options.must_exist = number != 0;
      else if (name == "read_only") options.read_only = number != 0;
      else if (name == "step_down") options.step_down = number != 0;
      else if (name == "huge_pages") options.huge_pages = number != 0 ? 2 : 0;
      else fail(PACKBUF_INVALID_ARGUMENT, "a store has no option " + name);
    }
  }
  return options;
}

// ---- a store as Python has it ----

// Closing takes the handle away; what is leased, and calls under way, share it until they end.
class Store {
 public:
  Store(const char *uri, const nb::dict &options) : handle_(std::make_shared<Handle>(uri, store_options(options))) {}
  const SharedHandle &handle() const {
    if (!handle_) fail(PACKBUF_DISCONNECTED, "the store was closed");
    return handle_;
  }
  bool closed() const { return !handle_; }
  void close(double seconds) {
    const uint64_t deadline = deadline_in(seconds);
    SharedHandle last = std::move(handle_);
    if (!last || last.use_count() > 1) return;
    try {
      last->close(deadline);
    } catch (...) {
      handle_ = last;
      throw;
    }
  }

 private:
  SharedHandle handle_;
};

const SharedHandle &handle_of(nb::handle store) { return nb::inst_ptr<Store>(store)->handle(); }

static nb::dict describe(const Store &self, double seconds) {
  static const char *const words[] = {"ranges", "newest", "supersede", "remove_now", "in_place", "ttl",
                                      "evict",  "quota",  "list",      "outlive",    "inject"};
  const SharedHandle handle = self.handle();
  const uint64_t deadline = deadline_in(seconds);
  packbuf_store *store = handle->get();
  packbuf_store_info info;
  packbuf_error error;
  check(unlocked([&] { return packbuf_store_describe(store, &info, deadline, &error); }), error);
  const auto known = [](uint64_t number) { return number == UINT64_MAX ? nb::none() : nb::cast(number); };
  nb::dict facts;
  nb::set can;
  for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
    if (info.capabilities >> i & 1) can.add(words[i]);
  facts["transport"] = info.transport;
  facts["stepped_down"] = info.stepped_down ? nb::cast(info.stepped_down) : nb::none();
  facts["uri"] = info.uri;
  facts["can"] = can;
  facts["size"] = known(info.size);
  facts["used"] = known(info.used);
  facts["objects"] = known(info.objects);
  facts["most_objects"] = known(info.most_objects);
  return facts;
}

static nb::dict counters(const Store &self) {
  packbuf_counters counted;
  packbuf_error error;
  check(packbuf_store_counters(self.handle()->get(), &counted, &error), error);
  nb::dict all;
#define PACKBUF_PY_COUNTER(name, gauge, text) all[#name] = counted.name;
  PACKBUF_COUNTER_LIST(PACKBUF_PY_COUNTER)
#undef PACKBUF_PY_COUNTER
  return all;
}

// ---- batches ----

static packbuf_ref put(const Store &self, nb::handle key, Batch &batch, unsigned threads, uint64_t ttl_ms,
                       bool evictable, bool fingerprint, double seconds) {
  const SharedHandle handle = self.handle();
  const packbuf_put_options options = put_options(deadline_in(seconds), ttl_ms, evictable, fingerprint, &threads);
  const char *name = key_text(key);
  packbuf_store *store = handle->get();
  packbuf_ref ref;
  packbuf_error error;
  batch.measure();
  check_key(unlocked([&] { return packbuf_put(store, name, batch.measured(), &options, &ref, &error); }), error);
  return ref;
}

// A Ref for each key, or the error that it came to. The batches are measured.
static nb::list put_many(const Store &self, const nb::list &keys, const std::vector<Batch *> &batches, unsigned threads,
                         uint64_t ttl_ms, bool evictable, bool fingerprint, double seconds) {
  const SharedHandle handle = self.handle();
  const packbuf_put_options options = put_options(deadline_in(seconds), ttl_ms, evictable, fingerprint, &threads);
  const size_t count = batches.size();
  packbuf_store *store = handle->get();
  std::vector<const char *> names;
  std::vector<packbuf_batch *> begun;
  std::vector<packbuf_ref> refs(count);
  std::vector<packbuf_status> statuses(count);
  packbuf_error error;
  for (nb::handle key : keys) names.push_back(key_text(key));
  for (Batch *batch : batches) begun.push_back(batch->measured());
  if (names.size() != count) fail(PACKBUF_INVALID_ARGUMENT, "there is a key for each batch");
  {
    Unlocked unlocked;
    (void)packbuf_put_many(store, names.data(), begun.data(), count, &options, refs.data(), statuses.data(), &error);
  }
  nb::list results;
  bool told = false;
  for (size_t i = 0; i < count; i++) {
    if (statuses[i] == PACKBUF_OK) results.append(refs[i]);
    else results.append(error_object(told ? item_failure(statuses[i], names[i]) : key_failure(error)));
    told |= statuses[i] != PACKBUF_OK; // the first that failed is the one the error tells of
  }
  return results;
}

packbuf_get_options get_options(const packbuf_limits *limits, int level, const nb::object &fingerprint,
                                double seconds) {
  packbuf_get_options options;
  memset(&options, 0, sizeof options);
  options.deadline = deadline_in(seconds);
  options.limits = limits;
  options.level = static_cast<uint8_t>(level);
  if (!fingerprint.is_none()) {
    if (bytes_size(fingerprint.ptr()) != PACKBUF_FINGERPRINT)
      fail(PACKBUF_INVALID_ARGUMENT, "a fingerprint has 16 bytes");
    options.fingerprint = reinterpret_cast<const uint8_t *>(bytes_data(fingerprint.ptr()));
  }
  return options;
}

Wanted::Wanted(const nb::object &parts) {
  memset(&what_, 0, sizeof what_);
  if (parts.is_none()) return;
  texts_ = nb::cast<std::vector<std::string>>(parts[0]);
  for (const std::string &text : texts_) patterns_.push_back(pattern_text(text));
  what_.patterns = patterns_.data();
  what_.pattern_count = patterns_.size();
  what_.rows = row_selection(parts[1].ptr());
  what_.gap = number_of(parts[2], "gap");
  what_.values = nb::cast<bool>(parts[3]);
  some_ = true;
}

// A Leased for each ref, or the error that it came to. wanted: as Wanted has it.
static nb::list get_many(const Store &self, const nb::list &keys, const nb::object &wanted, const nb::dict &limits,
                         int level, const nb::object &fingerprint, unsigned join_flags, double seconds) {
  const SharedHandle handle = self.handle();
  const std::vector<packbuf_ref> refs = refs_of(keys);
  const packbuf_limits bounds = limits_of(limits);
  packbuf_get_options options = get_options(&bounds, level, fingerprint, seconds);
  const Wanted what(wanted);
  packbuf_store *store = handle->get();
  std::vector<packbuf_object> objects(refs.size());
  packbuf_error error;
  options.join_flags = static_cast<uint8_t>(join_flags);
  {
    Unlocked unlocked;
    (void)packbuf_get_many(store, refs.data(), refs.size(), what.get(), &options, objects.data(), &error);
  }
  nb::list results;
  bool told = false;
  for (size_t i = 0; i < objects.size(); i++) {
    if (objects[i].status == PACKBUF_OK) {
      results.append(nb::cast(std::make_unique<Leased>(handle, objects[i])));
      continue;
    }
    results.append(error_object(told ? item_failure(objects[i].status, refs[i].key) : key_failure(error)));
    told = true; // the first that failed is the one the error tells of
  }
  return results;
}

static packbuf_ref append(const Store &self, nb::handle to, Batch &batch, bool fields, unsigned threads,
                          uint64_t ttl_ms, bool fingerprint, unsigned join_flags, double seconds) {
  const SharedHandle handle = self.handle();
  packbuf_put_options options = put_options(deadline_in(seconds), ttl_ms, false, fingerprint, &threads);
  const packbuf_ref ref = ref_of(to);
  packbuf_store *store = handle->get();
  packbuf_ref appended;
  packbuf_error error;
  options.join_flags = static_cast<uint8_t>(join_flags);
  batch.measure();
  check_key(unlocked([&] {
              return packbuf_append(store, &ref, batch.measured(),
                                    fields ? PACKBUF_APPENDS_FIELDS : PACKBUF_APPENDS_ROWS, &options, &appended,
                                    &error);
            }),
            error);
  return appended;
}

// Whether the memory is free too: leases delay it, or an engine's the removal. `wait`: for leases.
static bool remove(const Store &self, nb::handle key, double wait, double seconds) {
  const SharedHandle handle = self.handle();
  const packbuf_ref ref = ref_of(key);
  // a store in memory waits for nothing else; a network has its time
  const double most = handle->can(PACKBUF_CAN_IN_PLACE)     ? wait
                      : handle->can(PACKBUF_CAN_REMOVE_NOW) ? std::max(wait, seconds)
                                                            : std::max(wait, std::min(seconds, 1.0));
  const uint64_t deadline = deadline_in(most);
  packbuf_store *store = handle->get();
  packbuf_error error;
  const packbuf_status status = unlocked([&] { return packbuf_remove(store, &ref, deadline, &error); });
  if (status != PACKBUF_LEASED) check_key(status, error);
  return status == PACKBUF_OK;
}

// (ref, age, time left, leases, evictable) for each key, or the error that it came to.
static nb::list stat_many(const Store &self, const nb::list &keys, double seconds) {
  const SharedHandle handle = self.handle();
  const std::vector<packbuf_ref> refs = refs_of(keys);
  const uint64_t deadline = deadline_in(seconds);
  packbuf_store *store = handle->get();
  std::vector<packbuf_item> items(refs.size());
  packbuf_error error;
  for (size_t i = 0; i < refs.size(); i++) {
    memset(&items[i], 0, sizeof items[i]);
    items[i].key = refs[i].key;
    items[i].generation = refs[i].generation;
  }
  {
    Unlocked unlocked;
    (void)packbuf_batch_stat(store, items.data(), items.size(), deadline, &error);
  }
  nb::list results;
  for (const packbuf_item &item : items)
    results.append(item.status == PACKBUF_OK ? stat_object(*handle, item.key, item.stat)
                                             : error_object(item_failure(item.status, item.key)));
  return results;
}

static nb::list list(const Store &self, const std::string &prefix, double seconds) {
  const SharedHandle handle = self.handle();
  const uint64_t deadline = deadline_in(seconds);
  packbuf_store *store = handle->get();
  std::vector<packbuf_listed> page(64);
  nb::list all;
  uint64_t cursor = 0;
  if (prefix.find('\0') != std::string::npos) fail(PACKBUF_INVALID_ARGUMENT, "no key has a NUL character");
  do {
    uint64_t count = 0;
    packbuf_error error;
    packbuf_status status;
    {
      Unlocked unlocked;
      status = packbuf_store_list(store, prefix.c_str(), &cursor, page.data(), page.size(), &count, deadline, &error);
    }
    check(status, error);
    for (uint64_t i = 0; i < count; i++) all.append(stat_object(*handle, page[i].key, page[i].stat));
  } while (cursor);
  return all;
}

static uint64_t collect(const Store &self, double seconds) {
  const SharedHandle handle = self.handle();
  const uint64_t deadline = deadline_in(seconds);
  packbuf_store *store = handle->get();
  uint64_t left = 0;
  packbuf_error error;
  check(unlocked([&] { return packbuf_store_collect(store, deadline, &left, &error); }), error);
  return left;
}

static void free_store(const Store &self, bool force) {
  const SharedHandle handle = self.handle();
  packbuf_store *store = handle->get();
  packbuf_error error;
  check(unlocked([&] { return packbuf_store_free(store, force, &error); }), error);
}

// Faults of a store `local`, for tests: (which item from now on, packbuf_fault_kind, argument).
static void inject(const Store &self, const std::vector<std::tuple<uint64_t, int, uint64_t>> &planned) {
  std::vector<packbuf_fault> faults;
  packbuf_error error;
  for (const auto &[at, kind, argument] : planned)
    faults.push_back({at, static_cast<packbuf_fault_kind>(kind), argument});
  check(packbuf_store_inject(self.handle()->get(), faults.data(), faults.size(), &error), error);
}

// ---- bytes ----

static packbuf_ref put_bytes(const Store &self, nb::handle key, nb::handle data, uint64_t ttl_ms, bool evictable,
                             double seconds) {
  const SharedHandle handle = self.handle();
  unsigned threads = 1;
  const packbuf_put_options options = put_options(deadline_in(seconds), ttl_ms, evictable, true, &threads);
  packbuf_store *store = handle->get();
  packbuf_item item;
  packbuf_error error;
  Held held;
  const Py_buffer *bytes = held.buffer(data.ptr(), PyBUF_SIMPLE);
  if (!bytes) throw PythonError{};
  memset(&item, 0, sizeof item);
  item.key = key_text(key);
  item.from = bytes->buf;
  item.size = static_cast<uint64_t>(bytes->len);
  item.flags = options.flags;
  item.ttl_ms = options.ttl_ms;
  check_key(unlocked([&] { return packbuf_batch_put(store, &item, 1, options.deadline, &error); }), error);
  return stat_ref(*handle, item.key, item.stat);
}

static std::unique_ptr<LeasedBytes> get_bytes(const Store &self, nb::handle key, double seconds) {
  const SharedHandle handle = self.handle();
  const packbuf_ref ref = ref_of(key);
  const uint64_t deadline = deadline_in(seconds);
  packbuf_store *store = handle->get();
  packbuf_item item;
  packbuf_error error;
  memset(&item, 0, sizeof item);
  item.key = ref.key;
  item.generation = ref.generation;
  check_key(unlocked([&] { return packbuf_batch_get(store, &item, 1, deadline, &error); }), error);
  auto leased = std::make_unique<LeasedBytes>(handle, item.lease);
  if (ref.generation && ref.length != item.stat.length)
    fail(PACKBUF_SHORT_READ, "the object has not the length that its ref says", ref.key);
  return leased;
}

// ---- the buffer protocol ----

int leased_buffer(PyObject *self, Py_buffer *buffer, int flags) {
  auto *leased = nb::inst_ptr<Leased>(self);
  if (!leased->object().view_count) {
    PyErr_SetString(PyExc_BufferError, "the batch was released");
    return -1;
  }
  const packbuf_view &first = leased->object().views[0];
  const int failed = PyBuffer_FillInfo(buffer, self, const_cast<uint8_t *>(first.base),
                                       static_cast<Py_ssize_t>(first.capacity), 1, flags);
  if (!failed) leased->exports++;
  return failed;
}

void leased_release(PyObject *self, Py_buffer *) {
  auto *leased = nb::inst_ptr<Leased>(self);
  if (--leased->exports == 0) leased->unused();
}

static int bytes_buffer(PyObject *self, Py_buffer *buffer, int flags) {
  const packbuf_lease &lease = nb::inst_ptr<LeasedBytes>(self)->lease();
  return PyBuffer_FillInfo(buffer, self, const_cast<void *>(lease.data), static_cast<Py_ssize_t>(lease.size), 1, flags);
}

static PyType_Slot leased_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void *>(leased_buffer)},
                                     {Py_bf_releasebuffer, reinterpret_cast<void *>(leased_release)},
                                     {0, nullptr}};
static PyType_Slot bytes_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void *>(bytes_buffer)}, {0, nullptr}};

static void bind_leased(nb::module_ &m) {
  nb::class_<Leased>(m, "Leased", nb::type_slots(leased_slots), nb::is_weak_referenceable())
      .def_prop_ro("ref", [](const Leased &self) { return self.object().ref; })
      .def_prop_ro("parts", [](const Leased &self) { return self.object().view_count; })
      .def_prop_ro("appended", [](const Leased &self) { return self.object().join != nullptr; })
      .def("view",
           [](nb::handle_t<Leased> self, uint32_t index, int tensors, int images, bool allow_pickle) {
             return std::make_unique<View>(self.ptr(), nb::inst_ptr<Leased>(self)->part(index),
                                           Manner{tensors, images, allow_pickle});
           })
      .def("selection",
           [](const Leased &self, uint32_t index, ViewHandle view) {
             const packbuf_object &object = self.object();
             if (!object.selection || index >= object.view_count) fail(PACKBUF_OUT_OF_RANGE, "nothing was selected");
             return std::make_unique<Selection>(view.ptr(), of(view), object.selection[index]);
           })
      .def("joined", [](nb::handle_t<Leased> self) {
        Exported use; // the GIL is released meanwhile, and another thread may end a reading
        if (!use.open(self.ptr(), PyBUF_SIMPLE)) throw PythonError{};
        return nb::inst_ptr<Leased>(self)->joined();
      });
  nb::class_<LeasedBytes>(m, "LeasedBytes", nb::type_slots(bytes_slots));
}

static std::unique_ptr<Server> serve(const Store &store, const std::string &uri, const nb::object &secret,
                                     const std::optional<std::string> &metrics, uint32_t threads, uint32_t connections,
                                     uint64_t quota) {
  packbuf_server_options options;
  memset(&options, 0, sizeof options);
  options.threads = threads;
  options.connections = connections;
  options.quota = quota;
  options.metrics = metrics ? metrics->c_str() : nullptr;
  if (!secret.is_none()) {
    options.secret = bytes_data(secret.ptr());
    options.secret_size = static_cast<size_t>(bytes_size(secret.ptr()));
  }
  return std::make_unique<Server>(store.handle(), uri.c_str(), options);
}

void bind_store(nb::module_ &m) {
  bind_ref(m);
  bind_leased(m);
  nb::class_<Store>(m, "Store")
      .def("__init__",
           [](Store *self, nb::handle uri, const nb::dict &options) {
             new (self) Store(key_text(uri, "a store's URI"), options);
           })
      .def_prop_ro("closed", &Store::closed)
      .def_prop_ro("uri", [](const Store &self) { return self.handle()->uri(); })
      .def("close", &Store::close)
      .def("describe", &describe)
      .def("counters", &counters)
      .def("put", &put, nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg())
      .def("put_many", &put_many)
      .def("get_many", &get_many, nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
           nb::arg())
      .def("append", &append, nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg())
      .def("remove", &remove, nb::arg().none(), nb::arg(), nb::arg())
      .def("stat_many", &stat_many)
      .def("list", &list)
      .def("collect", &collect)
      .def("free", &free_store)
      .def("inject", &inject)
      .def("put_bytes", &put_bytes, nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg())
      .def("get_bytes", &get_bytes, nb::arg().none(), nb::arg());
  nb::class_<Server>(m, "Server").def_prop_ro("uri", &Server::uri).def("close", [](Server &self, double seconds) {
    self.close(deadline_in(seconds));
  });
  m.def("serve", &serve, nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
}

} // namespace packbuf_py
