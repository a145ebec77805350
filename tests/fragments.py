#!/usr/bin/env python3
"""TAP: `packbuf schema` and `packbuf concat`, against spec/reader.py: the schema text and fingerprint of every valid vector, what --expect says, files joined
and widened, a manifest's fragments, and every error and exit code. Needs the standard library alone. PACKBUF_TOOL: the command (build/packbuf)."""
import hashlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
VALID = ROOT / 'spec' / 'vectors' / 'valid'
TOOL = os.path.abspath(os.environ.get('PACKBUF_TOOL', ROOT / 'build' / 'packbuf'))
sys.path.insert(0, str(ROOT / 'spec'))

from reader import Packed  # noqa: E402

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
    ok(run('schema', VALID / 'worked_example.pbuf', '--fingerprint').stdout.decode() == fingerprint + '\n', '--fingerprint')


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
        ok(p.stdout == b'' and p.stderr == b'', f'--expect {what}: rows, order, nulls and missing cells are no drift', p.stderr)
    for what in ('a.pbuf', 'a.schema', 'text.schema'):
        bad(f'a column of another dtype ({what})', ['drift.pbuf', 'SCHEMA_MISMATCH', 'field x', 'dtype', '"int64"', '"float64"'], 'schema', 'drift.pbuf', '--expect', what)
    bad('a nested one', ['field m.k', 'expected {"field":"m.k"', 'found {"field":"m.k"'], 'schema', 'nested.pbuf', '--expect', 'a.pbuf')
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
    rows = [{'x': i, 'y': 'text' * i, 'm': {'k': list(range(i))}, 'f': i / 2, 'l': [{'a': i}, {'a': None}]} for i in range(1, 8)]
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
    bad('types that differ', ['floats.pbuf', 'SCHEMA_MISMATCH', 'field x', 'fragment 1', 'dtype'], 'concat', 'ints.pbuf', 'floats.pbuf', '-o', 'never.pbuf')
    ok(not os.path.exists('never.pbuf'), 'nothing was written')
    run('concat', 'ints.pbuf', 'floats.pbuf', '--widen', '-o', 'wide.pbuf')
    ok(repr(rows_of('wide.pbuf')) == repr([{'x': 1, 'y': 'a'}, {'x': 0.5, 'y': 'b'}, {'x': None, 'z': {'q': 1}}]), '--widen keeps every value, type, null and missing cell', rows_of('wide.pbuf'))
    run('verify', 'wide.pbuf')
    pathlib.Path('v1.json').write_text('{"step": 1}')
    pathlib.Path('v2.json').write_text('{"step": 2}')
    pack('s1.pbuf', [{'x': 1}], '--values', 'v1.json', '--metadata', 'host=a')
    pack('s2.pbuf', [{'x': 2}], '--values', 'v2.json', '--metadata', 'host=a')
    pack('s3.pbuf', [{'x': 2}], '--values', 'v1.json', '--metadata', 'host=b')
    bad('batch values that differ', ['s2.pbuf', 'field step', 'batch values'], 'concat', 's1.pbuf', 's2.pbuf', '-o', 'never.pbuf')
    bad('metadata that differ', ['s3.pbuf', 'host', 'metadata'], 'concat', 's1.pbuf', 's3.pbuf', '-o', 'never.pbuf')
    run('concat', 's1.pbuf', 's2.pbuf', '--first-value', '-o', 'first.pbuf')
    ok(run('cat', 'first.pbuf', '--value', 'step').stdout == b'1\n', '--first-value')
    bad('no output', [], 'concat', 's1.pbuf', code=2)
    bad('no input', [], 'concat', '-o', 'x.pbuf', code=2)
    broken = bytearray(whole)
    broken[-70] ^= 1
    pathlib.Path('broken.pbuf').write_bytes(broken)
    bad('a broken input is found before it is copied', ['broken.pbuf'], 'concat', 'whole.pbuf', 'broken.pbuf', '-o', 'never.pbuf')


def rollouts():
    """Real rollout rows, as many workers would bring them: types that inference sees differently in each part."""
    rows = [json.loads(line) for line in (ROOT / 'examples' / 'sample' / 'rows.jsonl').read_text().splitlines()]
    whole = pack('whole.pbuf', rows)
    for parts in (2, 5, len(rows)):
        names = []
        for i in range(parts):
            names.append(f'part{i}.pbuf')
            pack(names[-1], rows[len(rows) * i // parts:len(rows) * (i + 1) // parts])
        bad(f'{parts} workers: strict says where they differ', ['SCHEMA_MISMATCH', 'field', 'fragment'], 'concat', *names, '-o', 'never.pbuf')
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
    ok('manifest' in shown and all(name[:-5] in shown for name in names) and '2:3' in shown and 'fields' in shown, 'inspect shows the list', shown)
    ok('19' not in run('inspect', 'manifest.pbuf').stdout.decode().split('fragment-0')[0] and run('inspect', 'manifest_odd.pbuf').stdout.count(b'fragment') == 20, 'and that of constants')
    bad('another order', ['fragment_rows_1.pbuf', 'FRAGMENT_MISMATCH', 'fragment 0'], 'concat', '--manifest', 'manifest_fragments.pbuf', names[1], names[0], names[2], '-o', 'never.pbuf')
    bad('too few', ['lists 3 fragments', '2 files'], 'concat', '--manifest', 'manifest_fragments.pbuf', *names[:2], '-o', 'never.pbuf')
    bad('no manifest', ['WRONG_TYPE'], 'concat', '--manifest', names[0], names[0], '-o', 'never.pbuf')
    bad('a manifest as a fragment', ['manifest.pbuf', 'FRAGMENT_MISMATCH', 'fragment 1'], 'concat', names[0], 'manifest.pbuf', '-o', 'never.pbuf')
    changed = bytearray(pathlib.Path(names[2]).read_bytes())
    data = struct.unpack_from('<QQQ', changed, 24)
    changed[data[1] + data[2]] ^= 1
    pathlib.Path(names[2]).write_bytes(changed)
    bad('a fragment that was damaged', ['fragment_fields.pbuf', 'DATA_CHECKSUM'], 'concat', '--manifest', 'manifest_fragments.pbuf', *names, '-o', 'never.pbuf')


def main():
    if not os.path.exists(TOOL):
        print(f'Bail out! {TOOL} is not built')
        return 1
    for test in (vectors, expectations, concatenation, rollouts, manifests):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            test()
            os.chdir('/')
    print(f'1..{count}')
    return failed != 0


if __name__ == '__main__':
    sys.exit(main())
