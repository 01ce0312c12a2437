// Public face of the review layer: what a finished patch is, whether it fits, and what it does.
export { explainPatch, type ExplainedFunction, type Explanation } from './explain.js';
export type { CodeLine } from './align.js';
export { findObject, readNamedFile, type FoundObject, type ObjectOptions } from './find-object.js';
export type { Finding } from './findings.js';
export { verifyPatch, type Verification } from './verify.js';
export { tryPatch, type CommandResult, type TrialResult } from './trial.js';
