// Debug information of one compiled unit, as `readelf` of GNU Binutils prints it: a tree of DWARF entries.
import { KcareError } from '../base/errors.js';
import { run } from './run.js';

/** Compiler options for debug information that says everything in one object, in a form that all readers know. */
export const debugFlags = ['-g', '-gdwarf-4', '-gno-split-dwarf', '-gz=none'] as const;

/** One entry; names of tags and attributes without `DW_TAG_` and `DW_AT_` (DWARF 4, 7.5.4). */
export interface DebugEntry {
  readonly offset: number;
  readonly tag: string;
  readonly parent: DebugEntry | undefined;
  readonly children: DebugEntry[];
  readonly attributes: Map<string, string>;
}

export interface DebugInfo {
  /** Compilation units. */
  readonly roots: readonly DebugEntry[];
  readonly at: (offset: number) => DebugEntry | undefined;
}

/** Throws BUILD_TOOL_FAILED when there is none in the object, or none that can be read. */
export async function readDebugInfo(object: string): Promise<DebugInfo> {
  const info = parseDebugInfo(await run('readelf', ['--debug-dump=info', '--wide', object]));
  if (info.roots.some(({ children }) => children.length > 0)) return info;
  throw new KcareError('BUILD_TOOL_FAILED', `readelf shows no debug information in ${object}`);
}

const entryLine = /^ <([0-9a-f]+)><([0-9a-f]+)>: Abbrev Number: [1-9]\d* \(DW_TAG_(\w+)\)/;
const attributeLine = /^ +<[0-9a-f]+> +DW_AT_(\w+) *: ?(.*)$/;
/** The form, and where a string lies: what versions of Binutils print before the value. */
const formPrefix =
  /^(?:\((?:(?:line_)?str\w*|[su]?data\w*|addr\w*|ref\w*|flag\w*|sec_offset|exprloc|block\w*|implicit_const|(?:indirect|indexed|alt) [^)]*|offset: [^)]*)\):? *)+/;
/** What layouts and users of types are read from. */
const wanted = new Set([
  ...['name', 'linkage_name', 'type', 'abstract_origin', 'specification', 'declaration', 'location'],
  ...['byte_size', 'bit_size', 'bit_offset', 'data_bit_offset', 'data_member_location', 'alignment'],
  ...['encoding', 'upper_bound', 'count', 'const_value', 'external'],
]);

export function parseDebugInfo(text: string): DebugInfo {
  const entries = new Map<number, DebugEntry>();
  const roots: DebugEntry[] = [];
  const open: DebugEntry[] = [];
  let current: DebugEntry | undefined;
  for (const line of text.split('\n')) {
    const [, depthText = '', offsetText = '', tag] = entryLine.exec(line) ?? [];
    if (tag !== undefined) {
      const depth = parseInt(depthText, 16);
      const offset = parseInt(offsetText, 16);
      const parent = depth === 0 ? undefined : open[depth - 1];
      current = { offset, tag, parent, children: [], attributes: new Map() };
      open.length = depth;
      open[depth] = current;
      entries.set(offset, current);
      (parent?.children ?? roots).push(current);
      continue;
    }
    const [, name = '', value = ''] = attributeLine.exec(line) ?? [];
    if (wanted.has(name)) current?.attributes.set(name, value.replace(formPrefix, '').trim());
  }
  return { roots, at: (offset) => entries.get(offset) };
}

/** The entry that a reference attribute names: `<0x2a>`, perhaps with the name behind it. */
export function referred(info: DebugInfo, entry: DebugEntry, attribute: string): DebugEntry | undefined {
  const [, offset] = /^<0x([0-9a-f]+)>/.exec(entry.attributes.get(attribute) ?? '') ?? [];
  return offset === undefined ? undefined : info.at(parseInt(offset, 16));
}

/** A number, in the notations that readelf has for constants; undefined when the attribute is absent or no number. */
export function numberOf(entry: DebugEntry, attribute: string): number | undefined {
  const text = entry.attributes.get(attribute);
  const [, constant] = /^(-?(?:0x[0-9a-f]+|\d+))(?:\s|$)/.exec(text ?? '') ?? [];
  if (constant !== undefined) return Number(constant);
  const [, operand] = /\(DW_OP_plus_uconst: (\d+)\)/.exec(text ?? '') ?? [];
  return operand === undefined ? undefined : Number(operand);
}
