/* Tiny TAP producer for the C tests: one file a program, C99 and C++17. Test-only; knows nothing of packbuf.
 *
 *     tap_ok(size == 64, "empty batch takes %d bytes", 64);    one test
 *     tap_skip("no sample data");                              one test that could not run (a failure where CI=true)
 *     tap_note("kernel set %s", name);                         a comment
 *     return tap_plan_done();                                  last line of main
 */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__GNUC__)
#define TAP_PRINTF(format_at, first) __attribute__((format(printf, format_at, first)))
#else
#define TAP_PRINTF(format_at, first)
#endif

/* Long exhaustive loops do every TAP_STEP-th round: more than 1 where the program runs under an emulator. */
#ifndef TAP_STEP
#define TAP_STEP 1
#endif

static int tap_count, tap_failed;

TAP_PRINTF(4, 5) static inline int tap_check(int passed, const char *file, int line, const char *format, ...)
{
    va_list args;
    tap_count++;
    printf("%sok %d - ", passed ? "" : "not ", tap_count);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    if (!passed) {
        tap_failed++;
        printf("# %s:%d\n", file, line);
        fflush(stdout);
        fprintf(stderr, "# %s:%d: not ok %d - ", file, line, tap_count); /* prove shows only this */
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        fprintf(stderr, "\n");
    }
    fflush(stdout);
    return passed;
}

/* tap_ok(condition, format, ...): true when the condition holds, so that a test can stop early. The condition is
 * evaluated first: the words may tell of the error that it left. */
#define tap_ok(condition, ...) \
  ((condition) ? tap_check(1, __FILE__, __LINE__, __VA_ARGS__) : tap_check(0, __FILE__, __LINE__, __VA_ARGS__))

static inline void tap_skip(const char *reason)
{
    tap_count++;
    printf("ok %d # SKIP %s\n", tap_count, reason);
    fflush(stdout);
}

TAP_PRINTF(1, 2) static inline void tap_note(const char *format, ...)
{
    va_list args;
    printf("# ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
}

/* The folder of the sample data outside the project, or NULL: what needs it then only says so (tap_note). */
static inline const char *tap_data(void)
{
    const char *folder = getenv("PACKBUF_DATA");
    return folder && folder[0] ? folder : NULL;
}

/* Prints the plan; the exit status of main. */
static inline int tap_plan_done(void)
{
    printf("1..%d\n", tap_count);
    fflush(stdout);
    return tap_failed != 0 || tap_count == 0;
}

#endif
