// The shipped object that a patch is for: a file, or the package of the archive that the patch names.
import { existsSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { defaultWorkDirectory, ShippedObject, unpackBinary } from '../build/index.js';
import { buildIdOf, parseElf, type ElfFile } from '../elf/index.js';
import type { Patch } from '../patchfile/index.js';

export interface FoundObject {
  readonly shipped: ShippedObject;
  readonly file: string;
  readonly source: 'given' | 'archive';
  /** Symbol tables in separate debug files of this very build. */
  readonly debug: readonly ElfFile[];
}

export interface ObjectOptions {
  /** Path of the object; without it, the archive is asked. */
  readonly object?: string | undefined;
  /** A separate debug file. Without it, those of the machine and of the unpacked package are used. */
  readonly debug?: string | undefined;
  /** Work directory of builds, where packages are unpacked. */
  readonly work?: string | undefined;
  readonly onProgress?: ((message: string) => void) | undefined;
}

/** A file that somebody names, whole. Throws FILE_MISSING where it is none. */
export async function readNamedFile(file: string): Promise<Uint8Array> {
  if (!(await stat(file)).isFile()) throw new KcareError('FILE_MISSING', `${file} is not a file.`);
  return readFile(file);
}

/** The object: as it was named, whatever its build-id, or out of the archive. Throws ARCHIVE_UNAVAILABLE, ELF_*. */
export async function findObject(patch: Patch, options: ObjectOptions): Promise<FoundObject> {
  const { object } = options;
  if (object !== undefined) {
    const shipped = new ShippedObject(await readNamedFile(object), object);
    return { shipped, file: object, source: 'given', debug: await debugFiles(shipped.buildId, options) };
  }
  const root = await unpackNamed(patch, options);
  for (const file of await filesNamed(root, patch.metadata.objectName)) {
    const bytes = await readFile(file);
    if (buildIdOf(parseElf(bytes)) !== patch.buildId) continue;
    const shipped = new ShippedObject(bytes, file);
    return { shipped, file, source: 'archive', debug: await debugFiles(patch.buildId, options, root) };
  }
  const { package: name, packageVersion, objectName } = patch.metadata;
  throw new KcareError(
    'ARCHIVE_UNAVAILABLE',
    `${name} ${packageVersion} of the archive holds no ${objectName} with build-id ${patch.buildId}; name the object with --object.`,
  );
}

async function unpackNamed({ metadata }: Patch, { work, onProgress }: ObjectOptions): Promise<string> {
  const { package: name, packageVersion: version } = metadata;
  // They become part of a path and parameters of a program.
  if (!/^[a-z0-9][a-z0-9+.-]+$/.test(name) || !/^[0-9][A-Za-z0-9.+:~-]*$/.test(version)) {
    throw new KcareError(
      'ARCHIVE_UNAVAILABLE',
      'The patch names no package of a distribution; name the object with --object.',
    );
  }
  onProgress?.(`looking for ${metadata.objectName} in ${name} ${version}`);
  return unpackBinary(work ?? defaultWorkDirectory(), name, version);
}

async function filesNamed(root: string, name: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name === name)
    .map((entry) => path.join(entry.parentPath, entry.name))
    .sort();
}

async function debugFiles(
  buildId: string,
  { debug }: ObjectOptions,
  root?: string,
): Promise<readonly ElfFile[]> {
  if (debug !== undefined) {
    const elf = parseElf(await readNamedFile(debug));
    const own = buildIdOf(elf);
    if (own === buildId) return [elf];
    throw new KcareError(
      'BUILD_ID_MISMATCH',
      `${debug} has build-id ${own ?? 'none'}, the object ${buildId}.`,
    );
  }
  const place = path.join('usr/lib/debug/.build-id', buildId.slice(0, 2), `${buildId.slice(2)}.debug`);
  const files = [path.join('/', place), ...(root === undefined ? [] : [path.join(root, place)])];
  return Promise.all(
    files.filter((file) => existsSync(file)).map(async (file) => parseElf(await readFile(file))),
  );
}
