// src/walk.cpp: the walk over lists, dicts and what is in them. Python code can run while an unusual object is asked
// what it is, and change the containers above it: sizes are looked at again for every item, and what is being walked is
// held.
// May use: walk.h. Must not know: batches and fields.
#include "walk.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace packbuf_py {

Walk::Walk(packbuf_arena *arena, Held *held, bool allow_pickle, PyObject *stand_in, bool kinds_only)
    : arena_(arena), held_(held), allow_pickle_(allow_pickle), kinds_only_(kinds_only), stand_in_(stand_in) {}

packbuf_value Walk::value(PyObject *object) {
  packbuf_value out;
  depth_ = 0;
  asked_ = 0;
  if (kinds_only_ && put_kinds(object, &out)) return out;
  try {
    put(object, &out, 0);
  } catch (Failure &failure) {
    failure.path = path(depth_) + failure.path;
    throw;
  } catch (const PythonError &) {
    Failure failure = caught();
    failure.path = path(depth_);
    throw failure;
  }
  return out;
}

// Long lists are looked at last. false: something is refused, and the walk in its order will say what comes first.
bool Walk::put_kinds(PyObject *object, packbuf_value *out) {
  try {
    postpones_ = true;
    put(object, out, 0);
    put_later();
    return true;
  } catch (const Failure &) {
  } catch (const PythonError &) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) throw;
    PyErr_Clear();
  }
  postpones_ = false;
  later_.clear();
  times_.clear();
  asked_ = 0;
  return false;
}

std::vector<Times> Walk::times() {
  std::vector<Times> times;
  times.swap(times_);
  return times;
}

std::string Walk::path(size_t steps) const {
  std::string text;
  for (size_t i = 0; i < steps; i++) {
    if (!steps_[i].key) {
      text += "[" + std::to_string(steps_[i].index) + "]";
      continue;
    }
    Ref shown = Ref::take(PyObject_Str(steps_[i].key));
    Py_ssize_t size = 0;
    const char *name = shown ? PyUnicode_AsUTF8AndSize(shown.get(), &size) : nullptr;
    if (!name) { // a lone surrogate
      PyErr_Clear();
      shown = Ref::take(PyObject_ASCII(steps_[i].key));
      name = shown ? PyUnicode_AsUTF8AndSize(shown.get(), &size) : nullptr;
      if (!name) PyErr_Clear();
    }
    text += '.';
    for (Py_ssize_t k = 0; name && k < size; k++) {
      if (name[k] == '.' || name[k] == '[' || name[k] == '\\') text += '\\';
      text += name[k];
    }
  }
  return text;
}

// The fields one by one: a value that is made elsewhere and copied waits for its own bytes.
static void set_list(packbuf_value *out, const packbuf_value *items, size_t count) {
  out->kind = PACKBUF_LIST;
  out->as.list.items = items;
  out->as.list.count = count;
}

static void set_dict(packbuf_value *out, const packbuf_entry *entries, size_t count) {
  out->kind = PACKBUF_DICT;
  out->as.dict.entries = entries;
  out->as.dict.count = count;
}

inline void Walk::put_integer(PyObject *number, packbuf_value *out) {
  int64_t small;
  if (small_int(number, &small)) {
    out->kind = PACKBUF_INT;
    out->as.i = small;
    return;
  }
  put_big_integer(number, out);
}

// Beyond one digit; beyond 64 bits as decimal text, which packbuf._plugin makes: str() refuses more than 4300 digits.
void Walk::put_big_integer(PyObject *number, packbuf_value *out) {
  int overflow;
  const long long signed_value = PyLong_AsLongLongAndOverflow(number, &overflow);
  if (!overflow) {
    if (signed_value == -1 && PyErr_Occurred()) throw PythonError{};
    *out = packbuf_int(signed_value);
    return;
  }
  if (overflow > 0) {
    const unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (value != static_cast<unsigned long long>(-1) || !PyErr_Occurred()) {
      *out = packbuf_uint(value);
      return;
    }
    PyErr_Clear();
  }
  const Ref module = Ref::take(must(PyImport_ImportModule("packbuf._plugin")));
  PyObject *text = must(PyObject_CallMethod(module.get(), "decimal", "O", number));
  held_->take(text);
  put_text(text, out);
  out->kind = PACKBUF_BIGINT;
}

inline void Walk::put_text(PyObject *text, packbuf_value *out) {
  Py_ssize_t size;
  const char *data = text_of(text, &size);
  if (!data) {
    PyErr_Clear();
    fail(PACKBUF_BAD_UTF8, "a lone surrogate is no text");
  }
  out->kind = PACKBUF_STRING;
  out->as.text.data = data;
  out->as.text.size = static_cast<size_t>(size);
}

void Walk::put(PyObject *object, packbuf_value *out, unsigned depth) {
  PyTypeObject *type = Py_TYPE(object);
  if (type == &PyLong_Type) {
    put_integer(object, out);
  } else if (type == &PyFloat_Type) {
    out->kind = PACKBUF_FLOAT;
    out->as.f = float_value(object);
  } else if (type == &PyUnicode_Type) {
    put_text(object, out);
    held_->add(object);
  } else if (type == &PyList_Type) {
    put_list(object, out, depth);
  } else if (type == &PyDict_Type) {
    put_dict(object, out, depth);
  } else if (object == Py_None) {
    *out = packbuf_null();
  } else if (type == &PyBool_Type) {
    *out = packbuf_bool(object == Py_True);
  } else {
    put_other(object, out, depth);
  }
}

// Before the items of a container: a value that contains itself would never end.
void Walk::enter(PyObject *container, unsigned depth) {
  if (depth >= max_depth) fail(PACKBUF_DEPTH, "nested too deeply");
  above_[depth] = container;
  if (depth < 33) return;
  for (unsigned i = 0; i < depth; i++)
    if (above_[i] == container) fail(PACKBUF_DEPTH, "the value contains itself");
}

// Items that inference cannot tell from `count` of a list: of integers of one digit it only asks for a sign, of finite
// floats for nothing. nullptr: it could.
const packbuf_value *Walk::alike(Numbers numbers, size_t count) {
  if (numbers == Numbers::others) return nullptr;
  const packbuf_value one = numbers == Numbers::floats ? packbuf_float(0)
                                                       : packbuf_int(numbers == Numbers::some_negative ? -1 : 0);
  std::deque<std::vector<packbuf_value>> &made = alike_[static_cast<size_t>(numbers)];
  if (made.empty() || made.back().size() < count) made.emplace_back(count * 2, one);
  return made.back().data();
}

bool Walk::left_out(const packbuf_value &value) const {
  const packbuf_value *items = value.as.list.items;
  if (value.kind == PACKBUF_DICT) {
    const packbuf_entry *entries = value.as.dict.entries;
    return std::any_of(entries, entries + value.as.dict.count,
                       [&](const packbuf_entry &entry) { return left_out(entry.value); });
  }
  if (value.kind != PACKBUF_LIST) return false;
  for (const auto &kind : alike_)
    for (const std::vector<packbuf_value> &made : kind)
      if (made.data() == items) return true;
  return std::any_of(items, items + value.as.list.count, [&](const packbuf_value &item) { return left_out(item); });
}

// Sorted by where the lists lie, eleven bits of the address at a time, from the lowest up; within 64 bytes, and beyond
// 2^50, the order does not matter.
void Walk::sort_by_address(std::vector<Later> &lists) {
  std::vector<Later> sorted(lists.size());
  for (unsigned shift = 6; shift < 50 && lists.size() > 64; shift += 11) {
    const auto digit = [&](const Later &later) { return reinterpret_cast<uint64_t>(later.list) >> shift & 2047; };
    std::array<size_t, 2048> at{};
    for (const Later &later : lists) at[digit(later)]++;
    if (at[digit(lists[0])] == lists.size()) continue;
    size_t before = 0;
    for (size_t &begin : at) before += std::exchange(begin, before);
    for (const Later &later : lists) sorted[at[digit(later)]++] = later;
    lists.swap(sorted);
  }
}

// The long lists that were put off, in the order in which memory has them: in a batch of rows the cells of a column
// mostly lie one after the other, and those of a row far apart. What lies deeper than some lists in lists is not put
// off again: a value that contains itself would be more lists each time, where the walk in its order meets itself at
// once.
void Walk::put_later() {
  for (unsigned round = 0; !later_.empty(); round++) {
    std::vector<Later> lists;
    lists.swap(later_);
    sort_by_address(lists);
    postpones_ = round < most_rounds;
    const Later *before = nullptr;
    for (const Later &later : lists) {
      const auto count = later.whole ? static_cast<size_t>(list_size(later.list)) : 1;
      if (before && before->list == later.list && before->depth == later.depth && before->whole == later.whole)
        *later.out = *before->out;
      else if (later.depth == 0 && put_texts(later.list, later.out)) continue; // it is the only one
      else if (const packbuf_value *items = alike(numbers_of(later.list), count)) set_list(later.out, items, count);
      else put_items(later.list, later.out, later.depth);
      before = &later;
    }
  }
}

// A column of texts and None, which inference cannot tell from one of empty texts and None. false: it is none.
bool Walk::put_texts(PyObject *list, packbuf_value *out) {
  if (!are_texts(list)) return false;
  const auto count = static_cast<size_t>(list_size(list));
  auto *items = take<packbuf_value>(count);
  for (size_t i = 0; i < count; i++) {
    items[i].kind = list_item(list, static_cast<Py_ssize_t>(i)) == Py_None ? PACKBUF_NULL : PACKBUF_STRING;
    items[i].as.text.data = "";
    items[i].as.text.size = 0;
  }
  set_list(out, items, count);
  return true;
}

void Walk::put_list(PyObject *list, packbuf_value *out, unsigned depth) {
  if (!postpones_ || list_size(list) < least_postponed) return put_items(list, out, depth);
  // the length counts of the column itself, and of a list in a cell's list
  later_.push_back({list, out, depth, depth == 0 || (depth > 1 && !steps_[depth - 1].key)});
  held_->add(list);
}

void Walk::put_items(PyObject *list, packbuf_value *out, unsigned depth) {
  const Py_ssize_t count = list_size(list);
  auto *items = take<packbuf_value>(static_cast<size_t>(count));
  enter(list, depth);
  const Ref hold = Ref::borrow(list);
  Step &step = steps_[depth];
  step.key = nullptr;
  for (Py_ssize_t i = 0; i < count; i++) {
    if (i >= list_size(list)) fail(PACKBUF_INVALID_ARGUMENT, "a list changed while it was packed");
    PyObject *item = list_item(list, i);
    PyTypeObject *type = Py_TYPE(item);
    load_ahead(list, i, list_size(list));
    if (type == &PyLong_Type && small_int(item, &items[i].as.i)) {
      items[i].kind = PACKBUF_INT;
    } else if (type == &PyFloat_Type) {
      items[i].kind = PACKBUF_FLOAT;
      items[i].as.f = float_value(item);
    } else {
      step.index = i;
      depth_ = depth + 1;
      put(item, &items[i], depth + 1);
    }
  }
  depth_ = depth;
  set_list(out, items, static_cast<size_t>(count));
}

void Walk::put_tuple(PyObject *tuple, packbuf_value *out, unsigned depth) {
  const Py_ssize_t count = tuple_size(tuple);
  auto *items = take<packbuf_value>(static_cast<size_t>(count));
  enter(tuple, depth);
  const Ref hold = Ref::borrow(tuple);
  steps_[depth].key = nullptr;
  for (Py_ssize_t i = 0; i < count; i++) {
    steps_[depth].index = i;
    depth_ = depth + 1;
    put(tuple_item(tuple, i), &items[i], depth + 1);
  }
  depth_ = depth;
  set_list(out, items, static_cast<size_t>(count));
}

// Text keys repeat from row to row, as the same object or, in rows of JSON, as an equal one: all get the bytes of the
// first, which the core then need not compare. Returns the key, or the first that is equal: it is held, for the path of
// what lies below, whatever becomes of the dict.
PyObject *Walk::put_key(PyObject *key, packbuf_value *out) {
  if (!PyUnicode_CheckExact(key)) {
    held_->add(key);
    put_odd_key(key, out);
    return key;
  }
  const Py_hash_t hash = text_hash(key);
  Key &known = keys_[static_cast<size_t>(hash) % most_keys];
  if (known.object != key) {
    Py_ssize_t size = 0;
    const char *text = known.object && known.hash == hash ? text_of(key, &size) : nullptr;
    if (!text) PyErr_Clear();
    if (!text || static_cast<size_t>(size) != known.size || memcmp(text, known.text, known.size) != 0) {
      held_->add(key);
      put_text(key, out);
      known = {key, hash, out->as.text.data, out->as.text.size};
      return key;
    }
  }
  out->kind = PACKBUF_STRING;
  out->as.text.data = known.text;
  out->as.text.size = known.size;
  return known.object;
}

void Walk::put_odd_key(PyObject *key, packbuf_value *out) {
  if (PyUnicode_Check(key)) put_text(key, out);
  else if (PyLong_Check(key) && !PyBool_Check(key)) put_integer(key, out);
  else if (key == Py_None) *out = packbuf_null();
  else if (PyBool_Check(key)) *out = packbuf_bool(key == Py_True);
  else if (PyFloat_Check(key)) *out = packbuf_float(PyFloat_AsDouble(key));
  else if (PyBytes_Check(key)) *out = packbuf_bytes(bytes_data(key), static_cast<size_t>(bytes_size(key)));
  else fail(PACKBUF_UNENCODABLE, "a dict key is " + type_name(key) + ": keys are str, int, float, bool, bytes or None");
}

void Walk::put_dict(PyObject *dict, packbuf_value *out, unsigned depth) {
  if (keys_.empty()) keys_.resize(most_keys);
  const Py_ssize_t count = dict_size(dict);
  auto *entries = take<packbuf_entry>(static_cast<size_t>(count));
  enter(dict, depth);
  const Ref hold = Ref::borrow(dict);
  PyObject *key, *item;
  Py_ssize_t position = 0, i = 0;
  for (; i < count && PyDict_Next(dict, &position, &key, &item); i++) {
    const Ref hold_item = PyUnicode_CheckExact(key) ? Ref() : Ref::borrow(item); // odd keys may run Python code
    steps_[depth].key = key;
    depth_ = depth + 1;
    steps_[depth].key = put_key(key, &entries[i].key);
    put(item, &entries[i].value, depth + 1);
  }
  if (i != count || i != dict_size(dict)) fail(PACKBUF_INVALID_ARGUMENT, "a dict changed while it was packed");
  depth_ = depth;
  set_dict(out, entries, static_cast<size_t>(count));
}

void Walk::put_buffer(PyObject *object, packbuf_value *out) {
  const Py_buffer *buffer = held_->buffer(object, PyBUF_SIMPLE);
  if (!buffer) {
    PyErr_Clear();
    fail(PACKBUF_UNENCODABLE, "the memory of a bytes-like is not contiguous");
  }
  *out = packbuf_bytes(buffer->buf, static_cast<size_t>(buffer->len));
}

// Subclasses of the built-in types count as these (spec, section 16): not numpy's scalars, which some of them are.
void Walk::put_other(PyObject *object, packbuf_value *out, unsigned depth) {
  const Ref hold = Ref::borrow(object);
  if (PyBytes_CheckExact(object)) {
    held_->add(object);
    *out = packbuf_bytes(bytes_data(object), static_cast<size_t>(bytes_size(object)));
    return;
  }
  if (PyTuple_CheckExact(object)) return put_tuple(object, out, depth);
  if (is_torch_tensor(object)) return put_tensor(object, out, depth);
  if (put_numpy(object, out, depth)) return;
  if (PyUnicode_Check(object)) {
    put_text(object, out);
    held_->add(object);
  } else if (PyLong_Check(object)) {
    put_integer(object, out);
  } else if (PyFloat_Check(object)) {
    *out = packbuf_float(PyFloat_AsDouble(object));
  } else if (PyList_Check(object)) {
    put_list(object, out, depth);
  } else if (PyDict_Check(object)) {
    put_dict(object, out, depth);
  } else if (PyBytes_Check(object) || PyByteArray_Check(object)) {
    put_buffer(object, out);
  } else if (!put_plugin(object, out, depth)) {
    if (PyTuple_Check(object)) return put_tuple(object, out, depth);
    fail(PACKBUF_UNENCODABLE, type_name(object) + " is no value that packbuf has");
  }
}

// A tensor that is refused (nested, sparse) may have a stand-in.
void Walk::put_tensor(PyObject *tensor, packbuf_value *out, unsigned depth) {
  try {
    *out = packbuf_tensor_value(torch_tensor(tensor));
  } catch (const PythonError &) {
    if (!stand_in_) throw;
    const Failure refused = caught();
    if (!put_plugin(tensor, out, depth)) throw refused;
  }
}

// With the words of packbuf._plugin, in which names of types are the caller's.
[[noreturn]] static void refuse(PyObject *words) {
  const char *text = PyUnicode_AsUTF8AndSize(words, nullptr);
  PyErr_Clear(); // a lone surrogate
  fail(PACKBUF_UNENCODABLE, text ? text : "no value that packbuf has");
}

// packbuf._plugin.describe(object, allow_pickle, stand_in) says in (word, ...) what an unusual object is; None: nothing
// known.
bool Walk::put_plugin(PyObject *object, packbuf_value *out, unsigned depth) {
  if (!plugin_) {
    const Ref module = Ref::take(must(PyImport_ImportModule("packbuf._plugin")));
    plugin_ = Ref::take(must(PyObject_GetAttrString(module.get(), "describe")));
  }
  const Ref told = Ref::take(must(PyObject_CallFunctionObjArgs(
      plugin_.get(), object, allow_pickle_ ? Py_True : Py_False, stand_in_ ? stand_in_ : Py_None, nullptr)));
  if (told.get() == Py_None) return false;
  held_->add(told.get());
  const char *word = must(tuple_item(told.get(), 0)) ? PyUnicode_AsUTF8AndSize(tuple_item(told.get(), 0), nullptr) : "";
  PyObject *what = tuple_size(told.get()) > 1 ? tuple_item(told.get(), 1) : nullptr;
  if (!strcmp(word, "buffer")) put_buffer(what, out);
  else if (!strcmp(word, "value")) put_instead(what, out, depth);
  else if (!strcmp(word, "complex")) put_numpy(what, out, depth);
  else if (!strcmp(word, "media")) put_media(told.get(), out);
  else if (!strcmp(word, "time")) put_time(told.get(), out);
  else if (!strcmp(word, "opaque")) put_opaque(what, tuple_item(told.get(), 2), out);
  else refuse(what);
  return true;
}

// What stands in for a value. One that only says to be of a type that stands in would be asked about for ever.
void Walk::put_instead(PyObject *object, packbuf_value *out, unsigned depth) {
  if (++asked_ > max_depth) fail(PACKBUF_DEPTH, "what default() returned is no value either, again and again");
  put(object, out, depth);
  asked_--;
}

// Text that a caller put where only text may be.
void Walk::put_word(PyObject *object, packbuf_value *out) {
  if (!PyUnicode_Check(object)) fail(PACKBUF_WRONG_TYPE, "a str is wanted, not " + type_name(object));
  held_->add(object);
  put_text(object, out);
}

void Walk::put_opaque(PyObject *serializer, PyObject *bytes, packbuf_value *out) {
  auto *opaque = take<packbuf_opaque>(1);
  packbuf_value name, body;
  put_word(serializer, &name);
  put_buffer(bytes, &body);
  opaque->data = body.as.text.data;
  opaque->size = body.as.text.size;
  opaque->serializer = name.as.text.data;
  opaque->serializer_size = name.as.text.size;
  *out = packbuf_opaque_value(opaque);
}

// ("media", data, mime, mode, height, width, channels, rate), each but the data maybe None.
void Walk::put_media(PyObject *fields, packbuf_value *out) {
  auto *media = take<packbuf_media>(1);
  packbuf_value body;
  put_buffer(tuple_item(fields, 1), &body);
  *media = packbuf_media_of(body.as.text.data, body.as.text.size, nullptr);
  const auto text = [&](Py_ssize_t i, const char **data, size_t *size) {
    PyObject *object = tuple_item(fields, i);
    if (object == Py_None) return;
    packbuf_value value;
    put_word(object, &value);
    *data = value.as.text.data;
    *size = value.as.text.size;
  };
  const auto number = [&](Py_ssize_t i, int64_t *to) {
    PyObject *object = tuple_item(fields, i);
    if (object == Py_None) return;
    *to = PyLong_AsLongLong(object);
    if (*to < 0) {
      PyErr_Clear();
      fail(PACKBUF_INVALID_ARGUMENT, "height, width and channels of media are from 0 to 2^63 - 1");
    }
  };
  text(2, &media->mime, &media->mime_size);
  text(3, &media->mode, &media->mode_size);
  number(4, &media->height);
  number(5, &media->width);
  number(6, &media->channels);
  if (tuple_item(fields, 7) != Py_None) {
    media->rate = PyFloat_AsDouble(tuple_item(fields, 7));
    media->has_rate = 1;
    if (PyErr_Occurred()) throw PythonError{};
  }
  *out = packbuf_media_value(media);
}

// ("time", integer, unit)
void Walk::put_time(PyObject *pair, packbuf_value *out) {
  *out = packbuf_int(PyLong_AsLongLong(tuple_item(pair, 1)));
  if (PyErr_Occurred()) throw PythonError{};
  note_time(PyUnicode_AsUTF8AndSize(tuple_item(pair, 2), nullptr));
}

void Walk::note_time(const std::string &unit) {
  std::vector<std::string> keys;
  for (size_t i = 0; i < depth_; i++) {
    Py_ssize_t size = 0;
    const char *name =
        steps_[i].key && PyUnicode_Check(steps_[i].key) ? PyUnicode_AsUTF8AndSize(steps_[i].key, &size) : nullptr;
    if (!name) fail(PACKBUF_UNENCODABLE, "a time within a list: times are kept as a column of their own");
    keys.emplace_back(name, static_cast<size_t>(size));
  }
  for (Times &times : times_) {
    if (times.keys != keys) continue;
    if (times.unit != unit)
      fail(PACKBUF_UNENCODABLE, "times of two units (" + times.unit + ", " + unit + ") in one column");
    times.count++;
    return;
  }
  times_.push_back({keys, unit, 1});
}

} // namespace packbuf_py
