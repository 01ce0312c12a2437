// Decides where symbols of other units and other objects live, preferring what the shipped object itself uses.
import type { SymbolProof } from '../patchfile/index.js';
import type { PatchImage, Place } from './patch-image.js';
import type { ShippedObject } from './shipped-object.js';
import type { Unit } from './unit.js';

export type Destination =
  /** In the patch or in the object: reachable by a 32-bit distance. */
  | { readonly kind: 'near'; readonly place: Place }
  /** Reached through a slot that the shipped object has. */
  | { readonly kind: 'slot'; readonly slot: Place }
  /** In another object, without a slot so far. */
  | { readonly kind: 'foreign'; readonly place: Place };

/** A symbol that was found by correlating the unit that defines it. */
export interface FoundSymbol {
  readonly address: number;
  readonly size: number;
  readonly file: string;
}

const hexadecimal = (address: number): string => `0x${address.toString(16)}`;

export class SymbolResolver {
  private readonly proofs = new Map<string, SymbolProof>();

  constructor(
    private readonly shipped: ShippedObject,
    private readonly image: PatchImage,
    /** Symbols that no operand of the unit and no table names, found in their own units. */
    private readonly found: ReadonlyMap<string, FoundSymbol>,
  ) {}

  /** Whether `name` can be resolved without looking for its definition. */
  static isKnown(unit: Unit, shipped: ShippedObject, name: string): boolean {
    const use = unit.placement.externals.get(name);
    const isUsed = use !== undefined && Object.values(use).some((value) => value !== undefined);
    return (
      isUsed ||
      shipped.defined.has(name) ||
      shipped.stubsByName.has(name) ||
      shipped.slotsByName.has(name) ||
      shipped.threadSlots.has(name)
    );
  }

  external(unit: Unit, name: string, isBranch: boolean, user: string): Destination {
    const use = unit.placement.externals.get(name) ?? {};
    const threadSlot = use.threadSlot ?? this.shipped.threadSlots.get(name)?.address;
    if (threadSlot !== undefined)
      return this.slotPlace(name, threadSlot, `thread-local slot, used by ${user}`);
    const stub =
      use.stub ?? (use.address === undefined ? this.shipped.stubsByName.get(name)?.address : undefined);
    const slot = use.slot ?? this.shipped.slotsByName.get(name)?.address;
    if (isBranch && stub !== undefined) return { kind: 'near', place: this.stubPlace(name, stub) };
    if (use.address !== undefined) {
      this.prove(name, 'operand', `${hexadecimal(use.address)}, from ${unit.file}`);
      return { kind: 'near', place: this.objectPlace(name, use.address) };
    }
    if (!isBranch && slot !== undefined) return this.slotPlace(name, slot, 'slot of the object');
    const defined = this.defined(name);
    if (defined) return { kind: 'near', place: defined };
    const found = this.found.get(name);
    if (found) {
      this.prove(name, 'object-bytes', `part of ${found.file} at ${hexadecimal(found.address)}`);
      return { kind: 'near', place: this.image.objectSymbol(name, found.address, found.size, true) };
    }
    if (slot !== undefined) {
      const version = this.shipped.slotsByName.get(name)?.symbol.version ?? '';
      return this.foreign(name, version);
    }
    return this.foreign(name, '');
  }

  private foreign(name: string, version: string): Destination {
    return {
      kind: 'foreign',
      place: { symbol: this.image.addSymbol({ name, where: 'foreign', version }), offset: 0 },
    };
  }

  /** The object's own PLT stub for a function, so that interposition stays what it is. */
  stub(name: string): Place | undefined {
    const stub = this.shipped.stubsByName.get(name);
    return stub && this.stubPlace(name, stub.address);
  }

  /** A symbol of the object's symbol tables. */
  defined(name: string): Place | undefined {
    const symbol = this.shipped.defined.get(name);
    if (!symbol || symbol.type === 'ifunc') return undefined;
    this.prove(name, 'symbol-table', hexadecimal(symbol.value));
    return this.image.objectSymbol(name, symbol.value, symbol.size, symbol.type === 'function');
  }

  private objectPlace(name: string, address: number): Place {
    const symbol = this.shipped.defined.get(name);
    const isFunction = symbol ? symbol.type === 'function' : this.shipped.isText(address, 1);
    return this.image.objectSymbol(name, address, symbol?.size ?? 0, isFunction);
  }

  private stubPlace(name: string, address: number): Place {
    this.prove(name, 'plt', `stub at ${hexadecimal(address)}`);
    return this.image.objectSymbol(`${name}.plt`, address, 0, true);
  }

  private slotPlace(name: string, address: number, detail: string): Destination {
    this.prove(name, 'got', `${hexadecimal(address)}: ${detail}`);
    return { kind: 'slot', slot: this.image.objectSymbol(`${name}.got`, address, 8, false) };
  }

  prove(symbol: string, how: SymbolProof['how'], detail: string): void {
    const key = `${symbol} ${how} ${detail}`;
    this.proofs.set(key, { symbol, how, detail });
  }

  get allProofs(): SymbolProof[] {
    return [...this.proofs.values()];
  }
}
