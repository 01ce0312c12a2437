// `kcare-build publish`: put patches into a signed feed, renew it, or replace one of its keys.
import { Command, Option } from 'commander';
import { KcareError } from '../base/errors.js';
import { type Lifetimes, type RoleName, publish, refreshFeed, roleNames, rotateRole } from '../feed/index.js';

interface PublishFlags {
  readonly feed: string;
  readonly keys: string;
  readonly prefix?: string;
  readonly patchset?: string;
  readonly without: readonly string[];
  readonly keep?: number;
  readonly createKeys?: true;
  readonly refresh?: true;
  readonly rotate?: RoleName;
  readonly json?: true;
  readonly rootDays?: number;
  readonly targetsDays?: number;
  readonly snapshotDays?: number;
  readonly timestampDays?: number;
}

/** The command; its action throws KcareError. */
export function publishCommand(): Command {
  return new Command('publish')
    .description('publish patches as a new patchset of a signed feed')
    .argument('[files...]', 'patch files (.kpatch)')
    .requiredOption('--feed <directory>', 'the directory that is served')
    .requiredOption('--keys <directory>', 'the private keys, outside of the feed')
    .option('--prefix <name>', 'the feed in it that hosts choose with PREFIX (default: main)')
    .option('--patchset <name>', "name of the patchset (default: today's next, U<yyyymmdd>_<nn>)")
    .option('--without <build-id>', 'leave out the patch for this build-id; repeatable', collect, [])
    .option('--keep <count>', 'drop all but so many of the newest patchsets (default: keep all)', count)
    .option('--create-keys', 'make the keys and start the feed if it is not there')
    .addOption(
      new Option('--refresh', 'renew signatures that are about to expire; run it daily').conflicts('rotate'),
    )
    .addOption(
      new Option('--rotate <role>', 'replace the key of a role')
        .choices([...roleNames])
        .conflicts(['patchset', 'createKeys']),
    )
    .option('--root-days <days>', 'lifetime of the root (default: 365)', days)
    .option('--targets-days <days>', 'lifetime of the list of targets (default: 90)', days)
    .option('--snapshot-days <days>', 'lifetime of the snapshot (default: 90)', days)
    .option('--timestamp-days <days>', 'lifetime of the timestamp (default: 7)', days)
    .option('--json', 'print the result as JSON')
    .action(runPublish);
}

async function runPublish(files: string[], flags: PublishFlags): Promise<void> {
  const location = {
    feedDirectory: flags.feed,
    keyDirectory: flags.keys,
    lifetimes: lifetimes(flags),
    ...(flags.prefix === undefined ? {} : { prefix: flags.prefix }),
  };
  const print = (result: object, text: string): void => {
    process.stdout.write(flags.json === true ? `${JSON.stringify(result)}\n` : `${text}\n`);
  };
  const maintenance = flags.refresh === true || flags.rotate !== undefined;
  if (maintenance && (files.length > 0 || flags.without.length > 0)) {
    throw new KcareError(
      'USAGE',
      '--refresh and --rotate publish nothing; give the files to a second command.',
    );
  }
  if (flags.refresh === true) {
    const renewed = await refreshFeed(location);
    print({ renewed }, `Renewed: ${renewed.join(', ')}.`);
    return;
  }
  if (flags.rotate !== undefined) {
    const keyId = await rotateRole({ ...location, role: flags.rotate });
    print({ role: flags.rotate, keyId }, `The ${flags.rotate} key is now ${keyId}.`);
    return;
  }
  if (files.length === 0 && flags.without.length === 0 && flags.createKeys === undefined) {
    throw new KcareError('USAGE', 'Name the patch files to publish.');
  }
  const result = await publish({
    ...location,
    files,
    without: flags.without,
    createKeys: flags.createKeys === true,
    ...(flags.keep === undefined ? {} : { keep: flags.keep }),
    ...(flags.patchset === undefined ? {} : { patchset: flags.patchset }),
  });
  const signer = `Clients trust it after importing the OpenPGP key ${result.fingerprint} (kcare-feed.asc).`;
  const what = result.patchset === undefined ? 'an empty feed' : `patchset ${result.patchset}`;
  if (result.changed) print(result, `Published ${what} in feed "${result.prefix}".\n${signer}`);
  else print(result, `Nothing to do: feed "${result.prefix}" holds all of this already (${what}).`);
}

function lifetimes(flags: PublishFlags): Partial<Lifetimes> {
  const { rootDays: root, targetsDays: targets, snapshotDays: snapshot, timestampDays: timestamp } = flags;
  const given = Object.entries({ root, targets, snapshot, timestamp }).filter(
    ([, value]) => value !== undefined,
  );
  return Object.fromEntries(given);
}

function days(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0 && value <= 36_500)) {
    throw new KcareError('USAGE', `${text} is not a number of days between 0 and 36500.`);
  }
  return value;
}

function count(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new KcareError('USAGE', `${text} is not a number of patchsets.`);
  return Number(text);
}

function collect(value: string, before: readonly string[]): string[] {
  return [...before, value.toLowerCase()];
}
