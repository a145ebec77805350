/* tools/options.c: reads a subcommand's options, in any order, `--name=value` or `--name value`, letters alone or with
 * their value; `--` ends them.
 * May use: messages. Must not know: what the options mean. */
#include "tool.h"

void strings_add(strings *list, const char *item) {
  list->items = (const char **)must_resize(list->items, (list->count + 1) * sizeof *list->items);
  list->items[list->count++] = item;
}

void strings_free(strings *list) {
  free(list->items);
  memset(list, 0, sizeof *list);
}

static void set_option(const verb *command, const option *found, const char *shown, const char *value) {
  if (found->flag) {
    if (value) fail_usage(command, "%s takes no value", shown);
    *found->flag = 1;
  } else if (found->text) {
    *found->text = value;
  } else {
    strings_add(found->list, value);
  }
}

/* --name or --name=value at argv[i]; returns the index of the last argument used. */
static int long_option(const verb *command, int argc, char **argv, int i, const option *options) {
  const char *name = argv[i] + 2, *equals = strchr(name, '='), *value = equals ? equals + 1 : NULL;
  size_t size = equals ? (size_t)(equals - name) : strlen(name);
  for (; options->name; options++)
    if (strlen(options->name) == size && memcmp(options->name, name, size) == 0) break;
  if (!options->name) fail_usage(command, "unknown option --%.*s", (int)size, name);
  if (!options->flag && !value) {
    if (i + 1 >= argc) fail_usage(command, "--%s needs a value", options->name);
    value = argv[++i];
  }
  set_option(command, options, options->name, value);
  return i;
}

/* -x, -xVALUE, -x VALUE, -xy at argv[i]. */
static int short_options(const verb *command, int argc, char **argv, int i, const option *options) {
  const char *letter;
  for (letter = argv[i] + 1; *letter; letter++) {
    const option *found = options;
    char shown[3] = {'-', *letter, 0};
    while (found->name && found->letter != *letter) found++;
    if (!found->name) fail_usage(command, "unknown option -%c", *letter);
    if (found->flag) {
      set_option(command, found, shown, NULL);
      continue;
    }
    if (letter[1]) {
      set_option(command, found, shown, letter + 1);
      return i;
    }
    if (i + 1 >= argc) fail_usage(command, "-%c needs a value", *letter);
    set_option(command, found, shown, argv[i + 1]);
    return i + 1;
  }
  return i;
}

void parse_options(const verb *command, int argc, char **argv, const option *options, strings *rest) {
  int i, ended = 0;
  for (i = 0; i < argc; i++) {
    if (ended || argv[i][0] != '-' || !argv[i][1]) {
      strings_add(rest, argv[i]);
    } else if (strcmp(argv[i], "--") == 0) {
      ended = 1;
    } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      output out;
      output_open(&out, "-");
      output_write(&out, command->help, strlen(command->help));
      output_close(&out);
      exit(TOOL_OK);
    } else if (argv[i][1] == '-') {
      i = long_option(command, argc, argv, i, options);
    } else {
      i = short_options(command, argc, argv, i, options);
    }
  }
}

/* Decimal digits up to `end`; 0 when there are none, or too many. */
static int read_digits(const char *from, const char *end, uint64_t *number) {
  *number = 0;
  if (from == end) return 0;
  for (; from < end; from++) {
    if (*from < '0' || *from > '9' || *number > (UINT64_MAX - 9) / 10) return 0;
    *number = *number * 10 + (uint64_t)(*from - '0');
  }
  return 1;
}

uint64_t parse_number(const verb *command, const char *name, const char *string) {
  uint64_t number;
  if (!read_digits(string, string + strlen(string), &number))
    fail_usage(command, "--%s: '%s' is no number", name, string);
  return number;
}

uint64_t parse_size(const verb *command, const char *name, const char *string) {
  static const char units[] = "kmgt";
  const char *end = string + strlen(string), *unit = string < end ? strchr(units, end[-1] | 0x20) : NULL;
  const unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
  uint64_t number;
  if (!read_digits(string, unit ? end - 1 : end, &number) || !number || number > UINT64_MAX >> 1 >> shift)
    fail_usage(command, "--%s: '%s' is no size such as 1000000, 64m or 8g", name, string);
  return number << shift;
}

uint64_t parse_age(const verb *command, const char *name, const char *string) {
  static const char units[] = "smhd";
  static const uint64_t lengths[] = {1000, 60000, 3600000, 86400000};
  const char *end = string + strlen(string), *unit = string < end ? strchr(units, end[-1]) : NULL;
  uint64_t number;
  if (!unit || !read_digits(string, end - 1, &number) || number > UINT32_MAX)
    fail_usage(command, "--%s: '%s' is no time such as 30s, 10m, 12h or 2d", name, string);
  return number * lengths[unit - units];
}

/* One end of a range: empty gives `otherwise`; negative counts from the end. Clamped to 0..rows + 1. */
static int read_end(const char *from, const char *end, uint64_t rows, uint64_t otherwise, uint64_t *row) {
  uint64_t number;
  int negative = from < end && *from == '-';
  if (from == end) {
    *row = otherwise;
    return 1;
  }
  if (!read_digits(from + negative, end, &number)) return 0;
  if (negative) *row = number > rows ? 0 : rows - number;
  else *row = number;
  return 1;
}

row_range parse_rows(const verb *command, const char *string, const char *file, uint64_t rows) {
  row_range range = {0, rows};
  const char *colon, *end;
  uint64_t last = rows;
  if (!string) return range;
  end = string + strlen(string);
  colon = strchr(string, ':');
  if (!*string || !read_end(string, colon ? colon : end, rows, 0, &range.first) ||
      (colon && !read_end(colon + 1, end, rows, rows, &last)))
    fail_usage(command, "--rows: '%s' is no range such as 3, 10:20, 10:, :20 or -5:%s", string,
               colon && strchr(colon + 1, ':') ? " (a step is for packbuf ranges)" : "");
  if (!colon) {
    uint64_t number = 0;
    int beyond = *string == '-' && read_digits(string + 1, end, &number) && number > rows;
    if (beyond || range.first >= rows)
      fail(file, "row %s lies beyond the end: there are %llu rows", string, (unsigned long long)rows);
    range.count = 1;
    return range;
  }
  if (last > rows) last = rows;
  if (range.first > last) range.first = last;
  range.count = last - range.first;
  return range;
}
