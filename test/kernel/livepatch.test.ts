// The real agent in guests that run the archive's kernels: from no patch to level 1, 2, 1 and none, and what goes wrong on the way.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { cpioEntries, type CpioEntry } from '../../fixtures/support/cpio.js';
import { runGuest, type GuestOptions, type GuestResult } from '../../fixtures/support/guest.js';
import { archiveKernels, kernelImage, type KernelImage } from '../../fixtures/support/kernel-archive.js';
import { agentEntries, buildCompanion, buildLivePatches } from '../../fixtures/support/kernel-modules.js';
import { trustingKernel } from '../../fixtures/support/trusted-kernel.js';
import { publish } from '../../src/feed/index.js';
import { signModule, type SigningKey } from '../../src/kbuild/index.js';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-livepatch-'));
afterAll(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

let kernel: KernelImage;
/** The same, with a key of ours built in. */
let trusting: KernelImage;
let entries: Map<string, CpioEntry>;
/** Of levels 1, 2 and 3. */
let patchsets: string[];

beforeAll(async () => {
  const newest = (await archiveKernels()).at(-1);
  if (!newest) throw new Error('no kernel');
  kernel = await kernelImage(newest);
  console.log(`kernel under test: ${kernel.release} (${kernel.version})`);
  const companion = await buildCompanion(kernel, path.join(directory, 'kmod'));
  const modules = await buildLivePatches(kernel, path.join(directory, 'modules'), [
    { name: 'kcare_test_1', level: 1 },
    { name: 'kcare_test_2', level: 2 },
    { name: 'kcare_test_3', level: 3 },
    { name: 'foreign', level: 1 },
  ]);
  const [first = '', second = '', third = '', foreign = ''] = modules;
  const host = await LocalHost.create(path.join(directory, 'host'), []);
  patchsets = [];
  for (const file of [first, second, third]) patchsets.push((await host.publish([file])).patchset ?? '');
  const trust = trustingKernel(kernel, path.join(directory, 'trust'));
  trusting = trust.kernel;
  await publishOthers(host, first, trust.signingKey);
  entries = agentEntries();
  const add = (source: string, target: string): void => {
    for (const [name, entry] of cpioEntries(source, target)) entries.set(name, entry);
  };
  add(path.join(host.root, 'etc'), '/etc');
  add(host.feedDirectory, '/feed');
  add(companion, `/lib/modules/${kernel.release}/extra/kcare.ko`);
  add(foreign, '/root/foreign.ko');
});

/** A feed of a module that is signed for the kernel, and those that must not lead to a load: for another build, another release, cut off. */
async function publishOthers(host: LocalHost, module: string, key: SigningKey): Promise<void> {
  const { feedDirectory } = host;
  const keyDirectory = path.join(host.directory, 'keys');
  const bytes = fs.readFileSync(module);
  const buildId = /kcare_kernel=([0-9a-f]+)/.exec(bytes.toString('latin1'))?.[1] ?? '';
  const changed = (from: string, to: string): Buffer =>
    Buffer.from(bytes.toString('latin1').replaceAll(from, to), 'latin1');
  const variants: Record<string, Buffer> = {
    otherbuild: changed(buildId, '0'.repeat(buildId.length)),
    otherrelease: changed(`vermagic=${kernel.release}`, `vermagic=${'9'.repeat(kernel.release.length)}`),
    signed: await signModule(bytes, key),
    cut: bytes,
  };
  for (const [prefix, variant] of Object.entries(variants)) {
    const file = path.join(directory, prefix, 'kcare_test_1.ko');
    fs.mkdirSync(path.dirname(file));
    fs.writeFileSync(file, variant);
    await publish({ feedDirectory, keyDirectory, prefix, files: [file], createKeys: true });
  }
  const targets = path.join(feedDirectory, 'cut/targets/patches');
  for (const name of fs.readdirSync(targets)) fs.truncateSync(path.join(targets, name), 1000);
}

const prelude = `
kcarectl() { /opt/kcare/bin/kcarectl "$@"; }
run() { name=$1; shift; "$@" >/out/$name.out 2>/out/$name.err </dev/null; echo $? >/out/$name.rc; }
follow() { printf 'PATCH_SERVER=/feed\\nSTICKY_PATCHSET=%s\\n' "$1" >/etc/sysconfig/kcare/kcare.conf; }
note() { cat "$2" >/out/$1.out 2>/dev/null; }
`;

async function guest(script: string, options: Partial<GuestOptions> = {}): Promise<GuestResult> {
  const result = await runGuest({ kernel, script: prelude + script, entries, memoryMiB: 1024, ...options });
  expect(result.console).toContain('EXIT-CODE=');
  expect(result.faults).toEqual([]);
  return result;
}

const text = ({ files }: GuestResult, name: string): string => files.get(name)?.toString().trim() ?? '(none)';
/** Exit status and messages, so that a failing test shows both. */
const outcome = (result: GuestResult, name: string): string =>
  `${text(result, `${name}.rc`)} ${text(result, `${name}.out`)} ${text(result, `${name}.err`)}`;

test('a guest goes from no patch to level 1, 2, 1 and none, and says the truth at every step', async () => {
  const [one = '', two = ''] = patchsets;
  const result = await guest(`
echo 'kcare_modify_ldt = 1' >/etc/sysconfig/kcare/sysctl.conf
note before /proc/cmdline
follow ${one}
run status0 kcarectl --status
run covered0 /opt/kcare/bin/kcare-check --offline --json
run check0 kcarectl --check
run update1 kcarectl --update
note cmdline1 /proc/cmdline
note effective1 /proc/kcare/effective_version
note cves1 /proc/kcare/cvelist
note switch1 /proc/sys/kernel/kcare_modify_ldt
run status1 kcarectl --status
run covered1 /opt/kcare/bin/kcare-check --offline --json
run again1 kcarectl --update
follow ${two}
run status2 kcarectl --status
run check2 kcarectl --check
run update2 kcarectl --update --json
note cmdline2 /proc/cmdline
note cves2 /proc/kcare/cvelist
rm /run/kcare/kernel
run info2 kcarectl --info --json
run patchinfo2 kcarectl --patch-info
follow ${one}
run back1 kcarectl --update
note cmdlineback /proc/cmdline
run uname kcarectl --uname
run unload kcarectl --unload
note after /proc/cmdline
note effective /proc/kcare/effective_version
lsmod >/out/lsmod.out
run status kcarectl --status
run lib kcarectl --lib-info
`);
  expect(outcome(result, 'status0')).toMatch(/^1 /);
  expect(outcome(result, 'check0')).toMatch(/^0 /);
  expect(outcome(result, 'covered0')).toMatch(/"name":"kernel-patches".*level 1.*none is applied/);
  expect(outcome(result, 'covered1')).toMatch(/"kernel":"covered".*level 1 is applied/);
  expect(outcome(result, 'update1')).toMatch(
    /^0 Patch level 1 applied.*Effective kernel version 6\.1\.91\nKernel is safe/,
  );
  expect(text(result, 'cmdline1.out')).toBe('patched level 1');
  expect(text(result, 'effective1.out')).toBe('6.1.91');
  expect(text(result, 'cves1.out')).toBe('CVE-2099-0001');
  expect(text(result, 'switch1.out')).toBe('1');
  expect(outcome(result, 'status1')).toMatch(/^0 /);
  expect(outcome(result, 'again1')).toMatch(/^0 Patch level 1 is applied already/);
  expect(outcome(result, 'status2')).toMatch(/^2 /);
  expect(outcome(result, 'check2')).toMatch(/^0 Level 2 is available/);
  expect(outcome(result, 'update2')).toMatch(/^0 .*"level":2/);
  console.log(
    `load with transition: ${/"tookMs":([\d.]+)/.exec(text(result, 'update2.out'))?.[1] ?? '?'} ms`,
  );
  expect(text(result, 'cmdline2.out')).toBe('patched level 2');
  expect(text(result, 'cves2.out').split('\n').sort()).toEqual(['CVE-2099-0001', 'CVE-2099-0002']);
  expect(outcome(result, 'info2')).toContain(`"patchset":"${two}"`);
  expect(text(result, 'patchinfo2.out')).toMatch(/kpatch-cve: CVE-2099-0001\nkpatch-cvss: 7\.8\n/);
  expect(outcome(result, 'back1')).toMatch(/^0 Patch level 1 applied/);
  expect(text(result, 'cmdlineback.out')).toBe('patched level 1');
  expect(outcome(result, 'uname')).toMatch(/^0 6\.1\.91/);
  expect(outcome(result, 'unload')).toMatch(/^0 /);
  expect(text(result, 'after.out')).toBe(text(result, 'before.out'));
  expect(text(result, 'effective.out')).toBe(kernel.release);
  expect(text(result, 'lsmod.out')).not.toMatch(/kcare_test/);
  expect(text(result, 'lsmod.out')).toMatch(/^kcare /m);
  expect(outcome(result, 'status')).toMatch(/^1 /);
  expect(outcome(result, 'lib')).toMatch(/^0 /);
});

test('a task in the way delays a patch, is named, and then does not; a killed agent and a crash leave a state that is understood', async () => {
  const [, two = '', three = ''] = patchsets;
  const result = await guest(`
follow ${two}
run update2 kcarectl --update
follow ${three}
sleep 100000 & sleeper=$!
run blocked kcarectl --update --freezer none
note cmdline2 /proc/cmdline
kill $sleeper
run update3 kcarectl --update
note cmdline3 /proc/cmdline
run unload kcarectl --unload
sleep 100000 & sleeper=$!
kcarectl --update --freezer full >/dev/null 2>&1 & agent=$!
until [ "$(cat /sys/kernel/livepatch/kcare_test_3/transition 2>/dev/null)" = 1 ]; do :; done
kill -9 $agent
wait $agent
run infokilled kcarectl --info
kill $sleeper
run resumed kcarectl --update
note cmdlineresumed /proc/cmdline
run status kcarectl --status
run unload2 kcarectl --unload
mkdir -p /var/lib/kcare
echo '{"sha256":"","module":"kcare_test_3","boot":"earlier","begun":"today"}' >/var/lib/kcare/kernel-load.json
run crashed kcarectl --smart-update
note cmdlinecrashed /proc/cmdline
run byhand kcarectl --update
run smart kcarectl --smart-update
run unload3 kcarectl --unload
sleep 100000 & sleeper=$!
run forced kcarectl --update --freezer none --force
note cmdlineforced /proc/cmdline
run statusforced kcarectl --status
`);
  expect(outcome(result, 'update2')).toMatch(/^0 /);
  expect(outcome(result, 'blocked')).toMatch(/^4 .*turned back\. .*\(sleep\).*hrtimer_nanosleep/s);
  expect(text(result, 'cmdline2.out')).toBe('patched level 2');
  expect(outcome(result, 'update3')).toMatch(/^0 Patch level 3 applied/);
  expect(text(result, 'cmdline3.out')).toBe('patched level 3');
  expect(outcome(result, 'infokilled')).toMatch(/patch level: 3/);
  expect(outcome(result, 'resumed')).toMatch(/^0 .*evel 3/);
  expect(text(result, 'cmdlineresumed.out')).toBe('patched level 3');
  expect(outcome(result, 'status')).toMatch(/^0 /);
  expect(outcome(result, 'crashed')).toMatch(/^2 .*not loaded again automatically/s);
  expect(text(result, 'cmdlinecrashed.out')).not.toMatch(/patched/);
  expect(outcome(result, 'byhand')).toMatch(/^0 Patch level 3 applied/);
  expect(outcome(result, 'smart')).toMatch(/^0 Patch level 3 is applied already/);
  expect(outcome(result, 'unload3')).toMatch(/^0 /);
  expect(outcome(result, 'forced')).toMatch(/^0 Patch level 3 applied.*\(sleep\) was passed over by force/s);
  expect(text(result, 'cmdlineforced.out')).toBe('patched level 3');
  expect(outcome(result, 'statusforced')).toMatch(/^0 /);
});

test('nothing is loaded for another kernel, from a cut or unsigned feed, or against the policy of the kernel; a module with a trusted signature is', async () => {
  const [one = ''] = patchsets;
  const result = await guest(
    `
follow ${one}
run enforced kcarectl --update
note cmdline /proc/cmdline
for prefix in otherbuild otherrelease cut; do run $prefix kcarectl --update --prefix $prefix; done
run statusother kcarectl --status --prefix otherbuild
ls /sys/kernel/livepatch >/out/loaded.out
run signed kcarectl --update --prefix signed
note cmdlinesigned /proc/cmdline
rm -r /etc/sysconfig/kcare/keys
run unsigned kcarectl --update --prefix cut
`,
    { kernel: trusting, append: 'module.sig_enforce=1' },
  );
  expect(outcome(result, 'enforced')).toMatch(/^2 .*EKEYREJECTED.*demands signed modules/s);
  expect(text(result, 'cmdline.out')).toMatch(/sig_enforce/);
  expect(outcome(result, 'otherbuild')).toMatch(/^2 .*no patch in/s);
  expect(outcome(result, 'otherrelease')).toMatch(/^2 .*is built for 999/s);
  expect(outcome(result, 'cut')).toMatch(/^2 .*not what the metadata announces/s);
  expect(outcome(result, 'statusother')).toMatch(/^3 /);
  expect(outcome(result, 'unsigned')).toMatch(/^2 /);
  expect(text(result, 'loaded.out')).toBe('');
  expect(outcome(result, 'signed')).toMatch(/^0 Patch level 1 applied/);
  expect(text(result, 'cmdlinesigned.out')).toBe('patched level 1');
});

test('two processors under load, at random addresses: level 1 to 3 and back while another live patch is refused first', async () => {
  const [one = '', , three = ''] = patchsets;
  const result = await guest(
    `
for n in 1 2 3 4; do (while :; do cat /proc/cmdline >/dev/null; done) & done
insmod /root/foreign.ko
until [ "$(cat /sys/kernel/livepatch/foreign/transition)" = 0 ]; do :; done
follow ${one}
run beside kcarectl --update
echo 0 >/sys/kernel/livepatch/foreign/enabled
while [ -e /sys/kernel/livepatch/foreign ]; do :; done
rmmod foreign
run update1 kcarectl --update
follow ${three}
run update3 kcarectl --update
note cmdline3 /proc/cmdline
run unload kcarectl --unload
note after /proc/cmdline
mount -t securityfs securityfs /sys/kernel/security
echo integrity >/sys/kernel/security/lockdown
run locked kcarectl --update
note afterlocked /proc/cmdline
`,
    { withRandomAddresses: true, cpus: 2 },
  );
  expect(outcome(result, 'beside')).toMatch(/^2 .*foreign/s);
  expect(outcome(result, 'update1')).toMatch(/^0 Patch level 1 applied/);
  expect(outcome(result, 'update3')).toMatch(/^0 Patch level 3 applied/);
  expect(text(result, 'cmdline3.out')).toBe('patched level 3');
  expect(outcome(result, 'unload')).toMatch(/^0 /);
  expect(text(result, 'after.out')).toMatch(/console=/);
  expect(outcome(result, 'locked')).toMatch(/^2 .*EPERM.*locked down \(integrity\)/s);
  expect(text(result, 'afterlocked.out')).toMatch(/console=/);
});
