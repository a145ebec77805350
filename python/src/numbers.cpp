// src/numbers.cpp: each item is an object to go to, so what counts is how many of them memory brings at once: a block
// of items has one branch, and nothing waits for the item before.
// May use: numbers.h. Must not know: values, batches.
#include "numbers.h"

#include <array>
#include <cstring>
#include <vector>

namespace packbuf_py {

namespace {

constexpr Py_ssize_t block = 8;

// look(items, count) for each block, and for what is left of the list; false as soon as one is.
template <class Look>
bool each_block(PyObject *list, Look look) {
  const Py_ssize_t count = list_size(list);
  PyObject *room[block];
  Py_ssize_t i = 0;
  for (; i + block <= count; i += block) {
    load_eight_ahead(list, i, count);
    if (!look(list_items(list, i, block, room), block)) return false;
  }
  return look(list_items(list, i, count - i, room), count - i);
}

inline bool all_are(PyTypeObject *type, PyObject *const *items, Py_ssize_t count) {
  uintptr_t differ = 0;
  for (Py_ssize_t k = 0; k < count; k++)
    differ |= reinterpret_cast<uintptr_t>(Py_TYPE(items[k])) ^ reinterpret_cast<uintptr_t>(type);
  return !differ;
}

// The ints from -5 to 256, which CPython makes once. Where they lie one after the other an address alone tells that an
// item is one of them, and whether it is below zero.
class Cached {
 public:
  Cached() {
    constexpr uintptr_t count = 262;
    std::vector<Ref> ints;
    for (long i = -5; i <= 256; i++) ints.push_back(Ref::take(PyLong_FromLong(i)));
    const auto at = [&](size_t i) { return reinterpret_cast<uintptr_t>(ints[i].get()); };
    const uintptr_t step = at(1) - at(0);
    if (step < sizeof(PyObject) || step > 1024) return;
    for (size_t i = 0; i < count; i++)
      if (!at(i) || at(i) != at(0) + i * step) return;
    first_ = at(0);
    zero_ = at(5);
    last_ = at(count - 1);
    for (Ref &held : ints) held.release(); // for good: nothing else may ever lie there
  }

  // Whether all items are such ints; *signs is negative when one of them is.
  bool hold(PyObject *const *items, Py_ssize_t count, intptr_t *signs) const {
    uintptr_t outside = 0, below = 0;
    if (count && reinterpret_cast<uintptr_t>(items[0]) - first_ > last_ - first_) return false;
    for (Py_ssize_t k = 0; k < count; k++) {
      const auto at = reinterpret_cast<uintptr_t>(items[k]);
      outside |= (at - first_) | (last_ - at);
      below |= at - zero_;
    }
    if (static_cast<intptr_t>(outside) < 0) return false;
    *signs |= static_cast<intptr_t>(below);
    return true;
  }

 private:
  uintptr_t first_ = 1, zero_ = 1, last_ = 0; // not known: nothing lies between
};

bool are_floats(PyObject *list) {
  double zeros[block] = {}; // infinity and NaN times 0 are NaN
  const bool floats = each_block(list, [&](PyObject *const *items, Py_ssize_t count) {
    if (!all_are(&PyFloat_Type, items, count)) return false;
    for (Py_ssize_t k = 0; k < count; k++) zeros[k] += float_value(items[k]) * 0.0;
    return true;
  });
  double sum = 0;
  for (const double zero : zeros) sum += zero;
  return floats && sum == 0;
}

// *signs is negative when one of them is.
bool are_integers(PyObject *list, intptr_t *signs) {
  static const Cached cached;
  int64_t all = 0;
  const bool integers = each_block(list, [&](PyObject *const *items, Py_ssize_t count) {
    if (cached.hold(items, count, signs)) return true;
    if (!all_are(&PyLong_Type, items, count)) return false;
    bool small = true;
    for (Py_ssize_t k = 0; k < count; k++) all |= small_int_sign(items[k], &small);
    return small;
  });
  if (all < 0) *signs = -1;
  return integers;
}

} // namespace

Numbers numbers_of(PyObject *list) {
  intptr_t signs = 0;
  if (list_size(list) && PyFloat_CheckExact(list_item(list, 0)))
    return are_floats(list) ? Numbers::floats : Numbers::others;
  if (!are_integers(list, &signs)) return Numbers::others;
  return signs < 0 ? Numbers::some_negative : Numbers::integers;
}

bool take_integers(PyObject *list, int64_t *to) {
  return each_block(list, [&](PyObject *const *items, Py_ssize_t count) {
    if (!all_are(&PyLong_Type, items, count)) return false;
    int overflow = 0;
    for (Py_ssize_t k = 0; k < count && !overflow; k++)
      if (!small_int(items[k], to + k)) to[k] = PyLong_AsLongLongAndOverflow(items[k], &overflow);
    to += count;
    return !overflow;
  });
}

bool take_floats(PyObject *list, int64_t *to) {
  return each_block(list, [&](PyObject *const *items, Py_ssize_t count) {
    if (!all_are(&PyFloat_Type, items, count)) return false;
    for (Py_ssize_t k = 0; k < count; k++) {
      const double value = float_value(items[k]);
      memcpy(to + k, &value, sizeof value);
    }
    to += count;
    return true;
  });
}

bool are_texts(PyObject *list) {
  return each_block(list, [](PyObject *const *items, Py_ssize_t count) {
    for (Py_ssize_t k = 0; k < count; k++)
      if (items[k] != Py_None && !(PyUnicode_CheckExact(items[k]) && has_utf8(items[k]))) return false;
    return true;
  });
}

} // namespace packbuf_py
