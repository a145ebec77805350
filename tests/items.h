/* An item that asks for a key, and nothing else yet. Test-only; include after packbuf_transport.h. */
#ifndef ITEMS_H
#define ITEMS_H

static inline packbuf_item item_of(const char *key) {
  packbuf_item item;
  memset(&item, 0, sizeof item);
  item.key = key;
  return item;
}

#endif
