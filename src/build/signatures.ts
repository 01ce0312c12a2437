// Functions whose parameters or result a fix changes: sound where nothing can call them that the patch does not know.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseSource, tokensOf } from './c-source.js';
import { addressOf } from './correlate.js';
import { useOf } from './instructions.js';
import type { BuildContext } from './prepare-units.js';
import type { Refusals } from './result.js';
import type { ShippedObject } from './shipped-object.js';
import type { EditRequest } from './source-edit.js';
import type { Unit } from './unit.js';

export interface ChangedSignature {
  readonly name: string;
  readonly file: string;
  /** Static: no other file can name it. */
  readonly isLocal: boolean;
  /** The head of its definition in the fixed version. */
  readonly declaration: string;
}

/**
 * The functions of all requests that have another head in the fixed version. Those that other objects may call are
 * left out: they keep their old callers.
 */
export async function changedSignatures(
  { tree, fixedTree, shipped }: BuildContext,
  requests: readonly EditRequest[],
): Promise<ChangedSignature[]> {
  const found: ChangedSignature[] = [];
  for (const { file, functions } of requests) {
    const files = [path.join(tree.tree, file), path.join(fixedTree, file)];
    if (files.some((one) => !existsSync(one))) continue;
    const [before, after] = await Promise.all(
      files.map(async (one) => parseSource(await readFile(one, 'utf8'))),
    );
    if (!before || !after) continue;
    for (const name of functions) {
      const [olds, news] = [before, after].map(({ text, functions: all }) =>
        all.filter((one) => one.name === name).map(({ start, body }) => text.slice(start, body).trim()),
      );
      const [old, declaration] = [olds?.[0], news?.[0]];
      if (old === undefined || declaration === undefined || olds?.length !== 1 || news?.length !== 1)
        continue;
      const [oldTokens, newTokens] = [tokensOf(old), tokensOf(declaration)];
      if (oldTokens.join(' ') === newTokens.join(' ') || shipped.exported.has(name)) continue;
      const isLocal = oldTokens.includes('static');
      // A function that becomes visible to other files, or ceases to be, is another matter.
      if (isLocal === newTokens.includes('static')) found.push({ name, file, isLocal, declaration });
    }
  }
  return found;
}

/**
 * Every use of such a function in the shipped code must be a call, in a unit that was compiled with the new head and
 * compared: there each caller either is replaced or is the same code under both heads. What would call it otherwise
 * goes to `refusals`. `independent` functions may go on running their old code, and must not call it.
 */
export function checkCallers(
  signatures: readonly ChangedSignature[],
  units: readonly Unit[],
  shipped: ShippedObject,
  independent: ReadonlySet<string>,
  refusals: Refusals,
): void {
  for (const { name, file } of signatures) {
    const refuse = (reason: string): void =>
      refusals.add(
        'CHANGED_SIGNATURE',
        `the parameters or the result of ${name} changed, and ${reason}`,
        name,
      );
    if (!shipped.hasKnownAddresses) refuse('what holds its address cannot be told in this object');
    for (const address of addressesOf(name, file, units)) {
      if (shipped.pointsTo(address)) refuse('data of the object hold its address');
      for (const place of shipped.usesOf(address)) {
        const caller = functionAt(place, units);
        if (caller === undefined)
          refuse(`code at 0x${place.toString(16)} uses it, which the fix does not name`);
        else if (useOf(shipped.bytesAt(place - 2, 6), 2) !== 'branch') refuse(`${caller} takes its address`);
        else if (independent.has(caller.replace(/\..*$/, ''))) {
          const message = `${caller} calls ${name}, whose parameters or result changed; it cannot finish in its old code`;
          refusals.add('NOT_INDEPENDENT', message, caller);
        }
      }
    }
  }
}

/** Where the shipped object has the function; several for compiler-made copies, none where it is inlined. */
function addressesOf(name: string, file: string, units: readonly Unit[]): Set<number> {
  const addresses = units
    .filter((unit) => unit.file === file)
    .flatMap(({ placement }) =>
      placement.unit.functions
        .filter(({ base }) => base.replace(/\..*$/, '') === name)
        .map((part) => addressOf(part, placement)),
    );
  return new Set(addresses.filter((address) => address !== undefined));
}

/** The function of a compared unit that covers `address` of the shipped object. */
function functionAt(address: number, units: readonly Unit[]): string | undefined {
  for (const { placement } of units) {
    for (const part of placement.unit.functions) {
      const start = addressOf(part, placement);
      if (start !== undefined && address >= start && address < start + part.size) return part.base;
    }
  }
  return undefined;
}
