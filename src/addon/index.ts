// Typed door to the native engine (addon/): validates in TypeScript, one C++ file marshals.
export type * from './types.js';
