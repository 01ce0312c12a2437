// Loaded into a measured command (node --require): writes at its end what it used, as JSON.
import fs = require('node:fs');

const file = process.env['KCARE_BENCH_USAGE'];
if (file !== undefined) {
  process.once('exit', () => {
    const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
    fs.writeFileSync(file, JSON.stringify({ kibibytes: maxRSS, cpuUs: userCPUTime + systemCPUTime }));
  });
}
