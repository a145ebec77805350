// src/batch.cpp: fields of Python objects as descriptions, then the calls that measure and write them.
// May use: batch.h, numpy.h. Must not know: how a packed buffer is read.
#include "batch.h"

#include "numpy.h"

#include <cstring>

namespace packbuf_py {

// ---- memory ----

Packed::Packed(uint64_t capacity) : data_(take_block(capacity)), size_(capacity) {
  if (!data_) fail(PACKBUF_OUT_OF_MEMORY, "no memory for " + std::to_string(capacity) + " bytes");
}

void Packed::shrink(uint64_t size) {
  if (size < size_ - size_ / 8) {
    Packed less(size);
    memcpy(less.data_, data_, size);
    std::swap(data_, less.data_);
  }
  size_ = size;
}

// ---- names ----

std::string escaped(const std::string &name) {
  std::string path;
  for (const char c : name) {
    if (c == '.' || c == '[' || c == '\\') path += '\\';
    path += c;
  }
  return path;
}

static const char *c_text(const std::string &text, const char *what) {
  if (text.find('\0') != std::string::npos)
    fail(PACKBUF_INVALID_ARGUMENT, std::string(what) + " has a NUL character", escaped(text));
  return text.c_str();
}

// ---- fields ----

Batch::Batch(const packbuf_options &options, bool allow_pickle, PyObject *stand_in, std::optional<uint64_t> rows)
    : walk_(arena_.get(), &held_, allow_pickle, stand_in), options_(options), rows_(rows) {
  if (stand_in) held_.add(stand_in);
}

void Batch::count_rows(const std::string &name, uint64_t rows) {
  if (!rows_) rows_ = rows;
  if (*rows_ != rows)
    fail(PACKBUF_ROW_COUNT, std::to_string(rows) + " rows in a batch of " + std::to_string(*rows_), escaped(name));
}

// Adds what a failure below a field does not know: the field.
static Failure placed(Failure failure, const std::string &name, uint64_t row) {
  failure.path = escaped(name) + failure.path;
  if (failure.error.row == PACKBUF_NOWHERE) failure.error.row = row;
  return failure;
}

template <class Work>
static void within(const std::string &name, uint64_t row, Work work) {
  try {
    work();
  } catch (const Failure &failure) {
    throw placed(failure, name, row);
  } catch (const PythonError &) {
    throw placed(caught(), name, row);
  }
}

void Batch::add_tensor(const std::string &name, packbuf_tensor *tensor) {
  if (tensor->rank == 0)
    fail(PACKBUF_INVALID_ARGUMENT, "a 0-d array has no rows: make it a batch value (batch_values=)", escaped(name));
  count_rows(name, tensor->shape[0]);
  if (tensor->rank == 1 && (tensor->dtype.code <= PACKBUF_DTYPE_FLOAT || tensor->dtype.code == PACKBUF_DTYPE_BOOL))
    tensor->form = PACKBUF_FORM_NATURAL; // one plain number a row, as the command has it
  fields_.push_back({Field::tensor_field, name, tensor, {}, nullptr});
}

void Batch::add_array(const std::string &name, PyObject *array) {
  auto *fields = reinterpret_cast<PyArrayObject *>(array);
  if (has_no_dtype(array)) {
    if (PyArray_NDIM(fields) == 0)
      fail(PACKBUF_INVALID_ARGUMENT, "a 0-d array has no rows: make it a batch value (batch_values=)", escaped(name));
    const Ref list = Ref::take(must(PyObject_CallMethod(array, "tolist", nullptr)));
    return add_values(name, list.get());
  }
  within(name, PACKBUF_NOWHERE, [&] {
    const std::string unit = Walk::numpy_unit(array);
    if (!unit.empty()) {
      Wish time;
      time.path = escaped(name);
      time.parameter = unit;
      wishes_.push_back(time);
    }
  });
  packbuf_tensor *tensor = nullptr;
  within(name, PACKBUF_NOWHERE, [&] { tensor = walk_.numpy_array(array); });
  add_tensor(name, tensor);
}

void Batch::add(const std::string &name, PyObject *column) {
  if (is_numpy_array(column)) return add_array(name, column);
  if (is_torch_tensor(column)) {
    packbuf_tensor *tensor = nullptr;
    within(name, PACKBUF_NOWHERE, [&] { tensor = walk_.torch_tensor(column); });
    return add_tensor(name, tensor);
  }
  if (PyList_Check(column) || PyTuple_Check(column)) return add_values(name, column);
  if (Arrow::offered(column)) {
    std::shared_ptr<Arrow> arrow;
    within(name, PACKBUF_NOWHERE, [&] { arrow = std::make_shared<Arrow>(column); });
    count_rows(name, arrow->rows());
    fields_.push_back({Field::arrow_field, name, nullptr, {}, nullptr, arrow});
    return;
  }
  packbuf_tensor *tensor = nullptr;
  within(name, PACKBUF_NOWHERE, [&] { tensor = dlpack_tensor(column, arena_.get(), &held_); });
  if (tensor) return add_tensor(name, tensor);
  fail(PACKBUF_WRONG_TYPE,
       "a field is a numpy array, a torch tensor, an array of Arrow or DLPack, or a list or tuple with a value for "
       "each row, not " +
           type_name(column),
       escaped(name));
}

size_t Batch::add_usual(PyObject *fields) {
  const Ref items = Ref::take(must(PyDict_Items(fields)));
  const auto count = static_cast<size_t>(list_size(items.get()));
  fields_.reserve(fields_.size() + count);
  for (size_t i = 0; i < count; i++) {
    PyObject *item = list_item(items.get(), static_cast<Py_ssize_t>(i));
    PyObject *text = tuple_item(item, 0), *column = tuple_item(item, 1);
    Py_ssize_t size = 0;
    const char *data = PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &size) : nullptr;
    if (!data) {
      PyErr_Clear();
      return i;
    }
    const std::string name(data, static_cast<size_t>(size));
    packbuf_tensor *tensor = nullptr;
    if (is_usual_array(column)) {
      add_array(name, column);
      continue;
    }
    within(name, PACKBUF_NOWHERE, [&] { tensor = walk_.usual_tensor(column); });
    if (!tensor) return i;
    add_tensor(name, tensor);
  }
  return count;
}

void Batch::add_arrow(PyObject *table) {
  auto arrow = std::make_shared<Arrow>(table);
  count_rows("", arrow->rows());
  fields_.push_back({Field::arrow_fields, "", nullptr, {}, nullptr, arrow});
}

void Batch::add_values(const std::string &name, PyObject *sequence) {
  const bool list = PyList_Check(sequence);
  const auto count = static_cast<size_t>(list ? list_size(sequence) : tuple_size(sequence));
  std::vector<PyObject *> cells(count);
  count_rows(name, count);
  for (size_t i = 0; i < count; i++) {
    const auto at = static_cast<Py_ssize_t>(i);
    cells[i] = list ? list_item(sequence, at) : tuple_item(sequence, at);
    held_.add(cells[i]); // the list may change while an unusual cell is asked what it is
  }
  add_cells(name, cells);
}

// Cells that are held; NULL: the row does not have it.
void Batch::add_cells(const std::string &name, const std::vector<PyObject *> &cells) {
  if (add_run(name, cells)) return;
  auto *values = walk_.take<packbuf_value>(cells.size());
  for (size_t row = 0; row < cells.size(); row++) {
    if (!cells[row]) values[row] = packbuf_missing();
    else within(name, row, [&] { values[row] = walk_.value(cells[row]); });
  }
  note_times(name, values, cells.size(), false);
  fields_.push_back({Field::values_field, name, nullptr, {}, values});
}

// Present cells at a path of dict keys.
static uint64_t present_cells(const packbuf_value *value, const std::vector<std::string> &keys, size_t depth) {
  if (depth == keys.size()) return value->kind != PACKBUF_NULL && value->kind != PACKBUF_MISSING;
  if (value->kind != PACKBUF_DICT) return 0;
  for (size_t i = 0; i < value->as.dict.count; i++) {
    const packbuf_value &key = value->as.dict.entries[i].key;
    if (key.kind == PACKBUF_STRING &&
        keys[depth].compare(0, std::string::npos, key.as.text.data, key.as.text.size) == 0)
      return present_cells(&value->as.dict.entries[i].value, keys, depth + 1);
  }
  return 0;
}

// A column that held times becomes one of times, if it held nothing else.
void Batch::note_times(const std::string &name, const packbuf_value *values, uint64_t count, bool batch_value) {
  for (const Times &times : walk_.times()) {
    Wish wish;
    uint64_t present = 0;
    wish.path = escaped(name);
    for (const std::string &key : times.keys) wish.path += "." + escaped(key);
    for (uint64_t i = 0; i < count; i++) present += present_cells(&values[i], times.keys, 0);
    if (present != times.count)
      fail(PACKBUF_UNENCODABLE, "times beside other values in one column: their type would be lost", wish.path);
    wish.parameter = times.unit;
    wish.batch_value = batch_value;
    wishes_.push_back(wish);
  }
}

void Batch::add_ragged(const std::string &name, PyObject *items, PyObject *offsets, PyObject *lengths) {
  within(name, PACKBUF_NOWHERE, [&] {
    const auto array = [&](PyObject *object) {
      if (is_torch_tensor(object)) return walk_.torch_tensor(object);
      if (!is_numpy_array(object)) fail(PACKBUF_WRONG_TYPE, "ragged rows are arrays, not " + type_name(object));
      return walk_.numpy_array(object);
    };
    const packbuf_tensor *all = array(items);
    const auto integers = [&](PyObject *object) {
      const packbuf_tensor *tensor = array(object);
      if (tensor->rank != 1 || tensor->dtype.code != PACKBUF_DTYPE_INT || tensor->dtype.bits < 32 || tensor->strides)
        fail(PACKBUF_WRONG_TYPE, "offsets and lengths are contiguous arrays of int32 or int64");
      return tensor;
    };
    const packbuf_tensor *starts = integers(offsets), *sizes = lengths == Py_None ? nullptr : integers(lengths);
    if (all->rank == 0 || all->strides) fail(PACKBUF_WRONG_TYPE, "the items of ragged rows are one contiguous array");
    if (sizes && sizes->dtype.bits != starts->dtype.bits)
      fail(PACKBUF_WRONG_TYPE, "offsets and lengths have one dtype");
    Field field{Field::ragged_field, name, nullptr, {}, nullptr};
    packbuf_ragged &ragged = field.ragged;
    ragged.data = all->data;
    ragged.dtype = all->dtype;
    ragged.form = all->form;
    ragged.item_rank = static_cast<uint8_t>(all->rank - 1);
    ragged.item_shape = all->shape + 1;
    ragged.items = all->shape[0];
    ragged.offset_bits = starts->dtype.bits;
    const uint64_t rows = sizes ? sizes->shape[0] : starts->shape[0] - 1;
    if (starts->shape[0] < rows || (!sizes && starts->shape[0] == 0))
      fail(PACKBUF_ROW_COUNT, "there is one offset more than rows, or as many lengths as offsets");
    // Another thread may change them after they were found to be good, and they say where memory is read: a copy.
    const auto copy = [&](const packbuf_tensor *from) {
      const size_t bytes = static_cast<size_t>(from->shape[0]) * (from->dtype.bits / 8u);
      return memcpy(walk_.take<uint8_t>(bytes), from->data, bytes);
    };
    ragged.offsets = copy(starts);
    ragged.lengths = sizes ? copy(sizes) : nullptr;
    count_rows("", rows);
    fields_.push_back(field);
  });
}

void Batch::add_batch_value(const std::string &name, PyObject *value) {
  packbuf_value walked{};
  within(name, PACKBUF_NOWHERE, [&] { walked = walk_.value(value); });
  note_times(name, &walked, 1, true);
  values_.emplace_back(name, walked);
}

void Batch::add_metadata(std::optional<std::string> path, std::string key, std::string text) {
  pairs_.push_back({std::move(path), std::move(key), std::move(text)});
}

// ---- the C batch ----

packbuf_status Batch::add_to_batch(const Field &field, packbuf_error *error) {
  switch (field.kind) {
    case Field::tensor_field: return packbuf_add_tensor(&batch_, field.name.c_str(), field.tensor, nullptr, error);
    case Field::ragged_field: return packbuf_add_ragged(&batch_, field.name.c_str(), &field.ragged, error);
    case Field::arrow_field:
      return packbuf_arrow_add(&batch_, field.name.c_str(), field.arrow->schema(), field.arrow->chunks(),
                               field.arrow->count(), error);
    case Field::arrow_fields:
      return packbuf_arrow_import(&batch_, field.arrow->schema(), field.arrow->chunks(), field.arrow->count(), error);
    case Field::values_field: break;
  }
  return packbuf_add_values(&batch_, field.name.c_str(), field.values, error);
}

void Batch::begin() {
  packbuf_error error;
  for (const Wish &wish : wishes_) {
    packbuf_schema schema;
    memset(&schema, 0, sizeof schema);
    schema.path = c_text(wish.path, "a path");
    schema.codec = static_cast<packbuf_codec>(wish.codec);
    if (!wish.dtype.empty() && !packbuf_dtype_parse(wish.dtype.c_str(), &schema.dtype))
      fail(PACKBUF_UNSUPPORTED_DTYPE,
           "there is no dtype " + wish.dtype + ": they are named as float32, int64, bool, bfloat16", wish.path);
    schema.flags = wish.flags;
    schema.packing = static_cast<uint8_t>(wish.packing);
    schema.batch_value = wish.batch_value;
    if (!wish.parameter.empty()) {
      schema.logical_type = 1;
      schema.parameter = wish.parameter.c_str();
    }
    schemas_.push_back(schema);
  }
  options_.schemas = schemas_.data();
  options_.schema_count = schemas_.size();
  check(packbuf_batch_init(&batch_, rows_.value_or(0), arena_.get(), &options_, &error), error);
  for (const Field &field : fields_) {
    c_text(field.name, "a field's name");
    check(add_to_batch(field, &error), error);
  }
  for (const auto &[name, value] : values_)
    check(packbuf_add_batch_value(&batch_, c_text(name, "a batch value's name"), &value, &error), error);
  for (const Pair &pair : pairs_)
    check(packbuf_add_metadata(&batch_, pair.path ? c_text(*pair.path, "a path") : nullptr, c_text(pair.key, "a key"),
                               c_text(pair.text, "metadata"), &error),
          error);
  begun_ = true;
}

uint64_t Batch::measure() {
  packbuf_error error;
  if (!begun_) begin();
  check(unlocked([&] { return packbuf_measure(&batch_, &size_, &error); }), error);
  return size_;
}

uint64_t Batch::write(void *dst, uint64_t capacity, unsigned threads) {
  packbuf_error error;
  packbuf_status status;
  uint64_t size = 0;
  {
    Unlocked unlocked(size_ > 16384);
    status = threads > 1 ? packbuf_write_threads(&batch_, dst, capacity, threads, &size, &error)
                         : packbuf_write(&batch_, dst, capacity, &size, &error);
  }
  check(status, error);
  return size;
}

std::unique_ptr<Packed> Batch::pack(unsigned threads) {
  auto packed = std::make_unique<Packed>(measure());
  packed->shrink(write(packed->data(), packed->size(), threads));
  return packed;
}

} // namespace packbuf_py
