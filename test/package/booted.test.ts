// A host from its start on: a real kernel and systemd in QEMU, the package installed, one boot.
import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootDebian } from '../../fixtures/support/booted-debian.js';
import type { GuestResult } from '../../fixtures/support/guest.js';
import { archiveKernels, kernelImage } from '../../fixtures/support/kernel-archive.js';
import { buildLivePatches } from '../../fixtures/support/kernel-modules.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { packageRoot } from '../../src/base/package-root.js';
import { AnswersWorld } from '../host/answers.js';

/** `run NAME COMMAND...` keeps what the command printed, and its exit code, for the tests below. */
const script = `
run() {
  name=$1; shift
  "$@" >/out/$name.out 2>/out/$name.err
  echo "$?" >/out/$name.code
}
answer() {
  lines=$(grep -c . /run/answers)
  echo answer >&3
  while [ "$(grep -c . /run/answers)" = "$lines" ]; do sleep 0.1; done
  tail -1 /run/answers
}
state() { systemctl show --property=ActiveState,UnitFileState,Result,ExecMainStatus,MainPID "$1"; }

while [ "$(systemctl show --value --property=ActiveState kcare.service)" = activating ]; do sleep 0.2; done
run failed systemctl --failed --plain --no-legend
run socket state libcare.socket
run service state libcare.service
run kernel-service state kcare.service
run exited systemctl show --value --property=ExecMainExitTimestampMonotonic kcare.service
while ! systemctl -q is-active network-pre.target; do sleep 0.2; done
run network systemctl show --value --property=ActiveEnterTimestampMonotonic network-pre.target
run patches ls /sys/kernel/livepatch

mkfifo /run/commands
LD_LIBRARY_PATH=/opt/answers /opt/answers/target </run/commands >/run/answers &
exec 3>/run/commands
while ! grep -q ready /run/answers; do sleep 0.1; done
# Nobody has asked anything of the service yet, or does before this ends.
while [ "$(answer)" != 'answer 43' ]; do sleep 0.1; done
run status libcare-client status
run unload libcare-client unload --wait 60
run before answer
run update libcare-client update --wait 60
run after answer

mv /etc/sysconfig/kcare/kcare.conf /root
run unconfigured systemctl restart kcare.service
run unconfigured-service state kcare.service
exit 0
`;

/** An update of all processes of the system in the directory: of this one target and what the script starts. */
const firstUpdate = `
mount --bind /dev "$1/dev" && mount -t proc proc "$1/proc" && exec chroot "$1" sh -ec '
mkfifo /run/hold
LD_LIBRARY_PATH=/opt/answers /opt/answers/target </run/hold >/run/answers &
exec 3>/run/hold
while ! grep -q ready /run/answers; do sleep 0.1; done
kcarectl --lib-update --wait 60
'`;

let directory: string;
let world: AnswersWorld;
let guest: GuestResult;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-booted-'));
  world = new AnswersWorld();
  const newest = (await archiveKernels()).at(-1);
  if (!newest) throw new Error('no kernel');
  const kernel = await kernelImage(newest);
  const [module = ''] = await buildLivePatches(kernel, join(directory, 'modules'), [
    { name: 'kcare_test_1', level: 1 },
  ]);
  const host = await LocalHost.create(join(directory, 'host'), [module]);
  await host.publish([world.writePatchFile(world.patch(1, 43), 'level-1')]);
  const packages = join(directory, 'packages');
  const parameters = ['--only', 'deb', '--output', packages, '--gzip', '1', '--package-version', '1.0'];
  execFileSync(process.execPath, [join(packageRoot(), 'scripts/package.mjs'), ...parameters]);
  guest = await bootDebian(directory, {
    kernel,
    script,
    prepare: (root) => {
      copyFileSync(join(packages, 'kernelcare_1.0_amd64.deb'), join(root, 'root/kernelcare.deb'));
      execFileSync('chroot', [root, 'dpkg', '-i', '/root/kernelcare.deb'], { stdio: 'ignore' });
      rmSync(join(root, 'root/kernelcare.deb'));
      cpSync(join(host.root, 'etc/sysconfig/kcare/keys'), join(root, 'etc/sysconfig/kcare/keys'), {
        recursive: true,
      });
      cpSync(host.feedDirectory, join(root, 'srv/feed'), { recursive: true });
      writeFileSync(join(root, 'etc/sysconfig/kcare/kcare.conf'), 'PATCH_SERVER=/srv/feed\n');
      mkdirSync(join(root, 'opt/answers'));
      for (const file of [world.compiled.program, world.compiled.library])
        copyFileSync(file, join(root, 'opt/answers', basename(file)));
      const namespaces = ['--pid', '--mount', '--fork', '--kill-child'];
      execFileSync('unshare', [...namespaces, 'sh', '-c', firstUpdate, 'sh', root], {
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      for (const name of ['hold', 'answers']) rmSync(join(root, 'run', name));
    },
  });
});
afterAll(() => {
  world.remove();
  rmSync(directory, { recursive: true, force: true });
});

const text = (name: string): string => guest.files.get(name)?.toString().trim() ?? 'not there';

function of(name: string): { exitCode: number; stdout: string; stderr: string } {
  return { exitCode: Number(text(`${name}.code`)), stdout: text(`${name}.out`), stderr: text(`${name}.err`) };
}

const state = (name: string): Record<string, string> => properties(of(name).stdout);

function properties(lines: string): Record<string, string> {
  return Object.fromEntries(lines.split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2))) as Record<
    string,
    string
  >;
}

it('runs all commands, and the kernel reports no fault', () => {
  expect(guest.exitCode, guest.console.slice(-4000)).toBe(0);
  expect(guest.faults).toEqual([]);
});

it('has patched the kernel before the network is there', () => {
  expect(state('kernel-service')).toMatchObject({
    UnitFileState: 'enabled',
    Result: 'success',
    ExecMainStatus: '0',
  });
  expect(of('patches').stdout).toBe('kcare_test_1');
  expect(Number(of('exited').stdout)).toBeGreaterThan(0);
  expect(Number(of('network').stdout)).toBeGreaterThan(Number(of('exited').stdout));
});

it('patches a process from the boot on, before any client has come', () => {
  expect(of('failed').stdout).toBe('');
  expect(state('socket')).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
  expect(state('service')).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
  expect(JSON.parse(of('status').stdout)).toMatchObject({
    pid: Number(state('service')['MainPID']),
    isActivated: true,
    requests: 1,
    watch: { state: 'on', sources: { processes: '', files: '' } },
  });
});

it('does what a client asks', () => {
  expect(of('unload'), of('unload').stderr).toMatchObject({ exitCode: 0 });
  expect(of('before').stdout).toBe('answer 42');
  expect(of('update'), of('update').stderr).toMatchObject({ exitCode: 0 });
  expect(of('after').stdout).toBe('answer 43');
});

it('has no failed unit while no server is named', () => {
  expect(of('unconfigured')).toMatchObject({ exitCode: 0 });
  expect(state('unconfigured-service')).toMatchObject({ ActiveState: 'inactive' });
});
