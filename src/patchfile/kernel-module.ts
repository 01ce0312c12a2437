// Kernel patches: a livepatch module says in its .modinfo what it is for; this reads it from untrusted bytes.
import { KcareError } from '../base/errors.js';
import { findSection, parseElf } from '../elf/index.js';

export const kernelModuleExtension = '.ko';

export interface KernelCve {
  readonly id: string;
  readonly score: string;
  readonly url: string;
  readonly description: string;
}

/** What a kernel patch says about itself. The fields that are not the kernel's own: docs/kernel.md. */
export interface KernelModule {
  /** As the kernel will name it; ends with the level. */
  readonly name: string;
  readonly level: number;
  /** As `uname -r` prints it. */
  readonly release: string;
  readonly vermagic: string;
  /** Build-id of the kernel, as in /sys/kernel/notes. */
  readonly buildId: string;
  /** What the kernel is worth with this patch. */
  readonly effective: string;
  readonly packageVersion: string;
  readonly cves: readonly KernelCve[];
  /** A signature for the kernel is appended. */
  readonly isSigned: boolean;
}

/** Names begin with this, so that the patches of others are told apart. */
export const kernelModulePrefix = 'kcare_';

const signatureEnd = '~Module signature appended~\n';
const longestField = 4096;
const mostCves = 10_000;

/** The level in the name of a module of ours, undefined for one of somebody else. */
export function levelOfModule(name: string): number | undefined {
  const digits = /^kcare_(?:[a-z0-9_]*_)?([1-9]\d{0,8})$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Throws ELF_MALFORMED, ELF_UNSUPPORTED, KERNEL_PATCH_MALFORMED. */
export function readKernelModule(bytes: Uint8Array): KernelModule {
  const elf = parseElf(bytes);
  if (elf.type !== 1) throw malformed('it is not a relocatable file');
  const section = findSection(elf, '.modinfo');
  if (!section) throw malformed('it has no .modinfo section');
  const info = fieldsOf(section.bytes);
  const one = (key: string): string => {
    const [value, ...more] = info.get(key) ?? [];
    if (value === undefined) throw malformed(`.modinfo lacks "${key}"`);
    if (more.length > 0) throw malformed(`.modinfo has "${key}" more than once`);
    return value;
  };
  if (one('livepatch') !== 'Y') throw malformed('it is not a livepatch module');
  const name = one('name');
  const level = levelOfModule(name);
  if (level === undefined) throw malformed(`its name "${name}" is not of the form kcare_..._LEVEL`);
  if (one('kcare_level') !== String(level)) throw malformed('its name and kcare_level differ');
  const buildId = one('kcare_kernel');
  if (!/^[0-9a-f]{8,128}$/.test(buildId)) throw malformed('kcare_kernel is not a build-id');
  const vermagic = one('vermagic').trimEnd();
  const release = /^(\S+)/.exec(vermagic)?.[1] ?? '';
  const cves = (info.get('kcare_cve') ?? []).map(cveOf);
  if (cves.length > mostCves) throw malformed('it names too many vulnerabilities');
  const effective = one('kcare_effective');
  const packageVersion = info.get('kcare_package_version')?.[0] ?? '';
  if (!/^[\w.+~:-]{1,128}$/.test(effective)) throw malformed('kcare_effective is not a version');
  const isSigned = Buffer.from(bytes.subarray(-signatureEnd.length)).toString('latin1') === signatureEnd;
  return { name, level, release, vermagic, buildId, effective, packageVersion, cves, isSigned };
}

/** "ID SCORE URL DESCRIPTION": the first is needed, "-" stands for what is not known. */
function cveOf(text: string): KernelCve {
  const [, id = '', score = '-', url = '-', description = ''] =
    /^([A-Za-z0-9][\w.-]{0,63})(?: (\S{1,16})(?: (\S{1,2048})(?: (.*))?)?)?$/.exec(text) ?? [];
  if (id === '') throw malformed(`kcare_cve "${text.slice(0, 80)}" is not "ID SCORE URL DESCRIPTION"`);
  const known = (word: string): string => (word === '-' ? '' : word);
  return { id, score: known(score), url: known(url), description };
}

/** "key=value", each ended by a null byte; keys may come more than once. */
function fieldsOf(bytes: Uint8Array): Map<string, string[]> {
  const fields = new Map<string, string[]>();
  for (const text of Buffer.from(bytes).toString('utf8').split('\0')) {
    if (text === '') continue;
    if (text.length > longestField || /\p{Cc}/u.test(text))
      throw malformed('.modinfo holds a field that is no line of text');
    const equals = text.indexOf('=');
    if (equals < 1) throw malformed('.modinfo holds a field without a name');
    const key = text.slice(0, equals);
    fields.set(key, [...(fields.get(key) ?? []), text.slice(equals + 1)]);
  }
  return fields;
}

function malformed(why: string): KcareError {
  return new KcareError('KERNEL_PATCH_MALFORMED', `This is no kernel patch: ${why}.`);
}
