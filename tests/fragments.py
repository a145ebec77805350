#!/usr/bin/env python3
"""TAP: `packbuf schema` and `packbuf concat`, against spec/reader.py: the schema text and fingerprint of every valid
vector, what --expect says, files joined and widened, a manifest's fragments, and every error and exit code; and
spec/reader.py, spec/reader.mjs (where there is Node) and the command joining whatever was appended, right or wrong.
Needs the standard library alone. PACKBUF_TOOL: the command (build/packbuf)."""
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
VALID = ROOT / 'spec' / 'vectors' / 'valid'
TOOL = os.path.abspath(os.environ.get('PACKBUF_TOOL', ROOT / 'build' / 'packbuf'))
sys.path[:0] = [str(ROOT / 'spec'), str(ROOT / 'spec' / 'vectors')]

import build  # noqa: E402
from reader import Joined, Packed, PackbufError  # noqa: E402

count = failed = 0


def ok(passed, name, *about):
    global count, failed
    count += 1
    failed += not passed
    print(f"{'ok' if passed else 'not ok'} {count} - {name}", flush=True)
    for text in () if passed else about:
        print(*(f'# {line}' for line in str(text)[:2000].split('\n')), sep='\n')
    return passed


def run(*args, code=0, stdin=b''):
    p = subprocess.run([TOOL, *map(str, args)], input=stdin, capture_output=True, timeout=120)
    if p.returncode != code:
        ok(False, f'packbuf {" ".join(map(str, args))}', f'exit {p.returncode}, not {code}', p.stdout, p.stderr)
    return p


def bad(name, words, *args, code=1):
    p = run(*args, code=code)
    line = p.stderr.decode()
    one = code == 2 or line.startswith('packbuf: ') and line.count('\n') == 1
    ok(p.returncode == code and one and all(word in line for word in words), name, line, words)


def pack(name, rows, *options):
    text = ''.join(json.dumps(row) + '\n' for row in rows).encode()
    run('pack', '-', '-o', name, *options, stdin=text)
    return pathlib.Path(name).read_bytes()


def rows_of(name):
    return [json.loads(line) for line in run('unpack', name).stdout.splitlines()]


def vectors():
    wrong = []
    for path in sorted(VALID.glob('*.pbuf')):
        want = Packed(path.read_bytes())
        got = run('schema', path).stdout.decode()
        if got != want.schema() + want.fingerprint() + '\n':
            wrong.append(f'{path.name}:\n{got}{want.schema()}{want.fingerprint()}')
        for line in want.schema().splitlines():
            json.loads(line)
    ok(not wrong, 'the schema of every valid vector, as the specification\'s reader writes it', *wrong)
    lines = run('schema', VALID / 'worked_example.pbuf').stdout
    text, fingerprint = lines[:-33], lines[-33:-1].decode()
    ok(hashlib.sha256(text).hexdigest()[:32] == fingerprint, 'the fingerprint is 16 bytes of the SHA-256 of the lines')
    ok(run('schema', VALID / 'worked_example.pbuf', '--fingerprint').stdout.decode() == fingerprint + '\n',
       '--fingerprint')


def expectations():
    pack('a.pbuf', [{'x': 1, 'y': 'a', 'm': {'k': [1, 2]}}])
    pack('same.pbuf', [{'y': 'b', 'm': {'k': []}}, {'x': 5, 'm': {'k': [3]}}])
    pack('drift.pbuf', [{'x': 1.5, 'y': 'a', 'm': {'k': [1, 2]}}])
    pack('nested.pbuf', [{'x': 1, 'y': 'a', 'm': {'k': [0.5]}}])
    pack('more.pbuf', [{'x': 1, 'y': 'a', 'm': {'k': [1]}, 'z': 1}])
    pack('less.pbuf', [{'x': 1, 'm': {'k': [1]}}])
    lines = run('schema', 'a.pbuf').stdout
    pathlib.Path('a.schema').write_bytes(lines)
    pathlib.Path('text.schema').write_bytes(lines[:-33])
    fingerprint = lines[-33:-1].decode()
    for what in ('a.pbuf', 'a.schema', 'text.schema', fingerprint, fingerprint.upper()):
        p = run('schema', 'same.pbuf', '--expect', what)
        ok(p.stdout == b'' and p.stderr == b'',
           f'--expect {what}: rows, order, nulls and missing cells are no drift', p.stderr)
    for what in ('a.pbuf', 'a.schema', 'text.schema'):
        bad(f'a column of another dtype ({what})',
            ['drift.pbuf', 'SCHEMA_MISMATCH', 'field x', 'dtype', '"int64"', '"float64"'], 'schema', 'drift.pbuf',
            '--expect', what)
    bad('a nested one', ['field m.k', 'expected {"field":"m.k"', 'found {"field":"m.k"'], 'schema', 'nested.pbuf',
        '--expect', 'a.pbuf')
    bad('one more', ['field z', 'not expected'], 'schema', 'more.pbuf', '--expect', 'a.pbuf')
    bad('one less', ['field y', 'not there'], 'schema', 'less.pbuf', '--expect', 'a.pbuf')
    bad('another fingerprint', ['SCHEMA_MISMATCH', 'fingerprint'], 'schema', 'drift.pbuf', '--expect', fingerprint)
    bad('no such file to expect', ['none.pbuf'], 'schema', 'a.pbuf', '--expect', 'none.pbuf')
    pathlib.Path('other.txt').write_text('hello')
    bad('a file that is no schema', ['other.txt', 'neither'], 'schema', 'a.pbuf', '--expect', 'other.txt')
    pathlib.Path('later.schema').write_text('{"packbuf_schema":2}\n')
    bad('a schema of another version', ['later.schema', 'version 1'], 'schema', 'a.pbuf', '--expect', 'later.schema')
    pathlib.Path('hostile.schema').write_bytes(b'{"packbuf_schema":1}\n{"field":"' + b'\\' * 5000 + b'\xff')
    bad('a schema that ends in the middle', ['SCHEMA_MISMATCH'], 'schema', 'a.pbuf', '--expect', 'hostile.schema')
    bad('no file', [], 'schema', code=2)


def concatenation():
    rows = [{'x': i, 'y': 'text' * i, 'm': {'k': list(range(i))}, 'f': i / 2, 'l': [{'a': i}, {'a': None}]}
            for i in range(1, 8)]
    whole = pack('whole.pbuf', rows, '--metadata', 'run=7')
    for at in (0, 1, 3, 7):
        if at in (0, 7):
            pack('p0.pbuf', rows[:at] or rows, '--metadata', 'run=7')
            run('concat', 'p0.pbuf', '-o', 'out.pbuf')
        else:
            pack('p0.pbuf', rows[:at], '--metadata', 'run=7')
            pack('p1.pbuf', rows[at:], '--metadata', 'run=7')
            run('concat', 'p0.pbuf', 'p1.pbuf', '-o', 'out.pbuf')
        ok(pathlib.Path('out.pbuf').read_bytes() == whole, f'split at {at} of 7: the bytes of the whole')
    pack('ints.pbuf', [{'x': 1, 'y': 'a'}])
    pack('floats.pbuf', [{'x': 0.5, 'y': 'b'}, {'x': None, 'z': {'q': 1}}])
    bad('types that differ', ['floats.pbuf', 'SCHEMA_MISMATCH', 'field x', 'fragment 1', 'dtype'], 'concat',
        'ints.pbuf', 'floats.pbuf', '-o', 'never.pbuf')
    ok(not os.path.exists('never.pbuf'), 'nothing was written')
    run('concat', 'ints.pbuf', 'floats.pbuf', '--widen', '-o', 'wide.pbuf')
    ok(repr(rows_of('wide.pbuf')) == repr([{'x': 1, 'y': 'a'}, {'x': 0.5, 'y': 'b'}, {'x': None, 'z': {'q': 1}}]),
       '--widen keeps every value, type, null and missing cell', rows_of('wide.pbuf'))
    run('verify', 'wide.pbuf')
    pathlib.Path('v1.json').write_text('{"step": 1}')
    pathlib.Path('v2.json').write_text('{"step": 2}')
    pack('s1.pbuf', [{'x': 1}], '--values', 'v1.json', '--metadata', 'host=a')
    pack('s2.pbuf', [{'x': 2}], '--values', 'v2.json', '--metadata', 'host=a')
    pack('s3.pbuf', [{'x': 2}], '--values', 'v1.json', '--metadata', 'host=b')
    bad('batch values that differ', ['s2.pbuf', 'field step', 'batch values'], 'concat', 's1.pbuf', 's2.pbuf', '-o',
        'never.pbuf')
    bad('metadata that differ', ['s3.pbuf', 'host', 'metadata'], 'concat', 's1.pbuf', 's3.pbuf', '-o', 'never.pbuf')
    run('concat', 's1.pbuf', 's2.pbuf', '--first-value', '-o', 'first.pbuf')
    ok(run('cat', 'first.pbuf', '--value', 'step').stdout == b'1\n', '--first-value')
    bad('no output', [], 'concat', 's1.pbuf', code=2)
    bad('no input', [], 'concat', '-o', 'x.pbuf', code=2)
    broken = bytearray(whole)
    broken[-70] ^= 1
    pathlib.Path('broken.pbuf').write_bytes(broken)
    bad('a broken input is found before it is copied', ['broken.pbuf'], 'concat', 'whole.pbuf', 'broken.pbuf', '-o',
        'never.pbuf')


def rollouts():
    """Real rollout rows, as many workers would bring them: types that inference sees differently in each part."""
    rows = [json.loads(line) for line in (ROOT / 'examples' / 'sample' / 'rows.jsonl').read_text().splitlines()]
    whole = pack('whole.pbuf', rows)
    for parts in (2, 5, len(rows)):
        names = []
        for i in range(parts):
            names.append(f'part{i}.pbuf')
            pack(names[-1], rows[len(rows) * i // parts:len(rows) * (i + 1) // parts])
        bad(f'{parts} workers: strict says where they differ', ['SCHEMA_MISMATCH', 'field', 'fragment'], 'concat',
            *names, '-o', 'never.pbuf')
        run('concat', *names, '--widen', '-o', 'out.pbuf')
        run('diff', 'whole.pbuf', 'out.pbuf')
        ok(pathlib.Path('out.pbuf').read_bytes() == whole, f'{parts} workers, widened: the bytes of the whole')


def manifests():
    names = ['fragment_rows_0.pbuf', 'fragment_rows_1.pbuf', 'fragment_fields.pbuf']
    for name in names + ['manifest_fragments.pbuf', 'manifest.pbuf', 'manifest_odd.pbuf']:
        shutil.copy(VALID / name, name)
    listed = Packed(pathlib.Path('manifest_fragments.pbuf').read_bytes()).fragments()
    ok([f['key'] + '.pbuf' for f in listed] == names, 'the specification\'s reader lists the fragments')
    run('concat', '--manifest', 'manifest_fragments.pbuf', *names, '-o', 'whole.pbuf')
    want = [{**row, 'reward': reward} for row, reward in zip(rows_of(names[0]) + rows_of(names[1]), (0.5, 1.0, -1.0))]
    ok(rows_of('whole.pbuf') == want, 'rows and fields, joined as the manifest says', rows_of('whole.pbuf'))
    ok(json.loads(run('cat', 'whole.pbuf', '--value', 'step').stdout) == 7, 'and batch values')
    shown = run('inspect', 'manifest_fragments.pbuf').stdout.decode()
    ok('manifest' in shown and all(name[:-5] in shown for name in names) and '2:3' in shown and 'fields' in shown,
       'inspect shows the list', shown)
    ok('19' not in run('inspect', 'manifest.pbuf').stdout.decode().split('fragment-0')[0]
       and run('inspect', 'manifest_odd.pbuf').stdout.count(b'fragment') == 20, 'and that of constants')
    bad('another order', ['fragment_rows_1.pbuf', 'FRAGMENT_MISMATCH', 'fragment 0'], 'concat', '--manifest',
        'manifest_fragments.pbuf', names[1], names[0], names[2], '-o', 'never.pbuf')
    bad('too few', ['lists 3 fragments', '2 files'], 'concat', '--manifest', 'manifest_fragments.pbuf', *names[:2],
        '-o', 'never.pbuf')
    bad('no manifest', ['WRONG_TYPE'], 'concat', '--manifest', names[0], names[0], '-o', 'never.pbuf')
    bad('a manifest as a fragment', ['manifest.pbuf', 'FRAGMENT_MISMATCH', 'fragment 1'], 'concat', names[0],
        'manifest.pbuf', '-o', 'never.pbuf')
    changed = bytearray(pathlib.Path(names[2]).read_bytes())
    data = struct.unpack_from('<QQQ', changed, 24)
    changed[data[1] + data[2]] ^= 1
    pathlib.Path(names[2]).write_bytes(changed)
    bad('a fragment that was damaged', ['fragment_fields.pbuf', 'DATA_CHECKSUM'], 'concat', '--manifest',
        'manifest_fragments.pbuf', *names, '-o', 'never.pbuf')


# ---- the readers of the specification join as the command does -------------------------------------------------------

TOKENS = bytes(16), b'1' * 16, b'2' * 16


def refusal(join):
    """What it is refused with: error, fragment, row, path; None when it is not."""
    try:
        join()
    except PackbufError as error:
        return [error.error, error.fragment, error.row, error.path]
    return None


def joins():
    """Every refusal of section 23 by name, as tests/reader_js.mjs asks it of the other reader."""
    names = 'fragment_rows_0', 'fragment_rows_1', 'fragment_fields'
    a, b, fields = ((VALID / f'{name}.pbuf').read_bytes() for name in names)
    listed = Packed((VALID / 'manifest_fragments.pbuf').read_bytes()).fragments()
    whole = Joined([a, b, fields], listed)
    ok([whole.row(i).get('reward') for i in range(3)] == ['0.5', '1.0', '-1.0'] and whole.value('step') == '7',
       'rows, fields and values')
    ok(refusal(lambda: whole.cell('none', 0)) == ['NOT_FOUND', None, None, 'none'], 'no such field')
    ok(refusal(lambda: whole.cell('text', 3)) == ['OUT_OF_RANGE', None, 3, 'text'], 'no such row')

    def changed(at, **numbers):
        return [{**f, **numbers} if i == at else f for i, f in enumerate(listed)]

    def sealed(raw, change):
        raw = bytearray(raw)
        change(raw)
        head, = struct.unpack_from('<Q', raw, 32)
        struct.pack_into('<I', raw, 60, build.crc32c(bytes(raw[:60]) + bytes(4) + bytes(raw[64:head])))
        return bytes(raw), struct.unpack_from('<I', raw, 60)[0]

    def rename(raw):
        at = raw.index(b'reward')
        raw[at:at + 6] = b'tokens'

    def without_token(raw):
        raw[104:120] = bytes(16)

    twice, bare = sealed(fields, rename), [sealed(raw, without_token) for raw in (a, b, fields)]
    bare_listed = [{**f, 'head_checksum': checksum} for f, (_, checksum) in zip(listed, bare)]
    vast = [bytes(build.Batch(rows, []).bytes) for rows in (2**48, 1)]
    broken = bytearray(b)
    broken[130] ^= 1
    ints = (VALID / 'ints.pbuf').read_bytes()
    for what, fragments, list_, expected in (
            ('another order', [b, a, fields], listed, ['FRAGMENT_MISMATCH', 0, None, '']),
            ('another head', [a, b, fields], changed(1, head_checksum=0), ['FRAGMENT_MISMATCH', 1, None, '']),
            ('more rows than there are', [a, b, fields], changed(2, first_row=1), ['BAD_MANIFEST', 2, None, '']),
            ('a hole', [a, b, fields], changed(1, first_row=3), ['BAD_MANIFEST', 1, None, '']),
            ('rows beyond 2^48', [a, b, fields], changed(1, first_row=2**64 - 1), ['BAD_MANIFEST', 1, None, '']),
            ('neither rows nor fields', [a, b, fields], changed(0, appends=2), ['BAD_MANIFEST', 0, None, '']),
            ('a manifest', [(VALID / 'manifest.pbuf').read_bytes()], None, ['FRAGMENT_MISMATCH', 0, None, '']),
            ('a head that is broken', [a, broken], None, ['HEAD_CHECKSUM', 1, None, '']),
            ('too many rows', vast, None, ['BAD_MANIFEST', 1, None, '']),
            ('another token', [a, b, bare[2][0]], changed(2, head_checksum=bare[2][1]), ['ROW_ORDER', 2, None, '']),
            ('no token', [raw for raw, _ in bare], bare_listed, ['ROW_ORDER', 2, None, '']),
            ('a field twice', [a, b, twice[0]], changed(2, head_checksum=twice[1]), ['DUPLICATE_NAME', 2, 0, 'tokens']),
            ('other columns', [a, ints], None, ['SCHEMA_MISMATCH', 1, 2, 'tokens']),
            ('fewer fragments than are listed', [a, b], listed, ['INVALID_ARGUMENT', None, None, ''])):
        found = refusal(lambda: Joined(fragments, list_))
        ok(found == expected, f'reader.py: {what}', found)
    ok(refusal(Packed(ints).fragments) == ['WRONG_TYPE', None, None, ''], 'reader.py: a batch is no manifest')
    wide = Joined([a, ints], widen=True)
    ok('tokens' not in wide.row(wide.rows - 1) and wide.row(0)['text'] == '"a"', 'reader.py: widened')
    same = [build.Batch(1, [build.infer('x', [1])], [build.infer('v', [v])]).bytes
            for v in ({'a': 1, 'b': [{2: 'x', 3: 'y'}]}, {'b': [{3: 'y', 2: 'x'}], 'a': 1})]
    ok(refusal(lambda: Joined(same).value('v')) is None, 'reader.py: the order of keys does not count')


NAMES = 'x', 'y', 'tags', 'meta'
JOIN_JS = """
import fs from 'node:fs';
import { PackbufError, join, open, taggedJson } from '%s';
const answer = (read) => {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof PackbufError)) throw error;
    const known = (n) => n === undefined || n < 0 ? null : n;
    return [error.error, known(error.fragment), known(error.row), error.path ?? ''];
  }
};
const cells = (row) => Object.fromEntries([...row].map(([name, cell]) => [name, taggedJson(cell)]));
for (const { fragments, manifest, widen } of JSON.parse(fs.readFileSync(0, 'utf8')))
  console.log(JSON.stringify(answer(() => {
    const list = open(fs.readFileSync(manifest)).fragments();
    const whole = join(fragments.map((name) => fs.readFileSync(name)), { list, widen });
    const rows = Array.from({ length: whole.rows }, (_, i) => cells(whole.row(i)));
    const values = whole.values.map((name) => [name, answer(() => taggedJson(whole.value(name)))]);
    return { rows, values: Object.fromEntries(values) };
  })));
"""


def some_column(r, rows, drift):
    """Cells of one of a few types: the first of them, most of the time."""
    kind = r.randrange(1, 6) if r.random() < drift else 0
    return [[r.choice((i, None)), r.choice(('a', 'b', None)), r.choice((1.5, i)), [i] * r.randrange(3),
             {'k': i, 'l': r.choice(('z', None))},
             [{'q': i}] * r.randrange(3)][kind] for i in range(rows)]


def some_fragment(r, rows, names, drift):
    columns = [build.share(build.infer(name, some_column(r, rows, drift))) for name in names]
    values = [build.infer('step', [r.choice((7, 7, 7, 8))])] if r.random() < 0.5 else []
    return build.Batch(rows, columns, values, token=r.choice(TOKENS[:1] + TOKENS[1:2] * 20 + TOKENS[2:]))


def some_manifest(r, fragments, places):
    columns = {'length': [f.total for f in fragments], 'head_length': [f.data_at for f in fragments],
               'first_row': [at for at, _ in places],
               'rows': [f.rows for f in fragments], 'head_checksum': [struct.unpack_from('<I', f.bytes, 60)[0]
                                                                      for f in fragments],
               'appends': [appends for _, appends in places]}
    if r.random() < 0.15:
        name = r.choice(list(columns))
        at = r.randrange(len(fragments))
        columns[name][at] = max(columns[name][at] + r.choice((-1, 1, 64)),
                                0) % 256 if name == 'appends' else abs(columns[name][at] + r.choice((-1, 1, 64)))
    types = {'head_checksum': 'uint32', 'appends': 'uint8'}
    keys = build.blob('key', [str(i) for i in range(len(fragments))], 8)
    numbers = [build.ndarray(name, cells, types.get(name, 'uint64')) for name, cells in columns.items()]
    return build.Batch(len(fragments), [keys, *numbers], kind=2)


def some_appends(r):
    """Fragments that append rows and, some of them, fields; mostly right."""
    fragments, places, rows, drift = [], [], 0, r.choice((0, 0, 0.05, 0.3))
    for _ in range(r.randrange(1, 7)):
        if rows and r.random() < 0.4:
            first = r.choice((0, 0, r.randrange(rows)))
            count = r.choice((rows - first, r.randrange(rows - first + 1)))
            names = [f'new{r.choice((0, 1))}'] if r.random() < 0.9 else [r.choice(NAMES)]
            places.append((first, 1))
        else:
            first, count = rows, r.randrange(4)
            names = [name for name in NAMES if drift < 0.3 or r.random() < 0.9]
            places.append((first, 0))
            rows += count
        fragments.append(some_fragment(r, count, names, drift))
    return fragments, some_manifest(r, fragments, places)


def joined_by_reader(case):
    try:
        listed = Packed(pathlib.Path(case['manifest']).read_bytes()).fragments()
        whole = Joined([pathlib.Path(name).read_bytes() for name in case['fragments']], listed, widen=case['widen'])
        values = {name: refusal(lambda name=name: whole.value(name)) or whole.value(name) for name in whole.nodes}
        return {'rows': [whole.row(i) for i in range(whole.rows)], 'values': values}
    except PackbufError as error:
        return [error.error, error.fragment, error.row, error.path]


def joined_by_command(case):
    """The rows, or error, fragment, row and path as far as the line has them."""
    widen = ['--widen'] if case['widen'] else []
    p = subprocess.run([TOOL, 'concat', '--manifest', case['manifest'], *case['fragments'], '--first-value', '-o',
                        'out.pbuf', *widen], capture_output=True)
    if p.returncode == 0:
        text = json.loads(Packed(pathlib.Path('out.pbuf').read_bytes()).to_json())
        return [{name: cells[i] for name, cells in text['fields'].items() if cells[i] != {'$missing': True}}
                for i in range(text['rows'])]
    line = p.stderr.decode()
    found = [re.search(pattern, line)
             for pattern in (r': ([A-Z_]{6,})', r'fragment (\d+)', r'\brow (\d+)', r'field ([^\s,:]+)')]
    error, fragment, row, path = (m and m[1] for m in found)
    return [error, fragment and int(fragment), row and int(row), path or '']


def appends():
    r, cases = random.Random(12), []
    for i in range(int(os.environ.get('FRAGMENT_CASES', 120))):
        fragments, manifest = some_appends(r)
        names = [f'{i}.{k}.pbuf' for k in range(len(fragments))]
        for name, batch in zip(names + [f'{i}.pbuf'], fragments + [manifest]):
            pathlib.Path(name).write_bytes(batch.bytes)
        cases += [{'fragments': names, 'manifest': f'{i}.pbuf', 'widen': widen} for widen in (False, True)]
    found = [joined_by_reader(case) for case in cases]
    errors = sorted({answer[0] for answer in found if isinstance(answer, list)})
    ok(len(errors) == 5 and any(isinstance(answer, dict) and answer['rows'] for answer in found),
       'appends: joined, and refused in every way', errors)
    wrong = []
    for case, answer in zip(cases, found):
        command = joined_by_command(case)
        ours = answer if isinstance(answer, list) else [{name: json.loads(cell) for name, cell in row.items()}
                                                        for row in answer['rows']]
        if repr(command) != repr(ours):
            wrong.append(f'{case}\nreader.py {answer}\ncommand {command}')
    ok(not wrong, f'appends: the command joins {len(cases)} as reader.py does', *wrong[:5])
    if not shutil.which('node'):
        return ok(True, 'appends: reader.mjs # SKIP no node')
    pathlib.Path('join.mjs').write_text(JOIN_JS % (ROOT / 'spec' / 'reader.mjs'))
    p = subprocess.run(['node', 'join.mjs'], input=json.dumps(cases), capture_output=True, text=True)
    theirs = [json.loads(line) for line in p.stdout.splitlines()]
    wrong = [f'{case}\nreader.py {x}\nreader.mjs {y}' for case, x, y in zip(cases, found, theirs) if x != y]
    return ok(len(theirs) == len(cases) and not wrong, 'appends: reader.mjs joins them so too', p.stderr, *wrong[:5])


def main():
    if not os.path.exists(TOOL):
        print(f'Bail out! {TOOL} is not built')
        return 1
    for test in (vectors, expectations, concatenation, rollouts, manifests, joins, appends):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            test()
            os.chdir('/')
    print(f'1..{count}')
    return failed != 0


if __name__ == '__main__':
    sys.exit(main())
