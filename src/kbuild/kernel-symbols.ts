// The shipped kernel or one of its modules: its bytes by address, and its symbols as the running kernel counts them.
import { readFile } from 'node:fs/promises';
import { KcareError } from '../base/errors.js';
import { buildIdFromNotes, readNotes, segmentType } from '../elf/index.js';
import { readKallsyms, type KallsymsEntry } from './kallsyms.js';

interface Segment {
  readonly address: bigint;
  readonly offset: number;
  readonly size: number;
}

export class ShippedKernel {
  readonly #byName = new Map<string, KallsymsEntry[]>();
  readonly #byAddress = new Map<bigint, KallsymsEntry[]>();

  private constructor(
    private readonly bytes: Buffer,
    private readonly segments: readonly Segment[],
    readonly buildId: string,
  ) {
    for (const entry of readKallsyms(bytes)) {
      push(this.#byName, entry.name, entry);
      push(this.#byAddress, entry.address, entry);
    }
  }

  /** `file` is vmlinux, without symbols of its own. Throws ELF_MALFORMED. */
  static async open(file: string): Promise<ShippedKernel> {
    const bytes = await readFile(file);
    const headers = programHeaders(bytes);
    const loads = headers.filter(({ type }) => type === segmentType.load);
    const notes = headers.find(({ type }) => type === segmentType.note);
    const buildId =
      notes && buildIdFromNotes(readNotes(bytes.subarray(notes.offset, notes.offset + notes.size)));
    if (buildId === undefined) throw new KcareError('ELF_MALFORMED', `${file} has no build-id.`);
    return new ShippedKernel(bytes, loads, buildId);
  }

  /** Those of this name, in the order in which the kernel counts them. */
  named(name: string): readonly KallsymsEntry[] {
    return this.#byName.get(name) ?? [];
  }

  at(address: bigint): readonly KallsymsEntry[] {
    return this.#byAddress.get(address) ?? [];
  }

  /** 0: the only one of its name; else counted from 1. */
  positionOf(entry: KallsymsEntry): number {
    const all = this.named(entry.name);
    return all.length === 1 ? 0 : all.indexOf(entry) + 1;
  }

  /** Undefined where the file has no such bytes. */
  bytesAt(address: bigint, size: number): Buffer | undefined {
    const segment = this.segments.find(
      (one) => address >= one.address && address + BigInt(size) <= one.address + BigInt(one.size),
    );
    if (!segment) return undefined;
    const start = segment.offset + Number(address - segment.address);
    return this.bytes.subarray(start, start + size);
  }
}

function push<Key, Value>(map: Map<Key, Value[]>, key: Key, value: Value): void {
  const known = map.get(key);
  if (known) known.push(value);
  else map.set(key, [value]);
}

/** Addresses of kernels are beyond what the ELF layer reads. */
function programHeaders(bytes: Buffer): (Segment & { readonly type: number })[] {
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2)
    throw new KcareError('ELF_MALFORMED', 'vmlinux is no 64-bit ELF file.');
  const table = Number(bytes.readBigUInt64LE(32));
  const [entrySize, count] = [bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  if (entrySize !== 56 || table + entrySize * count > bytes.length)
    throw new KcareError('ELF_MALFORMED', 'vmlinux has no program headers that can be read.');
  return Array.from({ length: count }, (_, index) => {
    const at = table + index * entrySize;
    return {
      type: bytes.readUInt32LE(at),
      offset: Number(bytes.readBigUInt64LE(at + 8)),
      address: bytes.readBigUInt64LE(at + 16),
      size: Number(bytes.readBigUInt64LE(at + 32)),
    };
  });
}
