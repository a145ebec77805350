// src/store.cpp: opening and closing stores, and the ends of leases.
// May use: store.h. Must not know: how Python sees it.
#include "store.h"

#include <cmath>
#include <cstring>
#include <unistd.h>

namespace packbuf_py {

uint64_t deadline_in(double seconds) {
  if (!(seconds >= 0)) fail(PACKBUF_INVALID_ARGUMENT, "a timeout is a number of seconds, 0 or more");
  if (seconds == 0) return PACKBUF_NO_WAIT;
  if (std::isinf(seconds)) return PACKBUF_FOREVER;
  return packbuf_deadline_in(seconds > 1e12 ? UINT64_MAX / 2000000u : static_cast<uint64_t>(std::ceil(seconds * 1e3)));
}

// ---- failures ----

// The C core has one text for all that an argument can be, and for all that can be missing; here it is the key.
static void explain(Failure &failure) {
  if (failure.error.code == PACKBUF_INVALID_ARGUMENT &&
      failure.message == packbuf_status_text(PACKBUF_INVALID_ARGUMENT))
    failure.message = "a key has 1 to 255 bytes of UTF-8 without blanks and control characters; that of a batch at "
                      "most 200 and no '#', as appends add to it";
  if (failure.error.code == PACKBUF_NOT_FOUND && failure.message == packbuf_status_text(PACKBUF_NOT_FOUND))
    failure.message = "there is no object of this key and generation";
}

Failure item_failure(packbuf_status status, const char *key) {
  Failure failure{};
  failure.error.code = status;
  failure.error.offset = failure.error.row = failure.error.fragment = failure.error.needed = PACKBUF_NOWHERE;
  failure.message = packbuf_status_text(status);
  failure.path = key;
  explain(failure);
  return failure;
}

Failure key_failure(const packbuf_error &error) {
  Failure failure = failure_of(error);
  if (error.code < PACKBUF_BAD_MAGIC || error.code > PACKBUF_LIMIT) failure.error.row = PACKBUF_NOWHERE;
  explain(failure);
  return failure;
}

void check_key(packbuf_status status, const packbuf_error &error) {
  if (status != PACKBUF_OK) throw key_failure(error);
}

// ---- handles ----

Handle::Handle(const char *uri, const packbuf_store_options &options) : process_(getpid()) {
  packbuf_error error;
  packbuf_status status;
  packbuf_store_info info;
  {
    Unlocked unlocked;
    status = packbuf_store_open(uri, &options, &store_, &error);
    if (status == PACKBUF_OK) {
      status = packbuf_store_describe(store_, &info, packbuf_deadline_in(5000), &error);
      if (status != PACKBUF_OK) (void)packbuf_store_close(store_, PACKBUF_NO_WAIT, nullptr);
    }
  }
  if (status != PACKBUF_OK) {
    Failure failure = failure_of(error);
    if (failure.path.empty()) failure.path.assign(uri, strcspn(uri, "?"));
    throw failure;
  }
  uri_ = info.uri;
  capabilities_ = info.capabilities;
}

bool Handle::here() const { return getpid() == process_; }

packbuf_store *Handle::get() const {
  if (!here()) fail(PACKBUF_DISCONNECTED, "this process was forked: open a store of its own");
  return store_;
}

// A call of mooncake may still be under way in the background; where it does not end, the store is left to it.
Handle::~Handle() {
  if (!store_ || !here()) return;
  Unlocked unlocked;
  (void)packbuf_store_close(store_, packbuf_deadline_in(5000), nullptr);
}

void Handle::close(uint64_t deadline) {
  packbuf_error error;
  if (!here()) return;
  check(unlocked([&] { return packbuf_store_close(store_, deadline, &error); }), error);
  store_ = nullptr;
}

// ---- putting ----

static packbuf_status write_with_threads(void *context, packbuf_batch *batch, void *dst, uint64_t capacity,
                                         uint64_t *size, packbuf_error *error) {
  return packbuf_write_threads(batch, dst, capacity, *static_cast<unsigned *>(context), size, error);
}

packbuf_put_options put_options(uint64_t deadline, uint64_t ttl_ms, bool evictable, bool fingerprint,
                                unsigned *threads) {
  packbuf_put_options options;
  memset(&options, 0, sizeof options);
  if (ttl_ms > UINT32_MAX) fail(PACKBUF_INVALID_ARGUMENT, "a time to live is less than 50 days");
  options.deadline = deadline;
  options.ttl_ms = static_cast<uint32_t>(ttl_ms);
  options.flags = evictable ? static_cast<uint32_t>(PACKBUF_PUT_EVICTABLE) : 0;
  options.no_fingerprint = !fingerprint;
  if (*threads > 1) {
    options.write = write_with_threads;
    options.write_context = threads;
  }
  return options;
}

// ---- what was leased ----

Leased::~Leased() { packbuf_object_release(&object_); } // in a forked child only memory of this process goes

const packbuf_view &Leased::part(uint32_t index) const {
  if (index >= object_.view_count) fail(PACKBUF_OUT_OF_RANGE, "the batch has no such part");
  return object_.views[index];
}

std::unique_ptr<Packed> Leased::joined() const {
  const packbuf_options options = packbuf_default_options();
  Arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_status status;
  uint64_t size = 0;
  std::unique_ptr<Packed> packed;
  {
    Unlocked unlocked;
    status = packbuf_join_batch(object_.join, arena.get(), &options, &batch, &error);
    if (status == PACKBUF_OK) status = packbuf_measure(&batch, &size, &error);
  }
  check(status, error);
  packed = std::make_unique<Packed>(size);
  check(unlocked([&] { return packbuf_write(&batch, packed->data(), size, &size, &error); }), error);
  packed->shrink(size);
  return packed;
}

// ---- servers ----

Server::Server(SharedHandle handle, const char *uri, const packbuf_server_options &options)
    : handle_(std::move(handle)) {
  packbuf_error error;
  packbuf_store *store = handle_->get();
  check(unlocked([&] { return packbuf_server_open(store, uri, &options, &server_, &error); }), error);
}

std::string Server::uri() const { return server_ ? packbuf_server_uri(server_) : ""; }

void Server::close(uint64_t deadline) {
  packbuf_server *server = server_;
  server_ = nullptr;
  if (server && handle_->here()) {
    Unlocked unlocked;
    (void)packbuf_server_close(server, deadline, nullptr);
  }
  handle_ = nullptr;
}

} // namespace packbuf_py
