// `kcare-build verify`: repeat the proof of a patch with the shipped object alone.
import { Command } from 'commander';
import { exitCodes } from '../base/errors.js';
import { readPatch } from '../patchfile/index.js';
import { findObject, readNamedFile, verifyPatch, type Finding, type Verification } from '../review/index.js';
import { manualPage } from './manual-page.js';
import { printJson, visible } from './print.js';

interface Flags {
  readonly object?: string;
  readonly debug?: string;
  readonly work?: string;
  readonly verbose?: true;
  readonly json?: true;
}

/** The command; its action throws KcareError. */
export function verifyCommand(): Command {
  return new Command('verify')
    .description('repeat the proof of a patch with the shipped object alone')
    .argument('<file>', 'the patch file')
    .option(
      '--object <LIB>',
      'The shipped object (default: the one in the package of the archive that the patch names).',
    )
    .option('--debug <FILE>', 'Its separate debug file (default: by build-id in /usr/lib/debug).')
    .option(
      '--work <DIR>',
      'Where packages are unpacked (default: $KCARE_WORK, or .cache/build in the package).',
    )
    .option('--verbose', 'List what is proved, too, and by what.')
    .option('--json', 'Print all findings as JSON.')
    .configureHelp({ formatHelp: manualPage(page) })
    .action(verify);
}

const page = {
  name: 'kcare-build verify - repeat the proof of a patch with the shipped object alone',
  synopsis: 'kcare-build verify [--object LIB] [--debug FILE] [--verbose] [--json] FILE',
  description: `Asks LIB about every statement of FILE; recipe, sources and compiler are not needed, and nothing is taken from FILE unasked. Every reason against it is listed at once.

object: the build-id and the size in memory.
hunk: the original bytes of each function, all of them; its length by the unwind table or a symbol; its name by a symbol table or debug file, where one tells; that it has no further part that the patch does not guard; that the jump lies on one page; and, for an independent function, that no jump of it leads back to its start.
unit: the code of the whole source file around it: the bytes that the compiler made are there by their digest, and nothing else in the object is like them.
symbol: each place in LIB that new code refers to: a stub or slot by the loader's tables; a function or datum by a symbol table, a debug file, the operand of an instruction of LIB, or the unwind table.
relocations: none leads out of the patch and LIB, but to symbols that the process looks up.
unwinding: each new function has an entry in the unwind table of the patch.

A finding is proved, refuted, or open: only the build knew (the names of static functions in a stripped object, offsets of thread-local data) or only a process can tell (symbols of other objects). Open ones do not count against the patch; read them.

FILE and LIB need no trust. That a fix does what it should is another question: see kcare-build try and explain.`,
  exit: `0
  Proved.
1
  A tool failed, or a file is missing.
2
  Refuted, or FILE is no patch, or LIB no ELF file. All reasons are listed.
64
  Wrong options.`,
  examples: `kcare-build verify patch.kpatch
  Fetches the package of the archive that the patch names.
kcare-build verify --object /usr/lib/x86_64-linux-gnu/libcrypto.so.3 --verbose patch.kpatch`,
};

async function verify(file: string, { verbose, json, ...options }: Flags): Promise<void> {
  const patch = readPatch(await readNamedFile(file));
  const tell = (message: string): void => void process.stderr.write(`${visible(message)}\n`);
  const found = await findObject(patch, { ...options, onProgress: tell });
  const verification = await verifyPatch(patch, found);
  if (json === true) printJson({ ...verification, buildId: patch.buildId, object: found.file });
  else process.stdout.write(verificationText(verification, verbose === true));
  process.exitCode = verification.verdict === 'proved' ? exitCodes.done : exitCodes.refused;
}

function verificationText({ verdict, findings }: Verification, isVerbose: boolean): string {
  const of = (state: Finding['state']): readonly Finding[] => findings.filter((one) => one.state === state);
  const list = (state: Finding['state']): string[] =>
    of(state).map(({ about, subject, reason }) => `  ${about} ${subject}: ${reason}`);
  const lines = [
    ...(verdict === 'refuted' ? ['Refuted:', ...list('refuted')] : []),
    ...(isVerbose && of('proved').length > 0 ? ['Proved:', ...list('proved')] : []),
    ...(of('open').length > 0 ? ['Open:', ...list('open')] : []),
    `${verdict === 'proved' ? 'Proved' : 'Refuted'}: ${of('proved').length} statements proved, ${of('refuted').length} refuted, ${of('open').length} open.`,
  ];
  return `${lines.map(visible).join('\n')}\n`;
}
