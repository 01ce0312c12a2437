// One file of which code is executed: its build-id, and whether the file on disk is still the same.
import { closeSync, constants, openSync, fstatSync, type BigIntStats } from 'node:fs';
import { readBuildId } from './build-id.js';
import { isMemoryFile, type ExecutedFile, type FileName } from './maps-scan.js';
import { readAt, sameFile, type OpenedFile, type RootView } from './root-view.js';
import { systemCode } from '../proc/index.js';

/**
 * `current`: the file on disk is the one that is executed, or one of the same build. `replaced`: another build lies there.
 * `deleted`: nothing does. `elsewhere`: the file exists, but its path does not lead to it (another mount, a file in
 * memory). `unknown`: this user may not look.
 */
export type DiskState = 'current' | 'replaced' | 'deleted' | 'elsewhere' | 'unknown';

export interface MappedFile {
  /** Latin-1, without the kernel's mark of deleted files, in the root in which it was looked up. */
  readonly path: string;
  readonly state: DiskState;
  /** Of what is executed. */
  readonly buildId: string | undefined;
  /** Of what now lies at the path, when that is another build. */
  readonly installedBuildId?: string | undefined;
}

const deletedMark = ' (deleted)';
const blockSize = 1024 * 1024;

/** Where a process's files are looked up. */
export interface Place {
  /** Directory of the process in /proc, held open. */
  readonly process: string;
  readonly view: RootView;
  /** In `view`. */
  readonly path: string;
  /** The build-id in the memory of the process, for users that may not open its mappings. */
  readonly buildIdInMemory: () => string | undefined;
}

/**
 * Looks at the file itself, through the mapping, so that deleted and replaced files are read as well, and a process that
 * has changed its own memory says nothing about others. Throws TARGET_GONE and the system's errors when the process ends
 * or unmaps the file meanwhile.
 */
export function lookAt(executed: ExecutedFile, name: FileName, place: Place): MappedFile {
  const mapped = openMapped(executed, place);
  try {
    const disk = isMemoryFile(name.path) ? undefined : openOnDisk(name, place, mapped?.status);
    try {
      return compare(name, place, mapped, disk);
    } finally {
      if (disk?.file) closeSync(disk.file.descriptor);
    }
  } finally {
    if (mapped) closeSync(mapped.descriptor);
  }
}

/** Undefined where it takes more rights (CAP_CHECKPOINT_RESTORE). */
function openMapped(executed: ExecutedFile, { process }: Place): OpenedFile | undefined {
  try {
    const path = `${process}/map_files/${mapName(executed.range)}`;
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    return { descriptor, status: fstatSync(descriptor, { bigint: true }) };
  } catch (thrown) {
    if (['EPERM', 'EACCES'].includes(systemCode(thrown) ?? '')) return undefined;
    throw thrown;
  }
}

/** maps pads addresses to eight digits, map_files does not. */
function mapName(range: string): string {
  return range.replace(/(^|-)0+(?=[0-9a-f])/g, '$1');
}

interface OnDisk {
  readonly path: string;
  readonly isMarkedDeleted: boolean;
  /** Undefined: nothing there. */
  readonly file: OpenedFile | undefined;
  readonly isSame: boolean;
}

/**
 * The kernel's spelling is ambiguous: a name may itself end with " (deleted)", and "\012" stands for a newline and for
 * itself. The spelling that leads to the executed file counts, else the usual one.
 */
function openOnDisk(name: FileName, place: Place, mapped: BigIntStats | undefined): OnDisk {
  const isMarked = place.path.endsWith(deletedMark);
  const bare = isMarked ? place.path.slice(0, -deletedMark.length) : place.path;
  const usual = bare.replaceAll('\\012', '\n');
  const whole = place.path.replaceAll('\\012', '\n');
  for (const path of new Set([whole, place.path, usual, bare])) {
    const file = place.view.openFile(path);
    if (!file) continue;
    if (isSameAs(file.status, name, mapped))
      return { path, isMarkedDeleted: isMarked && path !== whole && path !== place.path, file, isSame: true };
    closeSync(file.descriptor);
  }
  for (const path of new Set([usual, bare])) {
    const file = place.view.openFile(path);
    if (file) return { path, isMarkedDeleted: isMarked, file, isSame: false };
  }
  return { path: usual, isMarkedDeleted: isMarked, file: undefined, isSame: false };
}

function isSameAs(status: BigIntStats, name: FileName, mapped: BigIntStats | undefined): boolean {
  if (mapped) return sameFile(status, mapped);
  return (
    status.ino === name.inode && majorOf(status.dev) === name.major && minorOf(status.dev) === name.minor
  );
}

/** As makedev(3) packs them. */
function majorOf(device: bigint): number {
  return Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n));
}

function minorOf(device: bigint): number {
  return Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n));
}

function compare(
  name: FileName,
  place: Place,
  mapped: OpenedFile | undefined,
  disk: OnDisk | undefined,
): MappedFile {
  if (!disk) {
    const path = withoutMark(name.path);
    return {
      path,
      state: 'elsewhere',
      buildId: mapped ? readBuildId(mapped.descriptor) : place.buildIdInMemory(),
    };
  }
  const { path, file } = disk;
  if (disk.isSame && file) return { path, state: 'current', buildId: readBuildId(file.descriptor) };
  const buildId = mapped ? readBuildId(mapped.descriptor) : place.buildIdInMemory();
  const isGone = disk.isMarkedDeleted || mapped?.status.nlink === 0n;
  if (!file) return { path, state: isGone ? 'deleted' : 'elsewhere', buildId };
  const installedBuildId = readBuildId(file.descriptor);
  if (buildId !== undefined && buildId === installedBuildId) return { path, state: 'current', buildId };
  if (!isGone) return { path, state: 'elsewhere', buildId };
  if (buildId === undefined && installedBuildId === undefined) {
    if (!mapped) return { path, state: 'unknown', buildId };
    return { path, state: sameBytes(mapped, file) ? 'current' : 'replaced', buildId };
  }
  return { path, state: 'replaced', buildId, installedBuildId };
}

function withoutMark(path: string): string {
  return path.endsWith(deletedMark) ? path.slice(0, -deletedMark.length) : path;
}

/** For files without a build-id. */
function sameBytes(left: OpenedFile, right: OpenedFile): boolean {
  if (left.status.size !== right.status.size) return false;
  for (let at = 0; at < Number(left.status.size); at += blockSize) {
    if (!readAt(left.descriptor, at, blockSize).equals(readAt(right.descriptor, at, blockSize))) return false;
  }
  return true;
}
