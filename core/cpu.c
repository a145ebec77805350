/* core/cpu.c: what the processor has, as a set of bits. Every choice between kernels is a function of such a set
 * alone.
 * May use: base. Must not know: what kernels there are. */

#define PACKBUF_I_CPU_LIST(X)       \
  X(SSE42, 0, "sse4.2")             \
  X(PCLMUL, 1, "pclmul")            \
  X(POPCNT, 2, "popcnt")            \
  X(AVX, 3, "avx")                  \
  X(AVX2, 4, "avx2")                \
  X(BMI2, 5, "bmi2")                \
  X(AVX512F, 6, "avx512f")          \
  X(AVX512BW, 7, "avx512bw")        \
  X(AVX512DQ, 8, "avx512dq")        \
  X(AVX512VL, 9, "avx512vl")        \
  X(AVX512VBMI2, 10, "avx512vbmi2") \
  X(VPCLMULQDQ, 11, "vpclmulqdq")

/* clang-format off */
enum {
#define PACKBUF_I_X(name, bit, text) PACKBUF_I_CPU_##name = 1 << bit,
  PACKBUF_I_CPU_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
  PACKBUF_I_CPU_FAST_PEXT = 1 << 12, /* pext and pdep, if any, are not microcode, which is a hundred times slower */
  PACKBUF_I_CPU_ARM_CRC = 1 << 13,
  PACKBUF_I_CPU_ALL = (1 << 14) - 1
};
/* clang-format on */

#define PACKBUF_I_CPU_ARM 0
#if !PACKBUF_NO_SIMD && defined(__AARCH64EL__) && defined(__GNUC__) && !defined(__TINYC__)
#if defined(__ARM_FEATURE_CRC32) || defined(__linux__)
#undef PACKBUF_I_CPU_ARM
#define PACKBUF_I_CPU_ARM 1
#endif
#if !defined(__ARM_FEATURE_CRC32) && defined(__linux__)
#include <sys/auxv.h> /* optional in ARMv8.0: the kernel of the operating system says whether it is there */
#endif
#endif

#if defined(__GNUC__)
#define PACKBUF_I_CPU_INLINE static inline __attribute__((always_inline, unused))
#else
#define PACKBUF_I_CPU_INLINE static inline
#endif

/* Those of the features asked for, a constant, that this processor has. */
PACKBUF_I_CPU_INLINE unsigned packbuf_i_cpu_has(unsigned asked) {
  unsigned has = 0;
#if PACKBUF_I_X86
#define PACKBUF_I_X(name, bit, text) \
  if (asked & PACKBUF_I_CPU_##name && __builtin_cpu_supports(text)) has |= PACKBUF_I_CPU_##name;
  PACKBUF_I_CPU_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
  if (asked & PACKBUF_I_CPU_FAST_PEXT && !__builtin_cpu_is("znver1") && !__builtin_cpu_is("znver2"))
    has |= PACKBUF_I_CPU_FAST_PEXT;
#elif PACKBUF_I_CPU_ARM && defined(__ARM_FEATURE_CRC32)
  has = asked & PACKBUF_I_CPU_ARM_CRC;
#elif PACKBUF_I_CPU_ARM
  if (asked & PACKBUF_I_CPU_ARM_CRC && getauxval(AT_HWCAP) >> 7 & 1) has = PACKBUF_I_CPU_ARM_CRC; /* HWCAP_CRC32 */
#endif
  (void)asked;
  return has;
}

/* For tests, which say what the processor has, and stand between a choice and those who use it; kind names the
 * choice. */
#ifndef PACKBUF_I_CPU
#define PACKBUF_I_CPU(asked) packbuf_i_cpu_has(asked)
#endif
#ifndef PACKBUF_I_CHOSEN
#define PACKBUF_I_CHOSEN(kind, kernels) (kernels)
#endif
