// The record of what is loaded: lines of text that kcare.ko keeps in the kernel and that the agent keeps in /run.
import { type KernelCve, levelOfModule } from '../patchfile/index.js';

/** The first line; the number is the version (kmod/kcare.c). */
const magic = 'kcare 1';

export interface PatchRecord {
  /** Name of the module; what this says counts only while the kernel has that live patch enabled. */
  readonly module: string;
  readonly level: number;
  readonly patchset: string;
  readonly effective: string;
  /** ISO 8601. */
  readonly loaded: string;
  readonly sha256: string;
  readonly cves: readonly KernelCve[];
}

/** Without a record: nothing is loaded. */
export function printRecord(record?: PatchRecord): string {
  if (!record) return `${magic}\n`;
  const { module, patchset, effective, loaded, sha256, cves } = record;
  const lines = [
    magic,
    `module ${module}`,
    `patchset ${patchset}`,
    `effective ${effective}`,
    `loaded ${loaded}`,
    `sha256 ${sha256}`,
    ...cves.map((cve) => `cve ${[cve.id, cve.score, cve.url, cve.description].map(plain).join('\t')}`),
  ];
  return `${lines.join('\n')}\n`;
}

function plain(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ');
}

/** Undefined for anything that is not a whole record. */
export function parseRecord(text: string): PatchRecord | undefined {
  const [first, ...lines] = text.split('\n');
  if (first !== magic) return undefined;
  const values = (key: string): string[] =>
    lines.filter((line) => line.startsWith(`${key} `)).map((line) => line.slice(key.length + 1));
  const [module] = values('module');
  const [patchset] = values('patchset');
  const [effective] = values('effective');
  const [loaded] = values('loaded');
  const [sha256] = values('sha256');
  const level = module === undefined ? undefined : levelOfModule(module);
  if (module === undefined || level === undefined || patchset === undefined) return undefined;
  if (effective === undefined || loaded === undefined || sha256 === undefined) return undefined;
  const cves = values('cve').map((line) => {
    const [id = '', score = '', url = '', description = ''] = line.split('\t');
    return { id, score, url, description };
  });
  return { module, level, patchset, effective, loaded, sha256, cves };
}
