// Prints "N passed, N failed, N skipped" from the JSON report of vitest; fails when there is no report or no test passed.
import fs from 'node:fs';

function readFiles(report) {
  try {
    return JSON.parse(fs.readFileSync(report, 'utf8')).testResults;
  } catch {
    // The run died before it could report: that is one failure, not none.
    return [{ status: 'failed', assertionResults: [] }];
  }
}

const counts = { passed: 0, failed: 0, skipped: 0 };
for (const { status, assertionResults } of readFiles(process.argv[2])) {
  for (const test of assertionResults) {
    counts[test.status === 'passed' || test.status === 'failed' ? test.status : 'skipped']++;
  }
  // A file that could not be loaded, or whose hooks failed, has no failed test of its own.
  if (status === 'failed' && !assertionResults.some((test) => test.status === 'failed')) counts.failed++;
}
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0;
