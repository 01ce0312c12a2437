// Numbers of the ELF gABI and the x86-64 psABI that we use, by their standard names.

export const fileType = { relocatable: 1, executable: 2, shared: 3 } as const;
export const machineX86_64 = 62;

export const sectionType = {
  null: 0,
  progbits: 1,
  symtab: 2,
  strtab: 3,
  rela: 4,
  hash: 5,
  dynamic: 6,
  note: 7,
  nobits: 8,
  dynsym: 11,
  initArray: 14,
  finiArray: 15,
  preinitArray: 16,
  symtabShndx: 18,
  relr: 19,
  x86Unwind: 0x70000001,
  gnuVerdef: 0x6ffffffd,
  gnuVerneed: 0x6ffffffe,
  gnuVersym: 0x6fffffff,
} as const;

export const sectionFlag = {
  write: 1,
  alloc: 2,
  execute: 4,
  merge: 0x10,
  strings: 0x20,
  infoLink: 0x40,
  group: 0x200,
  tls: 0x400,
  /** SHF_RELA_LIVEPATCH of the kernel: relocations that it applies itself, when their object is loaded. */
  livePatchRelocations: 0x100000,
} as const;

export const sectionIndex = {
  undefined: 0,
  firstReserved: 0xff00,
  /** SHN_LIVEPATCH of the kernel: it resolves the symbol itself. */
  livePatch: 0xff20,
  absolute: 0xfff1,
  common: 0xfff2,
  extended: 0xffff,
} as const;

export const segmentType = {
  load: 1,
  dynamic: 2,
  interpreter: 3,
  note: 4,
  tls: 7,
  gnuEhFrame: 0x6474e550,
  gnuRelro: 0x6474e552,
} as const;
export const segmentFlag = { execute: 1, write: 2, read: 4 } as const;

/** Relocation types of the x86-64 psABI, table 4.10. */
export const relocationType = {
  none: 0,
  abs64: 1,
  pc32: 2,
  got32: 3,
  plt32: 4,
  copy: 5,
  globDat: 6,
  jumpSlot: 7,
  relative: 8,
  gotPcRel: 9,
  abs32: 10,
  abs32Signed: 11,
  dtpMod64: 16,
  dtpOff64: 17,
  tpOff64: 18,
  tlsGd: 19,
  tlsLd: 20,
  dtpOff32: 21,
  gotTpOff: 22,
  tpOff32: 23,
  pc64: 24,
  gotPc32: 26,
  size32: 32,
  gotPc32TlsDesc: 34,
  tlsDescCall: 35,
  tlsDesc: 36,
  iRelative: 37,
  gotPcRelX: 41,
  rexGotPcRelX: 42,
} as const;

const relocationNames = new Map<number, string>(
  Object.entries(relocationType).map(([name, type]) => [type, name]),
);

export function relocationName(type: number): string {
  return relocationNames.get(type) ?? `type ${type}`;
}

export const symbolBindings = ['local', 'global', 'weak'] as const;
export const symbolTypes = ['none', 'object', 'function', 'section', 'file', 'common', 'tls'] as const;
export const gnuIfunc = 10;
export const symbolVisibility = { default: 0, internal: 1, hidden: 2, protected: 3 } as const;

export const noteType = { gnuBuildId: 3 } as const;
export const dynamicTag = {
  needed: 1,
  pltRelocationsSize: 2,
  hash: 4,
  stringTable: 5,
  symbolTable: 6,
  relocations: 7,
  relocationsSize: 8,
  stringTableSize: 10,
  soname: 14,
  symbolic: 16,
  debug: 21,
  pltRelocations: 23,
  bindNow: 24,
  flags: 30,
  gnuHash: 0x6ffffef5,
  versionIndexes: 0x6ffffff0,
  flags1: 0x6ffffffb,
  versionDefinitions: 0x6ffffffc,
  versionNeeds: 0x6ffffffe,
} as const;
/** DT_FLAGS and DT_FLAGS_1. */
export const dynamicFlag = { symbolic: 2, bindNow: 8 } as const;
export const dynamicFlag1 = { now: 1, pie: 0x08000000 } as const;
