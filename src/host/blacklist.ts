// The blacklist: which programs are never patched, by the path of their executable file.
import { basename } from 'node:path';
import { KcareError } from '../base/errors.js';
import { compilePosixExpression } from './posix-expression.js';

/** A line of a blacklist file. */
export interface BlacklistRule {
  readonly file: string;
  /** First line is 1. */
  readonly line: number;
  /** Type and pattern as written, without the comment. */
  readonly text: string;
  /** The comment behind the rule, "" when there is none. */
  readonly reason: string;
}

/** A line that is neither a rule nor a comment; it is left out and reported. */
export interface BlacklistProblem {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

interface CompiledRule extends BlacklistRule {
  readonly matches: (executable: string) => boolean;
}

/** Rules in the order of the file; the first that matches decides. */
export class Blacklist {
  private constructor(
    readonly file: string,
    private readonly rules: readonly CompiledRule[],
    readonly problems: readonly BlacklistProblem[],
  ) {}

  static readonly empty = new Blacklist('', [], []);

  /**
   * Parses `type:pattern` lines. Types: `path` (the whole path), `filename` (its last part, anywhere), `regex` (POSIX
   * extended, must match the whole path). In path and filename `*` stands for any characters, slashes included, and
   * `?` for one. A comment begins with `#` at the start of a line or after a blank. Blanks around type and pattern
   * do not count.
   */
  static parse(text: string, file: string): Blacklist {
    const rules: CompiledRule[] = [];
    const problems: BlacklistProblem[] = [];
    text.split('\n').forEach((raw, index) => {
      const line = index + 1;
      const [, rule = '', reason = ''] = /^(.*?)(?:(?:^|\s)#(.*))?$/s.exec(raw) ?? [];
      if (rule.trim() === '') return;
      try {
        rules.push({
          file,
          line,
          text: rule.trim(),
          reason: reason.trim(),
          matches: compileRule(rule.trim()),
        });
      } catch (thrown) {
        if (!(thrown instanceof KcareError)) throw thrown;
        problems.push({ file, line, message: thrown.message });
      }
    });
    return new Blacklist(file, rules, problems);
  }

  /** The rule that forbids patching the program at `executable`, if there is one. */
  match(executable: string): BlacklistRule | undefined {
    const rule = this.rules.find((candidate) => candidate.matches(executable));
    return rule && { file: rule.file, line: rule.line, text: rule.text, reason: rule.reason };
  }
}

function compileRule(rule: string): (executable: string) => boolean {
  const [, type = '', pattern = ''] = /^([^:]*):\s*(.*)$/s.exec(rule) ?? [];
  if (type === '') throw new KcareError('USAGE', `"${rule}" is not of the form type:pattern`);
  if (pattern === '') throw new KcareError('USAGE', `"${rule}" has no pattern`);
  switch (type.trim()) {
    case 'path': {
      if (!/^[/*?]/.test(pattern)) throw new KcareError('USAGE', `"${pattern}" is not an absolute path`);
      const expression = compileWildcards(pattern);
      return (executable) => expression.test(executable);
    }
    case 'filename': {
      if (pattern.includes('/'))
        throw new KcareError('USAGE', `"${pattern}" is a path; write path:${pattern}`);
      const expression = compileWildcards(pattern);
      return (executable) => expression.test(basename(executable));
    }
    case 'regex': {
      const expression = compilePosixExpression(pattern);
      return (executable) => expression.test(executable);
    }
    default:
      throw new KcareError('USAGE', `type "${type.trim()}" is none of path, filename, regex`);
  }
}

function compileWildcards(pattern: string): RegExp {
  const escaped = pattern
    .replace(/[\\^$.+()[\]{}|/]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${escaped}$`, 'su');
}
