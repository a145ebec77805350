/* core/lanes_table.c: the sets of kernels of packing in blocks that this program has, and those that its processor
 * runs.
 * May use: cpu, lanes.c and the files of its sets. Must not know: blocks, columns, errors. */

#if PACKBUF_I_X86
enum {
  PACKBUF_I_LANES_NEED_AVX2 = PACKBUF_I_CPU_AVX2 | PACKBUF_I_CPU_BMI2 | PACKBUF_I_CPU_POPCNT,
  PACKBUF_I_LANES_NEED_PEXT = PACKBUF_I_LANES_NEED_AVX2 | PACKBUF_I_CPU_FAST_PEXT,
  PACKBUF_I_LANES_NEED_AVX512 = PACKBUF_I_LANES_NEED_PEXT | PACKBUF_I_CPU_AVX512F | PACKBUF_I_CPU_AVX512BW |
                                PACKBUF_I_CPU_AVX512DQ | PACKBUF_I_CPU_AVX512VL,
  PACKBUF_I_LANES_NEED_VBMI2 = PACKBUF_I_LANES_NEED_AVX512 | PACKBUF_I_CPU_AVX512VBMI2
};
#endif

/* Slowest first; every entry needs the features of those before it. What is native of "simde" is slower than "vector"
 * on x86, whose SSE2 has neither tests nor shuffles of bytes; elsewhere its split takes half the instructions and its
 * join as many whatever the bytes are, where that of "vector" has a branch for each (neither was timed). */
static const packbuf_i_lane_set packbuf_i_lane_sets[] = {
    {"plain", PACKBUF_I_LANES_ENTRIES(plain, plain), packbuf_i_plain_copy, 0},
#if PACKBUF_I_LANES_SIMDE && PACKBUF_I_X86
    {"simde", PACKBUF_I_LANES_ENTRIES(simde, simde), packbuf_i_simde_copy, 0},
#endif
#if PACKBUF_I_LANES_VECTORS
    {"vector", PACKBUF_I_LANES_ENTRIES(vector, vector), packbuf_i_vector_copy, 0},
#endif
#if PACKBUF_I_LANES_SIMDE && !PACKBUF_I_X86
    {"simde", PACKBUF_I_LANES_ENTRIES(simde, simde), packbuf_i_simde_copy, 0},
#endif
#if PACKBUF_I_X86
    {"avx2slow", PACKBUF_I_LANES_ENTRIES(avx2, vector), packbuf_i_avx2_copy, PACKBUF_I_LANES_NEED_AVX2},
    {"avx2", PACKBUF_I_LANES_ENTRIES(avx2, avx2), packbuf_i_avx2_copy, PACKBUF_I_LANES_NEED_PEXT},
    {"avx512", PACKBUF_I_LANES_ENTRIES(avx512, avx2), packbuf_i_avx512_copy, PACKBUF_I_LANES_NEED_AVX512},
    {"avx512vbmi2", PACKBUF_I_LANES_ENTRIES(avx512, avx512vbmi2), packbuf_i_avx512_copy, PACKBUF_I_LANES_NEED_VBMI2},
#endif
};
enum { PACKBUF_I_LANE_SETS = sizeof packbuf_i_lane_sets / sizeof packbuf_i_lane_sets[0] };

/* The number of the best set for a processor that has these features. */
static inline unsigned packbuf_i_lane_set_choose(unsigned has) {
  unsigned index = PACKBUF_I_LANE_SETS - 1;
  while (packbuf_i_lane_sets[index].needs & ~has) index--;
  return index;
}

static unsigned packbuf_i_lane_set_last(void) {
  return packbuf_i_lane_set_choose(PACKBUF_I_CPU(packbuf_i_lane_sets[PACKBUF_I_LANE_SETS - 1].needs));
}

/* Set number `index`, or NULL past the last one that this processor can run. 0 is always "plain". */
static const packbuf_i_lane_set *packbuf_i_lane_set_at(unsigned index) {
  return index <= packbuf_i_lane_set_last() ? &packbuf_i_lane_sets[index] : NULL;
}

static const packbuf_i_lane_set *packbuf_i_lane_set_best(void) {
  return PACKBUF_I_CHOSEN(lanes, &packbuf_i_lane_sets[packbuf_i_lane_set_last()]);
}
