// Manual pages and shell completions, made from what the compiled programs say of themselves.
import { spawnSync } from 'node:child_process';
import path from 'node:path';

const root = path.dirname(import.meta.dirname);

/** Compiler wrappers: they take the options of the compiler behind them, and have no page of their own. */
export const wrappers = ['libcare-cc', 'libcare-c++'];

/** What commander knows of a program: its help, options and commands. */
export function describeProgram(name) {
  const preload = path.join(import.meta.dirname, 'describe-program.mjs');
  const program = path.join(root, 'dist', 'src', 'cli', `${name}.js`);
  const { stdout, stderr } = spawnSync(process.execPath, ['--import', preload, program], {
    encoding: 'utf8',
    env: { ...process.env, KCARE_ROOT: '/' },
    maxBuffer: 16 * 1024 * 1024,
  });
  try {
    return JSON.parse(stdout);
  } catch {
    throw new Error(`${name} does not describe itself:\n${stdout}${stderr}`);
  }
}

/** Section of the manual: what administrators run is 8, what everybody or a builder runs is 1. */
export function manualSection(name) {
  return ['kcare-uname', 'kcare-build', 'libcare-patch-make'].includes(name) ? 1 : 8;
}

function roff(text) {
  const escaped = text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(
      /[^\p{ASCII}]/gu,
      (one) => `\\[u${one.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}]`,
    );
  // A line that begins with a dot or an apostrophe would be a request.
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}

/** Lines between blank ones, as requests: tagged paragraphs where a line is described by indented ones below it. */
function paragraph(lines, isVerbatim) {
  if (isVerbatim) return ['.nf', ...lines.map((line) => roff(line.trim())), '.fi'];
  if (!lines.some((line) => line.startsWith(' '.repeat(11)))) {
    return ['.PP', ...lines.map((line) => roff(line.trim()))];
  }
  const output = [];
  lines.forEach((line, index) => {
    const isText = line.startsWith(' '.repeat(11));
    const next = lines[index + 1];
    if (isText) output.push(roff(line.trim()));
    else if (next?.startsWith(' '.repeat(11))) output.push('.TP', `.B ${roff(line.trim())}`);
    else output.push('.PP', roff(line.trim()));
  });
  return output;
}

function body(help) {
  const output = [];
  let section = '';
  let block = [];
  const flush = () => {
    if (block.length > 0) output.push(...paragraph(block, section === 'SYNOPSIS'));
    block = [];
  };
  for (const line of help.trimEnd().split('\n')) {
    if (/^\S/.test(line)) {
      flush();
      section = line;
      output.push(`.SH ${roff(line)}`);
    } else if (line.trim() === '') {
      flush();
    } else {
      block.push(line);
    }
  }
  flush();
  return output;
}

/** The manual page of a program, for man(7), with the pages of its commands as parts of it. */
export function manualPage(program, version) {
  const head = `.TH ${roff(program.name.toUpperCase())} ${manualSection(program.name)} "" "kcare ${version}" "kcare"`;
  const parts = program.commands.flatMap((command) => [
    `.SH ${roff(`COMMAND ${command.name.toUpperCase()}`)}`,
    '.nf',
    ...command.help
      .trimEnd()
      .split('\n')
      .map((line) => roff(line)),
    '.fi',
  ]);
  return `${['.\\" Made from the program itself.', head, ...body(program.help), ...parts].join('\n')}\n`;
}

const flagsOf = ({ short, long }) => [short, long].filter((flag) => flag !== undefined);
const single = (text) => text.replaceAll("'", "'\\''");

/** Verbs that a program takes as its first argument without being commands of commander: `<init|show|remove>`. */
function verbsOf(program) {
  const named = program.commands.map(({ name }) => name);
  const [first = ''] = program.arguments;
  return named.length === 0 && first.includes('|') ? first.split('|') : named;
}

export function bashCompletion(program) {
  const name = `_${program.name.replaceAll('-', '_')}`;
  const words = ({ options }) => options.flatMap(flagsOf).join(' ');
  const cases = program.commands.map(({ name: verb, ...one }) => `        ${verb}) words='${words(one)}' ;;`);
  const values = program.options.flatMap((option) =>
    option.choices.length > 0
      ? [
          `        ${flagsOf(option).join(' | ')}) COMPREPLY=($(compgen -W '${option.choices.join(' ')}' -- "$word")); return ;;`,
        ]
      : [],
  );
  return `# bash completion of ${program.name}; made from the program itself.
${name}() {
    local word=\${COMP_WORDS[COMP_CWORD]} words='${words(program)}' verb=\${COMP_WORDS[1]}
    case \${COMP_WORDS[COMP_CWORD-1]} in
${values.join('\n')}${values.length > 0 ? '\n' : ''}        *) ;;
    esac
    case $verb in
${cases.join('\n')}${cases.length > 0 ? '\n' : ''}        *) ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    elif [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W '${verbsOf(program).join(' ')}' -- "$word"))
    fi
}
complete -o default -F ${name} ${program.name}
`;
}

export function zshCompletion(program) {
  const quoted = (text) => single(text.replaceAll(/[[\]:\\]/g, (one) => `\\${one}`));
  const option = (one) => {
    const value = one.choices.length > 0 ? `:value:(${one.choices.join(' ')})` : ':value:_files';
    return flagsOf(one).map(
      (flag) => `    '*${flag}[${quoted(one.description)}]${one.takesValue ? value : ''}'`,
    );
  };
  const part = (one, rest) =>
    ['_arguments \\', ...[...one.options.flatMap(option), ...rest].map((line) => `${line} \\`)]
      .join('\n')
      .replace(/ \\$/, '');
  const verbs = verbsOf(program);
  const first = verbs.length > 0 ? [`    '1:command:(${verbs.join(' ')})'`] : [];
  const cases = program.commands.map(
    ({ name, ...one }) => `${name}) ${part(one, ["    '*:file:_files'"])} ;;`,
  );
  const whole = part(program, [...first, "    '*:file:_files'"]);
  return `#compdef ${program.name}
# Made from the program itself.
case $words[2] in
${[...cases, `*) ${whole} ;;`].join('\n')}
esac
`;
}

export function fishCompletion(program) {
  const line = (condition) => (one) => {
    const flags = [
      ...(one.short ? [`-s ${one.short.slice(1)}`] : []),
      ...(one.long ? [`-l ${one.long.slice(2)}`] : []),
    ];
    const value = one.choices.length > 0 ? ` -x -a '${one.choices.join(' ')}'` : ' -r';
    const description = one.description.replaceAll('\\', '\\\\').replaceAll("'", "\\'");
    return `complete -c ${program.name}${condition} ${flags.join(' ')}${one.takesValue ? value : ''} -d '${description}'`;
  };
  const verbs = verbsOf(program).map(
    (verb) => `complete -c ${program.name} -n __fish_use_subcommand -a '${verb}'`,
  );
  const parts = program.commands.flatMap(({ name, options }) =>
    options.map(line(` -n '__fish_seen_subcommand_from ${name}'`)),
  );
  return `# Made from the program itself.\n${[...verbs, ...program.options.map(line('')), ...parts].join('\n')}\n`;
}
