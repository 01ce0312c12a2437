// Finds functions and data that a fix needs and its unit's old code never mentioned, in the objects of the same build.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { CodeObject } from '../build/code-object.js';
import { correlate } from '../build/correlate.js';
import { unknownNames } from '../build/find-definitions.js';
import type { Refusals } from '../build/result.js';
import type { ShippedObject } from '../build/shipped-object.js';
import type { FoundSymbol } from '../build/symbol-resolver.js';
import type { Unit } from '../build/unit.js';
import { parseElf, readSymbols, sectionIndex, type ElfSymbol } from '../elf/index.js';
import type { LinkMap } from './link-map.js';
import { hintsOf, inputsOf } from './members.js';
import { sourceOf, type RecordedCompile, type RecordedLink } from './records.js';

export interface BuildContext {
  readonly compiles: readonly RecordedCompile[];
  readonly links: readonly RecordedLink[];
  readonly nameOf: (file: string) => string;
}

export class DefinitionFinder {
  private readonly objects = new Map<string, Buffer>();

  constructor(
    private readonly link: RecordedLink,
    private readonly map: LinkMap,
    private readonly shipped: ShippedObject,
    private readonly context: BuildContext,
  ) {}

  /**
   * Addresses of what the new code needs and no operand or table of the deliverable gives. What the project defines
   * somewhere else only goes to `refusals`; what it does not define at all is left to run time.
   */
  async find(units: readonly Unit[], refusals: Refusals): Promise<Map<string, FoundSymbol>> {
    const found = new Map<string, FoundSymbol>();
    for (const [name, user] of unknownNames(units, this.shipped)) {
      const outcome = await this.findOne(name);
      if (typeof outcome === 'object') {
        found.set(name, outcome);
      } else if (outcome === 'elsewhere' && !(await this.isExported(name))) {
        const message = `${user} needs ${name}, which the project defines but this deliverable does not hold`;
        refusals.add('UNRESOLVED_SYMBOL', message, user);
      }
    }
    return found;
  }

  private async findOne(name: string): Promise<FoundSymbol | 'elsewhere' | undefined> {
    let isDefined = false;
    for (const compile of this.context.compiles) {
      const bytes = await this.objectOf(compile);
      if (!bytes?.includes(`\0${name}\0`)) continue;
      const unit = new CodeObject(bytes);
      const symbol = unit.symbols.find((candidate) => candidate.name === name && isDefinition(candidate));
      if (!symbol) continue;
      isDefined = true;
      const address = this.addressIn(compile, unit, symbol);
      if (address === undefined) continue;
      return { address, size: symbol.size, file: this.context.nameOf(sourceOf(compile)) };
    }
    return isDefined ? 'elsewhere' : undefined;
  }

  private addressIn(compile: RecordedCompile, unit: CodeObject, symbol: ElfSymbol): number | undefined {
    const { link, map, shipped } = this;
    const objects = new Set(this.context.compiles.flatMap(({ object }) => object ?? []));
    const { named, unexplained } = inputsOf({ compile, link, map, objects });
    for (const input of [...named, ...unexplained]) {
      const hints = hintsOf(unit, map.inputs.get(input) ?? []);
      const correlation = hints && correlate(unit, shipped, hints);
      if (!correlation || 'problem' in correlation) continue;
      const section = correlation.placement.sections.get(symbol.sectionIndex);
      if (section !== undefined) return section + symbol.value;
    }
    return undefined;
  }

  private async objectOf({ object }: RecordedCompile): Promise<Buffer | undefined> {
    if (object === undefined || !existsSync(object)) return undefined;
    let bytes = this.objects.get(object);
    if (!bytes) this.objects.set(object, (bytes = await readFile(object)));
    return bytes;
  }

  /** Whether another deliverable of the project offers the symbol to others. */
  private async isExported(name: string): Promise<boolean> {
    for (const { linked } of this.context.links) {
      if (linked === this.link.linked || !existsSync(linked)) continue;
      const bytes = await readFile(linked);
      if (!bytes.includes(`\0${name}\0`)) continue;
      if (
        readSymbols(parseElf(bytes), '.dynsym').some((symbol) => symbol.name === name && isDefinition(symbol))
      )
        return true;
    }
    return false;
  }
}

function isDefinition({ sectionIndex: section, binding, type }: ElfSymbol): boolean {
  return (
    section !== sectionIndex.undefined &&
    section !== sectionIndex.common &&
    binding !== 'local' &&
    (type === 'function' || type === 'object' || type === 'none')
  );
}
