// src/store.h: a store that is open, and what was leased from it. Whatever looks into a store's memory shares its
// handle, so that the store is closed when the last of them is gone, and never under one.
// May use: batch.h, failure.h, packbuf_transport.h. Must not know: how Python sees it.
#pragma once

#include "batch.h"
#include "transport/packbuf_transport.h"
#include "view.h"

#include <memory>
#include <string>
#include <vector>

namespace packbuf_py {

// Seconds from now as a deadline: 0 does not wait, infinity waits for ever.
uint64_t deadline_in(double seconds);

// What is known of one key that failed: its status alone, or an error. That it was the i-th of a call is not its row.
Failure item_failure(packbuf_status status, const char *key);
Failure key_failure(const packbuf_error &error);
void check_key(packbuf_status status, const packbuf_error &error);

// An open store. What calls it lets go of the GIL first.
class Handle {
 public:
  Handle(const char *uri, const packbuf_store_options &options);
  Handle(const Handle &) = delete;
  Handle &operator=(const Handle &) = delete;
  ~Handle();
  packbuf_store *get() const; // DISCONNECTED in a forked child
  bool here() const;          // not in a forked child, which must leave all of it alone
  bool can(unsigned what) const { return (capabilities_ & what) != 0; }
  const std::string &uri() const { return uri_; } // without options
  void close(uint64_t deadline); // for the last one who shares it, who then drops it; the error leaves it open

 private:
  packbuf_store *store_ = nullptr;
  std::string uri_;
  unsigned capabilities_ = 0;
  int process_;
};

using SharedHandle = std::shared_ptr<Handle>;

// How batches are put; and got.
packbuf_put_options put_options(uint64_t deadline, uint64_t ttl_ms, bool evictable, bool fingerprint,
                                unsigned *threads);

// A packed buffer, or some ranges of it, that was got: the lease goes back with this. Views export it as a buffer, so
// that it knows how many there are.
class Leased {
 public:
  Leased(SharedHandle handle, const packbuf_object &object) : handle_(std::move(handle)), object_(object) {}
  Leased(const Leased &) = delete;
  Leased &operator=(const Leased &) = delete;
  virtual ~Leased();
  const packbuf_object &object() const { return object_; }
  const packbuf_view &part(uint32_t index) const; // OUT_OF_RANGE
  bool in_use() const { return exports > 0; }
  virtual void unused() {} // the last buffer came back
  // All fragments of an appended batch as one packed buffer.
  std::unique_ptr<Packed> joined() const;

  Py_ssize_t exports = 0; // buffers that are out; the GIL guards it

 protected:
  SharedHandle handle_;
  packbuf_object object_;
};

// Bytes that were got.
class LeasedBytes {
 public:
  LeasedBytes(SharedHandle handle, const packbuf_lease &lease) : handle_(std::move(handle)), lease_(lease) {}
  LeasedBytes(const LeasedBytes &) = delete;
  LeasedBytes &operator=(const LeasedBytes &) = delete;
  ~LeasedBytes() { packbuf_lease_release(&lease_); }
  const packbuf_lease &lease() const { return lease_; }

 private:
  SharedHandle handle_;
  packbuf_lease lease_;
};

// A store on the network.
class Server {
 public:
  Server(SharedHandle handle, const char *uri, const packbuf_server_options &options);
  Server(const Server &) = delete;
  Server &operator=(const Server &) = delete;
  ~Server() { close(packbuf_deadline_in(1000)); }
  std::string uri() const;
  void close(uint64_t deadline); // for operations under way

 private:
  SharedHandle handle_;
  packbuf_server *server_ = nullptr;
};

} // namespace packbuf_py
