// Decides where symbols of other units and other objects live, preferring what the shipped object itself uses.
import type { OperandProof, SymbolProof } from '../patchfile/index.js';
import type { Use } from './instructions.js';
import type { PatchImage, Place } from './patch-image.js';
import type { ShippedObject } from './shipped-object.js';
import { operandProof } from './unit-proof.js';
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

export const near = (place: Place): Destination => ({ kind: 'near', place });

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
      shipped.threadLocal.has(name) ||
      [...shipped.threadSlots.values()].some(({ symbol }) => symbol?.name === name)
    );
  }

  /** A symbol that another unit or object defines. */
  external(unit: Unit, name: string, use: Use): Destination {
    const shipped = unit.placement.externals.get(name) ?? {};
    const stub =
      shipped.stub ??
      (shipped.address === undefined ? this.shipped.stubsByName.get(name)?.address : undefined);
    if (use === 'branch' && stub !== undefined) return near(this.stubPlace(name, stub));
    if (shipped.address !== undefined) {
      const at = unit.placement.operands.externals.get(name);
      this.prove(
        name,
        'operand',
        `${hexadecimal(shipped.address)}, from ${unit.file}`,
        shipped.address,
        at === undefined ? undefined : operandProof(this.shipped, at, shipped.address),
      );
      return near(this.objectPlace(name, shipped.address));
    }
    if (shipped.slot !== undefined && !this.shipped.slotsByName.has(name))
      return this.throughSlot(name, shipped.slot, use);
    const interposable = this.interposable(name, use);
    if (interposable) return interposable;
    const defined = this.defined(name, use);
    if (defined) return defined;
    const found = this.found.get(name);
    if (found) {
      this.prove(
        name,
        'object-bytes',
        `part of ${found.file} at ${hexadecimal(found.address)}`,
        found.address,
      );
      return near(this.image.objectSymbol(name, found.address, found.size, true));
    }
    return this.foreign(name, '');
  }

  /**
   * A symbol for which the process may have chosen another definition than the object's: by a stub or slot of the
   * object, which the loader bound, or by a search as the loader makes it. Undefined where the object's own is meant.
   */
  interposable(name: string, use: Use): Destination | undefined {
    const stub = this.shipped.stubsByName.get(name);
    if (use === 'branch' && stub) return near(this.stubPlace(name, stub.address));
    const slot = this.shipped.slotsByName.get(name);
    if (slot) {
      // A slot that is bound at the first call holds no address of a function before.
      const isLater = slot.kind === 'function' && !this.shipped.binding.isEager;
      return isLater && use === 'value'
        ? this.foreign(name, slot.symbol.version)
        : this.throughSlot(name, slot.address, use);
    }
    const { isProgram, isSymbolic } = this.shipped.binding;
    const exported = isProgram || isSymbolic ? undefined : this.shipped.exported.get(name);
    return exported && this.foreign(name, exported.version);
  }

  private throughSlot(name: string, address: number, use: Use): Destination {
    this.prove(name, 'got', `slot of the object at ${hexadecimal(address)}`, address);
    const slot = this.image.objectSymbol(`${name}.got`, address, 8, false);
    return use === 'branch' ? near(this.image.stubThrough(slot, name)) : { kind: 'slot', slot };
  }

  private foreign(name: string, version: string): Destination {
    return {
      kind: 'foreign',
      place: { symbol: this.image.addSymbol({ name, where: 'foreign', version }), offset: 0 },
    };
  }

  /** A symbol of the object's symbol tables. */
  defined(name: string, use: Use): Destination | undefined {
    const symbol = this.shipped.defined.get(name);
    if (!symbol) return undefined;
    if (symbol.type === 'ifunc') return this.indirect(name, symbol.value, use);
    this.prove(name, 'symbol-table', hexadecimal(symbol.value), symbol.value);
    return near(this.image.objectSymbol(name, symbol.value, symbol.size, symbol.type === 'function'));
  }

  /** An indirect function (IFUNC) of the object: through the stub or slot for which the loader asked its resolver. */
  indirect(name: string, resolver: number, use: Use): Destination | undefined {
    const stub = this.shipped.stubsByResolver.get(resolver);
    if (use !== 'slot branch' && stub !== undefined) return near(this.stubPlace(name, stub));
    const slot = this.shipped.slotsByResolver.get(resolver);
    return slot === undefined ? undefined : this.throughSlot(name, slot, use);
  }

  private objectPlace(name: string, address: number): Place {
    const symbol = this.shipped.defined.get(name);
    const isFunction = symbol ? symbol.type === 'function' : this.shipped.isText(address, 1);
    return this.image.objectSymbol(name, address, symbol?.size ?? 0, isFunction);
  }

  private stubPlace(name: string, address: number): Place {
    this.prove(name, 'plt', `stub at ${hexadecimal(address)}`, address);
    return this.image.objectSymbol(`${name}.plt`, address, 0, true);
  }

  /** Notes how `symbol` was found: at `address` of the object, given away by `operand` where that was needed. */
  prove(
    symbol: string,
    how: SymbolProof['how'],
    detail: string,
    address?: number,
    operand?: OperandProof,
  ): void {
    const key = `${symbol} ${how} ${detail}`;
    const place = { ...(address !== undefined && { address }), ...(operand && { operand }) };
    this.proofs.set(key, { symbol, how, detail, ...place });
  }

  get allProofs(): SymbolProof[] {
    return [...this.proofs.values()];
  }
}
