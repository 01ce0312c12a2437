// --lib-symbols: writes the patched code of a process as files that a debugger can load.
import { closeSync, openSync, renameSync, writeFileSync, constants } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { hex } from '../base/address.js';
import { asKcareError } from '../base/errors.js';
import { symbolFiles } from '../engine/index.js';

export interface WrittenSymbols {
  readonly pid: number;
  readonly files: readonly {
    readonly object: string;
    readonly patchlvl: number;
    readonly address: string;
    readonly path: string;
    /** To be given to gdb. */
    readonly command: string;
  }[];
}

/**
 * Writes one file for each patch of process `pid` into `directory`, replacing those of an earlier call. Throws
 * TARGET_GONE, NOT_PERMITTED, HEADER_MALFORMED, and the errors of writing files.
 */
export function writeSymbols(pid: number, directory: string): WrittenSymbols {
  const files = symbolFiles(pid).map(({ objectName, level, address, bytes }) => {
    // The process chose the name.
    const object = basename(objectName).replace(/[^\w.+-]/g, '_');
    const path = join(resolve(directory), `kcare-${pid}-${object}-${hex(address)}.debug`);
    replaceFile(path, bytes);
    const command = `add-symbol-file ${quoted(path)}`;
    return { object: objectName, patchlvl: level, address: hex(address), path, command };
  });
  return { pid, files };
}

/** A link that somebody put there is replaced, not followed. */
function replaceFile(path: string, bytes: Uint8Array): void {
  const fresh = `${path}.${process.pid}`;
  try {
    const file = openSync(fresh, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      writeFileSync(file, bytes);
    } finally {
      closeSync(file);
    }
    renameSync(fresh, path);
  } catch (thrown) {
    throw asKcareError(thrown);
  }
}

/** As gdb splits its arguments. */
function quoted(path: string): string {
  return /^[\w./+-]+$/.test(path) ? path : `'${path.replaceAll("'", "\\'")}'`;
}
