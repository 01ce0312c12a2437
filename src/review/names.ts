// What lies at an address: a symbol of the patch or of the shipped object, a slot or stub, a string.
import type { ShippedObject } from '../build/index.js';
import { readSymbols, sectionFlag, type ElfFile } from '../elf/index.js';
import type { PlacedPatch } from './placed-patch.js';

interface Named {
  readonly name: string;
  readonly address: number;
  readonly size: number;
}

const longestString = 48;

/** Names addresses of the object and of the patch behind it. Names of the patch come first: both views use them. */
export class Names {
  private readonly exact = new Map<number, Named>();
  private readonly sorted: readonly Named[];

  /** `tables` are further files with symbol tables of the same object. */
  constructor(
    private readonly placed: PlacedPatch,
    private readonly shipped: ShippedObject | undefined,
    tables: readonly ElfFile[] = [],
  ) {
    for (const named of [
      ...this.ofPatch(),
      ...ofObject(shipped),
      ...tables.flatMap((table) => [...ofTable(table)]),
    ]) {
      if (!this.exact.has(named.address)) this.exact.set(named.address, named);
    }
    this.sorted = [...this.exact.values()].sort((left, right) => left.address - right.address);
  }

  /** How instructions call the place at `address`; only where they take the address itself, it may be a string. */
  at(address: number, isAddress = true): string {
    const text = isAddress ? this.stringAt(address) : undefined;
    if (text !== undefined) return text;
    const exact = this.exact.get(address);
    if (exact) return exact.name;
    const around = this.around(address);
    if (around) return `${around.name}+0x${(address - around.address).toString(16)}`;
    return this.constantAt(address) ?? `0x${address.toString(16)}`;
  }

  private around(address: number): Named | undefined {
    let [low, high] = [0, this.sorted.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.sorted[middle]?.address ?? Infinity) <= address) low = middle + 1;
      else high = middle;
    }
    const found = this.sorted[low - 1];
    return found && address < found.address + found.size ? found : undefined;
  }

  /** A C string among constants, as it is written in C. */
  private stringAt(address: number): string | undefined {
    const bytes = this.constantBytes(address, longestString + 1);
    if (!bytes) return undefined;
    const end = bytes.indexOf(0);
    const shown = bytes.subarray(0, end < 0 ? longestString : end);
    if (shown.some((byte) => !isText(byte))) return undefined;
    return `${JSON.stringify(Buffer.from(shown).toString('latin1'))}${end < 0 ? '…' : ''}`;
  }

  /** A constant without a name: compilers put equal ones anywhere, so their first bytes are what counts. */
  private constantAt(address: number): string | undefined {
    const bytes = this.constantBytes(address, 8);
    return bytes && `{${Buffer.from(bytes).toString('hex')}}`;
  }

  private constantBytes(address: number, size: number): Uint8Array | undefined {
    const own = this.placed.sections.get('.rodata');
    if (own && address >= own.address && address < own.address + own.bytes.length)
      return own.bytes.subarray(address - own.address, address - own.address + size);
    const section = this.shipped?.elf.sections.find(
      ({ flags, address: start, bytes }) =>
        (flags & sectionFlag.alloc) !== 0 &&
        (flags & (sectionFlag.write | sectionFlag.execute)) === 0 &&
        address >= start &&
        address < start + bytes.length,
    );
    return section?.bytes.subarray(address - section.address, address - section.address + size);
  }

  private *ofPatch(): Generator<Named> {
    for (const symbol of this.placed.patch.symbols) {
      // Numbered anew in every patch: their contents tell more.
      if (symbol.name.startsWith('.Lconstant')) continue;
      const size = symbol.where === 'foreign' ? 0 : symbol.size;
      yield { name: symbol.name, address: this.placed.addressOf(symbol), size };
    }
  }
}

const isText = (byte: number): boolean => (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x09;

function* ofObject(shipped: ShippedObject | undefined): Generator<Named> {
  if (!shipped) return;
  for (const [address, slot] of shipped.stubsByAddress) {
    const name = 'resolver' in slot ? `indirect-0x${slot.resolver.toString(16)}` : slot.symbol.name;
    yield { name: `${name}.plt`, address, size: 0 };
  }
  for (const { symbol, address } of shipped.slotsByName.values())
    yield { name: `${symbol.name}.got`, address, size: 8 };
  yield* ofTable(shipped.elf);
}

/** Functions and data of the symbol tables of a file. */
export function* ofTable(elf: ElfFile): Generator<Named> {
  for (const table of ['.symtab', '.dynsym'] as const) {
    for (const { name, value, size, type, sectionIndex } of readSymbols(elf, table)) {
      if (sectionIndex === 0 || name === '' || !['function', 'object', 'ifunc'].includes(type)) continue;
      yield { name, address: value, size };
    }
  }
}
