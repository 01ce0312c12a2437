// Finds symbols that a fix needs and that the unit's own code never mentioned: through the units that define them.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseSource } from './c-source.js';
import { CodeObject } from './code-object.js';
import { compileUnit, readUnitSource, sourceOf } from './compile.js';
import type { CompileCommand } from './configure.js';
import { addressOf, correlate } from './correlate.js';
import type { BuildContext } from './prepare-units.js';
import type { ShippedObject } from './shipped-object.js';
import { SymbolResolver, type FoundSymbol } from './symbol-resolver.js';
import type { Unit } from './unit.js';

/** Names that included functions refer to and that no operand and no table of the object gives, each with a user. */
export function unknownNames(units: readonly Unit[], shipped: ShippedObject): Map<string, string> {
  const unknown = new Map<string, string>();
  for (const unit of units) {
    const { changed, added } = unit.comparison;
    for (const part of [...changed.map(({ patched }) => patched), ...added]) {
      for (const relocation of part.relocations) {
        const { reference } = unit.patched.resolve(relocation);
        if (reference.kind !== 'external' || reference.name === '') continue;
        if (!SymbolResolver.isKnown(unit, shipped, reference.name)) unknown.set(reference.name, part.name);
      }
    }
  }
  return unknown;
}

/** Addresses of such symbols. A name that no source of the tree defines is left out: it belongs to another object. */
export async function findDefinitions(
  units: readonly Unit[],
  context: BuildContext,
): Promise<Map<string, FoundSymbol>> {
  const found = new Map<string, FoundSymbol>();
  const unknown = unknownNames(units, context.shipped);
  if (unknown.size === 0) return found;
  const sources = await readSources(context);
  for (const [name, user] of unknown) {
    const word = new RegExp(`^[^\\s#/*].*\\b${name}\\s*\\(|^${name}\\s*\\(`, 'm');
    const candidates = sources.filter(({ text }) => word.test(text));
    let isDefined = false;
    for (const { command, text } of candidates) {
      const { functions } = await parseSource(text);
      if (!functions.some((candidate) => candidate.name === name)) continue;
      isDefined = true;
      const symbol = await findInUnit(context, command, name);
      if (!symbol) continue;
      found.set(name, symbol);
      break;
    }
    if (isDefined && !found.has(name)) {
      const message = `${user} needs ${name}, whose code is not found in the shipped object`;
      context.refusals.add('UNRESOLVED_SYMBOL', message, user);
    }
  }
  return found;
}

async function readSources({ tree }: BuildContext): Promise<{ command: CompileCommand; text: string }[]> {
  const bySource = new Map<string, CompileCommand[]>();
  for (const command of tree.commands) {
    const source = sourceOf(tree, command);
    bySource.set(source, [...(bySource.get(source) ?? []), command]);
  }
  const texts = await Promise.all(
    [...bySource].map(async ([source, commands]) => {
      // Sources that the build itself generates may not be there yet.
      const text = await readFile(source, 'utf8').catch(() => '');
      return commands.map((command) => ({ command, text }));
    }),
  );
  return texts.flat();
}

async function findInUnit(
  { work, tree, shipped }: BuildContext,
  command: CompileCommand,
  name: string,
): Promise<FoundSymbol | undefined> {
  const { object } = await compileUnit(work, tree, command, await readUnitSource(tree, command));
  const unit = new CodeObject(object);
  const definition = unit.functions.find((part) => part.name === name && part.symbol.binding !== 'local');
  const correlation = definition && correlate(unit, shipped);
  if (!definition || !correlation || 'problem' in correlation) return undefined;
  const address = addressOf(definition, correlation.placement);
  if (address === undefined) return undefined;
  const file = path.relative(tree.tree, sourceOf(tree, command));
  return { address, size: definition.size, file };
}
