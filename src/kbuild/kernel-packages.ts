// Kernels of the distribution's archive: image, headers and sources, unpacked and never installed.
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { PrivateApt } from '../build/apt.js';
import { compareVersions, run, unpackBinary } from '../build/index.js';
import { makeDirectoryOnce, withLock } from '../build/work-directory.js';

/** A kernel that the archive holds. */
export interface ArchiveKernel {
  /** As `uname -r` prints it. */
  readonly release: string;
  /** Of the package. */
  readonly version: string;
}

export interface KernelImage extends ArchiveKernel {
  /** As a boot loader starts it; chooses random addresses. */
  readonly bzImage: string;
  /** The ELF file in it, for a start by PVH; lies at its linked addresses. */
  readonly vmlinux: string;
  /** lib/modules/RELEASE of the package. */
  readonly modules: string;
  readonly config: string;
}

/** The newest package that the archive has of the kernel `release`. Throws ARCHIVE_UNAVAILABLE. */
export async function findKernel(work: string, release: string): Promise<ArchiveKernel> {
  if (!/^\d+\.\d+\.\d+-[a-z0-9.+-]+$/.test(release))
    throw new KcareError('USAGE', `${release} is no release of a kernel, such as uname -r prints it.`);
  const unpacked = await readdir(path.join(work, 'kernels')).catch(() => []);
  const known = unpacked.flatMap((name) => {
    const [itsRelease, version, ...more] = name.split('_');
    return itsRelease === release && version !== undefined && more.length === 0 ? [version] : [];
  });
  const versions = known.length > 0 ? known : await archiveVersions(work, `linux-image-${release}`);
  const version = versions.sort(compareVersions).at(-1);
  if (version === undefined)
    throw new KcareError('ARCHIVE_UNAVAILABLE', `The archive has no linux-image-${release}.`);
  return { release, version };
}

/**
 * The version of the source from which fixes are taken: `wanted`, or the next one after it when the archive holds that
 * no longer. Throws ARCHIVE_UNAVAILABLE.
 */
export function findSource(work: string, wanted: string): Promise<string> {
  return versionOrNext(work, sourcePackage(wanted), wanted);
}

/** Packages of one source come and go at different times. */
async function versionOrNext(work: string, name: string, wanted: string): Promise<string> {
  if (existsSync(path.join(work, 'binary', `${name}_${wanted}`))) return wanted;
  const versions = (await archiveVersions(work, name)).sort(compareVersions);
  const version = versions.find((one) => compareVersions(one, wanted) >= 0);
  if (version === undefined)
    throw new KcareError('ARCHIVE_UNAVAILABLE', `The archive has no ${name} of ${wanted} or later.`);
  return version;
}

async function archiveVersions(work: string, name: string): Promise<string[]> {
  const apt = await PrivateApt.open(work);
  if (!apt.isUpdated) await apt.update();
  const records = await apt.records(name).catch(() => []);
  return records.flatMap((record) => /^Version: (\S+)$/m.exec(record)?.[1] ?? []);
}

const sourcePackage = (version: string): string => `linux-source-${/^\d+\.\d+/.exec(version)?.[0] ?? ''}`;

/** The image package of `kernel`, with vmlinux taken out of it. Cached. */
export async function unpackKernelImage(work: string, kernel: ArchiveKernel): Promise<KernelImage> {
  const { release, version } = kernel;
  const root = await unpackBinary(work, `linux-image-${release}`, version);
  const bzImage = path.join(root, 'boot', `vmlinuz-${release}`);
  const directory = path.join(work, 'kernels', `${release}_${version}`);
  await makeDirectoryOnce(directory, async (fresh) => {
    await writeFile(path.join(fresh, 'vmlinux'), await vmlinuxOf(await readFile(bzImage)));
  });
  return {
    ...kernel,
    bzImage,
    vmlinux: path.join(directory, 'vmlinux'),
    modules: path.join(root, 'lib', 'modules', release),
    config: path.join(root, 'boot', `config-${release}`),
  };
}

/** https://docs.kernel.org/arch/x86/boot.html: setup_sects, payload_offset, payload_length. */
async function vmlinuxOf(image: Buffer): Promise<Buffer> {
  if (image.toString('latin1', 0x202, 0x206) !== 'HdrS') throw malformed('this is no bzImage');
  const setupSectors = image.readUInt8(0x1f1) || 4;
  const begin = (setupSectors + 1) * 512 + image.readUInt32LE(0x248);
  const payload = image.subarray(begin, begin + image.readUInt32LE(0x24c));
  if (payload.length < 8) throw malformed('there is no packed kernel in it');
  // The last four bytes are the length of the unpacked kernel.
  const length = payload.readUInt32LE(payload.length - 4);
  const magic = payload.readUInt32BE(0);
  const program = { 0x02214c18: 'lz4', 0xfd377a58: 'xz' }[magic];
  if (program === undefined) throw malformed(`it is packed in an unknown way (${magic.toString(16)})`);
  const unpacked = await filter(program, ['-dc'], payload.subarray(0, -4), length);
  if (unpacked.length !== length)
    throw malformed(`${program} unpacked ${unpacked.length} of ${length} bytes`);
  return unpacked;
}

const malformed = (why: string): KcareError =>
  new KcareError('ELF_MALFORMED', `The image of the kernel cannot be read: ${why}.`);

function filter(
  program: string,
  parameters: readonly string[],
  input: Buffer,
  length: number,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...parameters],
      { encoding: 'buffer', maxBuffer: length + 4096 },
      (error, stdout, stderr) => {
        if (error) reject(new KcareError('BUILD_TOOL_FAILED', `${program} failed: ${stderr.toString()}`));
        else resolve(stdout);
      },
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

interface HeaderPackages {
  /** usr/src/linux-headers-RELEASE: what the configuration of this kernel made. */
  readonly flavour: string;
  /** usr/lib/linux-kbuild-SERIES: the programs of the build. */
  readonly programs: string;
  readonly roots: readonly string[];
}

async function headerPackages(work: string, { release, version }: ArchiveKernel): Promise<HeaderPackages> {
  const name = `linux-headers-${release}`;
  const flavourRoot = await unpackBinary(work, name, version);
  // What the package links to, once it is installed, are the two that it depends on.
  const makefile = await readFile(path.join(flavourRoot, 'usr/src', name, 'Makefile'), 'utf8');
  const common = /linux-headers-\S+-common/.exec(makefile)?.[0] ?? '';
  const target = await readlink(path.join(flavourRoot, 'usr/src', name, 'scripts'));
  const programsName = /linux-kbuild-[^/]+/.exec(target)?.[0] ?? '';
  const roots = [flavourRoot];
  roots.push(await unpackBinary(work, common, version));
  const programsVersion = await versionOrNext(work, programsName, version);
  roots.push(await unpackBinary(work, programsName, programsVersion));
  const [, , programs = ''] = roots;
  return {
    flavour: path.join(flavourRoot, 'usr/src', name),
    programs: path.join(programs, 'usr/lib', programsName),
    roots,
  };
}

/** The directory that modules for `kernel` are built against (make -C). Cached. */
export async function unpackKernelHeaders(work: string, kernel: ArchiveKernel): Promise<string> {
  const { release, version } = kernel;
  const directory = path.join(work, 'kernels', `${release}_${version}_headers`);
  await makeDirectoryOnce(directory, async (fresh) => {
    for (const root of (await headerPackages(work, kernel)).roots)
      await cp(root, fresh, { recursive: true, verbatimSymlinks: true });
    // The packages expect to be installed.
    const makefile = path.join(fresh, 'usr/src', `linux-headers-${release}`, 'Makefile');
    const text = await readFile(makefile, 'utf8');
    await writeFile(makefile, text.replaceAll('/usr/src/', `${path.join(directory, 'usr/src')}/`));
  });
  return path.join(directory, 'usr/src', `linux-headers-${release}`);
}

/** linux-source-SERIES.tar.xz of this version of the kernel's packages. Cached. */
async function sourceTarball(work: string, version: string): Promise<string> {
  const name = sourcePackage(version);
  const root = await unpackBinary(work, name, version);
  return path.join(root, 'usr/src', `${name}.tar.xz`);
}

/** What most units need; drivers and sound are large, and are unpacked when one of their files is asked for. */
const leftOut = ['drivers', 'sound', 'Documentation', 'tools', 'samples', 'arch/[!x]*', 'arch/xtensa'];

/** Unpacks the members of the source tarball that are named, without its first directory. */
async function unpackMembers(tarball: string, tree: string, choice: readonly string[]): Promise<void> {
  const parameters = ['-xf', tarball, '-C', tree, '--strip-components=1', '--no-same-owner', '--anchored'];
  await run('tar', [...parameters, '--wildcards', ...choice]);
}

/**
 * A tree in which single units of `kernel` compile as they did when it was built: its source, with what its headers
 * packages hold of the finished build. Cached; `files` are units that are wanted in it.
 */
export async function prepareKernelTree(
  work: string,
  kernel: ArchiveKernel,
  files: readonly string[],
): Promise<string> {
  const directory = path.join(work, 'kernels', `${kernel.release}_${kernel.version}_tree`);
  const first = sourcePackage(kernel.version);
  await withLock(path.join(work, 'kernel-trees'), async () => {
    await makeDirectoryOnce(directory, async (fresh) => {
      const tarball = await sourceTarball(work, kernel.version);
      await unpackMembers(
        tarball,
        fresh,
        leftOut.map((part) => `--exclude=${first}/${part}`),
      );
      await addPrepared(work, kernel, fresh);
    });
    for (const part of ['drivers', 'sound']) {
      if (!files.some((file) => file.startsWith(`${part}/`)) || existsSync(path.join(directory, part)))
        continue;
      const tarball = await sourceTarball(work, kernel.version);
      await makeDirectoryOnce(path.join(directory, part), async (fresh) => {
        await unpackMembers(tarball, fresh, [`${first}/${part}`]);
        const inner = path.join(fresh, part);
        for (const name of await readdir(inner)) await run('mv', [path.join(inner, name), fresh]);
        await rm(inner, { recursive: true });
      });
    }
  });
  return directory;
}

async function addPrepared(work: string, kernel: ArchiveKernel, tree: string): Promise<void> {
  const { flavour, programs } = await headerPackages(work, kernel);
  const image = await unpackKernelImage(work, kernel);
  const copy = (from: string, to: string): Promise<void> =>
    cp(from, path.join(tree, to), { recursive: true, force: false, verbatimSymlinks: true });
  await copy(path.join(flavour, 'include'), 'include');
  await copy(path.join(flavour, 'arch/x86/include/generated'), 'arch/x86/include/generated');
  await copy(path.join(flavour, 'Module.symvers'), 'Module.symvers');
  await copy(image.config, '.config');
  await copy(path.join(programs, 'scripts'), 'scripts');
  await copy(path.join(programs, 'tools'), 'tools');
}

/** The texts of `files` in the source of another version; absent ones are left out. Cached. */
export async function sourceFiles(
  work: string,
  version: string,
  files: readonly string[],
): Promise<Map<string, string>> {
  const directory = path.join(work, 'kernel-sources', version);
  const texts = new Map<string, string>();
  await withLock(path.join(work, 'kernel-trees'), async () => {
    await mkdir(directory, { recursive: true });
    // A file that is not there is remembered by an empty one.
    const unknown = files.filter((file) => !existsSync(path.join(directory, file)));
    if (unknown.length > 0) {
      const tarball = await sourceTarball(work, version);
      const first = path.basename(tarball, '.tar.xz');
      // tar ends with an error when a member is missing: what it found counts.
      await unpackMembers(
        tarball,
        directory,
        unknown.map((file) => `${first}/${file}`),
      ).catch((error: unknown) => {
        if (!(error instanceof KcareError) || !/Not found in archive/.test(error.message)) throw error;
      });
    }
    for (const file of files) {
      const place = path.join(directory, file);
      if (existsSync(place)) texts.set(file, await readFile(place, 'utf8'));
    }
  });
  return texts;
}
