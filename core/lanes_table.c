/* core/lanes_table.c: the sets of kernels of packing in blocks that this program has, and those that its processor
 * runs.
 * May use: base, lanes.c, lanes_vector.c, lanes_x86.c. Must not know: blocks, columns, errors. */

/* Slowest first; every entry needs the features of those before it. */
static const packbuf_i_lane_set packbuf_i_lane_sets[] = {
    {"plain", PACKBUF_I_LANES_ENTRIES(plain, plain), packbuf_i_plain_copy},
#if PACKBUF_I_LANES_VECTORS
    {"vector", PACKBUF_I_LANES_ENTRIES(vector, vector), packbuf_i_vector_copy},
#endif
#if PACKBUF_I_X86
    {"avx2", PACKBUF_I_LANES_ENTRIES(avx2, avx2), packbuf_i_avx2_copy},
    {"avx512", PACKBUF_I_LANES_ENTRIES(avx512, avx2), packbuf_i_avx512_copy},
    {"avx512vbmi2", PACKBUF_I_LANES_ENTRIES(avx512, avx512vbmi2), packbuf_i_avx512_copy},
#endif
};

#if PACKBUF_I_X86
/* For processors that have AVX2, but pext and pdep only in microcode: a hundred times slower. */
static const packbuf_i_lane_set packbuf_i_lane_set_avx2_slow = {"avx2", PACKBUF_I_LANES_ENTRIES(avx2, vector),
                                                                packbuf_i_avx2_copy};
#endif

/* Set number `index`, or NULL past the last one that this processor can run. 0 is always "plain". */
static const packbuf_i_lane_set *packbuf_i_lane_set_at(unsigned index) {
  if (index >= sizeof packbuf_i_lane_sets / sizeof packbuf_i_lane_sets[0]) return NULL;
#if PACKBUF_I_X86
  if (index >= 2 &&
      !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt")))
    return NULL;
  if (index >= 3 && !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")))
    return NULL;
  if (index >= 4 && !__builtin_cpu_supports("avx512vbmi2")) return NULL;
#endif
#if PACKBUF_I_X86
  if (index == 2 && (__builtin_cpu_is("znver1") || __builtin_cpu_is("znver2"))) return &packbuf_i_lane_set_avx2_slow;
#endif
  return &packbuf_i_lane_sets[index];
}

static const packbuf_i_lane_set *packbuf_i_lane_set_best(void) {
  unsigned index = (unsigned)(sizeof packbuf_i_lane_sets / sizeof packbuf_i_lane_sets[0]) - 1;
  while (index > 0 && packbuf_i_lane_set_at(index) == NULL) index--;
  return packbuf_i_lane_set_at(index);
}
