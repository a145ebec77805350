// src/view.cpp: opening, and finding nodes.
// May use: view.h. Must not know: how a batch is built.
#include "view.h"

namespace packbuf_py {

View::View(PyObject *buffer, unsigned flags, const packbuf_limits &limits, Manner manner) : manner_(manner) {
  packbuf_error error;
  if (!exported_.open(buffer, PyBUF_SIMPLE)) throw PythonError{};
  check(packbuf_open(&view_, exported_.view().buf, static_cast<uint64_t>(exported_.view().len), flags, &limits, &error),
        error);
  look_at_all();
}

View::View(PyObject *head, PyObject *memory, const std::vector<std::pair<uint64_t, uint64_t>> &ranges,
           const packbuf_limits &limits, Manner manner)
    : manner_(manner) {
  packbuf_error error;
  uint64_t at = 0;
  if (!exported_.open(head, PyBUF_SIMPLE)) throw PythonError{};
  if (memory != Py_None && !ranges_.open(memory, PyBUF_SIMPLE)) throw PythonError{};
  const uint64_t room = memory == Py_None ? 0 : static_cast<uint64_t>(ranges_.view().len);
  for (const auto &[offset, length] : ranges) {
    if (length > room - at)
      fail(PACKBUF_SHORT_READ, "the ranges have more bytes than the memory they are said to lie in");
    fetched_.push_back({offset, length, static_cast<const uint8_t *>(ranges_.view().buf) + at});
    at += length;
  }
  check(packbuf_open_partial(&view_, exported_.view().buf, static_cast<uint64_t>(exported_.view().len), fetched_.data(),
                             fetched_.size(), 0, &limits, &error),
        error);
  look_at_all();
}

View::View(PyObject *owner, const packbuf_view &opened, Manner manner) : view_(opened), manner_(manner) {
  if (!exported_.open(owner, PyBUF_SIMPLE)) throw PythonError{};
  look_at_all();
}

void View::look_at_all() {
  for (uint32_t index = 0; index < view_.node_count;) {
    packbuf_node top;
    if (packbuf_get_node(&view_, index, &top, nullptr) != PACKBUF_OK) break; // reading it will say so
    Shown child = look(index, &index);
    Shown &scope = shown_[top.scope == 1];
    scope.special |= child.special;
    scope.children.emplace_back(top.name.data, std::move(child));
  }
}

// The subtree at an index, and where the next begins. The records are looked at as far as they are sound.
Shown View::look(uint32_t index, uint32_t *next) const {
  Shown shown;
  packbuf_node node;
  *next = view_.node_count;
  if (packbuf_get_node(&view_, index, &node, nullptr) != PACKBUF_OK) return shown;
  if (node.kind == PACKBUF_LEAF) {
    if (node.logical_type == 1) shown.unit.assign(node.parameter.data, node.parameter.size);
    shown.plain_scalar = node.codec == PACKBUF_CODEC_NDARRAY && node.rank == 0 && node.form == PACKBUF_FORM_ARRAY;
    shown.special = shown.plain_scalar || !shown.unit.empty();
    if (node.descendants < view_.node_count - index) *next = index + 1 + node.descendants; // attributes of media
    return shown;
  }
  uint32_t child = index + 1;
  const uint64_t end = static_cast<uint64_t>(index) + 1 + node.descendants;
  while (child < end && child < view_.node_count) {
    packbuf_node below;
    if (packbuf_get_node(&view_, child, &below, nullptr) != PACKBUF_OK) break;
    Shown inner = look(child, &child);
    shown.special |= inner.special;
    shown.children.emplace_back(below.name.data, std::move(inner));
  }
  *next = child;
  return shown;
}

const Shown *View::shown_node(uint32_t index) const {
  std::vector<const char *> names;
  std::vector<uint32_t> up;
  packbuf_node at = node(index);
  const unsigned scope = at.scope;
  if (!shown(scope)) return nullptr;
  for (up.push_back(index); at.parent != PACKBUF_NO_NODE && up.size() < 512; at = node(at.parent))
    up.push_back(at.parent);
  const Shown *shown = &shown_[scope];
  for (; !up.empty(); up.pop_back()) {
    const packbuf_node step = node(up.back());
    const Shown *found = nullptr;
    size_t place = 0;
    if (!step.name.size && step.parent != PACKBUF_NO_NODE && node(step.parent).kind == PACKBUF_NODE_LIST) {
      for (uint32_t child = step.parent + 1; child < up.back(); child += 1 + node(child).descendants) place++;
      found = place < shown->children.size() ? &shown->children[place].second : nullptr;
    } else {
      for (const auto &[name, child] : shown->children)
        if (name == step.name.data) found = &child;
    }
    if (!found) return nullptr;
    shown = found;
  }
  return shown->special ? shown : nullptr;
}

bool View::contains(const void *data) const {
  const auto *at = static_cast<const uint8_t *>(data);
  const auto *ranges = static_cast<const uint8_t *>(fetched_.empty() ? nullptr : ranges_.view().buf);
  return (at >= view_.base && at < view_.base + view_.capacity) ||
         (ranges && at >= ranges && at < ranges + ranges_.view().len);
}

packbuf_node View::node(uint32_t index) const {
  packbuf_node node;
  packbuf_error error;
  check(packbuf_get_node(&view_, index, &node, &error), error);
  return node;
}

bool View::is_attribute(const packbuf_node &at) const {
  if (at.parent == PACKBUF_NO_NODE) return false;
  const packbuf_node up = node(at.parent);
  return up.kind == PACKBUF_LEAF &&
         (up.codec == PACKBUF_CODEC_MEDIA_BYTES || up.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED);
}

bool View::has_mask(uint32_t index) const {
  const packbuf_node at = node(index);
  packbuf_buffer mask;
  packbuf_error error;
  const packbuf_status status = packbuf_get_buffer(&view_, &at, PACKBUF_ROLE_VALIDITY, 0, &mask, &error);
  if (status != PACKBUF_NOT_FOUND) check(status, error);
  return status == PACKBUF_OK;
}

packbuf_node View::find(unsigned scope, const std::string &path) const {
  packbuf_node node;
  packbuf_error error;
  if (path.find('\0') != std::string::npos) fail(PACKBUF_NOT_FOUND, packbuf_status_text(PACKBUF_NOT_FOUND), path);
  check(packbuf_find(&view_, scope, path.c_str(), &node, &error), error);
  return node;
}

std::string View::path(uint32_t index) const {
  std::string path(packbuf_node_path(&view_, index, nullptr, 0) + 1, '\0');
  packbuf_node_path(&view_, index, path.data(), path.size());
  path.pop_back();
  return path;
}

} // namespace packbuf_py
