// src/ledger.h: books over a store, and the readings of batches that are on them.
// May use: store.h. Must not know: how Python sees them.
#pragma once

#include "store.h"

namespace packbuf_py {

// A ledger that is open; readings share it.
class Books {
 public:
  Books(SharedHandle handle, const packbuf_ledger_options &options);
  Books(const Books &) = delete;
  Books &operator=(const Books &) = delete;
  ~Books();
  packbuf_ledger *get() const; // DISCONNECTED in a forked child
  const SharedHandle &handle() const { return handle_; }

 private:
  SharedHandle handle_;
  packbuf_ledger *ledger_ = nullptr;
};

using SharedBooks = std::shared_ptr<Books>;

// A batch that is being read, which ends when nothing looks into it any more. One that is dropped goes back unread.
class Reading : public Leased {
 public:
  Reading(SharedBooks books, const packbuf_object &object)
      : Leased(books->handle(), object), books_(std::move(books)) {}
  ~Reading() override;
  bool out() const { return object_.inner != nullptr; }
  bool ended() const { return ended_; }
  bool end(bool consumed); // whether the batch went with it, now
  void unused() override;

 private:
  bool finish();
  SharedBooks books_;
  bool ended_ = false, consumed_ = false;
};

} // namespace packbuf_py
