/* tools/packbuf.c: the `packbuf` command: its help, and which subcommand runs.
 * May use: the files beside it. Must not know: what a subcommand does. */
#include "tool.h"

static const char help_pack[] =
    "Usage: packbuf pack IN... -o OUT.pbuf [options]\n"
    "Packs files into one packed buffer. All inputs have the same number of rows; a field name may occur once.\n"
    "\n"
    "  IN.jsonl            a dict a line; each key becomes a field. Blank lines are skipped; - is stdin\n"
    "  IN.npy              a field named by the file's stem; rows are the first dimension\n"
    "  IN.npz              a field for each member\n"
    "  IN.safetensors      a field for each tensor; __metadata__ becomes metadata of the buffer\n"
    "Arrays without a dimension become batch values. Cells of .jsonl may be tagged JSON: {\"$bytes\":BASE64}, {\"$file\":PATH} (the bytes of\n"
    "a file), {\"$media\":{\"mime\":...,\"data\":BASE64 or \"file\":PATH}}, {\"$tensor\":...} and the others of section 22 of the spec.\n"
    "\n"
    "  -o, --output FILE   where to write; - is stdout\n"
    "  --values FILE.json  a dict of batch values\n"
    "  --packing WORD      how numbers are packed: balanced (default), fastest, smallest; none: not packed; auto: as --link says.\n"
    "                      Rows that are shared stay shared: for pointers to every row there is keep_plain in a schema file\n"
    "  --link GBITS        packed for a link of so many Gb/s: below 2 smallest, below 100 balanced, below 200 fastest, else none.\n"
    "                      Divided by the threads at each end: 100 Gb/s and four threads are 25\n"
    "  --schema FILE.json  {\"PATH\": {\"codec\": \"utf8_ragged\", \"dtype\": \"int32\", \"keep_plain\": true, \"not_nullable\": true,\n"
    "                      \"packing\": \"none\", \"timestamp\": \"ns\", \"value\": true, \"view\": \"bfloat16\"}}; packing: of this column\n"
    "                      alone, value: the path is that of a batch value, view: the bits of an array are of this dtype\n"
    "  --metadata KEY=TEXT metadata of the buffer (repeatable)\n"
    "  --ragged DATA=OFFS  the array DATA holds ragged rows that the array OFFS delimits (repeatable)\n"
    "  --as-values         arrays are batch values as a whole, such as weights; their shapes are free\n"
    "  --align N           buffers at multiples of N: 64 (default) to 4096\n"
    "  --no-checksums      no checksums of the data\n"
    "  --allow-paths       $file may name any file, not only those in the folder of the .jsonl\n"
    "  --no-tags           objects of JSON are taken as they are\n";

static const char help_unpack[] =
    "Usage: packbuf unpack FILE.pbuf [-o rows.jsonl | -d DIR] [options]\n"
    "Writes the rows as JSON lines (tagged JSON, missing keys left out), to stdout unless told otherwise.\n"
    "\n"
    "  -o, --output FILE   where to write the rows\n"
    "  -d, --directory DIR a folder instead: NAME.npy for dense fields of numbers, NAME.npy and NAME_offsets.npy for ragged ones, NAME.jsonl\n"
    "                      (a cell a line) for all else, values.json for the batch values\n"
    "  --fields a,b.c,d.*  only these paths or patterns (repeatable; a comma in a name is \\,)\n"
    "  --rows 10:20        only these rows: 3, 10:20, 10:, :20, -5:\n"
    "  --no-verify         do not verify the whole file first\n"
    "  --decoded-bytes N   the most bytes that anything may unpack to (2^40)\n"
    "  -q, --quiet         no notes on stderr\n";

static const char help_infer[] = "Usage: packbuf infer IN.jsonl [--json] [--compat]\n"
                                 "Shows what the columns of a .jsonl file (- is stdin) would be stored as, and why.\n"
                                 "\n"
                                 "  --json              for machines\n"
                                 "  --compat            the rules of Mooncake's merged structured codec instead of the strict ones\n";

static const char help_inspect[] = "Usage: packbuf inspect FILE.pbuf [--json]\n"
                                   "Shows what a packed buffer holds: fields, codecs, dtypes, shapes, how data are stored, bytes, metadata. Reads\n"
                                   "its head, and the headers of packed blocks.\n"
                                   "\n"
                                   "  --json              for machines\n";

static const char help_verify[] =
    "Usage: packbuf verify FILE.pbuf... [options]\n"
    "Exits with 0 when the files are valid, else with 1 and a line that names rule, error, byte offset, field and row.\n"
    "\n"
    "  --level LEVEL       head: header and records; index: also offsets, masks, block headers, all of the index;\n"
    "                      full (default): also the data, packed ones block by block\n"
    "  --decoded-bytes N   the most bytes that anything may unpack to (2^40)\n"
    "  -q, --quiet         nothing on stdout\n";

static const char help_cat[] = "Usage: packbuf cat FILE.pbuf --field PATH [--rows 3|10:20]\n"
                               "Prints cells as tagged JSON, one a line.\n"
                               "\n"
                               "  -f, --field PATH    such as a, meta.step, calls[0].name\n"
                               "  --value PATH        a batch value instead\n"
                               "  --rows 10:20        only these rows: 3, 10:20, 10:, :20, -5:\n"
                               "  --decoded-bytes N   the most bytes that anything may unpack to (2^40)\n";

static const char help_diff[] =
    "Usage: packbuf diff A.pbuf B.pbuf [options]\n"
    "Exits with 0 when both hold equal batches (values, types, null and missing; not the storage), else with 1 and the first differences.\n"
    "\n"
    "  --max N             stop after N differences (10)\n"
    "  --metadata          compare metadata too\n"
    "  --decoded-bytes N   the most bytes that anything may unpack to (2^40)\n"
    "  -q, --quiet         only the exit code\n";

static const char help_ranges[] =
    "Usage: packbuf ranges FILE.pbuf [options]\n"
    "Prints which bytes a selection needs beside head and index, a line of offset and length for each range. Reads head and index only; FILE may\n"
    "hold no more than these.\n"
    "\n"
    "  --fields a,b.c,d.*  only these paths or patterns: * in a name, [*] any item, ** any depth, !PATTERN takes away (repeatable)\n"
    "  --rows 10:20:2      only these rows, as Python's slices: 3, 10:20, -5:, ::8\n"
    "  --values            the batch values too\n"
    "  --gap N             join ranges with at most N bytes between them (0)\n"
    "  --chunks            whole 64 KiB chunks, so that the checksums of all that is fetched can be checked\n"
    "  --json              for machines: also the lengths of the file and of head and index\n";

static const char help_schema[] =
    "Usage: packbuf schema FILE.pbuf [--fingerprint | --expect WHAT]\n"
    "Prints which columns there are and of what type: a JSON object a line, in an order of their own, then the fingerprint of these lines.\n"
    "\n"
    "  --fingerprint       only the fingerprint: 32 hexadecimal digits\n"
    "  --expect WHAT       a fingerprint, a file of schema lines, or a FILE.pbuf: exits with 1 and a line that says where they differ\n";

static const char help_concat[] =
    "Usage: packbuf concat FILE.pbuf... -o OUT.pbuf [options]\n"
    "Writes the rows of all files, in this order, as one packed buffer. Columns must be of one type in all files; else the line says which\n"
    "column of which file is not.\n"
    "\n"
    "  -o, --output FILE   where to write; - is stdout\n"
    "  --manifest M.pbuf   the files are the fragments that M lists, in its order: rows and fields are joined as it says\n"
    "  --widen             columns of different types become one that holds all their values; cells of fields that a file lacks are missing\n"
    "  --first-value       batch values and metadata that differ: those of the first file\n"
    "  --packing WORD      as for pack, whatever the files' own is: balanced (default), fastest, smallest, none, auto\n"
    "  --link GBITS        as for pack\n"
    "  --decoded-bytes N   the most bytes that anything may unpack to (2^40)\n";

static const char help_put[] =
    "Usage: packbuf put URI KEY FILE [options]\n"
    "Puts a file (- is stdin) into a store and prints its ref, which names this very object. A packed buffer is put as a batch, with what a\n"
    "reader fetches first; anything else as bytes. shm:NAME is made when it is not there (shm:NAME?size=8g says how large).\n"
    "\n"
    "  URI                 shm:NAME, tcp://HOST:PORT, verbs://HOST:PORT, mooncake://HOST:PORT; options: URI?name=value&name=value. A secret\n"
    "                      is taken from PACKBUF_SECRET or the file PACKBUF_SECRET_FILE. What crosses a network is not encrypted\n"
    "  --bytes             as bytes, whatever it is\n"
    "  --ttl MS            dropped after so many milliseconds\n"
    "  --evictable         may be dropped when room is wanted\n"
    "  --no-verify         do not verify the packed buffer first\n"
    "  --timeout MS        give up after so many milliseconds (60000)\n"
    "  --json              for machines: what packbuf stat --json prints\n";

static const char help_get[] =
    "Usage: packbuf get URI KEY|REF -o FILE [options]\n"
    "Gets what is newest under a key, or the very object of a ref, and checks it. What was appended to comes as one batch.\n"
    "\n"
    "  -o, --output FILE   where to write; - is stdout\n"
    "  --manifest          of what was appended to: the list of its fragments\n"
    "  --widen             and as for concat: columns of different types become one that holds all their values\n"
    "  --first-value       batch values and metadata that differ: those of the first fragment\n"
    "  --no-verify         a packed buffer is not verified beyond its head\n"
    "  --timeout MS        give up after so many milliseconds (60000)\n";

static const char help_ls[] = "Usage: packbuf ls URI [PREFIX] [options]\n"
                              "Lists the objects whose keys begin with PREFIX, by key.\n"
                              "\n"
                              "  --json              for machines: an object a line\n"
                              "  --timeout MS        give up after so many milliseconds (60000)\n";

static const char help_rm[] =
    "Usage: packbuf rm URI KEY|REF... [options]\n"
    "       packbuf rm URI --prefix PREFIX | --orphans [options]\n"
    "Removes objects; of a manifest also what it lists. Exits with 1 and a line for each key that is not there.\n"
    "\n"
    "  --prefix PREFIX     all whose keys begin so, such as what a job left behind ('': all)\n"
    "  --orphans           fragments that no manifest lists, as an append that was killed leaves them (with --prefix: of these keys)\n"
    "  --older-than AGE    with either: what was put longer ago than that, such as 30s, 10m, 12h or 2d (orphans: 10m)\n"
    "  --dry-run           with either: prints the keys and removes nothing\n"
    "  --force             mooncake: also against a lease of the engine\n"
    "  --timeout MS        give up after so many milliseconds (60000)\n";

static const char help_stat[] = "Usage: packbuf stat URI KEY|REF... [options]\n"
                                "Says what the store knows of objects, and prints their refs.\n"
                                "\n"
                                "  --json              for machines: an object a line\n"
                                "  --timeout MS        give up after so many milliseconds (60000)\n";

static const char help_store[] =
    "Usage: packbuf store URI [options]\n"
    "Says what a store is, what it can do, how full it is, and its counters; of shm:NAME also who has it open, what they hold, and how its\n"
    "free memory lies.\n"
    "\n"
    "  --collect           first takes back what is out of date, and what processes that died held\n"
    "  --check             shm: whether every byte, object and lease is accounted for; exits with 1 and a line for each kind that is not\n"
    "  --free              shm: takes the store away, with all that is in it, unless others have it open\n"
    "  --force             with --free: even so; what they hold stays readable for them\n"
    "  --json              for machines\n"
    "  --timeout MS        give up after so many milliseconds (60000)\n";

static const char help_serve[] =
    "Usage: packbuf serve tcp://HOST:PORT [options]\n"
    "Serves a store to many machines until SIGINT or SIGTERM. Prints the URI that clients take: port 0 is any free one, no HOST is loopback.\n"
    "Beyond loopback a secret is needed: PACKBUF_SECRET or the file PACKBUF_SECRET_FILE. Nothing is encrypted.\n"
    "\n"
    "  --store URI         what is served: local: (default; its objects go with the server) or shm:NAME\n"
    "  --size N            bytes for objects of a store that this makes; k, m, g, t are powers of 1024 (256m)\n"
    "  --metrics HOST:PORT counters for Prometheus over HTTP\n"
    "  --device NAME       of verbs://: DEVICE[:PORT[:GID INDEX]], such as mlx5_0; else the one that has HOST's address\n"
    "  -v, --verbose       connections that were refused or failed, recoveries and evictions on stderr\n";

static const char help_doctor[] =
    "Usage: packbuf doctor [URI] [options]\n"
    "Looks at this machine with the eyes of a store (without URI: of all): a line each of what, what was found, and what to do. Memory and\n"
    "its limits, huge pages, devices, libraries, whether the other side answers. Changes nothing. Exits with 1 when there is a problem.\n"
    "\n"
    "  --json              for machines: an object a line\n"
    "  --timeout MS        how long the other side may take to answer (5000)\n";

static const char help_bench_store[] =
    "Usage: packbuf bench-store URI [options]\n"
    "What put, get, get-in-place, stat and remove cost in a store, by object size and batch size: GB/s, keys a second, times of a call,\n"
    "registrations for each key, bytes moved for each byte asked. In memory of this machine beside memcpy of the same bytes. Makes a store\n"
    "shm:NAME that is not there, and leaves it. What does not fit a quarter of the store is left out: shm:NAME?size=4g takes more.\n"
    "\n"
    "  --sizes LIST        object sizes (64,4k,64k,1m,16m)\n"
    "  --batches LIST      keys in one call (1,16,256)\n"
    "  --ops LIST          some of put,get,get-in-place,stat,remove (all that the store can do)\n"
    "  --seconds N         for each line (0.5)\n"
    "  --quick             0.1 s for each line: under 20 s in all\n"
    "  --iperf3            tcp: beside single streams of iperf3 on this machine, from 64 KiB on\n"
    "  --congestion NAME   of those streams; the store takes reno on loopback (the system's)\n"
    "  --json              one JSON document\n"
    "  --timeout MS        for each call (60000)\n";

static const verb commands[] = {{"pack", "files to a packed buffer", help_pack, run_pack},
                                {"unpack", "a packed buffer to JSON lines or a folder of files", help_unpack, run_unpack},
                                {"infer", "what a .jsonl file would be stored as", help_infer, run_infer},
                                {"inspect", "what a packed buffer holds", help_inspect, run_inspect},
                                {"verify", "is it valid?", help_verify, run_verify},
                                {"cat", "the cells of one field", help_cat, run_cat},
                                {"diff", "do two packed buffers hold the same?", help_diff, run_diff},
                                {"schema", "which columns it has, and their fingerprint", help_schema, run_schema},
                                {"concat", "the rows of many packed buffers as one", help_concat, run_concat},
                                {"ranges", "which bytes a selection of fields and rows needs", help_ranges, run_ranges},
                                {"put", "a file into a store", help_put, run_put},
                                {"get", "an object of a store to a file", help_get, run_get},
                                {"ls", "the objects of a store", help_ls, run_ls},
                                {"rm", "removes objects of a store", help_rm, run_rm},
                                {"stat", "what a store knows of an object", help_stat, run_stat},
                                {"store", "what a store is, and its counters", help_store, run_store},
                                {"serve", "a store to many machines", help_serve, run_serve},
                                {"doctor", "what stores find wanting on this machine", help_doctor, run_doctor},
                                {"bench-store", "what the operations of a store cost", help_bench_store, run_bench_store},
                                {NULL, NULL, NULL, NULL}};

static void print_help(void) {
  const verb *c;
  output out;
  output_open(&out, "-");
  text_puts(&out.buffer, "Usage: packbuf COMMAND [options]\nPacks batches of rows into contiguous, verifiable buffers, reads them, and moves them through stores.\n\n");
  for (c = commands; c->name; c++) text_printf(&out.buffer, "  %-11s  %s\n", c->name, c->summary);
  text_puts(&out.buffer, "\n  --help, --version\n\nExit codes: 0 yes or done, 1 no or failed, 2 wrong usage.\n");
  for (c = commands; c->name; c++) text_printf(&out.buffer, "\n%s", c->help);
  output_close(&out);
}

static void print_version(void) {
  output out;
  output_open(&out, "-");
  text_printf(&out.buffer, "packbuf %d.%d.%d (format %d.%d%s)\n", PACKBUF_VERSION_MAJOR, PACKBUF_VERSION_MINOR, PACKBUF_VERSION_PATCH,
              PACKBUF_FORMAT_MAJOR, PACKBUF_FORMAT_MINOR, PACKBUF_TOOL_ZLIB ? ", zlib" : "");
  output_close(&out);
}

int main(int argc, char **argv) {
  const verb *c;
  catch_signals();
  if (argc < 2) fail_usage(NULL, "a command is missing");
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (strcmp(argv[1], "help") == 0 && argc == 2)) {
    print_help();
    return TOOL_OK;
  }
  if (strcmp(argv[1], "--version") == 0) {
    print_version();
    return TOOL_OK;
  }
  for (c = commands; c->name; c++)
    if (strcmp(argv[1], c->name) == 0) return c->run(c, argc - 2, argv + 2);
  fail_usage(NULL, "there is no command %s", argv[1]);
}
