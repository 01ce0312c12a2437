// /etc/sysconfig/kcare/sysctl.conf: switches of single fixes, set again whenever a patch was loaded.
import { writeFileSync } from 'node:fs';

export interface Sysctl {
  readonly key: string;
  readonly value: string;
  /** First line is 1. */
  readonly line: number;
}

/** "key = value" lines as sysctl.conf(5) has them; what is none goes into `problems`. */
export function parseSysctls(text: string): {
  readonly settings: readonly Sysctl[];
  readonly problems: readonly string[];
} {
  const settings: Sysctl[] = [];
  const problems: string[] = [];
  text.split(/\r?\n/).forEach((raw, index) => {
    const content = raw.trim();
    if (content === '' || content.startsWith('#') || content.startsWith(';')) return;
    const [, key = '', value = ''] = /^-?([\w.*/-]+)\s*=\s*(.*)$/.exec(content) ?? [];
    const parts = key.split(/[./]/);
    if (key === '' || parts.some((part) => part === '' || part.includes('*')))
      problems.push(`line ${index + 1}: "${content.slice(0, 80)}" is not of the form key = value`);
    else settings.push({ key, value, line: index + 1 });
  });
  return { settings, problems };
}

/** Sets what it can; returns what it could not. A name without a dot is one of ours, below kernel. */
export function applySysctls(settings: readonly Sysctl[]): string[] {
  return settings.flatMap(({ key, value, line }) => {
    const name = /[./]/.test(key) ? key : `kernel.${key}`;
    try {
      writeFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, `${value}\n`, { flag: 'r+' });
      return [];
    } catch (thrown) {
      return [
        `line ${line}: ${key} cannot be set (${thrown instanceof Error ? thrown.message : String(thrown)})`,
      ];
    }
  });
}
