// OVAL 5.11.1 definitions: a package is vulnerable while it is old and the host does not list the vulnerability as fixed.
import { createHash } from 'node:crypto';

/** What a patch fixes, as its metadata or the index of a feed says. */
export interface FixedPackage {
  readonly package: string;
  /** The version of the package from which on it is not vulnerable. */
  readonly fixedVersion: string;
  readonly cves: readonly {
    readonly id: string;
    readonly description: string;
    readonly score: string;
    readonly url: string;
  }[];
}

export interface OvalOptions {
  /** As /etc/os-release says: "debian", "12". */
  readonly distribution: string;
  readonly distributionVersion: string;
  readonly timestamp: Date;
  /** Of kcare. */
  readonly productVersion: string;
}

export interface OvalDocument {
  readonly xml: string;
  readonly definitions: number;
  /** Ids that OVAL cannot name, and those without a package or a version: no definition speaks of them. */
  readonly leftOut: readonly string[];
}

/** The name under which scanners look for the file of a distribution. */
export function ovalFileName({
  distribution,
  distributionVersion,
}: Pick<OvalOptions, 'distribution' | 'distributionVersion'>): string {
  return `com.kernelcare.${distribution}.${distributionVersion}.xml`;
}

interface Vulnerability {
  readonly id: string;
  /** Identifies the definition, the same in every document. */
  readonly number: string;
  readonly description: string;
  readonly score: string;
  readonly url: string;
  /** By package, the version with the fix. */
  readonly packages: Map<string, string>;
}

const ids = 'oval:com.kernelcare';

/**
 * A vulnerability has one definition: true ("vulnerable") when the distribution is the right one, a package is installed in
 * a version before the fixed one, and /var/cache/kcare/libcare_cvelist does not name the vulnerability.
 * The format: https://oval.mitre.org/language/version5.11/.
 */
export function ovalDocument(fixes: readonly FixedPackage[], options: OvalOptions): OvalDocument {
  const { vulnerabilities, leftOut } = collect(fixes);
  const { distribution, distributionVersion, productVersion, timestamp } = options;
  const system = [osReleaseTest(1, 'ID', distribution), osReleaseTest(2, 'VERSION_ID', distributionVersion)];
  const packages = new Map(
    vulnerabilities.flatMap(({ packages: versions }) =>
      [...versions].map(([name, version]) => [packageNumber(name, version), packageTest(name, version)]),
    ),
  );
  const parts = [...system, ...packages.values(), ...vulnerabilities.map(listTest)];
  const names = new Set(vulnerabilities.flatMap(({ packages: versions }) => [...versions.keys()]));
  const objects = [...parts.map(({ object }) => object), ...[...names].map(packageObject)];
  const states = parts.flatMap(({ state }) => state ?? []);
  const text = [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5"',
    '  xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5"',
    '  xmlns:ind="http://oval.mitre.org/XMLSchema/oval-definitions-5#independent"',
    '  xmlns:linux="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux">',
    '<generator>',
    '<oval:product_name>kcare</oval:product_name>',
    `<oval:product_version>${escape(productVersion)}</oval:product_version>`,
    '<oval:schema_version>5.11.1</oval:schema_version>',
    `<oval:timestamp>${timestamp.toISOString().slice(0, 19)}Z</oval:timestamp>`,
    '</generator>',
    ...wrapped(
      'definitions',
      vulnerabilities.map((one) => definition(one, options)),
    ),
    ...wrapped(
      'tests',
      parts.map(({ test }) => test),
    ),
    ...wrapped(
      'objects',
      objects.filter((object) => object !== ''),
    ),
    ...wrapped('states', states),
    '</oval_definitions>',
    '',
  ];
  return { xml: text.join('\n'), definitions: vulnerabilities.length, leftOut };
}

function collect(fixes: readonly FixedPackage[]): {
  readonly vulnerabilities: readonly Vulnerability[];
  readonly leftOut: readonly string[];
} {
  const byId = new Map<string, Vulnerability>();
  const leftOut = new Set<string>();
  for (const { package: name, fixedVersion, cves } of fixes) {
    for (const cve of cves) {
      const [, year, sequence] = /^CVE-(\d{4})-(\d{4,8})$/.exec(cve.id) ?? [];
      if (year === undefined || sequence === undefined || name === '' || fixedVersion === '') {
        leftOut.add(cve.id);
        continue;
      }
      const number = `${year}${sequence.padStart(8, '0')}`;
      const known = byId.get(cve.id) ?? { ...cve, number, packages: new Map<string, string>() };
      byId.set(cve.id, known);
      known.packages.set(name, fixedVersion);
    }
  }
  const vulnerabilities = [...byId.values()].sort((left, right) => (left.number < right.number ? -1 : 1));
  return { vulnerabilities, leftOut: [...leftOut].filter((id) => !byId.has(id)) };
}

/** An element may not be empty. */
function wrapped(element: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [`<${element}>`, ...lines, `</${element}>`];
}

function definition(
  { id, number, description, score, url, packages }: Vulnerability,
  { distribution, distributionVersion }: OvalOptions,
): string {
  const criterion = (test: string, comment: string): string =>
    `<criterion test_ref="${ids}:tst:${test}" comment="${escape(comment)}"/>`;
  const severity = score === '' ? '' : ` CVSS base score: ${score}.`;
  return [
    `<definition id="${ids}:def:${number}" version="1" class="vulnerability">`,
    '<metadata>',
    `<title>${escape(id)}: ${escape([...packages.keys()].join(', '))}</title>`,
    '<affected family="unix">',
    `<platform>${escape(`${distribution} ${distributionVersion}`)}</platform>`,
    ...[...packages.keys()].map((name) => `<product>${escape(name)}</product>`),
    '</affected>',
    `<reference source="CVE" ref_id="${escape(id)}"${url === '' ? '' : ` ref_url="${escape(url)}"`}/>`,
    `<description>${escape(`${description === '' ? id : description}.${severity}`)}</description>`,
    '</metadata>',
    '<criteria operator="AND">',
    criterion('1', `the distribution is ${distribution}`),
    criterion('2', `its version is ${distributionVersion}`),
    criterion(number, `kcare does not list ${id} as fixed in memory`),
    '<criteria operator="OR">',
    ...[...packages].map(([name, version]) =>
      criterion(packageNumber(name, version), `${name} is older than ${version}`),
    ),
    '</criteria>',
    '</criteria>',
    '</definition>',
  ].join('\n');
}

interface Part {
  readonly test: string;
  /** "" where several tests share one. */
  readonly object: string;
  readonly state?: string;
}

function osReleaseTest(number: number, key: string, value: string): Part {
  const pattern = `^${key}=["']?${value.replace(/[^A-Za-z0-9]/g, '\\$&')}["']?\\s*$`;
  return {
    test: fileTest(`${number}`, 'at_least_one_exists', `${key} of os-release is ${value}`),
    object: fileObject(`${number}`, '/usr/lib', 'os-release', pattern),
  };
}

function listTest({ id, number }: Vulnerability): Part {
  return {
    test: fileTest(number, 'none_exist', `${id} is not listed as fixed in memory`),
    object: fileObject(number, '/var/cache/kcare', 'libcare_cvelist', `^${id}$`),
  };
}

function fileTest(number: string, existence: string, comment: string): string {
  return [
    `<ind:textfilecontent54_test id="${ids}:tst:${number}" version="1" check="all" check_existence="${existence}" comment="${escape(comment)}">`,
    `<ind:object object_ref="${ids}:obj:${number}"/>`,
    '</ind:textfilecontent54_test>',
  ].join('\n');
}

function fileObject(number: string, path: string, file: string, pattern: string): string {
  return [
    `<ind:textfilecontent54_object id="${ids}:obj:${number}" version="1">`,
    `<ind:path>${path}</ind:path>`,
    `<ind:filename>${file}</ind:filename>`,
    `<ind:pattern operation="pattern match">${escape(pattern)}</ind:pattern>`,
    '<ind:instance datatype="int" operation="greater than or equal">1</ind:instance>',
    '</ind:textfilecontent54_object>',
  ].join('\n');
}

function packageTest(name: string, version: string): Part {
  const number = packageNumber(name, version);
  const evr = /^\d+:/.test(version) ? version : `0:${version}`;
  return {
    test: [
      `<linux:dpkginfo_test id="${ids}:tst:${number}" version="1" check="all" check_existence="at_least_one_exists" comment="${escape(`${name} is older than ${version}`)}">`,
      `<linux:object object_ref="${ids}:obj:${hashNumber(name)}"/>`,
      `<linux:state state_ref="${ids}:ste:${number}"/>`,
      '</linux:dpkginfo_test>',
    ].join('\n'),
    object: '',
    state: [
      `<linux:dpkginfo_state id="${ids}:ste:${number}" version="1">`,
      `<linux:evr datatype="debian_evr_string" operation="less than">${escape(evr)}</linux:evr>`,
      '</linux:dpkginfo_state>',
    ].join('\n'),
  };
}

function packageObject(name: string): string {
  return [
    `<linux:dpkginfo_object id="${ids}:obj:${hashNumber(name)}" version="1">`,
    `<linux:name>${escape(name)}</linux:name>`,
    '</linux:dpkginfo_object>',
  ].join('\n');
}

function packageNumber(name: string, version: string): string {
  return hashNumber(`${name} ${version}`);
}

/** The same for the same text, and longer than the number of any vulnerability. */
function hashNumber(text: string): string {
  return `9${createHash('sha256').update(text).digest().readUIntBE(0, 6).toString().padStart(15, '0')}`;
}

/** Text for an element or an attribute; what XML cannot hold is dropped. */
function escape(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
  };
  return text
    .replace(/[&<>"]/g, (character) => entities[character] ?? '')
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '');
}
