"""What the tests of the `packbuf` command share (tool.py, tool_store.py): TAP on stdout, running the command, good and
bad ends.

Needs the standard library alone. PACKBUF_TOOL: the command (build/packbuf).
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOL = os.path.abspath(os.environ.get('PACKBUF_TOOL', ROOT / 'build' / 'packbuf'))
count = failed = 0


def ok(passed, name, *about):
    global count, failed
    count += 1
    print(('ok' if passed else 'not ok') + f' {count} - {name}', flush=True)
    if not passed:
        failed += 1
        for text in about:
            for line in str(text)[:2000].split('\n'):
                print(f'# {line}')
    return passed


def skip(name, reason):
    global count
    count += 1
    print(f'ok {count} - {name} # SKIP {reason}', flush=True)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.text = out.decode('utf-8', 'replace')

    def __str__(self):
        return f'exit {self.code}\nstdout: {self.text[:800]}\nstderr: {self.err[:800]}'

    def lines(self):
        return [json.loads(line) for line in self.text.splitlines()]


def clean(**more):
    """The environment with no secret but the one that is given."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith('PACKBUF_SECRET')}, **more}


def run(*args, stdin=b'', tool=None, env=None, **more):
    p = subprocess.run([tool or TOOL, *map(str, args)], input=stdin, stdout=more.pop('stdout', subprocess.PIPE),
                       stderr=subprocess.PIPE, timeout=300, env=env or clean(), **more)
    return Result(p.returncode, p.stdout or b'', p.stderr.decode('utf-8', 'replace'))


def good(name, *args, **more):
    r = run(*args, **more)
    ok(r.code == 0 and r.err == '', name, r)
    return r


def bad(name, code, words, *args, **more):
    """The exit code, one line on stderr that starts with packbuf: and holds all the words."""
    r = run(*args, **more)
    one = r.err.startswith('packbuf: ') and r.err.count('\n') == 1 and r.err.endswith('\n')
    ok(r.code == code and one and all(w in r.err for w in words), name, f'wanted {code}, {words}', r)
    return r


def main(tests, after=None):
    """Runs tests, each in a folder of its own, or those that the command line names; `after` follows each. The exit
    code."""
    if not os.path.exists(TOOL):
        print(f'Bail out! {TOOL} is not built')
        return 1
    wanted = sys.argv[1:]
    for test in tests:
        if wanted and test.__name__[:-6] not in wanted:
            continue
        print(f'# {test.__name__}')
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                test(pathlib.Path(os.path.realpath(folder)))
            except Exception as problem:  # a broken test must not hide the others
                ok(False, f'{test.__name__} ended early', traceback.format_exc(), problem)
            finally:
                os.chdir('/')
                if after:
                    after()
    print(f'1..{count}')
    return failed != 0
