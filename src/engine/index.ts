// Public face of the engine: one target at a time. Importable as "kcare/engine"; docs/library.md has an example.
export { apply, finishInterrupted, inspect, unload } from './apply.js';
export { tryGate, withGateClosed } from './process-lock.js';
export { interruptedProcesses } from './unfinished.js';
export type * from './report.js';
export { symbolFiles, type SymbolFile } from './symbol-files.js';
export { KcareError } from '../base/errors.js';
export { readPatch } from '../patchfile/index.js';
