// /proc/PID/maps as a typed list, lowest address first.
import { readFileSync } from 'node:fs';
import { remoteAddress, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { processFailure } from './failure.js';
import { memoryDirectory } from './files.js';

export interface Mapping {
  readonly start: RemoteAddress;
  readonly end: RemoteAddress;
  /** As the kernel writes it, e.g. "r-xp". */
  readonly permissions: string;
  /** Offset in the file, bytes. */
  readonly offset: number;
  /** "major:minor", hexadecimal. */
  readonly device: string;
  readonly inode: number;
  /** "" for anonymous memory; "[heap]", "[stack]" and their kind as the kernel names them. */
  readonly path: string;
  /** The kernel marked the file as deleted; the mark is not part of `path`. */
  readonly deleted: boolean;
}

const linePattern =
  /^([0-9a-f]+)-([0-9a-f]+) ([r-][w-][x-][ps]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+) *([^]*)$/;
const deletedMark = ' (deleted)';

/** What was read last: within one look at a process, the mappings rarely change. */
let latest: { readonly text: string; readonly mappings: readonly Mapping[] } = { text: '', mappings: [] };

/** The mappings of a process. Throws TARGET_GONE, NOT_PERMITTED. */
export function readMaps(pid: number): readonly Mapping[] {
  const text = readMapsText(pid);
  if (text !== latest.text) latest = { text, mappings: parseMaps(text) };
  return latest.mappings;
}

function readMapsText(pid: number): string {
  try {
    // Empty for a main thread that has ended; then other threads may still have the memory.
    const text = readFileSync(`/proc/${pid}/maps`, 'utf8');
    return text === '' ? readFileSync(`/proc/${memoryDirectory(pid)}/maps`, 'utf8') : text;
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
}

/** Parses the text of a maps file (proc(5)). */
export function parseMaps(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of text.split('\n')) {
    if (line === '') continue;
    mappings.push(parseLine(line));
  }
  return mappings;
}

function parseLine(line: string): Mapping {
  const fields = linePattern.exec(line);
  if (!fields)
    throw new KcareError('INTERNAL', `A line of /proc/PID/maps is not understood: ${JSON.stringify(line)}`);
  const [, start = '', end = '', permissions = '', offset = '', device = '', inode = '', name = ''] = fields;
  const deleted = name.endsWith(deletedMark);
  // The kernel escapes newlines and nothing else, not even the backslash itself.
  const path = (deleted ? name.slice(0, -deletedMark.length) : name).replaceAll('\\012', '\n');
  return {
    start: remoteAddress(BigInt(`0x${start}`)),
    end: remoteAddress(BigInt(`0x${end}`)),
    permissions,
    offset: Number.parseInt(offset, 16),
    device,
    inode: Number(inode),
    path,
    deleted,
  };
}
