// What a patch is: its hunks with how each was found, and old and new code side by side.
import type { Hunk, Patch, PatchSymbol, SymbolProof, UnitProof } from '../patchfile/index.js';
import { alignCode, listCode, type Code, type CodeLine } from './align.js';
import { disassemble, type CodeRange } from './disassemble.js';
import type { FoundObject } from './find-object.js';
import { Names } from './names.js';
import { placePatch, type PlacedPatch } from './placed-patch.js';

export interface ExplainedFunction {
  /** `new`: only the patch has it. */
  readonly kind: Hunk['kind'] | 'new';
  readonly name: string;
  /** Of the old function: virtual address in the object, and bytes. */
  readonly address?: number;
  readonly oldSize?: number;
  /** Bytes of the new function; absent for guards without one. */
  readonly newSize?: number;
  readonly independent: boolean;
  readonly proof: readonly SymbolProof[];
  readonly lines: readonly CodeLine[];
}

export interface ExplainedSymbol {
  readonly name: string;
  /** `run time`: looked up in the process. */
  readonly where: 'object' | 'run time';
  readonly address?: number;
  readonly proof: readonly SymbolProof[];
}

export interface Explanation {
  readonly patch: Patch;
  /** Where the old code was taken from. */
  readonly source: 'given' | 'archive' | 'patch';
  readonly functions: readonly ExplainedFunction[];
  /** What the code of the patch refers to outside of it, apart from the functions above. */
  readonly symbols: readonly ExplainedSymbol[];
  readonly units: readonly UnitProof[];
}

type FunctionOfPatch = PatchSymbol & { readonly where: 'patch' };

/** `found` is the object of this very build, where it is at hand. Throws BUILD_TOOL_FAILED. */
export async function explainPatch(patch: Patch, found?: FoundObject): Promise<Explanation> {
  const placed = placePatch(patch);
  const names = new Names(placed, found?.shipped, found?.debug);
  const functions = functionsOf(patch);
  const ranges = functions.flatMap(({ hunk, code }) => [
    ...(hunk ? [oldCode(hunk, found)] : []),
    ...(code ? [newCode(placed, code)] : []),
  ]);
  const listings = await disassemble(ranges);
  const codes = new Map(
    ranges.map((range, index) => [
      range.address,
      { address: range.address, size: range.bytes.length, instructions: listings[index] ?? [] },
    ]),
  );
  const at = (address: number | undefined): Code | undefined =>
    address === undefined ? undefined : codes.get(address);
  return {
    patch,
    source: found?.source ?? 'patch',
    functions: functions.map(({ hunk, code }) =>
      explainFunction(patch, hunk, at(hunk?.address), at(code && placed.addressOf(code)), code, names),
    ),
    symbols: symbolsOf(patch),
    units: patch.metadata.units,
  };
}

/** Each hunk with the code that takes its place, and then what only the patch has. */
function functionsOf(patch: Patch): { hunk?: Hunk; code?: FunctionOfPatch }[] {
  const inPatch = patch.symbols.filter(
    (symbol): symbol is FunctionOfPatch =>
      symbol.where === 'patch' && symbol.isFunction && symbol.section === '.text' && symbol.size > 0,
  );
  const byName = new Map(inPatch.map((symbol) => [symbol.name, symbol]));
  const old = patch.hunks.map((hunk) => {
    const code = byName.get(hunk.replacement ?? hunk.name);
    return code ? { hunk, code } : { hunk };
  });
  const shown = new Set(old.flatMap(({ code }) => code ?? []));
  const added = inPatch.filter((symbol) => !shown.has(symbol) && !symbol.name.endsWith('.stub'));
  return [...old, ...added.map((code) => ({ code }))];
}

function oldCode({ address, size, original }: Hunk, found: FoundObject | undefined): CodeRange {
  const isThere = found?.shipped.isMapped(address, size) === true;
  return { address, bytes: isThere ? found.shipped.bytesAt(address, size) : original };
}

function newCode(placed: PlacedPatch, symbol: FunctionOfPatch): CodeRange {
  const text = placed.sections.get('.text');
  const bytes = text?.bytes.subarray(symbol.value, symbol.value + symbol.size) ?? new Uint8Array(0);
  return { address: placed.addressOf(symbol), bytes };
}

function explainFunction(
  { metadata }: Patch,
  hunk: Hunk | undefined,
  before: Code | undefined,
  after: Code | undefined,
  code: FunctionOfPatch | undefined,
  names: Names,
): ExplainedFunction {
  const name = hunk?.name ?? code?.name ?? '';
  const lines =
    before && after
      ? alignCode(before, after, names)
      : before
        ? listCode(before, ' ', names)
        : after
          ? listCode(after, '+', names)
          : [];
  return {
    kind: hunk?.kind ?? 'new',
    name,
    ...(hunk && { address: hunk.address, oldSize: hunk.size }),
    ...(code && { newSize: code.size }),
    independent: hunk?.independent === true,
    proof: hunk
      ? metadata.proof.filter(
          ({ symbol, address }) => symbol === name && (address ?? hunk.address) === hunk.address,
        )
      : [],
    lines,
  };
}

/** Without the suffix that tells the symbol's stub or slot from the symbol. */
export function plainName(name: string): string {
  return name.replace(/\.(?:plt|got|pair|threadOffset|descriptor)$/, '');
}

function symbolsOf({ symbols, hunks, metadata }: Patch): ExplainedSymbol[] {
  const replaced = new Set(hunks.map(({ address }) => address));
  return symbols.flatMap((symbol): ExplainedSymbol[] => {
    if (symbol.where === 'foreign') {
      const name = symbol.version === '' ? symbol.name : `${symbol.name}@${symbol.version}`;
      return [{ name, where: 'run time', proof: [] }];
    }
    if (symbol.where === 'patch' || replaced.has(symbol.value)) return [];
    const { name, value: address } = symbol;
    const proof = metadata.proof.filter(
      (entry) => entry.symbol === plainName(name) && (entry.address ?? address) === address,
    );
    return [{ name, where: 'object', address, proof }];
  });
}
