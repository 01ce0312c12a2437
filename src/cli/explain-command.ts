// `kcare-build explain`: show what a patch is, with old and new code.
import { Command } from 'commander';
import { asKcareError, KcareError } from '../base/errors.js';
import { readPatch } from '../patchfile/index.js';
import {
  explainPatch,
  findObject,
  readNamedFile,
  type Explanation,
  type FoundObject,
  type ObjectOptions,
} from '../review/index.js';
import { explanationText } from './explain-text.js';
import { manualPage } from './manual-page.js';
import { patchJson } from './patch-json.js';
import { printJson, visible } from './print.js';

interface Flags {
  readonly object?: string;
  readonly debug?: string;
  readonly work?: string;
  readonly fetch: boolean;
  readonly context: number;
  readonly json?: true;
}

/** The command; its action throws KcareError. */
export function explainCommand(): Command {
  return new Command('explain')
    .description('show what a patch is, with old and new code')
    .argument('<file>', 'the patch file')
    .option('--object <LIB>', 'The shipped object, for the names and strings of the old code.')
    .option('--debug <FILE>', 'Its separate debug file (default: by build-id in /usr/lib/debug).')
    .option('--no-fetch', 'Do not ask the archive for the package that the patch names.')
    .option(
      '--work <DIR>',
      'Where packages are unpacked (default: $KCARE_WORK, or .cache/build in the package).',
    )
    .option(
      '--context <N>',
      'Unchanged instructions shown around changed ones (default: 3); "all" for whole functions.',
      instructions,
      3,
    )
    .option('--json', 'Print everything as JSON, all instructions included.')
    .configureHelp({ formatHelp: manualPage(page) })
    .action(explain);
}

const page = {
  name: 'kcare-build explain - show what a patch is, with old and new code',
  synopsis: 'kcare-build explain [--object LIB] [--debug FILE] [--no-fetch] [--context N] [--json] FILE',
  description: `Prints what FILE says of itself (object, build-id, package, level, vulnerabilities), and each function that it replaces, guards or brings along: how it was found in the object, how that was checked, and its instructions. Instructions of old and new code are set side by side as diff -u does it: "-" is only in the old code, "+" only in the new, with offsets in the old and the new function. Operands name what they lead to: functions and data, stubs (NAME.plt) and slots (NAME.got) of the object, strings, and other constants by their first eight bytes in braces. A jump within the function shows its offset.

The old code is that of the object: the one given by --object, or the one in the archive's package that FILE names. When neither is there, it is what FILE carries to be compared with a process, and fewer names are known.

FILE needs no trust: nothing of it is run or applied. The instructions are told by objdump of binutils.`,
  exit: `0
  Printed.
1
  A tool failed, or a file is missing.
2
  FILE is no patch, or the object is no ELF file, or another build's.
64
  Wrong options.`,
  examples: `kcare-build explain patch.kpatch | less
kcare-build explain --object /usr/lib/x86_64-linux-gnu/libcrypto.so.3 patch.kpatch
kcare-build explain --no-fetch --json patch.kpatch | jq '.functions[].name'`,
};

function instructions(text: string): number {
  if (text === 'all') return Infinity;
  if (!/^\d{1,6}$/.test(text)) throw new KcareError('USAGE', `${text} is not a number of instructions.`);
  return Number(text);
}

async function explain(file: string, flags: Flags): Promise<void> {
  const patch = readPatch(await readNamedFile(file));
  const found = await objectAtHand(patch, flags);
  if (found && found.shipped.buildId !== patch.buildId) {
    throw new KcareError(
      'BUILD_ID_MISMATCH',
      `${found.file} has build-id ${found.shipped.buildId}; the patch is for ${patch.buildId}.`,
    );
  }
  const explanation = await explainPatch(patch, found);
  if (flags.json === true) printJson(toJson(explanation));
  else process.stdout.write(explanationText(explanation, flags.context));
}

/** Without an object that somebody named, one is a help and no more: why there is none is said on standard error. */
async function objectAtHand(
  patch: Explanation['patch'],
  { fetch, ...options }: Flags,
): Promise<FoundObject | undefined> {
  const wanted: ObjectOptions = { ...options, onProgress: tell };
  if (options.object !== undefined) return findObject(patch, wanted);
  if (!fetch || patch.metadata.packageVersion === '') return undefined;
  try {
    return await findObject(patch, wanted);
  } catch (thrown) {
    tell(asKcareError(thrown).message.split('\n')[0] ?? '');
    return undefined;
  }
}

function tell(message: string): void {
  process.stderr.write(`${visible(message)}\n`);
}

function toJson({ patch, source, functions, symbols, units }: Explanation): object {
  const { metadata, buildId, sections } = patch;
  const {
    name,
    level,
    description,
    objectName,
    package: packageName,
    packageVersion,
    fixedVersion,
  } = metadata;
  return {
    name,
    description,
    object: { name: objectName, buildId, size: patch.objectSize },
    package: packageName,
    packageVersion,
    fixedVersion,
    date: metadata.date,
    builder: metadata.builder,
    ...patchJson(patch),
    level,
    cves: metadata.cves,
    source,
    functions,
    symbols,
    units,
    sections: sections.map(({ name: section, size }) => ({ name: section, size })),
  };
}
