#!/usr/bin/env python3
"""The `packbuf` command and stores: put, get, ls, rm, stat, store over shm and over tcp, serve and how it ends, doctor,
bench-store, errors and exit codes.

TAP on stdout. Needs the standard library alone. PACKBUF_TOOL: the command (build/packbuf).
"""
import json
import os
import pathlib
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import urllib.request

from command import TOOL, Result, bad, clean, good, main, ok, run

NAME = f'tool-store-{os.getpid()}-{os.urandom(4).hex()}'
VECTORS = pathlib.Path(__file__).parent.absolute() / '../spec/vectors/valid'
VERBS = ['put', 'get', 'ls', 'rm', 'stat', 'store', 'serve', 'bench-store']


class Serving:
    """`packbuf serve` with these arguments; uri is what it prints."""

    def __init__(self, *args, **more):
        self.process = subprocess.Popen([TOOL, 'serve', *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=more.get('env') or clean())
        ready, _, _ = select.select([self.process.stdout], [], [], 20)
        self.uri = self.process.stdout.readline().decode().strip() if ready else ''

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            return Result('it did not end', out, err.decode())
        return Result(self.process.returncode, out, err.decode())


def usage_tests(tmp):
    whole = good('--help', '--help').text
    for verb in VERBS:
        r = good(f'{verb} --help', verb, '--help')
        ok(r.text.startswith(f'Usage: packbuf {verb} ') and r.text in whole,
           f'help of {verb}, also in the whole help', r)
        bad(f'{verb}: unknown option', 2, [f'packbuf: {verb}: ', '--wrong'], verb, '--wrong')
        bad(f'{verb}: nothing given', 2, [f'packbuf: {verb}: '], verb)
    (tmp / 'f').write_bytes(b'x')
    bad('get without -o', 2, ['-o'], 'get', f'shm:{NAME}', 'k')
    bad('put without FILE', 2, ['FILE'], 'put', f'shm:{NAME}', 'k')
    bad('ls with too much', 2, ['PREFIX'], 'ls', f'shm:{NAME}', 'a', 'b')
    bad('rm without a key', 2, ['KEY'], 'rm', f'shm:{NAME}')
    bad('rm: a key and a prefix', 2, ['--prefix'], 'rm', f'shm:{NAME}', 'k', '--prefix', 'k')
    bad('rm: an age of a key', 2, ['--older-than'], 'rm', f'shm:{NAME}', 'k', '--older-than', '1h')
    bad('rm: orphans that manifests cannot be seen for', 2, ['#'], 'rm', f'shm:{NAME}', '--orphans', '--prefix', 'k#f')
    bad('rm: force of what is listed', 2, ['--force'], 'rm', f'shm:{NAME}', '--orphans', '--force')
    bad('rm: no age', 2, ['--older-than', '5x'], 'rm', f'shm:{NAME}', '--prefix', 'k', '--older-than', '5x')
    bad('--timeout', 2, ['--timeout', 'x'], 'ls', f'shm:{NAME}', '--timeout', 'x')
    bad('--ttl', 2, ['--ttl'], 'put', f'shm:{NAME}', 'k', 'f', '--ttl', '4294967296')
    for size in ('x', '5x', '0', '', '-1', '99999999999g', '1gg'):
        bad(f'--size {size!r}', 2, ['--size'], 'serve', 'tcp://127.0.0.1:0', f'--size={size}')
    for uri in ('', 'nowhere', 'nope:x', 'shm:', 'shm:a/b', 'shm:x?zz=1', 'tcp://', 'tcp://127.0.0.1:99999', 'local:'):
        bad(f'wrong URI {uri!r}', 2, [f'packbuf: stat: {uri}'], 'stat', uri, 'k')
    bad('serve: no such address', 2, ['packbuf: serve: tcp:'], 'serve', 'tcp://127.0.0.1:99999')
    bad('serve: a store that cannot be served', 2, ['--store'], 'serve', 'tcp://127.0.0.1:0', '--store',
        'tcp://127.0.0.1:1')
    bad('nobody listens', 1, ['tcp://127.0.0.1:1', 'DISCONNECTED', 'refused'], 'ls', 'tcp://127.0.0.1:1')
    bad('put: no such store, and no size', 1, [f'shm:{NAME}', 'NOT_FOUND', '?size='], 'put', f'shm:{NAME}', 'k', 'f')
    for args in (('get', 'k', '-o', 'out'), ('ls',), ('rm', 'k'), ('stat', 'k'), ('store',)):
        bad(f'{args[0]}: no such store', 1, [f'shm:{NAME}', 'NOT_FOUND'], args[0], f'shm:{NAME}', *args[1:])
    ok(not os.path.exists(f'/dev/shm/packbuf.{NAME}') and os.listdir(tmp) == ['f'], 'nothing was made', os.listdir(tmp))


def samples(tmp):
    (tmp / 'r.jsonl').write_text('{"a":1,"b":"x"}\n{"a":2,"b":"y"}\n')
    (tmp / 'r2.jsonl').write_text('{"a":3}\n')
    (tmp / 'raw').write_bytes(os.urandom(300000))
    (tmp / 'empty').write_bytes(b'')
    good('pack', 'pack', 'r.jsonl', '-o', 'r.pbuf')
    good('pack another', 'pack', 'r2.jsonl', '-o', 'r2.pbuf')


def objects_tests(tmp, uri, made):
    """put, get, ls, stat, rm in any store; made: the URI that makes it."""
    batch, raw = (tmp / 'r.pbuf').read_bytes(), (tmp / 'raw').read_bytes()
    r = good('put a batch', 'put', made, 'job/b', 'r.pbuf')
    ref = r.text.strip()
    ok(re.fullmatch(r'pbref1:[0-9a-f]+:\S+\n', r.text), 'its ref, one line', r)
    ok(good('put bytes from stdin', 'put', uri, 'job/raw', '-', stdin=raw).text.startswith('pbref1:'), 'their ref')
    good('put an empty file', 'put', uri, 'void', 'empty')
    good('get by key', 'get', uri, 'job/b', '-o', 'out.pbuf')
    ok((tmp / 'out.pbuf').read_bytes() == batch, 'the same bytes')
    ok(good('get by ref to stdout', 'get', uri, ref, '-o', '-').out == batch, 'the same bytes')
    ok(good('get bytes', 'get', uri, 'job/raw', '-o', '-').out == raw, 'the same bytes')
    ok(good('get nothing', 'get', uri, 'void', '-o', '-').out == b'', 'no bytes')
    rows = good('ls --json', 'ls', uri, '--json').lines()
    ok([(o['key'], o['kind'], o['length']) for o in rows]
       == [('job/b', 'batch', len(batch)), ('job/raw', 'bytes', len(raw)), ('void', 'bytes', 0)],
       'all objects, by key', rows)
    ok([o['key'] for o in good('ls PREFIX', 'ls', uri, 'job/', '--json').lines()] == ['job/b', 'job/raw'],
       'those of a prefix')
    r = good('ls for people', 'ls', uri)
    ok(len(r.text.splitlines()) == 4 and re.search(rf'batch +{len(batch)} .* job/b$', r.text, re.M),
       'a heading and a line for each', r)
    o = good('stat --json', 'stat', uri, 'job/b', '--json').lines()[0]
    print_of = good('fingerprint', 'schema', 'r.pbuf', '--fingerprint').text.strip()
    ok(o['ref'] == ref and o['fingerprint'] == print_of and 0 < o['head_length'] <= len(batch)
       and o['head_checksum'] == int.from_bytes(batch[60:64], 'little'), 'what is kept with a batch', o)
    ok(o['left_ms'] is None and o['leases'] == 0 and not o['evictable'], 'no time to live, no leases', o)
    r = good('stat for people', 'stat', uri, ref)
    ok(ref in r.text and print_of in r.text, 'ref and fingerprint', r)
    errors_tests(tmp, uri, ref)
    good('another generation', 'put', uri, 'job/b', 'r2.pbuf')
    ok(good('get the newest', 'get', uri, 'job/b', '-o', '-').out == (tmp / 'r2.pbuf').read_bytes(), 'the newer bytes')
    bad('the old ref is stale', 1, ['job/b', 'STALE'], 'get', uri, ref, '-o', 'stale')
    bad('so is its stat', 1, ['job/b', 'STALE'], 'stat', uri, ref)
    o = good('--bytes --ttl --evictable --json', 'put', uri, 'odd#key', 'r.pbuf', '--bytes', '--ttl=600000',
             '--evictable', '--json').lines()[0]
    ok(o['kind'] == 'bytes' and 0 < o['left_ms'] <= 600000 and o['evictable'] and o['head_length'] == 0,
       'as bytes, for ten minutes', o)
    r = good('store', 'store', uri)
    ok('transport  ' in r.text and 'list' in r.text and not re.search(r'^\w+ +0  ', r.text, re.M),
       'what it is, without counters that are 0', r)
    o = good('store --json', 'store', uri, '--json').lines()[0]
    ok(o['uri'] == uri and o['objects'] == 4 and 0 < o['used'] <= o['size'] and 'list' in o['capabilities']
       and o['counters']['failures'] == 0, 'for machines', o)
    good('store --collect', 'store', uri, '--collect')
    good('rm', 'rm', uri, 'job/raw', 'void')
    bad('what is removed is gone', 1, ['packbuf: void: NOT_FOUND'], 'rm', uri, 'void', 'odd#key')
    ok([o['key'] for o in good('ls after rm', 'ls', uri, '--json').lines()] == ['job/b'],
       'its neighbours went all the same')
    now = good('put', 'put', uri, 'job/b', 'r.pbuf').text.strip()
    good('rm by ref', 'rm', uri, now)
    appended_tests(tmp, uri)
    left_behind_tests(tmp, uri)
    ok(good('ls of nothing', 'ls', uri, '--json').out == b'', 'no lines')


def appended_tests(tmp, uri):
    """What a manifest lists comes joined; the manifest itself with --manifest."""
    names = ['fragment_rows_0.pbuf', 'fragment_rows_1.pbuf', 'fragment_fields.pbuf']
    for name in names + ['manifest_fragments.pbuf']:
        shutil.copy(VECTORS / name, tmp)
    for name in names:
        good(f'put {name}', 'put', uri, name[:-5], name)
    ref = good('put their manifest', 'put', uri, 'whole', 'manifest_fragments.pbuf').text.strip()
    good('concat', 'concat', '--manifest', 'manifest_fragments.pbuf', *names, '-o', 'joined.pbuf')
    for name in ('whole', ref):
        ok(good('get joins', 'get', uri, name, '-o', '-').out == (tmp / 'joined.pbuf').read_bytes(), 'as concat does')
        ok(good('get --manifest', 'get', uri, name, '--manifest', '-o', '-').out
           == (tmp / 'manifest_fragments.pbuf').read_bytes(), 'the list itself')
    ok(good('--manifest of a batch', 'get', uri, names[0][:-5], '--manifest', '-o', '-').out
       == (tmp / names[0]).read_bytes(), 'is the batch')
    ok(good('--widen --first-value', 'get', uri, 'whole', '--widen', '--first-value', '-o', '-').out
       == (tmp / 'joined.pbuf').read_bytes(), 'the same where nothing differs')
    good('another fragment', 'put', uri, names[1][:-5], names[0])
    bad('a fragment that is another', 1, ['packbuf: whole: ', 'fragment 1', '--manifest'], 'get', uri, 'whole',
        '-o', 'none')
    good('no fragment', 'rm', uri, names[1][:-5])
    bad('a fragment that is gone', 1, ['packbuf: whole: ', 'NOT_FOUND', 'its fragment fragment_rows_1', '--manifest'],
        'get', uri, 'whole', '-o', 'none')
    good('rm of all', 'rm', uri, 'whole', names[0][:-5], names[2][:-5])


def left_behind_tests(tmp, uri):
    fragment = 'job/1#f0123456789abcdef'
    for key in ('job/1', 'job/2', 'other', fragment):
        good(f'put {key}', 'put', uri, key, 'r.pbuf', '--bytes')
    def keys(name, *args):
        return good(name, 'rm', uri, *args).text.split()
    def there():
        return [o['key'] for o in good('ls', 'ls', uri, '--json').lines()]
    ok(keys('--dry-run', '--prefix', 'job/', '--dry-run') == ['job/1', fragment, 'job/2'], 'what would go')
    ok(keys('too young', '--prefix', 'job/', '--older-than', '1h', '--dry-run') == []
       == keys('so are orphans', '--orphans', '--dry-run'), 'nothing is that old')
    ok(keys('--orphans', '--orphans', '--older-than=0s', '--dry-run') == [fragment] and len(there()) == 4,
       'a fragment that no manifest lists; nothing went')
    good('without --dry-run', 'rm', uri, '--orphans', '--older-than=0s')
    ok(there() == ['job/1', 'job/2', 'other'], 'it went, and nothing else')
    good('--prefix', 'rm', uri, '--prefix', 'job/')
    ok(there() == ['other'], 'what begins so went')
    good('none of these', 'rm', uri, '--prefix', 'job/')
    good('all', 'rm', uri, '--prefix=')


def errors_tests(tmp, uri, ref):
    bad('get: no such key', 1, ['packbuf: none: NOT_FOUND'], 'get', uri, 'none', '-o', 'none')
    bad('stat: no such key', 1, ['packbuf: none: NOT_FOUND'], 'stat', uri, 'none')
    bad('rm: no such key', 1, ['packbuf: none: NOT_FOUND'], 'rm', uri, 'none')
    r = run('stat', uri, 'none', 'job/b', '--json')
    ok(r.code == 1 and [o['key'] for o in r.lines()] == ['job/b'] and r.err.count('\n') == 1,
       'a key that is missing does not hide the others', r)
    bad('no ref', 1, ['INVALID_ARGUMENT'], 'get', uri, 'pbref1:zz', '-o', 'none')
    parts = ref.split(':')
    for at, about in ((2, 'length'), (4, 'head')):
        wrong = parts[:]
        wrong[at] = f'{int(wrong[at], 16) ^ 1:x}'
        bad(f'a ref of another {about}', 1, ['job/b', 'ref says'], 'get', uri, ':'.join(wrong), '-o', 'none')
    bad('a key with a blank', 1, ['a b', 'INVALID_ARGUMENT'], 'put', uri, 'a b', 'raw')
    bad('a batch whose key has a #', 2, ["'#'"], 'put', uri, 'a#b', 'r.pbuf')
    bad('no such file', 1, ['absent', 'No such file'], 'put', uri, 'k', 'absent')
    damaged = bytearray((tmp / 'r.pbuf').read_bytes())
    damaged[100] ^= 1
    bad('a damaged batch is not put', 1, ['stdin', 'CHECKSUM'], 'put', uri, 'k', '-', stdin=bytes(damaged))
    good('but as bytes', 'put', uri, 'k', '-', '--bytes', stdin=bytes(damaged))
    ok(good('and got', 'get', uri, 'k', '-o', '-').out == bytes(damaged), 'the same bytes')
    good('and removed', 'rm', uri, 'k')
    ok(not (tmp / 'none').exists() and not [p for p in tmp.iterdir() if p.name.startswith('.packbuf-')],
       'no file of what failed')


def shm_tests(tmp):
    samples(tmp)
    objects_tests(tmp, f'shm:{NAME}', f'shm:{NAME}?size=4m&objects=64')
    about = os.stat(f'/dev/shm/packbuf.{NAME}')
    ok(stat.S_IMODE(about.st_mode) == 0o600, 'the file is its owner\'s alone')
    r = run('put', f'shm:{NAME}', 'large', '-', '--timeout', '200', stdin=bytes(5000000))
    ok(r.code == 1 and r.err.count('\n') == 1 and ('FULL' in r.err or 'CAPACITY' in r.err),
       'no room: exit 1, one line', r)
    s = Serving('tcp://127.0.0.1:0', '--store', f'shm:{NAME}')
    good('put in place', 'put', f'shm:{NAME}', 'shared', 'r.pbuf')
    ok(good('get it through a server', 'get', s.uri, 'shared', '-o', '-').out == (tmp / 'r.pbuf').read_bytes(),
       'the same bytes')
    r = s.end(signal.SIGINT)
    ok(r.code == 0 and r.err == '', 'SIGINT ends the server', r)
    good('the objects outlive it', 'stat', f'shm:{NAME}', 'shared')
    r = good('rm in place', 'rm', f'shm:{NAME}', 'shared')


def sessions_tests(tmp):
    """Of shm: who has a store open, what is lost in it, and how it is taken away."""
    samples(tmp)
    uri, path = f'shm:{NAME}', f'/dev/shm/packbuf.{NAME}'
    good('put', 'put', f'{uri}?size=1m&objects=64', 'raw', 'raw')
    s = Serving('tcp://127.0.0.1:0', '--store', uri)
    try:
        o = good('store --json', 'store', uri, '--json').lines()[0]
        ok([(t['name'], t['alive'], t['leases']) for t in o['sessions']] == [('packbuf', True, 0)] * 2
           and sum(t['own'] for t in o['sessions']) == 1, 'the server and this command', o)
        ok(s.process.pid in [t['process'] for t in o['sessions']], 'by its process', o)
        m = o['memory']
        ok(m['object_bytes'] + m['free_bytes'] == o['size'] == 1 << 20 and m['object_bytes'] == o['used']
           and m['largest_free'] <= m['free_bytes'] and o['held'] == [], 'whose the memory is', m)
        r = good('store for people', 'store', uri)
        ok(re.search(r'^ +\d+ +\d+ .* this one +packbuf$', r.text, re.M)
           and re.search(r'^free +\d+ bytes in [12] runs, the largest of \d+$', r.text, re.M),
           'sessions, and free memory', r)
        bad('--free while others have it open', 1, [uri, 'open', '--force'], 'store', uri, '--free')
        ok(good('it is still there', 'get', uri, 'raw', '-o', '-').out == (tmp / 'raw').read_bytes(), 'the same bytes')
        good('--free --force', 'store', uri, '--free', '--force')
        ok(not os.path.exists(path), 'its file is gone')
        bad('the server has no store any more', 1, ['DISCONNECTED'], 'stat', s.uri, 'raw')
    finally:
        s.end()
    good('another of its name', 'put', f'{uri}?size=1m&objects=64', 'raw', 'raw')
    good('store --check', 'store', uri, '--check')
    with open(path, 'r+b') as file:  # the owner of the last unit, who owns nothing there
        at = int.from_bytes(os.pread(file.fileno(), 8, 72), 'little') + (1 << 20) // 4096 * 4 - 4
        os.pwrite(file.fileno(), (1).to_bytes(4, 'little'), at)
    r = run('store', uri, '--check', '--json')
    ok(r.code == 1 and r.err == f'packbuf: {uri}: 4096 bytes in use for nothing\n' and r.lines(),
       'what is lost: exit 1, a line', r)
    good('--free', 'store', uri, '--free')
    ok(not os.path.exists(path), 'its file is gone')
    bad('--force alone', 2, ['--free'], 'store', uri, '--force')


def tcp_tests(tmp):
    samples(tmp)
    s = Serving('tcp://127.0.0.1:0', '--size', '4m')
    ok(re.fullmatch(r'tcp://127\.0\.0\.1:[1-9][0-9]*', s.uri), 'serve prints the URI with its port', s.uri)
    try:
        objects_tests(tmp, s.uri, s.uri)
        bad('the address is taken', 1, [s.uri, 'in use'], 'serve', s.uri)
        bad('larger than the store', 1, ['large: CAPACITY', 'larger than the store'], 'put', s.uri, 'large', '-',
            stdin=bytes(5000000))
        bad('no such object', 1, ['none: NOT_FOUND', 'no object'], 'get', s.uri, 'none', '-o', '-')
        bad('nor to remove', 1, ['none: NOT_FOUND', 'no such object'], 'rm', s.uri, 'none')
        bad('--check of what is no shm', 1, [s.uri, '--check'], 'store', s.uri, '--check')
        bad('--free of what is no shm', 1, [s.uri, 'UNSUPPORTED'], 'store', s.uri, '--free')
    finally:
        r = s.end()
    ok(r.code == 0 and r.err == '' and r.out == b'', 'SIGTERM ends it, and it says nothing', r)
    bad('then nobody answers', 1, [s.uri, 'DISCONNECTED'], 'ls', s.uri)


def secret_tests(tmp):
    (tmp / 'f').write_bytes(b'x')
    (tmp / 'secret').write_text('s3cret\n')
    bad('beyond loopback without a secret', 1, ['DENIED', 'secret'], 'serve', 'tcp://0.0.0.0:0')
    s = Serving('tcp://127.0.0.1:0', env=clean(PACKBUF_SECRET='s3cret'))
    try:
        good('the secret of the environment', 'put', s.uri, 'k', 'f', env=clean(PACKBUF_SECRET='s3cret'))
        good('or of a file', 'stat', s.uri, 'k', env=clean(PACKBUF_SECRET_FILE='secret'))
        bad('no secret', 1, [s.uri, 'DENIED'], 'stat', s.uri, 'k')
        r = bad('another', 1, [s.uri, 'DENIED'], 'stat', s.uri, 'k', env=clean(PACKBUF_SECRET='secret3'))
        ok('secret3' not in r.err and 's3cret' not in r.err, 'it is not shown', r)
    finally:
        ok(s.end().code == 0, 'it ends')


def doctor_tests(tmp):
    r = good('doctor --help', 'doctor', '--help')
    ok(r.text in good('--help', '--help').text, 'in the whole help', r)
    line = re.compile(r'(fine   |advice |PROBLEM)  \S.*: \S')
    r = run('doctor')
    ok(r.code in (0, 1) and r.err == '' and all(line.match(o) for o in r.text.splitlines()) and '/dev/shm: ' in r.text,
       'of all stores', r)
    r = run('doctor', f'shm:{NAME}', '--json')
    rows = [json.loads(o) for o in r.text.splitlines()]
    ok(rows and all(set(o) == {'severity', 'what', 'found', 'advice'}
                    and (o['severity'] == 'fine') == (o['advice'] == '') for o in rows), '--json', r)
    ok(r.code == any(o['severity'] == 'problem' for o in rows), 'exit 1 when there is a problem, else 0', r)
    ok(not os.path.exists(f'/dev/shm/packbuf.{NAME}'), 'it makes no store')
    r = run('doctor', f'shm:{NAME}?size=900000g')
    ok(r.code == 1 and 'PROBLEM  /dev/shm: ' in r.text, 'no machine has so much memory', r)
    r = run('doctor', 'tcp://127.0.0.1:1')
    ok(r.code == 1 and 'PROBLEM  127.0.0.1:1: ' in r.text and 'packbuf serve' in r.text,
       'nobody answers: exit 1, and what to do', r)
    s = Serving('tcp://127.0.0.1:0')
    ok(f'fine     {s.uri[6:]}: answers' in run('doctor', s.uri).text, 'a server answers')
    ok(s.end().code == 0, 'it ends')
    bad('doctor: two URIs', 2, ['packbuf: doctor: ', 'one URI'], 'doctor', 'local:', 'shm:a')
    bad('doctor: no such scheme', 2, ['packbuf: doctor: ', 'nope:x'], 'doctor', 'nope:x')
    bad('doctor: unknown option', 2, ['--wrong'], 'doctor', '--wrong')


def bench_document(name, *args):
    """bench-store --json, with what holds for any of its rows looked at; by operation, size and batch."""
    r = good(name, 'bench-store', *args, '--json')
    rows = json.loads(r.text)['rows'] if r.code == 0 else []
    done = [o for o in rows if 'skipped' not in o]
    ones = {(o['operation'], o['size']) for o in done if o['batch'] == 1}
    ok(done and all(o['calls'] >= 5 and o['seconds'] > 0 and 0 < o['p50_ns'] <= o['p99_ns'] for o in done),
       f'{name}: calls were made', rows)
    ok(all(abs(o['operations_per_second'] * o['seconds'] / (o['calls'] * o['batch']) - 1) < 1e-4 for o in done),
       f'{name}: keys a second are calls x batch / seconds', rows)
    ok(all((o['gigabytes_per_second'] is None) == (o['operation'] in ('stat', 'remove')) for o in done)
       and all(abs(o['gigabytes_per_second'] * 1e9 / (o['operations_per_second'] * o['size']) - 1) < 1e-4
               for o in done if o['gigabytes_per_second'] is not None), f'{name}: GB/s are keys a second x size', rows)
    ok(all(o['registrations_per_operation'] == 0 for o in done), f'{name}: nothing is registered once it is warm', rows)
    ok(all(o['over_one_by_one'] is None if o['batch'] == 1
           or (o['operation'], o['size']) not in ones else o['over_one_by_one'] > 0
           for o in done), f'{name}: batches beside one by one', rows)
    return {(o['operation'], o['size'], o['batch']): o for o in rows}


def bench_tests(tmp):
    short = ('--seconds', '0.002', '--sizes', '64,8k,1m', '--batches', '1,16')
    for uri in ('local:', f'shm:{NAME}?size=64m&objects=1024'):
        name = uri.split('?')[0]
        rows = bench_document(name, uri, *short)
        ok(len(rows) == 5 * 3 * 2 and not any('skipped' in o for o in rows.values()),
           f'{name}: all operations, sizes and batches', list(rows))
        moved = {k: o['moved_per_byte'] for k, o in rows.items() if k[0] not in ('stat', 'remove')}
        ok(all(bytes_ == (0 if k[0] == 'get-in-place' else 1) for k, bytes_ in moved.items()),
           f'{name}: a put and a get into memory are one copy, in place none', moved)
        ok(all((o['peer'] == 'memcpy' and o['of_peer'] > 0) == (k[0] in ('put', 'get') and k[1] >= 4096)
               for k, o in rows.items()), f'{name}: beside memcpy', rows)
    ok(good('ls', 'ls', f'shm:{NAME}').text.count('\n') == 1, 'no object is left')
    s = Serving('tcp://127.0.0.1:0', '--size', '64m')
    try:
        rows = bench_document('tcp', s.uri, *short)
        ok(len(rows) == 4 * 3 * 2
           and all(1 <= o['moved_per_byte'] < (12 if k[1] == 64 else 1.1)
                   for k, o in rows.items() if k[0] in ('put', 'get')), 'tcp: all bytes cross the wire, once', rows)
        o = bench_document('only gets', s.uri, '--ops=get', '--sizes=1m', '--batches=4', '--seconds=0.05')
        ok(list(o) == [('get', 1 << 20, 4)], 'one number for one operation', o)
        o = bench_document('too much', s.uri, '--ops=put', '--sizes=16m', '--batches=1,4', '--seconds=0.01')
        ok('quarter of the store' in o['put', 16 << 20, 4]['skipped'] and 'skipped' not in o['put', 16 << 20, 1],
           'what does not fit is left out, and said', o)
        r = good('for people', 'bench-store', s.uri, '--sizes=64', '--batches=1', '--seconds=0.01')
        ok(re.match(r'operation +size +batch +GB/s +keys/s ', r.text) and len(r.text.splitlines()) == 5,
           'a heading and a line for each', r)
        bad('what it cannot do', 1, [s.uri, 'get-in-place'], 'bench-store', s.uri, '--ops=get-in-place')
        if shutil.which('iperf3'):
            o = bench_document('iperf3', s.uri, '--iperf3', '--quick', '--congestion=reno', '--ops=get', '--sizes=1m',
                               '--batches=1')
            ok(all(o['peer'] == 'iperf3' and o['peer_gigabytes_per_second'] > 0 and o['of_peer'] > 0
                   for o in o.values()), 'beside iperf3', o)
        else:
            bad('no iperf3', 1, ['iperf3', 'cannot be run'], 'bench-store', s.uri, '--iperf3', '--quick')
    finally:
        s.end()
    bad('nobody listens', 1, ['tcp://127.0.0.1:1', 'DISCONNECTED'], 'bench-store', 'tcp://127.0.0.1:1')
    for args in (('--sizes=',), ('--sizes=1x',), ('--batches=0',), ('--batches=4097',), ('--ops=puts',), ('--ops=',),
                 ('--seconds=0',), ('--seconds=x',), ('--iperf3',), ('--congestion=reno',)):
        bad(' '.join(args), 2, ['packbuf: bench-store: ', args[0].split('=')[0]], 'bench-store', 'local:', *args)


def metrics_tests(tmp):
    (tmp / 'f').write_bytes(b'x')
    import socket
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    s = Serving('tcp://127.0.0.1:0', '--metrics', f'127.0.0.1:{port}')
    try:
        good('put', 'put', s.uri, 'k', 'f')
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f'http://127.0.0.1:{port}/metrics',
                                                                               timeout=10) as answer:
            text = answer.read().decode()
        ok(f'packbuf_puts_total{{server="{s.uri}"}} 1' in text, '--metrics', text)
    finally:
        ok(s.end().code == 0, 'it ends')


def no_store():
    pathlib.Path(f'/dev/shm/packbuf.{NAME}').unlink(missing_ok=True)


TESTS = (usage_tests, shm_tests, sessions_tests, tcp_tests, secret_tests, doctor_tests, metrics_tests, bench_tests)
if __name__ == '__main__':
    sys.exit(main(TESTS, no_store))
