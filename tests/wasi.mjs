// Runs a wasm32-wasi test program under Node: node tests/wasi.mjs PROGRAM [ARGUMENTS...]. The working directory is its file system.
import { readFile } from 'node:fs/promises';
import { WASI } from 'node:wasi';

const args = process.argv.slice(2);
// Node is left at once in either way: Node 20 crashes when it takes down a program that had much memory
const wasi = new WASI({ version: 'preview1', args, env: process.env, preopens: { '.': '.' }, returnOnExit: false });
const module = await WebAssembly.compile(await readFile(args[0]));
process.exit(wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject())) ?? 0);
