// ELF objects that a process has mapped, known by the build-id in its memory: deleted and replaced files do not matter.
import { basename } from 'node:path';
import { advance, distance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import {
  buildIdFromNotes,
  parseProgramHeaders,
  readNotes,
  segmentType,
  type ElfSegment,
} from '../elf/index.js';
import { readMaps, type Mapping } from './maps.js';
import { ProcessMemory } from './memory.js';

export interface MappedObject {
  /** As the process's own mount namespace names it. */
  readonly path: string;
  readonly name: string;
  readonly deleted: boolean;
  readonly device: string;
  readonly inode: number;
  /** Lower-case hexadecimal; "" when the object has none. */
  readonly buildId: string;
  /** Load bias: address in memory minus virtual address in the file. */
  readonly bias: RemoteAddress;
  /** Range of the memory image by its PT_LOAD headers, whole pages. */
  readonly start: RemoteAddress;
  readonly end: RemoteAddress;
  readonly mappings: readonly Mapping[];
  /** False for a copy that is mapped as data only. */
  readonly executable: boolean;
}

const pageSize = 4096;
/** Build-id notes lie in the first few hundred bytes of their segment; the target's own length is not trusted. */
const longestNotes = 64 * 1024;

/** The loader makes no more than 16; each takes a look at all mappings of the file. */
const mostCopies = 64;

interface Layout {
  readonly bias: RemoteAddress;
  readonly start: RemoteAddress;
  readonly end: RemoteAddress;
  readonly segments: readonly ElfSegment[];
}

/** What the first page of an object says, whatever its address. */
interface FirstPage {
  readonly page: Uint8Array;
  readonly segments: readonly ElfSegment[];
  /** Virtual addresses, whole pages: of the start of the file, and of the object's ends. */
  readonly head: number;
  readonly lowest: number;
  readonly highest: number;
}

/**
 * By device and inode: most processes run the same libraries. Nothing is taken on trust: what one process shows counts
 * for another only where that shows the very same page.
 */
const firstPages = new Map<string, FirstPage>();
const mostFirstPages = 4096;

/**
 * The ELF objects among the files of which the process executes code, lowest address first; a file that is loaded twice
 * appears twice. Files whose headers make no sense are left out. Throws TARGET_GONE, NOT_PERMITTED.
 */
export function mappedObjects(
  pid: number,
  memory?: ProcessMemory,
  maps: readonly Mapping[] = readMaps(pid),
): MappedObject[] {
  const files = filesWithCode(maps);
  if (files.length === 0) return [];
  const opened = memory ?? ProcessMemory.open(pid);
  try {
    return files
      .flatMap((mappings) => objectsOfFile(opened, mappings))
      .sort((left, right) => (left.start < right.start ? -1 : 1));
  } finally {
    if (!memory) opened.close();
  }
}

function filesWithCode(maps: readonly Mapping[]): Mapping[][] {
  const files = new Map<string, Mapping[]>();
  for (const mapping of maps) {
    if (mapping.inode === 0) continue;
    const key = `${mapping.device} ${mapping.inode}`;
    const known = files.get(key);
    if (known) known.push(mapping);
    else files.set(key, [mapping]);
  }
  return [...files.values()].filter((mappings) => mappings.some(isCode));
}

function objectsOfFile(memory: ProcessMemory, mappings: readonly Mapping[]): MappedObject[] {
  const objects: MappedObject[] = [];
  const taken = new Set<Mapping>();
  for (const first of mappings) {
    // The data segment of a small file can also begin at file offset 0: it belongs to the object before it.
    if (first.offset !== 0 || taken.has(first)) continue;
    const object = objectAt(memory, first, mappings);
    if (!object) continue;
    if (objects.length >= mostCopies) throw tooManyCopies(memory.pid, first.path);
    object.mappings.forEach((mapping) => taken.add(mapping));
    objects.push(object);
  }
  return objects;
}

function objectAt(
  memory: ProcessMemory,
  first: Mapping,
  mappings: readonly Mapping[],
): MappedObject | undefined {
  try {
    const page = memory.read(first.start, pageSize);
    const layout = layoutOf(first, page);
    if (!layout) return undefined;
    const own = mappings.filter((mapping) => mapping === first || belongs(layout, mapping));
    return {
      path: first.path,
      name: basename(first.path),
      deleted: first.deleted,
      device: first.device,
      inode: first.inode,
      buildId: findBuildId(memory, layout, own, first.start, page),
      bias: layout.bias,
      start: layout.start,
      end: layout.end,
      mappings: own,
      executable: own.some(isCode),
    };
  } catch (thrown) {
    if (isUnusable(thrown)) return undefined;
    throw thrown;
  }
}

function layoutOf({ start, device, inode }: Mapping, page: Uint8Array): Layout | undefined {
  const key = `${device} ${inode}`;
  let known = firstPages.get(key);
  if (!known || Buffer.compare(known.page, page) !== 0) {
    known = readFirstPage(page);
    if (!known) return undefined;
    if (firstPages.size >= mostFirstPages) firstPages.clear();
    firstPages.set(key, known);
  }
  const { head, lowest, highest, segments } = known;
  const bias = advance(start, -head);
  return { bias, start: advance(bias, lowest), end: advance(bias, highest), segments };
}

function readFirstPage(page: Uint8Array): FirstPage | undefined {
  if (page[0] !== 0x7f || page[1] !== 0x45 || page[2] !== 0x4c || page[3] !== 0x46) return undefined;
  const segments = parseProgramHeaders(page);
  const loads = segments.filter((segment) => segment.type === segmentType.load);
  const head = loads.find((segment) => pageFloor(segment.offset) === 0);
  if (!head) return undefined;
  return {
    page,
    segments,
    head: pageFloor(head.address),
    lowest: Math.min(...loads.map((segment) => pageFloor(segment.address))),
    highest: Math.max(
      ...loads.map((segment) => pageFloor(segment.address + segment.memorySize + pageSize - 1)),
    ),
  };
}

/** The mapping lies where a PT_LOAD header puts this part of the file. */
function belongs(layout: Layout, mapping: Mapping): boolean {
  if (mapping.start < layout.start || mapping.start >= layout.end) return false;
  const address = distance(layout.bias, mapping.start);
  return layout.segments.some((segment) => {
    if (segment.type !== segmentType.load) return false;
    const base = pageFloor(segment.address);
    const inside = address >= base && address < segment.address + segment.memorySize;
    return inside && address - base === mapping.offset - pageFloor(segment.offset);
  });
}

function findBuildId(
  memory: ProcessMemory,
  layout: Layout,
  own: readonly Mapping[],
  pageStart: RemoteAddress,
  page: Uint8Array,
): string {
  // Some linkers put the build-id into a later PT_NOTE than the first, so all are read.
  for (const segment of layout.segments) {
    if (segment.type !== segmentType.note) continue;
    const start = advance(layout.bias, segment.address);
    const home = own.find((mapping) => mapping.start <= start && start < mapping.end);
    if (!home) continue;
    const length = Math.min(segment.fileSize, longestNotes, distance(start, home.end));
    const inPage = distance(pageStart, start);
    const bytes =
      inPage >= 0 && inPage + length <= page.length
        ? page.subarray(inPage, inPage + length)
        : memory.read(start, length);
    const buildId = buildIdIn(bytes, segment.alignment);
    if (buildId !== '') return buildId;
  }
  return '';
}

function buildIdIn(bytes: Uint8Array, alignment: number): string {
  try {
    return buildIdFromNotes(readNotes(bytes, alignment)) ?? '';
  } catch (thrown) {
    if (isUnusable(thrown)) return '';
    throw thrown;
  }
}

function tooManyCopies(pid: number, path: string): KcareError {
  const text = `Process ${pid} has mapped ${JSON.stringify(path)} more than ${mostCopies} times.`;
  return new KcareError('TARGET_UNSUPPORTED', text, { pid, path });
}

/** Memory that is not what it claims to be makes the object unusable, never the process or the run. */
function isUnusable(thrown: unknown): boolean {
  return (
    thrown instanceof KcareError &&
    ['ELF_MALFORMED', 'ELF_UNSUPPORTED', 'TARGET_MEMORY'].includes(thrown.code)
  );
}

function isCode(mapping: Mapping): boolean {
  return mapping.permissions.charAt(2) === 'x';
}

function pageFloor(value: number): number {
  return value - (value % pageSize);
}
