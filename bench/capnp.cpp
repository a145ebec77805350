/* bench/capnp.cpp: Cap'n Proto for bench/messages.h, which is C: a message whose root is a list of 64-bit words.
 * May use: capnp. Must not know: the rest of the benchmark. */
#include <capnp/any.h>
#include <capnp/message.h>
#include <capnp/serialize-packed.h>
#include <capnp/serialize.h>

#include <cstring>

extern "C" size_t bench_capnp_write(const void *words, size_t count, int packed, void *to, size_t room) {
  capnp::MallocMessageBuilder message(static_cast<capnp::uint>(count + 8)); /* one segment */
  auto list = message.getRoot<capnp::AnyPointer>().initAs<capnp::List<int64_t>>(static_cast<capnp::uint>(count));
  const char *from = static_cast<const char *>(words);
  for (capnp::uint i = 0; i < count; i++) {
    int64_t value;
    std::memcpy(&value, from + 8 * size_t(i), 8);
    list.set(i, value);
  }
  try {
    kj::ArrayOutputStream out(kj::arrayPtr(static_cast<kj::byte *>(to), room));
    if (packed) {
      capnp::writePackedMessage(out, message);
    } else {
      capnp::writeMessage(out, message);
    }
    return out.getArray().size();
  } catch (const kj::Exception &) {
    return 0;
  }
}

static size_t read_list(capnp::MessageReader &reader, void *words, size_t count) {
  auto list = reader.getRoot<capnp::AnyPointer>().getAs<capnp::List<int64_t>>();
  char *to = static_cast<char *>(words);
  if (list.size() != count) return 0;
  for (capnp::uint i = 0; i < count; i++) {
    const int64_t value = list[i];
    std::memcpy(to + 8 * size_t(i), &value, 8);
  }
  return count;
}

extern "C" size_t bench_capnp_read(const void *from, size_t size, int packed, void *words, size_t count) {
  try {
    if (packed) {
      kj::ArrayInputStream in(kj::arrayPtr(static_cast<const kj::byte *>(from), size));
      capnp::PackedMessageReader reader(in);
      return read_list(reader, words, count);
    }
    capnp::FlatArrayMessageReader reader(kj::arrayPtr(static_cast<const capnp::word *>(from), size / sizeof(capnp::word)));
    return read_list(reader, words, count);
  } catch (const kj::Exception &) {
    return 0;
  }
}
