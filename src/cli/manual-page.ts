// Lays out help as manual pages: sections, indented, with the options as commander knows them.
import type { Command, Help } from 'commander';

const indent = 7;

/** Lines longer than a hundred characters read badly; narrower than forty, the options no longer fit. */
export function pageWidth(columns: number | undefined): number {
  return Math.max(40, Math.min(columns ?? 80, 100));
}

/** The OPTIONS section, made from the options themselves, so that the page cannot lack one. */
export function optionsSection(command: Command, helper: Help): string {
  const options = helper
    .visibleOptions(command)
    .map((option) => `${option.flags}\n${wrap(option.description, indent + 4)}`)
    .map((text) => ' '.repeat(indent) + text);
  return `OPTIONS\n${options.join('\n\n')}`;
}

/** The COMMANDS section of a program that has some. */
function commandsSection(command: Command, helper: Help): string[] {
  const commands = helper.visibleCommands(command).filter((one) => one.name() !== 'help');
  if (commands.length === 0) return [];
  const lines = commands.map((one) => `${one.name()}\n  ${one.description() || one.summary()}`);
  return [section('COMMANDS', lines.join('\n'))];
}

/** Indents a section; lines that begin with two blanks describe the line above them. */
export function section(title: string, text: string): string {
  const lines = text.split('\n').map((line) => {
    if (line === '') return '';
    return line.startsWith('  ') ? wrap(line.trim(), indent + 4) : wrap(line, indent);
  });
  return `${title}\n${lines.join('\n')}`;
}

function wrap(text: string, left: number): string {
  const width = pageWidth(process.stdout.columns);
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && left + line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines.map((one) => ' '.repeat(left) + one).join('\n');
}

/** What a manual page says beside its options, which it takes from the command. */
export interface PageText {
  /** "command - what it does" */
  readonly name: string;
  readonly synopsis: string;
  readonly description: string;
  readonly exit: string;
  readonly examples: string;
}

/** Help as a manual page, for `configureHelp`. */
export function manualPage(page: PageText): (command: Command, helper: Help) => string {
  return (command, helper) =>
    `${[
      section('NAME', page.name),
      section('SYNOPSIS', page.synopsis),
      section('DESCRIPTION', page.description),
      ...commandsSection(command, helper),
      optionsSection(command, helper),
      section('EXIT STATUS', page.exit),
      section('EXAMPLES', page.examples),
    ].join('\n\n')}\n`;
}
