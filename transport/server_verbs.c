/* transport/server_verbs.c: what a server does in a connection that has queue pairs: it reads what is put from the
 * client's memory, and says where what is got lies. Memory is used again only after the client has released it, or
 * after its lease words are 0 and its queue pairs are gone.
 * May use: system, frames, verbs, server_link. Must not know: sockets, loops. */

typedef struct packbuf_i_plane {
  packbuf_i_pairs pairs; /* none: they broke */
  packbuf_i_plot plot;   /* of the words */
  uint64_t words[PACKBUF_I_WORDS];
  packbuf_lease leases[PACKBUF_I_WORDS];
  uint32_t next, leased; /* the next word; words that are in use */
  uint64_t moved;        /* when one was let go, or the first taken */
} packbuf_i_plane;

/* ---- leases ---- */

static void packbuf_i_plane_let_go(packbuf_i_link *link, uint32_t word) {
  packbuf_i_plane *plane = link->plane;
  PACKBUF_I_STORE(&plane->words[word], 0);
  packbuf_lease_release(&plane->leases[word]);
  plane->leased--;
  plane->moved = packbuf_now();
  (void)PACKBUF_I_SUBTRACT(&link->service->counters.leases, 1);
}

/* Ends queue pairs and leases: the words first, so that whoever still reads learns of it. */
static void packbuf_i_plane_stop(packbuf_i_link *link) {
  packbuf_i_plane *plane = link->plane;
  for (uint32_t i = 0; i < PACKBUF_I_WORDS; i++) PACKBUF_I_STORE(&plane->words[i], 0);
  packbuf_i_pairs_close(&plane->pairs);
  for (uint32_t i = 0; i < PACKBUF_I_WORDS; i++)
    if (plane->leases[i].data) packbuf_i_plane_let_go(link, i);
}

static void packbuf_i_plane_end(packbuf_i_link *link) {
  if (!link->plane) return;
  packbuf_i_plane_stop(link);
  packbuf_i_plot_close(link->service->nic, &link->plane->plot);
  (void)packbuf_i_heap(&link->service->allocator, link->plane, sizeof *link->plane, 0);
  link->plane = NULL;
}

/* The words of a request's items lie side by side, so that one READ has them all. */
static void packbuf_i_plane_room(packbuf_i_link *link, unsigned items) {
  if (link->plane && link->plane->next + items > PACKBUF_I_WORDS) link->plane->next = 0;
}

/* Whether an object is answered with where it lies; takes over its lease. */
static int packbuf_i_plane_locate(packbuf_i_link *link, uint64_t index, packbuf_item *item, uint64_t total,
                                  packbuf_i_located *located) {
  const packbuf_i_service *service = link->service;
  packbuf_i_plane *plane = link->plane;
  const uint8_t *data = (const uint8_t *)item->lease.data, *readable = (const uint8_t *)service->memory.readable;
  uint64_t at;
  if (!plane || !plane->pairs.pairs || total <= PACKBUF_I_SMALL || data < readable) return 0;
  at = (uint64_t)(data - readable);
  if (at > service->memory.size || item->lease.size > service->memory.size - at) return 0;
  if (plane->next >= PACKBUF_I_WORDS || plane->leases[plane->next].data) return 0;
  memset(located, 0, sizeof *located);
  located->index = (uint16_t)index;
  located->word = plane->next++;
  located->rkey = service->slab.mr->rkey;
  located->address = (uint64_t)(uintptr_t)service->memory.writable + at;
  located->stat = item->stat;
  plane->leases[located->word] = item->lease;
  memset(&item->lease, 0, sizeof item->lease);
  if (!plane->leased++) plane->moved = packbuf_now();
  PACKBUF_I_SERVED(link->service, leases, 1);
  PACKBUF_I_STORE(&plane->words[located->word], item->stat.generation);
  return 1;
}

static const char *packbuf_i_link_release(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  if (!link->plane) return "a lease that was not given";
  for (unsigned i = 0; i < frame->items; i++) {
    const uint32_t word = packbuf_i_wire_take32(&reader);
    if (!reader.ok) return packbuf_i_frame_short;
    if (word >= PACKBUF_I_WORDS || !link->plane->leases[word].data) return "a lease that was not given";
    packbuf_i_plane_let_go(link, word);
  }
  return NULL;
}

/* ---- READs of what is put ---- */

/* The next item whose bytes are to be read; NULL. */
static packbuf_i_job *packbuf_i_link_next_pull(packbuf_i_link *link) {
  for (packbuf_i_request *r = link->requests; r; r = r->next)
    for (; r->pulls && r->pulled < r->count; r->pulled++) {
      packbuf_i_job *work = &r->works[r->pulled];
      if (work->state == PACKBUF_I_WORK_PULLS && work->posted < work->size && !work->dropped) return work;
    }
  return NULL;
}

/* Answers all items whose bytes were to be read: `at` with a status, those that were given up with theirs, the others
 * with DISCONNECTED. No READ is under way. */
static void packbuf_i_link_pulls_fail(packbuf_i_link *link, const packbuf_i_job *at, packbuf_status status) {
  for (packbuf_i_request *r = link->requests; r; r = r->next) {
    packbuf_i_results results;
    packbuf_i_results_begin(&results, link, r->id);
    for (unsigned i = 0; r->pulls && i < r->count; i++) {
      packbuf_i_job *work = &r->works[i];
      if (work->state != PACKBUF_I_WORK_PULLS) continue;
      packbuf_i_work_answer(&results, r, work,
                            work->dropped ? work->status
                            : work == at  ? status
                                          : PACKBUF_DISCONNECTED);
    }
    packbuf_i_results_end(&results);
  }
  link->ready = 1;
}

/* Posts READs on the queue pairs that are idle: to each its share of what there is, so that both are busy. */
static void packbuf_i_link_pull(packbuf_i_link *link) {
  packbuf_i_plane *plane = link->plane;
  uint64_t left = 0, share;
  if (!plane || !plane->pairs.pairs) {
    packbuf_i_link_pulls_fail(link, NULL, PACKBUF_DISCONNECTED);
    return;
  }
  for (const packbuf_i_request *r = link->requests; r; r = r->next)
    for (unsigned i = 0; r->pulls && i < r->count; i++)
      if (r->works[i].state == PACKBUF_I_WORK_PULLS) left += r->works[i].size - r->works[i].posted;
  share = left / plane->pairs.count;
  if (share < PACKBUF_I_SHARE) share = PACKBUF_I_SHARE;
  for (unsigned which = 0; which < plane->pairs.count; which++) {
    packbuf_i_queue_pair *pair = &plane->pairs.pairs[which];
    packbuf_i_job *work;
    if (pair->posted) continue;
    pair->count = 0;
    pair->bytes = 0;
    while (pair->count < PACKBUF_I_CHAIN && pair->bytes < share && pair->bytes < PACKBUF_I_CHAIN_BYTES &&
           (work = packbuf_i_link_next_pull(link)) != NULL)
      work->posted += packbuf_i_pair_add(&plane->pairs, pair, (uint8_t *)work->slice.data + work->posted,
                                         link->service->slab.mr->lkey, work->address + work->posted, work->rkey,
                                         work->size - work->posted, work);
    if (packbuf_i_pair_post(&plane->pairs, which)) continue;
    packbuf_i_plane_stop(link);
    packbuf_i_link_pulls_fail(link, NULL, PACKBUF_DISCONNECTED);
    return;
  }
}

/* The READs of a chain are done: items that are whole can be put. */
static void packbuf_i_link_pulled_some(packbuf_i_link *link, const packbuf_i_queue_pair *pair, uint32_t good) {
  for (uint32_t i = 0; i < good && i < pair->count; i++) {
    packbuf_i_job *work = (packbuf_i_job *)pair->chain[i].user;
    PACKBUF_I_SERVED(link->service, bytes_moved, pair->chain[i].size);
    work->came += pair->chain[i].size;
    if (work->came < work->size || work->dropped) continue;
    work->state = PACKBUF_I_WORK_READY;
    link->ready = 1;
  }
  link->moved = packbuf_now();
}

/* Answers items that were given up while they were read, and are not any more. */
static void packbuf_i_link_pulls_given_up(packbuf_i_link *link) {
  for (packbuf_i_request *r = link->requests; r; r = r->next) {
    packbuf_i_results results;
    packbuf_i_results_begin(&results, link, r->id);
    for (unsigned i = 0; r->pulls && i < r->count; i++) {
      packbuf_i_job *work = &r->works[i];
      if (work->state == PACKBUF_I_WORK_PULLS && work->dropped && work->came == work->posted)
        packbuf_i_work_answer(&results, r, work, work->status);
    }
    packbuf_i_results_end(&results);
  }
}

/* Ends an item that is being read, with that status; 0: only once READs that are under way have ended. */
static int packbuf_i_link_pull_drop(packbuf_i_job *work, packbuf_status status) {
  if (work->posted == work->came) return 1;
  work->dropped = 1;
  work->status = status;
  return 0;
}

/* Chains have ended, as the channel says. */
static void packbuf_i_link_pulled(packbuf_i_link *link) {
  packbuf_i_plane *plane = link->plane;
  packbuf_status status;
  unsigned which;
  uint32_t good;
  if (!plane || !plane->pairs.pairs) return;
  packbuf_i_pairs_listen(&plane->pairs);
  while (plane->pairs.pairs && packbuf_i_pairs_ended(&plane->pairs, &which, &good, &status)) {
    const packbuf_i_queue_pair *pair = &plane->pairs.pairs[which];
    const packbuf_i_job *at = good < pair->count ? (const packbuf_i_job *)pair->chain[good].user : NULL;
    packbuf_i_link_pulled_some(link, pair, good);
    if (!status) continue;
    packbuf_i_plane_stop(link);
    packbuf_i_link_pulls_fail(link, at, status == PACKBUF_UNREGISTERED ? PACKBUF_SYSTEM : status);
  }
  packbuf_i_link_pulls_given_up(link);
  if (plane->pairs.pairs) packbuf_i_link_pull(link);
  link->ready = 1;
  packbuf_i_link_came(link, NULL);
}

/* ---- queue pairs ---- */

/* Makes the server's half. OK, or the status that the client is told. */
static packbuf_status packbuf_i_plane_start(packbuf_i_link *link, const packbuf_i_pairing *theirs) {
  packbuf_i_service *service = link->service;
  packbuf_i_plane *plane = link->plane;
  packbuf_status status;
  if (!plane) {
    plane = (packbuf_i_plane *)packbuf_i_heap(&service->allocator, NULL, 0, sizeof *plane);
    if (!plane) return PACKBUF_OUT_OF_MEMORY;
    link->plane = plane;
    status = packbuf_i_plot_open(service->nic, plane->words, sizeof plane->words, PACKBUF_I_IBV_REMOTE_READ,
                                 &plane->plot, NULL);
    PACKBUF_I_SERVED(service, registrations, 1);
    if (status) return status;
  }
  plane->next = 0;
  status = packbuf_i_pairs_open(&plane->pairs, service->nic, theirs->count, link->channel, link);
  return status ? status : packbuf_i_pairs_join(&plane->pairs, theirs);
}

/* PAIRING: makes queue pairs; those that were before end, and with them all leases and READs. */
static const char *packbuf_i_link_pair(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *from) {
  uint8_t bytes[PACKBUF_I_FRAME_HEADER + PACKBUF_I_PAIRING_SIZE + 8 * PACKBUF_I_PAIRS_MOST];
  packbuf_i_wire_to body = packbuf_i_frame_body(bytes, sizeof bytes);
  packbuf_i_pairing theirs, mine;
  packbuf_status status;
  const char *why = packbuf_i_pairing_read(frame, from, &theirs);
  if (why) return why;
  if (!link->paired || theirs.status) return "queue pairs that were not agreed on";
  if (link->plane) packbuf_i_plane_stop(link);
  packbuf_i_link_pulls_fail(link, NULL, PACKBUF_DISCONNECTED);
  memset(&mine, 0, sizeof mine);
  status = packbuf_i_plane_start(link, &theirs);
  if (status) {
    packbuf_i_plane_end(link);
    mine.status = (uint16_t)status;
  } else {
    packbuf_i_pairs_tell(&link->plane->pairs, &mine);
    mine.address = (uint64_t)(uintptr_t)link->plane->words;
    mine.rkey = link->plane->plot.mr->rkey;
    mine.words = PACKBUF_I_WORDS;
  }
  packbuf_i_pairing_write(&body, &mine);
  packbuf_i_link_send(link, bytes, packbuf_i_frame_end(bytes, &body, PACKBUF_I_PAIRING, mine.count, frame->request, 0));
  return NULL;
}
