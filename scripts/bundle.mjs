// Bundles compiled commands, each with all it imports, so that a start reads a few files instead of some hundred.
// Node.js 20 has no cache of compiled modules; this halves the time until kcarectl works.
import path from 'node:path';
import { build } from 'rolldown';

const root = path.dirname(import.meta.dirname);
const commands = {
  kcarectl: 'src/cli/kcarectl.js',
  'kcare-check': 'src/cli/kcare-check.js',
  'kcare-uname': 'src/cli/kcare-uname.js',
  'kcare-uchecker': 'src/cli/kcare-uchecker.js',
  'libcare-client': 'src/cli/libcare-client.js',
  'libcare-cron': 'src/cli/libcare-cron.js',
  'libcare-server': 'src/cli/libcare-server.js',
  'libcare-worker': 'src/daemon/worker.js',
  'endure-patcher': 'bench/endure-patcher.js',
};

for (const [name, file] of Object.entries(commands)) {
  await build({
    input: path.join(root, 'dist', file),
    platform: 'node',
    logLevel: 'warn',
    output: {
      entryFileNames: `${name}.js`,
      dir: path.join(root, 'dist', 'bundle', name),
      cleanDir: true,
      format: 'esm',
      // Names stay, for the sake of stack traces.
      minify: { compress: true, mangle: false, codegen: true },
    },
  });
}
