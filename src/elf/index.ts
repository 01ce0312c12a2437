// Public face of the ELF layer.
export * from './constants.js';
export * from './file.js';
export * from './linkage.js';
export * from './notes.js';
export { ByteReader, stringAt } from './reader.js';
export * from './symbols.js';
export type * from './types.js';
export * from './dwarf-expression.js';
export * from './eh-frame.js';
export * from './frame-header.js';
export * from './frame-rules.js';
