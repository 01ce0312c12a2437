// Public face of the checker: which processes execute what is not up to date, and whether this host is covered.
export { readKnownFixes, type FeedKnowledge } from './known-fixes.js';
export type { OutdatedObject, OutdatedProcess, ScanReport, UnexaminedProcess } from './report.js';
export { scan, type ScanOptions } from './scan.js';
