// Public face of the engine: one target at a time. Importable as "kcare/engine"; docs/library.md has an example.
export { apply, inspect, unload } from './apply.js';
export type * from './report.js';
export { KcareError } from '../base/errors.js';
export { readPatch } from '../patchfile/index.js';
