// The file syntax of kcare.conf: KEY=value lines as a shell would read them, without expansion.
import { KcareError } from '../base/errors.js';

export interface Setting {
  readonly key: string;
  readonly value: string;
  /** First line is 1. */
  readonly line: number;
}

const assignment = /^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$/s;

/**
 * Settings in the order of the file. A value may be bare, 'single' or "double" quoted, or pieces of these; a comment
 * begins with # at the start of a line or after a blank. $ and ` have no meaning. Throws CONFIG_INVALID with the line.
 */
export function parseShellSettings(text: string): Setting[] {
  const settings: Setting[] = [];
  text.split(/\r?\n/).forEach((raw, index) => {
    const content = raw.trim();
    if (content === '' || content.startsWith('#')) return;
    const [, key = '', rest = ''] = assignment.exec(content) ?? [];
    if (key === '') throw invalid(index + 1, `"${content.slice(0, 80)}" is not of the form KEY=value`);
    settings.push({ key, value: readValue(rest, index + 1), line: index + 1 });
  });
  return settings;
}

export function invalid(line: number, problem: string): KcareError {
  return new KcareError('CONFIG_INVALID', `Line ${line}: ${problem}.`, { line });
}

/** One piece of a value: quoted text, an escaped character, bare text; anything else ends the value. */
const piece = /'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^\s'"\\]+)/suy;

function readValue(text: string, line: number): string {
  let value = '';
  let position = 0;
  while (position < text.length && !/\s/.test(text.charAt(position))) {
    piece.lastIndex = position;
    const found = piece.exec(text);
    if (!found) throw invalid(line, `a quotation mark is not closed in ${text.slice(0, 80)}`);
    const [whole, single, double, escaped, bare] = found;
    value += single ?? double?.replace(/\\(["\\$`])/gs, '$1') ?? escaped ?? bare ?? '';
    position += whole.length;
  }
  const rest = text.slice(position).trim();
  if (rest !== '' && !rest.startsWith('#'))
    throw invalid(line, `"${rest.slice(0, 80)}" follows the value; put quotes around a value with blanks`);
  return value;
}
