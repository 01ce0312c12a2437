// What `kcare-build explain` shows on a terminal.
import type { CodeLine, ExplainedFunction, Explanation } from '../review/index.js';
import { visible } from './print.js';

const sources = {
  given: 'the given object',
  archive: 'the package of the archive',
  patch: 'the patch itself (the object is not at hand: strings and many names are missing)',
} as const;

/** The whole text; `context` is how many unchanged instructions are shown around changed ones. */
export function explanationText(explanation: Explanation, context: number): string {
  const { patch, functions, symbols, units, source } = explanation;
  const { metadata } = patch;
  const lines = [
    `Patch    ${metadata.name}, level ${metadata.level}, ${metadata.date}, made by ${metadata.builder}`,
    `Object   ${metadata.objectName}, build-id ${patch.buildId}`,
    `Package  ${metadata.package} ${metadata.packageVersion}, fixes from ${metadata.fixedVersion}`,
    `Old code ${sources[source]}`,
    ...metadata.cves.map(
      ({ id, score, description }) => `Fixes    ${id}${score === '' ? '' : ` (${score})`}: ${description}`,
    ),
    ...patch.sections.map(({ name, size }) => `Carries  ${name.padEnd(10)} ${size} bytes`),
  ];
  for (const one of functions) lines.push('', ...functionLines(one, context));
  if (symbols.length > 0) lines.push('', 'Symbols outside of the patch');
  for (const { name, where, address, proof } of symbols) {
    const place = address === undefined ? where : hexadecimal(address);
    lines.push(`  ${name}  ${place}`, ...proof.map(proofLine));
    if (where === 'object' && proof.length === 0) lines.push('    nothing says how it was found');
  }
  if (units.length > 0) lines.push('', 'Units whose code was found in the object');
  for (const { file, address, size, isUnique } of units) {
    const found = isUnique ? 'there once' : 'at the place that is known';
    lines.push(`  ${file}  ${size} bytes at ${hexadecimal(address)}, ${found}`);
  }
  return `${lines.map(visible).join('\n')}\n`;
}

const hexadecimal = (value: number): string => `0x${value.toString(16)}`;

function proofLine({ how, detail, operand }: Explanation['patch']['metadata']['proof'][number]): string {
  const by = operand ? `; operand at ${hexadecimal(operand.at)}` : '';
  return `    ${how}: ${detail}${by}`;
}

function functionLines(one: ExplainedFunction, context: number): string[] {
  const { kind, name, address = 0, oldSize = 0, newSize, independent, proof, lines } = one;
  const place = `${oldSize} bytes at ${hexadecimal(address)}`;
  const title = {
    replace: `replace ${name}: ${place} → ${newSize ?? 0} bytes`,
    guard: `guard ${name}: ${place}${newSize === undefined ? '' : `, new part ${newSize} bytes`}`,
    new: `new ${name}: ${newSize ?? 0} bytes`,
  }[kind];
  const count = (mark: CodeLine['mark']): number => lines.filter((line) => line.mark === mark).length;
  return [
    `${title}${independent ? ', independent' : ''}`,
    ...proof.map(proofLine),
    `    ${count(' ')} instructions stay, ${count('-')} go, ${count('+')} come`,
    ...codeLines(lines, context),
  ];
}

function codeLines(lines: readonly CodeLine[], context: number): string[] {
  const width =
    Math.max(...lines.flatMap((line) => [line.old ?? 0, line.new ?? 0]), 0).toString(16).length + 1;
  const offset = (value: number | undefined): string =>
    (value === undefined ? '' : `+${value.toString(16)}`).padStart(width);
  const shown = nearChanges(lines, context);
  let isSkipping = false;
  return lines.flatMap((line, index) => {
    if (!shown.has(index)) {
      const first = !isSkipping;
      isSkipping = true;
      return first ? ['      …'] : [];
    }
    isSkipping = false;
    return [`    ${line.mark} ${offset(line.old)} ${offset(line.new)}  ${line.text}`];
  });
}

function nearChanges(lines: readonly CodeLine[], context: number): Set<number> {
  const shown = new Set<number>();
  lines.forEach(({ mark }, index) => {
    if (mark === ' ') return;
    const last = Math.min(lines.length - 1, index + context);
    for (let near = Math.max(0, index - context); near <= last; near++) shown.add(near);
  });
  return shown;
}
