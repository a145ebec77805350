/* core/output.c: the way to the destination, checksums on the way. Short runs are copied side by side and checksummed
 * some at a time while they are in the cache; long ones are copied and checksummed in one pass, past the caches
 * where the destination is large anyway.
 * May use: checksums, gather. Must not know: what the bytes mean. */

#define PACKBUF_I_UNSUMMED 16384   /* short runs: bytes that wait for their checksum. Divides PACKBUF_I_CHUNK */
#define PACKBUF_I_LONG 8192        /* runs from here on go in one pass */
#define PACKBUF_I_STREAM_LONG 4096 /* without checksums runs from here on go past the caches */

/* A stretch of a section, written front to back. In the data section a checksum closes every 64 KiB. */
typedef struct packbuf_i_out {
  uint8_t *place;     /* where byte `first` of the section goes */
  uint64_t first, at; /* next byte of the section */
  uint64_t limit;     /* and where the room at `place` ends */
  uint64_t summed;    /* bytes of the section that are in the checksums */
  uint8_t *checksums; /* of the whole data section; NULL: none */
  const packbuf_i_crc_kernel *kernel;
  packbuf_i_gather gather, copy_long; /* copy_long: non-temporal, where there are no checksums; else NULL */
  uint32_t crc;                       /* of the current 64 KiB so far */
  int stream;                         /* non-temporal stores */
} packbuf_i_out;

/* Takes the bytes up to `to` into the checksums: those at `bytes`, which are copied on the way, or (NULL) those that
 * are in place already. */
static void packbuf_i_out_sum(packbuf_i_out *out, uint64_t to, const uint8_t *bytes, const uint8_t *ahead) {
  while (out->summed < to) {
    uint64_t inside = out->summed % PACKBUF_I_CHUNK, left = PACKBUF_I_CHUNK - inside;
    uint64_t piece = left < to - out->summed ? left : to - out->summed;
    uint8_t *place = out->place + (out->summed - out->first);
    out->summed += piece;
    if (bytes) {
      out->crc = out->kernel->copy_crc(out->crc, place, bytes, (size_t)piece, out->stream ? 2 : 0,
                                       out->summed < to ? bytes + piece : ahead);
      bytes += piece;
    } else {
      out->crc = out->kernel->crc(out->crc, place, (size_t)piece);
    }
    if (piece == left) {
      packbuf_i_store32(out->checksums + (out->summed / PACKBUF_I_CHUNK - 1) * 4, out->crc);
      out->crc = 0;
    }
  }
}

/* Where the next bytes go; packbuf_i_out_written counts them once they are there. */
static uint8_t *packbuf_i_out_here(const packbuf_i_out *out) { return out->place + (out->at - out->first); }

static void packbuf_i_out_written(packbuf_i_out *out, uint64_t size) {
  out->at += size;
  if (out->checksums && out->at - out->summed >= PACKBUF_I_UNSUMMED) packbuf_i_out_sum(out, out->at, NULL, NULL);
}

/* Bytes from host memory; `ahead`: where the next ones will come from, or NULL. */
static void packbuf_i_out_bytes(packbuf_i_out *out, const uint8_t *bytes, uint64_t size, const uint8_t *ahead) {
  if (out->copy_long && size >= PACKBUF_I_STREAM_LONG) {
    out->copy_long(packbuf_i_out_here(out), bytes, (size_t)size, ahead);
    out->at += size;
  } else if (size < PACKBUF_I_LONG) {
    out->gather(packbuf_i_out_here(out), bytes, (size_t)size, ahead);
    packbuf_i_out_written(out, size);
  } else if (out->checksums) {
    packbuf_i_out_sum(out, out->at, NULL, NULL);
    out->at += size;
    packbuf_i_out_sum(out, out->at, bytes, ahead);
  } else {
    memcpy(packbuf_i_out_here(out), bytes, (size_t)size);
    out->at += size;
  }
}

/* The payload of a packed block, from the first-level cache, copied and checksummed in one pass, past the caches where
 * that pays. */
static void packbuf_i_out_payload(packbuf_i_out *out, const uint8_t *bytes, uint64_t size) {
  if (out->checksums) {
    packbuf_i_out_sum(out, out->at, NULL, NULL);
    out->at += size;
    packbuf_i_out_sum(out, out->at, bytes, NULL);
  } else {
    if (out->copy_long) out->copy_long(packbuf_i_out_here(out), bytes, (size_t)size, NULL);
    else if (size) memcpy(packbuf_i_out_here(out), bytes, (size_t)size);
    out->at += size;
  }
}

static void packbuf_i_out_zeros(packbuf_i_out *out, uint64_t size) {
  if (size) memset(packbuf_i_out_here(out), 0, (size_t)size);
  packbuf_i_out_written(out, size);
}

/* Starts at byte `first` of a section, which goes to `place`; with checksums a multiple of 64 KiB. There is room up to
 * byte `limit`. */
static void packbuf_i_out_begin(packbuf_i_out *out, uint8_t *place, uint64_t first, uint64_t limit, uint8_t *checksums,
                                int stream) {
  memset(out, 0, sizeof *out);
  out->place = place;
  out->first = out->at = out->summed = first;
  out->limit = limit;
  out->checksums = checksums;
  out->kernel = packbuf_i_crc_kernel_best();
  out->gather = packbuf_i_gather_best();
  out->stream = stream;
  if (stream && !checksums) out->copy_long = packbuf_i_stream_best();
}

/* What was written is in place and in the checksums. */
static void packbuf_i_out_settle(packbuf_i_out *out) {
  if (out->checksums) packbuf_i_out_sum(out, out->at, NULL, NULL);
  if (out->stream) packbuf_i_crc_fence();
}

/* Ends the stretch: a checksum of less than 64 KiB, the section's last, is stored. */
static void packbuf_i_out_end(packbuf_i_out *out) {
  packbuf_i_out_settle(out);
  if (out->checksums && out->at % PACKBUF_I_CHUNK)
    packbuf_i_store32(out->checksums + out->at / PACKBUF_I_CHUNK * 4, out->crc);
}
