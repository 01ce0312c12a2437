// The typed model of an ELF file. Offsets and sizes are bytes; virtual addresses are before the load bias.

export interface ElfSection {
  readonly index: number;
  readonly name: string;
  /** sh_type, e.g. 1 PROGBITS, 2 SYMTAB, 4 RELA, 7 NOTE, 8 NOBITS, 11 DYNSYM. */
  readonly type: number;
  /** sh_flags: 1 write, 2 alloc, 4 execute, 0x10 merge, 0x20 strings, 0x400 TLS. */
  readonly flags: number;
  readonly address: number;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
  readonly info: number;
  readonly alignment: number;
  readonly entrySize: number;
  /** Contents; empty for NOBITS. A view, not a copy. */
  readonly bytes: Uint8Array;
}

export interface ElfSegment {
  /** p_type, e.g. 1 LOAD, 2 DYNAMIC, 4 NOTE, 7 TLS. */
  readonly type: number;
  /** p_flags: 1 execute, 2 write, 4 read. */
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly fileSize: number;
  readonly memorySize: number;
  readonly alignment: number;
}

export interface ElfSymbol {
  readonly index: number;
  readonly name: string;
  readonly value: number;
  readonly size: number;
  readonly binding: 'local' | 'global' | 'weak' | 'other';
  readonly type: 'none' | 'object' | 'function' | 'section' | 'file' | 'common' | 'tls' | 'ifunc' | 'other';
  readonly visibility: number;
  /** st_shndx: 0 undefined, 0xfff1 absolute, 0xfff2 common; extended indexes are resolved. */
  readonly sectionIndex: number;
  /** GNU symbol version, "" when there is none. */
  readonly version: string;
  /** The version is the default one (name@@version). */
  readonly versionIsDefault: boolean;
}

export interface ElfRelocation {
  readonly offset: number;
  readonly type: number;
  readonly symbolIndex: number;
  readonly addend: number;
}

export interface ElfFile {
  readonly bytes: Uint8Array;
  /** e_type: 1 REL, 2 EXEC, 3 DYN. */
  readonly type: number;
  readonly machine: number;
  readonly entry: number;
  readonly sections: readonly ElfSection[];
  readonly segments: readonly ElfSegment[];
}

export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly description: Uint8Array;
}
