// kcare.conf as a typed record: every key that users know, checked when read.
import { invalid, parseShellSettings, type Setting } from './shell-settings.js';

export type UserspacePatchType = 'libs' | 'qemu';

export interface AgentConfig {
  readonly autoUpdate: boolean;
  readonly patchMethod: 'normal' | 'nofreeze' | 'smart';
  /** URL or path of the patch server; undefined when it is not set. */
  readonly patchServer: string | undefined;
  readonly registrationUrl: string | undefined;
  readonly prefix: string | undefined;
  /** Of kernel patches. */
  readonly patchType: 'extra' | 'free' | undefined;
  readonly updatePolicy: 'REMOTE' | 'LOCAL' | 'LOCAL_FIRST';
  readonly ignoreUnknownKernel: boolean;
  readonly loadKcareSysctl: boolean;
  readonly stickyPatch: StickyPatch | undefined;
  readonly stickyPatchset: string | undefined;
  readonly autoStickyPatchset: string | undefined;
  /** Milliseconds that a patchset must be old. */
  readonly updateDelayMs: number | undefined;
  readonly autoUpdateDelayMs: number | undefined;
  readonly reportFqdn: boolean;
  readonly forceGid: number | undefined;
  readonly userspacePatches: readonly UserspacePatchType[];
  readonly httpProxy: string | undefined;
  readonly httpsProxy: string | undefined;
}

/** `key`: the licence portal names the date. `date`: ISO 8601 date; newer patchsets are not used. */
export type StickyPatch = { readonly kind: 'key' } | { readonly kind: 'date'; readonly date: string };

export interface ConfigWarning {
  readonly line: number;
  readonly message: string;
}

type Fields = { -readonly [Key in keyof AgentConfig]: AgentConfig[Key] };
type Apply = (config: Fields, setting: Setting) => void;

export const defaultConfig: AgentConfig = {
  autoUpdate: true,
  patchMethod: 'normal',
  patchServer: undefined,
  registrationUrl: undefined,
  prefix: undefined,
  patchType: undefined,
  updatePolicy: 'REMOTE',
  ignoreUnknownKernel: false,
  loadKcareSysctl: true,
  stickyPatch: undefined,
  stickyPatchset: undefined,
  autoStickyPatchset: undefined,
  updateDelayMs: undefined,
  autoUpdateDelayMs: undefined,
  reportFqdn: false,
  forceGid: undefined,
  userspacePatches: ['libs'],
  httpProxy: undefined,
  httpsProxy: undefined,
};

/** All keys of the file; an empty value leaves the default. */
const keys: Readonly<Record<string, Apply>> = {
  AUTO_UPDATE: (config, setting) => (config.autoUpdate = truth(setting)),
  PATCH_METHOD: (config, setting) => (config.patchMethod = oneOf(setting, ['normal', 'nofreeze', 'smart'])),
  PATCH_SERVER: (config, setting) => (config.patchServer = server(setting)),
  REGISTRATION_URL: (config, setting) => (config.registrationUrl = url(setting)),
  PREFIX: (config, setting) =>
    (config.prefix = matching(
      setting,
      /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
      'one word such as test, 12h, 24h, 48h',
    )),
  PATCH_TYPE: (config, setting) => (config.patchType = oneOf<'extra' | 'free'>(setting, ['extra', 'free'])),
  UPDATE_POLICY: (config, setting) =>
    (config.updatePolicy = oneOf(setting, ['REMOTE', 'LOCAL', 'LOCAL_FIRST'])),
  IGNORE_UNKNOWN_KERNEL: (config, setting) => (config.ignoreUnknownKernel = truth(setting)),
  LOAD_KCARE_SYSCTL: (config, setting) => (config.loadKcareSysctl = truth(setting)),
  STICKY_PATCH: (config, setting) => (config.stickyPatch = stickyPatch(setting)),
  STICKY_PATCHSET: (config, setting) => (config.stickyPatchset = patchsetName(setting)),
  AUTO_STICKY_PATCHSET: (config, setting) => (config.autoStickyPatchset = patchsetName(setting)),
  UPDATE_DELAY: (config, setting) => (config.updateDelayMs = delay(setting)),
  AUTO_UPDATE_DELAY: (config, setting) => (config.autoUpdateDelayMs = delay(setting)),
  REPORT_FQDN: (config, setting) => (config.reportFqdn = truth(setting)),
  FORCE_GID: (config, setting) =>
    (config.forceGid = Number(matching(setting, /^\d{1,9}$/, 'a group number'))),
  USERSPACE_PATCHES: (config, setting) =>
    (config.userspacePatches = patchTypes(setting.value, (problem) => invalid(setting.line, problem))),
  HTTP_PROXY: (config, setting) => (config.httpProxy = url(setting)),
  HTTPS_PROXY: (config, setting) => (config.httpsProxy = url(setting)),
};

export const configKeys: readonly string[] = Object.keys(keys);

/** Parses kcare.conf. Unknown keys become warnings; wrong values throw CONFIG_INVALID with the line. The last of equal keys wins. */
export function parseConfig(text: string): {
  readonly config: AgentConfig;
  readonly warnings: readonly ConfigWarning[];
} {
  const config: Fields = { ...defaultConfig };
  const warnings: ConfigWarning[] = [];
  for (const setting of parseShellSettings(text)) {
    // Only the proxies are written in either case, as their variables in the environment are.
    const key = /^https?_proxy$/i.test(setting.key) ? setting.key.toUpperCase() : setting.key;
    const apply = Object.hasOwn(keys, key) ? keys[key] : undefined;
    if (!apply)
      warnings.push({
        line: setting.line,
        message: `${setting.key} is not a key of kcare.conf; it has no effect.`,
      });
    else if (setting.value !== '') apply(config, setting);
  }
  return { config, warnings };
}

/** A list such as "libs,qemu". */
export function patchTypes(list: string, fail: (problem: string) => Error): UserspacePatchType[] {
  return list.split(',').map((name) => {
    const type = name.trim().toLowerCase();
    if (type !== 'libs' && type !== 'qemu')
      throw fail(`"${name.trim()}" is none of the patch types libs, qemu`);
    return type;
  });
}

function wrongValue({ key, value, line }: Setting, expected: string): Error {
  return invalid(line, `${key} is "${value.slice(0, 80)}", not ${expected}`);
}

function truth(setting: Setting): boolean {
  const word = setting.value.toLowerCase();
  if (['true', 'yes', '1', 'on'].includes(word)) return true;
  if (['false', 'no', '0', 'off'].includes(word)) return false;
  throw wrongValue(setting, 'True or False');
}

function oneOf<Choice extends string>(setting: Setting, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice.toLowerCase() === setting.value.toLowerCase());
  if (found === undefined) throw wrongValue(setting, `one of ${choices.join(', ')}`);
  return found;
}

function matching(setting: Setting, pattern: RegExp, expected: string): string {
  if (!pattern.test(setting.value)) throw wrongValue(setting, expected);
  return setting.value;
}

/** A path that is not absolute would depend on where kcarectl is called. */
function server(setting: Setting): string {
  const { value } = setting;
  const isUrl = /^(?:https?|file):/i.test(value) && URL.canParse(value);
  if (!isUrl && !value.startsWith('/'))
    throw wrongValue(setting, 'a URL (http, https, file) or an absolute path');
  return value;
}

function url(setting: Setting): string {
  const parsed = URL.canParse(setting.value) ? new URL(setting.value) : undefined;
  if (!parsed || !['http:', 'https:'].includes(parsed.protocol))
    throw wrongValue(setting, 'an http or https URL');
  return setting.value;
}

function patchsetName(setting: Setting): string {
  return matching(setting, /^[KU]\d{8}_\d{2}$/, 'the name of a patchset such as U20210129_02');
}

function delay(setting: Setting): number {
  const [, count, unit] = /^(\d{1,5})([hd])$/.exec(setting.value) ?? [];
  if (count === undefined) throw wrongValue(setting, 'a time such as 24h or 2d');
  return Number(count) * (unit === 'd' ? 24 : 1) * 3_600_000;
}

/** DDMMYY, DDMMYYYY, YYYY-mm-dd, or the word KEY. */
function stickyPatch(setting: Setting): StickyPatch {
  if (setting.value === 'KEY') return { kind: 'key' };
  const [, year, month, day] = /^(\d{4})-(\d\d)-(\d\d)$/.exec(setting.value) ?? [];
  const [, day2, month2, year2] = /^(\d\d)(\d\d)(\d{4}|\d\d)$/.exec(setting.value) ?? [];
  const fullYear = year ?? (year2?.length === 2 ? `20${year2}` : year2);
  const date = `${fullYear ?? ''}-${month ?? month2 ?? ''}-${day ?? day2 ?? ''}`;
  const time = Date.parse(`${date}T00:00:00Z`);
  if (Number.isNaN(time) || new Date(time).toISOString().slice(0, 10) !== date) {
    throw wrongValue(setting, 'a date (DDMMYY, DDMMYYYY, YYYY-mm-dd) or KEY');
  }
  return { kind: 'date', date };
}
