// src/numbers.h: lists of ints alone, of floats alone or of texts, eight items at a time. No Python code runs
// meanwhile.
// May use: objects.h. Must not know: values, batches.
#pragma once

#include "objects.h"

namespace packbuf_py {

// What all items of a list are.
enum class Numbers {
  integers,      // of one digit, none of them below zero; also of an empty list
  some_negative, // integers of one digit
  floats,        // finite
  others
};

Numbers numbers_of(PyObject *list);

// The items of a list as int64, or as the bits of float64; false when one is of another type or beyond int64.
bool take_integers(PyObject *list, int64_t *to);
bool take_floats(PyObject *list, int64_t *to);

// Whether all items are str that has UTF-8, or None. Also false where that would take longer to tell.
bool are_texts(PyObject *list);

} // namespace packbuf_py
