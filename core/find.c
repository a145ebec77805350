/* core/find.c: nodes by path, and paths of nodes (section 4: `.name` and `[i]`, with `\`, `.` and `[` escaped in
 * names). Names are found by binary search in the name index, items of lists by walking their siblings.
 * May use: base, access, tables (names in order), utf8. Must not know: buffers, codecs, values. */

/* One step of a path: a name that is still escaped, or an index. */
typedef struct packbuf_i_step {
  const char *name;
  size_t size;
  uint64_t item;
  int is_item;
} packbuf_i_step;

/* Takes the rest of `[i]` off *path. 0 when it is no item. */
static int packbuf_i_next_item(const char **path, uint64_t *item) {
  const char *p = *path;
  for (*item = 0; *p >= '0' && *p <= '9'; p++) {
    if (p - *path >= 10) return 0; /* there are fewer than 2^32 nodes */
    *item = *item * 10 + (uint64_t)(*p - '0');
  }
  if (p == *path || *p != ']') return 0;
  *path = p + 1;
  return 1;
}

/* Takes the next step off *path, after the first: `.name` or `[i]`. 0 when it is neither. */
static int packbuf_i_next_step(const char **path, int first, packbuf_i_step *step) {
  const char *p = *path;
  step->is_item = !first && *p == '[';
  step->item = 0;
  if (step->is_item) {
    *path = p + 1;
    return packbuf_i_next_item(path, &step->item);
  }
  if (!first && *p++ != '.') return 0;
  step->name = p;
  while (*p != 0 && *p != '.' && *p != '[') {
    if (*p == '\\') {
      p++;
      if (*p != '\\' && *p != '.' && *p != '[') return 0;
    }
    p++;
  }
  step->size = (size_t)(p - step->name);
  *path = p;
  return 1;
}

/* A name against an escaped one, in the order of the name index. */
static int packbuf_i_compare_escaped(packbuf_text name, const packbuf_i_step *step) {
  size_t n = 0, s = 0;
  for (; n < name.size && s < step->size; n++, s++) {
    unsigned char a = (unsigned char)name.data[n], b;
    PACKBUF_I_FETCHED(a);
    if (step->name[s] == '\\') s++; /* what follows is there: the step was taken whole */
    b = (unsigned char)step->name[s];
    if (a != b) return a < b ? -1 : 1;
  }
  return (n < name.size) - (s < step->size);
}

/* The child of `parent` in `scope` that has the step's name, or PACKBUF_NO_NODE. */
static uint32_t packbuf_i_find_name(const packbuf_view *view, uint32_t parent, unsigned scope,
                                    const packbuf_i_step *step) {
  const uint64_t group = (uint64_t)parent << 8 | scope;
  uint32_t low = 0, high = view->name_count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    uint32_t node = PACKBUF_NO_NODE;
    packbuf_i_name name;
    int order;
    (void)packbuf_i_fetch_name(view, middle, &node);
    if (!packbuf_i_name_of(view, node, &name)) return PACKBUF_NO_NODE;
    order = name.group != group ? (name.group < group ? -1 : 1) : packbuf_i_compare_escaped(name.text, step);
    if (order == 0) return node;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return PACKBUF_NO_NODE;
}

/* The item'th child of a list, or PACKBUF_NO_NODE. */
static uint32_t packbuf_i_find_item(const packbuf_view *view, uint32_t parent, uint64_t item) {
  packbuf_i_node_record node;
  uint64_t child = (uint64_t)parent + 1, end;
  if (!packbuf_i_fetch_node(view, parent, &node) || node.kind != PACKBUF_NODE_LIST) return PACKBUF_NO_NODE;
  end = child + node.descendants < view->node_count ? child + node.descendants : view->node_count;
  for (; child < end; item--) {
    if (!packbuf_i_fetch_node(view, (uint32_t)child, &node) || node.parent != parent) break;
    if (item == 0) return (uint32_t)child;
    child += 1 + (uint64_t)node.descendants;
  }
  return PACKBUF_NO_NODE;
}

PACKBUF_API packbuf_status packbuf_find(const packbuf_view *view, unsigned scope, const char *path, packbuf_node *node,
                                        packbuf_error *error) {
  uint32_t at = PACKBUF_NO_NODE;
  int first = 1;
  if (scope > 1 || path == NULL)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "scope is neither 0 nor 1, or path is NULL", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  while (first || *path != 0) {
    packbuf_i_step step;
    if (!packbuf_i_next_step(&path, first, &step))
      return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "not a path", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    at = step.is_item ? packbuf_i_find_item(view, at, step.item) : packbuf_i_find_name(view, at, scope, &step);
    if (at == PACKBUF_NO_NODE)
      return packbuf_i_fail(error, PACKBUF_NOT_FOUND, "no node has this path", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    first = 0;
  }
  return packbuf_get_node(view, at, node, error);
}

/* Text that is built backwards, from a node up to the top, at the end of a buffer; what does not fit in front is
 * counted only. */
typedef struct packbuf_i_backwards {
  char *text;
  size_t room, size;
} packbuf_i_backwards;

static void packbuf_i_prepend(packbuf_i_backwards *out, char c) {
  if (out->size < out->room) out->text[out->room - 1 - out->size] = c;
  out->size++;
}

static void packbuf_i_prepend_name(packbuf_i_backwards *out, packbuf_text name) {
  if (packbuf_i_utf8_valid((const uint8_t *)name.data, name.size) != name.size) {
    packbuf_i_prepend(out, '?'); /* a path is text, whatever the bytes are */
    return;
  }
  for (size_t i = name.size; i-- > 0;) {
    const char c = name.data[i];
    packbuf_i_prepend(out, c ? c : '?');
    if (c == '\\' || c == '.' || c == '[') packbuf_i_prepend(out, '\\');
  }
}

static void packbuf_i_prepend_item(packbuf_i_backwards *out, const packbuf_view *view, uint32_t parent,
                                   uint32_t index) {
  uint64_t item = 0, child = (uint64_t)parent + 1;
  packbuf_i_node_record node;
  for (; child < index && packbuf_i_fetch_node(view, (uint32_t)child, &node); item++)
    child += 1 + (uint64_t)node.descendants;
  packbuf_i_prepend(out, ']');
  do packbuf_i_prepend(out, (char)('0' + item % 10));
  while ((item /= 10) != 0);
  packbuf_i_prepend(out, '[');
}

PACKBUF_API size_t packbuf_node_path(const packbuf_view *view, uint32_t index, char *path, size_t size) {
  packbuf_i_backwards out;
  packbuf_i_node_record node;
  out.text = path;
  out.room = size ? size - 1 : 0;
  out.size = 0;
  for (unsigned depth = 0; depth < PACKBUF_I_DEPTH_CAP && packbuf_i_fetch_node(view, index, &node); depth++) {
    packbuf_i_node_record up;
    packbuf_text name;
    const int top = node.parent >= index || !packbuf_i_fetch_node(view, node.parent, &up);
    if (!top && up.kind == PACKBUF_NODE_LIST) {
      packbuf_i_prepend_item(&out, view, node.parent, index);
    } else {
      if (packbuf_i_string(view, node.name_offset, node.name_length, &name)) packbuf_i_prepend_name(&out, name);
      else packbuf_i_prepend(&out, '?');
      if (!top) packbuf_i_prepend(&out, '.');
    }
    if (top) break;
    index = node.parent;
  }
  if (size == 0) return out.size;
  if (out.size <= out.room) {
    memmove(path, path + (out.room - out.size), out.size);
    path[out.size] = 0;
    return out.size;
  }
  path[out.room] = 0; /* too long: the end is kept, behind "..." and whole characters */
  for (size_t i = 0; i < out.room && (i < 3 || ((unsigned char)path[i] & 0xC0) == 0x80); i++) path[i] = '.';
  return out.size;
}
