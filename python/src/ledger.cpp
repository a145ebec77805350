// src/ledger.cpp: books over a store, and the readings of batches that are on them.
// May use: ledger.h. Must not know: how Python sees them.
#include "ledger.h"

namespace packbuf_py {

Books::Books(SharedHandle handle, const packbuf_ledger_options &options) : handle_(std::move(handle)) {
  packbuf_error error;
  check(packbuf_ledger_open(handle_->get(), &options, &ledger_, &error), error);
}

// Readings share the books, so none is out. In a forked child their lock may be held by a thread that is not there.
Books::~Books() {
  if (ledger_ && handle_->here()) (void)packbuf_ledger_close(ledger_, nullptr);
}

packbuf_ledger *Books::get() const {
  (void)handle_->get();
  return ledger_;
}

Reading::~Reading() {
  if (out() && handle_->here()) packbuf_ledger_put_back(books_->get(), &object_);
}

bool Reading::end(bool consumed) {
  (void)books_->get();
  if (ended_) return false;
  ended_ = true;
  consumed_ = consumed;
  return !in_use() && finish();
}

bool Reading::finish() {
  packbuf_error error;
  int freed = 0;
  packbuf_ledger *ledger = books_->get();
  packbuf_object object = object_; // from here on nobody else finds it
  object_ = {};
  check(unlocked([&] {
          if (consumed_) return packbuf_ledger_release(ledger, &object, &freed, &error);
          packbuf_ledger_put_back(ledger, &object);
          return PACKBUF_OK;
        }),
        error);
  return freed != 0;
}

// What was to end has ended; what fails is on the books as pending, for gc to try again.
void Reading::unused() {
  if (!ended_ || !out() || !handle_->here()) return;
  try {
    finish();
  } catch (const Failure &) {
  }
}

} // namespace packbuf_py
