# packbuf: GNU make, gcc and python3 are all that the default target needs. `make help` lists the targets.

ifeq ($(origin CC),default)
CC = gcc
endif
ifeq ($(origin CXX),default)
CXX = g++
endif
CFLAGS ?= -O2 -g
PREFIX ?= $(or $(prefix),/usr/local)
DESTDIR ?=
FUZZ_SECONDS ?= 60
PYTHON_CASES ?= 100000
PROVE_JOBS ?= 2
STAGES ?= native sanitize clang gates s390x aarch64 armhf riscv64 m32 musl wasm32 mingw msan tsan guest scripts python

WARN = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-align -Wundef
STRICT = -std=c11 $(WARN) -Werror -I.

TOOLS = $(wildcard tools/*.c)
# the longest first: nothing else is left to run beside it at the end
TESTS = vectors $(filter-out vectors kills,$(patsubst tests/%.c,%,$(wildcard tests/*.c)))
FUZZERS = $(filter-out driver,$(patsubst fuzz/%.c,%,$(wildcard fuzz/*.c)))
BENCHES = $(filter-out packing,$(patsubst bench/%.c,%,$(wildcard bench/*.c)))
SCRIPTS = $(filter-out tests/command.py tests/prepare.sh tests/run.sh tests/tap.sh,$(wildcard tests/*.sh tests/*.py))
# those of the transport, which needs POSIX threads
TRANSPORT_TESTS = $(filter buddy pool refs store% verbs_abi,$(TESTS))
TRANSPORT_FUZZERS = $(filter ref frames server shm,$(FUZZERS))
# the C tests and fuzz targets that also run as s390x (big-endian) programs, and under the other emulators
S390X_TESTS ?= $(filter-out $(TRANSPORT_TESTS),$(TESTS)) $(patsubst %,fuzz_%,$(filter-out $(TRANSPORT_FUZZERS),$(FUZZERS)))
# those of the other emulated machines, where the compiler takes most of the time: what depends on the machine
EMULATED_TESTS ?= $(filter blocks fields fragments kernels lanes lanes_simde memory msgpack parts processors refusals repack repeats select sharing sizes storage stream vectors view writing,$(TESTS))

# the sample data, for the tests that want it
PACKBUF_DATA ?= $(wildcard ../shared/data)
ifneq ($(PACKBUF_DATA),)
override PACKBUF_DATA := $(abspath $(PACKBUF_DATA))
export PACKBUF_DATA
endif
export CC CXX

.PHONY: all demo test python-install python-cases bench-python bench bench-quick bench-table bench-verbs fuzz kills kills-verbs kill-steps install uninstall clean help
.PHONY: $(STAGES:%=stage-%)
.SECONDARY:

all: packbuf.h transport/packbuf_transport.h exchange/packbuf_exchange.h $(if $(TOOLS),build/packbuf) spec/viewer.html

packbuf.h: tools/bundle.py $(wildcard core/*.[ch] codecs/*.[ch])
	python3 tools/bundle.py core/packbuf.in.h $@

transport/packbuf_transport.h: tools/bundle.py $(filter-out transport/packbuf_transport.h,$(wildcard transport/*.[ch]))
	python3 tools/bundle.py transport/packbuf_transport.in.h $@ transport

exchange/packbuf_exchange.h: tools/bundle.py $(filter-out exchange/packbuf_exchange.h,$(wildcard exchange/*.[ch]))
	python3 tools/bundle.py exchange/packbuf_exchange.in.h $@ exchange

# the page carries the reader: from file:// it can import nothing
spec/viewer.html: spec/reader.mjs tools/viewer.py
	python3 tools/viewer.py
	@touch $@

# deflated .npz files are read when zlib is there
ZLIB := $(shell printf '\043include <zlib.h>\nint main(void) { return zlibVersion() == 0; }' | $(CC) -x c - -o /dev/null -lz 2>/dev/null && echo yes)

build/packbuf: $(TOOLS) $(wildcard tools/*.h) packbuf.h transport/packbuf_transport.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) $(CFLAGS) $(if $(ZLIB),-DPACKBUF_TOOL_ZLIB=1) -o $@ $(TOOLS) -pthread -lm $(if $(ZLIB),-lz)

demo: all
	examples/demo.sh

# ---- tests: the stages, run by tests/run.sh ----

test:
	+@MAKE="$(MAKE)" bash tests/run.sh $(STAGES)

CC_native = $(CC)
CC_sanitize = $(CC)
CC_clang = clang
CC_s390x = s390x-linux-gnu-gcc
CC_aarch64 = aarch64-linux-gnu-gcc
CC_armhf = arm-linux-gnueabihf-gcc
CC_riscv64 = riscv64-linux-gnu-gcc
CC_m32 = $(CC) -m32
CC_musl = musl-gcc
CC_wasm32 = clang --target=wasm32-wasi
CC_msan = clang
CC_tsan = clang
FLAGS_native = $(CFLAGS)
FLAGS_sanitize = -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_clang = $(CFLAGS)
FLAGS_s390x = -O1 -g1 -static -DTAP_STEP=7
FLAGS_aarch64 = -O1 -g1 -static -DTAP_STEP=7
# qemu-arm lets unaligned loads pass: the compiler's check does not
FLAGS_armhf = -O2 -g1 -static -DTAP_STEP=7 -D_FILE_OFFSET_BITS=64 -fsanitize=alignment -fsanitize-undefined-trap-on-error
FLAGS_riscv64 = -O1 -g1 -static -DTAP_STEP=7
FLAGS_m32 = -O2 -g1 -D_FILE_OFFSET_BITS=64
FLAGS_musl = -O1 -g1 -static
FLAGS_wasm32 = -O2 -DTAP_STEP=7
FLAGS_msan = -O1 -g1 -fno-omit-frame-pointer -fsanitize=memory -fno-sanitize-recover=all
FLAGS_tsan = -O1 -g1 -fsanitize=thread
# wasi-libc has no threads
LIBS = -pthread -lm
LIBS_wasm32 = -lm -Wl,-z,stack-size=1048576
LIBRARY = tests/portable.h
LIBRARY_wasm32 = packbuf.h
LIBRARY_native = tests/library.h
LIBRARY_sanitize = tests/library.h
LIBRARY_tsan = tests/library.h
EXEC_s390x = qemu-s390x
EXEC_aarch64 = qemu-aarch64
EXEC_armhf = qemu-arm
EXEC_riscv64 = qemu-riscv64
EXEC_wasm32 = node --no-warnings --stack-size=3900 tests/wasi.mjs
PROGRAMS = $(TESTS) $(FUZZERS:%=fuzz_%)
PROGRAMS_s390x = $(S390X_TESTS)
# what the transport does is the same with clang, which compiles it in the gates; a process under ptrace takes long when it is instrumented
PROGRAMS_clang = $(filter-out $(TRANSPORT_TESTS),$(TESTS)) $(patsubst %,fuzz_%,$(filter-out $(TRANSPORT_FUZZERS),$(FUZZERS)))
PROGRAMS_sanitize = $(filter-out store_shm_steps,$(PROGRAMS))
PROGRAMS_aarch64 = $(EMULATED_TESTS)
PROGRAMS_armhf = $(EMULATED_TESTS)
PROGRAMS_riscv64 = $(EMULATED_TESTS)
# those that need no more than files
PROGRAMS_wasm32 = $(filter fields infer_replay json matrix memory msgpack refusals repack roundtrip sizes storage values vectors writing,$(TESTS))
# every test of what threads do
PROGRAMS_tsan = $(filter view thread%,$(TESTS)) $(filter-out store_shm_steps,$(TRANSPORT_TESTS))
PROGRAMS_msan = $(filter fields fragments json memory msgpack parts refusals select sharing storage stream vectors view writing,$(TESTS))
PROGRAMS_m32 = $(EMULATED_TESTS) json roundtrip values exchange_arrow exchange_dlpack fuzz_open
PROGRAMS_musl = $(EMULATED_TESTS) json threads values
# where simde/ lies: its headers do for every machine
SIMDE ?= /usr/include
build/tests/%/lanes_simde build/tests/%/processors: private STRICT += -idirafter $(SIMDE)
# a double of the engine that the store `mooncake` loads
build/tests/libmooncake_double.so: tests/double/mooncake.c
	@mkdir -p $(@D)
	$(CC) $(STRICT) $(CFLAGS) -shared -fPIC -fvisibility=hidden -o $@ $< -pthread
build/tests/native/store_mooncake build/tests/sanitize/store_mooncake build/tests/clang/store_mooncake build/tests/tsan/store_mooncake: build/tests/libmooncake_double.so
TEST_DEPS = packbuf.h packbuf_threads.h transport/packbuf_transport.h exchange/packbuf_exchange.h $(wildcard tests/*.h fuzz/*.h)

# $(call prove,interpreter,programs)
prove = prove --timer -j$(PROVE_JOBS) --directives -e '$(1)' $(or $(2),$(error no tests in this stage))

# packbuf.h is compiled once a stage; tests of what it keeps to itself compile it again (tests/internals.h)
define stage
build/tests/$(1)/packbuf.o: packbuf.h packbuf_threads.h transport/packbuf_transport.h exchange/packbuf_exchange.h tests/library.h tests/portable.h
	@mkdir -p $$(@D)
	$$(CC_$(1)) $$(STRICT) $$(FLAGS_$(1)) -DPACKBUF_IMPLEMENTATION -c -o $$@ -x c $$(or $$(LIBRARY_$(1)),$$(LIBRARY))
build/tests/$(1)/fuzz_%: fuzz/%.c fuzz/driver.c build/tests/$(1)/packbuf.o $$(TEST_DEPS)
	$$(CC_$(1)) $$(STRICT) $$(FLAGS_$(1)) -DFUZZ_TARGET='"$$*"' -o $$@ $$< fuzz/driver.c $$(@D)/packbuf.o $$(or $$(LIBS_$(1)),$$(LIBS))
build/tests/$(1)/%: tests/%.c build/tests/$(1)/packbuf.o $$(TEST_DEPS)
	$$(CC_$(1)) $$(STRICT) $$(FLAGS_$(1)) -o $$@ $$< $$(@D)/packbuf.o $$(or $$(LIBS_$(1)),$$(LIBS))
stage-$(1): $$(addprefix build/tests/$(1)/,$$(or $$(PROGRAMS_$(1)),$$(PROGRAMS)))
	$$(call prove,$$(EXEC_$(1)),$$^)
endef
$(foreach name,native sanitize clang s390x aarch64 armhf riscv64 m32 musl wasm32 msan tsan,$(eval $(call stage,$(name))))

# the small machine that has namespaces, netem and verbs: what runs in it
GUEST = $(addprefix build/tests/native/,store_contract store_verbs serve faults verbs rollout)
build/tests/native/rollout: examples/rollout.c $(TEST_DEPS)
	@mkdir -p $(@D)
	$(CC) $(STRICT) $(CFLAGS) -o $@ $< $(LIBS)
build/tests/native/serve: tests/double/serve.c build/tests/native/packbuf.o
	$(CC) $(STRICT) $(CFLAGS) -o $@ $^ $(LIBS)
build/tests/native/faults build/tests/native/verbs: build/tests/native/%: tests/guest/%.c tests/guest/ends.h $(TEST_DEPS)
	@mkdir -p $(@D)
	$(CC) $(STRICT) $(CFLAGS) -o $@ $< $(LIBS)

stage-guest: $(GUEST)
	$(call prove,tests/guest/run.sh $(GUEST),tests/guest/verbs.sh tests/guest/tcp.sh)

stage-mingw: packbuf.h
	$(call prove,,tests/compile/mingw.sh)

stage-gates: all
	$(call prove,,tests/compile/gates.sh)

stage-scripts: all
	$(call prove,,$(SCRIPTS))

# ---- processes of stores killed and stopped at random: URI=ROUNDS each, KILLS_SEED for the same chances again; and the one that is killed
# or stopped after each of its instructions (hours; STEPS=97 for every 97th, which the tests do) ----

KILLS ?= local:=10000 shm:=10000 tcp://127.0.0.1:0=1000
STEPS ?= 1

kills: build/tests/native/kills
	@for run in $(KILLS); do echo "# $$run"; $< "$${run%=*}" "$${run##*=}" $(KILLS_SEED) || exit 1; done

# the same over verbs, in the small machine of the guest stage
kills-verbs: build/tests/native/kills
	GUEST_SECONDS=1800 GUEST_ARGS="ROUNDS=$(or $(ROUNDS),100)" tests/guest/run.sh $< tests/guest/kills.sh

kill-steps: build/tests/native/store_shm_steps
	$< $(STEPS)

# ---- the Python package: build/python/venv has what it is built and tested with ----

stage-python: all
	$(call prove,,python/test.sh)

# the package, compiled for speed, in that venv
python-install:
	@bash tests/prepare.sh python
	PIP_NO_INDEX=1 build/python/venv/bin/pip install -q --no-build-isolation --no-deps --force-reinstall -Cbuild-dir="$(CURDIR)/build/python/fast" ./python

# nested values, 100,000 of each kind
python-cases: python-install
	cd build/python && PACKBUF_CASES=$(PYTHON_CASES) venv/bin/python -m pytest -q -p no:cacheprovider ../../python/tests/test_values.py

bench-python: python-install
	build/python/venv/bin/python python/bench/bench.py --out build/bench-python.json

# ---- fuzzing: corpora grow in build/fuzz/corpus; what is worth keeping goes to fuzz/corpus/TARGET ----

fuzz: $(FUZZERS:%=fuzz-%)

fuzz-%: build/fuzz/%
	@mkdir -p build/fuzz/corpus/$*
	$< -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/$*- $(FUZZ_FLAGS) build/fuzz/corpus/$* \
	    $(wildcard fuzz/corpus/$* spec/vectors)

FUZZ = clang $(STRICT) -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all

build/fuzz/packbuf.o: packbuf.h packbuf_threads.h transport/packbuf_transport.h exchange/packbuf_exchange.h tests/library.h
	@mkdir -p $(@D)
	$(FUZZ) -DPACKBUF_IMPLEMENTATION -c -o $@ -x c tests/library.h

build/fuzz/%: fuzz/%.c build/fuzz/packbuf.o $(TEST_DEPS)
	$(FUZZ) -o $@ $< build/fuzz/packbuf.o -pthread -lm

# ---- benchmarks ----

bench: all $(BENCHES:%=build/bench/%) build/bench/packing
	@set -e; for name in $(BENCHES); do echo "== $$name"; build/bench/$$name; done
	@echo '== include'; bash bench/include.sh
	@echo '== packing'; bash bench/run.sh

bench-quick: all build/bench/packing
	@bash bench/run.sh --quick

# the table of bench/README.md, from the last run
bench-table:
	python3 bench/report.py --write bench/README.md

# in the small machine of the guest stage
bench-verbs: all build/tests/native/serve
	GUEST_ARGS="ROUNDS=$(or $(ROUNDS),5)" tests/guest/run.sh build/packbuf build/tests/native/serve ib_read_bw tests/guest/bandwidth.sh

build/bench/packing: $(wildcard bench/*) packbuf.h
	@mkdir -p $(@D)
	@bash bench/build.sh $@

build/bench/%: bench/%.c packbuf.h packbuf_threads.h $(wildcard bench/*.h)
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -I. $(CFLAGS) -o $@ $< -pthread -lm

# ---- installation: the header, the command, its manual page, and what pkg-config and CMake look for ----

VERSION = $(shell sed -n 's/^\#define PACKBUF_VERSION_\(MAJOR\|MINOR\|PATCH\) *\([0-9]*\).*/\2/p' packbuf.h | paste -sd.)
FILL = sed 's|@PREFIX@|$(PREFIX)|g; s|@VERSION@|$(VERSION)|g'
ROOT = $(DESTDIR)$(PREFIX)
CMAKEDIR = share/cmake/packbuf

install: all
	install -d '$(ROOT)/include' '$(ROOT)/bin' '$(ROOT)/share/man/man1' '$(ROOT)/share/pkgconfig' '$(ROOT)/$(CMAKEDIR)'
	install -m 644 packbuf.h packbuf_threads.h '$(ROOT)/include'
	sed 's|"\.\./packbuf\.h"|"packbuf.h"|' transport/packbuf_transport.h >'$(ROOT)/include/packbuf_transport.h'
	sed 's|"\.\./packbuf\.h"|"packbuf.h"|' exchange/packbuf_exchange.h >'$(ROOT)/include/packbuf_exchange.h'
	[ ! -e build/packbuf ] || install -m 755 build/packbuf '$(ROOT)/bin/packbuf'
	[ ! -e tools/packbuf.1 ] || install -m 644 tools/packbuf.1 '$(ROOT)/share/man/man1/packbuf.1'
	$(FILL) tools/packaging/packbuf.pc.in >'$(ROOT)/share/pkgconfig/packbuf.pc'
	install -m 644 tools/packaging/packbufConfig.cmake '$(ROOT)/$(CMAKEDIR)/packbufConfig.cmake'
	$(FILL) tools/packaging/packbufConfigVersion.cmake.in >'$(ROOT)/$(CMAKEDIR)/packbufConfigVersion.cmake'

uninstall:
	rm -f '$(ROOT)/include/packbuf.h' '$(ROOT)/include/packbuf_threads.h' '$(ROOT)/include/packbuf_transport.h' '$(ROOT)/include/packbuf_exchange.h' '$(ROOT)/bin/packbuf' '$(ROOT)/share/man/man1/packbuf.1' '$(ROOT)/share/pkgconfig/packbuf.pc'
	rm -rf '$(ROOT)/$(CMAKEDIR)'

clean:
	rm -rf build

help:
	@echo 'all        packbuf.h from core/ and codecs/, transport/packbuf_transport.h, exchange/packbuf_exchange.h, and the command build/packbuf (default)'
	@echo 'demo       a short tour: examples/demo.sh'
	@echo 'test       all tests; STAGES="native clang ..." takes some of: $(STAGES)'
	@echo 'bench      builds and runs bench/*.c, times including packbuf.h; build/bench.json and plots'
	@echo 'bench-quick  the main rows of the packings beside memcpy and peers, in under 40 s; bench-table: into bench/README.md'
	@echo 'bench-python  the Python package beside pickle, TransferQueue and Mooncake; build/bench-python.json'
	@echo 'python-cases  PYTHON_CASES=$(PYTHON_CASES) nested values of each kind through the Python package'
	@echo 'bench-verbs  gets over verbs beside ib_read_bw in a small emulated machine: medians of ROUNDS=5'
	@echo 'fuzz       runs each fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS) (clang); fuzz-TARGET runs one'
	@echo 'kills      kills and stops the processes of stores at random (KILLS="shm:=10000 ..."); kills-verbs: over software RoCE; kill-steps: after each instruction'
	@echo 'install    to PREFIX=$(PREFIX), below DESTDIR; uninstall takes it away'
	@echo 'clean      removes build/'
	@echo 'Variables: CC CXX CFLAGS PREFIX DESTDIR STAGES S390X_TESTS EMULATED_TESTS FUZZ_SECONDS FUZZ_FLAGS PROVE_JOBS PACKBUF_DATA'
