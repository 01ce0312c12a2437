// Types of the part of the elfy package (1.0.0) that we use.
declare module 'elfy' {
  interface Section {
    name: string;
    off: number;
    size: number;
    addr: number;
    link: number;
    info: number;
  }
  interface Program {
    offset: number;
    vaddr: number;
    filesz: number;
    memsz: number;
    align: number;
  }
  interface Elf {
    class: '32' | '64';
    endian: 'lsb' | 'msb';
    type?: string;
    machine?: string;
    entry: number;
    phoff: number;
    phnum: number;
    phentsize: number;
    shoff: number;
    shnum: number;
    shentsize: number;
    body: { sections: Section[]; programs: Program[] };
  }
  const elfy: { parse(bytes: Buffer): Elf };
  export default elfy;
}
