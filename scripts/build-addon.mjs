// Builds the native engine (addon/) and its guardian into build/Release/, when a source is newer than what was built.
//
// The compiler is called directly: Node-API needs only the headers of two npm packages, so that neither Node's own
// headers, nor Python, nor the network is needed.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const root = path.dirname(import.meta.dirname);
const sourceDirectory = path.join(root, 'addon');
const objectDirectory = path.join(root, 'build', 'addon');
const output = path.join(root, 'build', 'Release', 'kcare_engine.node');
/** A program of its own. */
export const guardianSource = 'guardian_main.cc';
const guardian = path.join(root, 'build', 'Release', 'kcare_guardian');
export const compiler = process.env.CXX ?? 'g++';
const jobs = 2;

export const compilerOptions = [
  '-std=c++17',
  '-O2',
  '-g',
  '-fPIC',
  '-pthread',
  '-fvisibility=hidden',
  ...['-Wall', '-Wextra', '-Wpedantic', '-Wshadow', '-Wconversion', '-Werror'],
  ...[
    '-fstack-protector-strong',
    '-fstack-clash-protection',
    '-fcf-protection',
    '-U_FORTIFY_SOURCE',
    '-D_FORTIFY_SOURCE=2',
  ],
  ...['-DNAPI_VERSION=8', '-DNAPI_CPP_EXCEPTIONS', '-D_GNU_SOURCE'],
  ...['-isystem', path.join(root, 'node_modules', 'node-api-headers', 'include')],
  ...['-isystem', path.join(root, 'node_modules', 'node-addon-api')],
];
const linkerOptions = ['-shared', '-pthread', '-Wl,-z,relro,-z,now,-z,noexecstack'];

/** Time of the last change in milliseconds, 0 when the file is missing. */
function changed(file) {
  return fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function run(parameters) {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler, parameters, { stdio: 'inherit' });
    child.on('error', (error) =>
      reject(new Error(`cannot run ${compiler} (${error.message}); install the Debian package g++`)),
    );
    child.on('exit', (status) =>
      status === 0 ? resolve() : reject(new Error(`${compiler} ended with status ${status}`)),
    );
  });
}

/** The files that an object was made from, as the compiler noted them (-MMD). */
function dependencies(object) {
  const notes = object.replace(/\.o$/, '.d');
  if (!fs.existsSync(notes)) return [];
  const words = fs.readFileSync(notes, 'utf8').replaceAll('\\\n', ' ').split(/\s+/);
  return words.slice(1).filter((word) => word !== '');
}

/** Whether an object is younger than all that it was made from. */
export function isCurrent(source, object) {
  const made = changed(object);
  return (
    made > changed(import.meta.filename) &&
    [source, ...dependencies(object)].every((file) => changed(file) > 0 && changed(file) < made)
  );
}

async function buildGuardian() {
  const source = path.join(sourceDirectory, guardianSource);
  const object = path.join(objectDirectory, guardianSource.replace(/\.cc$/, '.o'));
  if (!isCurrent(source, object)) await run([...compilerOptions, '-MMD', '-c', source, '-o', object]);
  if (changed(object) < changed(guardian)) return;
  await run(['-static', '-s', object, '-o', `${guardian}.new`]);
  fs.renameSync(`${guardian}.new`, guardian);
}

async function build() {
  fs.mkdirSync(objectDirectory, { recursive: true });
  fs.mkdirSync(path.dirname(output), { recursive: true });
  const units = fs
    .readdirSync(sourceDirectory)
    .filter((name) => name.endsWith('.cc') && name !== guardianSource)
    .map((name) => ({
      source: path.join(sourceDirectory, name),
      object: path.join(objectDirectory, name.replace(/\.cc$/, '.o')),
    }));
  await buildGuardian();
  const outdated = units.filter(({ source, object }) => !isCurrent(source, object));
  const worker = async () => {
    for (let unit = outdated.pop(); unit; unit = outdated.pop()) {
      await run([...compilerOptions, '-MMD', '-c', unit.source, '-o', unit.object]);
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  if (
    units.every(({ object }) => changed(object) < changed(output)) &&
    changed(import.meta.filename) < changed(output)
  )
    return;
  // A running process may have the old file mapped: replace the name, not the content.
  const temporary = `${output}.new`;
  await run([...linkerOptions, ...units.map(({ object }) => object), '-o', temporary]);
  fs.renameSync(temporary, output);
}

if (process.argv[1] === import.meta.filename) {
  try {
    await build();
  } catch (error) {
    process.stderr.write(`build-addon: ${error.message}\n`);
    process.exitCode = 1;
  }
}
