// src/walk.h: Python values as packbuf_value, in an arena, without anything in between.
// May use: packbuf.h, held.h, numbers.h, failure.h. Must not know: batches and fields.
#pragma once

#include "failure.h"
#include "held.h"
#include "numbers.h"

#include <array>
#include <deque>
#include <string>
#include <vector>

namespace packbuf_py {

// Deepest value that is walked; the C core refuses what its own limits do not hold.
constexpr unsigned max_depth = 600;

// Times met at one path of a column: they are integers with a logical type, which a column has as a whole.
struct Times {
  std::vector<std::string> keys; // of the dicts above, from the column on
  std::string unit;
  uint64_t count;
};

class Walk {
 public:
  // stand_in: called for what would be refused or come back as something else; nullptr: there is none. Borrowed.
  // kinds_only: for inference, to which most numbers are all the same: of a long list it gets one, or equal ones.
  Walk(packbuf_arena *arena, Held *held, bool allow_pickle, PyObject *stand_in = nullptr, bool kinds_only = false);
  Walk(const Walk &) = delete;
  Walk &operator=(const Walk &) = delete;

  // A cell. Failures have the path below it.
  packbuf_value value(PyObject *object);
  // Times met since the last call, each path once.
  std::vector<Times> times();
  // Whether numbers were left out of a value, or of what is in it.
  bool left_out(const packbuf_value &value) const;

  template <class T>
  T *take(size_t count) {
    void *memory = packbuf_arena_alloc(arena_, count * sizeof(T), alignof(T));
    if (!memory) fail(PACKBUF_OUT_OF_MEMORY, "no memory for the values");
    return static_cast<T *>(memory);
  }
  Held &held() { return *held_; }
  packbuf_arena *arena() { return arena_; }

  // An array (numpy.cpp) or tensor (torch.cpp) as a strided description whose memory is held.
  packbuf_tensor *numpy_array(PyObject *array);
  packbuf_tensor *torch_tensor(PyObject *tensor);
  packbuf_tensor *usual_tensor(PyObject *object); // of torch's; nullptr: it is something else, or an unusual one
  // The unit of a datetime64 dtype, such as "us"; empty when it is another.
  static std::string numpy_unit(PyObject *array_or_scalar);

 private:
  struct Step {    // of the path, from the cell down
    PyObject *key; // nullptr: an index
    Py_ssize_t index;
  };
  static constexpr size_t most_keys = 512;
  struct Key { // a text, held
    PyObject *object;
    Py_hash_t hash;
    const char *text;
    size_t size;
  };

  // A list that is looked at when all else has been.
  struct Later {
    PyObject *list;
    packbuf_value *out;
    unsigned depth;
    bool whole; // its length counts
  };
  static constexpr Py_ssize_t least_postponed = 32; // items
  static constexpr unsigned most_rounds = 3;        // of lists within lists

  static void sort_by_address(std::vector<Later> &lists);
  bool put_kinds(PyObject *object, packbuf_value *out);
  void put_later();
  bool put_texts(PyObject *list, packbuf_value *out);
  void put(PyObject *object, packbuf_value *out, unsigned depth);
  void put_integer(PyObject *number, packbuf_value *out);
  void put_big_integer(PyObject *number, packbuf_value *out);
  void put_text(PyObject *text, packbuf_value *out);
  void put_list(PyObject *list, packbuf_value *out, unsigned depth);
  void put_items(PyObject *list, packbuf_value *out, unsigned depth);
  const packbuf_value *alike(Numbers numbers, size_t count);
  void put_tuple(PyObject *tuple, packbuf_value *out, unsigned depth);
  void put_dict(PyObject *dict, packbuf_value *out, unsigned depth);
  PyObject *put_key(PyObject *key, packbuf_value *out);
  void put_odd_key(PyObject *key, packbuf_value *out);
  void put_other(PyObject *object, packbuf_value *out, unsigned depth);
  bool put_numpy(PyObject *object, packbuf_value *out, unsigned depth);
  bool put_plugin(PyObject *object, packbuf_value *out, unsigned depth);
  void put_instead(PyObject *object, packbuf_value *out, unsigned depth);
  void put_tensor(PyObject *tensor, packbuf_value *out, unsigned depth);
  void put_buffer(PyObject *object, packbuf_value *out);
  void put_media(PyObject *fields, packbuf_value *out);
  void put_time(PyObject *pair, packbuf_value *out);
  void put_word(PyObject *object, packbuf_value *out);
  void put_opaque(PyObject *serializer, PyObject *bytes, packbuf_value *out);
  void note_time(const std::string &unit);
  void enter(PyObject *container, unsigned depth);
  std::string path(size_t steps) const;

  packbuf_arena *arena_;
  Held *held_;
  bool allow_pickle_, kinds_only_;
  bool postpones_ = false;
  std::vector<Later> later_;
  std::deque<std::vector<packbuf_value>> alike_[3]; // by Numbers: the longest last
  PyObject *stand_in_;
  Ref plugin_; // packbuf._plugin.describe: what is neither built in nor numpy's
  std::vector<Key> keys_; // by hash, from the first dict on
  std::array<PyObject *, max_depth + 1> above_; // the containers around a value
  std::array<Step, max_depth + 1> steps_;
  size_t depth_ = 0;   // of the value that is being put
  unsigned asked_ = 0; // stand-ins around it
  std::vector<Times> times_;
};

// Whether an object is a numpy array; a torch tensor (false while torch is not imported).
bool is_numpy_array(PyObject *object);
bool has_no_dtype(PyObject *array);     // one of text or objects: its cells become lists
bool is_usual_array(PyObject *object); // of numpy's own class, and with a dtype
bool is_torch_tensor(PyObject *object);

} // namespace packbuf_py
