/* transport/verbs_client.c: the store `verbs`: what a client does differently when it has queue pairs. What is put is
 * read by the server; what is got is read by this side, from where the server says that it lies (LOCATED), in one chain
 * a queue pair, whose last READ fetches the lease words: as long as a word is the object's generation, what was read
 * before it is the object.
 * May use: system, text, asked, frames, verbs, pool, tcp. Must not know: the handle, who serves. */

enum { PACKBUF_I_ROUNDS_MOST = 8 };         /* times that what failed for another item's sake is asked for again */
#define PACKBUF_I_SHARE ((uint64_t)1 << 20) /* bytes that are worth a queue pair of their own */

/* ---- memory ---- */

/* The registration of an item's memory. NULL: it has none. */
static packbuf_i_plot *packbuf_i_tcp_plot(packbuf_i_tcp *tcp, const packbuf_call *call, uint64_t index,
                                          const void *memory, uint64_t size) {
  packbuf_i_plot *plot = call->registrations ? (packbuf_i_plot *)call->registrations[index] : NULL;
  if (packbuf_i_plot_has(&tcp->slab, memory, size)) return &tcp->slab;
  return plot && packbuf_i_plot_has(plot, memory, size) ? plot : NULL;
}

/* Memory that the server may read, and READs of ours may fill where it may be written. Some kernels give no device what
 * is mapped for reading alone (files): that has no key, and what is put from it goes in frames. */
static packbuf_status packbuf_i_plot_open_both(packbuf_i_nic *nic, const void *address, uint64_t size,
                                               packbuf_i_plot *plot, packbuf_error *error) {
  const int both = PACKBUF_I_IBV_LOCAL_WRITE | PACKBUF_I_IBV_REMOTE_READ;
  packbuf_status status = packbuf_i_plot_open(nic, address, size, both, plot, error);
  if (status != PACKBUF_SYSTEM || errno != EFAULT) return status;
  status = packbuf_i_plot_open(nic, address, size, PACKBUF_I_IBV_REMOTE_READ, plot, error);
  return status == PACKBUF_SYSTEM && errno == EFAULT ? PACKBUF_OK : status;
}

static packbuf_status packbuf_i_verbs_attach(void *state, const void *address, uint64_t size, void **registration,
                                             packbuf_error *error) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)state;
  packbuf_i_plot *plot;
  packbuf_status status;
  *registration = &tcp->slab; /* stepped down: any memory will do */
  if (!tcp->nic || (tcp->slab.mr && packbuf_i_plot_has(&tcp->slab, address, size))) return PACKBUF_OK;
  plot = (packbuf_i_plot *)packbuf_i_heap(&tcp->allocator, NULL, 0, sizeof *plot);
  if (!plot) return packbuf_i_no_memory(error);
  status = packbuf_i_plot_open_both(tcp->nic, address, size, plot, error);
  if (status) (void)packbuf_i_heap(&tcp->allocator, plot, sizeof *plot, 0);
  else *registration = plot;
  return status;
}

static void packbuf_i_verbs_detach(void *state, void *registration) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)state;
  if (registration == &tcp->slab) return;
  packbuf_i_plot_close(tcp->nic, (packbuf_i_plot *)registration);
  (void)packbuf_i_heap(&tcp->allocator, registration, sizeof(packbuf_i_plot), 0);
}

/* ---- queue pairs ---- */

/* Makes new queue pairs, and joins them to new ones of the server. What goes wrong breaks the connection. */
static packbuf_status packbuf_i_peer_pair(packbuf_i_peer *peer, uint64_t deadline) {
  packbuf_i_tcp *tcp = peer->tcp;
  packbuf_i_wire_to body = packbuf_i_frame_body(peer->frame, peer->frame_room);
  packbuf_i_pairing mine;
  packbuf_status status;
  /* once the store is open it is not that there is no RDMA, but that the way is cut */
  const packbuf_status none = tcp->capabilities ? PACKBUF_DISCONNECTED : PACKBUF_UNAVAILABLE;
  packbuf_i_pairs_close(&peer->pairs);
  if (!(peer->limits.features & PACKBUF_I_FEATURE_VERBS)) {
    packbuf_i_peer_break(peer, PACKBUF_UNAVAILABLE, "the server has no RDMA device");
    return PACKBUF_UNAVAILABLE;
  }
  status = packbuf_i_pairs_open(&peer->pairs, tcp->nic, PACKBUF_I_PAIRS, NULL, peer);
  if (status) {
    packbuf_i_peer_break(peer, status, "the RDMA device makes no queue pairs");
    return status;
  }
  packbuf_i_pairs_tell(&peer->pairs, &mine);
  packbuf_i_pairing_write(&body, &mine);
  peer->type = PACKBUF_I_PAIRING;
  peer->left = 1;
  peer->id = PACKBUF_I_ADD(&tcp->next_id, 1) + 1;
  peer->piece = peer->piece_count = 0;
  packbuf_i_peer_piece(peer, peer->frame,
                       packbuf_i_frame_end(peer->frame, &body, PACKBUF_I_PAIRING, mine.count, peer->id, 0));
  packbuf_i_peer_wait(peer, deadline);
  if (!peer->broken && peer->theirs.status)
    packbuf_i_peer_break(peer, none, "the server's RDMA device makes no queue pairs");
  if (!peer->broken && packbuf_i_pairs_join(&peer->pairs, &peer->theirs))
    packbuf_i_peer_break(peer, none, "there is no way to the server's RDMA address");
  return peer->broken;
}

/* ---- reading what was located ---- */

static const char *packbuf_i_peer_located(packbuf_i_peer *peer, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  uint16_t waiting[PACKBUF_I_TRIP];
  unsigned count = 0;
  if (peer->type != PACKBUF_I_GET || !peer->pairs.pairs) return "a place that nobody asked for";
  for (unsigned i = 0; i < frame->items; i++) {
    packbuf_i_located located;
    packbuf_i_wanted_bytes asked;
    packbuf_i_errand *step;
    const char *why = packbuf_i_located_read(&reader, &located);
    if (why) return why;
    if (located.index >= peer->count || peer->steps[located.index].state != PACKBUF_I_STEP_ASKED)
      return "a place that nobody asked for";
    if (located.word >= peer->theirs.words || located.word >= PACKBUF_I_WORDS) return "a lease word that is none";
    step = &peer->steps[located.index];
    if (packbuf_i_item_asks(step->item, located.stat.length, &asked) || !asked.size || asked.size > INT64_MAX)
      return "a place of other bytes than were asked for";
    step->follows = asked.size;
    step->item->stat = located.stat;
    step->state = PACKBUF_I_STEP_LOCATED;
    step->word = located.word;
    step->rkey = located.rkey;
    step->address = located.address;
    step->to = (uint8_t *)step->item->into;
    step->status = PACKBUF_OK;
    if (!step->to) waiting[count++] = located.index;
  }
  packbuf_i_peer_place_all(peer, waiting, count);
  return NULL;
}

/* Where the next bytes to be read lie. NULL: there are no more. */
static packbuf_i_errand *packbuf_i_peer_next_read(packbuf_i_peer *peer, uint64_t *offset, uint64_t *size) {
  while (peer->fetch_step < peer->count) {
    packbuf_i_errand *step = &peer->steps[peer->fetch_step];
    const packbuf_item *item = step->item;
    const uint64_t ranges = item->ranges ? item->range_count : 1;
    if (step->state == PACKBUF_I_STEP_LOCATED && step->to && peer->fetch_range < ranges) {
      const uint64_t length = item->ranges ? item->ranges[peer->fetch_range].length : step->follows;
      *offset = (item->ranges ? item->ranges[peer->fetch_range].offset : 0) + peer->fetch_at;
      *size = length - peer->fetch_at;
      if (*size) return step;
      peer->fetch_range++;
    } else {
      peer->fetch_step++;
      peer->fetch_range = 0;
    }
    peer->fetch_at = 0;
  }
  return NULL;
}

/* Makes a chain of what is to be read next: about `share` bytes, and the lease words of what they are of. */
static void packbuf_i_peer_chain(packbuf_i_peer *peer, unsigned which, uint64_t share) {
  packbuf_i_tcp *tcp = peer->tcp;
  packbuf_i_queue_pair *pair = &peer->pairs.pairs[which];
  packbuf_i_errand *step;
  uint64_t offset, size;
  uint32_t first = UINT32_MAX, last = 0;
  pair->count = 0;
  pair->bytes = 0;
  while ((step = packbuf_i_peer_next_read(peer, &offset, &size)) != NULL) {
    const packbuf_i_plot *plot = packbuf_i_tcp_plot(tcp, peer->call, step->index, step->to, step->follows);
    uint32_t some;
    if (pair->count == PACKBUF_I_CHAIN - 1 || pair->bytes >= share || pair->bytes >= PACKBUF_I_CHAIN_BYTES) break;
    some = packbuf_i_pair_add(&peer->pairs, pair, step->to + step->came, plot ? plot->mr->lkey : 0,
                              step->address + offset, step->rkey, size, step);
    step->came += some;
    peer->fetch_at += some;
    if (step->word < first) first = step->word;
    if (step->word > last) last = step->word;
  }
  if (!step) peer->fetched = 2;
  if (!pair->count) return;
  (void)packbuf_i_pair_add(&peer->pairs, pair, peer->words + first, tcp->word_plot.mr->lkey,
                           peer->theirs.address + 8u * (uint64_t)first, peer->theirs.rkey,
                           8u * ((uint64_t)last - first + 1), NULL);
  if (!packbuf_i_pair_post(&peer->pairs, which))
    packbuf_i_peer_break(peer, PACKBUF_SYSTEM, "the RDMA device takes no requests");
}

/* Tells the server that all those leases are of no use any more. */
static void packbuf_i_peer_release(packbuf_i_peer *peer) {
  packbuf_i_wire_to body = packbuf_i_frame_body(peer->frame, peer->frame_room);
  unsigned count = 0;
  for (unsigned i = 0; i < peer->count; i++) {
    if (peer->steps[i].state != PACKBUF_I_STEP_LOCATED) continue;
    packbuf_i_wire_give32(&body, peer->steps[i].word);
    count++;
  }
  packbuf_i_peer_piece(peer, peer->frame,
                       packbuf_i_frame_end(peer->frame, &body, PACKBUF_I_RELEASE, count, peer->id, 0));
  packbuf_i_peer_write(peer);
}

/* It is asked for once more; status: what it ends with when it cannot be. */
static void packbuf_i_step_again(packbuf_i_peer *peer, packbuf_i_errand *step, packbuf_status status) {
  packbuf_slice_release(&step->slice);
  step->state = PACKBUF_I_STEP_AGAIN;
  step->status = status;
  peer->left--;
}

/* All chains have ended well. */
static void packbuf_i_peer_fetched(packbuf_i_peer *peer) {
  packbuf_i_peer_release(peer);
  for (unsigned i = 0; i < peer->count; i++) {
    packbuf_i_errand *step = &peer->steps[i];
    if (step->state != PACKBUF_I_STEP_LOCATED) continue;
    if (!step->to) packbuf_i_step_end(peer, step, step->status);
    else if (PACKBUF_I_LOAD(&peer->words[step->word]) == step->item->stat.generation)
      packbuf_i_step_end(peer, step, PACKBUF_OK);
    else if (step->tries++) packbuf_i_step_end(peer, step, PACKBUF_STALE);
    else packbuf_i_step_again(peer, step, PACKBUF_STALE);
  }
}

/* A chain failed: at one item, whose fault it may be, and all behind it with it. */
static void packbuf_i_peer_failed(packbuf_i_peer *peer, unsigned which, uint32_t good, packbuf_status status) {
  const int own = status == PACKBUF_PROTOCOL || status == PACKBUF_UNREGISTERED;
  const packbuf_i_queue_pair *pair = &peer->pairs.pairs[which];
  const packbuf_i_errand *at = good < pair->count ? (const packbuf_i_errand *)pair->chain[good].user : NULL;
  packbuf_i_pairs_close(&peer->pairs);
  for (unsigned i = 0; i < peer->count; i++) {
    packbuf_i_errand *step = &peer->steps[i];
    if (step->state != PACKBUF_I_STEP_LOCATED) continue;
    if (!step->to) packbuf_i_step_end(peer, step, step->status);
    else if (step == at && (own || step->tries++)) packbuf_i_step_end(peer, step, status);
    else packbuf_i_step_again(peer, step, step == at ? status : PACKBUF_DISCONNECTED);
  }
}

/* Once all items of a get are answered: reads those that were located. */
static void packbuf_i_peer_fetch(packbuf_i_peer *peer) {
  uint64_t total = 0;
  unsigned located = 0;
  if (peer->type != PACKBUF_I_GET || peer->broken || !peer->pairs.pairs || peer->fetched == 2) return;
  for (unsigned i = 0; i < peer->count; i++) {
    const packbuf_i_errand *step = &peer->steps[i];
    if (step->state == PACKBUF_I_STEP_ASKED) return;
    if (step->state != PACKBUF_I_STEP_LOCATED) continue;
    located++;
    if (step->to) total += step->follows;
  }
  if (!located) return;
  if (!peer->fetched) {
    peer->fetched = 1;
    peer->fetch_step = 0;
    peer->fetch_range = peer->fetch_at = 0;
  }
  total /= peer->pairs.count;
  if (total < PACKBUF_I_SHARE) total = PACKBUF_I_SHARE;
  for (unsigned i = 0; i < peer->pairs.count && peer->fetched == 1 && !peer->broken; i++)
    if (!peer->pairs.pairs[i].posted) packbuf_i_peer_chain(peer, i, total);
  if (peer->fetched == 2 && !peer->pairs.busy) packbuf_i_peer_fetched(peer); /* there was no room for any */
}

/* Chains that ended. 1: some did. */
static int packbuf_i_peer_reap(packbuf_i_peer *peer) {
  packbuf_i_pairs *pairs = &peer->pairs;
  packbuf_status status = PACKBUF_OK;
  unsigned which;
  uint32_t good;
  void *user;
  int some = 0;
  while (packbuf_i_channel_event(pairs->nic, pairs->channel, &user)) continue;
  packbuf_i_pairs_listen(pairs);
  while (!peer->broken && pairs->pairs && packbuf_i_pairs_ended(pairs, &which, &good, &status)) {
    some = 1;
    if (status) {
      packbuf_i_peer_failed(peer, which, good, status);
      break;
    }
    (void)PACKBUF_I_ADD(&peer->tcp->moved, pairs->pairs[which].bytes);
    if (peer->fetched == 2 && !pairs->busy) packbuf_i_peer_fetched(peer);
    else packbuf_i_peer_fetch(peer);
  }
  return some;
}

/* Makes a new request of what is to be asked for again, with new queue pairs where those broke. 0: there is none, or it
 * cannot be. */
static int packbuf_i_peer_regather(packbuf_i_peer *peer, size_t *room) {
  const unsigned type = peer->type;
  unsigned again = 0;
  int good =
      !peer->broken && !peer->cancel && peer->piece == peer->piece_count && ++peer->rounds <= PACKBUF_I_ROUNDS_MOST;
  for (unsigned i = 0; i < peer->count; i++) again += peer->steps[i].state == PACKBUF_I_STEP_AGAIN;
  if (!again) return 0;
  if (good && type == PACKBUF_I_PUT) packbuf_i_pairs_close(&peer->pairs); /* the server's are broken */
  if (good && !peer->pairs.pairs) good = packbuf_i_peer_pair(peer, peer->call->deadline) == PACKBUF_OK;
  peer->type = type;
  *room = PACKBUF_I_FRAME_HEADER + 8;
  again = 0;
  for (unsigned i = 0; i < peer->count; i++) {
    packbuf_i_errand *step = &peer->steps[i], *to = &peer->steps[again];
    const packbuf_i_errand was = *step;
    if (was.state != PACKBUF_I_STEP_AGAIN) continue;
    if (!good) {
      peer->left++;
      packbuf_i_step_end(peer, step, peer->broken ? peer->broken : peer->cancel ? PACKBUF_TIMEOUT : was.status);
      continue;
    }
    memset(to, 0, sizeof *to);
    to->item = was.item;
    to->index = was.index;
    to->tries = was.tries;
    *room += packbuf_i_item_room(was.item);
    again++;
  }
  if (good) peer->count = again;
  return good;
}

/* ---- opening ---- */

static packbuf_status packbuf_i_verbs_option(void *context, const packbuf_i_uri_option *option) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)context;
  const size_t size = strlen(option->value);
  if (strcmp(option->name, "device") != 0) return PACKBUF_NOT_FOUND;
  if (!size || size >= sizeof tcp->device) return PACKBUF_INVALID_ARGUMENT;
  memcpy(tcp->device, option->value, size + 1);
  return PACKBUF_OK;
}

/* The address that packets to there come from; 0: none. */
static int packbuf_i_address_own(const packbuf_i_address *to, packbuf_i_address *own) {
  const int fd = socket(to->as.any.sa_family, SOCK_DGRAM, 0);
  int good;
  if (fd < 0) return 0;
  own->size = sizeof own->as;
  good = connect(fd, &to->as.any, to->size) == 0 && getsockname(fd, &own->as.any, &own->size) == 0;
  (void)close(fd);
  return good;
}

/* A device, and the memory that it uses. */
static packbuf_status packbuf_i_tcp_start_verbs(packbuf_i_tcp *tcp, packbuf_error *error) {
  const size_t words = tcp->peer_count * (size_t)PACKBUF_I_WORDS * 8u;
  packbuf_i_address own;
  const void *slab;
  uint64_t size;
  const int known = packbuf_i_address_own(&tcp->addresses[0], &own);
  packbuf_status status = packbuf_i_nic_open(&tcp->allocator, tcp->device[0] ? tcp->device : NULL,
                                             known ? &own.as.any : NULL, &tcp->nic, error);
  if (status) return status;
  packbuf_i_pool_range(tcp->pool, &slab, &size);
  status = packbuf_i_plot_open_both(tcp->nic, slab, size, &tcp->slab, error);
  if (status) return status;
  tcp->words = (uint64_t *)packbuf_i_heap(&tcp->allocator, NULL, 0, words);
  if (!tcp->words) return packbuf_i_no_memory(error);
  for (unsigned i = 0; i < tcp->peer_count; i++) tcp->peers[i].words = tcp->words + i * (size_t)PACKBUF_I_WORDS;
  return packbuf_i_plot_open(tcp->nic, tcp->words, words, PACKBUF_I_IBV_LOCAL_WRITE, &tcp->word_plot, error);
}

/* It is tcp from here on. No connection stands. */
static void packbuf_i_tcp_end_verbs(packbuf_i_tcp *tcp) {
  const size_t words = tcp->peer_count * (size_t)PACKBUF_I_WORDS * 8u;
  if (!tcp->nic) return;
  packbuf_i_plot_close(tcp->nic, &tcp->slab);
  packbuf_i_plot_close(tcp->nic, &tcp->word_plot);
  (void)packbuf_i_heap(&tcp->allocator, tcp->words, words, 0);
  packbuf_i_nic_close(tcp->nic);
  tcp->words = NULL;
  tcp->nic = NULL;
}

static packbuf_status packbuf_i_verbs_open(void **state, const char *uri, const packbuf_store_options *options,
                                           packbuf_error *error) {
  return packbuf_i_tcp_make(state, uri, options, 1, error);
}

static const packbuf_driver packbuf_i_verbs_driver = {sizeof(packbuf_driver),
                                                      "verbs",
                                                      packbuf_i_verbs_open,
                                                      packbuf_i_tcp_close,
                                                      packbuf_i_tcp_describe,
                                                      packbuf_i_verbs_attach,
                                                      packbuf_i_verbs_detach,
                                                      NULL,
                                                      NULL,
                                                      packbuf_i_tcp_run,
                                                      packbuf_i_tcp_let_go,
                                                      packbuf_i_tcp_list,
                                                      packbuf_i_tcp_collect,
                                                      packbuf_i_tcp_count,
                                                      NULL,
                                                      NULL,
                                                      PACKBUF_I_SMALL,
                                                      NULL};
