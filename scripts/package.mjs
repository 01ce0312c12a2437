// Makes the packages of a host, kernelcare_VERSION_amd64.deb and kernelcare-VERSION-1.x86_64.rpm: `npm run package`.
//
//   node scripts/package.mjs [--output DIR] [--package-version VERSION] [--only deb|rpm] [--gzip LEVEL]
//
// The same sources give the same bytes: times are SOURCE_DATE_EPOCH, or that of the last commit.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  bashCompletion,
  describeProgram,
  fishCompletion,
  manualPage,
  manualSection,
  zshCompletion,
} from './command-pages.mjs';

const root = path.dirname(import.meta.dirname);
const inRoot = (...parts) => path.join(root, ...parts);

/** What runs on hosts. Commands that build and serve patches need compilers and sources, and stay in a clone. */
const hostCommands = [
  ...['kcarectl', 'kcare-check', 'kcare-uchecker', 'kcare-uname'],
  ...['libcare-client', 'libcare-cron', 'libcare-server'],
];
const bundles = [...hostCommands, 'libcare-worker'];
const home = 'usr/libexec/kcare';
const conffiles = ['etc/sysconfig/kcare/kcare.conf', 'etc/cron.d/kcare-cron'];
const moduleSources = ['kcare.c', 'kcare.h', 'Kbuild', 'Makefile'];
const maintainer = 'kcare <root@localhost>';
const summary = 'live patches for the libraries of running processes and for the kernel';
const description =
  'Replaces vulnerable functions of running processes in memory, without restarting them, and takes them out again.';

function epoch() {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) return Number(given);
  return Number(execFileSync('git', ['-C', root, 'log', '-1', '--format=%ct'], { encoding: 'utf8' }).trim());
}

/** Puts everything that the packages install below `stage`. */
function fillStage(stage, version) {
  const put = (file, content, mode = 0o644) => {
    const target = path.join(stage, file);
    fs.mkdirSync(path.dirname(target), { recursive: true });
    fs.writeFileSync(target, content);
    fs.chmodSync(target, mode);
  };
  const copy = (from, to, mode = 0o644) => put(to, fs.readFileSync(from), mode);
  const tree = (from, to) => {
    for (const name of fs.readdirSync(from, { recursive: true, encoding: 'utf8' })) {
      if (fs.statSync(path.join(from, name)).isFile()) copy(path.join(from, name), path.join(to, name));
    }
  };
  const about = { name: 'kcare', version, license: 'GPL-2.0-only', type: 'module' };
  // packageRoot() looks for this name as it is printed here.
  put(`${home}/package.json`, `${JSON.stringify(about, null, 2)}\n`);
  copy(process.execPath, `${home}/node`, 0o755);
  for (const name of bundles) tree(inRoot('dist/bundle', name), `${home}/dist/bundle/${name}`);
  for (const name of ['kcare_engine.node', 'kcare_guardian']) {
    copy(inRoot('build/Release', name), `${home}/build/Release/${name}`, 0o755);
    execFileSync('strip', ['--strip-unneeded', path.join(stage, home, 'build/Release', name)]);
  }
  copy(inRoot('blacklists/default'), `${home}/blacklists/default`);
  copy(inRoot('blacklists/default'), 'var/lib/libcare/blacklist');
  for (const name of hostCommands) {
    const isServer = name === 'libcare-server';
    const start = `#!/${home}/node\nimport '../dist/bundle/${name}/${name}.js';\n`;
    if (isServer) copy(inRoot('packaging/scripts/libcare-server.sh'), `${home}/libcare-server`, 0o755);
    else put(`${home}/bin/${name}`, start, 0o755);
    fs.mkdirSync(path.join(stage, 'usr/bin'), { recursive: true });
    const target = `../libexec/kcare/${isServer ? '' : 'bin/'}${name}`;
    fs.symlinkSync(target, path.join(stage, 'usr/bin', name));
    const program = describeProgram(name);
    put(
      `usr/share/man/man${manualSection(name)}/${name}.${manualSection(name)}`,
      manualPage(program, version),
    );
    put(`usr/share/bash-completion/completions/${name}`, bashCompletion(program));
    put(`usr/share/zsh/vendor-completions/_${name}`, zshCompletion(program));
    put(`usr/share/fish/vendor_completions.d/${name}.fish`, fishCompletion(program));
  }
  tree(inRoot('packaging/systemd'), 'usr/lib/systemd/system');
  tree(inRoot('packaging/preset'), 'usr/lib/systemd/system-preset');
  copy(inRoot('packaging/audit/kernelcare.rules'), 'etc/audit/rules.d/kernelcare.rules', 0o640);
  copy(inRoot('packaging/config/kcare.conf'), 'etc/sysconfig/kcare/kcare.conf');
  copy(inRoot('packaging/cron/kcare-cron'), 'etc/cron.d/kcare-cron');
  for (const name of moduleSources) copy(inRoot('kmod', name), `usr/src/kcare-${version}/${name}`);
  put(`usr/src/kcare-${version}/dkms.conf`, dkms(version));
  tree(inRoot('docs'), 'usr/share/doc/kcare');
  copy(inRoot('LICENSE'), 'usr/share/doc/kcare/copyright');
}

const dkms = (version) => `PACKAGE_NAME="kcare"
PACKAGE_VERSION="${version}"
BUILT_MODULE_NAME[0]="kcare"
DEST_MODULE_LOCATION[0]="/updates/dkms"
MAKE[0]="make KDIR=$kernel_source_dir"
AUTOINSTALL="yes"
`;

/** Every file and directory below `stage`, relative, in a fixed order. */
function contents(stage) {
  return fs.readdirSync(stage, { recursive: true, encoding: 'utf8' }).sort();
}

/** Modes and times as they are to be in the packages, whatever the umask and the clock say. */
function settle(stage, seconds) {
  for (const name of ['', ...contents(stage)].reverse()) {
    const file = path.join(stage, name);
    const status = fs.lstatSync(file);
    if (status.isDirectory()) fs.chmodSync(file, name === 'etc/audit/rules.d' ? 0o750 : 0o755);
    fs.lutimesSync(file, seconds, seconds);
  }
}

const part = (name) => fs.readFileSync(inRoot('packaging/scripts', `${name}.sh`), 'utf8');

/** The steps of Debian's maintainer scripts as those of packaging/scripts. */
const debianSteps = {
  postinst: `case $1 in configure) [ -z "\${2:-}" ] && step=install || step=upgrade ;; *) exit 0 ;; esac`,
  prerm: 'case $1 in remove) step=remove ;; *) step=upgrade ;; esac',
  postrm: 'case $1 in remove | purge) step=$1 ;; *) step=upgrade ;; esac',
};
const parts = { postinst: 'installed', prerm: 'removing', postrm: 'removed' };

function makeDeb(stage, work, { version, seconds, output, gzip }) {
  const tree = path.join(work, 'deb');
  fs.cpSync(stage, tree, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
  const control = path.join(tree, 'DEBIAN');
  fs.mkdirSync(control);
  const files = contents(tree).filter((name) => fs.lstatSync(path.join(tree, name)).isFile());
  const size = files.reduce(
    (sum, name) => sum + Math.ceil(fs.statSync(path.join(tree, name)).size / 1024),
    0,
  );
  fs.writeFileSync(
    path.join(control, 'control'),
    `Package: kernelcare
Version: ${version}
Architecture: amd64
Maintainer: ${maintainer}
Installed-Size: ${size}
Depends: libc6 (>= 2.36), libstdc++6 (>= 12), libgcc-s1
Suggests: auditd, cron | systemd
Section: admin
Priority: optional
Description: ${summary}
 ${description}
`,
  );
  fs.writeFileSync(path.join(control, 'conffiles'), conffiles.map((name) => `/${name}\n`).join(''));
  const sum = (name) =>
    createHash('md5')
      .update(fs.readFileSync(path.join(tree, name)))
      .digest('hex');
  const summed = files.filter((name) => !conffiles.includes(name));
  fs.writeFileSync(path.join(control, 'md5sums'), summed.map((name) => `${sum(name)}  ${name}\n`).join(''));
  for (const [name, steps] of Object.entries(debianSteps)) {
    fs.writeFileSync(path.join(control, name), `#!/bin/sh\nset -e\n${steps}\n${part(parts[name])}`);
  }
  settle(tree, seconds);
  for (const name of fs.readdirSync(control)) {
    fs.chmodSync(path.join(control, name), name in debianSteps ? 0o755 : 0o644);
  }
  const file = path.join(output, `kernelcare_${version}_amd64.deb`);
  const compression = ['-Zgzip', `-z${gzip}`, '--root-owner-group'];
  execFileSync('dpkg-deb', ['--build', ...compression, tree, file], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, SOURCE_DATE_EPOCH: `${seconds}` },
  });
  return file;
}

/** A percent sign begins a macro. */
const plain = (text) => text.replaceAll('%', '%%');

function makeRpm(stage, work, { version, seconds, output, gzip }) {
  const listed = contents(stage).filter((name) => !fs.lstatSync(path.join(stage, name)).isDirectory());
  const own = ['usr/libexec/kcare', 'etc/sysconfig/kcare', 'usr/share/doc/kcare', 'var/lib/libcare'];
  const inside = contents(stage).filter(
    (name) =>
      fs.lstatSync(path.join(stage, name)).isDirectory() &&
      own.some((top) => name === top || name.startsWith(`${top}/`)),
  );
  const mode = (name) => (fs.statSync(path.join(stage, name)).mode & 0o7777).toString(8).padStart(4, '0');
  const entry = (name) => {
    if (fs.lstatSync(path.join(stage, name)).isSymbolicLink()) return `/${name}`;
    return `${conffiles.includes(name) ? '%config(noreplace) ' : ''}%attr(${mode(name)}, root, root) /${name}`;
  };
  const step = (count, first, second) =>
    `if [ "$1" = ${count} ]; then step=${first}; else step=${second}; fi`;
  const spec = path.join(work, 'kernelcare.spec');
  fs.writeFileSync(
    spec,
    `%global debug_package %{nil}
%global __os_install_post %{nil}
%global _build_id_links none
%global _binary_payload w${gzip}.gzdio
%global _buildhost localhost
%global use_source_date_epoch_as_buildtime 1
%global clamp_mtime_to_source_date_epoch 1
Name: kernelcare
Version: ${version}
Release: 1
Summary: ${summary}
License: GPL-2.0-only
BuildArch: x86_64
AutoReqProv: no
Requires: glibc >= 2.36, libstdc++ >= 12, libgcc
%description
${description}
%install
mkdir -p %{buildroot}
cp -a ${stage}/. %{buildroot}/
%post
${step(1, 'install', 'upgrade')}
${plain(part('installed'))}
%preun
${step(0, 'remove', 'upgrade')}
${plain(part('removing'))}
%postun
${step(0, 'remove', 'upgrade')}
${plain(part('removed'))}
%files
${inside.map((name) => `%dir %attr(0755, root, root) /${name}`).join('\n')}
${listed.map(entry).join('\n')}
`,
  );
  const place = (name) => ['--define', `_${name} ${path.join(work, 'rpm', name)}`];
  execFileSync(
    'rpmbuild',
    ['-bb', '--quiet', '--target', 'x86_64', '--define', `_topdir ${path.join(work, 'rpm')}`]
      .concat(place('rpmdir'), place('dbpath'))
      .concat(['--buildroot', path.join(work, 'rpm', 'root'), spec]),
    { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, SOURCE_DATE_EPOCH: `${seconds}` } },
  );
  const name = `kernelcare-${version}-1.x86_64.rpm`;
  fs.copyFileSync(path.join(work, 'rpm', 'rpmdir', 'x86_64', name), path.join(output, name));
  return path.join(output, name);
}

function makePackages() {
  const { values } = parseArgs({
    options: {
      output: { type: 'string', default: inRoot('build/packages') },
      'package-version': { type: 'string' },
      only: { type: 'string' },
      gzip: { type: 'string', default: '6' },
    },
  });
  const { version: ownVersion } = JSON.parse(fs.readFileSync(inRoot('package.json'), 'utf8'));
  const version = values['package-version'] ?? ownVersion;
  if (!/^\d+(?:\.\d+)*$/.test(version)) throw new Error(`${version} is no version of a package.`);
  if (!/^[1-9]$/.test(values.gzip)) throw new Error('--gzip takes a level from 1 to 9.');
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-package-'));
  try {
    const stage = path.join(work, 'stage');
    const seconds = epoch();
    const output = path.resolve(values.output);
    fs.mkdirSync(output, { recursive: true });
    fillStage(stage, version);
    settle(stage, seconds);
    const options = { version, seconds, output, gzip: values.gzip };
    const makers = { deb: makeDeb, rpm: makeRpm };
    const chosen = Object.keys(makers).filter((kind) => (values.only ?? kind) === kind);
    if (chosen.length === 0) throw new Error('--only takes deb or rpm.');
    const made = chosen.map((kind) => makers[kind](stage, work, options));
    const sum = (file) => createHash('sha256').update(fs.readFileSync(file)).digest('hex');
    fs.writeFileSync(
      path.join(output, 'SHA256SUMS'),
      made.map((file) => `${sum(file)}  ${path.basename(file)}\n`).join(''),
    );
    made.forEach((file) => console.log(file));
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

if (process.argv[1] === import.meta.filename) {
  try {
    makePackages();
  } catch (error) {
    const isMissing = error.code === 'ENOENT' && error.syscall?.startsWith('spawn');
    const advice = isMissing ? ' Install the Debian packages build-essential and rpm.' : '';
    process.stderr.write(`package: ${error.message}${advice}\n`);
    process.exitCode = 1;
  }
}
