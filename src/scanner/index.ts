// What scanners, monitoring and support want to know about this host.
export {
  cveListPath,
  cveListReport,
  fixedCves,
  hostTruth,
  withCveList,
  writeCveList,
  type CveListReport,
  type HostTruth,
} from './cve-list.js';
export { hostMetrics, metricsText, type Metric, type Sample } from './metrics.js';
export { knownFixes, type KnownFixes } from './known-fixes.js';
export { osRelease } from './os-release.js';
export {
  ovalDocument,
  ovalFileName,
  type FixedPackage,
  type OvalDocument,
  type OvalOptions,
} from './oval.js';
export { vexDocument, type VexDocument, type VexStatement } from './vex.js';
export { examineHost, type DoctorReport, type Section } from './doctor.js';
export { keepReport, reportUrl, uploadReport } from './send-report.js';
