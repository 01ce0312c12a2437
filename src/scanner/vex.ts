// An OpenVEX document (https://github.com/openvex/spec, v0.2.0): each vulnerability with its status in each package here.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Agent } from '../agent/index.js';
import { userAgent } from '../agent/version.js';
import type { PatchEntry } from '../feed/index.js';
import type { HostTruth } from './cve-list.js';
import { debianArchitecture, installedPackages, type InstalledPackages } from './debian-packages.js';
import type { SurveyedObject } from './survey.js';
import type { CveVerdict, LeftBehind } from './verdicts.js';

export interface VexStatement {
  readonly vulnerability: {
    readonly '@id'?: string;
    readonly name: string;
    readonly description?: string;
  };
  readonly products: readonly [{ readonly '@id': string; readonly identifiers: { readonly purl: string } }];
  readonly status: 'fixed' | 'affected' | 'under_investigation';
  readonly timestamp: string;
  readonly status_notes: string;
  readonly action_statement?: string;
}

export interface VexDocument {
  readonly '@context': 'https://openvex.dev/ns/v0.2.0';
  readonly '@id': string;
  readonly author: string;
  readonly role: string;
  readonly timestamp: string;
  readonly version: 1;
  readonly tooling: string;
  readonly statements: readonly VexStatement[];
}

/** Whether patches cover what runs here. Packages that are neither installed nor run are left out. */
export function vexDocument({ paths }: Agent, truth: HostTruth): VexDocument {
  const installed = installedPackages(paths.root);
  const timestamp = truth.survey.taken.toISOString();
  const statements = truth.verdicts.flatMap((verdict) => statementsOf(verdict, installed, timestamp));
  const content = JSON.stringify([hostId(paths.root), statements.map((one) => ({ ...one, timestamp: '' }))]);
  return {
    '@context': 'https://openvex.dev/ns/v0.2.0',
    // The same host in the same state gives the same id, at any time.
    '@id': `https://openvex.dev/docs/public/vex-${createHash('sha256').update(content).digest('hex')}`,
    author: `kcare on ${hostname()}`,
    role: 'Live patching agent',
    timestamp,
    version: 1,
    tooling: userAgent(),
    statements,
  };
}

interface Product {
  readonly entry: PatchEntry;
  readonly fixed: { readonly pid: number; readonly object: SurveyedObject }[];
  readonly leftBehind: LeftBehind[];
}

function statementsOf(verdict: CveVerdict, installed: InstalledPackages, timestamp: string): VexStatement[] {
  const products = new Map<string, Product>();
  const productOf = (purl: string, entry: PatchEntry): Product => {
    const known = products.get(purl) ?? { entry, fixed: [], leftBehind: [] };
    products.set(purl, known);
    return known;
  };
  const unreadable = verdict.leftBehind.filter(({ object }) => !object);
  for (const entry of verdict.entries) {
    if (installed.version(entry.package) === entry.packageVersion) productOf(purlOfEntry(entry), entry);
  }
  for (const one of verdict.fixed) {
    const { entry } = one.object;
    if (entry) productOf(purlOfEntry(entry), entry).fixed.push(one);
  }
  for (const one of verdict.leftBehind) {
    if (!one.object) continue;
    const entry = one.object.entry ?? one.object.namesakes[0];
    if (entry) productOf(purlOf(one.object), entry).leftBehind.push(one);
  }
  return [...products].map(([purl, product]) => ({
    vulnerability: vulnerabilityOf(verdict),
    products: [{ '@id': purl, identifiers: { purl } }],
    ...statusOf(product, unreadable),
    timestamp,
  }));
}

function vulnerabilityOf({ cve, entries }: CveVerdict): VexStatement['vulnerability'] {
  const known = entries.flatMap(({ cves }) => cves).find(({ id }) => id === cve);
  return {
    ...(known && URL.canParse(known.url) && { '@id': known.url }),
    name: cve,
    ...(known && known.description !== '' && { description: known.description }),
  };
}

function statusOf(
  { entry, fixed, leftBehind }: Product,
  unreadable: readonly LeftBehind[],
): Pick<VexStatement, 'status' | 'status_notes' | 'action_statement'> {
  const unknown = leftBehind.filter(({ reason }) => reason === 'unknown-build' || reason === 'unreadable');
  const known = leftBehind.filter((one) => !unknown.includes(one));
  if (known.length > 0) {
    return {
      status: 'affected',
      status_notes: describe(known),
      action_statement: `Run kcarectl --lib-update, or ${upgrade(entry)}, and restart what is excluded from patching.`,
    };
  }
  if (unknown.length + unreadable.length > 0)
    return { status: 'under_investigation', status_notes: describe([...unknown, ...unreadable]) };
  if (fixed.length > 0) {
    const number = new Set(fixed.map(({ pid }) => pid)).size;
    return {
      status: 'fixed',
      status_notes: `Fixed in memory in all ${number} running processes that use it; the package itself is not.`,
    };
  }
  return {
    status: 'affected',
    status_notes: 'No running process uses it; one that starts has to be patched.',
    action_statement: `Do one of both: ${upgrade(entry)}; patch new processes by kcarectl --lib-update.`,
  };
}

function upgrade({ package: name, fixedVersion }: PatchEntry): string {
  return `upgrade ${name === '' ? 'the software' : name}${fixedVersion === '' ? '' : ` to ${fixedVersion}`}`;
}

const mostNamed = 5;

function describe(leftBehind: readonly LeftBehind[]): string {
  const named = leftBehind
    .slice(0, mostNamed)
    .map(({ pid, comm, detail }) => `Process ${pid} (${comm}): ${detail}`);
  const more = leftBehind.length - named.length;
  return [...named, ...(more > 0 ? [`And ${more} more.`] : [])].join(' ');
}

function purlOfEntry(entry: PatchEntry): string {
  const { package: name, packageVersion, objectName, buildId } = entry;
  return name === '' || packageVersion === ''
    ? purlOfBuild(objectName, buildId)
    : debianPurl(name, packageVersion);
}

function purlOf({ entry, namesakes, installedVersion, name, buildId }: SurveyedObject): string {
  if (entry) return purlOfEntry(entry);
  const packageName = namesakes[0]?.package ?? '';
  if (packageName === '' || installedVersion === undefined) return purlOfBuild(name, buildId);
  return debianPurl(packageName, installedVersion);
}

/** As https://github.com/package-url/purl-spec says for `deb`. */
function debianPurl(name: string, version: string): string {
  return `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=${debianArchitecture}`;
}

function purlOfBuild(name: string, buildId: string): string {
  return `pkg:generic/${encodeURIComponent(name)}?build_id=${buildId}`;
}

/** Tells hosts apart without saying which is which. */
function hostId(root: string): string {
  try {
    return readFileSync(join(root, 'etc/machine-id'), 'utf8').trim();
  } catch {
    return hostname();
  }
}
