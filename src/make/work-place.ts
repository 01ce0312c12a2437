// The directory .libcare of a project: where records, objects and saved files lie, and who may use it.
import { existsSync, readdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { KcareError } from '../base/errors.js';

const workName = '.libcare';

export interface WorkPlace {
  /** Where the build command runs. */
  readonly build: string;
  /** Where patches are applied. */
  readonly sources: string;
  readonly work: string;
  readonly compilers: string;
  /** Records of the project's own build, and of the patched one. */
  readonly records: string;
  readonly patchedRecords: string;
  readonly objects: string;
  readonly saved: string;
}

/** Throws FILE_MISSING, and USAGE for a directory that cannot be a project. */
export function workPlace(buildDirectory: string, sourceDirectory: string): WorkPlace {
  const [build, sources] = [buildDirectory, sourceDirectory].map((directory) => {
    if (!existsSync(directory)) throw new KcareError('FILE_MISSING', `There is no directory ${directory}.`);
    const whole = realpathSync(directory);
    if (whole === '/') throw new KcareError('USAGE', 'The root directory is no project.');
    return whole;
  });
  if (build === undefined || sources === undefined) throw new KcareError('INTERNAL', 'two directories');
  const work = path.join(build, workName);
  const inWork = (name: string): string => path.join(work, name);
  return {
    build,
    sources,
    work,
    compilers: inWork('compilers'),
    records: inWork('records'),
    patchedRecords: inWork('patched-records'),
    objects: inWork('objects'),
    saved: inWork('saved'),
  };
}

/** All directories .libcare in the project: `CC=libcare-cc` puts one where its first compile ran. */
export function workDirectories({ build, sources, work }: WorkPlace): string[] {
  const found = new Set([build, sources].flatMap((root) => [...findWork(root)]));
  found.add(work);
  return [...found];
}

function* findWork(directory: string): Generator<string> {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (!entry.isDirectory() || entry.name === '.git') continue;
    const file = path.join(directory, entry.name);
    if (entry.name === workName) yield file;
    else yield* findWork(file);
  }
}
