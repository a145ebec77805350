/* core/keys.c: the search for equal keys, in texts, in MessagePack and in values, for parsers, checkers and inference.
 * May use: arena, values. Must not know: how a key is written, columns, packed buffers. */

/* Parsers must refuse equal keys in time that stays near linear whatever the bytes are, and the
 * checkers may not allocate. Each key is one word: 24 bits of its hash above 40 bits of its position. The open dicts
 * share one stack of words. A dict of up to 32 keys compares each new key with those before it, where the hash agrees;
 * a larger one is sorted when it ends (heapsort, hash collisions decided by the bytes: no input makes it quadratic).
 * With an arena the stack grows. Without one it is fixed: when it is full all dicts but the smallest lose their words,
 * and are scanned again when they end, one pass for each stackful of keys. A budget bounds those passes to a multiple
 * of the input; past it the answer is LIMIT. */

#define PACKBUF_I_KEYS_FIXED 4096
#define PACKBUF_I_KEYS_PAIRWISE 32
#define PACKBUF_I_KEYS_PASSES 32 /* the budget in multiples of the input: some 128 Ki keys in one dict */
#define PACKBUF_I_KEY_SHIFT 40
#define PACKBUF_I_KEY_AT (((uint64_t)1 << PACKBUF_I_KEY_SHIFT) - 1)

/* Where a scan over the keys of one dict stands. */
typedef struct packbuf_i_key_cursor {
  uint64_t at, end, left;
} packbuf_i_key_cursor;

/* What differs between texts, MessagePack and entries in memory. `order` compares the keys at two positions; `next`
 * scans a dict's own keys. */
typedef struct packbuf_i_key_source {
  int (*order)(const void *subject, uint64_t a, uint64_t b);
  int (*next)(const void *subject, packbuf_i_key_cursor *cursor,
              uint64_t *word); /* 0: no more keys that end before cursor->end */
} packbuf_i_key_source;

typedef struct packbuf_i_key_frame {
  struct packbuf_i_key_frame *outer;
  packbuf_i_key_cursor start;
  size_t base, count;
  uint64_t seen; /* a bit for each hash that occurred: most keys need no look at the others */
  int evicted;
} packbuf_i_key_frame;

typedef struct packbuf_i_keys {
  const packbuf_i_key_source *source;
  const void *subject;
  packbuf_arena *arena; /* or NULL */
  packbuf_i_key_frame *inner;
  uint64_t *words;
  size_t top, capacity;
  uint64_t budget;
  uint64_t values; /* looked at so far: lists that are shared many times over may be far more than memory holds */
  uint64_t fixed[PACKBUF_I_KEYS_FIXED];
} packbuf_i_keys;

static void packbuf_i_keys_init(packbuf_i_keys *keys, const packbuf_i_key_source *source, const void *subject,
                                packbuf_arena *arena, uint64_t budget) {
  keys->source = source;
  keys->subject = subject;
  keys->arena = arena;
  keys->inner = NULL;
  keys->words = keys->fixed;
  keys->top = 0;
  keys->capacity = PACKBUF_I_KEYS_FIXED;
  keys->budget = budget;
  keys->values = 0;
}

static void packbuf_i_keys_free(packbuf_i_keys *keys) {
  if (keys->words != keys->fixed) packbuf_i_scratch(keys->arena, keys->words, keys->capacity * sizeof *keys->words, 0);
  keys->words = keys->fixed;
}

/* A hash over 8-byte words; whoever feeds it bytewise (escaped JSON keys) gets the same. */
static uint64_t packbuf_i_hash_word(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
  return hash ^ hash >> 32;
}

static uint64_t packbuf_i_hash_bytes(const uint8_t *data, size_t size) {
  uint64_t hash = size * 0xFF51AFD7ED558CCDu, tail = 0;
  size_t at = 0;
  for (; size - at >= 8; at += 8) hash = packbuf_i_hash_word(hash, packbuf_i_load64(data + at));
  for (unsigned shift = 0; at < size; at++, shift += 8) tail |= (uint64_t)data[at] << shift;
  return packbuf_i_hash_word(packbuf_i_hash_word(hash, tail), size);
}

static uint64_t packbuf_i_key_word(uint64_t hash, uint64_t at) { return (hash & ~PACKBUF_I_KEY_AT) | at; }

static int packbuf_i_key_less(const packbuf_i_keys *keys, uint64_t a, uint64_t b) {
  int order;
  if ((a ^ b) >> PACKBUF_I_KEY_SHIFT) return a < b;
  order = keys->source->order(keys->subject, a & PACKBUF_I_KEY_AT, b & PACKBUF_I_KEY_AT);
  return order ? order < 0 : a < b;
}

static int packbuf_i_key_same(const packbuf_i_keys *keys, uint64_t a, uint64_t b) {
  return (a ^ b) >> PACKBUF_I_KEY_SHIFT == 0 &&
         keys->source->order(keys->subject, a & PACKBUF_I_KEY_AT, b & PACKBUF_I_KEY_AT) == 0;
}

static void packbuf_i_keys_sift(const packbuf_i_keys *keys, uint64_t *words, size_t root, size_t count) {
  uint64_t word = words[root];
  for (size_t child; (child = 2 * root + 1) < count; root = child) {
    if (child + 1 < count && packbuf_i_key_less(keys, words[child], words[child + 1])) child++;
    if (!packbuf_i_key_less(keys, word, words[child])) break;
    words[root] = words[child];
  }
  words[root] = word;
}

/* Sorts words and lowers *duplicate to the first position whose key occurs before it. */
static void packbuf_i_keys_sort(const packbuf_i_keys *keys, uint64_t *words, size_t count, uint64_t *duplicate) {
  for (size_t i = count / 2; i-- > 0;) packbuf_i_keys_sift(keys, words, i, count);
  for (size_t last = count; last-- > 1;) {
    uint64_t largest = words[0];
    words[0] = words[last];
    words[last] = largest;
    packbuf_i_keys_sift(keys, words, 0, last);
  }
  for (size_t i = 1; i < count; i++)
    if ((words[i] & PACKBUF_I_KEY_AT) < *duplicate && packbuf_i_key_same(keys, words[i - 1], words[i]))
      *duplicate = words[i] & PACKBUF_I_KEY_AT;
}

static int packbuf_i_keys_contain(const packbuf_i_keys *keys, const uint64_t *words, size_t count, uint64_t word) {
  size_t low = 0, high = count;
  while (low < high) { /* the first that is not below the key's first occurrence */
    size_t middle = low + (high - low) / 2;
    if (packbuf_i_key_same(keys, words[middle], word)) return 1;
    if (packbuf_i_key_less(keys, words[middle], word)) low = middle + 1;
    else high = middle;
  }
  return 0;
}

/* Scans a dict that lost its words: each pass keeps one stackful of keys, sorted, and looks the later ones up. 0: past
 * the budget. */
static int packbuf_i_keys_rescan(packbuf_i_keys *keys, const packbuf_i_key_frame *frame, uint64_t end,
                                 uint64_t *duplicate) {
  uint64_t *words = keys->words + keys->top;
  size_t room = keys->capacity - keys->top, filled;
  uint64_t before = 0;
  do {
    packbuf_i_key_cursor cursor = frame->start;
    uint64_t word, ordinal = 0;
    if (end - cursor.at > keys->budget) return 0;
    keys->budget -= end - cursor.at;
    cursor.end = end;
    for (filled = 0; keys->source->next(keys->subject, &cursor, &word); ordinal++) {
      if (ordinal < before) continue;
      if (filled < room) {
        words[filled++] = word;
        if (filled == room) packbuf_i_keys_sort(keys, words, filled, duplicate);
      } else if ((word & PACKBUF_I_KEY_AT) < *duplicate && packbuf_i_keys_contain(keys, words, filled, word)) {
        *duplicate = word & PACKBUF_I_KEY_AT;
      }
    }
    if (filled < room) packbuf_i_keys_sort(keys, words, filled, duplicate);
    before += filled;
  } while (filled == room);
  return 1;
}

/* Takes the words of all dicts that have at least `threshold` of them; their later keys are not kept either. */
static void packbuf_i_keys_evict(packbuf_i_keys *keys, size_t threshold) {
  size_t to = keys->capacity, shift;
  packbuf_i_key_frame *frame;
  for (frame = keys->inner; frame; frame = frame->outer) { /* innermost first: what stays is gathered at the high end */
    if (!frame->evicted && frame->count >= threshold) frame->evicted = 1;
    if (!frame->evicted) {
      to -= frame->count;
      memmove(keys->words + to, keys->words + frame->base, frame->count * sizeof *keys->words);
    }
    frame->base = to;
  }
  shift = to;
  for (frame = keys->inner; frame; frame = frame->outer) frame->base -= shift;
  keys->top = keys->capacity - shift;
  memmove(keys->words, keys->words + shift, keys->top * sizeof *keys->words);
}

static int packbuf_i_keys_grow(packbuf_i_keys *keys) {
  size_t old_size = keys->capacity * sizeof *keys->words;
  int fixed = keys->words == keys->fixed;
  uint64_t *grown;
  if (keys->capacity > SIZE_MAX / 2 / sizeof *keys->words) return 0;
  grown = (uint64_t *)packbuf_i_scratch(keys->arena, fixed ? NULL : keys->words, fixed ? 0 : old_size, old_size * 2);
  if (!grown) return 0;
  if (fixed) memcpy(grown, keys->fixed, old_size);
  keys->words = grown;
  keys->capacity *= 2;
  return 1;
}

/* A dict begins; cursor: where a scan over its keys would start. */
static void packbuf_i_keys_open(packbuf_i_keys *keys, packbuf_i_key_frame *frame, uint64_t at, uint64_t left) {
  frame->outer = keys->inner;
  frame->start.at = at;
  frame->start.left = left;
  frame->start.end = 0;
  frame->base = keys->top;
  frame->count = 0;
  frame->seen = 0;
  frame->evicted = 0;
  keys->inner = frame;
}

/* Adds a key of the innermost dict: 1 added, 0 it is there already, -1 no memory. */
static int packbuf_i_keys_add(packbuf_i_keys *keys, uint64_t hash, uint64_t at) {
  packbuf_i_key_frame *frame = keys->inner;
  uint64_t word = packbuf_i_key_word(hash, at), bit = (uint64_t)1 << (hash >> 58);
  if (!frame->evicted && frame->count < PACKBUF_I_KEYS_PAIRWISE && (frame->seen & bit))
    for (size_t i = 0; i < frame->count; i++)
      if (packbuf_i_key_same(keys, keys->words[frame->base + i], word)) return 0;
  frame->seen |= bit;
  if (keys->top == keys->capacity && !frame->evicted) {
    if (keys->arena && !packbuf_i_keys_grow(keys)) return -1;
    if (!keys->arena) packbuf_i_keys_evict(keys, 8); /* small dicts keep theirs: they are many, and cheap */
    if (keys->top > keys->capacity - keys->capacity / 8) packbuf_i_keys_evict(keys, 1); /* nested deeper than usual */
  }
  frame->count++;
  if (!frame->evicted) keys->words[keys->top++] = word;
  return 1;
}

/* The innermost dict ends, or the text is wrong at `end`: *duplicate becomes the first position before `end` whose key
 * occurs twice, else stays. 0: too many keys to check without memory. */
static int packbuf_i_keys_close(packbuf_i_keys *keys, uint64_t end, uint64_t *duplicate) {
  packbuf_i_key_frame *frame = keys->inner;
  int done = 1;
  keys->inner = frame->outer;
  if (frame->evicted) {
    done = packbuf_i_keys_rescan(keys, frame, end, duplicate);
  } else {
    if (frame->count > PACKBUF_I_KEYS_PAIRWISE)
      packbuf_i_keys_sort(keys, keys->words + frame->base, frame->count, duplicate);
    keys->top = frame->base;
  }
  return done;
}

/* ---- keys of dicts in memory ---- */

static int packbuf_i_order_u64(uint64_t a, uint64_t b) { return a < b ? -1 : a > b; }

static int packbuf_i_order_bytes(const void *a, size_t a_size, const void *b, size_t b_size) {
  if (a_size != b_size) return a_size < b_size ? -1 : 1;
  return a_size ? memcmp(a, b, a_size) : 0;
}

/* Some total order of keys in which equal (section 16) is equal. */
static int packbuf_i_key_order(const packbuf_value *a, const packbuf_value *b) {
  int a_integer = packbuf_i_is_integer(a), b_integer = packbuf_i_is_integer(b);
  unsigned a_kind = a_integer ? (unsigned)PACKBUF_INT : a->kind, b_kind = b_integer ? (unsigned)PACKBUF_INT : b->kind;
  if (a_kind != b_kind) return a_kind < b_kind ? -1 : 1;
  if (a_integer) {
    uint64_t x, y;
    int a_form = packbuf_i_integer_form(a, &x), b_form = packbuf_i_integer_form(b, &y);
    if (a_form != b_form) return a_form < b_form ? -1 : 1;
    return a_form == 2 ? packbuf_i_order_bytes(a->as.text.data, a->as.text.size, b->as.text.data, b->as.text.size)
                       : packbuf_i_order_u64(x, y);
  }
  if (a_kind == PACKBUF_BOOL) return !b->as.boolean - !a->as.boolean;
  if (a_kind == PACKBUF_FLOAT)
    return packbuf_i_order_u64(packbuf_i_double_bits(&a->as.f), packbuf_i_double_bits(&b->as.f));
  if (a_kind == PACKBUF_STRING || a_kind == PACKBUF_BYTES)
    return packbuf_i_order_bytes(a->as.text.data, a->as.text.size, b->as.text.data, b->as.text.size);
  return 0;
}

static uint64_t packbuf_i_key_hash(const packbuf_value *key) {
  uint64_t u;
  if (key->kind == PACKBUF_STRING || key->kind == PACKBUF_BYTES)
    return packbuf_i_hash_bytes((const uint8_t *)key->as.text.data, key->as.text.size);
  if (packbuf_i_is_integer(key)) {
    if (packbuf_i_integer_form(key, &u) == 2)
      return packbuf_i_hash_bytes((const uint8_t *)key->as.text.data, key->as.text.size);
    return packbuf_i_hash_word(packbuf_i_hash_word(PACKBUF_INT, u), u);
  }
  if (key->kind == PACKBUF_FLOAT) u = packbuf_i_double_bits(&key->as.f);
  else u = key->kind == PACKBUF_BOOL && key->as.boolean;
  return packbuf_i_hash_word(packbuf_i_hash_word(key->kind, u), u);
}

static int packbuf_i_entry_order(const void *subject, uint64_t a, uint64_t b) {
  const packbuf_entry *entries = (const packbuf_entry *)subject;
  return packbuf_i_key_order(&entries[a].key, &entries[b].key);
}

static int packbuf_i_entry_next(const void *subject, packbuf_i_key_cursor *cursor, uint64_t *word) {
  const packbuf_entry *entries = (const packbuf_entry *)subject;
  if (cursor->at >= cursor->end) return 0;
  *word = packbuf_i_key_word(packbuf_i_key_hash(&entries[cursor->at].key), cursor->at);
  cursor->at++;
  return 1;
}

static const packbuf_i_key_source packbuf_i_entry_source = {packbuf_i_entry_order, packbuf_i_entry_next};

/* 1: the keys differ from each other, 0: two are equal, -1: no memory. `keys` was set up for entries and holds no words
 * now. */
static int packbuf_i_entries_differ(packbuf_i_keys *keys, const packbuf_entry *entries, size_t count) {
  packbuf_i_key_frame frame;
  uint64_t duplicate = PACKBUF_NOWHERE;
  int added = 1;
  keys->subject = entries;
  packbuf_i_keys_open(keys, &frame, 0, count);
  for (size_t i = 0; i < count && added == 1; i++)
    added = packbuf_i_keys_add(keys, packbuf_i_key_hash(&entries[i].key), i);
  if (added == 1) packbuf_i_keys_close(keys, count, &duplicate);
  else {
    keys->inner = frame.outer;
    keys->top = frame.base;
  }
  return added == 1 ? duplicate == PACKBUF_NOWHERE : added;
}

static packbuf_status packbuf_i_keys_differ(packbuf_i_keys *keys, const packbuf_value *dict, packbuf_error *error) {
  int differ = packbuf_i_entries_differ(keys, dict->as.dict.entries, dict->as.dict.count);
  if (differ < 0) return packbuf_i_no_memory(error);
  return differ ? PACKBUF_OK : packbuf_i_unencodable(error, "two keys of a dict are equal");
}
