// Reads the map that the GNU linker writes with -Map: which section of which input it put at which address.
// Format: ld manual, "Command-line Options", -Map; binutils' ld/ldlang.c prints it.

export interface PlacedSection {
  readonly name: string;
  readonly address: number;
  readonly size: number;
}

export interface LinkMap {
  /** Files in the order in which the linker read them. */
  readonly loaded: readonly string[];
  /** By input as the linker names it, a path or `archive(member)`: its sections, in the order of the output. */
  readonly inputs: ReadonlyMap<string, readonly PlacedSection[]>;
}

const memoryMap = /^Linker script and memory map$/m;
const place = String.raw`0x([0-9a-f]+) +0x([0-9a-f]+) (\S.*)`;
const whole = new RegExp(String.raw`^ (\S+) +${place}$`);
const second = new RegExp(String.raw`^ {16,}${place}$`);
const first = /^ (\S+)$/;

/** Undefined when `text` is not a map of the GNU linker. Sections that were thrown away are not in it. */
export function parseLinkMap(text: string): LinkMap | undefined {
  const start = memoryMap.exec(text);
  if (!start) return undefined;
  const inputs = new Map<string, PlacedSection[]>();
  let pending: string | undefined;
  for (const line of text.slice(start.index).split('\n')) {
    const oneLine = whole.exec(line);
    const [name, address, size, file] = oneLine
      ? oneLine.slice(1)
      : [pending, ...(second.exec(line)?.slice(1) ?? [])];
    pending = first.exec(line)?.[1];
    if (name === undefined || address === undefined || size === undefined || file === undefined) continue;
    const section = { name, address: parseInt(address, 16), size: parseInt(size, 16) };
    if (section.size === 0) continue;
    const sections = inputs.get(file);
    if (sections) sections.push(section);
    else inputs.set(file, [section]);
  }
  const loaded = [...text.matchAll(/^LOAD (.+)$/gm)].map(([, file = '']) => file);
  return { loaded, inputs };
}
