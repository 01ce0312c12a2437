// `kcare-uname`: uname with the release that the live-patched kernel is worth.
import { arch, hostname, machine, type, version as kernelVersion } from 'node:os';
import { Command } from 'commander';
import { kernelInfo, version } from '../agent/index.js';
import { exitCodes } from '../base/errors.js';
import { printLine } from './print.js';
import { exitCodeOf } from './run-program.js';

const names = {
  kernelName: ['-s, --kernel-name', 'the name of the kernel (default)'],
  nodename: ['-n, --nodename', 'the name of this host'],
  kernelRelease: ['-r, --kernel-release', 'the effective release of the kernel'],
  kernelVersion: ['-v, --kernel-version', 'the version of the kernel that was booted'],
  machine: ['-m, --machine', 'the hardware'],
  processor: ['-p, --processor', 'the processor, or "unknown"'],
  hardwarePlatform: ['-i, --hardware-platform', 'the platform, or "unknown"'],
  operatingSystem: ['-o, --operating-system', 'the operating system'],
} as const;
type Name = keyof typeof names;

process.exitCode = await exitCodeOf('kcare-uname', async () => {
  const program = new Command('kcare-uname')
    .description(
      'Prints system information as uname does, with the release that the patched kernel is worth.',
    )
    .option('-a, --all', 'all of it, but not what is unknown')
    .version(version(), '--version', 'print the version')
    .helpOption('--help', 'print this page')
    .exitOverride();
  for (const [flags, text] of Object.values(names)) program.option(flags, text);
  program.parse();
  const options = program.opts<Partial<Record<Name | 'all', true>>>();
  const order = Object.keys(names) as Name[];
  const chosen = options.all
    ? order.filter((name) => name !== 'processor' && name !== 'hardwarePlatform')
    : order.filter((name) => options[name]);
  const { effective } = await kernelInfo(process.env['KCARE_ROOT'] ?? '/');
  const values: Readonly<Record<Name, string>> = {
    kernelName: type(),
    nodename: hostname(),
    kernelRelease: effective,
    kernelVersion: kernelVersion(),
    machine: machine() || arch(),
    processor: 'unknown',
    hardwarePlatform: 'unknown',
    operatingSystem: 'GNU/Linux',
  };
  printLine((chosen.length > 0 ? chosen : (['kernelName'] as const)).map((name) => values[name]).join(' '));
  return exitCodes.done;
});
