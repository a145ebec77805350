// src/batch.h: a batch under construction and the memory it is packed into.
// May use: memory.h, walk.h. Must not know: how a packed buffer is read.
#pragma once

#include "exchange.h"
#include "memory.h"
#include "walk.h"

#include <memory>
#include <optional>

namespace packbuf_py {

// 64-byte aligned memory with a packed buffer in it: what pack() returns.
class Packed {
 public:
  explicit Packed(uint64_t capacity); // OUT_OF_MEMORY
  Packed(const Packed &) = delete;
  Packed &operator=(const Packed &) = delete;
  ~Packed() { give_block(data_); }
  void *data() { return data_; }
  uint64_t size() const { return size_; }
  void shrink(uint64_t size); // what was written; gives back what is left over when it is much

 private:
  void *data_;
  uint64_t size_;
};

// What may be asked for at a path; strings are kept here.
struct Wish {
  std::string path, dtype, parameter;
  int codec = 0, packing = 0;
  unsigned flags = 0;
  bool batch_value = false;
};

class Batch {
 public:
  Batch(const packbuf_options &options, bool allow_pickle, PyObject *stand_in, std::optional<uint64_t> rows);
  Batch(const Batch &) = delete;
  Batch &operator=(const Batch &) = delete;

  void wish(Wish wish) { wishes_.push_back(std::move(wish)); }
  // A field: a numpy array, a torch tensor, or a list or tuple with a value for each row.
  void add(const std::string &name, PyObject *column);
  // The first fields of a dict, as long as they are what most are: arrays of numpy's, tensors of torch's. How many.
  size_t add_usual(PyObject *fields);
  // A record batch or table of Arrow: each column a field.
  void add_arrow(PyObject *table);
  // Ragged rows, as a jagged nested tensor holds them: items of all rows, offsets, lengths (or None).
  void add_ragged(const std::string &name, PyObject *items, PyObject *offsets, PyObject *lengths);
  // A list of dicts: each key becomes a field.
  void add_rows(PyObject *rows);
  void add_batch_value(const std::string &name, PyObject *value);
  void add_metadata(std::optional<std::string> path, std::string key, std::string text);

  uint64_t measure();
  uint64_t write(void *dst, uint64_t capacity, unsigned threads); // without the GIL when it takes long
  std::unique_ptr<Packed> pack(unsigned threads);

  packbuf_batch *measured() { return &batch_; } // after measure(): for other threads, without the GIL

 private:
  struct Field {
    enum { tensor_field, ragged_field, values_field, arrow_field, arrow_fields } kind;
    std::string name;
    packbuf_tensor *tensor;
    packbuf_ragged ragged;
    packbuf_value *values;
    std::shared_ptr<Arrow> arrow = nullptr;
  };
  struct Pair {
    std::optional<std::string> path;
    std::string key, text;
  };

  void count_rows(const std::string &name, uint64_t rows);
  void add_array(const std::string &name, PyObject *array);
  void add_values(const std::string &name, PyObject *sequence);
  void add_cells(const std::string &name, const std::vector<PyObject *> &cells);
  bool add_run(const std::string &name, const std::vector<PyObject *> &cells); // false: the long way
  void add_tensor(const std::string &name, packbuf_tensor *tensor);
  void note_times(const std::string &name, const packbuf_value *values, uint64_t count, bool batch_value);
  void begin();
  packbuf_status add_to_batch(const Field &field, packbuf_error *error);

  Arena arena_;
  Held held_;
  Walk walk_;
  packbuf_options options_;
  std::vector<Wish> wishes_;
  std::vector<packbuf_schema> schemas_;
  std::vector<Field> fields_;
  std::vector<std::pair<std::string, packbuf_value>> values_;
  std::vector<Pair> pairs_;
  std::optional<uint64_t> rows_;
  packbuf_batch batch_;
  bool begun_ = false;
  uint64_t size_ = 0;
};

// A name as a step of a path.
std::string escaped(const std::string &name);

} // namespace packbuf_py
