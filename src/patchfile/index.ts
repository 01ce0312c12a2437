// Public face of the patch file layer.
export { checkPatch } from './check.js';
export {
  encodeRelocations,
  encodeSymbols,
  StringTable,
  writeElf,
  writeSections,
  type SectionToWrite,
  type SectionWithLinks,
  type SymbolRecord,
  type SymbolToWrite,
} from './elf-writer.js';
export {
  constantSections,
  fileExtension,
  formatVersions,
  hookKinds,
  limits,
  loadedSections,
} from './format.js';
export { jumpCrossesPage, jumpOffset, jumpSize } from './jump.js';
export {
  kernelModuleExtension,
  kernelModulePrefix,
  levelOfModule,
  readKernelModule,
  type KernelCve,
  type KernelModule,
} from './kernel-module.js';
export type * from './model.js';
export { readPatch } from './read.js';
export { writePatch } from './write.js';
