/* Runs a fuzz target over files as an ordinary program: any compiler, no libFuzzer. Prints TAP, one line a file, after the
 * empty input. The files are those of the paths given (folders with all below them), else of fuzz/corpus/FUZZ_TARGET and
 * spec/vectors. Every input lies in an allocation of exactly its size, so that AddressSanitizer sees a read past its end. */
#define _POSIX_C_SOURCE 200809L
#include "../tests/tap.h"
#include <dirent.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path, size_t size)
{
    uint8_t *memory = (uint8_t *)calloc(1, size ? size : 1);
    uint8_t *data = memory && !size ? memory + 1 : memory; /* no byte of it is readable when there is none */
    FILE *file = path ? fopen(path, "rb") : NULL;
    int complete = memory && (!path || (file && fread(data, 1, size, file) == size));
    if (file)
        fclose(file);
    tap_note("%s", path ? path : "empty input"); /* before the run: a crash names its input */
    if (complete)
        (void)LLVMFuzzerTestOneInput(data, size);
    free(memory);
    return complete;
}

static void run_path(const char *path, int depth)
{
    struct stat info;
    struct dirent **names;
    int count;
    if (stat(path, &info) != 0) {
        tap_ok(0, "%s: cannot be read", path);
        return;
    }
    if (!S_ISDIR(info.st_mode)) {
        tap_ok(run_file(path, (size_t)info.st_size), "%s: %lu bytes", path, (unsigned long)info.st_size);
        return;
    }
    count = depth < 8 ? scandir(path, &names, NULL, alphasort) : -1;
    if (count < 0) {
        tap_ok(0, "%s: cannot be listed", path);
        return;
    }
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.') {
            size_t length = strlen(path) + strlen(names[i]->d_name) + 2;
            char *below = (char *)malloc(length);
            if (below) {
                snprintf(below, length, "%s/%s", path, names[i]->d_name);
                run_path(below, depth + 1);
            } else {
                tap_ok(0, "%s: out of memory", path);
            }
            free(below);
        }
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    static const char *const usual[] = { "fuzz/corpus/" FUZZ_TARGET, "spec/vectors" };
    tap_ok(run_file(NULL, 0), "%s: empty input", FUZZ_TARGET);
    for (int i = 1; i < argc; i++)
        run_path(argv[i], 0);
    for (size_t i = 0; argc < 2 && i < sizeof usual / sizeof usual[0]; i++) {
        struct stat info;
        if (stat(usual[i], &info) == 0)
            run_path(usual[i], 0);
    }
    return tap_plan_done();
}
