// Loaded into a measured command (node --import): writes its largest resident size, in KiB, when it ends.
import fs from 'node:fs';

const file = process.env['KCARE_BENCH_USAGE'];
if (file !== undefined) {
  process.once('exit', () => {
    fs.writeFileSync(file, String(process.resourceUsage().maxRSS));
  });
}
