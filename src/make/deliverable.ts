// One linked program or library: which changed units it holds, and its patch or all reasons why there is none.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { assemblePatch, type PatchFacts } from '../build/assemble.js';
import { compareUnit } from '../build/compare-unit.js';
import { correlate, type SectionHints } from '../build/correlate.js';
import { Refusals, type Refusal } from '../build/result.js';
import { ShippedObject } from '../build/shipped-object.js';
import type { Unit } from '../build/unit.js';
import type { Patch } from '../patchfile/index.js';
import { isAssembler } from './compiler-arguments.js';
import { DefinitionFinder } from './definitions.js';
import { parseLinkMap, type LinkMap } from './link-map.js';
import { hintsOf, inputsOf } from './members.js';
import type { RecordedCompile, RecordedLink } from './records.js';
import type { CompiledUnit } from './recompile.js';

/** A unit whose code the patches change, in its three compiles. */
export interface ChangedUnit {
  readonly compile: RecordedCompile;
  /** Its source as messages name it. */
  readonly file: string;
  /** As in the project's own build. */
  readonly stock: CompiledUnit;
  /** With a section for each function and datum. */
  readonly original: CompiledUnit;
  readonly patched: CompiledUnit;
  /** Functions whose parameters or result the patches change. */
  readonly signatures: ReadonlySet<string>;
}

export interface DeliverableResult {
  /** Whole path of what was linked. */
  readonly output: string;
  readonly buildId: string;
  readonly outcome: 'built' | 'refused';
  readonly refusals: readonly Refusal[];
  readonly patch: Patch | undefined;
  /** The units that it holds. */
  readonly units: readonly ChangedUnit[];
}

export interface DeliverableContext {
  readonly units: readonly ChangedUnit[];
  readonly compiles: readonly RecordedCompile[];
  readonly links: readonly RecordedLink[];
  /** Whole paths as messages name them. */
  readonly nameOf: (file: string) => string;
  readonly facts: Omit<PatchFacts, 'name' | 'objectName'>;
}

/** Undefined when the deliverable holds none of the changed units. */
export async function patchDeliverable(
  link: RecordedLink,
  context: DeliverableContext,
): Promise<DeliverableResult | undefined> {
  const name = path.basename(link.output);
  const shipped = new ShippedObject(await readFile(link.linked), name);
  const refusals = new Refusals();
  const result = (units: readonly ChangedUnit[], patch?: Patch): DeliverableResult => ({
    output: link.output,
    buildId: shipped.buildId,
    outcome: patch ? 'built' : 'refused',
    refusals: refusals.all,
    patch,
    units,
  });
  const map = parseLinkMap(await readFile(link.map, 'utf8').catch(() => ''));
  if (!map) {
    const message = `${name} was not linked by the GNU linker; nothing tells which code it holds`;
    refusals.add('LINK_UNKNOWN', message);
    return result([]);
  }
  const [held, units]: [ChangedUnit[], Unit[]] = [[], []];
  for (const changed of context.units) {
    const placed = placeUnit(changed, link, map, shipped, context);
    if (placed === undefined) continue;
    held.push(changed);
    if (typeof placed === 'string') {
      const message = `${changed.file}: its code is not where the linker put it: ${placed}`;
      refusals.add('NOT_FOUND_IN_OBJECT', message);
      continue;
    }
    if (isAssembler(changed.compile.source)) {
      const message = `${changed.file} is assembler, of which no single function can be taken`;
      refusals.add('UNSUPPORTED_RELOCATION', message);
      continue;
    }
    const unit = compareUnit(
      changed.file,
      {
        ...changed,
        placement: placed,
        inlined: changed.stock.inlined,
        original: changed.original,
        patched: changed.patched.object,
      },
      [],
      refusals,
    );
    if (unit) units.push(unit);
    for (const exported of [...changed.signatures].filter((each) => shipped.exported.has(each))) {
      const message = `${exported} of ${changed.file} takes or gives something else than before; who calls it from outside of ${name} goes on as before`;
      refusals.add('CHANGED_SIGNATURE', message, exported);
    }
  }
  if (held.length === 0) return undefined;
  const finder = new DefinitionFinder(link, map, shipped, context);
  const found = await finder.find(units, refusals);
  const facts = { ...context.facts, name, objectName: name };
  const patch = units.length > 0 ? assemblePatch(units, shipped, found, facts, refusals) : undefined;
  return result(held, refusals.all.length === 0 ? patch : undefined);
}

/** Undefined when the deliverable does not hold the unit; the reason when it should and its bytes are not there (R3). */
function placeUnit(
  { compile, stock }: ChangedUnit,
  link: RecordedLink,
  map: LinkMap,
  shipped: ShippedObject,
  { compiles }: DeliverableContext,
): Unit['placement'] | string | undefined {
  const objects = new Set(compiles.flatMap(({ object }) => object ?? []));
  const { named: inputs, unexplained } = inputsOf({ compile, link, map, objects });
  let reason = 'the linker took none of its sections, or other ones';
  for (const input of [...inputs, ...unexplained]) {
    const hints: SectionHints | undefined = hintsOf(stock.object, map.inputs.get(input) ?? []);
    const correlation = hints && correlate(stock.object, shipped, hints);
    if (correlation && 'placement' in correlation) return correlation.placement;
    if (correlation) reason = correlation.detail;
  }
  if (inputs.length === 0) return undefined;
  // Other units whose objects have the same name may be what the linker took.
  const rivals = compiles.filter(
    (other) =>
      other !== compile &&
      other.object !== undefined &&
      compile.object !== undefined &&
      path.basename(other.object) === path.basename(compile.object),
  );
  const isCertain = inputs.some((input) => path.resolve(link.directory, input) === compile.object);
  return isCertain || rivals.length === 0 || compile.object === undefined ? reason : undefined;
}
