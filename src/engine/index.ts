// Public face of the engine: one target at a time.
export { apply, inspect, unload } from './apply.js';
export type * from './report.js';
