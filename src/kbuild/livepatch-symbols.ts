// Symbols that the kernel resolves for live patches, and the names that stand for them until the module is linked.

/** A symbol that modules may not refer to. */
export interface LivePatchSymbol {
  /** `vmlinux` or the module; when it is loaded, the reference is resolved. */
  readonly patched: string;
  /** `vmlinux` or the module that has the symbol. */
  readonly owner: string;
  readonly name: string;
  /** See KernelSymbol. */
  readonly position: number;
}

const prefix = 'kcare.livepatch/';

/** The name of an undefined symbol that the linker leaves alone. */
export function livePatchPlaceholder({ patched, owner, name, position }: LivePatchSymbol): string {
  return `${prefix}${patched}/${owner}/${position}/${name}`;
}

/** Undefined for the name of any other symbol. */
export function parsePlaceholder(text: string): LivePatchSymbol | undefined {
  const [, patched, owner, position, name] =
    /^kcare\.livepatch\/([^/]+)\/([^/]+)\/(\d+)\/(.+)$/.exec(text) ?? [];
  if (patched === undefined || owner === undefined || name === undefined) return undefined;
  return { patched, owner, name, position: Number(position) };
}

/** https://docs.kernel.org/livepatch/module-elf-format.html, "Livepatch symbols". */
export const livePatchSymbolName = ({ owner, name, position }: LivePatchSymbol): string =>
  `.klp.sym.${owner}.${name},${position}`;

/** The same page, "Livepatch relocation sections". */
export const livePatchSectionName = (patched: string, section: string): string =>
  `.klp.rela.${patched}.${section.replace(/^\./, '')}`;
