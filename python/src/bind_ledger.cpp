// src/bind_ledger.cpp: ledgers as packbuf._ledger, their only caller, sees them.
// May use: ledger.h, nanobind. Must not know: how ledgers work.
#include "bind_store.h"
#include "ledger.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <cstring>

namespace nb = nanobind;

namespace packbuf_py {

class Ledger {
 public:
  Ledger(nb::handle store, uint64_t most_bytes, uint32_t attempts, uint32_t readings, bool retain) {
    packbuf_ledger_options options;
    memset(&options, 0, sizeof options);
    options.most_bytes = most_bytes;
    options.attempts = attempts;
    options.readings = readings;
    options.retain = retain;
    books_ = std::make_shared<Books>(handle_of(store), options);
  }
  const SharedBooks &books() const { return books_; }

 private:
  SharedBooks books_;
};

static packbuf_ref put(const Ledger &self, nb::handle key, Batch &batch, unsigned threads, uint64_t ttl_ms,
                       bool evictable, bool fingerprint, double seconds) {
  const SharedBooks books = self.books();
  const packbuf_put_options options = put_options(deadline_in(seconds), ttl_ms, evictable, fingerprint, &threads);
  const char *name = key_text(key);
  packbuf_ledger *ledger = books->get();
  packbuf_ref ref;
  packbuf_error error;
  batch.measure();
  check_key(unlocked([&] { return packbuf_ledger_put(ledger, name, batch.measured(), &options, &ref, &error); }),
            error);
  return ref;
}

static void adopt(const Ledger &self, nb::handle key, double seconds) {
  const SharedBooks books = self.books();
  const packbuf_ref ref = ref_of(key);
  const uint64_t deadline = deadline_in(seconds);
  packbuf_ledger *ledger = books->get();
  packbuf_error error;
  check_key(unlocked([&] { return packbuf_ledger_adopt(ledger, &ref, deadline, &error); }), error);
}

static std::unique_ptr<Reading> get(const Ledger &self, nb::handle key, const nb::object &wanted,
                                    const nb::dict &limits, int level, const nb::object &fingerprint, double seconds) {
  const SharedBooks books = self.books();
  const packbuf_ref ref = ref_of(key);
  const packbuf_limits bounds = limits_of(limits);
  const packbuf_get_options options = get_options(&bounds, level, fingerprint, seconds);
  const Wanted what(wanted);
  packbuf_ledger *ledger = books->get();
  packbuf_object object;
  packbuf_error error;
  check_key(unlocked([&] {
              return what.get() ? packbuf_ledger_get_select(ledger, &ref, what.get(), &options, &object, &error)
                                : packbuf_ledger_get(ledger, &ref, &options, &object, &error);
            }),
            error);
  return std::make_unique<Reading>(books, object);
}

static void abort_batch(const Ledger &self, nb::handle key) {
  const SharedBooks books = self.books();
  const packbuf_ref ref = ref_of(key);
  packbuf_ledger *ledger = books->get();
  packbuf_error error;
  check_key(unlocked([&] { return packbuf_ledger_abort(ledger, &ref, &error); }), error);
}

static uint64_t gc(const Ledger &self, double max_age, double seconds) {
  const SharedBooks books = self.books();
  const uint64_t deadline = deadline_in(seconds);
  packbuf_ledger *ledger = books->get();
  uint64_t freed = 0;
  packbuf_error error;
  if (!(max_age >= 0)) fail(PACKBUF_INVALID_ARGUMENT, "an age is a number of seconds, 0 or more");
  const uint64_t age_ms = max_age > 1e12 ? UINT64_MAX : static_cast<uint64_t>(max_age * 1e3);
  check(unlocked([&] { return packbuf_ledger_gc(ledger, age_ms, deadline, &freed, &error); }), error);
  return freed;
}

static void drain(const Ledger &self, double seconds) {
  const SharedBooks books = self.books();
  const uint64_t deadline = deadline_in(seconds);
  packbuf_ledger *ledger = books->get();
  packbuf_error error;
  check(unlocked([&] { return packbuf_ledger_drain(ledger, deadline, &error); }), error);
}

static nb::dict describe(const Ledger &self) {
  packbuf_ledger_state state;
  check(packbuf_ledger_describe(self.books()->get(), &state, nullptr), packbuf_error{});
  nb::dict facts;
  facts["batches"] = state.batches;
  facts["bytes"] = state.bytes;
  facts["reading"] = state.reading;
  facts["pending"] = state.pending;
  facts["pending_bytes"] = state.pending_bytes;
  facts["oldest_age"] = static_cast<double>(state.oldest_ms) / 1e3;
  return facts;
}

void bind_ledger(nb::module_ &m) {
  nb::class_<Reading, Leased>(m, "Reading").def_prop_ro("ended", &Reading::ended).def("end", &Reading::end);
  nb::class_<Ledger>(m, "Ledger")
      .def("__init__", [](Ledger *self, nb::handle store, uint64_t most_bytes, uint32_t attempts, uint32_t readings,
                          bool retain) { new (self) Ledger(store, most_bytes, attempts, readings, retain); })
      .def("put", &put, nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg())
      .def("adopt", &adopt, nb::arg().none(), nb::arg())
      .def("get", &get, nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
      .def("abort", &abort_batch, nb::arg().none())
      .def("gc", &gc)
      .def("drain", &drain)
      .def("describe", &describe);
}

} // namespace packbuf_py
