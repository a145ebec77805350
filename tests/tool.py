#!/usr/bin/env python3
"""The `packbuf` command: every subcommand, option, error and exit code, pipes, temporaries, hostile files, and the
sample data when PACKBUF_DATA is there.

TAP on stdout. Needs the standard library alone; numpy is used for cross-checks when it is there. PACKBUF_TOOL: the
command (build/packbuf).
A second build with zlib and sanitizers is made for deflated and hostile files (PACKBUF_MUTATIONS of each kind).
"""
import base64
import io
import json
import math
import os
import pathlib
import pty
import random
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

try:
    import numpy
except ImportError:
    numpy = None

from command import ROOT, TOOL, bad, good, main, ok, run, skip

DATA = pathlib.Path(os.environ.get('PACKBUF_DATA') or ROOT.parent / 'shared' / 'data')


def same_value(a, b):
    """Section 16, for parsed JSON: types count, the order of keys does not."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_value(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_value, a, b))
    if isinstance(a, float):
        return struct.pack('<d', a) == struct.pack('<d', b)
    return a == b


def leftovers(folder):
    return [p.name for p in pathlib.Path(folder).rglob('.packbuf-*')]


# ---- .npy as numpy.save writes it, by hand ---------------------------------------------------------------------------

def npy(descr, shape, data, version=1, fortran=False, header=None):
    text = header or "{'descr': %r, 'fortran_order': %r, 'shape': (%s), }" % (
        descr, fortran, ', '.join(map(str, shape)) + (',' if len(shape) == 1 else ''))
    if not header and shape:
        text += ' ' * (21 - len(str(shape[0])))
    size = 8 + (2 if version == 1 else 4) + len(text) + 1
    text += ' ' * (64 - size % 64) + '\n'
    return b'\x93NUMPY' + bytes([version, 0]) + struct.pack('<H' if version == 1 else '<I',
                                                            len(text)) + text.encode() + data


def zipped(members, method=zipfile.ZIP_STORED, wide=False):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', method) as z:
        for name, data in members.items():
            with z.open(name, 'w', force_zip64=wide) as f:
                f.write(data)
    return out.getvalue()


def safetensors(tensors, metadata=None, tail=b'', header=None):
    """tensors: name -> (dtype, shape, bytes)."""
    head, body = {}, b''
    if metadata is not None:
        head['__metadata__'] = metadata
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [len(body), len(body) + len(data)]}
        body += data
    text = (header if header is not None else json.dumps(head)).encode()
    return struct.pack('<Q', len(text)) + text + body + tail


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# ---- the tests; each gets a fresh folder as the working directory ----------------------------------------------------

def usage_tests(tmp):
    r = good('--version', '--version')
    ok(r.text.startswith('packbuf ') and 'format 1.0' in r.text, 'version line', r)
    r = good('--help', '--help')
    names = ['pack', 'unpack', 'infer', 'inspect', 'verify', 'cat', 'diff']
    ok(all(f'Usage: packbuf {n} ' in r.text for n in names), 'the whole help names each subcommand', r)
    for n in names:
        r = good(f'{n} --help', n, '--help')
        ok(r.text.startswith(f'Usage: packbuf {n} '), f'help of {n}', r)
        bad(f'{n}: unknown option', 2, ['--wrong'], n, '--wrong')
        bad(f'{n}: unknown letter', 2, ['-Z'], n, '-Z')
        bad(f'{n}: no file', 2, [n], n)
    bad('no command', 2, ['command'])
    bad('unknown command', 2, ['frobnicate'], 'frobnicate')
    (tmp / 'a.jsonl').write_text('{"a":1}\n')
    bad('pack without -o', 2, ['-o'], 'pack', 'a.jsonl')
    bad('option without a value', 2, ['needs a value'], 'pack', 'a.jsonl', '-o')
    bad('long option without a value', 2, ['--align', 'needs a value'], 'pack', 'a.jsonl', '-o', 'x', '--align')
    bad('flag with a value', 2, ['takes no value'], 'pack', 'a.jsonl', '-o', 'x', '--no-checksums=1')
    bad('unknown suffix', 2, ['a.txt', '.jsonl'], 'pack', 'a.txt', '-o', 'x')
    bad('no such file', 1, ['packbuf: none.jsonl: ', 'No such file'], 'pack', 'none.jsonl', '-o', 'x')
    bad('a folder as input', 1, ['folder.npy', 'folder'], 'pack', make_folder(tmp / 'folder.npy'), '-o', 'x')
    bad('a folder as output', 1, ['folder.npy', 'folder'], 'pack', 'a.jsonl', '-o', 'folder.npy')
    bad('no such folder for the output', 1, ['none/x.pbuf', 'No such file'], 'pack', 'a.jsonl', '-o', 'none/x.pbuf')
    bad('--packing zip', 2, ['--packing', 'balanced', 'zip'], 'pack', 'a.jsonl', '-o', 'x', '--packing', 'zip')
    bad('--packing of concat', 2, ['--packing', 'balanced', 'zip'], 'concat', 'a.jsonl', '-o', 'x', '--packing=zip')
    for value in ('63', '100', '8192', 'x', '-64', '99999999999999999999'):
        bad(f'--align {value}', 2, ['--align'], 'pack', 'a.jsonl', '-o', 'x', '--align', value)
    bad('--metadata without =', 2, ['KEY=VALUE'], 'pack', 'a.jsonl', '-o', 'x', '--metadata', 'x')
    good('options after --', 'pack', '-o', 'out.pbuf', '--', 'a.jsonl')
    good('-oFILE', 'pack', '-oout2.pbuf', 'a.jsonl')
    good('--output=FILE', 'pack', '--output=out3.pbuf', 'a.jsonl')
    ok((tmp / 'out.pbuf').read_bytes() == (tmp / 'out2.pbuf').read_bytes() == (tmp / 'out3.pbuf').read_bytes(),
       'all the same bytes')
    bad('unpack: -o and -d', 2, ['-o', '-d'], 'unpack', 'out.pbuf', '-o', 'x', '-d', 'y')
    bad('unpack: bad range', 2, ['--rows'], 'unpack', 'out.pbuf', '--rows', 'a:b')
    bad('cat without field', 2, ['--field'], 'cat', 'out.pbuf')
    bad('verify: bad level', 2, ['--level'], 'verify', 'out.pbuf', '--level', 'deep')
    bad('verify: bad number', 2, ['--decoded-bytes'], 'verify', 'out.pbuf', '--decoded-bytes', '1k')
    bad('diff: one file', 2, ['two files'], 'diff', 'out.pbuf')
    bad('diff: --max 0', 2, ['--max'], 'diff', 'out.pbuf', 'out.pbuf', '--max', '0')
    ok(leftovers(tmp) == [] and not (tmp / 'x').exists(), 'nothing is left behind', leftovers(tmp))


def make_folder(path):
    path.mkdir()
    return path.name


ROWS = [
    {'id': 1, 'text': 'a\u00e9\u4e2d\U0001f600\n', 'score': 0.5, 'flag': True, 'tokens': [1, 2, 3],
     'meta': {'step': 1, 'tag': None}},
    {'id': 2, 'text': '', 'score': None, 'flag': False, 'tokens': [], 'meta': {'step': 2}},
    {'id': 3, 'text': None, 'score': -0.0, 'tokens': [9007199254740993], 'meta': None,
     'extra': [[], {}, '', None, 1.0]},
    {'id': -4, 'score': 1e300, 'flag': None, 'tokens': None, 'big': 123456789012345678901234567890},
]


def jsonl_tests(tmp):
    text = '\n'.join(map(json.dumps, ROWS))
    (tmp / 'r.jsonl').write_text('\n  \n' + text.replace('\n', '\n\n\t\r\n') + '\n\n')
    good('pack rows with blank lines', 'pack', 'r.jsonl', '-o', 'r.pbuf')
    ok(stat.S_IMODE((tmp / 'r.pbuf').stat().st_mode) == 0o666 & ~current_umask(), 'the mode of a new file')
    r = good('verify', 'verify', 'r.pbuf')
    ok(r.text == 'r.pbuf: ok (full)\n', 'ok line', r)
    ok(good('verify -q', 'verify', '-q', 'r.pbuf').out == b'', 'quiet')
    r = good('unpack to stdout', 'unpack', 'r.pbuf')
    ok(same_value(r.lines(), ROWS), 'all rows come back: values, types, key presence, null-ness', r)
    good('unpack -o', 'unpack', 'r.pbuf', '-o', 'back.jsonl')
    ok((tmp / 'back.jsonl').read_bytes() == r.out, 'the same on stdout and in a file')
    good('pack what was unpacked', 'pack', 'back.jsonl', '-o', 'again.pbuf')
    good('diff', 'diff', 'r.pbuf', 'again.pbuf')
    ok((tmp / 'r.pbuf').read_bytes() == (tmp / 'again.pbuf').read_bytes(), 'packing is canonical')
    (tmp / 'bom.jsonl').write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}')
    good('byte order mark, CR LF, no last newline', 'pack', 'bom.jsonl', '-o', 'bom.pbuf')
    ok(good('unpack it', 'unpack', 'bom.pbuf').lines() == [{'a': 1}, {'a': 2}], 'two rows')
    (tmp / 'none.jsonl').write_bytes(b'')
    good('no rows', 'pack', 'none.jsonl', '-o', 'none.pbuf')
    ok(good('unpack no rows', 'unpack', 'none.pbuf').out == b'', 'no lines')
    good('verify no rows', 'verify', 'none.pbuf')
    for name, line, words in [
            ('syntax', '{"a": 1,, "b"}', ['line 2, column 9', 'BAD_JSON']), ('column counts characters',
                                                                             '{"\u00e9\u4e2d": tru}',
                                                                             ['line 2, column ']),
            ('end', '{"a": [1', ['line 2, column 9']), ('no dict', '[1]', ['line 2', 'object']),
            ('number', '3', ['line 2', 'object']),
            ('duplicate key', '{"a":1,"a":2}', ['line 2, column']), ('lone surrogate', '{"a":"\\ud800"}',
                                                                     ['line 2, column']),
            ('overflow', '{"a":1e999}', ['line 2, column']), ('after the end', '{"a":1} x', ['line 2, column 9']),
            ('deep', '{"a":' + '[' * 600 + ']' * 600 + '}', ['line 2', 'DEPTH']),
            ('control character', '{"a":"\x01"}', ['line 2, column'])]:
        (tmp / 'bad.jsonl').write_text('{"a": 0}\n' + line + '\n', encoding='utf-8')
        bad(f'bad line: {name}', 1, ['packbuf: bad.jsonl: ', *words], 'pack', 'bad.jsonl', '-o', 'bad.pbuf')
    (tmp / 'bad.jsonl').write_bytes(b'{"a": "\xff\xfe"}\n')
    bad('no UTF-8', 1, ['bad.jsonl', 'line 1', 'BAD_UTF8'], 'pack', 'bad.jsonl', '-o', 'bad.pbuf')
    (tmp / 'bad.jsonl').write_text('{"a":' * 40 + '1' + '}' * 40 + '\n')
    bad('dicts deeper than expansion goes', 1, ['bad.jsonl', 'DEPTH'], 'pack', 'bad.jsonl', '-o', 'bad.pbuf')
    ok(not (tmp / 'bad.pbuf').exists() and leftovers(tmp) == [], 'nothing is left behind')


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def b64(data):
    return base64.b64encode(data).decode()


def tag_tests(tmp):
    tensor = {'$tensor': {'form': 'tensor', 'dtype': 'bfloat16', 'shape': [2, 1], 'data': b64(b'\x80\x3f\x00\x40')}}
    cells = {
        'bytes': {'$bytes': b64(b'\x00\xff\x10')}, 'empty': {'$bytes': ''}, 'nan': {'$float': '7ff8000000000001'},
        'nan2': math.nan,
        'tensor': tensor, 'array': {'$tensor': {'form': 'array', 'dtype': 'int32', 'shape': [2],
                                                'data': b64(struct.pack('<2i', 1, -2))}},
        'scalar': {'$tensor': {'form': 'scalar', 'dtype': 'float32', 'shape': [], 'data': b64(struct.pack('<f', 1.5))}},
        'media': {'$media': {'mime': 'image/png', 'height': 2, 'width': 3, 'channels': 3, 'mode': 'RGB', 'rate': 1.0,
                             'data': b64(b'png')}},
        'opaque': {'$opaque': {'serializer': 'pickle5', 'data': b64(b'\x80.')}},
        'dict': {'$dict': [[1, 'a'], ['1', 'b'], [None, {'$bytes': 'AA=='}], [True, 2.5], [{'$bytes': 'AA=='}, []]]},
        'single': {'$dict': [['$bytes', 'no tag']]}, 'mixed': [{'$bytes': 'AAA='}, 'x', {'$float': 'fff8000000000000'}],
    }
    (tmp / 't.jsonl').write_text(json.dumps(cells) + '\n' + json.dumps({**cells, 'absent': 1}) + '\n')
    good('pack tagged cells', 'pack', 't.jsonl', '-o', 't.pbuf')
    good('verify tagged cells', 'verify', 't.pbuf')
    r = good('unpack tagged cells', 'unpack', 't.pbuf')
    rows = r.lines()
    ok(all(json.dumps(rows[0][k]) == json.dumps(v) for k, v in cells.items()), 'all tags come back as they were',
       [k for k, v in cells.items() if json.dumps(rows[0].get(k)) != json.dumps(v)], r)
    ok('absent' not in rows[0] and rows[1]['absent'] == 1, 'a missing key stays missing')
    r = good('cat shows missing', 'cat', 't.pbuf', '--field', 'absent')
    ok(r.lines() == [{'$missing': True}, 1], 'as $missing', r)
    (tmp / 'm.jsonl').write_text('{"a":{"$missing":true},"b":{"c":{"$missing":true},"d":1}}\n{"a":1,"b":{"c":2}}\n')
    good('pack $missing', 'pack', 'm.jsonl', '-o', 'm.pbuf')
    ok(good('unpack it', 'unpack', 'm.pbuf').lines() == [{'b': {'d': 1}}, {'a': 1, 'b': {'c': 2}}],
       'as keys that are not there')
    (tmp / 'plain.jsonl').write_text('{"a":{"$ref":"#/x"},"b":{"$bytes":"AA==","other":1}}\n')
    good('other $ keys are ordinary', 'pack', 'plain.jsonl', '-o', 'plain.pbuf')
    good('and pack again from what unpack prints', 'pack', '-', '-o', 'plain2.pbuf',
         stdin=run('unpack', 'plain.pbuf').out)
    good('with equal cells', 'diff', 'plain.pbuf', 'plain2.pbuf')
    (tmp / 'n.jsonl').write_text('{"a":{"$bytes":"not base64"}}\n')
    bad('a tag with bad contents', 1, ['line 1', 'base64', 'at a'], 'pack', 'n.jsonl', '-o', 'x')
    good('--no-tags', 'pack', 'n.jsonl', '--no-tags', '-o', 'n.pbuf')
    ok(good('cat it', 'cat', 'n.pbuf', '-f', 'a').text == '{"$dict":[["$bytes","not base64"]]}\n', 'an ordinary dict')
    for text, word in [('{"$bytes":"A==="}', 'base64'), ('{"$bytes":"AB=="}', 'base64'), ('{"$bytes":1}', 'base64'),
                       ('{"$float":"7ff8"}', '16'), ('{"$float":"7ff800000000000g"}', '16'),
                       ('{"$tensor":{"form":"array","dtype":"int32","shape":[3],"data":"AAAAAA=="}}', 'length'),
                       ('{"$tensor":{"form":"x","dtype":"int32","shape":[],"data":""}}', 'form'),
                       ('{"$tensor":{"form":"array","dtype":"int33","shape":[],"data":""}}', 'dtype'),
                       ('{"$tensor":{"form":"array","dtype":"int8",'
                        '"shape":[4611686018427387904,4611686018427387904],"data":""}}', 'length'),
                       ('{"$tensor":{"form":"array","dtype":"int8","shape":[-1],"data":""}}', 'shape'),
                       ('{"$tensor":[]}', '$tensor'), ('{"$media":{"data":"","file":"x"}}', '$media'),
                       ('{"$media":{"height":-1,"data":""}}', '$media'),
                       ('{"$opaque":{"data":""}}', '$opaque'), ('{"$dict":[[1,2],[1,3]]}', '$dict'),
                       ('{"$dict":[[[],3]]}', '$dict'), ('{"$dict":3}', '$dict'), ('[{"$missing":true}]', '$missing'),
                       ('{"$missing":false}', '$missing')]:
        bad(f'refused: {text[:50]}', 1, ['packbuf: stdin: line 1', word], 'pack', '-', '-o', 'x',
            stdin=b'{"a":' + text.encode() + b'}\n')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def file_tag_tests(tmp):
    (tmp / 'folder').mkdir()
    (tmp / 'folder' / 'pic.bin').write_bytes(b'\x00\x01pic')
    (tmp / 'outside.bin').write_bytes(b'outside')
    row = {'a': {'$file': 'pic.bin'}, 'b': {'$media': {'mime': 'x/y', 'file': 'pic.bin'}}}
    (tmp / 'folder' / 'f.jsonl').write_text(json.dumps(row) + '\n')
    good('$file', 'pack', 'folder/f.jsonl', '-o', 'f.pbuf')
    ok(good('cat $file', 'cat', 'f.pbuf', '-f', 'a').lines() == [{'$bytes': b64(b'\x00\x01pic')}],
       'the bytes of the file')
    ok(good('cat $media file', 'cat', 'f.pbuf', '-f', 'b').lines()
       == [{'$media': {'mime': 'x/y', 'data': b64(b'\x00\x01pic')}}], 'the bytes of the file')
    (tmp / 'folder' / 'link.bin').symlink_to('../outside.bin')
    os.mkfifo(tmp / 'folder' / 'fifo')
    for path, word in [('../outside.bin', '--allow-paths'), (str(tmp / 'folder' / 'pic.bin'), '--allow-paths'),
                       ('link.bin', '--allow-paths'), ('x/../../outside.bin', '$file'), ('none', 'no such file'),
                       ('fifo', 'regular'), ('.', '$file'), ('a\0b', 'NUL')]:
        (tmp / 'folder' / 'g.jsonl').write_text(json.dumps({'a': {'$file': path}}) + '\n')
        bad(f'$file {path!r} is refused', 1, ['folder/g.jsonl: line 1', word], 'pack', 'folder/g.jsonl', '-o', 'x')
    for path in ['../outside.bin', str(tmp / 'outside.bin')]:
        (tmp / 'folder' / 'g.jsonl').write_text(json.dumps({'a': {'$file': path}}) + '\n')
        good('--allow-paths', 'pack', 'folder/g.jsonl', '--allow-paths', '-o', 'g.pbuf')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def npy_dtype_tests(tmp):
    kinds = {'|b1': '?', '|i1': 'b', '|u1': 'B', 'i2': 'h', 'u2': 'H', 'i4': 'i', 'u4': 'I', 'i8': 'q', 'u8': 'Q',
             'f2': 'e', 'f4': 'f', 'f8': 'd', 'c8': 'ff', 'c16': 'dd', 'M8[ns]': 'q', 'M8[D]': 'q', 'M8[s]': 'q',
             'M8[ms]': 'q', 'M8[us]': 'q'}
    for descr, code in kinds.items():
        n = 24 * len(code)
        values = [i % 2 == 0 for i in range(n)] if code == '?' else [i % 3 - (1 if code[0] in 'bhiqefd' else 0)
                                                                     for i in range(n)]
        little = struct.pack(f'<{n}{code[0]}', *values)
        big = struct.pack(f'>{n}{code[0]}', *values)
        plain = descr if descr[0] == '|' else '<' + descr
        size = len(little) // 24
        expected = npy(plain, (4, 2, 3), little)
        order = [(i * 2 + j) * 3 + k for k in range(3) for j in range(2) for i in range(4)]
        columns = b''.join(little[o * size:(o + 1) * size] for o in order)
        variants = {'c': expected, 'v2': npy(plain, (4, 2, 3), little, 2), 'v3': npy(plain, (4, 2, 3), little, 3),
                    'f': npy(plain, (4, 2, 3), columns, fortran=True)}
        if descr[0] != '|':
            variants['big'] = npy('>' + descr, (4, 2, 3), big)
        for name, data in variants.items():
            (tmp / f'{name}.npy').write_bytes(data)
        r = run('pack', *[f'{n}.npy' for n in variants], '-o', 'n.pbuf')
        r2 = run('unpack', 'n.pbuf', '-d', 'out')
        got = {n: (tmp / 'out' / f'{n}.npy').read_bytes() == expected
               for n in variants if (tmp / 'out' / f'{n}.npy').exists()}
        ok(r.code == r2.code == 0 and not r.err and not r2.err and all(got.get(n) for n in variants),
           f'{descr}: C, Fortran, versions 1 to 3, either byte order', got, r, r2)
        shutil.rmtree(tmp / 'out', ignore_errors=True)
        flat = {'one': npy(plain, (24,), little), 'none': npy(plain, (24, 0), b''), 'col': npy(plain, (24, 1), little)}
        for name, data in flat.items():
            (tmp / f'{name}.npy').write_bytes(data)
        r = run('pack', *[f'{n}.npy' for n in flat], '-o', 'n.pbuf')
        r2 = run('unpack', 'n.pbuf', '-d', 'out')
        ok(r.code == r2.code == 0 and all((tmp / 'out' / f'{n}.npy').read_bytes() == d for n, d in flat.items()),
           f'{descr}: [24], [24, 0], [24, 1]', r, r2)
        ok(run('verify', '-q', 'n.pbuf').code == 0, f'{descr}: verifies')
        shutil.rmtree(tmp / 'out', ignore_errors=True)
    ok(leftovers(tmp) == [], 'nothing is left behind')


def npy_tests(tmp):
    good('no rows', 'pack', put(tmp / 'zero.npy', npy('<f4', (0, 3), b'')), '-o', 'zero.pbuf')
    good('unpack no rows', 'unpack', 'zero.pbuf', '-d', 'zero')
    ok((tmp / 'zero' / 'zero.npy').read_bytes() == npy('<f4', (0, 3), b''), '[0, 3]')
    put(tmp / 'const.npy', npy('<i8', (100000,), b'\7' + bytes(7) * 1 + (b'\7' + bytes(7)) * 99999))
    put(tmp / 'seq.npy', npy('<i8', (100000,), struct.pack('<100000q', *range(100000))))
    good('constant and sequence', 'pack', 'const.npy', 'seq.npy', '-o', 'c.pbuf')
    good('unpack rows of them', 'unpack', 'c.pbuf', '-d', 'c', '--rows', '99990:')
    ok((tmp / 'c' / 'seq.npy').read_bytes() == npy('<i8', (10,), struct.pack('<10q', *range(99990, 100000)))
       and (tmp / 'c' / 'const.npy').read_bytes() == npy('<i8', (10,), struct.pack('<q', 7) * 10), 'computed elements')
    ok(run('cat', 'c.pbuf', '-f', 'seq', '--rows', '5').text == '5\n', 'a plain number, not an array')
    put(tmp / 'one.npy', npy('<i8', (24,), bytes(192)))
    put(tmp / 'zd.npy', npy('<f8', (), struct.pack('<d', 2.5)))
    good('an array without dimensions', 'pack', 'zd.npy', 'one.npy', '-o', 'zd.pbuf')
    r = good('is a batch value', 'cat', 'zd.pbuf', '--value', 'zd')
    ok(r.lines() == [{'$tensor': {'form': 'scalar', 'dtype': 'float64', 'shape': [],
                                  'data': b64(struct.pack('<d', 2.5))}}], 'a scalar', r)
    good('rank 8', 'pack', put(tmp / 'rank.npy', npy('<i2', (2, 1, 1, 3, 1, 1, 2, 1), bytes(range(24)))), '-o',
         'rank.pbuf')
    good('unpack rank 8', 'unpack', 'rank.pbuf', '-d', 'rank')
    ok((tmp / 'rank' / 'rank.npy').read_bytes() == (tmp / 'rank.npy').read_bytes(), 'rank 8 comes back')
    if numpy is None:
        print('# no numpy: no cross-check')
    else:
        numpy.save(tmp / 'np.npy', numpy.arange(24, dtype='>f4').reshape(4, 6).T)
        numpy.save(tmp / 'expected.npy', numpy.ascontiguousarray(numpy.arange(24, dtype='<f4').reshape(4, 6).T))
        good('numpy: Fortran order, big-endian', 'pack', 'np.npy', '-o', 'np.pbuf')
        good('numpy: unpack', 'unpack', 'np.pbuf', '-d', 'np')
        ok((tmp / 'np' / 'np.npy').read_bytes() == (tmp / 'expected.npy').read_bytes(),
           'the bytes that numpy.save writes')
    ok(leftovers(tmp) == [], 'nothing is left behind')


def npy_refused_tests(tmp):
    for name, data, words in [
            ('objects', npy('|O', (1,), b'\x80'), ['pickle', '|O']),
            ('strings', npy('<U5', (1,), bytes(20)), ['<U5', '.jsonl']), ('bytes', npy('|S3', (1,), bytes(3)), ['|S3']),
            ('void', npy('|V2', (1,), bytes(2)), ['|V2']), ('timedelta', npy('<m8[s]', (1,), bytes(8)), ['<m8[s]']),
            ('hours', npy('<M8[h]', (1,), bytes(8)), ['<M8[h]', 'unit']),
            ('25 s', npy('<M8[25s]', (1,), bytes(8)), ['M8[25s]']),
            ('generic time', npy('<M8', (1,), bytes(8)), ['<M8']),
            ('long double', npy('<f16', (1,), bytes(16)), ['<f16']), ('i3', npy('<i3', (1,), bytes(3)), ['<i3']),
            ('structured',
             npy(0, (1,), bytes(4), header="{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }"),
             ['structured']),
            ('no magic', b'NUMPY' + bytes(100), ['no .npy']), ('empty', b'', ['no .npy']),
            ('version 4', npy('<f4', (1,), bytes(4), 4), ['version 4.0']),
            ('short', npy('<f4', (2,), bytes(4)), ['needs 8 bytes, there are 4']),
            ('long', npy('<f4', (1,), bytes(5)), ['1 bytes after']),
            ('huge', npy('<f4', (2**62, 2**62), bytes(4)), ['too large']),
            ('huger', npy('<f4', (10**30,), bytes(4)), ['too large']),
            ('header too long', b'\x93NUMPY\2\0\xff\xff\xff\xff' + bytes(50), ['longer']),
            ('header cut', b'\x93NUMPY\1\0\xff\x00{', ['too early']),
            ('9 dimensions', npy('<i1', (1,) * 9, bytes(1)), ['dimensions']),
            ('negative', npy(0, (1,), bytes(4), header="{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
             ['header']),
            ('a key twice',
             npy(0, (1,), bytes(4), header="{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"),
             ['header']),
            ('a key less', npy(0, (1,), bytes(4), header="{'descr': '<f4', 'shape': (1,), }"), ['header']),
            ('code', npy(0, (1,), bytes(4),
                         header="{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (1,), }"), ['header']),
            ('rest', npy(0, (1,), bytes(4), header="{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x"),
             ['header'])]:
        put(tmp / 'bad.npy', data)
        bad(f'.npy refused: {name}', 1, ['packbuf: bad.npy: ', *words], 'pack', 'bad.npy', '-o', 'x')
    put(tmp / 'bad.npy', npy('|b1', (2,), b'\1\2'))
    bad('a bool that is neither 0 nor 1', 1, ['bad.npy', 'BOOL'], 'pack', 'bad.npy', '-o', 'x')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def put(path, data):
    path.write_bytes(data)
    return path.name


def archive_tests(tmp):
    members = {'a.npy': npy('<f4', (4, 2), struct.pack('<8f', *range(8))),
               'sub/b.npy': npy('<i8', (4,), struct.pack('<4q', 1, 2, 3, 5)),
               'zero.npy': npy('<i4', (), struct.pack('<i', 7))}
    for name, wide in [('stored', False), ('zip64', True)]:
        put(tmp / 'z.npz', zipped(members, wide=wide))
        good(f'.npz {name}', 'pack', 'z.npz', '-o', 'z.pbuf')
        good(f'.npz {name}: unpack', 'unpack', 'z.pbuf', '-d', 'z')
        ok((tmp / 'z' / 'a.npy').read_bytes() == members['a.npy']
           and (tmp / 'z' / 'sub%2Fb.npy').read_bytes() == members['sub/b.npy'], 'members come back; a safe file name')
        ok(json.loads((tmp / 'z' / 'values.json').read_text())['zero']['$tensor']['dtype'] == 'int32',
           'a 0-d member is a batch value')
        shutil.rmtree(tmp / 'z')
    put(tmp / 'c.npz', b'prefix' + zipped(members))
    run('pack', 'c.npz', '-o', 'c.pbuf')  # offsets that lie: refused or read, never worse (sanitizers below)
    put(tmp / 'd.npz', zipped(members, zipfile.ZIP_DEFLATED))
    if 'zlib' in run('--version').text:
        good('deflated .npz', 'pack', 'd.npz', '-o', 'd.pbuf')
    else:
        bad('deflated .npz without zlib', 1, ['d.npz(a.npy)', 'zlib', 'savez'], 'pack', 'd.npz', '-o', 'x')
    good_zip = zipped(members)
    broken = bytearray(good_zip)
    broken[good_zip.index(members['a.npy']) + len(members['a.npy']) - 1] ^= 1
    for name, data, words in [('damaged member', bytes(broken), ['(a.npy)', 'checksum']),
                              ('no zip', b'x' * 100, ['no zip']), ('empty', b'', ['no zip']),
                              ('cut', good_zip[:-5], ['no zip']),
                              ('other member', zipped({'x.txt': b'1'}), ['(x.txt)', 'no .npy member']),
                              ('pickled member', zipped({'o.npy': npy('|O', (1,), b'')}), ['(o.npy)', 'pickle']),
                              ('bzip2', zipped(members, zipfile.ZIP_BZIP2), ['method 12'])]:
        put(tmp / 'bad.npz', data)
        bad(f'.npz refused: {name}', 1, ['packbuf: bad.npz', *words], 'pack', 'bad.npz', '-o', 'x')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def safetensors_tests(tmp):
    tensors = {'w.f32': ('F32', [2, 3], struct.pack('<6f', *range(6))), 'bf': ('BF16', [2, 1], b'\x80\x3f\x00\x40'),
               'e4': ('F8_E4M3', [2], b'\x38\x40'), 'e5': ('F8_E5M2', [2, 1], b'\x3c\x40'),
               'i': ('I64', [2], struct.pack('<2q', 1, -1)),
               'u8': ('U8', [2], b'\1\2'), 'b': ('BOOL', [2], b'\1\0'), 'h': ('F16', [2], b'\0\x3c\0\x40'),
               'd': ('F64', [2], struct.pack('<2d', 1, 2)), 'u16': ('U16', [2], b'\1\0\2\0'),
               'u32': ('U32', [2, 0], b''), 'u64': ('U64', [2], struct.pack('<2Q', 2**63, 1)),
               'i8': ('I8', [2], b'\1\xff'), 'i16': ('I16', [2], b'\1\0\xff\xff'),
               'i32': ('I32', [2], struct.pack('<2i', 1, -1)), 'scalar': ('F32', [], struct.pack('<f', 0.5))}
    put(tmp / 's.safetensors', safetensors(tensors, {'format': 'pt', 'k': '\u00e9'}))
    good('.safetensors', 'pack', 's.safetensors', '-o', 's.pbuf')
    good('.safetensors: verify', 'verify', 's.pbuf')
    about = json.loads(good('inspect --json', 'inspect', 's.pbuf', '--json').text)
    ok(about['metadata'] == {'': {'format': 'pt', 'k': '\u00e9'}}, 'metadata of the buffer', about['metadata'])
    dtypes = {n['path']: n['dtype'] for n in about['nodes']}
    ok(dtypes['bf'] == 'bfloat16' and dtypes['e4'] == 'float8_e4m3fn' and dtypes['e5'] == 'float8_e5m2'
       and dtypes['w\\.f32'] == 'float32', 'dtypes', dtypes)
    r = run('unpack', 's.pbuf', '-d', 's')
    ok(r.code == 0 and r.err.count('note:') == 3 and 'bfloat16' in r.err, 'notes on dtypes that .npy lacks', r)
    ok((tmp / 's' / 'bf.npy').read_bytes() == npy('<u2', (2, 1), b'\x80\x3f\x00\x40')
       and (tmp / 's' / 'e4.npy').read_bytes() == npy('|u1', (2,), b'\x38\x40')
       and (tmp / 's' / 'w.f32.npy').read_bytes() == npy('<f4', (2, 3), tensors['w.f32'][2]), 'as unsigned bits')
    ok(run('unpack', '-q', 's.pbuf', '-d', 's').err == '', 'no notes with -q')
    (tmp / 'view.json').write_text('{"bf":{"view":"bfloat16"},"e4":{"view":"float8_e4m3fn"}}')
    good('schema: view', 'pack', 's/bf.npy', 's/e4.npy', '--schema', 'view.json', '-o', 'v.pbuf')
    ok(good('cat a view', 'cat', 'v.pbuf', '-f', 'bf', '--rows', '0').lines()[0]['$tensor']['dtype'] == 'bfloat16',
       'the bits as bfloat16')
    good('--metadata decides', 'pack', 's.safetensors', '--metadata', 'format=mine', '--metadata', 'a=b=c',
         '-o', 'm.pbuf')
    ok(json.loads(run('inspect', '--json', 'm.pbuf').text)['metadata']['']
       == {'format': 'mine', 'k': '\u00e9', 'a': 'b=c'}, 'over that of the file')
    put(tmp / 's2.safetensors', safetensors({'other': ('I8', [2], b'\1\2')}, {'format': 'np'}))
    bad('metadata that differ', 1, ['s2.safetensors', 'format', 's.safetensors'], 'pack', 's.safetensors',
        's2.safetensors', '-o', 'x')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def safetensors_refused_tests(tmp):
    f4 = struct.pack('<f', 1)
    for name, data, words in [
            ('length', struct.pack('<Q', 10**9) + b'{}', ['header']),
            ('too large', struct.pack('<Q', 2**63) + b'{}', ['header']), ('empty', b'', ['safetensors']),
            ('no dict', safetensors({}, header='[]'), ['header']),
            ('bad JSON', safetensors({}, header='{"a":}'), ['BAD_JSON']),
            ('dtype', safetensors({'a': ('F4', [2], b'\1')}), ['tensor a', 'F4']),
            ('shape', safetensors({'a': ('F32', [2], f4)}), ['tensor a', 'do not fit']),
            ('overflow', safetensors({'a': ('F32', [2**40, 2**40], f4)}), ['tensor a']),
            ('negative', safetensors({'a': ('F32', [-1], f4)}), ['tensor a']),
            ('hole', safetensors({}, header='{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', tail=b'\1\1'),
             ['tensor a', 'hole']),
            ('overlap', safetensors({}, header='{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
                                               '"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', tail=b'\1'),
             ['overlap']),
            ('tail', safetensors({'a': ('U8', [1], b'\1')}, tail=b'\0'), ['1 bytes follow']),
            ('beyond', safetensors({}, header='{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}'), ['outside']),
            ('backwards', safetensors({}, header='{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}}', tail=b'\1'),
             ['outside']),
            ('twice', safetensors({}, header='{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
                                             '"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), ['BAD_JSON']),
            ('metadata', safetensors({}, header='{"__metadata__":{"a":1}}'), ['metadata']),
            ('deep', safetensors({}, header='{"a":' + '[' * 100 + ']' * 100 + '}'), ['DEPTH']),
            ('a key less', safetensors({}, header='{"a":{"dtype":"U8","shape":[0]}}'), ['tensor a']),
            ('NUL', safetensors({'a\0b': ('U8', [1], b'\1')}), ['NUL'])]:
        put(tmp / 'bad.safetensors', data)
        bad(f'.safetensors refused: {name}', 1, ['packbuf: bad.safetensors: ', *words], 'pack', 'bad.safetensors',
            '-o', 'x')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def mixed_tests(tmp):
    (tmp / 'r.jsonl').write_text('{"uid":"a"}\n\n{"uid":"b","x.y":1}\n')
    (tmp / 'r2.jsonl').write_text('{"other":1}\n{"uid":2}\n')
    put(tmp / 'x.npy', npy('<f4', (2, 2), struct.pack('<4f', 1, 2, 3, 4)))
    put(tmp / 'y.npy', npy('<f4', (3, 2), struct.pack('<6f', 1, 2, 3, 4, 5, 6)))
    put(tmp / 'uid.npy', npy('<i4', (2,), struct.pack('<2i', 1, 2)))
    bad('row counts differ', 1, ['y.npy', 'has 3 rows', 'r.jsonl has 2'], 'pack', 'r.jsonl', 'x.npy', 'y.npy',
        '-o', 'x')
    bad('a field twice', 1, ['uid.npy', 'field uid', 'r.jsonl'], 'pack', 'r.jsonl', 'uid.npy', '-o', 'x')
    bad('a field twice, the other way', 1, ['r.jsonl', 'field uid', 'uid.npy'], 'pack', 'uid.npy', 'r.jsonl', '-o', 'x')
    bad('a field twice in JSON lines', 1, ['r2.jsonl', 'field uid', 'r.jsonl'], 'pack', 'r.jsonl', 'r2.jsonl',
        '-o', 'x')
    (tmp / 'v.json').write_text('{"version": 7,\n "text": "t", "cfg": {"a": [1, null]}, "w": {"$bytes": "AAE="}}')
    (tmp / 's.json').write_text('{"uid":{"codec":"utf8_ragged","not_nullable":true},"x\\\\.y":{"dtype":"int32"},'
                                '"x":{"keep_plain":true},"version":{"value":true,"dtype":"int8"}}')
    good('all together', 'pack', 'r.jsonl', 'x.npy', '--values', 'v.json', '--schema', 's.json', '--metadata', 'step=3',
         '--align', '4096', '-o', 'all.pbuf')
    good('verify', 'verify', 'all.pbuf')
    about = json.loads(good('inspect --json', 'inspect', '--json', 'all.pbuf').text)
    nodes = {(n['scope'], n['path']): n for n in about['nodes']}
    ok(about['alignment'] == 4096 and about['rows'] == 2 and about['fields'] == 3 and about['values'] == 4
       and about['data_checksums'] is True and about['version'] == '1.0' and about['metadata'] == {'': {'step': '3'}},
       'head line', about)
    ok(nodes['field', 'uid']['codec'] == 'utf8_ragged' and nodes['field', 'x\\.y']['dtype'] == 'int32'
       and nodes['value', 'version']['dtype'] == 'int8' and nodes['field', 'x']['shape'] == [2], 'schema', nodes)
    ok(nodes['value', 'version'].get('value') == 7, 'a batch value that lies in the head is shown')
    ok(all(b['offset'] % 4096 == 0 for n in about['nodes'] for b in n['buffers'] if b['storage'] == 'stored'),
       '--align')
    text = good('inspect', 'inspect', 'all.pbuf').text
    words = ['profile balanced', '2 rows', 'uid', 'x.y', 'utf8_ragged', 'float32', 'BATCH VALUE', 'version', 'METADATA',
             'step']
    ok(all(w in text for w in words) and '\x1b' not in text, 'inspect for people', text)
    rows = good('unpack', 'unpack', 'all.pbuf').lines()
    ok([r['uid'] for r in rows] == ['a', 'b'] and 'x.y' not in rows[0] and rows[1]['x.y'] == 1
       and rows[0]['x']['$tensor']['shape'] == [2], 'rows', rows)
    rows = good('--fields', 'unpack', 'all.pbuf', '--fields', 'x\\.y,uid', '--rows', '1').lines()
    ok(rows == [{'x.y': 1, 'uid': 'b'}], 'chosen fields in the order asked for', rows)
    bad('--fields unknown', 1, ['all.pbuf', 'no such field', 'zz'], 'unpack', 'all.pbuf', '--fields', 'uid,zz')
    bad('--fields twice', 1, ['twice'], 'unpack', 'all.pbuf', '--fields', 'uid,uid')
    good('unpack -d', 'unpack', 'all.pbuf', '-d', 'all')
    ok(sorted(os.listdir(tmp / 'all')) == ['uid.jsonl', 'values.json', 'x.npy', 'x.y.jsonl'], 'files',
       os.listdir(tmp / 'all'))
    ok((tmp / 'all' / 'uid.jsonl').read_text() == '"a"\n"b"\n'
       and (tmp / 'all' / 'x.y.jsonl').read_text() == '{"$missing":true}\n1\n'
       and same_value(json.loads((tmp / 'all' / 'values.json').read_text()), json.loads((tmp / 'v.json').read_text())),
       'their contents')
    ok(same_value(good('cat --value', 'cat', 'all.pbuf', '--value', 'cfg').lines(), [{'a': [1, None]}])
       and run('cat', 'all.pbuf', '--value', 'cfg.a').text == '[1,null]\n', 'nested values')
    bad('no such batch value', 1, ['no such batch value'], 'cat', 'all.pbuf', '--value', 'uid')
    small = run('pack', 'r.jsonl', '--no-checksums', '-o', 'nc.pbuf')
    ok(small.code == 0 and json.loads(run('inspect', '--json', 'nc.pbuf').text)['data_checksums'] is False,
       '--no-checksums')
    put(tmp / 'zero.npy', npy('<i4', (), bytes(4)))
    bad('a batch value twice', 1, ['v2.json', 'batch value zero', 'zero.npy'], 'pack', 'zero.npy', 'x.npy', '--values',
        put(tmp / 'v2.json', b'{"zero":1}'), '-o', 'x')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def schema_tests(tmp):
    (tmp / 'r.jsonl').write_text('{"uid":"a"}\n\n{"uid":"b","x.y":1}\n')
    put(tmp / 'x.npy', npy('<f4', (2, 2), struct.pack('<4f', 1, 2, 3, 4)))
    for name, text, words in [('no dict', '[]', ['object']), ('bad JSON', '{\n"a": }', ['line 2, column 6']),
                              ('no codec', '{"a":{"codec":"zip"}}', ['a', 'zip']),
                              ('no dtype', '{"a":{"dtype":3}}', ['dtype']),
                              ('unknown key', '{"a":{"kodec":"x"}}', ['kodec']),
                              ('flag', '{"a":{"keep_plain":1}}', ['keep_plain']),
                              ('packing', '{"a":{"packing":"zip"}}', ['a: packing', 'balanced']),
                              ('packing of a wrong type', '{"a":{"packing":1}}', ['packing']),
                              ('unit', '{"a":{"timestamp":"h"}}', ['timestamp']),
                              ('view of nothing', '{"a":{"view":"bfloat16"}}', ['view']),
                              ('kept plain and packed', '{"a":{"packing":"smallest","keep_plain":true}}',
                               ['bad.json: a: keep_plain and packing'])]:
        put(tmp / 'bad.json', text.encode())
        bad(f'schema refused: {name}', 1, words, 'pack', 'r.jsonl', '--schema', 'bad.json', '-o', 'x')
    bad('schema: no such path', 1, ['no field nope'], 'pack', 'r.jsonl', '--schema',
        put(tmp / 'bad.json', b'{"nope":{"dtype":"int8"}}'), '-o', 'x')
    bad('schema: no such batch value', 1, ['no batch value nope'], 'pack', 'r.jsonl', '--schema',
        put(tmp / 'bad.json', b'{"nope":{"dtype":"int8","value":true}}'), '-o', 'x')
    bad('schema: view of another size', 1, ['x.npy', 'size'], 'pack', 'x.npy', '--schema',
        put(tmp / 'bad.json', b'{"x":{"view":"bfloat16"}}'), '-o', 'x')
    bad('schema: not nullable names the line', 1, ['n.jsonl', 'line 3', 'NOT_NULLABLE', 'row 1'], 'pack',
        put(tmp / 'n.jsonl', b'{"a":1}\n\n{"a":null}\n'), '--schema',
        put(tmp / 'bad.json', b'{"a":{"not_nullable":true}}'), '-o', 'x')
    bad('schema: a dtype that is not exact', 1, ['n.jsonl', 'line 1', 'UNENCODABLE'], 'pack',
        put(tmp / 'n.jsonl', b'{"a":300}\n'), '--schema', put(tmp / 'bad.json', b'{"a":{"dtype":"uint8"}}'), '-o', 'x')
    good('schema: timestamp', 'pack', put(tmp / 'ts.jsonl', b'{"t":1}\n{"t":3}\n{"t":4}\n'), '--schema',
         put(tmp / 'ts.json', b'{"t":{"timestamp":"ms"}}'), '-o', 'ts.pbuf')
    good('as .npy', 'unpack', 'ts.pbuf', '-d', 'ts')
    ok((tmp / 'ts' / 't.npy').read_bytes() == npy('<M8[ms]', (3,), struct.pack('<3q', 1, 3, 4)),
       'a datetime64 of its unit')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def ragged_tests(tmp):
    put(tmp / 'tok.npy', npy('<i8', (6,), struct.pack('<6q', 5, 6, 7, 8, 9, 11)))
    put(tmp / 'off.npy', npy('<i8', (5,), struct.pack('<5q', 0, 2, 2, 5, 6)))
    put(tmp / 'big.npy', npy('>i4', (5,), struct.pack('>5i', 0, 2, 2, 5, 6)))
    put(tmp / 'pix.npy', npy('<f4', (6, 2), struct.pack('<12f', *range(12))))
    put(tmp / 'n.npy', npy('<i4', (4,), struct.pack('<4i', 4, 3, 1, 1)))
    good('--ragged', 'pack', 'tok.npy', 'pix.npy', 'off.npy', 'n.npy', '--ragged', 'tok=off', '--ragged', 'pix=off',
         '-o', 'r.pbuf')
    good('verify', 'verify', 'r.pbuf')
    r = good('cat', 'cat', 'r.pbuf', '-f', 'tok', '--rows', '2')
    ok(r.lines() == [{'$tensor': {'form': 'array', 'dtype': 'int64', 'shape': [3],
                                  'data': b64(struct.pack('<3q', 7, 8, 9))}}], 'a row', r)
    good('unpack -d', 'unpack', 'r.pbuf', '-d', 'r')
    ok(sorted(os.listdir(tmp / 'r')) == ['n.npy', 'pix.npy', 'pix_offsets.npy', 'tok.npy', 'tok_offsets.npy'], 'files',
       os.listdir(tmp / 'r'))
    ok(all((tmp / 'r' / a).read_bytes() == (tmp / b).read_bytes()
           for a, b in [('tok.npy', 'tok.npy'), ('pix.npy', 'pix.npy'), ('tok_offsets.npy', 'off.npy'),
                        ('pix_offsets.npy', 'off.npy'), ('n.npy', 'n.npy')]), 'flat arrays and offsets come back')
    good('unpack -d --rows', 'unpack', 'r.pbuf', '-d', 'rows', '--rows', '1:3', '--fields', 'tok')
    ok((tmp / 'rows' / 'tok.npy').read_bytes() == npy('<i8', (3,), struct.pack('<3q', 7, 8, 9))
       and (tmp / 'rows' / 'tok_offsets.npy').read_bytes() == npy('<i8', (3,), struct.pack('<3q', 0, 0, 3)),
       'a slice starts at 0')
    good('big-endian 32-bit offsets', 'pack', 'tok.npy', 'big.npy', '--ragged', 'tok=big', '-o', 'b.pbuf')
    good('hold the same', 'pack', 'tok.npy', 'off.npy', '--ragged=tok=off', '-o', 'b2.pbuf')
    good('diff', 'diff', 'b.pbuf', 'b2.pbuf')
    bad('--ragged without =', 2, ['DATA=OFFSETS'], 'pack', 'tok.npy', '--ragged', 'tok', '-o', 'x')
    bad('--ragged: no such array', 2, ['nope'], 'pack', 'tok.npy', '--ragged', 'tok=nope', '-o', 'x')
    bad('--ragged: no offsets', 1, ['pix.npy', 'offsets'], 'pack', 'tok.npy', 'pix.npy', '--ragged', 'tok=pix',
        '-o', 'x')
    for name, values in [('descend', (0, 3, 2, 5, 6)), ('pass the end', (0, 2, 2, 5, 7)),
                         ('are negative', (-1, 2, 2, 5, 6))]:
        put(tmp / 'bad.npy', npy('<i8', (5,), struct.pack('<5q', *values)))
        bad(f'offsets that {name}', 1, ['OUT_OF_RANGE', 'tok', 'row'], 'pack', 'tok.npy', 'bad.npy', '--ragged',
            'tok=bad', '-o', 'x')
    put(tmp / 'tok_offsets.npy', npy('<i8', (4,), struct.pack('<4q', 1, 3, 4, 9)))
    good('a name that collides', 'pack', 'tok.npy', 'off.npy', 'tok_offsets.npy', '--ragged', 'tok=off', '-o',
         'col.pbuf')
    bad('is refused by both names', 1, ['col.pbuf', 'tok and tok_offsets', '--fields'], 'unpack', 'col.pbuf',
        '-d', 'col')
    ok(not (tmp / 'col').exists(), 'the folder that was made is gone')
    odd = '"..":1,"/etc/x":2,".h":3,"%":4,"":5,"n\\u0001":6}\n'
    (tmp / 'u.jsonl').write_text('{"a":[[1,2],[3,4]],"b":[[1],[2]],"c":[1],"d":1,"e":true,' + odd
                                 + '{"a":[[5,6]],"b":[[1,2,3]],"c":null,"d":2.5,"e":null,' + odd)
    good('lists and names', 'pack', 'u.jsonl', '-o', 'u.pbuf')
    good('unpack them', 'unpack', 'u.pbuf', '-d', 'u')
    files = sorted(os.listdir(tmp / 'u'))
    ok(files == sorted(['a.jsonl', 'b.jsonl', 'c.jsonl', 'd.jsonl', 'e.jsonl', '%2E..npy', '%2Fetc%2Fx.npy', '%2Eh.npy',
                        '%25.npy', '%.npy', 'n%01.npy']) or 'a.npy' in files, 'safe file names', files)
    ok(all(f in files for f in ['%2E..npy', '%2Fetc%2Fx.npy', '%2Eh.npy', '%25.npy', '%.npy', 'n%01.npy', 'c.jsonl',
                                'd.jsonl', 'e.jsonl']), 'nulls and mixed types go to .jsonl', files)
    ok((tmp / 'u' / 'd.jsonl').read_text() == '1\n2.5\n' and (tmp / 'u' / 'c.jsonl').read_text() == '[1]\nnull\n',
       'cells keep their types')
    put(tmp / 'w.npz', zipped({'w.npy': npy('<f2', (2, 2), bytes(8)), 'v.npy': npy('<f2', (3,), bytes(6))}))
    bad('weights as fields', 1, ['w.npz(v.npy)', '3 rows'], 'pack', 'w.npz', '-o', 'x')
    good('--as-values', 'pack', 'w.npz', 'tok.npy', '--as-values', '-o', 'w.pbuf')
    ok(good('cat a weight', 'cat', 'w.pbuf', '--value', 'w').lines()
       == [{'$tensor': {'form': 'array', 'dtype': 'float16', 'shape': [2, 2], 'data': b64(bytes(8))}}], 'as a whole')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')


def sharing_tests(tmp):
    """What is stored once: shown by inspect, unpacked as if it were not."""
    draw = random.Random(7)
    prompts = [[draw.randrange(1 << 17) for _ in range(60)] for _ in range(8)]
    rows = [{'prompt': prompts[i // 16], 'ids': prompts[i // 16] + [draw.randrange(1 << 17) for _ in range(i % 11)],
             'text': 'q%d ' % (i // 16) * 90, 'n': i} for i in range(128)]
    (tmp / 's.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    good('pack repeats', 'pack', 's.jsonl', '-o', 's.pbuf')
    good('verify', 'verify', 's.pbuf')
    r = good('inspect', 'inspect', 's.pbuf')
    ok(re.search(r'prompt .*frame, 8 rows', r.text) and re.search(r'text .*stored, 8 rows', r.text)
       and re.search(r'ids .*frame, prefixes', r.text), 'says what is shared', r)
    fields = {f['path']: f for f in json.loads(good('inspect --json', 'inspect', '--json', 's.pbuf').text)['nodes']}
    ok(fields['prompt']['stored_rows'] == 8 and fields['ids']['prefixes'] and 'stored_rows' not in fields['n'],
       'and to machines', fields)
    ok(good('unpack', 'unpack', 's.pbuf').lines() == rows, 'rows come back')
    good('unpack -d --rows', 'unpack', 's.pbuf', '-d', 's', '--rows', '10:30', '--fields', 'ids')
    flat, offsets = [], [0]
    for row in rows[10:30]:
        flat += row['ids']
        offsets.append(len(flat))
    ok((tmp / 's' / 'ids.npy').read_bytes() == npy('<i8', (len(flat),), struct.pack('<%dq' % len(flat), *flat))
       and (tmp / 's' / 'ids_offsets.npy').read_bytes() == npy('<i8', (21,), struct.pack('<21q', *offsets)),
       'ragged rows as one array')
    dense = [value for prompt in prompts for _ in range(16) for value in prompt]
    put(tmp / 'dense.npy', npy('<i8', (128, 60), struct.pack('<7680q', *dense)))
    good('pack a dense array', 'pack', 'dense.npy', '-o', 'd.pbuf')
    ok(os.path.getsize(tmp / 'd.pbuf') < 8 * 60 * 8 + 2048, 'its eight different rows once')
    good('unpack it', 'unpack', 'd.pbuf', '-d', 'd')
    ok((tmp / 'd' / 'dense.npy').read_bytes() == (tmp / 'dense.npy').read_bytes(), 'the same file')


SAMPLE = ROOT / 'examples' / 'sample'
SIX = {'line', 'split', 'split+fill', 'frame+fill', 'zero+fill', 'plain+fill'}  # how blocks of the sample are stored


def inspected(file):
    return json.loads(good(f'inspect --json {file}', 'inspect', '--json', file).text)


def buffers(about):
    return {(n['path'], b['role']): b for n in about['nodes'] for b in n['buffers']}


def packing_tests(tmp):
    files = sorted(SAMPLE.glob('*.npy'))
    good('pack the sample', 'pack', *files, '-o', 'd.pbuf')
    good('verify', 'verify', 'd.pbuf')
    about = inspected('d.pbuf')
    packed = [b for b in buffers(about).values() if b['packing'] and b['storage'] == 'stored']
    ok(about['profile'] == 1 and about['profile_name'] == 'balanced', 'balanced, unless asked otherwise', about)
    good('pack the rows', 'pack', SAMPLE / 'rows.jsonl', '-o', 'rows.pbuf')
    modes = {mode for b in (*packed, *buffers(inspected('rows.pbuf')).values()) for mode in b.get('modes', ())}
    ok(modes == SIX, 'six ways in which blocks of the sample are stored', modes)
    bits = {'int64': 64, 'float32': 32, 'uint16': 16}
    ok(all(b['blocks'] == -(-b['count'] * bits[b['dtype']] // 65536) == sum(b['modes'].values())
           and b['header_bytes'] == 16 * b['blocks'] for b in packed), 'blocks and headers are counted', packed)
    ok(all(n['stored_bytes']
           == sum(b['length'] + b.get('header_bytes', 0) for b in n['buffers'] if b['storage'] == 'stored')
           for n in about['nodes']), 'stored bytes are those of buffers and block headers', about)
    ok(about['raw_bytes'] == sum(n['raw_bytes'] for n in about['nodes']) == sum(f.stat().st_size - 128 for f in files),
       'raw bytes are those of the arrays', about)
    r = good('inspect', 'inspect', 'd.pbuf')
    ok('profile balanced' in r.text and f'bytes (raw {about["raw_bytes"]})' in r.text
       and all(re.search(rf'{name} .* {re.escape(words)} +8 ', r.text)
               for name, words in [('input_ids', 'split+fill'), ('attention_mask', 'line'), ('response_mask', 'line'),
                                   ('old_log_probs', 'zero+fill'), ('values', 'zero+fill'),
                                   ('returns', '= advantages')]), 'says how each field is stored', r)
    good('unpack -d', 'unpack', 'd.pbuf', '-d', 'd')
    ok(all((tmp / 'd' / f.name).read_bytes() == f.read_bytes() for f in files), 'the same files come back')
    r = run('pack', *files, '-o', '-')
    ok(r.out == (tmp / 'd.pbuf').read_bytes(), 'the same bytes through a pipe')
    sizes = {}
    for profile, word in enumerate(['none', 'balanced', 'fastest', 'smallest']):
        good(f'--packing {word}', 'pack', *files, '-o', f'{word}.pbuf', '--packing', word)
        good(f'{word} verifies', 'verify', f'{word}.pbuf')
        good(f'{word} holds the same', 'diff', f'{word}.pbuf', 'd.pbuf')
        about = inspected(f'{word}.pbuf')
        sizes[word] = os.path.getsize(f'{word}.pbuf')
        ok(about['profile'] == profile and about['total_length'] == sizes[word], f'{word}: profile and length', about)
    ok(sizes['smallest'] <= sizes['balanced'] <= sizes['fastest'] and 3 * sizes['balanced'] < sizes['none'],
       'their order by size', sizes)
    ok(len({run('schema', f'{word}.pbuf', '--fingerprint').text for word in sizes}) == 1, 'one fingerprint for all')
    ok(not any('plain_because' in b or 'blocks' in b for b in buffers(inspected('none.pbuf')).values()),
       'nothing about blocks where none were asked for')
    packing_link_tests(tmp, files)
    packing_fields_tests(tmp)
    packing_rows_tests(tmp)
    packing_broken_tests(tmp)


def packing_link_tests(tmp, files):
    """A link's speed names the packing, by fixed numbers, unless a packing is asked for."""
    for speed, word in (('0.5', 'smallest'), ('1', 'smallest'), ('1.9', 'smallest'), ('2', 'balanced'),
                        ('2.5', 'balanced'), ('99.9', 'balanced'), ('100', 'fastest'), ('199', 'fastest'),
                        ('200', 'none'), ('1' + '0' * 12, 'none')):
        r = run('pack', *files, '-o', '-', f'--link={speed}')
        ok(r.code == 0 and r.out == (tmp / f'{word}.pbuf').read_bytes(), f'--link {speed}: {word}, byte for byte', r)
    for options, word in ((['--packing', 'auto'], 'balanced'), (['--packing', 'auto', '--link', '400'], 'none'),
                          (['--packing', 'smallest', '--link', '400'], 'smallest')):
        ok(run('pack', *files, '-o', '-', *options).out == (tmp / f'{word}.pbuf').read_bytes(),
           f'{" ".join(options)}: {word}')
    ok(run('concat', 'd.pbuf', '-o', '-', '--link', '400').out == (tmp / 'none.pbuf').read_bytes(), 'concat --link')
    put(tmp / 'auto.json', b'{"input_ids":{"packing":"auto"}}')
    found = []
    for speed in (10, 400):
        good(f'auto of a field, {speed}', 'pack', *files, '--schema', 'auto.json', '--packing=none', f'--link={speed}',
             '-o', 'field.pbuf')
        found.append(buffers(inspected('field.pbuf'))['input_ids', 'data']['packing'])
    ok(found == [1, 0], 'auto of one field: as the link says', found)
    for word in ('0', '0.0', '', '-1', 'fast', 'nan', 'inf', '0x10', '10G', '1e2', '.', '1.2.3'):
        bad(f'--link {word}', 2, ['--link', 'Gb/s'], 'pack', files[0], '-o', 'x', f'--link={word}')
    bad('--link of concat', 2, ['--link', 'Gb/s'], 'concat', 'd.pbuf', '-o', 'x', '--link=no')


def packing_fields_tests(tmp):
    """The packing of one field, and why a buffer is plain."""
    put(tmp / 's.json',
        b'{"values":{"packing":"none"},"old_log_probs":{"keep_plain":true},"input_ids":{"packing":"smallest"}}')
    good('packing by field', 'pack', *SAMPLE.glob('*.npy'), '--schema', 's.json', '-o', 'f.pbuf')
    found = buffers(inspected('f.pbuf'))
    ok([found[name, 'data']['packing'] for name in ('values', 'old_log_probs', 'input_ids', 'attention_mask')]
       == [0, 0, 1, 1], 'as the schema says', found)
    good('holds the same', 'diff', 'f.pbuf', 'd.pbuf')
    good('one field alone', 'pack', *SAMPLE.glob('*.npy'), '--schema',
         put(tmp / 's.json', b'{"input_ids":{"packing":"fastest"}}'), '--packing=none', '-o', 'one.pbuf')
    about = inspected('one.pbuf')
    ok([n['path'] for n in about['nodes'] if any(b['packing'] for b in n['buffers'])] == ['input_ids']
       and about['profile'] == 0 and about['total_length'] == os.path.getsize('one.pbuf'),
       'is packed, in a file that is no longer than it must be', about)
    good('verify it', 'verify', 'one.pbuf')
    draw = random.Random(5)
    put(tmp / 'noise.npy', npy('<i8', (200,), draw.randbytes(1600)))
    put(tmp / 'complex.npy', npy('<c8', (200,), draw.randbytes(1600)))
    put(tmp / 'short.npy', npy('<i1', (200,), bytes(i % 7 for i in range(200))))
    put(tmp / 'ids.npy', npy('<i8', (200,), struct.pack('<200q', *(i * i for i in range(200)))))
    (tmp / 't.jsonl').write_text(''.join(json.dumps({'text': 'a' * (i % 50)}) + '\n' for i in range(200)))
    good('pack what is not packed', 'pack', 'noise.npy', 'complex.npy', 'short.npy', 'ids.npy', 't.jsonl',
         '-o', 'p.pbuf')
    why = {key: b.get('plain_because') for key, b in buffers(inspected('p.pbuf')).items()}
    ok(why == {('noise', 'data'): 'asked for, or would not save a sixteenth',
               ('complex', 'data'): 'no packing for this dtype', ('short', 'data'): 'below 256 bytes',
               ('ids', 'data'): None, ('text', 'data'): 'text and bytes are read in place',
               ('text', 'offsets'): None}, 'and why', why)
    r = good('inspect', 'inspect', 'p.pbuf')
    ok(re.search(r'noise .* stored .* plain: asked for, or would not save a sixteenth\n', r.text)
       and re.search(r'complex .* plain: no packing for this dtype\n', r.text) and r.text.count('plain:') == 2,
       'said where it is not plain to see', r)
    blocks = [struct.pack('<1024q', *([7] * 1024 if k % 10 == 3 else [draw.randrange(4096) for _ in range(1024)]))
              for k in range(100)]
    put(tmp / 'mixed.npy', npy('<i8', (102400,), b''.join(blocks)))
    good('pack mixed blocks', 'pack', 'mixed.npy', '-o', 'm.pbuf')
    ok(re.search(r'mixed .* frame 90%, line +102400 ', good('inspect', 'inspect', 'm.pbuf').text)
       and inspected('m.pbuf')['nodes'][0]['buffers'][0]['modes'] == {'frame': 90, 'line': 10}, 'the most used first')


def packing_rows_tests(tmp):
    """Rows in packed files, through the other commands."""
    lines = (SAMPLE / 'rows.jsonl').read_text().splitlines(True)
    rows = [json.loads(line) for line in lines]
    good('pack rows', 'pack', SAMPLE / 'rows.jsonl', '-o', 'r.pbuf')
    good('verify', 'verify', 'r.pbuf')
    ok({mode for b in buffers(inspected('r.pbuf')).values() for mode in b.get('modes', ())}
       == {'line', 'split', 'frame+fill'}, 'are packed')
    ok(all(map(same_value, good('unpack', 'unpack', 'r.pbuf').lines(), rows)), 'rows come back')
    ok(good('cat', 'cat', 'r.pbuf', '-f', 'tokens', '--rows', '2:4').lines()
       == [row.get('tokens', {'$missing': True}) for row in rows[2:4]], 'some cells')
    good('plain', 'pack', SAMPLE / 'rows.jsonl', '-o', 'plain.pbuf', '--packing', 'none')
    good('diff', 'diff', 'r.pbuf', 'plain.pbuf')
    changed = rows[:2] + [{**rows[2], 'tokens': rows[2]['tokens'][:-1] + [5]}] + rows[3:]
    good('pack a change', 'pack', '-', '-o', 'c.pbuf',
         stdin=''.join(json.dumps(row) + '\n' for row in changed).encode())
    r = run('diff', 'r.pbuf', 'c.pbuf')
    ok(r.code == 1 and r.text.startswith('field tokens') and 'row 2' in r.text and r.text.count('\n') == 1,
       'diff finds it', r)
    good('schema --expect', 'schema', 'r.pbuf', '--expect', 'plain.pbuf')
    about = inspected('r.pbuf')
    wanted = json.loads(good('ranges', 'ranges', 'r.pbuf', '--fields', 'tokens', '--rows', '2:4', '--json').text)
    stored = buffers(about)['tokens', 'data']
    ok(0 < wanted['data_bytes'] < stored['length']
       and all(stored['offset'] <= at and at + size <= stored['offset'] + stored['length']
               for at, size in wanted['ranges']), 'a part of the packed bytes', wanted, stored)
    put(tmp / 'head.pbuf', (tmp / 'r.pbuf').read_bytes()[:wanted['head_and_index']])
    ok(json.loads(good('from head and index', 'ranges', 'head.pbuf', '--fields', 'tokens', '--rows', '2:4',
                       '--json').text) == wanted, 'the same')
    put(tmp / 'a.jsonl', ''.join(lines[:14]).encode())
    put(tmp / 'b.jsonl', ''.join(lines[14:]).encode())
    for word, whole in (('balanced', 'r.pbuf'), ('none', 'plain.pbuf')):
        for part, how in (('a', 'none'), ('b', 'smallest')):
            good(f'pack {part}, {how}', 'pack', f'{part}.jsonl', '-o', f'{part}.pbuf', '--packing', how)
        good(f'concat, {word}', 'concat', 'a.pbuf', 'b.pbuf', '--widen', '-o', 'ab.pbuf',
             *([] if word == 'balanced' else ['--packing', word]))
        good('holds the same', 'diff', 'ab.pbuf', whole)
        about = inspected('ab.pbuf')
        ok(about['profile_name'] == ('plain' if word == 'none' else word)
           and about['total_length'] == os.path.getsize('ab.pbuf')
           and any(b['packing'] for b in buffers(about).values()) == (word != 'none'),
           f'{word}, whatever its parts were', about)


def packing_broken_tests(tmp):
    """A block header that is wrong, under right checksums."""
    put(tmp / 'i.npy', npy('<i8', (4096,), struct.pack('<4096q', *(i * i % 4093 for i in range(4096)))))
    good('pack', 'pack', 'i.npy', '-o', 'i.pbuf')
    data = bytearray((tmp / 'i.pbuf').read_bytes())
    head, index = struct.unpack('<QQ', data[32:48])
    data[head + 64 + 16 + 12] = 77  # the mode of block 1, behind the checksums' 64 bytes
    data[56:60] = struct.pack('<I', crc32c(data[head:head + index]))
    data[60:64] = struct.pack('<I', crc32c(bytes(data[:60]) + bytes(4) + bytes(data[64:head])))
    put(tmp / 'bad.pbuf', bytes(data))
    ok(inspected('bad.pbuf')['nodes'][0]['buffers'][0]['modes'] == {'frame': 3, 'broken': 1}, 'inspect counts it')
    r = good('and says so', 'inspect', 'bad.pbuf')
    ok('frame 75%, broken' in r.text, 'among the others', r)
    good('level head does not look', 'verify', 'bad.pbuf', '--level', 'head')
    bad('level index does', 1, ['bad.pbuf', 'BAD_BLOCK', 'I15'], 'verify', 'bad.pbuf', '--level', 'index')
    bad('unpack too', 1, ['BAD_BLOCK'], 'unpack', 'bad.pbuf')
    bad('without looking first as well', 1, ['BAD_BLOCK', 'i'], 'unpack', 'bad.pbuf', '--no-verify')


def range_tests(tmp):
    (tmp / 'r.jsonl').write_text(''.join('{"a":%d,"b":{"c":[{"d":%d}]}}\n' % (i, i * i) for i in range(1000)))
    good('pack', 'pack', 'r.jsonl', '-o', 'r.pbuf')
    for text, expected in [('3', [3]), ('10:20', range(10, 20)), (':2', [0, 1]), ('998:', [998, 999]),
                           ('-2:', [998, 999]), (':', range(1000)), ('-1', [999]), ('5:3', []), ('999:5000', [999]),
                           ('5000:', []), (':-998', [0, 1]), ('250:260', range(250, 260))]:
        r = run('cat', 'r.pbuf', '--field', 'a', f'--rows={text}')
        ok(r.code == 0 and r.lines() == list(expected), f'--rows {text}', r)
    ok(run('cat', 'r.pbuf', '--field', 'b.c[0].d', '--rows', '7').text == '49\n'
       and run('cat', 'r.pbuf', '--field', 'b', '--rows', '7').text == '{"c":[{"d":49}]}\n', 'nested paths')
    for text in ['1000', '-1001']:
        bad(f'--rows={text}', 1, ['beyond the end', '1000 rows'], 'cat', 'r.pbuf', '--field', 'a', f'--rows={text}')
    for text in ['', 'x', '1:2:3', '1.5', '--1', '99999999999999999999']:
        bad(f'--rows={text}', 2, ['--rows'], 'cat', 'r.pbuf', '--field', 'a', f'--rows={text}')
    for path in ['z', 'a.b', 'b.c[1]', 'b.c[', '', 'b..c']:
        r = run('cat', 'r.pbuf', '--field', path)
        ok(r.code == 1 and r.out == b'', f'no field {path!r}', r)
    r = good('unpack --rows --fields', 'unpack', 'r.pbuf', '--rows', '998:', '--fields', 'b.c[0].d', '--fields', 'a')
    ok(r.lines() == [{'b.c[0].d': 998 * 998, 'a': 998}, {'b.c[0].d': 999 * 999, 'a': 999}],
       'nested columns are named by their path', r)


def ranges_tests(tmp):
    rows = [{'id': i, 'name': 'x' * (i % 9), 'meta': {'step': i * i, 'tag': f't{i}'}, 'old_a': i * 0.5,
             'old_b': [i] * (i % 4)} for i in range(200)]
    put(tmp / 'r.jsonl', ''.join(json.dumps(r) + '\n' for r in rows).encode())
    good('pack', 'pack', 'r.jsonl', '-o', 'r.pbuf', '--packing', 'none')
    whole = json.loads(good('ranges of all', 'ranges', 'r.pbuf', '--json', '--gap', '1000000').text)
    size = os.path.getsize('r.pbuf')
    ok(whole['total_length'] == size and len(whole['ranges']) == 1 and whole['ranges'][0][0] >= whole['head_and_index']
       and sum(whole['ranges'][0]) <= size, 'one range within the data', whole)
    step = good('a field, every eighth row', 'ranges', 'r.pbuf', '--fields', 'meta.step', '--rows', '::8').text
    lines = [tuple(map(int, line.split())) for line in step.splitlines()]
    ok(len(lines) == 25 and all(length == 8 for _, length in lines)
       and all(b[0] - a[0] == 64 for a, b in zip(lines, lines[1:])), '25 ranges of 8 bytes', step)
    ok(run('ranges', 'r.pbuf', '--fields', 'meta.step', '--rows', '::8', '--gap', '56').text
       == f'{lines[0][0]} {lines[-1][0] + 8 - lines[0][0]}\n', 'joined when the gap allows')
    ok(run('ranges', 'r.pbuf', '--fields', 'meta.step', '--rows', '::-8').text
       == ''.join(f'{at + 56} 8\n' for at, _ in lines), 'downwards: the same rows from the other end')
    put(tmp / 'head.pbuf', open('r.pbuf', 'rb').read()[:whole['head_and_index']])
    ok(run('ranges', 'head.pbuf', '--fields', 'meta.step', '--rows', '::8').text == step, 'head and index are enough')
    put(tmp / 'short.pbuf', open('r.pbuf', 'rb').read()[:whole['head_and_index'] - 1])
    bad('without them', 1, ['short.pbuf', 'TRUNCATED'], 'ranges', 'short.pbuf')
    bad('a pattern that matches nothing', 1, ['NOT_FOUND', 'zz*'], 'ranges', 'r.pbuf', '--fields', 'id,zz*')
    bad('a row that is not there', 1, ['row 200', 'beyond the end'], 'ranges', 'r.pbuf', '--rows', '200')
    for wrong in ('', 'x', '1:2:0', '1:2:3:4', '1-2'):
        bad(f'rows {wrong!r}', 2, ['--rows'], 'ranges', 'r.pbuf', '--rows', wrong)
    ok([sorted(r) for r in good('fields by pattern', 'unpack', 'r.pbuf', '--fields', 'old_*,meta.t*', '--rows',
                                ':2').lines()] == [['meta.tag', 'old_a', 'old_b']] * 2, 'two fields and a nested one')
    bad('asked for twice', 1, ['twice'], 'unpack', 'r.pbuf', '--fields', 'old_a,old_*')
    ok(run('ranges', 'r.pbuf', '--fields', '!**.*', '--rows', '0:0').text == '', 'nothing is needed for nothing')


def infer_tests(tmp):
    (tmp / 'r.jsonl').write_text('{"a":1,"b.c":{"x":"s","y":null},"m":{"$bytes":"AA=="}}\n'
                                 '{"a":2.5,"b.c":null,"l":[1,2]}\n\n{"l":[]}\n')
    r = good('infer', 'infer', 'r.jsonl')
    head, *lines = r.text.splitlines()
    ok(head.split() == ['PATH', 'CODEC', 'DTYPE', 'ROWS', 'NULL', 'MISSING', 'REASON']
       and [l.split()[0] for l in lines] == ['a', 'b\\.c', 'b\\.c.x', 'b\\.c.y', 'm', 'l'], 'the table', r)
    about = json.loads(good('infer --json', 'infer', 'r.jsonl', '--json').text)
    nodes = {n['path']: n for n in about['nodes']}
    ok(about['rows'] == 3 and about['mode'] == 'strict' and nodes['a']['codec'] == 'ndarray'
       and nodes['a']['dtype'] == 'float64' and nodes['a']['types'] is True and nodes['a']['missing'] == 1,
       'a: ints and floats', nodes)
    ok(nodes['b\\.c']['kind'] == 'dict' and nodes['b\\.c.y']['codec'] == 'null'
       and nodes['l']['codec'] == 'typed_ragged' and nodes['m']['codec'] == 'bytes_ragged'
       and all(n['reason'] for n in about['nodes']), 'dict, null, lists, bytes, reasons', nodes)
    ok(json.loads(good('infer --compat', 'infer', '--compat', '--json', 'r.jsonl').text)['mode'] == 'compat', 'compat')
    ok(json.loads(good('infer stdin', 'infer', '-', '--json', stdin=b'{"q":true}\n').text)['nodes'][0]['dtype']
       == 'bool', 'from stdin')
    ok(json.loads(good('infer nothing', 'infer', '-', '--json').text) == {'rows': 0, 'mode': 'strict', 'nodes': []},
       'no rows')
    bad('infer: bad line', 1, ['stdin', 'line 2, column 2'], 'infer', '-', stdin=b'{}\n{x}\n')


def verify_tests(tmp):
    put(tmp / 'x.npy', npy('<f4', (50000, 2), random.Random(1).randbytes(400000)))
    (tmp / 'r.jsonl').write_text(''.join('{"t":"row %d"}\n' % (i * i) for i in range(50000)))
    good('pack', 'pack', 'x.npy', 'r.jsonl', '-o', 'v.pbuf')
    data = (tmp / 'v.pbuf').read_bytes()
    about = json.loads(run('inspect', '--json', 'v.pbuf').text)
    data_at, index_at = about['head_length'] + about['index_length'], about['head_length']
    broken = bytearray(data)
    broken[data_at + 70000] ^= 0x10
    put(tmp / 'd.pbuf', bytes(broken))
    good('damaged data: level head', 'verify', 'd.pbuf', '--level', 'head')
    good('damaged data: level index', 'verify', 'd.pbuf', '--level', 'index')
    bad('damaged data: level full', 1, ['packbuf: d.pbuf: ', 'DATA_CHECKSUM', 'D1', str(data_at + 65536)],
        'verify', 'd.pbuf')
    good('damaged data: inspect', 'inspect', 'd.pbuf')
    bad('damaged data: unpack verifies first', 1, ['DATA_CHECKSUM'], 'unpack', 'd.pbuf', '-o', 'x')
    bad('damaged data: unpack -d verifies first', 1, ['DATA_CHECKSUM'], 'unpack', 'd.pbuf', '-d', 'x')
    good('--no-verify', 'unpack', 'd.pbuf', '--no-verify', '-o', 'ok.jsonl')
    broken = bytearray(data)
    broken[index_at + 1000] ^= 1
    put(tmp / 'i.pbuf', bytes(broken))
    good('damaged index: level head', 'verify', 'i.pbuf', '--level=head')
    bad('damaged index: level index', 1, ['i.pbuf', 'INDEX_CHECKSUM', 'I1', 'byte 56'], 'verify', 'i.pbuf',
        '--level=index')
    bad('damaged index: cat', 1, ['INDEX_CHECKSUM'], 'cat', 'i.pbuf', '-f', 't')
    good('damaged index: inspect', 'inspect', 'i.pbuf')
    for name, bytes_, words in [('no file', b'', ['TRUNCATED', 'H1']), ('other', b'x' * 500, ['BAD_MAGIC', 'H2']),
                                ('cut', data[:-1], ['TRUNCATED', 'H8', f'needs {len(data)} bytes']),
                                ('longer', data + b'\0', ['TRAILING_BYTES', 'H9']),
                                ('head', data[:200] + b'\xff' + data[201:], ['HEAD_CHECKSUM', 'H11'])]:
        put(tmp / 'bad.pbuf', bytes_)
        for command in [['verify'], ['verify', '--level', 'head'], ['inspect'], ['unpack'], ['cat', '-f', 't'],
                        ['diff', 'v.pbuf']]:
            bad(f'{name}: {" ".join(command)}', 1, ['packbuf: bad.pbuf: ', *words], *command, 'bad.pbuf')
    r = run('verify', 'v.pbuf', 'bad.pbuf', 'v.pbuf')
    ok(r.code == 1 and r.text == 'v.pbuf: ok (full)\n' * 2 and r.err.count('\n') == 1, 'several files', r)
    bad('--decoded-bytes', 1, ['LIMIT'], 'verify', 'v.pbuf', '--decoded-bytes', '1000')
    ok(not (tmp / 'x').exists() and leftovers(tmp) == [], 'nothing is left behind')
    unreadable_tests(tmp)


def unreadable_tests(tmp):
    """A leaf of a codec that nobody knows: the rest stays readable."""
    (tmp / 'u.jsonl').write_text('{"a":"xxxxxxxxxxxxxxxxxxxxxxxx","b":1,"d":{"e":"yyyyyyyyyyyyyyyyyyyyyyyyy","f":2}}\n'
                                 '{"a":"z","b":2}\n{"a":"z","b":2,"d":null}\n')
    good('pack', 'pack', 'u.jsonl', '-o', 'u.pbuf')
    data = bytearray((tmp / 'u.pbuf').read_bytes())
    about = json.loads(run('inspect', '--json', 'u.pbuf').text)
    for i, node in enumerate(about['nodes']):
        if node['path'] in ('a', 'd.e'):
            data[128 + 64 * i + 24] = 77
    head = bytearray(data[:about['head_length']])
    head[60:64] = bytes(4)
    data[60:64] = struct.pack('<I', crc32c(head))
    put(tmp / 'u2.pbuf', bytes(data))
    good('an unknown codec verifies', 'verify', 'u2.pbuf')
    rows = good('and unpacks', 'unpack', 'u2.pbuf').lines()
    no = {'$unreadable': 'UNSUPPORTED_CODEC'}
    ok(rows == [{'a': no, 'b': 1, 'd': {'e': no, 'f': 2}}, {'a': no, 'b': 2}, {'a': no, 'b': 2, 'd': None}],
       'as $unreadable, the rest as ever', rows)
    ok('codec 77' in good('inspect it', 'inspect', 'u2.pbuf').text, 'inspect says its number')
    good('unpack -d', 'unpack', 'u2.pbuf', '-d', 'u2')
    ok((tmp / 'u2' / 'a.jsonl').read_text() == (json.dumps(no, separators=(',', ':')) + '\n') * 3, 'a file of it')
    bad('diff cannot', 1, ['UNSUPPORTED_CODEC'], 'diff', 'u.pbuf', 'u2.pbuf')


def diff_tests(tmp):
    (tmp / 'a.jsonl').write_text('{"x":1,"y":[1,{"z":"q"},null],"k":{"p":1,"q":2}}\n{"x":2,"y":[],"only":1}\n')
    (tmp / 'b.jsonl').write_text('{"k":{"q":2,"p":1},"y":[1,{"z":"q"},null],"x":1}\n{"only":1,"x":2,"y":[]}\n')
    (tmp / 'c.jsonl').write_text('{"x":1.0,"y":[1,{"z":"Q"},null],"k":{"p":1,"q":2}}\n{"x":null,"y":null,"new":1}\n')
    for n in 'abc':
        good(f'pack {n}', 'pack', f'{n}.jsonl', '-o', f'{n}.pbuf', '--metadata', f'name={n}', '--values',
             put(tmp / f'{n}.json', b'{"v":[1,"%s"]}' % (b'a' if n < 'c' else b'c')))
    r = good('equal but for order', 'diff', 'a.pbuf', 'b.pbuf')
    ok(r.out == b'', 'silent', r)
    r = run('diff', 'a.pbuf', 'c.pbuf')
    ok(r.code == 1 and r.err == ''
       and set(r.text.splitlines())
       == {'field x, row 0: 1 | 1.0', 'field x, row 1: 2 | null', 'field y[1].z, row 0: "q" | "Q"',
           'field y, row 1: [] | null', 'field only: only in a.pbuf', 'field new: only in c.pbuf',
           'value v[1]: "a" | "c"'}, 'differences', r)
    r = run('diff', '--max', '2', 'a.pbuf', 'c.pbuf')
    ok(r.code == 1 and len(r.text.splitlines()) == 3 and 'stopped' in r.text, '--max', r)
    r = run('diff', '-q', 'a.pbuf', 'c.pbuf')
    ok(r.code == 1 and r.out == b'', '-q', r)
    r = run('diff', '--metadata', 'a.pbuf', 'b.pbuf')
    ok(r.code == 1 and r.text == 'metadata name: a only in a.pbuf\nmetadata name: b only in b.pbuf\n', '--metadata', r)
    (tmp / 'd.jsonl').write_text('{"x":1}\n')
    good('pack d', 'pack', 'd.jsonl', '-o', 'd.pbuf')
    r = run('diff', 'd.pbuf', 'a.pbuf')
    ok(r.code == 1 and 'rows: 1 | 2' in r.text, 'other numbers of rows', r)
    put(tmp / 'n.npy', npy('<i8', (300,), struct.pack('<300q', *range(0, 600, 2))))
    (tmp / 'n.jsonl').write_text(''.join('{"n":%d}\n' % i for i in range(0, 600, 2)))
    good('pack array', 'pack', 'n.npy', '-o', 'n1.pbuf')
    good('pack lines', 'pack', 'n.jsonl', '-o', 'n2.pbuf')
    good('storage does not count', 'diff', 'n1.pbuf', 'n2.pbuf')
    long = '{"x":"' + 'é' * 500 + '"}\n'
    good('pack long', 'pack', '-', '-o', 'l1.pbuf', stdin=long.encode())
    good('pack long', 'pack', '-', '-o', 'l2.pbuf', stdin=long.replace('é"', 'e"').encode())
    r = run('diff', 'l1.pbuf', 'l2.pbuf')
    ok(r.code == 1 and len(r.text) < 200 and '...' in r.text and '\ufffd' not in r.text, 'long cells are shortened', r)


def pipe_tests(tmp):
    rows = ''.join(json.dumps({'i': i, 't': 'x' * 100}) + '\n' for i in range(20000)).encode()
    good('stdin to a file', 'pack', '-', '-o', 'a.pbuf', stdin=rows)
    r = run('pack', '-', '-o', '-', stdin=rows)
    ok(r.code == 0 and r.out == (tmp / 'a.pbuf').read_bytes(), 'stdin to stdout')
    ok(run('verify', '-', stdin=r.out).text == 'stdin: ok (full)\n', 'verify stdin')
    ok(run('unpack', '-', stdin=r.out).lines() == [json.loads(line) for line in rows.splitlines()], 'unpack stdin')
    ok(run('cat', '-', '-f', 'i', '--rows', '1', stdin=r.out).text == '1\n', 'cat stdin')
    ok(run('inspect', '-', stdin=r.out).code == 0, 'inspect stdin')
    with open(tmp / 'b.pbuf', 'wb') as f:
        subprocess.run([TOOL, 'pack', '-', '-o', '/dev/stdout'], input=rows, stdout=f, check=False)
    ok((tmp / 'b.pbuf').read_bytes() == r.out or not (tmp / 'b.pbuf').read_bytes(), '/dev/stdout')
    os.mkfifo(tmp / 'fifo')
    with open(tmp / 'read', 'wb') as f:
        reader = subprocess.Popen(['cat', 'fifo'], stdout=f)
    good('to a fifo', 'pack', '-', '-o', 'fifo', stdin=rows)
    ok(reader.wait(60) == 0 and (tmp / 'read').read_bytes() == r.out and stat.S_ISFIFO(os.stat(tmp / 'fifo').st_mode),
       'which stays a fifo')
    for how in (signal.SIG_DFL, signal.SIG_IGN):
        p = subprocess.Popen([TOOL, 'unpack', 'a.pbuf'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=lambda h=how: signal.signal(signal.SIGPIPE, h), restore_signals=False)
        p.stdout.readline()
        p.stdout.close()
        err = p.stderr.read()
        p.stderr.close()
        ok(p.wait(60) != 0 and err == b'', f'a closed pipe ends it quietly ({how!r})', err)
    if os.path.exists('/dev/full'):
        for args in (['unpack', 'a.pbuf'], ['inspect', 'a.pbuf'], ['--help'], ['--version'],
                     ['cat', 'a.pbuf', '-f', 'i'], ['verify', 'a.pbuf'], ['pack', 'x.jsonl', '-o', '-']):
            (tmp / 'x.jsonl').write_bytes(rows)
            with open('/dev/full', 'wb') as full:
                bad(f'a full disk: {args[0]}', 1, ['stdout', 'No space left'], *args, stdout=full)
        bad('a full device as -o', 1, ['/dev/full', 'No space left'], 'unpack', 'a.pbuf', '-o', '/dev/full')
    else:
        print('# no /dev/full: a full disk not tried')
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    bad('a file size limit: pack', 1, ['c.pbuf', 'cannot write'], 'pack', '-', '-o', 'c.pbuf', stdin=rows,
        preexec_fn=limit)
    bad('a file size limit: unpack', 1, ['c.jsonl', 'cannot write'], 'unpack', 'a.pbuf', '-o', 'c.jsonl',
        preexec_fn=limit)
    bad('a file size limit: unpack -d', 1, ['made/', '.npy', 'cannot write'], 'unpack', 'a.pbuf', '-d', 'made/',
        preexec_fn=limit)
    ok(leftovers(tmp) == [] and not any((tmp / n).exists() for n in ['c.pbuf', 'c.jsonl', 'made']),
       'nothing is left behind', os.listdir(tmp))
    (tmp / 'kept.jsonl').write_text('kept')
    bad('an old file stays when writing fails', 1, ['cannot write'], 'unpack', 'a.pbuf', '-o', 'kept.jsonl',
        preexec_fn=limit)
    ok((tmp / 'kept.jsonl').read_text() == 'kept', 'as it was')
    (tmp / 'link.pbuf').symlink_to('target.pbuf')
    (tmp / 'target.pbuf').write_bytes(b'old')
    good('through a symbolic link', 'pack', '-', '-o', 'link.pbuf', stdin=rows)
    ok((tmp / 'link.pbuf').is_symlink() and (tmp / 'target.pbuf').read_bytes() == r.out, 'its target is replaced')
    if os.getuid() != 0:
        (tmp / 'ro').mkdir(mode=0o500)
        bad('a folder without permission', 1, ['ro/x', 'Permission'], 'pack', '-', '-o', 'ro/x', stdin=rows)


def signal_tests(tmp):
    put(tmp / 'x.npy', npy('|i1', (30000000,), bytes(30000000)))
    good('pack 30 million constants', 'pack', 'x.npy', '-o', 'x.pbuf')
    ok((tmp / 'x.pbuf').stat().st_size < 2000, 'in one record')
    rows = ('{"t":null,"n":1}\n' * 500000).encode()
    good('pack 500 thousand lines', 'pack', '-', '-o', 'y.pbuf', '--schema',
         put(tmp / 's.json', b'{"n":{"codec":"json_ragged"}}'), stdin=rows)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for args in (['-o', 'out.jsonl'], ['-d', 'dir']):
            target = tmp / ('out.jsonl' if args[0] == '-o' else 'dir')
            p = subprocess.Popen([TOOL, 'unpack', 'x.pbuf' if args[0] == '-o' else 'y.pbuf', *args],
                                 stderr=subprocess.PIPE, preexec_fn=lambda n=number: signal.signal(n, signal.SIG_DFL))
            end = time.time() + 60
            while time.time() < end and not leftovers(tmp) and p.poll() is None:
                time.sleep(0.002)
            seen = leftovers(tmp)
            p.send_signal(number)
            err = p.communicate(timeout=60)[1]
            ok(seen and p.returncode == -number and err == b'' and leftovers(tmp) == [] and not target.exists(),
               f'{number.name} removes the temporary', seen, p.returncode, err)
    put(tmp / 'cut.npy', npy('<i4', (1000000,), random.Random(2).randbytes(4000000)))
    p = subprocess.Popen([TOOL, 'pack', 'cut.npy', '-', '-o', 'cut.pbuf'], stdin=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    p.stdin.write(b'{"a":1}\n')
    p.stdin.flush()
    time.sleep(0.3)
    os.truncate(tmp / 'cut.npy', 4096)
    err = p.communicate(b'{"a":2}\n' * 999999, timeout=120)[1].decode()
    ok(p.returncode == 1 and err.startswith('packbuf: cut.npy: ') and err.count('\n') == 1 and leftovers(tmp) == []
       and not (tmp / 'cut.pbuf').exists(), 'a file that is cut short meanwhile is an error', p.returncode, err)


def terminal_tests(tmp):
    good('pack', 'pack', '-', '-o', 'a.pbuf', stdin=b'{"a\\u001b[31m\\n":1}\n', )

    def on_terminal(*args, **env):
        primary, secondary = pty.openpty()
        p = subprocess.Popen([TOOL, *args], stdin=subprocess.DEVNULL, stdout=secondary, stderr=secondary,
                             env={**os.environ, 'TERM': 'xterm', **env})
        os.close(secondary)
        out = b''
        while True:
            try:
                piece = os.read(primary, 65536)
            except OSError:
                break
            if not piece:
                break
            out += piece
        os.close(primary)
        return p.wait(60), out.decode()
    clean = {k: os.environ.pop(k) for k in ['NO_COLOR'] if k in os.environ}
    code, out = on_terminal('inspect', 'a.pbuf')
    ok(code == 0 and '\x1b[1m' in out and 'a\\x1b[31m\\x0a' in out and '\x1b[31m' not in out,
       'colour on a terminal; names cannot drive it', out)
    code, out = on_terminal('inspect', 'a.pbuf', NO_COLOR='1')
    ok(code == 0 and '\x1b' not in out, 'no colour with NO_COLOR', out)
    code, out = on_terminal('inspect', 'a.pbuf', TERM='dumb')
    ok(code == 0 and '\x1b' not in out, 'no colour on a dumb terminal', out)
    code, out = on_terminal('verify', 'none.pbuf')
    ok(code == 1 and out.startswith('\x1b[31mpackbuf\x1b[0m: none.pbuf'), 'errors in colour', out)
    code, out = on_terminal('pack', 'x.jsonl', '-o', '-')
    ok(code == 2 and 'terminal' in out, 'no packed buffer on a terminal', out)
    code, out = on_terminal('verify', 'a.pbuf')
    ok('[' not in out.replace('\x1b[', ''), 'no progress bar for what is quick', out)
    put(tmp / 'x.npy', npy('|i1', (20000000,), bytes(20000000)))
    good('pack 20 million', 'pack', 'x.npy', '-o', 'x.pbuf')
    code, out = on_terminal('unpack', 'x.pbuf', '-o', 'x.jsonl')
    ok(code == 0 and ('#' in out and '%' in out and out.endswith('\r\x1b[K')),
       'a progress bar for what is slow, gone at the end', out[-300:])
    os.environ.update(clean)


# ---- a build with sanitizers and zlib: deflated and hostile files ----------------------------------------------------

def build_checked(tmp):
    base = [os.environ.get('CC') or 'cc', '-std=c11', '-O1', '-g1', '-fsanitize=address,undefined',
            '-fno-sanitize-recover=all', *map(str, sorted((ROOT / 'tools').glob('*.c')))]
    target = tmp / 'packbuf-checked'
    for more in (['-DPACKBUF_TOOL_ZLIB=1', '-lm', '-lz'], ['-lm']):
        if subprocess.run([*base, '-o', str(target), *more], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0:
            return str(target)
    return None


def checked(tool, *args, **more):
    return run(*args, tool=tool,
               env={**os.environ, 'ASAN_OPTIONS': 'exitcode=99:detect_leaks=0:allocator_may_return_null=1',
                    'UBSAN_OPTIONS': 'halt_on_error=1:exitcode=99'}, **more)


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))
        how = rng.randrange(5)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.choice([0, 1, 0x7f, 0x80, 0xff, 0x22, 0x2c, 0x39])
        elif how == 2:
            data[at:at + 4] = struct.pack('<I', rng.choice([0, 1, 0xffffffff, 0x7fffffff, len(data)]))
        elif how == 3:
            del data[at:at + rng.randrange(1, 9)]
        else:
            data[at:at] = data[at:at + rng.randrange(1, 9)]
        if not data:
            return b''
    return bytes(data)


def hostile_tests(tmp):
    tool = build_checked(tmp)
    if not tool:
        skip('hostile files', 'no compiler with sanitizers')
        return
    members = {'a.npy': npy('<f4', (4, 2), struct.pack('<8f', *range(8))),
               'b.npy': npy('>i8', (4,), struct.pack('>4q', 1, 2, 3, 5))}
    if 'zlib' in run('--version', tool=tool).text:
        put(tmp / 'd.npz', zipped({**members, 'long.npy': npy('<f8', (4, 5000), bytes(160000))}, zipfile.ZIP_DEFLATED))
        put(tmp / 's.npz', zipped({**members, 'long.npy': npy('<f8', (4, 5000), bytes(160000))}))
        r, r2 = checked(tool, 'pack', 'd.npz', '-o', 'd.pbuf'), checked(tool, 'pack', 's.npz', '-o', 's.pbuf')
        ok(r.code == r2.code == 0 and (tmp / 'd.pbuf').read_bytes() == (tmp / 's.pbuf').read_bytes(),
           'deflated .npz packs as a stored one', r, r2)
        bomb = bytearray(zipped({'a.npy': members['a.npy']}, zipfile.ZIP_DEFLATED))
        at = bomb.index(b'PK\1\2')
        bomb[at + 24:at + 28] = struct.pack('<I', 0xfffffff0)
        put(tmp / 'bomb.npz', bytes(bomb))
        r = checked(tool, 'pack', 'bomb.npz', '-o', 'x')
        ok(r.code == 1 and 'claims' in r.err, 'a member that claims too much', r)
    else:
        print('# no zlib: deflated .npz not tried')
    row = {'a': 1, 'b': {'$bytes': 'AAE='}, 'c': [[1, 2], [3]], 'd': {'e': None, 'f': 'x'},
           'm': {'$media': {'mime': 'a/b', 'height': 1, 'data': 'AA=='}},
           't': {'$tensor': {'form': 'array', 'dtype': 'int16', 'shape': [1], 'data': 'AAA='}},
           'o': {'$dict': [[1, 2]]}, 'l': [{'g': [1]}, {}]}
    seeds = {'h.npy': members['a.npy'], 'h.npz': zipped(members), 'i.npz': zipped(members, zipfile.ZIP_DEFLATED),
             'h.safetensors': safetensors({'a': ('F32', [2], bytes(8)), 'b': ('U8', [2, 2], bytes(4))}, {'k': 'v'}),
             'h.jsonl': (json.dumps(row) + '\n' + json.dumps({**row, 'a': 2.5}) + '\n').encode()}
    rounds = int(os.environ.get('PACKBUF_MUTATIONS', '60'))
    for name, seed in seeds.items():
        rng = random.Random(name)
        worst = None
        for _ in range(rounds):
            put(tmp / name, mutate(rng, seed))
            r = checked(tool, 'pack', name, '-o', 'h.pbuf')
            if r.code not in (0, 1) or 'Sanitizer' in r.err or (r.code == 1 and r.err.count('\n') != 1):
                worst = r
                shutil.copy(tmp / name, tempfile.gettempdir())
                break
            if r.code == 0 and checked(tool, 'verify', '-q', 'h.pbuf').code != 0:
                worst = 'what was packed does not verify'
                break
        ok(worst is None, f'{rounds} damaged {name}: an error or a valid buffer', worst)
    put(tmp / 'seed.jsonl', seeds['h.jsonl'])
    put(tmp / 'n.npy', npy('<i4', (2, 3), bytes(range(24))))
    blocks = [random.Random(4).randrange(1000) for _ in range(2000)] + [0] * 1500 + [7, 8] * 250
    put(tmp / 'q.npy', npy('<i8', (2, 2000), struct.pack('<4000q', *blocks)))
    put(tmp / 'z.npy', npy('<f4', (2, 1500), struct.pack('<3000f', *(b and -1 / b for b in blocks[1000:]))))
    r = checked(tool, 'pack', 'seed.jsonl', 'n.npy', 'q.npy', 'z.npy', '-o', 'seed.pbuf', '--metadata', 'a=b',
                '--values', put(tmp / 'v.json', b'{"v":7,"w":[1,2.5]}'))
    ok(r.code == 0, 'pack the seed', r)
    seed = (tmp / 'seed.pbuf').read_bytes()
    head_length, index_length = struct.unpack('<QQ', seed[32:48])
    rng = random.Random(3)
    worst = None
    for _ in range(rounds):
        data = bytearray(mutate(rng, seed))
        # with right checksums the rules behind them are reached
        if len(data) >= head_length + index_length and rng.random() < 0.9:
            data[56:60] = struct.pack('<I', crc32c(data[head_length:head_length + index_length]))
            data[60:64] = struct.pack('<I', crc32c(bytes(data[:60]) + bytes(4) + bytes(data[64:head_length])))
        put(tmp / 'h.pbuf', bytes(data))
        for args in (['inspect', 'h.pbuf'], ['inspect', '--json', 'h.pbuf'],
                     ['unpack', '--no-verify', 'h.pbuf', '--decoded-bytes', '1000000'],
                     ['unpack', '--no-verify', '-q', 'h.pbuf', '-d', 'h', '--decoded-bytes', '1000000'],
                     ['verify', 'h.pbuf'], ['diff', 'h.pbuf', 'seed.pbuf'], ['ranges', 'h.pbuf', '--rows', '1']):
            r = checked(tool, *args)
            if r.code not in (0, 1) or 'Sanitizer' in r.err:
                worst = worst or f'{args}: {r}'
                shutil.copy(tmp / 'h.pbuf', tempfile.gettempdir())
        shutil.rmtree(tmp / 'h', ignore_errors=True)
        if worst:
            break
    ok(worst is None, f'{rounds} damaged packed buffers: never worse than an error', worst)
    all_is_freed(tool)


def all_is_freed(tool):
    env = {**os.environ, 'ASAN_OPTIONS': 'exitcode=99:detect_leaks=1'}
    leaks = [run(*args, tool=tool, env=env)
             for args in (['inspect', 'seed.pbuf'], ['inspect', '--json', 'seed.pbuf'],
                          ['unpack', 'seed.pbuf', '--fields', 'a,d.f'], ['unpack', 'seed.pbuf', '-q', '-d', 'leak'],
                          ['cat', 'seed.pbuf', '-f', 'd'], ['verify', 'seed.pbuf'],
                          ['diff', 'seed.pbuf', 'seed.pbuf', '--metadata'], ['infer', 'seed.jsonl'],
                          ['infer', 'seed.jsonl', '--json'])]
    ok(all(r.code == 0 or 'fatal error' in r.err for r in leaks), 'what runs to its end frees all',
       *[r for r in leaks if r.code])  # a tracer makes LeakSanitizer itself fail


# ---- the sample data -------------------------------------------------------------------------------------------------

def data_tests(tmp):
    if not (DATA / 'rows.jsonl').exists():
        print('# the sample data outside the project: PACKBUF_DATA is not there')
        return
    rows = [json.loads(line) for line in (DATA / 'rows.jsonl').read_text().splitlines()]
    good('pack rows.jsonl', 'pack', DATA / 'rows.jsonl', '-o', 'rows.pbuf')
    good('verify rows', 'verify', 'rows.pbuf')
    back = good('unpack rows', 'unpack', 'rows.pbuf').lines()
    ok(len(back) == len(rows) == 824 and all(map(same_value, rows, back)),
       'all 824 rows: values, types, key presence, null-ness')
    good('pack them again', 'pack', '-', '-o', 'rows2.pbuf', stdin=run('unpack', 'rows.pbuf').out)
    good('diff', 'diff', 'rows.pbuf', 'rows2.pbuf')
    good('infer rows', 'infer', DATA / 'rows.jsonl')
    for folder in ('gsm8k', 'agent'):
        files = sorted((DATA / 'batch_dense' / folder).glob('*.npy'))
        lines = DATA / 'batch_dense' / folder / 'non_tensor.jsonl'
        good(f'pack {folder}', 'pack', *files, lines, '-o', 'dense.pbuf')
        good(f'verify {folder}', 'verify', 'dense.pbuf')
        good(f'unpack {folder}', 'unpack', 'dense.pbuf', '-d', folder)
        ok(all((tmp / folder / f.name).read_bytes() == f.read_bytes() for f in files),
           f'{folder}: {len(files)} byte-identical .npy')
        names = list(json.loads(lines.read_text().splitlines()[0]))
        back = good(f'unpack {folder} rows', 'unpack', 'dense.pbuf', '--fields', ','.join(names)).lines()
        ok(all(map(same_value, back, map(json.loads, lines.read_text().splitlines()))), f'{folder}: non-tensor rows')
    for folder in ('gsm8k', 'agent'):
        source = DATA / 'batch_ragged' / folder
        floats = [f.stem for f in source.glob('*.npy')
                  if f.stem in ('advantages', 'old_log_probs', 'ref_log_prob', 'rollout_log_probs', 'values')]
        ragged = {**{n: 'response_offsets' for n in floats}, 'input_ids': 'input_ids_offsets',
                  'response_mask': 'input_ids_offsets'}
        good(f'pack ragged {folder}', 'pack', *source.glob('*.npy'), *[f'--ragged={a}={b}' for a, b in ragged.items()],
             '-o', 'ragged.pbuf')
        good(f'verify ragged {folder}', 'verify', 'ragged.pbuf')
        good(f'unpack ragged {folder}', 'unpack', 'ragged.pbuf', '-d', f'ragged_{folder}')
        ok(all((tmp / f'ragged_{folder}' / f'{a}.npy').read_bytes() == (source / f'{a}.npy').read_bytes()
               and (tmp / f'ragged_{folder}' / f'{a}_offsets.npy').read_bytes() == (source / f'{b}.npy').read_bytes()
               for a, b in ragged.items()), f'ragged {folder}: byte-identical')
    npz = DATA / 'weights' / 'taef2_decoder_f16.npz'
    bad('weights have no rows', 1, ['rows'], 'pack', npz, '-o', 'x')
    good('pack weights', 'pack', npz, '--as-values', '-o', 'w.pbuf')
    good('verify weights', 'verify', 'w.pbuf')
    good('unpack weights', 'unpack', 'w.pbuf', '-d', 'w')
    values = json.loads((tmp / 'w' / 'values.json').read_text())
    with zipfile.ZipFile(npz) as z:
        ok(len(values) == len(z.namelist()) == 79
           and all(npy('<f2', tuple(v['$tensor']['shape']), base64.b64decode(v['$tensor']['data']))
                   == z.read(f'{k}.npy') for k, v in values.items()), '79 arrays, bit for bit')
    picture_tests(tmp)


def picture_tests(tmp):
    folder = DATA / 'multimodal'
    index = json.loads((folder / 'index.json').read_text())
    shutil.copytree(folder / 'images', tmp / 'images', copy_function=shutil.copyfile)
    os.chmod(tmp / 'images', 0o755)
    rows = index['rows']
    with open(tmp / 'mm.jsonl', 'w') as f:
        for row in rows:
            names = [i if isinstance(i, str) else i.get('file') or i.get('path') for i in row['images']]
            f.write(json.dumps({'prompt': row.get('prompt'),
                                'images': [{'$media': {'mime': 'image/' + ('png' if n.endswith('png') else 'jpeg'),
                                                       'file': n}} for n in names]}) + '\n')
    files = [folder / n for n in ('input_ids.npy', 'input_ids_offsets.npy', 'image_grid_thw.npy', 'image_offsets.npy')]
    good('pack pictures, tokens, grids', 'pack', 'mm.jsonl', *files, '--ragged', 'input_ids=input_ids_offsets',
         '--ragged', 'image_grid_thw=image_offsets', '-o', 'mm.pbuf')
    good('verify them', 'verify', 'mm.pbuf')
    cells = good('cat pictures', 'cat', 'mm.pbuf', '-f', 'images').lines()
    right = all(base64.b64decode(m['$media']['data'])
                == (folder / (i if isinstance(i, str) else i.get('file') or i.get('path'))).read_bytes()
                for row, cell in zip(rows, cells) for i, m in zip(row['images'], cell))
    ok(len(cells) == len(rows) and right and [len(c) for c in cells] == [len(r['images']) for r in rows],
       'the bytes of every picture')
    good('unpack them', 'unpack', 'mm.pbuf', '-d', 'mm')
    ok(all((tmp / 'mm' / a).read_bytes() == (folder / b).read_bytes()
           for a, b in [('input_ids.npy', 'input_ids.npy'), ('input_ids_offsets.npy', 'input_ids_offsets.npy'),
                        ('image_grid_thw.npy', 'image_grid_thw.npy'),
                        ('image_grid_thw_offsets.npy', 'image_offsets.npy')]), 'tokens and grids byte-identical')


TESTS = (usage_tests, jsonl_tests, tag_tests, file_tag_tests, npy_dtype_tests, npy_tests, npy_refused_tests,
         archive_tests, safetensors_tests, safetensors_refused_tests, mixed_tests, schema_tests, ragged_tests,
         sharing_tests, packing_tests, range_tests, ranges_tests, infer_tests, verify_tests, diff_tests, pipe_tests,
         signal_tests, terminal_tests, hostile_tests, data_tests)
if __name__ == '__main__':
    sys.exit(main(TESTS))
