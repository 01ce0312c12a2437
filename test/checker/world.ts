// Processes on libraries that a test may replace and delete, in containers of their own, and the real kcare-uchecker.
import { execFile, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import { fixtureProgram, libcryptoOf } from '../../fixtures/support/openssl.js';
import { Program, type StartOptions } from '../../fixtures/support/program.js';
import { packageRoot } from '../../src/base/package-root.js';
import type { ScanReport } from '../../src/checker/index.js';

export interface Result {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the compiled command; `before` are words before it, such as "setpriv". */
export function runCommand(
  name: 'kcare-uchecker' | 'kcare-check',
  parameters: readonly string[],
  before: readonly string[] = [],
): Promise<Result> {
  const command = [...before, process.execPath, path.join(packageRoot(), 'bin', name), ...parameters];
  return new Promise((resolve, reject) => {
    execFile(
      command[0] ?? '',
      command.slice(1),
      { maxBuffer: 256 * 1024 * 1024 },
      (error, stdout, stderr) => {
        const exitCode = error ? error.code : 0;
        if (typeof exitCode === 'number') resolve({ exitCode, stdout, stderr });
        else reject(new Error(`${name} could not be run: ${error?.message ?? 'killed'}\n${stderr}`));
      },
    );
  });
}

/** The JSON of a run; the test fails with the output when it is none. */
export async function runJson(
  parameters: readonly string[],
  before: readonly string[] = [],
): Promise<{ readonly exitCode: number; readonly report: ScanReport }> {
  const { exitCode, stdout, stderr } = await runCommand('kcare-uchecker', [...parameters, '--json'], before);
  if (!stdout.startsWith('{"status"')) throw new Error(`exit ${exitCode}: ${stdout}${stderr}`);
  return { exitCode, report: JSON.parse(stdout) as ScanReport };
}

export class CheckerWorld {
  /** Readable by all users. */
  readonly directory = fs.mkdtempSync(path.join(fs.realpathSync('/tmp'), 'kcare-checker-'));

  constructor() {
    fs.chmodSync(this.directory, 0o755);
    onTestFinished((context) => {
      if (context.task.result?.state === 'fail') console.error(`kept: ${this.directory}`);
      else fs.rmSync(this.directory, { recursive: true, force: true });
    });
  }

  /** A directory with copies of the archive's old libcrypto and libssl, to be replaced and deleted. */
  libraries(unpacked: string, name = 'lib'): string {
    const directory = this.sub(name);
    const from = path.dirname(libcryptoOf(unpacked));
    for (const file of ['libcrypto.so.3', 'libssl.so.3'])
      fs.copyFileSync(path.join(from, file), path.join(directory, file));
    return directory;
  }

  sub(name: string): string {
    const directory = path.join(this.directory, name);
    fs.mkdirSync(directory, { recursive: true, mode: 0o755 });
    return directory;
  }

  /** An idle process that uses the libcrypto of `libraries`. */
  async startOn(libraries: string, before: readonly string[] = []): Promise<Program> {
    return await this.start([...before, fixtureProgram('bench/threads'), '0'], {
      environment: { LD_LIBRARY_PATH: libraries },
    });
  }

  async start(command: readonly string[], options: StartOptions = {}): Promise<Program> {
    const program = await Program.start(command[0] ?? '', command.slice(1), options);
    onTestFinished(() => program.end());
    await program.waitForLine(/^ready$/);
    return program;
  }

  compile(source: string, name: string): string {
    const program = path.join(this.sub('bin'), name);
    const flags = ['-std=c11', '-D_GNU_SOURCE', '-O1', '-Wall', '-Wextra', '-Werror', '-Wl,--build-id'];
    execFileSync('cc', [...flags, '-o', program, path.join(packageRoot(), 'fixtures', source)]);
    return program;
  }

  /** A root directory of an invented distribution, with a program that uses the libcrypto in it and belongs to a package. */
  container(unpacked: string, name: string): string {
    const root = this.sub(name);
    const multiarch = 'usr/lib/x86_64-linux-gnu';
    const write = (file: string, text: string): void => {
      fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true, mode: 0o755 });
      fs.writeFileSync(path.join(root, file), text);
    };
    write(
      'etc/os-release',
      `PRETTY_NAME="Quince Linux 7 (${name})"\nID=quince\nVERSION_ID="7"\nID_LIKE=debian\n`,
    );
    write(
      'var/lib/dpkg/status',
      [
        'Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.99-quince1\n',
        'Package: removed\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n',
      ].join('\n'),
    );
    write('var/lib/dpkg/info/libssl3:amd64.list', `/.\n/usr\n/${multiarch}/libcrypto.so.3\n`);
    write('var/log/dpkg.log', '2026-01-01 10:00:00 upgrade libssl3:amd64 3.0.98-quince1 3.0.99-quince1\n');
    const listing = execFileSync('ldd', [fixtureProgram('bench/threads')], {
      encoding: 'utf8',
      env: { ...process.env, LD_LIBRARY_PATH: path.dirname(libcryptoOf(unpacked)) },
    });
    const libraries = [...listing.matchAll(/(?:=> )?(\/\S+) \(/g)].map(([, file = '']) => file);
    for (const file of libraries) {
      const loader = path.basename(file).startsWith('ld-linux');
      const target = path.join(root, loader ? 'lib64' : multiarch, path.basename(file));
      fs.mkdirSync(path.dirname(target), { recursive: true, mode: 0o755 });
      fs.copyFileSync(file, target);
    }
    fs.mkdirSync(path.join(root, 'bin'), { mode: 0o755 });
    fs.copyFileSync(fixtureProgram('bench/threads'), path.join(root, 'bin', 'threads'));
    fs.chmodSync(path.join(root, 'bin', 'threads'), 0o755);
    return root;
  }

  async startIn(mode: 'chroot' | 'unshare' | 'pivot', root: string): Promise<Program> {
    const jail = this.compile('checker/jail.c', 'jail');
    return await this.start([jail, mode, root, '/bin/threads', '0'], {
      environment: { LD_LIBRARY_PATH: '/usr/lib/x86_64-linux-gnu' },
    });
  }
}

/** Words before a command that run it as a user without rights, but for reading this clone where only root may. */
export function asNobody(): string[] {
  const words = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
  let isOpen = true;
  for (let above = packageRoot(); above !== '/'; above = path.dirname(above))
    isOpen &&= (fs.statSync(above).mode & 0o001) !== 0;
  return isOpen ? words : [...words, '--inh-caps', '+dac_read_search', '--ambient-caps', '+dac_read_search'];
}

/** Puts a copy of `source` at `target` as package managers do: the old file stays with those who have it. */
export function replaceFile(target: string, source: string): void {
  fs.copyFileSync(source, `${target}.new`);
  fs.chmodSync(`${target}.new`, 0o755);
  fs.renameSync(`${target}.new`, target);
}
