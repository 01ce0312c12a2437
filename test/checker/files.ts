// Files made in code: ELF files with notes where other linkers put them, and headers of rpm packages.

type Note = 'gnu' | 'go' | 'other' | 'damaged';

function note(kind: Note, buildId: string): Buffer {
  const [name, type, description] = {
    gnu: ['GNU\0', 3, Buffer.from(buildId, 'hex')] as const,
    go: ['Go\0\0', 4, Buffer.from('abc/def/xyz.')] as const,
    other: ['GNU\0', 1, Buffer.alloc(16)] as const,
    damaged: ['GNU\0', 3, Buffer.alloc(4)] as const,
  }[kind];
  const head = Buffer.alloc(12);
  head.writeUInt32LE(name.length, 0);
  // Says that it is larger than the segment.
  head.writeUInt32LE(kind === 'damaged' ? 4096 : description.length, 4);
  head.writeUInt32LE(type, 8);
  return Buffer.concat([head, Buffer.from(name, 'latin1'), description]);
}

/** An ELF file of nothing but PT_NOTE segments, each with these notes. */
export function elfWithNotes(bits: 32 | 64, segments: readonly (readonly Note[])[], buildId: string): Buffer {
  const is64 = bits === 64;
  const [headerSize, entrySize] = is64 ? [64, 56] : [52, 32];
  const header = Buffer.alloc(headerSize);
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, 1, 1]).copy(header);
  header.writeUInt16LE(3, 16);
  header.writeUInt16LE(is64 ? 62 : 3, 18);
  if (is64) header.writeBigUInt64LE(BigInt(headerSize), 32);
  else header.writeUInt32LE(headerSize, 28);
  header.writeUInt16LE(entrySize, is64 ? 54 : 42);
  header.writeUInt16LE(segments.length, is64 ? 56 : 44);
  const bodies = segments.map((notes) => Buffer.concat(notes.map((kind) => note(kind, buildId))));
  let offset = headerSize + entrySize * segments.length;
  const entries = bodies.map((body) => {
    const entry = Buffer.alloc(entrySize);
    entry.writeUInt32LE(4, 0);
    if (is64) {
      entry.writeBigUInt64LE(BigInt(offset), 8);
      entry.writeBigUInt64LE(BigInt(body.length), 32);
      entry.writeBigUInt64LE(4n, 48);
    } else {
      entry.writeUInt32LE(offset, 4);
      entry.writeUInt32LE(body.length, 16);
      entry.writeUInt32LE(4, 28);
    }
    offset += body.length;
    return entry;
  });
  return Buffer.concat([header, ...entries, ...bodies]);
}

interface RpmFacts {
  readonly name: string;
  readonly version: string;
  readonly release: string;
  readonly epoch?: number;
  readonly files: readonly string[];
}

/** A header as rpm keeps it in its database: counts, index, data. */
export function rpmHeader({ name, version, release, epoch, files }: RpmFacts): Buffer {
  const index: Buffer[] = [];
  const data: Buffer[] = [];
  let size = 0;
  const add = (tag: number, type: number, count: number, value: Buffer): void => {
    const padding = Buffer.alloc(type === 4 ? (4 - (size % 4)) % 4 : 0);
    const entry = Buffer.alloc(16);
    [tag, type, size + padding.length, count].forEach((field, at) => entry.writeUInt32BE(field, at * 4));
    index.push(entry);
    data.push(padding, value);
    size += padding.length + value.length;
  };
  const text = (tag: number, type: number, values: readonly string[]): void =>
    add(tag, type, values.length, Buffer.from(values.map((value) => `${value}\0`).join(''), 'latin1'));
  const numbers = (tag: number, values: readonly number[]): void => {
    const bytes = Buffer.alloc(4 * values.length);
    values.forEach((value, at) => bytes.writeUInt32BE(value, at * 4));
    add(tag, 4, values.length, bytes);
  };
  text(1000, 6, [name]);
  text(1001, 6, [version]);
  text(1002, 6, [release]);
  if (epoch !== undefined) numbers(1003, [epoch]);
  const split = files.map((file) => [
    file.slice(0, file.lastIndexOf('/') + 1),
    file.slice(file.lastIndexOf('/') + 1),
  ]);
  const directories = [...new Set(split.map(([directory = '']) => directory))];
  numbers(
    1116,
    split.map(([directory = '']) => directories.indexOf(directory)),
  );
  text(
    1117,
    8,
    split.map(([, base = '']) => base),
  );
  text(1118, 8, directories);
  const counts = Buffer.alloc(8);
  counts.writeUInt32BE(index.length, 0);
  counts.writeUInt32BE(size, 4);
  return Buffer.concat([counts, ...index, ...data]);
}
