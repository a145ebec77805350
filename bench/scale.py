#!/usr/bin/env python3
"""The numbers of spec/scale.md: what a step of many workers and one learner moves and costs, computed from packed sample data and
from what bench-store measures on this machine, beside it. Prints Markdown. Needs build/packbuf and PACKBUF_DATA.
May use: the command. Must not know: how a store does it."""
import json
import math
import os
import pathlib
import signal
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOL = str(ROOT / 'build' / 'packbuf')
DATA = pathlib.Path(os.environ.get('PACKBUF_DATA') or ROOT.parent / 'shared' / 'data')
WORKERS = (1, 16, 256, 4096)
LINKS = (25, 100, 400)  # Gb/s


def tool(*args):
    return subprocess.run([TOOL, *map(str, args)], check=True, stdout=subprocess.PIPE).stdout.decode()


def packed(kind, name, packing, folder):
    """Rows, bytes of the arrays and rows as they were, and of the packed buffer."""
    source, target = DATA / kind / name, folder / f'{kind}-{name}-{packing}.pbuf'
    args = sorted(source.glob('*.npy'))
    for array in args[:]:
        offsets = {'input_ids': 'input_ids_offsets', 'response_mask': 'input_ids_offsets'}.get(array.stem, 'response_offsets')
        if kind == 'batch_ragged' and array.stem not in ('prompt_lengths', 'rewards') and not array.stem.endswith('_offsets'):
            args += ['--ragged', f'{array.stem}={offsets}']
    if kind == 'batch_dense':
        args.append(source / 'non_tensor.jsonl')
    tool('pack', *args, '--packing', packing, '-o', target)
    rows = json.loads(tool('inspect', target, '--json'))['rows']
    return rows, sum(p.stat().st_size for p in source.iterdir()), target.stat().st_size


def measured(uri, *args):
    rows = json.loads(tool('bench-store', uri, '--json', *args))['rows']
    return {(o['operation'], o['size'], o['batch']): o for o in rows if 'skipped' not in o}


def table(heads, rows):
    print('| ' + ' | '.join(heads) + ' |\n|' + ' --- |' * len(heads))
    for row in rows:
        print('| ' + ' | '.join(map(str, row)) + ' |')
    print()


def size(n):
    for unit in ('B', 'kB', 'MB', 'GB', 'TB'):
        if n < 1000 or unit == 'TB':
            return f'{n:.3g} {unit}' if n < 1000 else f'{n:.0f} {unit}'
        n /= 1000


def time(seconds):
    for unit, scale in (('s', 1), ('ms', 1e3), ('us', 1e6)):
        if seconds * scale >= 1 or unit == 'us':
            return f'{seconds * scale:.3g} {unit}'


def main():
    with tempfile.TemporaryDirectory() as name:
        batches = {(k, n): [packed(k, n, p, pathlib.Path(name)) for p in ('none', 'balanced')] for k, n in
                   (('batch_dense', 'gsm8k'), ('batch_dense', 'agent'), ('batch_ragged', 'gsm8k'), ('batch_ragged', 'agent'))}
    print('What a row takes:\n')
    table(('batch', 'rows', 'as files, a row', 'packed plain, a row', 'packed balanced, a row', 'balanced / plain'),
          [(f'`{k}/{n}`', p[0], size(p[1] / p[0]), size(p[2] / p[0]), size(b[2] / b[0]), f'1 / {p[2] / b[2]:.1f}') for (k, n), (p, b) in batches.items()])

    server = subprocess.Popen([TOOL, 'serve', 'tcp://127.0.0.1:0'], stdout=subprocess.PIPE)
    shm = f'scale-{os.getpid()}'
    try:
        uri = server.stdout.readline().decode().strip()
        small = ('--sizes=64', '--batches=1,256', '--seconds=1')
        costs = {'tcp': measured(uri, *small), 'shm': measured(f'shm:{shm}?size=256m', *small)}
        stream = measured(uri, '--ops=put,get', '--sizes=1m', '--batches=16', '--seconds=2')
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        pathlib.Path(f'/dev/shm/packbuf.{shm}').unlink(missing_ok=True)
    print('What a key costs, medians, 64 bytes each:\n')
    table(('operation', 'tcp, alone', 'tcp, of 256', 'shm, alone', 'shm, of 256'),
          [(op, *[time(costs[t][op, 64, n]['p50_ns'] * 1e-9 / n) if (op, 64, n) in costs[t] else '' for t in ('tcp', 'shm') for n in (1, 256)])
           for op in ('put', 'get', 'get-in-place', 'stat', 'remove')])
    rates = {op: (1 << 24) / stream[op, 1 << 20, 16]['p50_ns'] for op in ('put', 'get')}
    print(f'One connection over loopback, 1 MiB objects, median: put {rates["put"]:.2f} GB/s, get {rates["get"]:.2f} GB/s.\n')

    rows, _, plain = batches['batch_dense', 'gsm8k'][0]
    _, _, small = batches['batch_dense', 'gsm8k'][1]
    one, many = (costs['tcp']['get', 64, n]['p50_ns'] * 1e-9 / n for n in (1, 256))
    print(f'A step in which each worker puts one batch (`batch_dense/gsm8k`, {rows} rows) and one learner gets all of them:\n')
    table(('workers', 'rows', 'keys', 'registrations', 'in and out of the server: plain', 'balanced', *[f'into the server at {g} Gb/s, balanced' for g in LINKS],
           'asked one by one', 'asked in batches of 256', 'store for two steps, balanced'),
          [(w, w * rows, w, 0, size(2 * w * plain), size(2 * w * small), *[time(w * small * 8 / (g * 1e9)) for g in LINKS], time(w * one),
            time(w * many if w >= 256 else math.ceil(w / 256) * one), size(2 * w * small)) for w in WORKERS])


main()
