// src/runs.cpp: the two short ways for rows of Python values. Rows of dicts are turned into columns; a column of flat
// lists of ints, or of floats, becomes one array and offsets instead of a value for each number. The bytes are those of
// the long way (walk.cpp).
// May use: batch.h, numbers.h. Must not know: how a packed buffer is read.
#include "batch.h"

#include "numbers.h"

#include <cstring>
#include <string_view>
#include <unordered_map>

namespace packbuf_py {

namespace {

// Where the numbers of a column go. No Python code runs while they are taken.
class Run {
 public:
  Run(Walk &walk, const std::vector<PyObject *> &cells) : walk_(walk), cells_(cells) {}

  // Counts; false when a cell is no list (None and a row without it are fine), or no number tells of what type all are.
  bool measure() {
    PyObject *first = nullptr;
    for (PyObject *cell : cells_) {
      if (!cell || cell == Py_None) {
        absent_ = true;
        continue;
      }
      if (!PyList_CheckExact(cell)) return false;
      if (!first && list_size(cell)) first = list_item(cell, 0);
      total_ += static_cast<uint64_t>(list_size(cell));
    }
    integers_ = first && PyLong_CheckExact(first);
    return first && (integers_ || PyFloat_CheckExact(first));
  }

  // Takes all numbers; false when one is of another type, or beyond int64.
  bool take(packbuf_ragged *ragged) {
    const size_t rows = cells_.size();
    auto *words = walk_.take<int64_t>(total_);
    auto *offsets = walk_.take<int64_t>(rows + 1);
    const size_t bytes = absent_ ? rows / 8 + 1 : 0;
    auto *validity = absent_ ? walk_.take<uint8_t>(2 * bytes) : nullptr, *missing = validity + bytes;
    if (absent_) memset(validity, 0, 2 * bytes);
    const auto set = [&](uint8_t *bits, size_t row) { bits[row / 8] |= static_cast<uint8_t>(1u << row % 8); };
    int64_t at = 0;
    for (size_t row = 0; row < rows; row++) {
      offsets[row] = at;
      if (!cells_[row]) set(missing, row);
      if (!cells_[row] || cells_[row] == Py_None) continue;
      if (absent_) set(validity, row);
      if (!(integers_ ? take_integers(cells_[row], words + at) : take_floats(cells_[row], words + at))) return false;
      at += list_size(cells_[row]);
    }
    offsets[rows] = at;
    memset(ragged, 0, sizeof *ragged);
    ragged->data = words;
    ragged->dtype = packbuf_dtype_of(integers_ ? PACKBUF_DTYPE_INT : PACKBUF_DTYPE_FLOAT, 64);
    ragged->form = PACKBUF_FORM_LIST;
    ragged->offset_bits = 64;
    ragged->items = total_;
    ragged->offsets = offsets;
    ragged->validity = validity;
    ragged->missing = absent_ ? missing : nullptr;
    return true;
  }

 private:
  Walk &walk_;
  const std::vector<PyObject *> &cells_;
  uint64_t total_ = 0;
  bool integers_ = false, absent_ = false;
};

} // namespace

bool Batch::add_run(const std::string &name, const std::vector<PyObject *> &cells) {
  const std::string path = escaped(name);
  for (const Wish &wish : wishes_) // what is asked for changes what is inferred
    if (!wish.batch_value && wish.path.compare(0, path.size(), path) == 0) return false;
  Run run(walk_, cells);
  Field field{Field::ragged_field, name, nullptr, {}, nullptr};
  if (options_.mode != PACKBUF_STRICT || !run.measure() || !run.take(&field.ragged)) return false;
  fields_.push_back(field);
  return true;
}

// Columns in first-seen order; a row without a key has a NULL there.
void Batch::add_rows(PyObject *rows) {
  struct Column {
    PyObject *key;
    std::string name;
    std::vector<PyObject *> cells;
  };
  const bool list = PyList_Check(rows);
  const auto count = static_cast<size_t>(list ? list_size(rows) : tuple_size(rows));
  std::vector<Column> columns;
  std::unordered_map<std::string, size_t> places;
  const auto place_of = [&](PyObject *key, size_t guess, size_t row) {
    if (guess < columns.size() && columns[guess].key == key) return guess;
    Py_ssize_t size = 0;
    const char *text = PyUnicode_Check(key) ? text_of(key, &size) : nullptr;
    if (!text) {
      PyErr_Clear();
      fail(PyUnicode_Check(key) ? PACKBUF_BAD_UTF8 : PACKBUF_WRONG_TYPE, "a key of a row is no text", {}, row);
    }
    const std::string_view name(text, static_cast<size_t>(size));
    if (guess < columns.size() && columns[guess].name == name) return guess; // rows of JSON have keys of their own
    const auto found = places.try_emplace(std::string(name), columns.size());
    if (found.second) {
      held_.add(key);
      columns.push_back({key, found.first->first, std::vector<PyObject *>(count)});
    }
    return found.first->second;
  };
  count_rows("", count);
  for (size_t row = 0; row < count; row++) {
    const auto at = static_cast<Py_ssize_t>(row);
    PyObject *dict = list ? list_item(rows, at) : tuple_item(rows, at), *key, *cell;
    if (!PyDict_Check(dict)) fail(PACKBUF_WRONG_TYPE, "a row is no dict", {}, row);
    Py_ssize_t position = 0;
    for (size_t guess = 0; PyDict_Next(dict, &position, &key, &cell); guess++) {
      held_.add(cell);
      columns[place_of(key, guess, row)].cells[row] = cell;
    }
  }
  for (const Column &column : columns) add_cells(column.name, column.cells);
}

} // namespace packbuf_py
