// `kcare-build oval`: OVAL definitions of what patches fix, for scanners that fetch them from the feed's server.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { version } from '../agent/version.js';
import { KcareError } from '../base/errors.js';
import { readPatch } from '../patchfile/index.js';
import { ovalDocument, ovalFileName, type FixedPackage } from '../scanner/oval.js';
import { writeOutput } from './output-file.js';

interface OvalFlags {
  readonly feed?: string;
  readonly output?: string;
  readonly id: string;
  readonly versionId: string;
  readonly json?: true;
}

/** The command; its action throws KcareError. */
export function ovalCommand(): Command {
  return new Command('oval')
    .description(
      'write OVAL definitions of the vulnerabilities that patches fix, for oscap and other scanners',
    )
    .argument('<files...>', 'patch files (.kpatch): all that the feed offers')
    .option(
      '--feed <directory>',
      'the directory that is served: write oval/com.kernelcare.ID.VERSION.xml there',
    )
    .option('--output <file>', 'write this file instead; without both, print')
    .option('--id <id>', 'ID of the distribution, as its os-release says', word, 'debian')
    .option('--version-id <version>', 'its VERSION_ID', word, '12')
    .option('--json', 'print the result as JSON')
    .action(runOval);
}

async function runOval(files: string[], flags: OvalFlags): Promise<void> {
  const distribution = { distribution: flags.id, distributionVersion: flags.versionId };
  const patches = files.map((file) => readPatch(readFileSync(file)).metadata);
  const fixes = patches.map(({ package: name, fixedVersion, cves }): FixedPackage => ({
    package: name,
    fixedVersion,
    cves,
  }));
  // The patches say when they were made: the same patches give the same file.
  const newest = patches.map(({ date }) => Date.parse(date)).filter(Number.isFinite);
  const timestamp = new Date(newest.length > 0 ? Math.max(...newest) : 0);
  const document = ovalDocument(fixes, { ...distribution, timestamp, productVersion: version() });
  const { feed } = flags;
  const output =
    flags.output ?? (feed === undefined ? undefined : join(feed, 'oval', ovalFileName(distribution)));
  for (const id of document.leftOut)
    process.stderr.write(`kcare-build: warning: no definition for ${id}, which OVAL cannot name.\n`);
  if (output === undefined) {
    process.stdout.write(document.xml);
    return;
  }
  await writeOutput(output, document.xml);
  const { definitions, leftOut } = document;
  process.stdout.write(
    flags.json
      ? `${JSON.stringify({ file: output, definitions, leftOut })}\n`
      : `${output} has ${definitions} ${definitions === 1 ? 'definition' : 'definitions'}.\n`,
  );
}

function word(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text))
    throw new KcareError('USAGE', `"${text}" is no word such as debian or 12.`);
  return text;
}
